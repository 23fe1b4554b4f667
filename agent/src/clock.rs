//! The time by which tries are timed: since the boot of the machine, with sleep.
//!
//! A wall clock that is set a year ahead would end every try with a time limit at once, and one that
//! is set back would let none end. Agent and supervisor read the same clock, so that a time that one
//! has kept means the same to the other; both end with the boot.

use gantry_model::At;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn now() -> At {
    let since = clock_gettime(ClockId::Boottime);
    At(since.tv_sec as u64 * 1000 + since.tv_nsec as u64 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let begin = now();
        while now() == begin {
            std::thread::yield_now();
        }
        assert!(now() > begin);
    }
}
