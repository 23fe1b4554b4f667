//! The operations on volumes, one module each, public under the crate's root.
//!
//! All of them are pure: an image or a mask and parameters in, an image or a mask out. All give the
//! same bytes from one thread or many, because each output voxel is computed by one fixed sequence
//! of additions. None panics on an empty volume or on voxels that are not numbers; a comparison
//! with such a voxel is false.

pub mod augment;
pub mod bias;
pub mod canny;
pub mod components;
mod convolve;
pub mod crop;
pub mod diffusion;
pub mod distance;
mod each;
pub mod edge_segmentation;
pub mod fast_marching;
pub mod flood;
pub mod gaussian;
pub mod gradient;
pub mod intensity;
pub mod laplacian;
pub mod measure;
pub mod median;
pub mod morphology;
pub mod neighbourhood;
mod queue;
pub mod random_walker;
mod reach;
pub mod region;
pub mod reorient;
pub mod resample;
mod runs;
pub mod seeded;
pub mod seeds;
pub mod smooth;
pub mod spline;
pub mod stretches;
pub mod surface;
pub mod threshold;
mod touching;
mod vector;
mod walled;
pub mod watershed;

pub(crate) use each::each;
