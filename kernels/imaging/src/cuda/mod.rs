//! Operations on a GPU: the twins of those on the processor, for CUDA.
//!
//! A twin is two things: kernels in C++ (`kernels/imaging/cuda`) and the function that starts them
//! in their order, written over [`device::Device`]. Both follow the operation on the processor sum by
//! sum, and no compiler is allowed to fuse any, so that a result is the same bits wherever it was
//! made: which machine ran a step is of no interest to whoever uses its result, or finds it in a cache.

pub(crate) mod canny;
mod compile;
pub(crate) mod connected;
mod device;
mod driver;
pub(crate) mod gaussian;
pub(crate) mod gradient;
#[cfg(test)]
mod host;
pub(crate) mod morphology;
pub(crate) mod region;
#[cfg(test)]
mod regions_tests;
pub(crate) mod resample;
mod source;
#[cfg(test)]
mod twins_tests;

pub(crate) use driver::{Cuda, gpu};
