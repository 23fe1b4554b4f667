//! The clocks of the simulated hosts.
//!
//! True time is the simulation's alone. A daemon reads its host's wall clock once, when it starts,
//! and counts steadily from there, as the scheduler does: a clock that is set while a daemon runs
//! changes nothing, and its skew and jumps show when a daemon is started again.

use gantry_model::At;

/// A clock that showed `base` at the true time `since`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: At,
    since: At,
}

impl Clock {
    pub(crate) fn new(base: At, since: At) -> Self {
        Self { base, since }
    }

    /// What it shows at a true time.
    pub(crate) fn read(&self, now: At) -> At {
        self.base.after(now.since(self.since))
    }

    /// The true time at which it shows `at`; at once where that has passed.
    pub(crate) fn when(&self, at: At) -> At {
        self.since.after(at.since(self.base))
    }
}
