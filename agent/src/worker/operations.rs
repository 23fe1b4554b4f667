//! The built-in operations: from the library, through `kernels/`, back to the library.
//!
//! What is written here goes to a task's output and to the scheduler, so it names series, samples
//! and models by the library's opaque ids only.

use std::fmt::{Display, Write as _};
use std::io::Write;
use std::path::Path;

use gantry_imaging::pipeline::{CACHE_BYTES_MAX, Cache, Pipeline, StepReport};
use gantry_learning::{
    Predictor, RunOutcome, RunSink, Surroundings, TrainSettings, similar, train,
};
use gantry_library::{Library, SeriesId};
use gantry_model::{Builtin, MemoryMib};

use super::told::Told;
use crate::predictions;
use crate::samples::{self, Need, SeriesVolume};

/// A step's result is worth keeping if it takes longer to make than a shared storage takes to write and
/// read it.
const CACHE_MIB_PER_S: u64 = 50;
/// Cases that a prediction names.
const NEAREST: usize = 5;

/// Carries out an operation. The error is the sentence of its exit.
///
/// A training that is told to stop keeps a checkpoint and says so. The others have nothing to keep
/// before they are done: they are left between two steps ([`Told::go_on`]).
pub(super) fn run(builtin: &Builtin, mut around: Around<'_>) -> Result<(), String> {
    match builtin {
        Builtin::Preprocess { library, pipeline, series } => {
            let library = open(library)?;
            for one in series {
                preprocess(&library, pipeline, one, &mut around)?;
            }
            Ok(())
        }
        Builtin::Train { library, settings, run } => {
            let library = open(library)?;
            let settings: TrainSettings = serde_json::from_str(settings)
                .map_err(|error| format!("the training settings cannot be read: {error}"))?;
            let index = std::env::var("GANTRY_INDEX").ok().and_then(|index| index.parse().ok());
            let (settings, run) = settings.of_task(run, index.unwrap_or(0));
            let folder = library.run_folder(&run).map_err(words)?;
            learn(&library, &settings, &folder, around.log, around.told)
        }
        Builtin::Predict { library, model, series } => {
            let library = open(library)?;
            let predictor = Predictor::load(&library, model).map_err(words)?;
            for one in series {
                predict(&library, &predictor, one, around.log, around.told)?;
            }
            Ok(())
        }
    }
}

fn words(error: impl Display) -> String {
    error.to_string()
}

fn open(library: &str) -> Result<Library, String> {
    Library::open(Path::new(library)).map_err(words)
}

/// Writes a line; a full output disk does not end the work.
fn say(log: &mut dyn Write, line: &str) {
    let _ = writeln!(log, "{line}");
}

/// Between two steps of an operation that has nothing to keep before it is done.
fn between(log: &mut dyn Write, told: &Told) {
    told.go_on();
    if told.take_warning() {
        say(log, "! the time limit is near");
    }
}

/// What an operation is given beside its work.
pub(super) struct Around<'a> {
    /// Its output.
    pub(super) log: &'a mut dyn Write,
    /// What it is told.
    pub(super) told: &'a Told,
    /// Hears how much memory it will take, before it does.
    pub(super) needs: &'a mut dyn FnMut(MemoryMib),
}

fn preprocess(
    library: &Library,
    text: &str,
    series: &str,
    around: &mut Around<'_>,
) -> Result<(), String> {
    let pipeline = Pipeline::parse(text, "pipeline").map_err(words)?;
    let series: SeriesId = series.parse().map_err(words)?;
    let volume = samples::volume(library, &series)?;
    let need = Need::of(&pipeline, &volume.outline()).map_err(words)?;
    (around.needs)(need.peak);
    let Around { log, told, .. } = around;
    let SeriesVolume { image, sources, .. } = volume;
    let size = image.geometry.size;
    say(log, &format!("series {series}: {size:?} voxels, at most {} of memory", need.peak));
    between(log, told);
    let mut told_why = false;
    // Without a cache a pipeline is done from its first step.
    let mut cache = Cache::open(&library.cache_folder(), CACHE_BYTES_MAX)
        .map(|cache| cache.only_slower_than_mib_per_s(CACHE_MIB_PER_S))
        .inspect_err(|error| say(log, &format!("! no step is cached: {error}")))
        .ok();
    let mut on_step = |step: StepReport| {
        // Once: it is the same for all steps, or one reason is enough to look further.
        if let Some(why) = step.ran.because.as_ref().filter(|_| !told_why) {
            told_why = true;
            say(log, &format!("not on a GPU: {why}"));
        }
        let cached = if step.cached { "  cached" } else { "" };
        let line =
            format!("{:>6} ms  {}  {} voxels{cached}", step.milliseconds, step.name, step.voxels);
        say(log, &line);
        between(log, told);
    };
    let labelled = match &mut cache {
        Some(cache) => pipeline.run_cached(&image, cache, &mut on_step),
        None => pipeline.run(&image, &mut on_step),
    };
    let labelled = labelled.map_err(words)?;
    if let Some(full) = cache.map(|cache| cache.counts.full).filter(|full| *full > 0) {
        say(log, &format!("! {full} results of steps could not be cached"));
    }
    let (sample, volume_ml) = samples::keep(library, &pipeline, &series, sources, &labelled)?;
    say(log, &format!("sample {sample}: {}, {volume_ml:.1} ml", labelled.label));
    say(log, &format!("::metric volume_ml {volume_ml:.1}"));
    Ok(())
}

/// Turns what a training reports into lines: metrics, of which the agent makes curves, and one line
/// an epoch for people.
struct Lines<'a> {
    log: &'a mut dyn Write,
    told: &'a Told,
    of: u64,
    epoch: String,
}

impl RunSink for Lines<'_> {
    fn metric(&mut self, name: &str, value: f64, step: u64) {
        say(self.log, &format!("::metric {name} {value:.6} {step}"));
        match name {
            "train_loss" => self.epoch = format!("step {step:>5}/{}  loss {value:.4}", self.of),
            "validation_dice" => {
                // Writing to a string cannot fail.
                let _ = write!(self.epoch, "  validation Dice {value:.4}");
            }
            "images_per_second" => say(self.log, &format!("{}  {value:.0} images/s", self.epoch)),
            _ => {}
        }
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.of = total;
        say(self.log, &format!("::progress {done} {total}"));
    }

    fn note(&mut self, sentence: &str) {
        say(self.log, sentence);
    }

    fn warning(&mut self, sentence: &str) {
        say(self.log, &format!("! {sentence}"));
    }

    fn is_to_keep(&mut self) -> bool {
        self.told.take_warning()
    }

    fn kept(&mut self, step: u64) {
        say(self.log, &format!("! the time limit is near; a checkpoint is kept at step {step}"));
    }
}

fn learn(
    library: &Library,
    settings: &TrainSettings,
    folder: &Path,
    log: &mut dyn Write,
    told: &Told,
) -> Result<(), String> {
    let samples = library.samples().map_err(words)?;
    let print = Library::fingerprint(&samples);
    say(log, &format!("library: {} samples of {} patients", print.samples, print.patients));
    let mut lines = Lines { log, told, of: 0, epoch: String::new() };
    let around = Surroundings::of_task();
    match train(library, settings, folder, &around, &mut lines, told.stop()).map_err(words)? {
        RunOutcome::Finished { model, epochs, test } => {
            say(log, &format!("{} epochs are done", epochs.len()));
            for (name, value) in [("Dice", test.dice), ("area under the curve", test.auc)] {
                if let Some(value) = value {
                    say(log, &format!("{name} on the held-out patients {value:.4}"));
                }
            }
            say(log, &format!("model {model}"));
            Ok(())
        }
        RunOutcome::Helped => {
            say(log, "the first rank leaves the model");
            Ok(())
        }
        RunOutcome::Stopped { step } => Err(format!(
            "it was told to stop after step {step}; a checkpoint is kept, the same run goes on from there"
        )),
    }
}

fn predict(
    library: &Library,
    predictor: &Predictor,
    series: &str,
    log: &mut dyn Write,
    told: &Told,
) -> Result<(), String> {
    let series: SeriesId = series.parse().map_err(words)?;
    let made = predictions::make(library, predictor, &series, &mut || between(log, told))?;
    say(log, &format!("prediction {} of series {series}: {}", made.id, made.said));
    if let Some(volume_ml) = made.volume_ml {
        say(log, &format!("::metric volume_ml {volume_ml:.1}"));
    }
    for near in similar(library, &series, NEAREST).map_err(words)? {
        say(log, &format!("near: series {}, distance {:.4}", near.series, near.distance));
    }
    say(log, "for research use; this is no diagnosis");
    Ok(())
}
