//! How the scheduler itself does.

use gantry_model::{At, Summary};
use serde::{Deserialize, Serialize};

/// How the scheduler itself does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerStatus {
    /// Its clock.
    pub at: At,
    /// The version of its program.
    pub version: String,
    /// What it has to do.
    pub summary: Summary,
    /// What its journal has cost since its start.
    pub journal: JournalUse,
}

/// What a journal has cost since its scheduler's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalUse {
    /// Events that it has taken.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs that made them durable.
    pub syncs: u64,
    /// How long those took together, in microseconds.
    pub syncing_us: u64,
    /// When the newest snapshot was taken, if there is one.
    pub snapshot: Option<At>,
}

/// A copy of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalCopy {
    /// When it was made, by the scheduler's clock: everything acknowledged before then is in it.
    pub at: At,
    /// Its bytes.
    pub bytes: u64,
    /// How long nothing else was decided meanwhile, in microseconds.
    pub took_us: u64,
}

impl JournalUse {
    /// How long a sync has taken on average, in microseconds; none where there was none.
    #[must_use]
    pub const fn sync_us(&self) -> Option<u64> {
        self.syncing_us.checked_div(self.syncs)
    }
}
