//! What agent and scheduler say to each other about samples: keyframes, deltas and answers.
//!
//! A [`Keyframe`] is a whole sample, a [`Delta`] is one as its differences from a keyframe that the
//! scheduler has acknowledged. Neither depends on any other datagram, so each that arrives gives
//! its sample, whichever were lost before it. Both fit a datagram for an ordinary node; what does
//! not fit goes by a stream, and the order in which both arrive does not matter.

use serde::{Deserialize, Serialize};

use crate::flat::Layout;
use crate::pack::Packed;

/// The place of a reading among all those of one connection, from 1 on. A keyframe is known by it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Sequence(pub u64);

/// One sample on its way, in either form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reading {
    /// All of it.
    Keyframe(Keyframe),
    /// Its differences from a keyframe.
    Delta(Delta),
}

impl Reading {
    /// Its place among the readings of its connection.
    #[must_use]
    pub const fn sequence(&self) -> Sequence {
        match self {
            Self::Keyframe(keyframe) => keyframe.sequence,
            Self::Delta(delta) => delta.sequence,
        }
    }
}

/// A whole sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyframe {
    /// Its place, and its name in deltas.
    pub sequence: Sequence,
    /// Texts and counts.
    pub layout: Layout,
    /// How many numbers there are.
    pub count: u32,
    /// The numbers, as their differences from zero.
    pub numbers: Packed,
}

/// A sample as its differences from a keyframe. Its layout is the keyframe's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Its place.
    pub sequence: Sequence,
    /// The keyframe.
    pub keyframe: Sequence,
    /// How many numbers there are: lists change their length.
    pub count: u32,
    /// The numbers, as their differences from the keyframe's.
    pub numbers: Packed,
}

/// What the scheduler answers. An answer may be lost, late or doubled as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It has this keyframe, and deltas against it are welcome.
    Acknowledged(Sequence),
    /// It does not have this keyframe, and no delta against it can be read.
    Missing(Sequence),
}
