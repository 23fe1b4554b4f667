//! Volumes, masks and the operations on them; DICOM, NIfTI, NRRD and `MetaImage`; pipelines.
//!
//! An image comes in through [`dicom`], [`nifti`], [`nrrd`] or [`mha`] (or is made by [`phantom`]) as a
//! [`volume::Volume`]. The operations are plain functions from images and masks to images and
//! masks, each with a parameter struct whose defaults and units are documented, and each gives the
//! same bytes from one thread or many. A [`pipeline`] is a file of named steps over them that turns
//! an image into a label.
//!
//! This crate knows no network, no scheduler and no library of samples.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::float_cmp))]
// Loops over axes and rows index several arrays at once.
#![allow(clippy::needless_range_loop)]

pub mod compute;
mod cuda;
pub mod dicom;
pub mod error;
mod format;
mod memory;
pub mod mha;
pub mod nifti;
pub mod nrrd;
mod operations;
pub mod phantom;
pub mod pipeline;
mod scalar;
pub mod shards;
pub mod volume;

pub use operations::{
    augment, bias, canny, components, crop, diffusion, distance, edge_segmentation, fast_marching,
    flood, gaussian, gradient, intensity, laplacian, measure, median, morphology, neighbourhood,
    random_walker, region, reorient, resample, seeded, seeds, smooth, spline, stretches, surface,
    threshold, watershed,
};

pub use error::ImagingError;
pub use volume::{Geometry, Image, Mask, Volume};

/// Starts the threads that operations share. They start by themselves with the first operation that
/// needs them; a process whose memory is limited does so before it has filled it.
pub fn start_threads() {
    // Where they cannot be started now, the first operation says so.
    let _ = rayon::ThreadPoolBuilder::new().build_global();
}
