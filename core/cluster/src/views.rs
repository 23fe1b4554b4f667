//! What the cluster shows of itself. Reading changes nothing.

use std::collections::BTreeSet;

use gantry_model::{
    JobId, JobRow, JobState, NodeRow, NodeState, Summary, TaskId, TaskRow, TaskState,
};

use crate::cluster::Cluster;
use crate::job::Job;
use crate::node::Node;

/// Names of nodes in one row.
const NODES_SHOWN_MAX: usize = 8;

impl Cluster {
    /// A page of jobs, newest first, older than `before`; and whether further ones exist.
    #[must_use]
    pub fn jobs(&self, before: Option<JobId>, ended: bool, limit: usize) -> (Vec<JobRow>, bool) {
        let end = before.unwrap_or(JobId(u64::MAX));
        let mut wanted = self
            .jobs
            .range(..end)
            .rev()
            .map(|(_, job)| job)
            .filter(|job| ended || !job.state().is_ended());
        let rows = wanted.by_ref().take(limit).map(|job| self.row(job)).collect();
        (rows, wanted.next().is_some())
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<JobRow> {
        self.jobs.get(&id).map(|job| self.row(job))
    }

    /// A page of a job's tasks from an index on; and whether further ones exist.
    #[must_use]
    pub fn tasks(&self, id: JobId, from: u32, limit: usize) -> Option<(Vec<TaskRow>, bool)> {
        let job = self.jobs.get(&id)?;
        let indices = job.spec.indices();
        let mut wanted = indices.iter().filter(|index| *index >= from);
        let rows = wanted.by_ref().take(limit).map(|index| task_row(job, index)).collect();
        Some((rows, wanted.next().is_some()))
    }

    /// Every node.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeRow> {
        self.nodes.values().map(node_row).collect()
    }

    /// The node that a task runs on, or ran on last.
    #[must_use]
    pub fn task_node(&self, task: TaskId) -> Option<String> {
        self.jobs.get(&task.job)?.tasks.get(&task.index)?.node.clone()
    }

    /// Whether a job has an element with this index.
    #[must_use]
    pub fn has_task(&self, task: TaskId) -> bool {
        self.jobs.get(&task.job).is_some_and(|job| job.spec.indices().contains(task.index))
    }

    /// The numbers of the first line of every screen.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut sum = Summary { nodes: self.nodes.len() as u32, ..Summary::default() };
        for node in self.nodes.values().filter(|node| node.state == NodeState::Up) {
            let used = node.held();
            sum.nodes_up += 1;
            sum.cores += node.facts.resources.cores;
            sum.gpus += node.facts.resources.gpus;
            sum.cores_used += used.cores;
            sum.gpus_used += used.gpus;
        }
        for job in self.jobs.values() {
            match job.state() {
                JobState::Run => sum.jobs_run += 1,
                JobState::Wait => sum.jobs_wait += 1,
                JobState::Fail => sum.jobs_fail += 1,
                JobState::Done | JobState::Cancel => sum.jobs_ended += 1,
            }
        }
        sum
    }

    /// The nodes that are up. A scheduler that has just been started has heard none of them yet,
    /// and says so by an event for each.
    #[must_use]
    pub fn up_nodes(&self) -> Vec<String> {
        let up = self.nodes.values().filter(|node| node.state == NodeState::Up);
        up.map(|node| node.facts.name.clone()).collect()
    }

    /// Why a job waits, or why it ended as it did.
    fn reason(&self, job: &Job) -> Option<String> {
        if job.state() != JobState::Wait || job.blocked {
            return job.reason.clone();
        }
        let class = self.queue.get(&job.kind).filter(|class| class.jobs.contains(&job.place()));
        let reason = class.map(|class| class.reason.as_str());
        Some(reason.unwrap_or("waits out the time after a failure").to_owned())
    }

    fn row(&self, job: &Job) -> JobRow {
        let state = job.state();
        let live = job.tasks.values().filter(|task| task.state.live().is_some());
        let running: BTreeSet<&String> = live.filter_map(|task| task.node.as_ref()).collect();
        let shown = if running.is_empty() {
            job.tasks.values().filter_map(|task| task.node.as_ref()).collect()
        } else {
            running
        };
        let failed = job.tasks.values().find(|task| matches!(task.state, TaskState::Failed(_)));
        let exit = match state {
            JobState::Fail => failed.and_then(|task| task.exit.clone()),
            JobState::Done => Some(gantry_model::Exit::Code(0)),
            _ => None,
        };
        JobRow {
            job: job.id,
            name: job.spec.name.clone(),
            user: job.user.clone(),
            kind: job.kind_word().to_owned(),
            state,
            tasks: job.counts,
            resources: job.spec.resources,
            nodes: shown.into_iter().take(NODES_SHOWN_MAX).cloned().collect(),
            submitted: job.submitted,
            started: job.started,
            ended: job.ended,
            time_limit: job.spec.time_limit,
            starts: job.tasks.values().map(|task| task.starts).sum(),
            reason: self.reason(job),
            exit,
        }
    }
}

fn task_row(job: &Job, index: u32) -> TaskRow {
    let task = job.tasks.get(&index);
    TaskRow {
        task: job.id.task(index),
        state: task.map_or(TaskState::Waiting.word(), |task| task.state.word()).to_owned(),
        node: task.and_then(|task| task.node.clone()),
        starts: task.map_or(0, |task| task.starts),
        exit: task.and_then(|task| task.exit.clone()),
    }
}

fn node_row(node: &Node) -> NodeRow {
    let mut gpu_jobs = vec![None; node.facts.gpus.len()];
    for live in node.live.values() {
        for gpu in &live.lease.gpus {
            if let Some(slot) = gpu_jobs.get_mut(usize::from(*gpu)) {
                *slot = Some(live.task.job);
            }
        }
    }
    NodeRow {
        node: node.id,
        facts: node.facts.clone(),
        state: node.state,
        since: node.since,
        used: node.held(),
        tasks: node.live.len() as u32,
        gpu_jobs,
    }
}
