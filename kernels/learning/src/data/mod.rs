//! The samples of a training: prepared once and kept in shards, held in memory as far as there is room, and
//! made into batches ahead of the steps that take them.
//!
//! | module | what |
//! |---|---|
//! | [`grid`] | the square grid of a sample, and the scale of its intensities |
//! | [`prepare`] | samples on their grids, written into shards of the library |
//! | [`shelf`] | what is read of the shards, which other trainings read too |
//! | [`set`] | the patches of samples and how an epoch varies them |
//! | [`room`] | how much of that may be in memory |
//! | [`loader`] | batches that are made ahead |

mod grid;
mod loader;
mod prepare;
mod room;
mod set;
mod shelf;

pub use grid::Normalisation;
pub use room::DataRoom;

pub(crate) use grid::{Statistics, on_scale, to_square, usual_slice_mm};
pub(crate) use loader::{Batches, Varied, ahead};
pub(crate) use prepare::Preparation;
pub(crate) use room::Room;
#[cfg(test)]
pub(crate) use set::rising;
pub(crate) use set::{Batch, DataSet, shows, target_of, thinned};
pub(crate) use shelf::Shelf;
