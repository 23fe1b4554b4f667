//! Samples of a node and the rings that keep them.
//!
//! A sample holds integers only, each with its unit in the name, so that equal readings are equal
//! bytes. A reading that could not be taken is absent, never zero: a gap stays a gap, in a ring and
//! on a screen.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ring;
pub mod sample;

pub use ring::{Bucket, Ring};
pub use sample::{
    DiskSample, GpuProcess, GpuSample, IngestCounts, LibraryCounts, NetworkSample, Pressure, Sample,
    StorageSample, TaskSample,
};
