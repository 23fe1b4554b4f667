//! What the cluster shows of itself. Reading changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use gantry_model::health::Ailment;
use gantry_model::resources::GPU_WHOLE;
use gantry_model::{
    At, Exit, GpuPart, IndexSet, JobId, JobRow, JobSpec, JobState, NodeId, NodeRow, NodeState,
    OwnerRow, Reject, Summary, TaskCounts, TaskId, TaskRow, TaskState, Window,
};

use crate::changes::shortened;
use crate::cluster::Cluster;
use crate::job::{Job, slot};
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

    /// Some elements of a job, as a row of a job that has those alone.
    ///
    /// # Errors
    /// Where there is no such job, or it has none of the elements.
    pub fn part(&self, id: JobId, indices: &IndexSet) -> Result<JobRow, Reject> {
        let job = self.known(id)?;
        let mut counts = TaskCounts::default();
        for state in indices.iter().filter_map(|index| job.task_state(index)) {
            *slot(&mut counts, &state) += 1;
        }
        if counts == TaskCounts::default() {
            return Err(Reject::not_found(format!(
                "{id} has no element {}; it has {}",
                shortened(&indices.to_string()),
                shortened(&job.spec.indices().to_string())
            )));
        }
        let of = |index: &u32| indices.contains(*index);
        let mut failed = job
            .tasks
            .iter()
            .filter(|(index, task)| of(index) && matches!(task.state, TaskState::Failed(_)));
        let state = counts.state();
        let exit = match state {
            JobState::Fail => failed.next().and_then(|(_, task)| task.exit.clone()),
            JobState::Done => Some(Exit::Code(0)),
            _ => None,
        };
        Ok(JobRow { tasks: counts, state, exit, ..self.row(job) })
    }

    /// A page of a job's tasks from an index on; and whether further ones exist.
    #[must_use]
    pub fn tasks(&self, id: JobId, from: u32, limit: usize) -> Option<(Vec<TaskRow>, bool)> {
        let job = self.jobs.get(&id)?;
        let indices = job.spec.indices();
        let ranges = indices.ranges().iter().filter(|(_, last)| *last >= from);
        let mut wanted = ranges.flat_map(|(first, last)| (*first).max(from)..=*last);
        let rows = wanted.by_ref().take(limit).map(|index| self.task_row(job, index)).collect();
        Some((rows, wanted.next().is_some()))
    }

    /// Every node.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeRow> {
        self.some_nodes(None, usize::MAX).0
    }

    /// So many nodes, in the order of their names from behind `after` on; and whether there are
    /// further ones.
    #[must_use]
    pub fn some_nodes(&self, after: Option<&str>, count: usize) -> (Vec<NodeRow>, bool) {
        let mut wanted = self.nodes_behind(after);
        let rows = wanted.by_ref().take(count).map(node_row).collect();
        (rows, wanted.next().is_some())
    }

    fn nodes_behind(&self, after: Option<&str>) -> impl Iterator<Item = &Node> {
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.names.range::<str, _>((bound, Bound::Unbounded));
        names.map(|(_, id)| self.node(*id))
    }

    /// So many nodes that have GPUs, in the order of their names from behind `after` on, and of
    /// one job where it is named; and whether there are further ones.
    #[must_use]
    pub fn gpu_nodes(
        &self,
        after: Option<&str>,
        job: Option<JobId>,
        count: usize,
    ) -> (Vec<NodeRow>, bool) {
        let mut wanted = self.nodes_behind(after).filter(|node| {
            let held = |job| node.live.values().any(|live| live.task.job == job);
            !node.facts.gpus.is_empty() && job.is_none_or(held)
        });
        let rows = wanted.by_ref().take(count).map(node_row).collect();
        (rows, wanted.next().is_some())
    }

    /// What was submitted as a job, and by whom.
    ///
    /// # Errors
    /// Where there is no such job.
    pub fn spec(&self, id: JobId) -> Result<(&str, &JobSpec), Reject> {
        self.known(id).map(|job| (job.user.as_str(), &job.spec))
    }

    /// When a job was submitted.
    #[must_use]
    pub fn submitted(&self, id: JobId) -> Option<At> {
        self.jobs.get(&id).map(|job| job.submitted)
    }

    /// So many users with work that has not ended: those who hold most GPUs, then cores, first.
    #[must_use]
    pub fn owners(&self, count: usize) -> Vec<OwnerRow> {
        let mut owners: BTreeMap<&str, OwnerRow> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| !job.state().is_ended()) {
            let row = owners.entry(&job.user).or_default();
            let (run, each) = (u64::from(job.counts.run), job.spec.resources);
            let part = match job.spec.gpu.part {
                GpuPart::Share(permille) => permille,
                GpuPart::Whole | GpuPart::Mig(_) => GPU_WHOLE,
            };
            row.gpu_permille += run * u64::from(each.gpus) * u64::from(part);
            row.cores += run * u64::from(each.cores);
            if run > 0 {
                row.running += 1;
            } else {
                row.waiting += 1;
                if row.reason.is_none() {
                    row.reason = self.reason(job);
                }
            }
        }
        let mut rows: Vec<OwnerRow> = owners
            .into_iter()
            .map(|(user, row)| OwnerRow { user: user.to_owned(), ..row })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.gpu_permille, row.cores, row.waiting)));
        rows.truncate(count);
        rows
    }

    /// What is wrong with a node and its GPUs.
    #[must_use]
    pub fn ailments(&self, node: &str) -> Vec<Ailment> {
        self.names.get(node).map_or_else(Vec::new, |id| self.node(*id).ailments.clone())
    }

    /// A node's maintenance windows.
    #[must_use]
    pub fn windows(&self, node: &str) -> Vec<Window> {
        self.names.get(node).map_or_else(Vec::new, |id| self.node(*id).windows.clone())
    }

    /// The node that a task runs on, or ran on last.
    #[must_use]
    pub fn task_node(&self, task: TaskId) -> Option<String> {
        let job = self.jobs.get(&task.job)?;
        let started = job.tasks.get(&task.index).and_then(|task| task.node);
        let node = started.or_else(|| job.done_on(task.index))?;
        Some(self.node(node).name().to_owned())
    }

    /// The nodes on which tasks of a job run or ran.
    #[must_use]
    pub fn job_nodes(&self, id: JobId) -> Option<Vec<String>> {
        let job = self.jobs.get(&id)?;
        let nodes: BTreeSet<NodeId> = job
            .done
            .keys()
            .copied()
            .chain(job.tasks.values().filter_map(|task| task.node))
            .collect();
        Some(nodes.into_iter().map(|node| self.node(node).name().to_owned()).collect())
    }

    /// Whether a job has an element with this index.
    #[must_use]
    pub fn has_task(&self, task: TaskId) -> bool {
        self.jobs.get(&task.job).is_some_and(|job| job.spec.indices().contains(task.index))
    }

    /// The numbers of the first line of every screen.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut sum = Summary { nodes: self.names.len() as u32, ..Summary::default() };
        for node in self.nodes.iter().filter(|node| node.state == NodeState::Up) {
            let used = node.held();
            sum.nodes_up += 1;
            sum.cores += node.facts.resources.cores;
            sum.gpus += node.facts.resources.gpus;
            sum.cores_used += used.cores;
            sum.gpus_used += used.gpus;
        }
        sum.jobs_run = self.tallied(JobState::Run);
        sum.jobs_wait = self.tallied(JobState::Wait);
        sum.jobs_fail = self.tallied(JobState::Fail);
        sum.jobs_ended = self.tallied(JobState::Done) + self.tallied(JobState::Cancel);
        sum
    }

    /// The nodes that are up; after a restore those too that may come back. A scheduler that has just
    /// been started has heard none of them yet, and says so by an event for each.
    #[must_use]
    pub fn up_nodes(&self) -> Vec<String> {
        let up = self.nodes.iter().filter(|node| match node.state {
            NodeState::Up => true,
            NodeState::Late => self.returning,
            NodeState::Lost => false,
        });
        up.map(|node| node.name().to_owned()).collect()
    }

    /// Why a job waits, or why it ended as it did.
    fn reason(&self, job: &Job) -> Option<String> {
        if job.state() != JobState::Wait {
            return job.reason.clone();
        }
        job.waits_aside().or_else(|| {
            let class = self.class_of(job.id)?;
            Some(self.queue.classes.get(&class)?.reason.clone())
        })
    }

    fn row(&self, job: &Job) -> JobRow {
        let state = job.state();
        let name = |node: NodeId| self.node(node).name().to_owned();
        let running: BTreeSet<NodeId> = job.on.keys().copied().collect();
        let shown = if running.is_empty() {
            let unusual = job.tasks.values().take(NODES_SHOWN_MAX).filter_map(|task| task.node);
            job.done.keys().copied().chain(unusual).collect()
        } else {
            running
        };
        let failed = job.tasks.values().find(|task| matches!(task.state, TaskState::Failed(_)));
        let exit = match state {
            JobState::Fail => failed.and_then(|task| task.exit.clone()),
            JobState::Done => Some(Exit::Code(0)),
            _ => None,
        };
        let group = self.accounts.group(job.account);
        JobRow {
            job: job.id,
            name: job.spec.name.clone(),
            user: job.user.clone(),
            kind: job.kind_word().to_owned(),
            state,
            tasks: job.counts,
            resources: job.spec.resources,
            nodes: shown.into_iter().take(NODES_SHOWN_MAX).map(name).collect(),
            submitted: job.submitted,
            started: job.started,
            ended: job.ended,
            time_limit: job.spec.time_limit,
            starts: job.starts,
            reason: self.reason(job),
            exit,
            group: (group != job.user).then(|| group.to_owned()),
            priority: job.spec.priority,
            held: job.held,
            tasks_held: job.held_tasks(),
            spent: job.spent,
            progress_permille: None,
        }
    }

    fn task_row(&self, job: &Job, index: u32) -> TaskRow {
        let state = job.task_state(index).unwrap_or(TaskState::Waiting);
        let task = job.tasks.get(&index);
        let done = job.done_on(index);
        let node = task.and_then(|task| task.node).or(done);
        TaskRow {
            task: job.id.task(index),
            state: state.word().to_owned(),
            node: node.map(|node| self.node(node).name().to_owned()),
            starts: task.map_or(u32::from(done.is_some()), |task| task.starts),
            exit: task.and_then(|task| task.exit.clone()).or(done.map(|_| Exit::Code(0))),
        }
    }
}

fn node_row(node: &Node) -> NodeRow {
    let mut gpu_jobs = vec![None; node.facts.gpus.len()];
    for live in node.live.values() {
        for gpu in &live.lease.gpus {
            if let Some(slot) = gpu_jobs.get_mut(usize::from(*gpu)) {
                slot.get_or_insert(live.task.job);
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
        service: node.service.clone(),
        windows: node.windows.clone(),
        ailments: node.ailments.clone(),
    }
}
