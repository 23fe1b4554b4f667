//! Training: from the samples of a library to a model in it.
//!
//! A run is a [`Checkpoint`] that moves forward one step at a time; whatever a step needs is in the
//! checkpoint or follows from settings and seed. So a run that is stopped, killed or moved to another
//! node goes on from its newest checkpoint and ends in the same bits as one that was not.
//!
//! Which patients are trained on, measured after every epoch, or held out is decided when the run
//! begins, and kept: samples that come later do not change a run that goes on.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gantry_library::{
    Fractions, Library, ModelId, PatientKey, SampleId, SampleRecord, Split, SplitPlan,
};

use crate::checkpoint::{Checkpoint, Sides, State};
use crate::data::{DataSet, Normalisation, prepare};
use crate::error::LearningError;
use crate::loss::dice_cross_entropy;
use crate::metadata::{EpochMetrics, FeatureScale};
use crate::optimizer::{Moments, Step, advance, rate_at};
use crate::publish::publish;
use crate::settings::TrainSettings;
use crate::unet::{Mode, Network, UNet, values};

/// Slices measured at once.
const MEASURED_AT_ONCE: usize = 16;

/// Takes what a run reports while it goes.
pub trait RunSink {
    /// A point of a curve. `loss` comes after every step; `train_loss`, `validation_dice` (where
    /// patients were set aside for it) and `images_per_second` after every epoch.
    fn metric(&mut self, name: &str, value: f64, step: u64);

    /// Steps that are done, and how many there are.
    fn progress(&mut self, done: u64, total: u64);

    /// Something odd that loses nothing, in a sentence.
    fn warning(&mut self, sentence: &str) {
        let _ = sentence;
    }

    /// Whether a checkpoint is to be kept before the next step, whatever the settings say: its node
    /// or its time may soon be gone. It is asked before every step.
    fn is_to_keep(&mut self) -> bool {
        false
    }

    /// The checkpoint that was to be kept is on the storage.
    fn kept(&mut self, step: u64) {
        let _ = step;
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RunOutcome {
    /// It is done, and left a model in the library.
    Finished {
        /// The model.
        model: ModelId,
        /// How each epoch went.
        epochs: Vec<EpochMetrics>,
        /// The mean Dice over the samples of the held-out patients, on the network's own grid.
        test_dice: Option<f32>,
    },
    /// It was told to stop, and a checkpoint was written; the same call goes on from there.
    Stopped {
        /// Steps that are done.
        step: u64,
    },
}

/// Trains a network on the samples of a label, from the newest checkpoint in `run_folder` where
/// there is one. The folder's name is the run's. `stop` is looked at before every step.
///
/// # Errors
/// Where a setting cannot be trained with, there are no samples, the label marks nothing, a held-out
/// patient has no sample, the folder holds another run, the loss is no number any more, or library
/// or storage fail.
pub fn train(
    library: &Library,
    settings: &TrainSettings,
    run_folder: &Path,
    sink: &mut dyn RunSink,
    stop: &AtomicBool,
) -> Result<RunOutcome, LearningError> {
    settings.check()?;
    let shape = UNet { base_channels: settings.base_channels, classes: 2 };
    let found = Checkpoint::newest(run_folder, &mut |sentence| sink.warning(sentence))?;
    if let Some(setting) = found.as_ref().and_then(|old| old.state.settings.difference(settings)) {
        return Err(LearningError::OtherRun { setting });
    }
    let all = library.samples()?;
    let sides = match &found {
        Some(checkpoint) => checkpoint.state.sides.clone(),
        None => split(&library.usable_samples()?, settings)?,
    };
    let select = |ids: &[SampleId]| select(&all, ids);
    let trained_on = select(&sides.train)?;
    let prepared = prepare(library, &trained_on, settings.input_size)?;
    let mut checkpoint = match found {
        Some(checkpoint) => checkpoint,
        None => begin(settings, sides, Normalisation::of(&trained_on, &prepared), shape),
    };
    checkpoint.weights.require_shapes_of(&shape.initial(settings.seed))?;
    let side = settings.input_size;
    let normalisation = checkpoint.state.normalisation;
    let data = DataSet::new(prepared, &normalisation, side);
    if data.is_unlabelled() {
        let (label, slices) = (settings.label.clone(), data.len());
        return Err(LearningError::EmptyClass { label, slices, input_size: side });
    }
    let load = |ids: &[SampleId]| -> Result<DataSet, LearningError> {
        Ok(DataSet::new(prepare(library, &select(ids)?, side)?, &normalisation, side))
    };
    let validation = load(&checkpoint.state.sides.validation)?;
    let run = Run { shape, data: &data, validation: &validation, folder: run_folder };
    if let Some(step) = run.go(&mut checkpoint, sink, stop)? {
        return Ok(RunOutcome::Stopped { step });
    }
    let test = load(&checkpoint.state.sides.test)?;
    let test_dice = run.measure(&checkpoint, &test);
    let name = run_folder.file_name().unwrap_or_default().to_string_lossy();
    let trained_on: Vec<SampleRecord> = trained_on.into_iter().cloned().collect();
    let features = run.feature_scale(&checkpoint);
    let model = publish(library, &name, shape, &checkpoint, &trained_on, features, test_dice)?;
    Ok(RunOutcome::Finished { model, epochs: checkpoint.state.history, test_dice })
}

fn begin(
    settings: &TrainSettings,
    sides: Sides,
    normalisation: Normalisation,
    shape: UNet,
) -> Checkpoint {
    let weights = shape.initial(settings.seed);
    let moments = Moments::new(&weights);
    Checkpoint { state: State::new(settings.clone(), sides, normalisation), weights, moments }
}

/// Decides which samples are trained on.
fn split(all: &[SampleRecord], settings: &TrainSettings) -> Result<Sides, LearningError> {
    let labelled: Vec<SampleRecord> =
        all.iter().filter(|sample| sample.label == settings.label).cloned().collect();
    if labelled.is_empty() {
        let labels = Library::fingerprint(all).labels;
        let there = if labels.is_empty() {
            "the library has no samples; make some with gantry preprocess".to_owned()
        } else {
            let names: Vec<&str> = labels.keys().map(String::as_str).collect();
            format!("the library has samples of {}", names.join(", "))
        };
        return Err(LearningError::NoSamples { label: settings.label.clone(), there });
    }
    let hold_out = settings
        .hold_out
        .iter()
        .map(|key| key.parse::<PatientKey>())
        .collect::<Result<Vec<_>, _>>()?;
    let fractions = Fractions { validation_percent: settings.validation_percent, test_percent: 0 };
    let plan = SplitPlan::new(&labelled, settings.seed, fractions, &hold_out)?;
    let ids = |side| plan.of(side, &labelled).iter().map(|sample| sample.id.clone()).collect();
    Ok(Sides {
        train: ids(Split::Train),
        validation: ids(Split::Validation),
        test: ids(Split::Test),
    })
}

fn select<'a>(
    all: &'a [SampleRecord],
    ids: &[SampleId],
) -> Result<Vec<&'a SampleRecord>, LearningError> {
    let one = |id: &SampleId| {
        all.iter().find(|sample| sample.id == *id).ok_or_else(|| {
            LearningError::Damaged(format!(
                "sample {id}, which the run was begun with, is gone from the library; restore it, \
                 or start another run"
            ))
        })
    };
    ids.iter().map(one).collect()
}

/// What a run reads and does not change.
struct Run<'a> {
    shape: UNet,
    data: &'a DataSet,
    validation: &'a DataSet,
    folder: &'a Path,
}

impl Run<'_> {
    /// Goes on to the end, or to the step at which it was told to stop.
    fn go(
        &self,
        at: &mut Checkpoint,
        sink: &mut dyn RunSink,
        stop: &AtomicBool,
    ) -> Result<Option<u64>, LearningError> {
        let settings = at.state.settings.clone();
        let batch_size = settings.batch_size as usize;
        let total = self.data.len().div_ceil(batch_size) as u64 * u64::from(settings.epochs);
        sink.progress(at.state.step, total);
        while at.state.epoch < settings.epochs {
            let (start, mut seen) = (Instant::now(), 0);
            let order = self.data.order(settings.seed, at.state.epoch);
            for slices in order.chunks(batch_size).skip(at.state.losses.len()) {
                if stop.load(Ordering::Relaxed) {
                    at.save(self.folder)?;
                    return Ok(Some(at.state.step));
                }
                if sink.is_to_keep() {
                    at.save(self.folder)?;
                    sink.kept(at.state.step);
                }
                let loss = self.step(at, slices, total)?;
                seen += slices.len();
                sink.metric("loss", f64::from(loss), at.state.step);
                sink.progress(at.state.step, total);
                if at.state.step.is_multiple_of(settings.checkpoint_every_steps.max(1)) {
                    at.save(self.folder)?;
                }
            }
            let seconds = start.elapsed().as_secs_f64().max(1e-9);
            self.end_epoch(at, (seen as f64 / seconds) as f32, sink)?;
        }
        Ok(None)
    }

    /// One step; gives its loss.
    fn step(
        &self,
        at: &mut Checkpoint,
        slices: &[usize],
        total: u64,
    ) -> Result<f32, LearningError> {
        let state = &mut at.state;
        let TrainSettings { seed, augmentation, learning_rate, weight_decay, input_size, .. } =
            state.settings;
        let batch = self.data.batch(slices, augmentation, seed, state.epoch);
        let network = Network::new(self.shape, &at.weights, Mode::Learn);
        let shape = |channels| [slices.len(), channels, input_size, input_size];
        let output = network.forward(network.tensor(batch.images, shape(1)));
        let loss = dice_cross_entropy(output.logits, network.tensor(batch.target, shape(2)));
        let gradients = network.gradients(loss.backward());
        let loss = values(loss)[0];
        let rate = rate_at(learning_rate, state.step, total);
        state.step += 1;
        let step = Step { number: state.step, rate, decay: weight_decay };
        advance(&mut at.weights, &mut at.moments, &gradients, step);
        if !loss.is_finite() || !at.weights.is_finite() {
            let loss = if loss.is_finite() { f32::NAN } else { loss };
            return Err(LearningError::Diverged { loss, step: state.step, learning_rate });
        }
        state.losses.push(loss);
        Ok(loss)
    }

    fn end_epoch(
        &self,
        at: &mut Checkpoint,
        images_per_second: f32,
        sink: &mut dyn RunSink,
    ) -> Result<(), LearningError> {
        let validation_dice = self.measure(at, self.validation);
        let state = &mut at.state;
        let losses = std::mem::take(&mut state.losses);
        let loss = losses.iter().sum::<f32>() / losses.len().max(1) as f32;
        state.epoch += 1;
        let epoch = state.epoch;
        state.history.push(EpochMetrics { epoch, loss, validation_dice, images_per_second });
        sink.metric("train_loss", f64::from(loss), state.step);
        if let Some(dice) = validation_dice {
            sink.metric("validation_dice", f64::from(dice), state.step);
        }
        sink.metric("images_per_second", f64::from(images_per_second), state.step);
        at.save(self.folder)
    }

    /// What the features are like over the slices that were trained on.
    fn feature_scale(&self, at: &Checkpoint) -> FeatureScale {
        let network = Network::new(self.shape, &at.weights, Mode::Use);
        let side = at.state.settings.input_size;
        let count = self.data.len();
        let mut features = Vec::with_capacity(count * self.shape.features());
        for first in (0..count).step_by(MEASURED_AT_ONCE) {
            let slices = first..(first + MEASURED_AT_ONCE).min(count);
            let shape = [slices.len(), 1, side, side];
            let batch = network.tensor(self.data.images(slices), shape);
            features.extend(values(network.forward(batch).features));
        }
        FeatureScale::of(&features, self.shape.features())
    }

    /// The mean Dice over samples, or nothing where there are none.
    fn measure(&self, at: &Checkpoint, data: &DataSet) -> Option<f32> {
        let network = Network::new(self.shape, &at.weights, Mode::Use);
        let side = at.state.settings.input_size;
        let mut sum = 0.0;
        for sample in &data.samples {
            let (mut both, mut all) = (0_usize, 0_usize);
            for first in sample.clone().step_by(MEASURED_AT_ONCE) {
                let slices = first..(first + MEASURED_AT_ONCE).min(sample.end);
                let shape = [slices.len(), 1, side, side];
                let batch = network.tensor(data.images(slices.clone()), shape);
                let logits = values(network.forward(batch).logits);
                let areas =
                    logits.chunks_exact(2 * side * side).map(|one| one.split_at(side * side));
                let found =
                    areas.flat_map(|(no, yes)| no.iter().zip(yes).map(|(no, yes)| yes > no));
                for (found, &label) in found.zip(data.masks(slices)) {
                    both += usize::from(found && label != 0);
                    all += usize::from(found) + usize::from(label != 0);
                }
            }
            sum += if all == 0 { 1.0 } else { 2.0 * both as f32 / all as f32 };
        }
        (!data.samples.is_empty()).then(|| sum / data.samples.len() as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rising;

    struct Deaf;

    impl RunSink for Deaf {
        fn metric(&mut self, _: &str, _: f64, _: u64) {}
        fn progress(&mut self, _: u64, _: u64) {}
    }

    #[test]
    fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let shape = UNet { base_channels: 4, classes: 2 };
        let settings = TrainSettings { input_size: 16, epochs: 1, ..TrainSettings::default() };
        let mut at = begin(&settings, Sides::default(), Normalisation::PerImage, shape);
        at.save(folder.path()).unwrap();
        let whole = at.clone();
        at.weights.0.get_mut("level0.classes.shift").unwrap().values.fill(f32::INFINITY);
        let data = rising(16, 8);
        let run = Run { shape, data: &data, validation: &data, folder: folder.path() };
        let sentence = run.go(&mut at, &mut Deaf, &AtomicBool::new(false)).unwrap_err().to_string();
        for part in ["the loss became NaN at step 1", "learning_rate below 0.003"] {
            assert!(sentence.contains(part), "{sentence}");
        }
        assert_eq!(Checkpoint::newest(folder.path(), &mut |_| ()).unwrap(), Some(whole));
    }
}
