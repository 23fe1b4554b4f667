//! What carries out the passes of a training: the embedded engine on the CPU, or `PyTorch`.
//!
//! Everything else of a training is the same for both: which images a step sees and how they are
//! varied, the schedule, what is measured, when a checkpoint is kept, and its form. A run that was
//! begun by one engine goes on under the other.

mod embedded;
mod launch;
mod link;
mod surroundings;
mod torch;

use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::surroundings::{Rank, Surroundings};

use self::embedded::Embedded;
use self::torch::Torch;
use crate::checkpoint::Checkpoint;
use crate::data::Batch;
use crate::error::LearningError;
use crate::network::Network;
use crate::optimizer::{Moments, Step};
use crate::train::RunSink;
use crate::weights::Weights;

/// Which engine trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// `PyTorch` where the node has it, else the embedded one.
    #[default]
    Auto,
    /// The embedded engine, on the CPU.
    Embedded,
    /// `PyTorch`, on the GPUs of the lease where there are any.
    Torch,
}

/// With how many bits `PyTorch` computes. Weights are `f32` always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bfloat16 on a GPU that has it, else 32 bits.
    #[default]
    Auto,
    /// 32 bits.
    Fp32,
    /// Passes in bfloat16 where that loses nothing, sums in 32 bits.
    Bf16,
}

impl FromStr for EngineChoice {
    type Err = LearningError;

    fn from_str(text: &str) -> Result<Self, LearningError> {
        word(
            "engine",
            text,
            &[("auto", Self::Auto), ("embedded", Self::Embedded), ("torch", Self::Torch)],
        )
    }
}

impl FromStr for Precision {
    type Err = LearningError;

    fn from_str(text: &str) -> Result<Self, LearningError> {
        word("precision", text, &[("auto", Self::Auto), ("fp32", Self::Fp32), ("bf16", Self::Bf16)])
    }
}

/// The value that a word of a setting means.
pub(crate) fn word<T: Copy>(
    setting: &'static str,
    text: &str,
    all: &[(&str, T)],
) -> Result<T, LearningError> {
    all.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|(word, _)| *word).collect();
        let wanted = format!("it must be one of {}", words.join(", "));
        LearningError::Setting { setting, found: format!("{text:?}"), wanted }
    })
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stepped {
    /// The loss over the images of all ranks.
    pub(crate) loss: f32,
    /// Whether loss, gradients and weights are numbers. Where they are not, the run is over.
    pub(crate) finite: bool,
    /// Seconds that the engine waited for images, where it works beside whoever brings them.
    pub(crate) waited_s: Option<f64>,
    /// The most memory of a GPU that was in use, in MiB; 0 without a GPU.
    pub(crate) memory_mib: u64,
}

/// What the network says of images.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// Patch, class, voxel; one of these where a whole slice has a class.
    pub(crate) logits: Vec<f32>,
    /// Patch, feature.
    pub(crate) features: Vec<f32>,
}

/// What carries out the passes of a training.
pub(crate) trait Engine {
    /// Whether this rank is the one that keeps checkpoints, measures, and leaves the model.
    fn is_first(&self) -> bool {
        true
    }

    /// The images of a step of so many that are this process's to bring.
    fn share(&self, images: usize) -> Range<usize> {
        0..images
    }

    /// Whether any rank says so.
    fn agree(&mut self, flag: bool) -> Result<bool, LearningError> {
        Ok(flag)
    }

    /// Takes this process's share of the images of a step to come, `all` with those of the others.
    fn offer(&mut self, batch: Batch, all: usize) -> Result<(), LearningError>;

    /// Makes a step with the images that were offered first.
    fn step(&mut self, step: Step) -> Result<Stepped, LearningError>;

    /// From now on shows what the network says with these weights, and no longer with those that
    /// learn. The training is over.
    fn show(&mut self, weights: &Weights) -> Result<(), LearningError>;

    /// What the network says of patches: with the average of its weights, where one is kept.
    fn see(&mut self, images: Vec<f32>) -> Result<Seen, LearningError>;

    /// The weights and moments as they are now.
    fn arrays(&mut self) -> Result<(Weights, Moments), LearningError>;
}

/// Starts the engine that the settings ask for, where a run stands.
pub(crate) fn start(
    checkpoint: &Checkpoint,
    network: Network,
    around: &Surroundings,
    sink: &mut dyn RunSink,
) -> Result<Box<dyn Engine>, LearningError> {
    let choice = checkpoint.state.settings.engine;
    let gang = around.rank.as_ref().is_some_and(|rank| rank.of > 1);
    if gang && choice == EngineChoice::Embedded {
        return Err(LearningError::Engine(
            "the embedded engine trains in one task; leave ranks out, or set the engine to torch"
                .into(),
        ));
    }
    let found = match choice {
        EngineChoice::Embedded => Err("the embedded engine uses the CPU".to_owned()),
        EngineChoice::Auto | EngineChoice::Torch => launch::find(&around.python),
    };
    let must = gang || choice == EngineChoice::Torch;
    let absent = match found.map(|()| Torch::start(checkpoint, network, around)) {
        Ok(Ok(torch)) => {
            sink.note(&torch.words());
            return Ok(Box::new(torch));
        }
        Ok(Err(error)) if must => return Err(error),
        Ok(Err(error)) => {
            sink.warning(&error.to_string());
            error.to_string()
        }
        Err(absent) => absent,
    };
    if must {
        return Err(LearningError::Engine(format!(
            "PyTorch cannot train here: {absent}; install it, or name a Python that has it as \
             `python` in the agent's settings"
        )));
    }
    if around.gpus > 0 {
        sink.warning(&format!("the GPUs of this task are not used: {absent}"));
    }
    sink.note("engine: embedded, on the CPU");
    Ok(Box::new(Embedded::new(checkpoint, network)))
}
