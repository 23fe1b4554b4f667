//! Samples of a node, what they become on the wire, and the series that keep them.
//!
//! A sample holds integers only, each with its unit in the name, so that equal readings are equal
//! bytes. A reading that could not be taken is absent, never zero: a gap stays a gap, in a series
//! and on a screen.
//!
//! An [`Encoder`] on the agent makes datagrams of samples and a [`Decoder`] on the scheduler makes
//! samples of them again, the newest wins. A [`Series`] keeps what a screen shows of the past, a
//! [`Watchman`] says when a reading is one that a person must see, and a [`Curve`] keeps what a job
//! says of itself by step.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod curve;
pub mod decoder;
pub mod delta;
pub mod encoder;
mod field;
mod fields;
mod flat;
mod pack;
pub mod quantity;
pub mod sample;
pub mod series;
mod short;
mod slots;
pub mod threshold;
mod written;

#[cfg(test)]
mod tests;

pub use curve::{Curve, Point};
pub use decoder::{Counts, Decoder, Taken, Verdict};
pub use delta::{Answer, Delta, Keyframe, Reading, Sequence};
pub use encoder::Encoder;
pub use flat::Layout;
pub use pack::Packed;
pub use quantity::Quantity;
pub use sample::{
    DiskSample, GpuProcess, GpuSample, IngestCounts, LibraryCounts, NetworkSample, Pressure,
    Sample, StorageSample, TaskSample,
};
pub use series::Series;
pub use slots::Bucket;
pub use threshold::{Change, Rule, Side, Watchman};
