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
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Instant;

use gantry_library::{
    Fractions, Library, ModelId, PatientKey, SampleId, SampleRecord, Split, SplitPlan,
};

use crate::checkpoint::{Checkpoint, Sides, State};
use crate::data::{Batch, DataSet, Normalisation, prepare};
use crate::engine::{self, Engine, Stepped, Surroundings};
use crate::error::LearningError;
use crate::metadata::{EpochMetrics, FeatureScale};
use crate::optimizer::{Moments, Step, rate_at};
use crate::publish::publish;
use crate::settings::TrainSettings;
use crate::unet::UNet;

/// Slices measured at once.
const MEASURED_AT_ONCE: usize = 16;
/// Batches that are made ahead of the step that takes them.
const BATCHES_AHEAD: usize = 4;

/// Takes what a run reports while it goes.
pub trait RunSink {
    /// A point of a curve. `loss` comes after every step; `train_loss`, `validation_dice` (where
    /// patients were set aside for it), `images_per_second`, `waiting_percent` (the share of the time
    /// that the engine waited for images) and `gpu_memory_mib` (where there is a GPU) after every
    /// epoch. Of the ranks of a gang all tell how fast they are, and the first tells the rest.
    fn metric(&mut self, name: &str, value: f64, step: u64);

    /// Steps that are done, and how many there are.
    fn progress(&mut self, done: u64, total: u64);

    /// What may be good to know, in a sentence.
    fn note(&mut self, sentence: &str) {
        let _ = sentence;
    }

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
    /// It is done. This was not the first rank of its gang, which leaves the model.
    Helped,
    /// It was told to stop, and a checkpoint was written; the same call goes on from there.
    Stopped {
        /// Steps that are done.
        step: u64,
    },
}

/// Trains a network on the samples of a label, from the newest checkpoint in `run_folder` where
/// there is one. The folder's name is the run's. `stop` is looked at before every step; `around` says
/// what there is to train with.
///
/// # Errors
/// Where a setting cannot be trained with, there are no samples, the label marks nothing, a held-out
/// patient has no sample, the folder holds another run, the engine that is asked for is not there or
/// fails, the loss is no number any more, or library or storage fail.
pub fn train(
    library: &Library,
    settings: &TrainSettings,
    run_folder: &Path,
    around: &Surroundings,
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
    // How it is carried out may be another way than before.
    checkpoint.state.settings = settings.clone();
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
    let mut engine = engine::start(&checkpoint, shape, around, sink)?;
    let engine = &mut *engine;
    let run = Run { shape, data: &data, validation: &validation, folder: run_folder };
    if let Some(step) = run.go(&mut checkpoint, engine, sink, stop)? {
        return Ok(RunOutcome::Stopped { step });
    }
    if !engine.is_first() {
        return Ok(RunOutcome::Helped);
    }
    let test = load(&checkpoint.state.sides.test)?;
    let test_dice = measure(engine, side, &test)?;
    let name = run_folder.file_name().unwrap_or_default().to_string_lossy();
    let trained_on: Vec<SampleRecord> = trained_on.into_iter().cloned().collect();
    let features = run.feature_scale(engine)?;
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

/// How an epoch, or the rest of one, went by.
struct Course {
    start: Instant,
    images: usize,
    waited_s: f64,
    memory_mib: u64,
}

impl Run<'_> {
    /// Goes on to the end, or to the step at which it was told to stop.
    fn go(
        &self,
        at: &mut Checkpoint,
        engine: &mut dyn Engine,
        sink: &mut dyn RunSink,
        stop: &AtomicBool,
    ) -> Result<Option<u64>, LearningError> {
        let TrainSettings { batch_size, epochs, seed, augmentation, .. } = at.state.settings;
        let batch_size = batch_size as usize;
        let total = self.data.len().div_ceil(batch_size) as u64 * u64::from(epochs);
        sink.progress(at.state.step, total);
        while at.state.epoch < epochs {
            let epoch = at.state.epoch;
            let order = self.data.order(seed, epoch);
            let steps: Vec<&[usize]> =
                order.chunks(batch_size).skip(at.state.losses.len()).collect();
            let shares: Vec<&[usize]> =
                steps.iter().map(|slices| &slices[engine.share(slices.len())]).collect();
            let sizes: Vec<usize> = steps.iter().map(|slices| slices.len()).collect();
            let stopped = thread::scope(|scope| {
                let (sender, batches) = sync_channel(BATCHES_AHEAD);
                scope.spawn(move || {
                    for share in shares {
                        // Whoever takes them has stopped, or failed.
                        if sender.send(self.data.batch(share, augmentation, seed, epoch)).is_err() {
                            return;
                        }
                    }
                });
                self.epoch(at, engine, (&sizes, &batches, total), sink, stop)
            })?;
            if stopped {
                return Ok(Some(at.state.step));
            }
        }
        Ok(None)
    }

    /// The steps of an epoch that are still to do, of which each has so many images; says whether it
    /// was told to stop within it.
    fn epoch(
        &self,
        at: &mut Checkpoint,
        engine: &mut dyn Engine,
        (sizes, batches, total): (&[usize], &Receiver<Batch>, u64),
        sink: &mut dyn RunSink,
        stop: &AtomicBool,
    ) -> Result<bool, LearningError> {
        let every = at.state.settings.checkpoint_every_steps.max(1);
        let mut course = Course { start: Instant::now(), images: 0, waited_s: 0.0, memory_mib: 0 };
        let mut coming = sizes.iter();
        for (place, size) in sizes.iter().enumerate() {
            if engine.agree(stop.load(Ordering::Relaxed))? {
                self.keep(at, engine)?;
                return Ok(true);
            }
            if sink.is_to_keep() {
                self.keep(at, engine)?;
                sink.kept(at.state.step);
            }
            // The next step's images are on their way while this one is made.
            let asked = Instant::now();
            for size in coming.by_ref().take(if place == 0 { 2 } else { 1 }) {
                let Ok(batch) = batches.recv() else {
                    return Err(LearningError::Engine("the loader of images has failed".into()));
                };
                engine.offer(batch, *size)?;
            }
            let waited = asked.elapsed().as_secs_f64();
            let stepped = step(at, engine, total)?;
            course.images += engine.share(*size).len();
            course.waited_s += stepped.waited_s.unwrap_or(waited);
            course.memory_mib = course.memory_mib.max(stepped.memory_mib);
            if engine.is_first() {
                sink.metric("loss", f64::from(stepped.loss), at.state.step);
                sink.progress(at.state.step, total);
            }
            if at.state.step.is_multiple_of(every) {
                self.keep(at, engine)?;
            }
        }
        self.end_epoch(at, engine, &course, sink)?;
        Ok(false)
    }

    /// Writes a checkpoint; only the first rank of a gang does.
    fn keep(&self, at: &mut Checkpoint, engine: &mut dyn Engine) -> Result<(), LearningError> {
        if !engine.is_first() {
            return Ok(());
        }
        (at.weights, at.moments) = engine.arrays()?;
        at.save(self.folder)
    }

    fn end_epoch(
        &self,
        at: &mut Checkpoint,
        engine: &mut dyn Engine,
        course: &Course,
        sink: &mut dyn RunSink,
    ) -> Result<(), LearningError> {
        let seconds = course.start.elapsed().as_secs_f64().max(1e-9);
        let images_per_second = (course.images as f64 / seconds) as f32;
        let side = at.state.settings.input_size;
        let validation_dice =
            if engine.is_first() { measure(engine, side, self.validation)? } else { None };
        let state = &mut at.state;
        let losses = std::mem::take(&mut state.losses);
        let loss = losses.iter().sum::<f32>() / losses.len().max(1) as f32;
        state.epoch += 1;
        let epoch = state.epoch;
        state.history.push(EpochMetrics { epoch, loss, validation_dice, images_per_second });
        if engine.is_first() {
            sink.metric("train_loss", f64::from(loss), state.step);
        }
        if let Some(dice) = validation_dice {
            sink.metric("validation_dice", f64::from(dice), state.step);
        }
        sink.metric("images_per_second", f64::from(images_per_second), state.step);
        sink.metric("waiting_percent", 100.0 * course.waited_s / seconds, state.step);
        if course.memory_mib > 0 {
            sink.metric("gpu_memory_mib", course.memory_mib as f64, state.step);
        }
        self.keep(at, engine)
    }

    /// What the features are like over the slices that were trained on.
    fn feature_scale(&self, engine: &mut dyn Engine) -> Result<FeatureScale, LearningError> {
        let count = self.data.len();
        let mut features = Vec::with_capacity(count * self.shape.features());
        for first in (0..count).step_by(MEASURED_AT_ONCE) {
            let slices = first..(first + MEASURED_AT_ONCE).min(count);
            features.extend(engine.see(self.data.images(slices))?.features);
        }
        Ok(FeatureScale::of(&features, self.shape.features()))
    }
}

/// One step.
fn step(
    at: &mut Checkpoint,
    engine: &mut dyn Engine,
    total: u64,
) -> Result<Stepped, LearningError> {
    let state = &mut at.state;
    let TrainSettings { learning_rate, weight_decay, .. } = state.settings;
    let rate = rate_at(learning_rate, state.step, total);
    state.step += 1;
    let step = Step { number: state.step, rate, decay: weight_decay };
    let stepped = engine.step(step)?;
    if !stepped.finite {
        let loss = if stepped.loss.is_finite() { f32::NAN } else { stepped.loss };
        return Err(LearningError::Diverged { loss, step: state.step, learning_rate });
    }
    state.losses.push(stepped.loss);
    Ok(stepped)
}

/// The mean Dice over samples, or nothing where there are none.
fn measure(
    engine: &mut dyn Engine,
    side: usize,
    data: &DataSet,
) -> Result<Option<f32>, LearningError> {
    let mut sum = 0.0;
    for sample in &data.samples {
        let (mut both, mut all) = (0_usize, 0_usize);
        for first in sample.clone().step_by(MEASURED_AT_ONCE) {
            let slices = first..(first + MEASURED_AT_ONCE).min(sample.end);
            let logits = engine.see(data.images(slices.clone()))?.logits;
            let areas = logits.chunks_exact(2 * side * side).map(|one| one.split_at(side * side));
            let found = areas.flat_map(|(no, yes)| no.iter().zip(yes).map(|(no, yes)| yes > no));
            for (found, &label) in found.zip(data.masks(slices)) {
                both += usize::from(found && label != 0);
                all += usize::from(found) + usize::from(label != 0);
            }
        }
        sum += if all == 0 { 1.0 } else { 2.0 * both as f32 / all as f32 };
    }
    Ok((!data.samples.is_empty()).then(|| sum / data.samples.len() as f32))
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
        let engine = crate::EngineChoice::Embedded;
        let settings =
            TrainSettings { input_size: 16, epochs: 1, engine, ..TrainSettings::default() };
        let mut at = begin(&settings, Sides::default(), Normalisation::PerImage, shape);
        at.save(folder.path()).unwrap();
        let whole = at.clone();
        at.weights.0.get_mut("level0.classes.shift").unwrap().values.fill(f32::INFINITY);
        let data = rising(16, 8);
        let run = Run { shape, data: &data, validation: &data, folder: folder.path() };
        let around = Surroundings::default();
        let mut engine = engine::start(&at, shape, &around, &mut Deaf).unwrap();
        let stop = AtomicBool::new(false);
        let sentence = run.go(&mut at, &mut *engine, &mut Deaf, &stop).unwrap_err().to_string();
        for part in ["the loss became NaN at step 1", "learning_rate below 0.003"] {
            assert!(sentence.contains(part), "{sentence}");
        }
        assert_eq!(Checkpoint::newest(folder.path(), &mut |_| ()).unwrap(), Some(whole));
    }
}
