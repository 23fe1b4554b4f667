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
use std::thread;
use std::time::Instant;

use gantry_library::{Library, ModelId, SampleRecord};

use crate::checkpoint::{Checkpoint, State};
use crate::data::{
    Batches, DataSet, Normalisation, Preparation, Room, Shelf, Varied, ahead, usual_slice_mm,
};
use crate::engine::{self, Engine, Stepped, Surroundings};
use crate::error::LearningError;
use crate::merit::{self, MEASURED_AT_ONCE, Merit};
use crate::metadata::{EpochMetrics, FeatureScale};
use crate::network::{Network, Patch};
use crate::optimizer::{Moments, Step, average_at, rate_at};
use crate::publish::publish;
use crate::settings::TrainSettings;
use crate::sides::{select, split};
use crate::weights::Weights;

/// Patches whose features say what features are like, evenly over all of them: they are held at once.
const FEATURES_MAX: usize = 1 << 16;

/// Takes what a run reports while it goes.
pub trait RunSink {
    /// A point of a curve. `loss` comes after every step; `train_loss`, `validation_dice` or
    /// `validation_auc` (where patients were set aside for it), `images_per_second`, `waiting_percent` (the share of the time
    /// that the engine waited for images), `data_memory_mib` (the most that samples and batches took of
    /// the memory at once) and `gpu_memory_mib` (where there is a GPU) after every epoch. Of the ranks of a gang all tell how fast they are, and the first tells the rest.
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
        /// How good it is on the samples of the held-out patients.
        test: Merit,
    },
    /// It is done. This was not the first rank of its gang, which leaves the model.
    Helped,
    /// It was told to stop, and a checkpoint was written where a step was made; the same call goes on from
    /// there.
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
    let (network, patch) = (settings.network(), settings.patch());
    let found = Checkpoint::newest(run_folder, &mut |sentence| sink.warning(sentence))?;
    if let Some(setting) = found.as_ref().and_then(|old| old.state.settings.difference(settings)) {
        return Err(LearningError::OtherRun { setting });
    }
    let all = library.samples()?;
    let sides = match &found {
        Some(checkpoint) => checkpoint.state.sides.clone(),
        None => split(&library.usable_samples()?, settings)?,
    };
    let trained_on = select(&all, &sides.train)?;
    let validated = select(&all, &sides.validation)?;
    let held_out = select(&all, &sides.test)?;
    let slice_mm = match &found {
        Some(checkpoint) => checkpoint.state.slice_mm,
        // Of both, so that it is the same for all folds and seeds, whose samples are then prepared once.
        None if network.kind.axes() == 3 => usual_slice_mm(&[&trained_on[..], &validated].concat()),
        None => None,
    };
    let preparation = Preparation { side: patch.side, slice_mm };
    let every = [&trained_on[..], &validated, &held_out].concat();
    let mut goes_on = |number: usize, of: usize| {
        sink.note(&format!("preparing samples: shard {number} of {of}"));
        !stop.load(Ordering::Relaxed)
    };
    let bytes = around.data.shard_bytes;
    let Some(shelf) = Shelf::open(library, preparation, &every, bytes, &mut goes_on)? else {
        return Ok(RunOutcome::Stopped { step: found.map_or(0, |found| found.state.step) });
    };
    let mut checkpoint = if let Some(found) = found {
        found
    } else {
        let normalisation = Normalisation::of(&trained_on, &shelf)?;
        let state = State::new(settings.clone(), sides, normalisation);
        begin(State { slice_mm, ..state })
    };
    checkpoint.weights.require_shapes_of(&network.initial(settings.seed))?;
    // How it is carried out may be another way than before.
    checkpoint.state.settings = settings.clone();
    let normalisation = checkpoint.state.normalisation;
    let room = Room::new(settings.data_bytes(around), patch, settings.batch_size as usize);
    let load = |samples: &[&SampleRecord]| {
        DataSet::new(&shelf, samples, &normalisation, network, patch, &room)
    };
    let (data, validation) = (load(&trained_on)?, load(&validated)?);
    if data.is_unlabelled() {
        let (label, slices) = (settings.label.clone(), data.slices());
        return Err(LearningError::EmptyClass { label, slices, input_size: patch.side });
    }
    shelf.take_warnings().iter().for_each(|sentence| sink.warning(sentence));
    sink.note(&format!("{}; {}", shelf.words(), room.words()));
    let mut engine = engine::start(&checkpoint, network, around, sink)?;
    let engine = &mut *engine;
    let (data, validation, room) = (&data, &validation, &room);
    let run =
        Run { network, patch, data, validation, folder: run_folder, shelf: Some(&shelf), room };
    if let Some(step) = run.go(&mut checkpoint, engine, sink, stop)? {
        return Ok(RunOutcome::Stopped { step });
    }
    if !engine.is_first() {
        return Ok(RunOutcome::Helped);
    }
    let weights = published(&checkpoint);
    engine.show(weights)?;
    let held_out = load(&held_out)?;
    let test = merit::measure(engine, (network, patch, settings.mirroring), &held_out)?;
    let name = run_folder.file_name().unwrap_or_default().to_string_lossy();
    let trained_on: Vec<SampleRecord> = trained_on.into_iter().cloned().collect();
    let features = run.feature_scale(engine)?;
    run.tell_of_shards(sink)?;
    let model = publish(library, &name, &checkpoint.state, weights, &trained_on, features, test)?;
    Ok(RunOutcome::Finished { model, epochs: checkpoint.state.history, test })
}

fn begin(state: State) -> Checkpoint {
    let weights = state.settings.network().initial(state.settings.seed);
    let average = (state.settings.average_decay > 0.0).then(|| weights.clone());
    let moments = Moments { average, ..Moments::new(&weights) };
    Checkpoint { state, weights, moments, best: None }
}

/// The weights that a finished run publishes: the best epoch's where it looked for that, else the
/// average where one is kept.
fn published(at: &Checkpoint) -> &Weights {
    at.best.as_ref().or(at.moments.average.as_ref()).unwrap_or(&at.weights)
}

/// Whether the best epoch is so long ago that the run ends.
fn is_over(state: &State) -> bool {
    let patience = state.settings.patience_epochs as usize;
    patience > 0
        && best_epoch(&state.history).is_some_and(|best| state.history.len() > best + patience)
}

/// The place of the best epoch so far, the first of several.
fn best_epoch(history: &[EpochMetrics]) -> Option<usize> {
    let merits = history.iter().enumerate().filter_map(|(place, epoch)| {
        Some((place, epoch.validation_dice.or(epoch.validation_auc)?))
    });
    merits.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map(|(place, _)| place)
}

/// What a run reads and does not change.
struct Run<'a> {
    network: Network,
    patch: Patch,
    data: &'a DataSet<'a>,
    validation: &'a DataSet<'a>,
    folder: &'a Path,
    /// What the samples are read from; none in some tests.
    shelf: Option<&'a Shelf<'a>>,
    room: &'a Room,
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
        while at.state.epoch < epochs && !engine.agree(is_over(&at.state))? {
            let epoch = at.state.epoch;
            let order = self.data.order(seed, epoch);
            let steps: Vec<&[usize]> =
                order.chunks(batch_size).skip(at.state.losses.len()).collect();
            let shares: Vec<&[usize]> =
                steps.iter().map(|slices| &slices[engine.share(slices.len())]).collect();
            let sizes: Vec<usize> = steps.iter().map(|slices| slices.len()).collect();
            let varied = Varied { augmentation, seed, epoch };
            let stopped = thread::scope(|scope| {
                let batches = ahead(scope, self.data, &shares, varied, self.room);
                self.epoch(at, engine, (&sizes, batches, total), sink, stop)
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
        (sizes, mut batches, total): (&[usize], Batches, u64),
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
                engine.offer(batches.next()?, *size)?;
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
                self.tell_of_shards(sink)?;
            }
        }
        self.tell_of_shards(sink)?;
        self.end_epoch(at, engine, &course, sink)?;
        Ok(false)
    }

    /// Says that the shards are in use, and tells what was odd about them.
    fn tell_of_shards(&self, sink: &mut dyn RunSink) -> Result<(), LearningError> {
        let Some(shelf) = self.shelf else { return Ok(()) };
        shelf.take_warnings().iter().for_each(|sentence| sink.warning(sentence));
        shelf.keep_in_use()
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
        // Every rank has to know whether the run is over, so each measures.
        let watched = at.state.settings.patience_epochs > 0;
        let merit = if engine.is_first() || watched {
            let way = (self.network, self.patch, at.state.settings.mirroring);
            merit::measure(engine, way, self.validation)?
        } else {
            Merit::default()
        };
        let state = &mut at.state;
        let losses = std::mem::take(&mut state.losses);
        let loss = losses.iter().sum::<f32>() / losses.len().max(1) as f32;
        state.epoch += 1;
        let epoch = state.epoch;
        let Merit { dice: validation_dice, auc: validation_auc } = merit;
        state.history.push(EpochMetrics {
            epoch,
            loss,
            validation_dice,
            validation_auc,
            images_per_second,
        });
        if engine.is_first() {
            sink.metric("train_loss", f64::from(loss), state.step);
        }
        for (name, value) in
            [("validation_dice", validation_dice), ("validation_auc", validation_auc)]
        {
            if let Some(value) = value.filter(|_| engine.is_first()) {
                sink.metric(name, f64::from(value), state.step);
            }
        }
        sink.metric("images_per_second", f64::from(images_per_second), state.step);
        sink.metric("waiting_percent", 100.0 * course.waited_s / seconds, state.step);
        sink.metric("data_memory_mib", self.room.most_mib(), state.step);
        if course.memory_mib > 0 {
            sink.metric("gpu_memory_mib", course.memory_mib as f64, state.step);
        }
        if watched && engine.is_first() && best_epoch(&at.state.history) == Some(epoch as usize - 1)
        {
            let (weights, moments) = engine.arrays()?;
            at.best = Some(moments.average.unwrap_or(weights));
        }
        self.keep(at, engine)
    }

    /// What the features are like over the slices that were trained on.
    fn feature_scale(&self, engine: &mut dyn Engine) -> Result<FeatureScale, LearningError> {
        let width = self.network.features();
        let step = self.data.len().div_ceil(FEATURES_MAX).max(1);
        let looked_at: Vec<usize> = self.data.patches.iter().copied().step_by(step).collect();
        let mut features = Vec::with_capacity(looked_at.len() * width);
        let at_once = (MEASURED_AT_ONCE / self.patch.depth).max(1);
        for firsts in looked_at.chunks(at_once) {
            features.extend(engine.see(self.data.images(firsts)?)?.features);
        }
        Ok(FeatureScale::of(&features, width))
    }
}

/// One step.
fn step(
    at: &mut Checkpoint,
    engine: &mut dyn Engine,
    total: u64,
) -> Result<Stepped, LearningError> {
    let state = &mut at.state;
    let TrainSettings { learning_rate, weight_decay, average_decay, .. } = state.settings;
    let rate = rate_at(learning_rate, state.step, total);
    state.step += 1;
    let average = average_at(average_decay, state.step);
    let step = Step { number: state.step, rate, decay: weight_decay, average };
    let stepped = engine.step(step)?;
    if !stepped.finite {
        let loss = if stepped.loss.is_finite() { f32::NAN } else { stepped.loss };
        return Err(LearningError::Diverged { loss, step: state.step, learning_rate });
    }
    state.losses.push(stepped.loss);
    Ok(stepped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Sides;
    use crate::data::rising;

    struct Deaf;

    impl RunSink for Deaf {
        fn metric(&mut self, _: &str, _: f64, _: u64) {}
        fn progress(&mut self, _: u64, _: u64) {}
    }

    #[test]
    fn a_run_is_over_once_its_best_epoch_is_long_ago() {
        let settings = TrainSettings { patience_epochs: 2, ..TrainSettings::default() };
        let mut state = State::new(settings, Sides::default(), Normalisation::PerImage);
        for (epoch, (dice, over)) in
            [(0.5, false), (0.7, false), (0.7, false), (0.6, true)].into_iter().enumerate()
        {
            state.history.push(EpochMetrics {
                epoch: epoch as u32 + 1,
                loss: 1.0,
                validation_dice: Some(dice),
                validation_auc: None,
                images_per_second: 1.0,
            });
            assert_eq!(is_over(&state), over, "{epoch}");
        }
        assert_eq!(best_epoch(&state.history), Some(1));
        state.settings.patience_epochs = 0;
        assert!(!is_over(&state));
    }

    #[test]
    fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let settings = TrainSettings {
            input_size: 16,
            epochs: 1,
            base_channels: 4,
            engine: crate::EngineChoice::Embedded,
            ..TrainSettings::default()
        };
        let (network, patch) = (settings.network(), settings.patch());
        let mut at = begin(State::new(settings, Sides::default(), Normalisation::PerImage));
        at.save(folder.path()).unwrap();
        let whole = at.clone();
        at.weights.0.get_mut("level0.classes.shift").unwrap().values.fill(f32::INFINITY);
        let data = rising(network, 16, 1, 8);
        let (data, room) = (&data, &Room::new(None, patch, 8));
        let folder = folder.path();
        let run = Run { network, patch, data, validation: data, folder, shelf: None, room };
        let around = Surroundings::default();
        let mut engine = engine::start(&at, network, &around, &mut Deaf).unwrap();
        let stop = AtomicBool::new(false);
        let sentence = run.go(&mut at, &mut *engine, &mut Deaf, &stop).unwrap_err().to_string();
        for part in ["the loss became NaN at step 1", "learning_rate below 0.003"] {
            assert!(sentence.contains(part), "{sentence}");
        }
        assert_eq!(Checkpoint::newest(folder, &mut |_| ()).unwrap(), Some(whole));
    }
}
