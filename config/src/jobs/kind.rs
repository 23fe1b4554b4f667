//! The kinds of work that a job of a file can be, and what is written of each.
//!
//! A job without a kind is a command. The others are gantry's own operations on a library, with the
//! words that `gantry preprocess`, `gantry train` and `gantry predict` have as flags. What only the
//! library knows (which series there are, what is still to be done, the text of a pipeline) is
//! filled in by the command; every value carries its place in the text, so that what is found wrong
//! then is said with line and column too.

use std::str::FromStr;

use gantry_model::{Builtin, MemoryMib, Reject};

use super::Mistake;
use super::value::Entry;

/// What a job of a file does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A command, or a script.
    #[default]
    Command,
    /// A pipeline over series of a library.
    Preprocess,
    /// A training on the samples of a library.
    Train,
    /// A model over series of a library.
    Predict,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Command, Self::Preprocess, Self::Train, Self::Predict];

    /// Its word in a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Preprocess => "preprocess",
            Self::Train => "train",
            Self::Predict => "predict",
        }
    }
}

impl FromStr for Kind {
    type Err = Reject;

    fn from_str(text: &str) -> Result<Self, Reject> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            Reject::invalid(format!(
                "{text:?} is no kind of job; write command (or leave it out), preprocess, train or predict"
            ))
        })
    }
}

/// Where a value stands in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    pub(super) at: usize,
    pub(super) key: String,
}

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub spot: Spot,
}

/// A built-in operation as a file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct FileBuiltin {
    /// Where its kind is written.
    pub spot: Spot,
    /// The library's folder, where one is named.
    pub library: Option<Placed<String>>,
    /// What is done there.
    pub work: FileWork,
}

/// What a built-in operation does.
#[derive(Clone, Debug, PartialEq)]
pub enum FileWork {
    /// A pipeline over series.
    Preprocess {
        /// A pipeline file, or the name of a shipped pipeline; the command's default where absent.
        pipeline: Option<Placed<String>>,
        /// Over which series.
        series: Placed<FileSeries>,
    },
    /// A training.
    Train(Box<FileTraining>),
    /// A model over series.
    Predict {
        /// Which model.
        model: Placed<FileModel>,
        /// Over which series.
        series: Placed<FileSeries>,
    },
}

/// The series of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSeries {
    /// Every series that the library has.
    All,
    /// Those without a result of this job's kind.
    Pending,
    /// These, by their ids.
    Listed(Vec<Placed<String>>),
}

/// The model of a prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileModel {
    /// By its id, its name, or `run:NAME` for what a run leaves.
    Named(String),
    /// What the training at this place of the file leaves.
    Job(usize),
}

/// The settings of a training; what is absent is as `gantry train` has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileTraining {
    /// The label to learn.
    pub label: Option<Placed<String>>,
    /// Epochs.
    pub epochs: Option<Placed<u32>>,
    /// Images per step.
    pub batch: Option<Placed<u32>>,
    /// The memory within which the sizes that are not said are planned.
    pub plan: Option<Placed<MemoryMib>>,
    /// The first step's learning rate.
    pub learning_rate: Option<Placed<f64>>,
    /// The share of the average of the weights that each step keeps.
    pub average_decay: Option<Placed<f64>>,
    /// Where a U-Net is told what it should have said.
    pub supervision: Option<Placed<String>>,
    /// From which sides the network looks at an image.
    pub mirroring: Option<Placed<String>>,
    /// The seed of weights, order and augmentation.
    pub seed: Option<Placed<u64>>,
    /// Patients never trained on.
    pub hold_out: Vec<Placed<String>>,
    /// What trains: `auto`, `embedded` or `torch`.
    pub engine: Option<Placed<String>>,
    /// With how many bits `PyTorch` computes: `auto`, `fp32` or `bf16`.
    pub precision: Option<Placed<String>>,
    /// The memory for samples.
    pub data_memory: Option<Placed<MemoryMib>>,
    /// The network, by its name.
    pub network: Option<Placed<String>>,
    /// Pixels along a side of its input.
    pub input_size: Option<Placed<u32>>,
    /// Slices of its input.
    pub input_depth: Option<Placed<u32>>,
    /// Channels of its first level.
    pub base_channels: Option<Placed<u32>>,
    /// Epochs without a better validation after which the run ends.
    pub patience: Option<Placed<u32>>,
    /// Folds, each of which is a task.
    pub folds: Option<Placed<u32>>,
    /// Seeds, each of which is a task.
    pub seeds: Option<Placed<u32>>,
    /// The run's name; one of the submission's own where absent.
    pub run: Option<Placed<String>>,
}

/// A built-in operation while its table is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Operation {
    pub(super) spot: Spot,
    pub(super) library: Option<Placed<String>>,
    pub(super) pipeline: Option<Placed<String>>,
    pub(super) series: Option<Placed<FileSeries>>,
    pub(super) model: Option<Placed<String>>,
    pub(super) training: FileTraining,
}

impl Operation {
    /// The operation of this kind; nothing for a command. `trains` gives the place of a training by
    /// its name.
    pub(super) fn finish(
        &self,
        kind: Kind,
        trains: impl Fn(&str) -> Option<usize>,
    ) -> Result<Option<FileBuiltin>, Mistake> {
        let work = match kind {
            Kind::Command => return Ok(None),
            Kind::Preprocess => {
                FileWork::Preprocess { pipeline: self.pipeline.clone(), series: self.series(kind)? }
            }
            Kind::Train => FileWork::Train(Box::new(self.training.clone())),
            Kind::Predict => {
                let Some(Placed { value, spot }) = self.model.clone() else {
                    return Err(self.lacks(
                        kind,
                        "model; write model = \"…\" with the name of a training of the file, a model's id or name, or run:NAME",
                    ));
                };
                let value = trains(&value).map_or(FileModel::Named(value), FileModel::Job);
                FileWork::Predict { model: Placed { value, spot }, series: self.series(kind)? }
            }
        };
        Ok(Some(FileBuiltin { spot: self.spot.clone(), library: self.library.clone(), work }))
    }

    fn series(&self, kind: Kind) -> Result<Placed<FileSeries>, Mistake> {
        self.series.clone().ok_or_else(|| {
            self.lacks(kind, "series; write series = \"all\", \"pending\", or a list of ids")
        })
    }

    fn lacks(&self, kind: Kind, what: &str) -> Mistake {
        Mistake::new(self.spot.at, format!("kind: {} needs a {what}", kind.name()))
    }
}

impl FileBuiltin {
    /// The operation as far as the file says it. Series that only the library knows are none.
    pub(super) fn written(&self) -> Builtin {
        let library = self.library.as_ref().map(|library| library.value.clone());
        let library = library.unwrap_or_default();
        let text = |value: &Option<Placed<String>>| {
            value.as_ref().map(|value| value.value.clone()).unwrap_or_default()
        };
        match &self.work {
            FileWork::Preprocess { pipeline, series } => {
                let (pipeline, series) = (text(pipeline), series.value.listed());
                Builtin::Preprocess { library, pipeline, series }
            }
            FileWork::Train(training) => {
                Builtin::Train { library, settings: String::new(), run: text(&training.run) }
            }
            FileWork::Predict { model, series } => {
                let model = match &model.value {
                    FileModel::Named(name) => name.clone(),
                    FileModel::Job(_) => String::new(),
                };
                Builtin::Predict { library, model, series: series.value.listed() }
            }
        }
    }
}

impl FileSeries {
    fn listed(&self) -> Vec<String> {
        match self {
            Self::Listed(ids) => ids.iter().map(|id| id.value.clone()).collect(),
            Self::All | Self::Pending => Vec::new(),
        }
    }

    /// Reads `"all"`, `"pending"`, one id or a list of ids.
    pub(super) fn read(entry: &Entry<'_>) -> Result<Placed<Self>, Mistake> {
        let listed = entry.placed_strings()?;
        let refuse = |at: &Spot, reason: String| Mistake::new(at.at, format!("series: {reason}"));
        let value = match &listed[..] {
            [] => return Err(entry.refuse("the list is empty; write \"all\", \"pending\" or ids")),
            [one] if one.value == "all" => Self::All,
            [one] if one.value == "pending" => Self::Pending,
            _ => {
                let word =
                    listed.iter().find(|one| matches!(one.value.as_str(), "all" | "pending"));
                if let Some(Placed { value, spot }) = word {
                    let reason = format!(
                        "{value:?} stands for series by itself; write series = {value:?}, or ids only"
                    );
                    return Err(refuse(spot, reason));
                }
                let mut seen = std::collections::BTreeSet::new();
                if let Some(twice) = listed.iter().find(|one| !seen.insert(&one.value)) {
                    let reason = format!("{:?} is named twice; take one out", twice.value);
                    return Err(refuse(&twice.spot, reason));
                }
                Self::Listed(listed)
            }
        };
        Ok(entry.placed(value))
    }
}
