//! The scheduler's clock.
//!
//! It reads the host's wall clock once and counts steadily from there: a clock that is set while
//! the scheduler runs neither loses nodes nor stops timers. It never stands before the newest
//! event of the journal, so time in the journal does not go back over a restart either.

use std::time::{Instant, SystemTime};

use gantry_model::{At, Millis};

/// Milliseconds since 1970, counted steadily. Copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: At,
    started: Instant,
}

impl Clock {
    /// A clock that shows the host's time, or `not_before` where that is later.
    pub(crate) fn new(not_before: At) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { base: not_before.max(At(since.as_millis() as u64)), started: Instant::now() }
    }

    pub(crate) fn now(&self) -> At {
        self.base.after(Millis(self.started.elapsed().as_millis() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_behind_the_journal() {
        let ahead = At(u64::MAX / 2);
        assert!(Clock::new(ahead).now() >= ahead);
        let clock = Clock::new(At(0));
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second && first.0 > 1_600_000_000_000);
    }
}
