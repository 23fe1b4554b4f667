//! The clocks of the simulated hosts.
//!
//! True time is the simulation's alone. A daemon counts steadily from a moment, by an oscillator
//! that goes up to 200 parts in a million too fast or too slow: the scheduler from what its host's
//! wall clock shows when it starts, an agent from its host's start. A wall clock that is set while
//! a daemon runs changes nothing for it; it shows when the scheduler is started again.

use gantry_model::At;

use crate::random::Random;

/// How far an oscillator is off at most, in parts of a million.
const DRIFT_PPM_MAX: u64 = 200;
const MILLION: i64 = 1_000_000;

/// A clock that showed `base` at the true time `since`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: At,
    since: At,
    drift_ppm: i64,
}

/// How much too fast an oscillator goes, in parts of a million; less than zero where it is slow.
pub(crate) fn drift(random: &mut Random) -> i64 {
    random.between(0, 2 * DRIFT_PPM_MAX) as i64 - DRIFT_PPM_MAX as i64
}

impl Clock {
    pub(crate) fn new(base: At, since: At, drift_ppm: i64) -> Self {
        Self { base, since, drift_ppm }
    }

    /// What it shows at a true time.
    pub(crate) fn read(&self, now: At) -> At {
        let passed = now.since(self.since).0 as i64;
        let shown = passed + (passed * self.drift_ppm).div_euclid(MILLION);
        At(self.base.0 + shown.max(0) as u64)
    }

    /// The first true time at which it shows `at`; at once where that has passed.
    pub(crate) fn when(&self, at: At) -> At {
        let wanted = at.since(self.base).0 as i64;
        // Short of it by a few milliseconds at most: the rest is counted.
        let about = (wanted * MILLION).div_euclid(MILLION + self.drift_ppm) - 2;
        let mut time = At(self.since.0 + about.max(0) as u64);
        while self.read(time) < at {
            time.0 += 1;
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_first_when_it_is_said_to_be() {
        for drift_ppm in [-200, -1, 0, 7, 200] {
            let clock = Clock::new(At(1_000_000), At(5_000), drift_ppm);
            for after in [0, 1, 999, 5_000, 4_999_999, 31_536_000_000] {
                let at = At(1_000_000 + after);
                let when = clock.when(at);
                assert!(clock.read(when) >= at, "{drift_ppm} {after}");
                let early = when > At(5_000) && clock.read(At(when.0 - 1)) >= at;
                assert!(!early, "{drift_ppm} {after}");
            }
            let day = clock.read(At(5_000 + 86_400_000)).0 - 1_000_000;
            assert_eq!(
                day as i64 - 86_400_000,
                (drift_ppm * 86_400).div_euclid(1000),
                "{drift_ppm}"
            );
        }
    }
}
