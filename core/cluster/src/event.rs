//! What the cluster hears, and what it wants done.

use gantry_model::health::Finding;
use gantry_model::{
    Action, AfterStop, At, Exit, IndexSet, JobId, JobRow, JobSpec, NodeFacts, Note, Order, Reject,
    Report, TaskId, TaskState, TryId,
};
use serde::{Deserialize, Serialize};

use crate::settings::ClusterSettings;

/// What happened. This is what the journal stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A user submits a job.
    Submit {
        /// Whom to answer.
        request: u64,
        /// The user.
        user: String,
        /// The idempotency key; the same one of the same user gives the same job.
        key: String,
        /// The job.
        spec: Box<JobSpec>,
    },
    /// A user cancels a job or elements of it.
    Cancel {
        /// Whom to answer.
        request: u64,
        /// The user.
        user: String,
        /// The job.
        job: JobId,
        /// Which elements; all where absent.
        indices: Option<IndexSet>,
    },
    /// A user changes something of a job or a node.
    Act {
        /// Whom to answer.
        request: u64,
        /// The user.
        user: String,
        /// The change.
        action: Action,
    },
    /// The settings were read again.
    Settings(Box<ClusterSettings>),
    /// A node's agent has connected.
    NodeUp {
        /// What it says of its node.
        facts: Box<NodeFacts>,
        /// The tries it holds: live, or ended and not acknowledged.
        holds: Vec<TryId>,
    },
    /// A node's connection is gone.
    NodeDown {
        /// Its name.
        node: String,
    },
    /// A node reports on a try.
    Report {
        /// Its name.
        node: String,
        /// What it reports.
        report: Report,
    },
    /// Something is wrong with a node or a GPU of it, or not any more.
    Found {
        /// Its name.
        node: String,
        /// What was found.
        finding: Finding,
    },
    /// A test that was ordered has ended.
    Tested {
        /// The node's name.
        node: String,
        /// The test's number.
        number: u64,
        /// What is wrong; nothing where it is absent.
        wrong: Option<String>,
    },
    /// Time has passed.
    Tick,
    /// A node's agent is gone, as the supervisor of its commands has seen.
    NodeGone {
        /// Its name.
        node: String,
        /// The tries that outlive it: live, or ended and not acknowledged.
        holds: Vec<TryId>,
    },
    /// What came before is a backup that was restored: more may have happened since it was taken.
    Restored {
        /// When the backup was taken.
        taken: At,
    },
}

/// The answer to a request that changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The job has this id.
    Submitted(JobId),
    /// So many tasks were cancelled or told to stop.
    Cancelled(u32),
    /// It is done, to so many tasks.
    Acted(u32),
}

/// What the shell shall do, in this order, once the events are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a request.
    Reply {
        /// Whom.
        request: u64,
        /// What.
        answer: Result<Answer, Reject>,
    },
    /// Send an order to a node.
    Order {
        /// Its name.
        node: String,
        /// The order.
        order: Order,
    },
    /// Write a line into the event log.
    Note(Note),
    /// Send a [`Event::Tick`] at this time, or earlier.
    Wake(At),
    /// Every task of this job has ended: what the history keeps of it.
    JobEnded(Box<JobRow>),
    /// A live task was told to stop, so that another job finds room.
    Preempted {
        /// The task that goes.
        task: TaskId,
        /// The job that comes.
        by: JobId,
    },
    /// An execution has ended: what the cluster knows of it now and does not keep.
    TryEnded(Box<TryEnd>),
}

/// An execution that has ended, at the time of the event that it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TryEnd {
    /// The execution.
    pub try_id: TryId,
    /// What was executed.
    pub task: TaskId,
    /// Who submitted its job.
    pub user: String,
    /// The word for the kind of its job.
    pub kind: &'static str,
    /// When its job was submitted.
    pub submitted: At,
    /// The node's name.
    pub node: String,
    /// Counts the starts of the task, from 1.
    pub start: u32,
    /// When it got its lease.
    pub placed: At,
    /// When its node said that it runs. Unknown where the node never did, and where it was told to stop.
    pub began: Option<At>,
    /// How it ended.
    pub exit: Exit,
    /// What it was told to stop for, if it was.
    pub stopped: Option<AfterStop>,
    /// Where its task stands now.
    pub then: TaskState,
}
