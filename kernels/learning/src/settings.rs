//! What a training is told.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::engine::{EngineChoice, Precision, Surroundings};
use crate::error::LearningError;
use crate::mirror::Mirroring;
use crate::network::{Network, NetworkKind, Patch, Supervision, Task};

/// Epochs: more is a mistake of typing.
const EPOCHS_MAX: u32 = 10_000;
/// Slices per step: a step at the largest input then needs about 4 GiB.
const BATCH_MAX: u32 = 256;
/// Pixels along a side of the input.
const INPUT_SIZE_MAX: usize = 512;
/// Slices of the input of a network over stacks of slices.
const INPUT_DEPTH_MAX: usize = 128;
/// Channels of the first level.
const BASE_CHANNELS_MAX: usize = 64;
/// Folds of a cross-validation.
const FOLDS_MAX: u32 = 20;
/// Seeds of a sweep.
const SEEDS_MAX: u32 = 100;

/// How images are varied while training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// Not at all.
    None,
    /// Half of them mirrored left to right, all of them a little brighter or darker.
    #[default]
    MirrorAndShift,
}

/// One fold of a cross-validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// Its number, counted from 1.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

/// A setting, what it is, whether that can be trained with, and what it must be.
type Rule = (&'static str, String, bool, String);

/// Runs that differ in their fold, their seed, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// Folds; 1 for the usual share of patients.
    pub folds: u32,
    /// Seeds, counted up from the settings' own.
    pub seeds: u32,
}

impl Sweep {
    /// How many runs these are.
    #[must_use]
    pub const fn runs(self) -> u32 {
        self.folds.saturating_mul(self.seeds)
    }
}

/// What a training is told. Values that are left out take their default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// The label of the samples to learn from. Default: `lungs`.
    pub label: String,
    /// The network. Default: `unet2d`.
    pub network: NetworkKind,
    /// How often every slice is seen. Default: 12.
    pub epochs: u32,
    /// Slices per step. Default: 8.
    pub batch_size: u32,
    /// The first step's learning rate; it falls to 0 with the power 0.9 of what remains. Default:
    /// 0.003.
    pub learning_rate: f64,
    /// The share of a weight that a step takes from it, times the learning rate. Default: 0.01.
    pub weight_decay: f64,
    /// The seed of weights, split, order and augmentation. Default: 1.
    pub seed: u64,
    /// Pixels along a side of the network's input, a multiple of 8, of 32 for a classifier. Default:
    /// 64.
    pub input_size: usize,
    /// Slices of the input of a network over stacks of slices, a multiple of 8. Default: 16.
    pub input_depth: usize,
    /// Channels of the network's first level, a multiple of 4. Default: 0, which is 8 for a U-Net and
    /// 64 for a classifier.
    pub base_channels: usize,
    /// Where a U-Net is told what it should have said: at its top, or at every size on its way up.
    /// Default: at its top.
    pub supervision: Supervision,
    /// How images are varied. Default: mirrored and shifted.
    pub augmentation: Augmentation,
    /// From which sides the network looks at an image when it is measured and, later, used; needs
    /// images that are mirrored while it learns. Default: none.
    pub mirroring: Mirroring,
    /// Steps between checkpoints; one is also written after every epoch. Default: 50.
    pub checkpoint_every_steps: u64,
    /// The share of the patients, in percent, whose samples are measured after every epoch and not
    /// trained on; rounded up to whole patients. Default: 20.
    pub validation_percent: u32,
    /// The fold of a cross-validation whose patients are measured, instead of a share of them; every
    /// patient who is not held out is in one. Folds of one seed have no patient in common. Default:
    /// none.
    pub fold: Option<Fold>,
    /// The share of the average of the weights that each step keeps, 0.99 for one; measured and
    /// published is the average then. Default: 0, which keeps none.
    pub average_decay: f64,
    /// Epochs without a better validation after which the run ends, and the best epoch's weights are
    /// published. Default: 0, which trains all epochs and publishes the last's.
    pub patience_epochs: u32,
    /// Runs of an array, of which each task makes one. Default: none.
    pub sweep: Option<Sweep>,
    /// Patients who are neither trained on nor used for decisions, by their keys. Default: none.
    pub hold_out: Vec<String>,
    /// What trains. Default: `auto`, which is `PyTorch` where the node has it.
    pub engine: EngineChoice,
    /// With how many bits `PyTorch` computes. Default: `auto`, which is bf16 on a GPU that has it.
    pub precision: Precision,
    /// MiB of memory for samples: what does not fit is read from shards when it is needed, and nothing
    /// else changes. Default: half of what its task was granted, 4096 where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_memory_mib: Option<u64>,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            label: "lungs".to_owned(),
            network: NetworkKind::default(),
            epochs: 12,
            batch_size: 8,
            learning_rate: 0.003,
            weight_decay: 0.01,
            seed: 1,
            input_size: 64,
            input_depth: 16,
            base_channels: 0,
            supervision: Supervision::default(),
            augmentation: Augmentation::default(),
            mirroring: Mirroring::default(),
            checkpoint_every_steps: 50,
            validation_percent: 20,
            fold: None,
            average_decay: 0.0,
            patience_epochs: 0,
            sweep: None,
            hold_out: Vec::new(),
            engine: EngineChoice::default(),
            precision: Precision::default(),
            data_memory_mib: None,
        }
    }
}

impl TrainSettings {
    /// The settings and the run's name of one task of an array, whose first has the index 0: folds
    /// count first, then seeds. Without a sweep they are as they are.
    #[must_use]
    pub fn of_task(mut self, run: &str, index: u32) -> (Self, String) {
        let Some(Sweep { folds, seeds }) = self.sweep.take() else { return (self, run.to_owned()) };
        let mut run = run.to_owned();
        if folds > 1 {
            let number = index % folds + 1;
            self.fold = Some(Fold { number, of: folds });
            // Writing to a string cannot fail.
            let _ = write!(run, "-fold{number}");
        }
        if seeds > 1 {
            self.seed += u64::from(index / folds.max(1));
            let _ = write!(run, "-seed{}", self.seed);
        }
        (self, run)
    }

    /// The network: one class beside the background.
    pub(crate) fn network(&self) -> Network {
        let kind = self.network;
        let base_channels =
            if self.base_channels == 0 { kind.usual_channels() } else { self.base_channels };
        Network { kind, base_channels, classes: 2, supervision: self.supervision }
    }

    /// What the network takes at once.
    pub(crate) fn patch(&self) -> Patch {
        let depth = if self.network.axes() == 3 { self.input_depth } else { 1 };
        Patch { depth, side: self.input_size }
    }

    /// Bytes of memory for samples; none where nothing is known.
    pub(crate) fn data_bytes(&self, around: &Surroundings) -> Option<u64> {
        self.data_memory_mib.map(|mib| mib.saturating_mul(1 << 20)).or(around.data.memory_bytes)
    }

    /// Refuses values that cannot be trained with.
    pub fn check(&self) -> Result<(), LearningError> {
        let side = self.network.side_multiple();
        let channels = self.network().base_channels;
        let fold =
            |fold: Fold| (2..=FOLDS_MAX).contains(&fold.of) && (1..=fold.of).contains(&fold.number);
        let sweep = self.sweep.unwrap_or(Sweep { folds: 1, seeds: 1 });
        let rules: [Rule; 10] = [
            (
                "epochs",
                self.epochs.to_string(),
                (1..=EPOCHS_MAX).contains(&self.epochs),
                format!("it must be 1 to {EPOCHS_MAX}"),
            ),
            (
                "batch_size",
                self.batch_size.to_string(),
                (1..=BATCH_MAX).contains(&self.batch_size),
                format!("it must be 1 to {BATCH_MAX}"),
            ),
            (
                "learning_rate",
                self.learning_rate.to_string(),
                self.learning_rate > 0.0 && self.learning_rate <= 1.0,
                "it must be above 0 and at most 1".to_owned(),
            ),
            (
                "weight_decay",
                self.weight_decay.to_string(),
                (0.0..=1.0).contains(&self.weight_decay),
                "it must be 0 to 1".to_owned(),
            ),
            (
                "input_size",
                self.input_size.to_string(),
                (side.max(16)..=INPUT_SIZE_MAX).contains(&self.input_size)
                    && self.input_size.is_multiple_of(side),
                format!(
                    "for {} it must be a multiple of {side}, {} to {INPUT_SIZE_MAX}",
                    self.network.word(),
                    side.max(16)
                ),
            ),
            (
                "input_depth",
                self.input_depth.to_string(),
                self.network.axes() == 2
                    || (side..=INPUT_DEPTH_MAX).contains(&self.input_depth)
                        && self.input_depth.is_multiple_of(side),
                format!("it must be a multiple of {side}, {side} to {INPUT_DEPTH_MAX}"),
            ),
            (
                "base_channels",
                self.base_channels.to_string(),
                (4..=BASE_CHANNELS_MAX).contains(&channels) && channels.is_multiple_of(4),
                format!("it must be a multiple of 4, 4 to {BASE_CHANNELS_MAX}"),
            ),
            (
                "fold",
                self.fold
                    .map_or_else(String::new, |fold| format!("{} of {}", fold.number, fold.of)),
                self.fold.is_none_or(fold),
                format!("it must be one of 2 to {FOLDS_MAX} folds, counted from 1"),
            ),
            (
                "folds",
                sweep.folds.to_string(),
                (1..=FOLDS_MAX).contains(&sweep.folds),
                format!("it must be 1, for none, to {FOLDS_MAX}"),
            ),
            (
                "seeds",
                sweep.seeds.to_string(),
                (1..=SEEDS_MAX).contains(&sweep.seeds),
                format!("it must be 1 to {SEEDS_MAX}"),
            ),
        ];
        for (setting, found, holds, wanted) in rules.into_iter().chain(self.rules_of_learning()) {
            if !holds {
                return Err(LearningError::Setting { setting, found, wanted });
            }
        }
        Ok(())
    }

    /// What holds of the way in which a network learns.
    fn rules_of_learning(&self) -> [Rule; 5] {
        let watched = self.validation_percent > 0 || self.fold.is_some();
        [
            (
                "average_decay",
                self.average_decay.to_string(),
                (0.0..1.0).contains(&self.average_decay),
                "it must be 0, for none, or below 1".to_owned(),
            ),
            (
                "supervision",
                self.supervision.word().to_owned(),
                self.supervision.is_top() || self.network.task() == Task::Segmentation,
                "it needs a network with a way up, a U-Net".to_owned(),
            ),
            (
                "mirroring",
                self.mirroring.word().to_owned(),
                self.mirroring.is_none() || self.augmentation == Augmentation::MirrorAndShift,
                "it needs images that are mirrored while the network learns".to_owned(),
            ),
            (
                "patience_epochs",
                self.patience_epochs.to_string(),
                self.patience_epochs == 0 || watched,
                "it needs patients to validate with; set validation_percent or a fold".to_owned(),
            ),
            (
                "validation_percent",
                self.validation_percent.to_string(),
                self.validation_percent <= 90,
                "it must be 0 to 90".to_owned(),
            ),
        ]
    }

    /// The first setting in which two trainings would differ in what they learn. Engine, precision and
    /// memory are none: a run goes on where there is room for it.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            ("label", self.label != other.label),
            ("number of epochs", self.epochs != other.epochs),
            ("batch_size", self.batch_size != other.batch_size),
            ("learning_rate", self.learning_rate.to_bits() != other.learning_rate.to_bits()),
            ("weight_decay", self.weight_decay.to_bits() != other.weight_decay.to_bits()),
            ("seed", self.seed != other.seed),
            ("network", self.network != other.network),
            ("input_size", self.input_size != other.input_size),
            ("input_depth", self.patch().depth != other.patch().depth),
            (
                "number of base_channels",
                self.network().base_channels != other.network().base_channels,
            ),
            ("fold", self.fold != other.fold),
            ("average_decay", self.average_decay.to_bits() != other.average_decay.to_bits()),
            ("number of patience_epochs", self.patience_epochs != other.patience_epochs),
            ("augmentation", self.augmentation != other.augmentation),
            ("supervision", self.supervision != other.supervision),
            ("mirroring", self.mirroring != other.mirroring),
            ("validation_percent", self.validation_percent != other.validation_percent),
            ("hold_out", self.hold_out != other.hold_out),
        ]
        .into_iter()
        .find_map(|(setting, differs)| differs.then_some(setting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_takes_its_default_and_what_is_unknown_is_refused() {
        let read = serde_json::from_str::<TrainSettings>;
        assert_eq!(read("{}").unwrap(), TrainSettings::default());
        assert_eq!(read(r#"{"epochs":3}"#).unwrap().epochs, 3);
        assert!(read(r#"{"epoch":3}"#).unwrap_err().to_string().contains("epoch"));
        TrainSettings::default().check().unwrap();
    }

    #[test]
    fn each_task_of_a_sweep_has_a_run_of_its_own() {
        let settings = TrainSettings {
            seed: 7,
            sweep: Some(Sweep { folds: 3, seeds: 2 }),
            ..TrainSettings::default()
        };
        let of = |index| {
            let (settings, run) = settings.clone().of_task("lungs", index);
            (settings.fold.map(|fold| (fold.number, fold.of)), settings.seed, run)
        };
        assert_eq!(settings.sweep.unwrap().runs(), 6);
        assert_eq!(of(0), (Some((1, 3)), 7, "lungs-fold1-seed7".into()));
        assert_eq!(of(5), (Some((3, 3)), 8, "lungs-fold3-seed8".into()));
        let (alone, run) = TrainSettings::default().of_task("lungs", 4);
        assert_eq!((alone, run.as_str()), (TrainSettings::default(), "lungs"));
    }

    #[test]
    fn refuses_what_cannot_be_trained_with() {
        let change = |change: fn(&mut TrainSettings)| {
            let mut settings = TrainSettings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        for (sentence, part) in [
            (change(|s| s.epochs = 0), "epochs is 0"),
            (change(|s| s.batch_size = 9999), "batch_size is 9999"),
            (change(|s| s.learning_rate = f64::NAN), "learning_rate is NaN"),
            (change(|s| s.learning_rate = -1.0), "learning_rate is -1"),
            (change(|s| s.weight_decay = 2.0), "weight_decay is 2"),
            (change(|s| s.input_size = 60), "for unet2d it must be a multiple of 8, 16 to 512"),
            (
                change(|s| (s.network, s.input_size) = (NetworkKind::ResNet18, 72)),
                "for resnet18 it must be a multiple of 32",
            ),
            (
                change(|s| (s.network, s.input_depth) = (NetworkKind::UNet3d, 12)),
                "input_depth is 12; it must be a multiple of 8",
            ),
            (change(|s| s.fold = Some(Fold { number: 6, of: 5 })), "fold is 6 of 5"),
            (change(|s| s.average_decay = 1.0), "average_decay is 1"),
            (
                change(|s| (s.patience_epochs, s.validation_percent) = (3, 0)),
                "patients to validate with",
            ),
            (
                change(|s| {
                    (s.network, s.supervision) = (NetworkKind::ResNet18, Supervision::Deep);
                }),
                "supervision is deep; it needs a network with a way up",
            ),
            (
                change(|s| {
                    (s.mirroring, s.augmentation) = (Mirroring::LeftRight, Augmentation::None);
                }),
                "mirroring is left-right; it needs images that are mirrored",
            ),
            (change(|s| s.base_channels = 6), "a multiple of 4"),
            (change(|s| s.validation_percent = 100), "validation_percent is 100"),
        ] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
