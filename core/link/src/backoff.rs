//! How long to wait before the next attempt: full jitter, so that ten thousand agents that lost
//! the scheduler in one moment do not come back in one.

use std::time::Duration;

use rand::RngExt;

const FIRST: Duration = Duration::from_millis(100);

/// Waits between attempts. Each is a random part of a bound that doubles up to a maximum.
#[derive(Clone, Debug)]
pub struct Backoff {
    bound: Duration,
    max: Duration,
}

impl Backoff {
    /// Waits that never exceed `max`.
    #[must_use]
    pub fn new(max: Duration) -> Self {
        Self { bound: FIRST.min(max), max }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(self.max);
        bound.mul_f64(rand::rng().random_range(0.0..1.0))
    }

    /// Begins again, after an attempt that succeeded.
    pub fn reset(&mut self) {
        self.bound = FIRST.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_are_spread() {
        let mut backoff = Backoff::new(Duration::from_secs(5));
        let waits: Vec<_> = (0..200).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= FIRST);
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5)));
        let late = &waits[10..];
        let below = late.iter().filter(|wait| **wait < Duration::from_millis(2500)).count();
        assert!((40..150).contains(&below), "{below} of 190 in the lower half");
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
