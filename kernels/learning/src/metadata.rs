//! What is said of a model, so that it can be used and judged.

use serde::{Deserialize, Serialize};

use crate::data::Normalisation;
use crate::unet::UNet;

/// The version of the metadata that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// Everything beside the weights that a prediction needs, and where the model comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The version of this record.
    pub version: u32,
    /// What the model does: `segmentation`.
    pub task: String,
    /// The network.
    pub network: UNet,
    /// Pixels along a side of its input, which is one slice.
    pub input_size: usize,
    /// How intensities become what it sees.
    pub normalisation: Normalisation,
    /// The classes, the background first.
    pub labels: Vec<String>,
    /// The modalities it was trained on.
    pub modalities: Vec<String>,
    /// The hash of the samples it was trained on.
    pub library_hash: String,
    /// How many samples it was trained on.
    pub samples: usize,
    /// How often each was seen.
    pub epochs: u32,
    /// The seed of the run.
    pub seed: u64,
    /// What it may be used for.
    pub intended_use: String,
    /// The version of the program that trained it.
    pub program: String,
}

/// How an epoch went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Its number, counted from 1.
    pub epoch: u32,
    /// The mean loss of its steps.
    pub loss: f32,
    /// The mean Dice over the validation samples after it; nothing where there are none.
    pub validation_dice: Option<f32>,
    /// Slices trained on per second, since the run was last started; 0 where it had been stopped at
    /// the epoch's very end.
    pub images_per_second: f32,
}
