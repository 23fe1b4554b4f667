//! DICOM: which files are images, their pixels, series as volumes, and writing both.
//!
//! [`inspect`] gives each file its verdict without decoding pixels: what it is, or a [`Refusal`]
//! with a reason. [`mod@deidentify`] takes a patient out of a file. [`assemble`] makes a volume of a series. [`mod@write`] makes CT series and
//! segmentations. Parsing and the compressed codecs are dicom-rs; what it gets wrong on real files
//! is mended here, each case beside its reason.
//!
//! Nothing here panics on any bytes, holds more than [`FILE_BYTES_MAX`] of one file, or puts a
//! patient's data into a sentence.

mod codec;
pub mod deidentify;
mod encapsulated;
mod inspect;
mod pixels;
mod read;
mod refusal;
mod report;
mod segmentation;
mod series;
mod walk;
pub mod write;

pub use inspect::{Instance, Pixels, Traces, inspect, traces};
pub use pixels::{Frames, pixels};
pub use read::{FILE_BYTES_MAX, data_set};
pub use refusal::{Reason, Refusal};
pub use report::report_text;
pub use segmentation::{
    SegmentationHead, SegmentationSubject, Segments, segmentation, segmentation_subject,
};
pub use series::{Series, Spacing, assemble, grid};
