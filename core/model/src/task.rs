//! The life of a task and of a job: the states, the allowed steps, and how a try ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, TryId};
use crate::units::{At, MemoryMib};

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The process ended by itself with this code.
    Code(u8),
    /// The process was ended by this signal.
    Signal(u8),
    /// The process could not be started (126) or was not found (127), or its node could not be made
    /// ready for it (125), which is not the task's fault; the sentence says why.
    NotStarted {
        /// 125, 126 or 127.
        code: u8,
        /// What failed, for a person.
        sentence: String,
    },
    /// A built-in operation refused or failed; the sentence says why and what to do.
    Failed(String),
    /// The node ended it because the time limit was over.
    TimeLimit,
    /// The node was lost, or its agent was restarted; not the task's fault, so not counted as a try.
    NodeLost,
    /// The kernel ended it because it used more memory than it was given.
    OutOfMemory {
        /// The most memory that its processes had together.
        used: MemoryMib,
        /// What it was given.
        limit: MemoryMib,
    },
}

impl Exit {
    /// The exit code a shell would show: the code itself, 128 + n for signal n, 125 for our trouble.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Code(code) | Self::NotStarted { code, .. } => *code,
            Self::Signal(signal) => 128_u8.saturating_add(*signal),
            Self::Failed(_) => 1,
            Self::TimeLimit => 124,
            Self::NodeLost => 125,
            // What the kernel sends is signal 9.
            Self::OutOfMemory { .. } => 137,
        }
    }

    /// Whether the node is to blame: the task is queued again, and the end is no try of it.
    #[must_use]
    pub const fn is_of_node(&self) -> bool {
        matches!(self, Self::NodeLost | Self::NotStarted { code: 125, .. })
    }

    /// Whether the task has done what it was asked for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::NotStarted { sentence, .. } => write!(f, "not started: {sentence}"),
            Self::Failed(sentence) => f.write_str(sentence),
            Self::TimeLimit => f.write_str("ended at its time limit"),
            Self::NodeLost => f.write_str("node lost"),
            Self::OutOfMemory { used, limit } => {
                write!(f, "out of memory: it used {used} of {limit}; ask for more")
            }
        }
    }
}

/// What one execution used, as its node's kernel counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// The most memory that its processes had at once: of all together where they have a cgroup, of
    /// the largest one where they have none.
    pub memory_peak: MemoryMib,
    /// What it has read from disks, in KiB.
    pub read_kib: u64,
    /// What it has written to disks, in KiB.
    pub written_kib: u64,
}

/// What becomes of a task that was told to stop, once its node reports the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterStop {
    /// It is cancelled.
    Cancel,
    /// It waits again: it was requeued, preempted, or its gang starts again.
    Again,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Not placed yet.
    Waiting,
    /// Waits on a node for the lease of a task of its job that runs there.
    Ahead {
        /// The node it waits on.
        node: NodeId,
        /// The execution that it will be.
        try_id: TryId,
    },
    /// A lease is granted and the order to start is on its way to the node.
    Starting {
        /// The node it was placed on.
        node: NodeId,
        /// The execution.
        try_id: TryId,
    },
    /// The node has reported its start.
    Running {
        /// The node it runs on.
        node: NodeId,
        /// The execution.
        try_id: TryId,
        /// When the start was reported.
        since: At,
    },
    /// A stop is on its way to the node; the lease is held until the node reports the end.
    Stopping {
        /// The node it runs on.
        node: NodeId,
        /// The execution.
        try_id: TryId,
        /// What follows.
        then: AfterStop,
    },
    /// A rank that has ended well while others of its gang still run.
    Arrived,
    /// Ended well.
    Done,
    /// Ended, and no retry is left.
    Failed(Exit),
    /// Cancelled, or a job it depends on ended in a way that keeps it from ever starting.
    Cancelled,
}

impl TaskState {
    /// Whether nothing will happen to the task any more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Done | Self::Failed(_) | Self::Cancelled)
    }

    /// The live execution, if there is one.
    #[must_use]
    pub fn live(&self) -> Option<(NodeId, TryId)> {
        match self {
            Self::Starting { node, try_id }
            | Self::Running { node, try_id, .. }
            | Self::Stopping { node, try_id, .. } => Some((*node, *try_id)),
            _ => None,
        }
    }

    /// Whether the step from here to `next` is one that may happen.
    #[must_use]
    pub fn allows(&self, next: &Self) -> bool {
        use TaskState::{
            Ahead, Arrived, Cancelled, Done, Failed, Running, Starting, Stopping, Waiting,
        };
        match self {
            Waiting => matches!(next, Ahead { .. } | Starting { .. } | Cancelled),
            // Its node starts it by itself, or returns it.
            Ahead { .. } => matches!(next, Running { .. } | Waiting | Cancelled),
            // A start and an end can be reported together, and a lost node queues the task again.
            Starting { .. } => {
                matches!(
                    next,
                    Running { .. } | Stopping { .. } | Arrived | Done | Failed(_) | Waiting
                )
            }
            Running { .. } => {
                matches!(next, Stopping { .. } | Arrived | Done | Failed(_) | Waiting)
            }
            // The task may have ended by itself before the stop arrived, and a task that was to
            // wait again may be cancelled meanwhile.
            Stopping { .. } => {
                matches!(next, Stopping { .. } | Cancelled | Done | Failed(_) | Waiting)
            }
            // The gang is through, starts again, or has failed.
            Arrived => matches!(next, Done | Waiting | Cancelled),
            Done | Failed(_) | Cancelled => false,
        }
    }

    /// The word for it on screens and in JSON.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Waiting | Self::Ahead { .. } => "wait",
            Self::Starting { .. } => "start",
            Self::Running { .. } => "run",
            Self::Stopping { .. } => "stop",
            Self::Arrived => "arrived",
            Self::Done => "done",
            Self::Failed(_) => "fail",
            Self::Cancelled => "cancel",
        }
    }
}

/// Where a job stands, summed over its tasks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// At least one task has a live execution.
    Run,
    /// No task runs and at least one waits.
    #[default]
    Wait,
    /// Every task has ended, and at least one failed.
    Fail,
    /// Every task has ended, none failed, and at least one was cancelled.
    Cancel,
    /// Every task is done.
    Done,
}

impl JobState {
    /// Whether every task has ended.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Fail | Self::Cancel | Self::Done)
    }

    /// The word for it on screens and in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Wait => "wait",
            Self::Fail => "fail",
            Self::Cancel => "cancel",
            Self::Done => "done",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_is_for_ever() {
        let (node, try_id) = (NodeId(1), TryId(1));
        let all = [
            TaskState::Waiting,
            TaskState::Ahead { node, try_id },
            TaskState::Starting { node, try_id },
            TaskState::Running { node, try_id, since: At(0) },
            TaskState::Stopping { node, try_id, then: AfterStop::Cancel },
            TaskState::Arrived,
            TaskState::Done,
            TaskState::Failed(Exit::Code(1)),
            TaskState::Cancelled,
        ];
        for from in &all {
            for to in &all {
                assert!(!(from.is_ended() && from.allows(to)), "{from:?} to {to:?}");
            }
            let at_rest =
                matches!(from, TaskState::Waiting | TaskState::Ahead { .. } | TaskState::Arrived);
            assert_eq!(from.live().is_some(), !from.is_ended() && !at_rest);
        }
    }

    #[test]
    fn exit_codes_are_a_shells() {
        for (exit, code) in [
            (Exit::Code(7), 7),
            (Exit::Signal(9), 137),
            (Exit::NotStarted { code: 127, sentence: String::new() }, 127),
            (Exit::NodeLost, 125),
            (Exit::OutOfMemory { used: MemoryMib(4096), limit: MemoryMib(4096) }, 137),
        ] {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
        assert!(Exit::Code(0).is_success() && !Exit::Code(1).is_success());
    }
}
