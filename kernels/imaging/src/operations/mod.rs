//! The operations on volumes, one module each, public under the crate's root.
//!
//! All of them are pure: an image or a mask and parameters in, an image or a mask out. All give the
//! same bytes from one thread or many, because each output voxel is computed by one fixed sequence
//! of additions. None panics on an empty volume or on voxels that are not numbers; a comparison
//! with such a voxel is false.

pub mod components;
pub mod crop;
pub mod edge_segmentation;
pub mod edges;
pub mod gaussian;
pub mod intensity;
pub mod measure;
pub mod morphology;
pub mod neighbourhood;
pub mod region;
pub mod resample;
mod runs;
pub mod seeded;
pub mod smooth;
pub mod threshold;
