//! What the demonstration gives: one JSON value, or a page for people.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_library::{ModelRecord, Neighbour, PredictionRecord};
use serde::Serialize;
use serde_json::Value;

/// Everything that came out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// `phantoms` or `real`.
    pub(super) data: &'static str,
    /// Where it is kept, if it is.
    pub(super) folder: Option<PathBuf>,
    /// Instances that the receiver answered with success.
    pub(super) instances_sent: u64,
    /// Instances in the library.
    pub(super) instances_received: u64,
    /// Files set aside.
    pub(super) quarantined: Vec<Quarantined>,
    /// Series in the library.
    pub(super) series: u64,
    /// Samples made of them.
    pub(super) samples: u64,
    /// What the training computed on: the GPU's name, or why it was the processor.
    pub(super) computed_on: String,
    /// The training.
    pub(super) training: Trained,
    /// How the model does on a patient that it never saw.
    pub(super) held_out: HeldOut,
    /// What the model says of each series.
    pub(super) predictions: Vec<Predicted>,
    /// The cases nearest to the held-out one.
    pub(super) nearest: Vec<Similar>,
    /// Seconds of each stage.
    pub(super) seconds: BTreeMap<&'static str, f64>,
    /// How often a daemon had to be started again.
    pub(super) scheduler_restarts: u32,
}

/// A file set aside.
#[derive(Debug, Serialize)]
pub(super) struct Quarantined {
    /// A stable word.
    pub(super) reason: String,
    /// The sentence.
    pub(super) sentence: String,
}

impl Quarantined {
    pub(super) fn of(record: &gantry_library::Quarantined) -> Self {
        Self { reason: record.reason.clone(), sentence: record.sentence.clone() }
    }
}

/// The training, as its model's record tells it.
#[derive(Debug, Serialize)]
pub(super) struct Trained {
    /// The model.
    pub(super) model: String,
    /// One record per epoch: loss, validation Dice, images per second.
    pub(super) epochs: Value,
}

impl Trained {
    pub(super) fn of(model: &ModelRecord) -> Self {
        Self { model: model.id.to_string(), epochs: model.metrics["epochs"].clone() }
    }
}

/// The model against the pipeline on the held-out patient.
#[derive(Debug, Serialize)]
pub(super) struct HeldOut {
    /// The series.
    pub(super) series: String,
    /// Dice of the prediction with the pipeline's own mask.
    pub(super) dice: f64,
}

/// A prediction.
#[derive(Debug, Serialize)]
pub(super) struct Predicted {
    /// The series.
    pub(super) series: String,
    /// The predicted volume.
    pub(super) volume_ml: f64,
    /// The mean probability within the mask.
    pub(super) confidence: f64,
}

impl Predicted {
    pub(super) fn of(record: &PredictionRecord) -> Self {
        Self {
            series: record.series.to_string(),
            volume_ml: record.volume_ml,
            confidence: f64::from(record.confidence),
        }
    }
}

/// An earlier case.
#[derive(Debug, Serialize)]
pub(super) struct Similar {
    /// Its series.
    pub(super) series: String,
    /// How far it lies.
    pub(super) distance: f64,
}

impl Similar {
    pub(super) fn of(neighbour: &Neighbour) -> Self {
        Self { series: neighbour.series.to_string(), distance: f64::from(neighbour.distance) }
    }
}

impl Report {
    /// The page for people.
    pub(super) fn people(&self) -> String {
        let mut lines = vec![format!(
            "{} instances in {} series, {} quarantined, {} samples",
            self.instances_received,
            self.series,
            self.quarantined.len(),
            self.samples
        )];
        lines.extend(
            self.quarantined
                .iter()
                .take(10)
                .map(|file| format!("  {}: {}", file.reason, file.sentence)),
        );
        let epochs = self.training.epochs.as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(last) = epochs.last() {
            let dice = last["validation_dice"].as_f64().unwrap_or(f64::NAN);
            lines.push(format!(
                "{} epochs, loss {}, validation Dice {dice:.3}",
                epochs.len(),
                last["loss"]
            ));
        }
        lines.push(format!("computed on {}", self.computed_on));
        lines.push(format!("Dice on the held-out patient: {:.3}", self.held_out.dice));
        lines.extend(self.predictions.iter().map(|one| {
            format!("  {}  {:.1} ml  confidence {:.2}", one.series, one.volume_ml, one.confidence)
        }));
        lines.push("nearest earlier cases:".into());
        lines.extend(
            self.nearest.iter().map(|near| format!("  {}  {:.4}", near.series, near.distance)),
        );
        let stage = |name: &&str| Some(format!("{name} {} s", self.seconds.get(*name)?));
        lines.push(super::chain::STAGES.iter().filter_map(stage).collect::<Vec<_>>().join(", "));
        if self.scheduler_restarts > 0 {
            lines
                .push(format!("daemons that had to be started again: {}", self.scheduler_restarts));
        }
        lines.push("for research use; this is no diagnosis".into());
        lines.join("\n")
    }
}
