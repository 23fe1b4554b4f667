//! What is said of a model, so that it can be used and judged.

use serde::{Deserialize, Serialize};

use crate::data::Normalisation;
use crate::mirror::Mirroring;
use crate::network::{Network, Patch};
use crate::settings::Fold;

/// The version of the metadata that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// Everything beside the weights that a prediction needs, and where the model comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The version of this record.
    pub version: u32,
    /// What the model does: `segmentation` or `classification`.
    pub task: String,
    /// The network.
    pub network: Network,
    /// Pixels along a side of its input.
    pub input_size: usize,
    /// Slices of its input: more than one where it sees stacks of slices.
    #[serde(default = "one")]
    pub input_depth: usize,
    /// How far its slices are apart, in mm; nothing where each image's own are taken.
    #[serde(default)]
    pub slice_mm: Option<f64>,
    /// How intensities become what it sees.
    pub normalisation: Normalisation,
    /// From which sides it looks at an image.
    #[serde(default, skip_serializing_if = "Mirroring::is_none")]
    pub mirroring: Mirroring,
    /// What the network's features are like over the training set.
    pub features: FeatureScale,
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
    /// Which fold of a cross-validation it was measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// What it may be used for.
    pub intended_use: String,
    /// The version of the program that trained it.
    pub program: String,
}

const fn one() -> usize {
    1
}

impl ModelMetadata {
    /// What the network takes at once.
    pub(crate) const fn patch(&self) -> Patch {
        Patch { depth: self.input_depth, side: self.input_size }
    }
}

/// The mean and deviation of each feature over the slices of the training set. Embeddings are told in
/// deviations from that mean: what all images have in common says nothing of which are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureScale {
    /// The mean of each feature.
    pub mean: Vec<f32>,
    /// The standard deviation of each feature.
    pub deviation: Vec<f32>,
}

impl FeatureScale {
    /// The scale of slices' features, one slice after the other.
    pub(crate) fn of(features: &[f32], per_slice: usize) -> Self {
        let slices = || features.chunks_exact(per_slice);
        let count = slices().len().max(1) as f64;
        let sum = |of: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let one = |at| slices().map(|slice| of(at, f64::from(slice[at]))).sum::<f64>() / count;
            (0..per_slice).map(one).collect()
        };
        let mean = sum(&|_, value| value);
        let variance = sum(&|at, value| (value - mean[at]).powi(2));
        Self {
            mean: mean.iter().map(|&one| one as f32).collect(),
            deviation: variance.iter().map(|one| one.sqrt() as f32).collect(),
        }
    }

    /// Features in deviations from the mean; one that does not vary is 0.
    pub(crate) fn apply(&self, features: &[f64]) -> Vec<f64> {
        let scale = self.mean.iter().zip(&self.deviation);
        let one = |(&value, (&mean, &deviation)): (&f64, (&f32, &f32))| {
            if deviation > 1e-6 { (value - f64::from(mean)) / f64::from(deviation) } else { 0.0 }
        };
        features.iter().zip(scale).map(one).collect()
    }
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
    /// The same for a classifier: the area under the curve of its slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_auc: Option<f32>,
    /// Slices trained on per second, since the run was last started; 0 where it had been stopped at
    /// the epoch's very end.
    pub images_per_second: f32,
}
