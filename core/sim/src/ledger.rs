//! What really happened, and what was promised to whom: the other side of every check.
//!
//! The machines never see it. It knows every process that ran, every answer that left and every
//! end that was acknowledged, and says so when one of them is betrayed.

use std::collections::{BTreeMap, BTreeSet};

use gantry_cluster::Cluster;
use gantry_model::{JobId, JobRow, JobSpec, JobState, TaskId, TryId};
use gantry_node::End;

use crate::trace::name;

/// What is written down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Jobs whose submit was answered, by user and key.
    keys: BTreeMap<(String, String), JobId>,
    /// What they ask for, until they have ended.
    pub(crate) jobs: BTreeMap<JobId, JobSpec>,
    pub(crate) jobs_ended: BTreeSet<JobId>,
    /// The newest try of each task that was ordered.
    pub(crate) newest: BTreeMap<TaskId, TryId>,
    pub(crate) told_to_stop: BTreeSet<TryId>,
    /// Tries on nodes that were called lost.
    pub(crate) given_up: BTreeSet<TryId>,
    /// Tries that were ever started as a process.
    started: BTreeSet<TryId>,
    /// The task of each try that was ordered.
    tasks: BTreeMap<TryId, TaskId>,
    /// The processes of each task that live now.
    running: BTreeMap<TaskId, Vec<(usize, TryId)>>,
    /// Tasks of which a process ended well.
    succeeded: BTreeSet<TaskId>,
    /// Tries that ended well, whose end is safe on their node.
    safe: BTreeSet<TryId>,
    /// Tasks whose end was acknowledged, and how they stood then.
    finished: BTreeMap<TaskId, String>,
}

impl Ledger {
    /// A submit was answered.
    pub(crate) fn submitted(
        &mut self,
        user: &str,
        key: &str,
        job: JobId,
        spec: &JobSpec,
    ) -> Result<(), String> {
        let before = self.keys.insert((user.to_owned(), key.to_owned()), job);
        if let Some(before) = before.filter(|before| *before != job) {
            return Err(format!("{before} and {job} have the same key {key} of {user}"));
        }
        if !self.jobs_ended.contains(&job) {
            self.jobs.insert(job, spec.clone());
        }
        Ok(())
    }

    /// The order to launch a try leaves the scheduler.
    pub(crate) fn launched(&mut self, task: TaskId, try_id: TryId) -> Result<(), String> {
        if let Some(word) = self.finished.get(&task) {
            return Err(format!(
                "{task} is launched as {try_id}; its end ({word}) was acknowledged"
            ));
        }
        if self.jobs_ended.contains(&task.job) {
            return Err(format!("{task} is launched as {try_id}; its job has ended"));
        }
        self.tasks.insert(try_id, task);
        let before = self.newest.insert(task, try_id);
        if before.is_some_and(|before| before >= try_id) {
            return Err(format!("{task} is launched as {try_id} after {before:?}"));
        }
        Ok(())
    }

    /// An end is safe on its node.
    pub(crate) fn is_safe(&mut self, end: &End) {
        if end.exit.is_success() {
            self.safe.insert(end.try_id);
        }
    }

    /// A try of a task that ended well and whose end is safe, where it is the newest.
    pub(crate) fn safe_end(&self, task: TaskId) -> Option<TryId> {
        self.newest.get(&task).copied().filter(|try_id| self.safe.contains(try_id))
    }

    /// The task of a try.
    pub(crate) fn task_of(&self, try_id: TryId) -> Option<TaskId> {
        self.tasks.get(&try_id).copied()
    }

    /// Whether another try of its task may run beside a try: it was told to stop, or was out of
    /// reach for so long that it was given up.
    pub(crate) fn is_fenced(&self, try_id: TryId) -> bool {
        self.told_to_stop.contains(&try_id) || self.given_up.contains(&try_id)
    }

    /// The other live processes of a task.
    pub(crate) fn others(&self, task: TaskId, try_id: TryId) -> Vec<(usize, TryId)> {
        let all = self.running.get(&task).map(Vec::as_slice).unwrap_or_default();
        all.iter().copied().filter(|(_, other)| *other != try_id).collect()
    }

    /// A process begins.
    pub(crate) fn began(
        &mut self,
        server: usize,
        task: TaskId,
        try_id: TryId,
    ) -> Result<(), String> {
        self.running.entry(task).or_default().push((server, try_id));
        if self.started.insert(try_id) {
            return Ok(());
        }
        Err(format!("{try_id} of {task} is started a second time, on {}", name(server)))
    }

    /// A process is gone.
    pub(crate) fn gone(&mut self, task: TaskId, try_id: TryId, how: Gone) {
        if how == Gone::Well {
            self.succeeded.insert(task);
        }
        if let Some(live) = self.running.get_mut(&task) {
            live.retain(|(_, other)| *other != try_id);
            if live.is_empty() {
                self.running.remove(&task);
            }
        }
    }

    /// The end of a try is acknowledged: how its task stands then is a promise if it has ended.
    pub(crate) fn acknowledged(&mut self, cluster: &Cluster, task: TaskId) {
        if let Some(word) = ended_word(cluster, task) {
            self.finished.insert(task, word);
        }
    }

    /// The cluster says that a job has ended.
    pub(crate) fn job_ended(&mut self, row: &JobRow) -> Result<(), String> {
        let job = row.job;
        if !self.jobs_ended.insert(job) {
            return Err(format!("{job} has ended twice"));
        }
        let spec = self.jobs.remove(&job);
        let (first, last) = (job.task(0), job.task(u32::MAX));
        let finished: Vec<TaskId> = self.finished.range(first..=last).map(|(id, _)| *id).collect();
        for task in finished {
            self.finished.remove(&task);
        }
        if row.tasks.total() != row.tasks.ended() || !row.state.is_ended() {
            return Err(format!("{job} has ended and {:?} of its tasks are open", row.tasks));
        }
        let Some(spec) = spec.filter(|_| row.state == JobState::Done) else { return Ok(()) };
        match spec.indices().iter().find(|index| !self.succeeded.contains(&job.task(*index))) {
            Some(index) => Err(format!("{job} is done and {job}.{index} never ended well")),
            None => Ok(()),
        }
    }

    /// Holds a cluster that was made from its journal against what was promised.
    pub(crate) fn promises(&self, cluster: &Cluster) -> Result<(), String> {
        if let Some(job) = self.jobs.keys().find(|job| cluster.job(**job).is_none()) {
            return Err(format!("{job} was answered and is not known after a crash"));
        }
        for (task, word) in &self.finished {
            let now = ended_word(cluster, *task);
            if now.as_ref() != Some(word) {
                return Err(format!(
                    "{task} was acknowledged as {word} and is {now:?} after a crash"
                ));
            }
        }
        Ok(())
    }
}

/// How a process went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Well,
    Badly,
}

/// The word for how a task has ended, if it has. A rank that has arrived may start again.
fn ended_word(cluster: &Cluster, task: TaskId) -> Option<String> {
    let (rows, _) = cluster.tasks(task.job, task.index, 1)?;
    let row = rows.into_iter().find(|row| row.task == task)?;
    matches!(row.state.as_str(), "done" | "fail" | "cancel").then_some(row.state)
}
