//! How fast frames follow one another, and whether the terminal takes them: a line that blocks twice
//! makes the console lean for a minute. Time is an argument.

use std::time::{Duration, Instant};

/// Between two frames after keys: 20 a second.
const FRAME_EACH: Duration = Duration::from_millis(50);
/// A write that takes so long says that the line to the terminal is slow.
const BLOCKED: Duration = Duration::from_millis(50);
/// So many of those make the console lean.
const BLOCKED_TIMES: u32 = 2;
/// How long it stays so.
const LEAN_FOR: Duration = Duration::from_mins(1);

/// When frames were drawn, and how long that took.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    blocked: u32,
    lean_since: Option<Instant>,
    told: bool,
}

impl Pace {
    /// How long to wait before the next frame.
    pub(super) fn until_next(&self, now: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| {
            FRAME_EACH.saturating_sub(now.saturating_duration_since(last))
        })
    }

    /// A frame was written, and took so long.
    pub(super) fn drawn(&mut self, at: Instant, took: Duration) {
        self.last = Some(at);
        if took > BLOCKED {
            self.blocked += 1;
        }
        if self.blocked >= BLOCKED_TIMES {
            (self.blocked, self.lean_since) = (0, Some(at));
        }
    }

    /// Whether the console becomes lean now, or stops being so; nothing where it stays as it is.
    pub(super) fn lean_again(&mut self, now: Instant) -> Option<bool> {
        let within = |since: Instant| now.saturating_duration_since(since) < LEAN_FOR;
        let lean = self.lean_since.is_some_and(within);
        (std::mem::replace(&mut self.told, lean) != lean).then_some(lean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocked_writes_make_it_lean_and_a_quiet_minute_brings_it_back() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (slow, fast) = (Duration::from_millis(80), Duration::from_millis(3));
        let mut pace = Pace::default();
        for (second, took, told) in [
            (0, fast, None),
            (1, slow, None),
            (2, fast, None),
            (3, slow, Some(true)),
            (4, fast, None),
            (62, fast, None),
            // A minute after the second one that blocked.
            (63, fast, Some(false)),
            (64, slow, None),
            (65, slow, Some(true)),
            (100, slow, None),
            // It blocks again while it is lean: the minute begins anew.
            (110, slow, None),
            (126, fast, None),
            (169, fast, None),
            (170, fast, Some(false)),
        ] {
            pace.drawn(at(second), took);
            assert_eq!(pace.lean_again(at(second)), told, "second {second}");
        }
    }

    #[test]
    fn frames_after_keys_are_a_twentieth_of_a_second_apart() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.until_next(start), Duration::ZERO);
        pace.drawn(start, Duration::ZERO);
        for (after, wait) in [(0, 50), (20, 30), (50, 0), (900, 0)] {
            let now = start + Duration::from_millis(after);
            assert_eq!(pace.until_next(now), Duration::from_millis(wait));
        }
    }
}
