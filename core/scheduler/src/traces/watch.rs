//! How the thread that decides hands spans in: it shows each effect, and waits for nothing.

use std::collections::BTreeMap;

use gantry_cluster::{Cluster, Effect, TryEnd};
use gantry_model::{At, JobId, JobRow, Launch, Order, TaskId};

use super::sender::Outbox;
use super::spans::{self, Trace};

/// Executions of one job that have spans, of those that ended well and of the others: a collector
/// takes traces of some megabytes, and a span is half a kilobyte.
const TRIES_MAX: u32 = 1000;

/// The variable in which a program looks for the span that it is below.
const VARIABLE: &str = "TRACEPARENT";

/// What is known of jobs that have not ended. It holds an entry only where the cluster holds a greater one.
/// A scheduler that has just been started knows none: then the wait before a further start has no
/// span.
pub(crate) struct Watch {
    cluster: String,
    outbox: Outbox,
    /// Since when tasks wait for a further start.
    waits: BTreeMap<TaskId, At>,
    /// The jobs that tasks were stopped for.
    preempted: BTreeMap<TaskId, JobId>,
    told: BTreeMap<JobId, Told>,
}

/// The executions of a job so far.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    well: u32,
    ill: u32,
    left_out: u32,
}

impl Told {
    /// Counts one more; says whether it has spans.
    fn count(&mut self, end: &TryEnd) -> bool {
        let count = if end.exit.is_success() { &mut self.well } else { &mut self.ill };
        let is_told = *count < TRIES_MAX;
        *count += u32::from(is_told);
        self.left_out += u32::from(!is_told);
        is_told
    }
}

impl Watch {
    pub(super) fn new(cluster: String, outbox: Outbox) -> Self {
        let (waits, preempted, told) = Default::default();
        Self { cluster, outbox, waits, preempted, told }
    }

    /// Takes note of what is about to be carried out. A launch gets the context of its span, where its
    /// owner has not set one.
    pub(crate) fn see(&mut self, at: At, cluster: &Cluster, effect: &mut Effect) {
        match effect {
            Effect::Order { order: Order::Launch(launch) | Order::Ahead(launch), .. } => {
                self.tell_parent(cluster, launch);
            }
            Effect::Preempted { task, by } => {
                self.preempted.insert(*task, *by);
            }
            Effect::TryEnded(end) => self.try_ended(at, end),
            Effect::JobEnded(row) => self.job_ended(row),
            Effect::Order { .. } | Effect::Reply { .. } | Effect::Note(_) | Effect::Wake(_) => {}
        }
    }

    fn tell_parent(&self, cluster: &Cluster, launch: &mut Launch) {
        let Some(submitted) = cluster.submitted(launch.task.job) else { return };
        let trace = Trace::of(&self.cluster, launch.task.job, submitted);
        launch.environment.entry(VARIABLE.into()).or_insert_with(|| trace.parent(launch.try_id));
    }

    fn try_ended(&mut self, at: At, end: &TryEnd) {
        let waited = match end.start {
            1 => Some(end.submitted),
            _ => self.waits.remove(&end.task),
        };
        let preempted_by = self.preempted.remove(&end.task);
        if !end.then.is_ended() {
            self.waits.insert(end.task, at);
        }
        if self.told.entry(end.task.job).or_default().count(end) {
            if let Some(since) = waited {
                self.outbox.offer(spans::of_wait(&self.cluster, end, since));
            }
            self.outbox.offer(spans::of_try(&self.cluster, end, at, preempted_by));
        }
    }

    fn job_ended(&mut self, row: &JobRow) {
        forget(&mut self.waits, row.job);
        forget(&mut self.preempted, row.job);
        let told = self.told.remove(&row.job).unwrap_or_default();
        self.outbox.offer(spans::of_job(&self.cluster, row, told.left_out));
    }
}

/// Removes what is known of a job's tasks.
fn forget<T>(known: &mut BTreeMap<TaskId, T>, job: JobId) {
    let tasks: Vec<TaskId> =
        known.range(job.task(0)..=job.task(u32::MAX)).map(|(task, _)| *task).collect();
    for task in tasks {
        known.remove(&task);
    }
}

#[cfg(test)]
mod tests;
