//! The scheduler's clock.
//!
//! It reads the host's wall clock once and counts steadily from there: a clock that is set while
//! the scheduler runs neither loses nodes nor stops timers. It never stands before the newest
//! event of the journal, so time in the journal does not go back over a restart either.
//!
//! Certificates are made and judged by the host's wall clock as it is at that moment: one that was a
//! year ahead for an hour would otherwise have all certificates end for as long as the journal
//! remembers it.

use std::time::{Instant, SystemTime};

use gantry_model::{At, Millis};

/// Milliseconds since 1970, counted steadily. Copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: At,
    started: Instant,
    /// How far ahead of the host's this clock is; a test's way to another time.
    ahead: Millis,
}

impl Clock {
    /// A clock that shows the host's time and so much more, or `not_before` where that is later.
    pub(crate) fn new(not_before: At, ahead: Millis) -> Self {
        let base = not_before.max(host().after(ahead));
        Self { base, started: Instant::now(), ahead }
    }

    /// What certificates are made and judged by.
    pub(crate) fn wall(&self) -> At {
        host().after(self.ahead)
    }

    pub(crate) fn now(&self) -> At {
        self.base.after(Millis(self.started.elapsed().as_millis() as u64))
    }
}

fn host() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_behind_the_journal() {
        let ahead = At(u64::MAX / 2);
        assert!(Clock::new(ahead, Millis(0)).now() >= ahead);
        let clock = Clock::new(At(0), Millis(0));
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second && first.0 > 1_600_000_000_000);
    }

    #[test]
    fn a_journal_of_a_clock_that_was_wrong_ends_no_certificate() {
        let year = Millis(31_536_000_000);
        let clock = Clock::new(host().after(year), Millis(0));
        assert!(clock.now().since(clock.wall()) > Millis(year.0 / 2));
        assert!(Clock::new(At(0), year).wall() >= host().after(Millis(year.0 / 2)));
    }
}
