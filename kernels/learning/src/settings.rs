//! What a training is told.

use serde::{Deserialize, Serialize};

use crate::engine::{EngineChoice, Precision};
use crate::error::LearningError;
use crate::unet::UNet;

/// Epochs: more is a mistake of typing.
const EPOCHS_MAX: u32 = 10_000;
/// Slices per step: a step at the largest input then needs about 4 GiB.
const BATCH_MAX: u32 = 256;
/// Pixels along a side of the input.
const INPUT_SIZE_MAX: usize = 512;
/// Channels of the first level.
const BASE_CHANNELS_MAX: usize = 64;

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

/// What a training is told. Values that are left out take their default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// The label of the samples to learn from. Default: `lungs`.
    pub label: String,
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
    /// Pixels along a side of the network's input, a multiple of 8. Default: 64.
    pub input_size: usize,
    /// Channels of the network's first level, a multiple of 4. Default: 8.
    pub base_channels: usize,
    /// How images are varied. Default: mirrored and shifted.
    pub augmentation: Augmentation,
    /// Steps between checkpoints; one is also written after every epoch. Default: 50.
    pub checkpoint_every_steps: u64,
    /// The share of the patients, in percent, whose samples are measured after every epoch and not
    /// trained on; rounded up to whole patients. Default: 20.
    pub validation_percent: u32,
    /// Patients who are neither trained on nor used for decisions, by their keys. Default: none.
    pub hold_out: Vec<String>,
    /// What trains. Default: `auto`, which is `PyTorch` where the node has it.
    pub engine: EngineChoice,
    /// With how many bits `PyTorch` computes. Default: `auto`, which is bf16 on a GPU that has it.
    pub precision: Precision,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            label: "lungs".to_owned(),
            epochs: 12,
            batch_size: 8,
            learning_rate: 0.003,
            weight_decay: 0.01,
            seed: 1,
            input_size: 64,
            base_channels: 8,
            augmentation: Augmentation::default(),
            checkpoint_every_steps: 50,
            validation_percent: 20,
            hold_out: Vec::new(),
            engine: EngineChoice::default(),
            precision: Precision::default(),
        }
    }
}

impl TrainSettings {
    /// Refuses values that cannot be trained with.
    pub fn check(&self) -> Result<(), LearningError> {
        let side = UNet::SIDE_MULTIPLE;
        let rules: [(&'static str, String, bool, String); 7] = [
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
                (2 * side..=INPUT_SIZE_MAX).contains(&self.input_size)
                    && self.input_size.is_multiple_of(side),
                format!("it must be a multiple of {side}, {} to {INPUT_SIZE_MAX}", 2 * side),
            ),
            (
                "base_channels",
                self.base_channels.to_string(),
                (4..=BASE_CHANNELS_MAX).contains(&self.base_channels)
                    && self.base_channels.is_multiple_of(4),
                format!("it must be a multiple of 4, 4 to {BASE_CHANNELS_MAX}"),
            ),
            (
                "validation_percent",
                self.validation_percent.to_string(),
                self.validation_percent <= 90,
                "it must be 0 to 90".to_owned(),
            ),
        ];
        for (setting, found, holds, wanted) in rules {
            if !holds {
                return Err(LearningError::Setting { setting, found, wanted });
            }
        }
        Ok(())
    }

    /// The first setting in which two trainings would differ in what they learn. Engine and precision
    /// are none: a run goes on where there is room for it.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            ("label", self.label != other.label),
            ("number of epochs", self.epochs != other.epochs),
            ("batch_size", self.batch_size != other.batch_size),
            ("learning_rate", self.learning_rate.to_bits() != other.learning_rate.to_bits()),
            ("weight_decay", self.weight_decay.to_bits() != other.weight_decay.to_bits()),
            ("seed", self.seed != other.seed),
            ("input_size", self.input_size != other.input_size),
            ("number of base_channels", self.base_channels != other.base_channels),
            ("augmentation", self.augmentation != other.augmentation),
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
            (change(|s| s.input_size = 60), "a multiple of 8"),
            (change(|s| s.base_channels = 6), "a multiple of 4"),
            (change(|s| s.validation_percent = 100), "validation_percent is 100"),
        ] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
