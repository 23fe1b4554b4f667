//! A job within the cluster: which elements stand where, with as little as possible for each.
//!
//! Elements that were never started, that wait for an element of another job, that were cancelled
//! without a start, and that ended well at the first try are ranges. Only what is live, waits for a
//! further start or has failed is kept one by one, so that a large array costs what is unusual
//! about it.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{
    At, DependencyScope, Exit, IndexSet, JobId, JobSpec, JobState, Millis, NodeId, Spent,
    TaskCounts, TaskState, Work,
};
use serde::{Deserialize, Serialize};

use crate::accounts::AccountId;
use crate::ahead::Pace;
use crate::kind::KindId;
use crate::ranges::Ranges;

/// What was changed of some elements only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exception {
    pub(crate) elements: IndexSet,
    pub(crate) time_limit: Option<Millis>,
    pub(crate) retries: Option<u8>,
}

/// A task of which more is known than a range says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) state: TaskState,
    /// Executions so far.
    pub(crate) starts: u32,
    /// Executions that failed by the task's own fault.
    pub(crate) failures: u32,
    /// The node of the newest execution.
    pub(crate) node: Option<NodeId>,
    /// Not before this time: the back-off after a failure.
    pub(crate) ready: At,
    /// How the newest execution ended.
    pub(crate) exit: Option<Exit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) spec: JobSpec,
    pub(crate) kind: KindId,
    pub(crate) account: AccountId,
    pub(crate) user: String,
    pub(crate) key: String,
    pub(crate) submitted: At,
    pub(crate) started: Option<At>,
    pub(crate) ended: Option<At>,
    /// Elements that were never started and may be.
    pub(crate) fresh: Ranges,
    /// Elements that wait for an element of another job.
    pub(crate) locked: Ranges,
    /// Elements that wait for a release. Such an element may also be locked; it is neither fresh
    /// nor among those that may have a further start.
    pub(crate) parked: Ranges,
    /// What holds for some elements only, the newest last.
    pub(crate) exceptions: Vec<Exception>,
    /// Elements that wait for a further start and may have it now.
    pub(crate) again: BTreeSet<u32>,
    /// Elements that were cancelled without a start.
    pub(crate) cancelled: Ranges,
    /// Elements that ended well at the first start, by the node they ran on.
    pub(crate) done: BTreeMap<NodeId, Ranges>,
    pub(crate) tasks: BTreeMap<u32, Task>,
    pub(crate) counts: TaskCounts,
    /// Live tasks by node.
    pub(crate) on: BTreeMap<NodeId, u32>,
    /// How fast its tasks end.
    pub(crate) pace: Pace,
    /// Executions so far, over all tasks.
    pub(crate) starts: u32,
    /// How often the gang has failed by its own fault.
    pub(crate) gang_failures: u32,
    pub(crate) spent: Spent,
    /// Dependencies on whole jobs that are not met yet.
    pub(crate) blocked: bool,
    /// Whether it waits for a release.
    pub(crate) held: bool,
    /// What it waits for before it is queued, or why it ended as it did.
    pub(crate) reason: Option<String>,
    /// Whether placement looks at it.
    pub(crate) queued: bool,
    /// The state that the summary counts it under.
    pub(crate) tallied: JobState,
}

impl Job {
    pub(crate) fn new(
        id: JobId,
        spec: JobSpec,
        key: (String, String),
        kind: KindId,
        account: AccountId,
        at: At,
    ) -> Self {
        let fresh = Ranges::of(&spec.indices());
        let counts = TaskCounts { wait: fresh.count(), ..TaskCounts::default() };
        Self {
            id,
            kind,
            account,
            held: spec.held,
            spec,
            user: key.0,
            key: key.1,
            submitted: at,
            started: None,
            ended: None,
            fresh,
            locked: Ranges::default(),
            parked: Ranges::default(),
            exceptions: Vec::new(),
            again: BTreeSet::new(),
            cancelled: Ranges::default(),
            done: BTreeMap::new(),
            tasks: BTreeMap::new(),
            counts,
            on: BTreeMap::new(),
            pace: Pace::default(),
            starts: 0,
            gang_failures: 0,
            spent: Spent::default(),
            blocked: false,
            reason: None,
            queued: false,
            tallied: JobState::Wait,
        }
    }

    pub(crate) fn state(&self) -> JobState {
        self.counts.state()
    }

    pub(crate) fn kind_word(&self) -> &'static str {
        match &self.spec.work {
            Work::Command { .. } => "command",
            Work::Builtin(builtin) => builtin.name(),
        }
    }

    pub(crate) const fn is_gang(&self) -> bool {
        self.spec.gang.is_some()
    }

    /// Whether its elements wait for elements of another job.
    pub(crate) fn waits_by_element(&self) -> bool {
        self.spec.after.iter().any(|after| after.scope == DependencyScope::Element)
    }

    /// Whether placement has to look at it at all.
    pub(crate) fn wants_placement(&self) -> bool {
        if self.blocked || self.held {
            return false;
        }
        if let Some(gang) = self.spec.gang {
            return self.fresh.count() + self.again.len() as u32 == gang.ranks;
        }
        let cap = self.spec.array.as_ref().and_then(|array| array.at_once_max);
        cap.is_none_or(|cap| self.counts.run < cap) && self.next_index().is_some()
    }

    /// The next element to start: one that waits for a further start first, then a fresh one.
    pub(crate) fn next_index(&self) -> Option<u32> {
        self.again.first().copied().or_else(|| self.fresh.first())
    }

    /// How far an element is. `None` where the job has no such element.
    pub(crate) fn task_state(&self, index: u32) -> Option<TaskState> {
        if let Some(task) = self.tasks.get(&index) {
            return Some(task.state.clone());
        }
        if [&self.fresh, &self.locked, &self.parked].iter().any(|set| set.contains(index)) {
            return Some(TaskState::Waiting);
        }
        if self.cancelled.contains(index) {
            return Some(TaskState::Cancelled);
        }
        self.done_on(index).map(|_| TaskState::Done)
    }

    /// The node on which an element ended well at its first start.
    pub(crate) fn done_on(&self, index: u32) -> Option<NodeId> {
        self.done.iter().find(|(_, done)| done.contains(index)).map(|(node, _)| *node)
    }

    /// The task at an index that waits or is live, made real where it was only part of a range.
    pub(crate) fn touch(&mut self, index: u32) -> Option<&mut Task> {
        if self.fresh.remove(index) {
            let (starts, failures, node, exit) = (0, 0, None, None);
            let state = TaskState::Waiting;
            let task = Task { state, starts, failures, node, ready: At(0), exit };
            self.tasks.insert(index, task);
        }
        self.tasks.get_mut(&index)
    }

    /// Moves a task to its next state and keeps the counts.
    ///
    /// # Panics
    /// Where the step is not one that may happen.
    pub(crate) fn step(&mut self, index: u32, next: &TaskState) {
        let id = self.id;
        let Some(task) = self.touch(index) else { panic!("{id} has no element {index}") };
        assert!(task.state.allows(next), "{id}.{index}: {:?} to {next:?}", task.state);
        let before = std::mem::replace(&mut task.state, next.clone());
        if let Some((node, _)) = before.live() {
            self.leave(node);
        }
        if let Some((node, _)) = next.live() {
            *self.on.entry(node).or_default() += 1;
        }
        self.again.remove(&index);
        *slot(&mut self.counts, &before) -= 1;
        *slot(&mut self.counts, next) += 1;
        if *next == TaskState::Done {
            self.fold(index);
        }
    }

    fn leave(&mut self, node: NodeId) {
        let Some(count) = self.on.get_mut(&node) else { panic!("{} is not on {node}", self.id) };
        *count -= 1;
        if *count == 0 {
            self.on.remove(&node);
        }
    }

    /// Keeps a task that ended well at its first start as part of a range.
    fn fold(&mut self, index: u32) {
        let usual = |task: &&Task| task.starts == 1;
        let Some(node) = self.tasks.get(&index).filter(usual).and_then(|task| task.node) else {
            return;
        };
        self.tasks.remove(&index);
        self.done.entry(node).or_default().insert(index);
    }

    /// The time limit of an element.
    pub(crate) fn time_limit(&self, index: u32) -> Option<Millis> {
        let newest = self.exceptions.iter().rev();
        let mut own = newest.filter(|some| some.elements.contains(index));
        own.find_map(|some| some.time_limit).or(self.spec.time_limit)
    }

    /// How often an element may fail and be started again.
    pub(crate) fn retries(&self, index: u32) -> u8 {
        let newest = self.exceptions.iter().rev();
        let mut own = newest.filter(|some| some.elements.contains(index));
        own.find_map(|some| some.retries).unwrap_or(self.spec.retries)
    }

    /// What placement counts with: elements of one job are alike to it, so that the longest limit
    /// among them stands for all.
    pub(crate) fn longest(&self) -> JobSpec {
        let mut spec = self.spec.clone();
        let own = self.exceptions.iter().filter_map(|some| some.time_limit);
        spec.time_limit = spec.time_limit.map(|limit| own.fold(limit, Ord::max));
        spec
    }

    /// Elements that wait for nothing but a release.
    pub(crate) fn held_tasks(&self) -> u32 {
        if self.locked.is_empty() {
            return self.parked.count();
        }
        let both = self.parked.iter().filter(|index| self.locked.contains(*index)).count();
        self.parked.count() - both as u32
    }

    /// Why it waits where placement does not look at it.
    pub(crate) fn waits_aside(&self) -> Option<String> {
        if self.held || (self.counts.run == 0 && self.parked.count() == self.counts.wait) {
            return Some("held; gantry release lets it go on".into());
        }
        if self.blocked {
            return self.reason.clone();
        }
        if self.queued {
            return None;
        }
        if self.counts.run == 0 && self.locked.count() == self.counts.wait {
            return Some("its elements wait for those of the job they come after".into());
        }
        Some("waits out the time after a failure".into())
    }
}

/// The count that a state belongs to.
pub(crate) fn slot<'a>(counts: &'a mut TaskCounts, state: &TaskState) -> &'a mut u32 {
    match state {
        TaskState::Waiting | TaskState::Ahead { .. } => &mut counts.wait,
        TaskState::Starting { .. }
        | TaskState::Running { .. }
        | TaskState::Stopping { .. }
        | TaskState::Arrived => &mut counts.run,
        TaskState::Done => &mut counts.done,
        TaskState::Failed(_) => &mut counts.fail,
        TaskState::Cancelled => &mut counts.cancel,
    }
}
