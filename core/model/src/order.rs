//! What the cluster tells a node and what a node tells the cluster.
//!
//! Every order and report carries a [`TryId`]: a node that has seen a try end never starts it
//! again, and the cluster ignores a report of a try it has given up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::conditions::Warning;
use crate::ids::{TaskId, TryId};
use crate::job::JobSpec;
use crate::resources::Lease;
use crate::task::{Exit, Usage};
use crate::units::Millis;
use crate::work::{Builtin, Work};

/// The work of one task, cut out of its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskWork {
    /// A command, run in its own process group.
    Command {
        /// The program and its arguments; at least one.
        arguments: Vec<String>,
        /// The working folder; the agent's work folder where it is absent.
        folder: Option<String>,
    },
    /// A built-in operation for a warm worker. Its list of series holds the one of this task.
    Builtin(Builtin),
}

impl TaskWork {
    /// The work of the task at `index` of a job that was validated.
    #[must_use]
    pub fn of(spec: &JobSpec, index: u32) -> Self {
        let one = |series: &[String]| series.get(index as usize).cloned().into_iter().collect();
        match &spec.work {
            Work::Command { arguments, folder } => {
                Self::Command { arguments: arguments.clone(), folder: folder.clone() }
            }
            Work::Builtin(Builtin::Preprocess { library, pipeline, series }) => {
                Self::Builtin(Builtin::Preprocess {
                    library: library.clone(),
                    pipeline: pipeline.clone(),
                    series: one(series),
                })
            }
            Work::Builtin(Builtin::Predict { library, model, series }) => {
                Self::Builtin(Builtin::Predict {
                    library: library.clone(),
                    model: model.clone(),
                    series: one(series),
                })
            }
            Work::Builtin(train @ Builtin::Train { .. }) => Self::Builtin(train.clone()),
        }
    }
}

/// The order to start one try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The execution, fenced by this id.
    pub try_id: TryId,
    /// The task it executes.
    pub task: TaskId,
    /// The job's name, for people who look at the node.
    pub name: String,
    /// Who submitted it.
    pub user: String,
    /// What to do.
    pub work: TaskWork,
    /// What it may use.
    pub lease: Lease,
    /// After how long the node ends it.
    pub time_limit: Option<Millis>,
    /// Where its output goes, where its job says so.
    pub output: Option<String>,
    /// The signal before that.
    pub warning: Option<Warning>,
    /// The job's own environment, and what a gang's ranks need to find one another.
    pub environment: BTreeMap<String, String>,
    /// Counts the starts of this task; from the second on `GANTRY_RESUME=1` is set.
    pub start: u32,
    /// The try whose lease the node gave to it, where it was launched ahead. The node fills it in,
    /// so that an agent that starts again knows which lease is whose.
    pub inherits: Option<TryId>,
}

/// What the cluster tells a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Start a try. A node that already knows it does nothing.
    Launch(Box<Launch>),
    /// Keep a try ready, and start it with the lease of the next one of its job that ends well here.
    /// A node on which nothing of its job runs returns it.
    Ahead(Box<Launch>),
    /// Return a try that was launched ahead, unless it has been started.
    Recall {
        /// The execution that is not to be.
        try_id: TryId,
    },
    /// End a try: TERM to its process group, KILL after the grace time.
    Stop {
        /// The execution to end.
        try_id: TryId,
    },
    /// The report of this try's end is durable; the node may forget it.
    Acknowledge {
        /// The ended execution.
        try_id: TryId,
    },
    /// Test whether the node, or one GPU of it, can be given work again. One that is tested already
    /// is not tested twice.
    Test {
        /// The test's number.
        number: u64,
        /// The GPU's UUID; the node's cores and memory where absent.
        gpu: Option<String>,
    },
}

/// What a node tells the cluster of a try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// It runs.
    Started {
        /// The execution.
        try_id: TryId,
    },
    /// It has ended, or could not be started. Repeated until acknowledged.
    Ended {
        /// The execution.
        try_id: TryId,
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
        /// The try that was started with its lease.
        heir: Option<TryId>,
    },
    /// It was launched ahead, has not been started, and never will be.
    Returned {
        /// The execution that was not.
        try_id: TryId,
    },
}

impl Report {
    /// The execution it speaks of.
    #[must_use]
    pub const fn try_id(&self) -> TryId {
        match self {
            Self::Started { try_id } | Self::Ended { try_id, .. } | Self::Returned { try_id } => {
                *try_id
            }
        }
    }
}
