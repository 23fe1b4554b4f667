//! The agent's side: which reading to send, a keyframe or a delta.
//!
//! As long as the scheduler has acknowledged no keyframe that has the sample's layout, every sample
//! goes as a keyframe; from then on samples go as deltas against the newest that it did. After a
//! while, or once deltas have grown long, one sample in eight goes as a keyframe again until one of
//! those is acknowledged; deltas against the old one go on meanwhile. So a lost keyframe or a lost
//! acknowledgement costs bytes and never a sample.
//!
//! One encoder and one decoder belong to one connection; [`Encoder::reconnect`] begins the next.

use std::collections::VecDeque;

use crate::delta::{Answer, Delta, Keyframe, Reading, Sequence};
use crate::flat::Flat;
use crate::pack::Packer;
use crate::sample::Sample;

/// Samples after which a keyframe is worth its bytes again: it costs two deltas, and deltas grow
/// slowly with the distance to their keyframe.
const KEYFRAME_AGE_MAX: u64 = 300;
/// Samples between two attempts at a new keyframe while the old one still serves.
const ATTEMPT_EVERY: u64 = 8;
/// Keyframes that wait for their acknowledgement, those of the last seconds. A decoder keeps as many.
pub(crate) const WAITING_MAX: usize = 4;

/// Makes readings of samples.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    /// The place of the newest reading.
    newest: Sequence,
    /// The keyframe that deltas are made against.
    base: Option<Sent>,
    /// Keyframes that were not acknowledged yet, oldest first.
    waiting: VecDeque<Sent>,
    /// The newest sample.
    flat: Flat,
    /// Memory for its lists while it is made flat.
    lists: Vec<u64>,
    packer: Packer,
    /// Whether deltas against the base have grown long.
    growth: Growth,
}

/// A keyframe that was sent.
#[derive(Clone, Debug)]
struct Sent {
    sequence: Sequence,
    flat: Flat,
    /// Bytes of its numbers.
    length: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Growth {
    #[default]
    Short,
    Long,
}

impl Encoder {
    /// The reading to send for a sample; `None` where the sample is beyond the limits of what a
    /// decoder takes.
    pub fn encode(&mut self, sample: &Sample) -> Option<Reading> {
        self.flat.set(sample, &mut self.lists);
        if !self.flat.is_within_limits() {
            return None;
        }
        self.newest.0 += 1;
        // One of another layout is not kept for its return: the decoder may not keep it either.
        self.base.take_if(|base| base.flat.layout != self.flat.layout);
        let Some(base) = &self.base else { return Some(self.keyframe()) };
        if self.is_keyframe_due(base.sequence) {
            return Some(self.keyframe());
        }
        let numbers = self.packer.pack(&self.flat.numbers, &base.flat.numbers);
        self.growth =
            if numbers.len() * 4 > base.length * 3 { Growth::Long } else { Growth::Short };
        Some(Reading::Delta(Delta {
            sequence: self.newest,
            keyframe: base.sequence,
            count: self.flat.numbers.len() as u32,
            numbers,
        }))
    }

    /// Takes an answer of the scheduler.
    pub fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Acknowledged(sequence) => {
                let Some(place) = self.waiting.iter().position(|sent| sent.sequence == sequence)
                else {
                    return;
                };
                // Those before it are older than what is acknowledged now.
                self.base = self.waiting.drain(..=place).next_back();
                self.growth = Growth::Short;
            }
            Answer::Missing(sequence) => {
                self.base.take_if(|base| base.sequence == sequence);
            }
        }
    }

    /// Begins a new connection, of which the other side knows nothing.
    pub fn reconnect(&mut self) {
        self.base = None;
        self.waiting.clear();
        self.growth = Growth::Short;
    }

    /// Whether the base should be replaced, now. Attempts are spaced by their places.
    fn is_keyframe_due(&self, base: Sequence) -> bool {
        let old = self.newest.0 - base.0 >= KEYFRAME_AGE_MAX;
        let tried = self.waiting.back().map_or(base, |sent| sent.sequence);
        (old || self.growth == Growth::Long) && self.newest.0 - tried.0 >= ATTEMPT_EVERY
    }

    fn keyframe(&mut self) -> Reading {
        let numbers = self.packer.pack(&self.flat.numbers, &[]);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        let (sequence, length) = (self.newest, numbers.len());
        self.waiting.push_back(Sent { sequence, flat: self.flat.clone(), length });
        let count = self.flat.numbers.len() as u32;
        let layout = self.flat.layout.clone();
        Reading::Keyframe(Keyframe { sequence, layout, count, numbers })
    }
}
