//! The scheduler's side: samples from readings, the newest wins.
//!
//! Readings may be lost, late, doubled, damaged or hostile. What [`Decoder::newest`] gives is always
//! a sample that was sent, and never an older one than before. A reading that came too late or twice
//! is dropped and counted; a delta against a keyframe that is not here is answered with a request
//! for one; what no encoder can have made changes nothing but a count.
//!
//! The keyframe that deltas use is kept, and the newest few, of which they will use one once its
//! acknowledgement has arrived. With two samples that take turns a node with 8 GPUs takes 16 KB, and
//! a stranger cannot make it more than five messages at their limits.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::delta::{Answer, Delta, Keyframe, Reading, Sequence};
use crate::encoder::WAITING_MAX;
use crate::flat::{Flat, Layout, Malformed, NUMBERS_MAX, restore};
use crate::pack::unpack;
use crate::sample::Sample;

/// Readings behind the newest for which it is known whether they came: the bits of a word.
const WINDOW: u64 = 64;
/// Keyframes that are kept: the one in use, and as many as an encoder waits for.
const HELD_MAX: usize = 1 + WAITING_MAX;

/// Makes samples of readings.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    newest: Option<Arc<Sample>>,
    /// The place of the newest sample; 0 where there is none.
    head: Sequence,
    /// Which of the readings up to the newest came, the newest in the lowest bit.
    came: u64,
    /// Keyframes, oldest first. None of them is older than the one that the newest delta used.
    held: VecDeque<Held>,
    counts: Counts,
}

/// A keyframe that is here.
#[derive(Clone, Debug)]
struct Held {
    sequence: Sequence,
    flat: Flat,
}

/// What became of all readings so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that gave a newer sample.
    pub newer: u64,
    /// Those that came after a newer one.
    pub late: u64,
    /// Those that had come already.
    pub doubled: u64,
    /// Deltas against a keyframe that is not here.
    pub unknown: u64,
    /// Those that are malformed or too large.
    pub refused: u64,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// [`Decoder::newest`] is its sample now.
    Newer,
    /// A newer one was here first.
    Late,
    /// It had come already.
    Doubled,
    /// Its keyframe is not here.
    Unknown,
    /// No encoder made it.
    Refused,
}

/// What became of a reading, and what to tell its sender, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What became of it.
    pub verdict: Verdict,
    /// What to tell.
    pub answer: Option<Answer>,
}

impl Decoder {
    /// Takes a reading.
    pub fn take(&mut self, reading: Reading) -> Taken {
        let sequence = reading.sequence();
        let order = self.order(sequence);
        let taken = match reading {
            Reading::Keyframe(keyframe) => self.keyframe(keyframe, order),
            Reading::Delta(delta) => self.delta(&delta, order),
        };
        match taken.verdict {
            Verdict::Newer | Verdict::Late => self.mark(sequence),
            Verdict::Doubled | Verdict::Unknown | Verdict::Refused => {}
        }
        *match taken.verdict {
            Verdict::Newer => &mut self.counts.newer,
            Verdict::Late => &mut self.counts.late,
            Verdict::Doubled => &mut self.counts.doubled,
            Verdict::Unknown => &mut self.counts.unknown,
            Verdict::Refused => &mut self.counts.refused,
        } += 1;
        taken
    }

    /// The newest sample.
    #[must_use]
    pub fn newest(&self) -> Option<&Sample> {
        self.newest.as_deref()
    }

    /// The newest sample, to be kept without a copy.
    #[must_use]
    pub fn share(&self) -> Option<Arc<Sample>> {
        self.newest.clone()
    }

    /// What became of all readings so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// A keyframe that came late can still serve as a base, and is acknowledged for that.
    fn keyframe(&mut self, keyframe: Keyframe, order: Verdict) -> Taken {
        let Keyframe { sequence, layout, count, numbers } = keyframe;
        if self.held.back().is_some_and(|newest| newest.sequence >= sequence) {
            let is_held = self.held.iter().any(|held| held.sequence == sequence);
            let answer = is_held.then_some(Answer::Acknowledged(sequence));
            return Taken { verdict: order, answer };
        }
        let mut flat = Flat { layout, numbers: Vec::new() };
        let readable = flat.layout.is_within_limits()
            && count as usize <= NUMBERS_MAX
            && unpack(&numbers, &[], count as usize, &mut flat.numbers).is_some();
        if !readable || self.show(order, &flat.layout, &flat.numbers).is_err() {
            return Taken { verdict: Verdict::Refused, answer: None };
        }
        if self.held.len() >= HELD_MAX {
            // The oldest may be in use.
            self.held.remove(1);
        }
        self.held.push_back(Held { sequence, flat });
        Taken { verdict: order, answer: Some(Answer::Acknowledged(sequence)) }
    }

    fn delta(&mut self, delta: &Delta, order: Verdict) -> Taken {
        let plain = |verdict| Taken { verdict, answer: None };
        if order != Verdict::Newer {
            return plain(order);
        }
        let Some(place) = self.held.iter().position(|held| held.sequence == delta.keyframe) else {
            let answer = Some(Answer::Missing(delta.keyframe));
            return Taken { verdict: Verdict::Unknown, answer };
        };
        let held = std::mem::take(&mut self.held);
        let mut numbers = Vec::new();
        let Flat { layout, numbers: base } = &held[place].flat;
        let count = delta.count as usize;
        let readable = count <= NUMBERS_MAX
            && unpack(&delta.numbers, base, count, &mut numbers).is_some()
            && self.show(order, layout, &numbers).is_ok();
        self.held = held;
        if !readable {
            return plain(Verdict::Refused);
        }
        // The sender has this one acknowledged, and never goes back to an older one.
        self.held.drain(..place);
        plain(order)
    }

    /// Makes the newest sample of these numbers, if they are newer and are one.
    fn show(&mut self, order: Verdict, layout: &Layout, numbers: &[u64]) -> Result<(), Malformed> {
        let mut sample = Sample::default();
        restore(layout, numbers, &mut sample)?;
        if order == Verdict::Newer {
            self.newest = Some(Arc::new(sample));
        }
        Ok(())
    }

    /// Where a reading stands among those that came.
    fn order(&self, sequence: Sequence) -> Verdict {
        match self.head.0.checked_sub(sequence.0) {
            None => Verdict::Newer,
            Some(age) if age < WINDOW && self.came >> age & 1 == 1 => Verdict::Doubled,
            Some(_) => Verdict::Late,
        }
    }

    /// Notes that a reading came.
    fn mark(&mut self, sequence: Sequence) {
        if let Some(ahead) = sequence.0.checked_sub(self.head.0) {
            self.came =
                u32::try_from(ahead).ok().and_then(|by| self.came.checked_shl(by)).unwrap_or(0);
            self.came |= 1;
            self.head = sequence;
        } else if self.head.0 - sequence.0 < WINDOW {
            self.came |= 1 << (self.head.0 - sequence.0);
        }
    }
}
