//! What the tasks of a job do.

use serde::{Deserialize, Serialize};

/// What each task of a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// A command, run in its own process group.
    Command {
        /// The program and its arguments; at least one.
        arguments: Vec<String>,
        /// The working folder; the agent's work folder where it is absent.
        folder: Option<String>,
    },
    /// An operation that a warm worker on the node carries out without a process of its own.
    Builtin(Builtin),
}

/// The operations built into gantry. Each names the library it works on by its folder on the
/// shared storage, and series, models and runs by the library's own opaque ids: no patient data
/// ever travels in a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Builtin {
    /// One task per series: run a pipeline and add the sample to the library.
    Preprocess {
        /// Folder of the library.
        library: String,
        /// The pipeline file's text.
        pipeline: String,
        /// Series, one for each array index.
        series: Vec<String>,
    },
    /// Train a network on the samples of a library and publish the model.
    Train {
        /// Folder of the library.
        library: String,
        /// Training settings as JSON.
        settings: String,
        /// The run: the folder of its checkpoints within the library. A later try resumes it.
        run: String,
    },
    /// One task per series: predict, keep mask and DICOM SEG, add the case.
    Predict {
        /// Folder of the library.
        library: String,
        /// The model's id, or the run whose model it is (`run:NAME`).
        model: String,
        /// Series, one for each array index.
        series: Vec<String>,
    },
}

impl Builtin {
    /// The operation's name, as in `gantry preprocess`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Preprocess { .. } => "preprocess",
            Self::Train { .. } => "train",
            Self::Predict { .. } => "predict",
        }
    }
}
