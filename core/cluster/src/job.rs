//! A job within the cluster: which elements were never started, and what became of the others.
//!
//! Elements that were never started are ranges, so that a large array costs what its started
//! elements cost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{
    At, Builtin, Exit, JobId, JobSpec, JobState, Resources, Role, TaskCounts, TaskState, Work,
};

/// A task that was started at least once, or ended without a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) state: TaskState,
    /// Executions so far.
    pub(crate) starts: u32,
    /// Executions that failed by the task's own fault.
    pub(crate) failures: u32,
    /// The node of the newest execution.
    pub(crate) node: Option<String>,
    /// Not before this time: the back-off after a failure.
    pub(crate) ready: At,
    /// How the newest execution ended.
    pub(crate) exit: Option<Exit>,
}

/// Tasks that are alike to placement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) resources: Resources,
    pub(crate) node: Option<String>,
    pub(crate) role: Option<Role>,
}

/// Jobs of one kind with a task that could start now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) jobs: BTreeSet<Place>,
    /// Why the first of them found no node when placement last looked.
    pub(crate) reason: String,
}

/// Where a job stands among others: by priority, then by submission.
pub(crate) type Place = (Reverse<i32>, JobId);

impl Kind {
    fn of(spec: &JobSpec) -> Self {
        let role = match &spec.work {
            Work::Builtin(Builtin::Train { .. }) => Some(Role::Gpu),
            Work::Builtin(Builtin::Preprocess { .. } | Builtin::Predict { .. }) => Some(Role::Cpu),
            Work::Command { .. } => None,
        };
        Self { resources: spec.resources, node: spec.node.clone(), role }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) spec: JobSpec,
    pub(crate) kind: Kind,
    pub(crate) user: String,
    pub(crate) submitted: At,
    pub(crate) started: Option<At>,
    pub(crate) ended: Option<At>,
    /// Inclusive ranges of elements that were never started, in falling order: the next is last.
    pub(crate) fresh: Vec<(u32, u32)>,
    /// Elements that wait for a further start and may have it now.
    pub(crate) again: BTreeSet<u32>,
    pub(crate) tasks: BTreeMap<u32, Task>,
    pub(crate) counts: TaskCounts,
    /// Dependencies that are not met yet.
    pub(crate) blocked: bool,
    /// What it waits for before it is queued, or why it ended as it did.
    pub(crate) reason: Option<String>,
}

impl Job {
    pub(crate) fn new(id: JobId, spec: JobSpec, user: String, at: At) -> Self {
        let fresh = spec.indices().ranges().iter().rev().copied().collect();
        let counts = TaskCounts { wait: spec.indices().count(), ..TaskCounts::default() };
        Self {
            id,
            kind: Kind::of(&spec),
            spec,
            user,
            submitted: at,
            started: None,
            ended: None,
            fresh,
            again: BTreeSet::new(),
            tasks: BTreeMap::new(),
            counts,
            blocked: false,
            reason: None,
        }
    }

    pub(crate) fn state(&self) -> JobState {
        let counts = &self.counts;
        if counts.run > 0 {
            JobState::Run
        } else if counts.wait > 0 {
            JobState::Wait
        } else if counts.fail > 0 {
            JobState::Fail
        } else if counts.cancel > 0 {
            JobState::Cancel
        } else {
            JobState::Done
        }
    }

    pub(crate) fn kind_word(&self) -> &'static str {
        match &self.spec.work {
            Work::Command { .. } => "command",
            Work::Builtin(builtin) => builtin.name(),
        }
    }

    /// Its place among jobs of its kind.
    pub(crate) fn place(&self) -> Place {
        (Reverse(self.spec.priority), self.id)
    }

    /// Whether placement has to look at it at all.
    pub(crate) fn wants_placement(&self) -> bool {
        let below_cap = self
            .spec
            .array
            .as_ref()
            .and_then(|array| array.at_once_max)
            .is_none_or(|cap| self.counts.run < cap);
        !self.blocked && below_cap && self.next_index().is_some()
    }

    /// The next element to start: one that waits for a further start first, then a fresh one.
    pub(crate) fn next_index(&self) -> Option<u32> {
        let fresh = self.fresh.last().map(|(first, _)| *first);
        self.again.first().copied().or(fresh)
    }

    /// The task at an index that exists, made real where it was only a part of a range.
    pub(crate) fn touch(&mut self, index: u32) -> Option<&mut Task> {
        if let Some(place) = self.fresh.iter().rposition(|(a, b)| (*a..=*b).contains(&index)) {
            let (first, last) = self.fresh.remove(place);
            if index < last {
                self.fresh.insert(place, (index + 1, last));
            }
            if first < index {
                self.fresh.insert(if index < last { place + 1 } else { place }, (first, index - 1));
            }
            let task = Task {
                state: TaskState::Waiting,
                starts: 0,
                failures: 0,
                node: None,
                ready: At(0),
                exit: None,
            };
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
        self.again.remove(&index);
        *slot(&mut self.counts, &before) -= 1;
        *slot(&mut self.counts, next) += 1;
    }
}

/// The count that a state belongs to.
pub(crate) fn slot<'a>(counts: &'a mut TaskCounts, state: &TaskState) -> &'a mut u32 {
    match state {
        TaskState::Waiting => &mut counts.wait,
        TaskState::Starting { .. } | TaskState::Running { .. } | TaskState::Stopping { .. } => {
            &mut counts.run
        }
        TaskState::Done => &mut counts.done,
        TaskState::Failed(_) => &mut counts.fail,
        TaskState::Cancelled => &mut counts.cancel,
    }
}
