//! The one error type of this crate.
//!
//! Its sentences say what was tried, why it failed and what to do. They never hold a patient's
//! name, an identifier or a path, so that they may travel to the scheduler and into logs.

use thiserror::Error;

/// Why an image could not be read, written or worked on.
#[derive(Debug, Error)]
pub enum ImagingError {
    /// A grid is not sound, or voxels do not fill it.
    #[error("the volume's grid is not sound: {problem}")]
    Geometry {
        /// What is wrong with it.
        problem: String,
    },
    /// Two volumes that must lie on one grid do not.
    #[error(
        "two volumes lie on different grids ({left:?} and {right:?} voxels, or different places); \
         resample one onto the other first"
    )]
    GridMismatch {
        /// The size of the first.
        left: [usize; 3],
        /// The size of the second.
        right: [usize; 3],
    },
    /// An operation was given a parameter it cannot work with.
    #[error("{operation}: {problem}")]
    Parameter {
        /// The operation.
        operation: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Something is larger than its limit.
    #[error("the {what} has size {found}, more than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A GPU could not do what it was asked for; the processor can.
    #[error("the GPU could not be used: {problem}")]
    Device {
        /// What stood in the way, and what would help.
        problem: String,
    },
    /// A file's bytes are not what its format asks for.
    #[error("cannot read the {format} file: {problem}")]
    Format {
        /// The format, as users call it.
        format: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A file is sound but uses a part of its format that is not supported.
    #[error("cannot read the {format} file: {feature} is not supported")]
    Unsupported {
        /// The format, as users call it.
        format: &'static str,
        /// What is not supported.
        feature: String,
    },
    /// A step of a pipeline failed.
    #[error("step {step:?} failed: {source}")]
    Step {
        /// The step's name.
        step: String,
        /// Why it failed.
        source: Box<ImagingError>,
    },
    /// The operating system refused to read or write.
    #[error("reading or writing failed: {0}")]
    Io(#[from] std::io::Error),
}
