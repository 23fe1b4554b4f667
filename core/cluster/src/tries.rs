//! What nodes report of tries, and what follows: running, done, again, or failed.

use gantry_model::{At, Exit, Millis, Order, Report, Subject, TaskId, TaskState, TryId};

use crate::cluster::{Cluster, note};
use crate::event::Effect;

/// The wait before the second start; it doubles with each failure up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Millis = Millis::from_seconds(1);
const BACKOFF_MAX: Millis = Millis::from_seconds(60);

impl Cluster {
    pub(crate) fn report(&mut self, at: At, node: &str, report: Report, effects: &mut Vec<Effect>) {
        match report {
            Report::Started { try_id } => self.started(at, node, try_id),
            Report::Ended { try_id, exit } => {
                self.ended(at, node, try_id, &exit, effects);
                // Also for a try that is long forgotten: the node repeats it until it hears this.
                let order = Order::Acknowledge { try_id };
                effects.push(Effect::Order { node: node.to_owned(), order });
            }
        }
    }

    fn started(&mut self, at: At, node: &str, try_id: TryId) {
        let Some(task) = self.live_task(node, try_id) else { return };
        let Some(job) = self.jobs.get_mut(&task.job) else { return };
        if let Some(TaskState::Starting { node, .. }) =
            job.tasks.get(&task.index).map(|task| &task.state)
        {
            let next = TaskState::Running { node: *node, try_id, since: at };
            job.step(task.index, &next);
        }
    }

    fn live_task(&self, node: &str, try_id: TryId) -> Option<TaskId> {
        Some(self.nodes.get(node)?.live.get(&try_id)?.task)
    }

    fn ended(&mut self, at: At, name: &str, try_id: TryId, exit: &Exit, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.strays.remove(&try_id);
        let Some(live) = node.take_back(try_id) else { return };
        self.conclude(at, live.task, exit, effects);
    }

    /// Decides what the end of a task's live try means.
    pub(crate) fn conclude(&mut self, at: At, id: TaskId, exit: &Exit, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let retries = u32::from(job.spec.retries);
        let Some(task) = job.touch(id.index) else { return };
        let stopping = matches!(task.state, TaskState::Stopping { .. });
        let lost = *exit == Exit::NodeLost;
        task.exit = Some(exit.clone());
        let next = if exit.is_success() {
            TaskState::Done
        } else if stopping {
            TaskState::Cancelled
        } else if lost {
            TaskState::Waiting
        } else {
            task.failures += 1;
            if task.failures <= retries {
                TaskState::Waiting
            } else {
                TaskState::Failed(exit.clone())
            }
        };
        if next == TaskState::Waiting && !lost {
            let doubled = BACKOFF_FIRST.0 << (task.failures - 1).min(16);
            task.ready = at.after(Millis(doubled.min(BACKOFF_MAX.0)));
            self.backoffs.insert((task.ready, id));
        }
        let failed = matches!(next, TaskState::Failed(_));
        job.step(id.index, &next);
        if lost && next == TaskState::Waiting {
            job.again.insert(id.index);
        }
        if failed && job.counts.fail == 1 {
            job.reason = Some(exit.to_string());
        }
        self.requeue(id.job);
        if lost && next == TaskState::Waiting {
            let sentence = "queued again: its node was lost";
            effects.push(note(at, gantry_model::Level::Warn, Subject::Task(id), sentence));
        }
        self.end_of_job(at, id.job, effects);
    }
}
