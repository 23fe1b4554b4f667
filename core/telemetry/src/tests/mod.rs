//! Tests that take more than one module, and samples to test with.

mod channel;
mod curve;
mod hostile;
mod made;
mod series;
mod size;
mod threshold;
