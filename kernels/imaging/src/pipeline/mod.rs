//! Pipelines: files of named steps that turn an image into a labelled one.
//!
//! A pipeline is a TOML file that a person writes:
//!
//! ```toml
//! name = "chest-ct"          # what it is called; required
//! label = "lungs"            # what its mask shows; required
//! about = "Lungs in chest CT, from scans without contrast."
//!
//! [[steps]]
//! name = "air"               # the step's name; if left out, the operation's
//! operation = "threshold"    # what it does: the names are in the table of `Operation`
//! below = -400               # its parameters, each with its unit in its name or its description
//!
//! [[steps]]
//! operation = "keep_largest"
//! ```
//!
//! A step works on the current image or the current mask: the newest that a step before it made (the
//! first image is the one put in). `from = "air"` takes the result of an earlier step instead, and
//! `from = "input"` the image as it was put in. Some operations take a second mask, named by
//! `with = "..."`. The mask of the last step that makes one is the label.
//!
//! The image that a network shall see is the newest one made by a step that changes the grid or the
//! scale of the intensities (`resample`, `reorient`, `crop`, `crop_to_body`, `augment`,
//! `bias_correction`, `window`, `rescale`, `clip`, `z_score`, `normalise_ct`), or the input where there
//! is none; smoothing does not count. `image = "..."` at the top names another.
//!
//! Where there is a GPU, the operations that have a twin for it run there, with the same results to the
//! last bit; `device = "cpu"` at the top keeps all on the processor, and `device = "cuda"` lets a step
//! fail that could run on a GPU and does not.
//!
//! [`Pipeline::parse`] finds every mistake before anything runs, and says where it is.
//! [`Pipeline::plan`] says what it will do to a grid and how much memory that takes.
//! [`Pipeline::run_cached`] keeps each step's result in a folder and goes on from those it finds.
//! [`Pipeline::hash`] is the same for files that do the same: comments, order of keys and defaults
//! written out do not change it, nor do `name` and `about`.

mod apply;
mod cache;
mod catalogue;
mod operation;
mod parameters;
mod parse;
mod plan;
mod run;

use serde::Serialize;

use crate::compute::Device;

pub use cache::{BYTES_MAX as CACHE_BYTES_MAX, Cache, CacheCounts};
pub use operation::Operation;
pub use parse::PipelineError;
pub use plan::{Plan, PlannedStep};
pub use run::{Labelled, StepReport};

/// The most bytes of a pipeline's text; the shipped ones have about one KiB.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// The most steps of a pipeline.
pub const STEPS_MAX: usize = 64;
/// The most seeds of a step.
pub const SEEDS_MAX: usize = 1000;
/// The most characters of a name.
pub const NAME_CHARACTERS_MAX: usize = 64;

/// A checked pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    name: String,
    label: String,
    about: String,
    image: Option<String>,
    device: Device,
    steps: Vec<Step>,
}

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its name, unlike that of any other step.
    pub name: String,
    /// The earlier step whose result it works on; the newest image or mask where there is none.
    pub from: Option<String>,
    /// The earlier step whose mask is its second input.
    pub with: Option<String>,
    /// The operation's name, as in files.
    pub what: &'static str,
    /// What it does.
    pub operation: Operation,
}

/// What `from` calls the image that was put in.
const INPUT: &str = "input";

impl Pipeline {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what its mask shows.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns what its author says about it, if anything.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Returns the steps in their order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns where its steps shall run.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the SHA-256, in hexadecimal, of what the pipeline does: its steps with all their
    /// parameters, its label and the image it gives. Where it runs is no part of it, as the results are
    /// the same.
    #[must_use]
    pub fn hash(&self) -> String {
        plan::hash_of(&("gantry pipeline 1", &self.label, &self.image, &self.steps))
    }
}
