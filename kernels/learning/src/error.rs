//! What can go wrong in learning.

use std::io;
use std::path::{Path, PathBuf};

use gantry_imaging::ImagingError;
use gantry_library::LibraryError;

/// A failure of training or prediction. No message names a patient, a series or an image.
#[derive(Debug, thiserror::Error)]
pub enum LearningError {
    /// The library failed or refused.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// An image operation refused.
    #[error("preparing an image for the network failed: {0}")]
    Imaging(#[from] ImagingError),
    /// A setting has a value that cannot be trained with.
    #[error("the setting {setting} is {found}; {wanted}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// The library has no sample of the label.
    #[error("no sample is labelled {label:?}; {there}")]
    NoSamples {
        /// The label asked for.
        label: String,
        /// What there is instead.
        there: String,
    },
    /// The label marks nothing in any image to be trained on.
    #[error(
        "label {label:?} marks no pixel in the {slices} slices to train on, at {input_size} x \
         {input_size} pixels; check the pipeline's masks, or set a larger input_size"
    )]
    EmptyClass {
        /// The label.
        label: String,
        /// Slices to train on.
        slices: usize,
        /// Pixels along a side of the network's input.
        input_size: usize,
    },
    /// There is more to train on than a training keeps in order.
    #[error(
        "the samples have {slices} slices, and {limit} is the most of one training; reject some of \
         them, or give a part another label"
    )]
    TooMany {
        /// Slices of the samples.
        slices: usize,
        /// The limit.
        limit: usize,
    },
    /// The loss is no number any more.
    #[error(
        "the loss became {loss} at step {step}, so the run cannot go on; set a learning_rate below \
         {learning_rate}, and look for samples with damaged values"
    )]
    Diverged {
        /// What it became.
        loss: f32,
        /// When.
        step: u64,
        /// The rate that was set.
        learning_rate: f64,
    },
    /// The run's folder holds checkpoints of a training with other settings.
    #[error(
        "the run has checkpoints of a training with another {setting}; give this one another name, \
         or the same settings"
    )]
    OtherRun {
        /// The first setting that differs.
        setting: &'static str,
    },
    /// A model's record or weights are not what this program can use.
    #[error("model {model} cannot be used: {reason}")]
    Model {
        /// The model's id.
        model: String,
        /// Why.
        reason: String,
    },
    /// A file of the run could not be read or written.
    #[error("{what} {path} failed: {source}; check the space and the mount", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file of the run.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine cannot train, or has failed.
    #[error("{0}")]
    Engine(String),
    /// Weights or a checkpoint are damaged.
    #[error("{0}")]
    Damaged(String),
}

impl LearningError {
    pub(crate) fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { what, path: path.to_owned(), source }
    }
}
