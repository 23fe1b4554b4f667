//! What people change of a cluster beside submitting and cancelling.

use serde::{Deserialize, Serialize};

use crate::array::IndexSet;
use crate::ids::JobId;
use crate::node::Window;
use crate::units::{At, Millis};

/// A change of a job that waits or runs. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChange {
    /// Its priority.
    pub priority: Option<i32>,
    /// Its time limit, for tries that are not started yet.
    pub time_limit: Option<Millis>,
    /// How long it will take, as its owner says.
    pub estimate: Option<Millis>,
    /// How many elements may run at once.
    pub at_once_max: Option<u32>,
    /// Its retries.
    pub retries: Option<u8>,
}

/// A change that a person asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Keep what waits of a job from starting.
    Hold {
        /// The job.
        job: JobId,
        /// Which elements; the whole job where absent.
        indices: Option<IndexSet>,
    },
    /// Let what is held go on.
    Release {
        /// The job.
        job: JobId,
        /// Which elements; everything that is held of the job where absent.
        indices: Option<IndexSet>,
    },
    /// Stop what runs of a job and let it wait again.
    Requeue {
        /// The job.
        job: JobId,
        /// Which elements; all that run where absent.
        indices: Option<IndexSet>,
    },
    /// Change a job.
    Change {
        /// The job.
        job: JobId,
        /// Which elements: of them, the time limit and the retries can be changed. The whole job
        /// where absent.
        indices: Option<IndexSet>,
        /// What changes.
        change: JobChange,
    },
    /// Give a node no new work.
    Drain {
        /// Its name.
        node: String,
        /// Why.
        reason: String,
        /// When what still runs there is stopped and queued again.
        deadline: Option<At>,
    },
    /// Give a drained or quarantined node work again.
    Resume {
        /// Its name.
        node: String,
    },
    /// Plan a maintenance window.
    AddWindow {
        /// The node's name.
        node: String,
        /// The window.
        window: Window,
    },
    /// Forget a node's maintenance windows.
    DropWindows {
        /// The node's name.
        node: String,
    },
    /// Forget a node that is lost: it is a new one if it ever comes back.
    Forget {
        /// Its name.
        node: String,
    },
}
