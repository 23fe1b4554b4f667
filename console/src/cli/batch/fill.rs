//! What only a library knows of a job file: which series there are, which are still to be done, the
//! text of a pipeline, and the names of runs.
//!
//! It is filled in when the file is submitted, or looked at with `--dry-run`. Whatever does not fit
//! the library is said with line, column and key, as the reader of the file says its mistakes. A
//! pending job that has nothing to do is left out. Nothing of the library is changed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gantry_config::jobs::{
    FileBuiltin, FileJob, FileModel, FileSeries, FileTraining, FileWork, JobFile, Placed, Spot,
};
use gantry_imaging::pipeline::Pipeline;
use gantry_learning::{LearningError, Sweep, TrainSettings};
use gantry_library::{Library, LibraryError, PatientKey, SeriesId, SeriesRecord};
use gantry_model::{Array, Builtin, IndexSet, MemoryMib, Work};

use crate::cli::learning::{self, NO_SERIES, PIPELINE};
use crate::cli::library::Place;
use crate::error::Failure;
use crate::output;

/// Characters of a job's name within the name of its run.
const NAME_IN_RUN_MAX: usize = 40;

/// A library that jobs of the file work on.
struct Shelf {
    folder: String,
    library: Library,
    series: Vec<SeriesRecord>,
}

/// A job while it is filled in.
struct Filling<'a> {
    file: &'a JobFile,
    place: usize,
    shelf: &'a Shelf,
    coming: Coming,
}

/// What may be in the library by the time a job starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coming {
    /// What is there now, and results of the built-in operations before it.
    Results,
    /// Anything: a job before it is a command, or one of the cluster.
    Anything,
}

/// Fills in the built-in operations of a file. `base` makes the names of runs, `fallback` is the
/// library of a job that names none. Gives the names of the jobs that were left out.
///
/// # Errors
/// Where a job does not fit its library, or the library cannot be read.
pub(super) fn fill(
    file: &mut JobFile,
    base: &str,
    fallback: Option<&Path>,
) -> Result<Vec<String>, Failure> {
    let mut shelves: BTreeMap<PathBuf, Shelf> = BTreeMap::new();
    let mut nothing = Vec::new();
    for (place, coming) in coming(file).into_iter().enumerate() {
        let Some(builtin) = file.jobs[place].builtin.clone() else { continue };
        let (folder, spot) = folder_of(file, &builtin, fallback)?;
        let shelf = match shelves.entry(folder) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let shelf =
                    Shelf::open(entry.key()).map_err(|failure| said(file, spot, failure))?;
                entry.insert(shelf)
            }
        };
        let filling = Filling { file, place, shelf, coming };
        let work = filling.work(&builtin, base)?;
        let memory = filling.memory(&work)?;
        let job = &mut file.jobs[place];
        learning::ask_for(&mut job.spec, memory);
        if let Builtin::Preprocess { series, .. } | Builtin::Predict { series, .. } = &work {
            if series.is_empty() {
                nothing.push(place);
            }
            let indices = IndexSet::first(series.len() as u32);
            job.spec.array = Some(Array { indices, at_once_max: None });
        }
        if let Some(runs) = runs_of(&builtin) {
            job.spec = learning::over(job.spec.clone(), runs as usize);
        }
        job.spec.work = Work::Builtin(work);
    }
    let mut left_out = Vec::new();
    for place in nothing.into_iter().rev() {
        left_out.insert(0, file.jobs[place].spec.name.clone());
        file.leave_out(place).map_err(Failure::usage_of)?;
    }
    file.check().map_err(Failure::usage_of)?;
    Ok(left_out)
}

/// The runs of a training's sweep; nothing where it has one.
fn runs_of(builtin: &FileBuiltin) -> Option<u32> {
    let FileWork::Train(training) = &builtin.work else { return None };
    let count = |said: &Option<Placed<u32>>| said.as_ref().map(|said| said.value);
    learning::sweep(count(&training.folds), count(&training.seeds)).map(Sweep::runs)
}

/// A failure as a mistake of the file. What the user cannot mend there stays as it is.
fn said(file: &JobFile, spot: &Spot, failure: Failure) -> Failure {
    match failure.code {
        crate::error::USAGE => Failure::usage_of(file.mistake(spot, failure.sentence)),
        _ => failure,
    }
}

/// What may come before each job starts.
fn coming(file: &JobFile) -> Vec<Coming> {
    let mut all: Vec<Coming> = Vec::with_capacity(file.jobs.len());
    for job in &file.jobs {
        let anything = !job.spec.after.is_empty()
            || job.after.iter().any(|one| {
                file.jobs[one.place].builtin.is_none() || all[one.place] == Coming::Anything
            });
        all.push(if anything { Coming::Anything } else { Coming::Results });
    }
    all
}

/// The folder of a job's library, and where a mistake in it is said.
fn folder_of<'a>(
    file: &JobFile,
    builtin: &'a FileBuiltin,
    fallback: Option<&Path>,
) -> Result<(PathBuf, &'a Spot), Failure> {
    match (&builtin.library, fallback) {
        (Some(Placed { value, spot }), _) => Ok((PathBuf::from(value), spot)),
        (None, Some(folder)) => Ok((folder.to_owned(), &builtin.spot)),
        (None, None) => Err(Failure::usage_of(file.mistake(
            &builtin.spot,
            "the job names no library; write library = \"/its/folder\" here or under [defaults], or set GANTRY_LIBRARY",
        ))),
    }
}

impl Shelf {
    fn open(folder: &Path) -> Result<Self, Failure> {
        output::progress(&format!("reading the library {}", folder.display()));
        let place = Place { library: folder.to_owned() };
        let library = place.open()?;
        let series = library.series().map_err(Failure::trouble)?;
        Ok(Self { folder: place.folder()?, library, series })
    }
}

impl Filling<'_> {
    fn job(&self) -> &FileJob {
        &self.file.jobs[self.place]
    }

    fn refuse(&self, spot: &Spot, reason: impl std::fmt::Display) -> Failure {
        Failure::usage_of(self.file.mistake(spot, reason))
    }

    fn work(&self, builtin: &FileBuiltin, base: &str) -> Result<Builtin, Failure> {
        let library = self.shelf.folder.clone();
        match &builtin.work {
            FileWork::Preprocess { pipeline, series } => {
                let (name, spot) = match pipeline {
                    Some(Placed { value, spot }) => (value.as_str(), spot),
                    None => (PIPELINE, &builtin.spot),
                };
                let (pipeline, parsed) = learning::read_pipeline(name)
                    .map_err(|failure| said(self.file, spot, failure))?;
                let shelf = self.shelf;
                let series = self.series(series, || {
                    learning::prepared(&shelf.library, &parsed, &shelf.series)
                })?;
                Ok(Builtin::Preprocess { library, pipeline, series })
            }
            FileWork::Train(training) => {
                let settings = self.settings(training, &builtin.spot)?;
                let run = self.run(training, base)?;
                Ok(Builtin::Train { library, settings, run })
            }
            FileWork::Predict { model, series } => {
                let name = self.model(model)?;
                let series = self.series(series, || self.predicted(model, &name))?;
                Ok(Builtin::Predict { library, model: name, series })
            }
        }
    }

    /// What a task that makes samples takes, where the job does not say it itself.
    fn memory(&self, work: &Builtin) -> Result<Option<MemoryMib>, Failure> {
        let Builtin::Preprocess { pipeline, series, .. } = work else { return Ok(None) };
        if self.job().spec.resources.memory != MemoryMib::default() {
            return Ok(None);
        }
        let parsed = Pipeline::parse(pipeline, "pipeline").map_err(Failure::usage_of)?;
        learning::memory_for(&self.shelf.library, &parsed, series)
    }

    /// The ids of a job's series. `done` gives those that have a result.
    fn series(
        &self,
        wanted: &Placed<FileSeries>,
        done: impl FnOnce() -> Result<BTreeSet<SeriesId>, Failure>,
    ) -> Result<Vec<String>, Failure> {
        let known = &self.shelf.series;
        let name = &self.job().spec.name;
        match &wanted.value {
            FileSeries::All if known.is_empty() => Err(self.refuse(&wanted.spot, NO_SERIES)),
            FileSeries::All => Ok(known.iter().map(|record| record.id.to_string()).collect()),
            FileSeries::Pending => {
                output::progress(&format!("job {name:?}: looking for what is pending"));
                let done = done()?;
                let pending = known.iter().filter(|record| !done.contains(&record.id));
                let pending: Vec<String> = pending.map(|record| record.id.to_string()).collect();
                output::progress(&format!(
                    "job {name:?}: {} of {} series are pending",
                    pending.len(),
                    known.len()
                ));
                Ok(pending)
            }
            FileSeries::Listed(ids) => {
                for Placed { value, spot } in ids {
                    let checked = match self.coming {
                        Coming::Results => learning::check_series(value, known),
                        Coming::Anything => {
                            value.parse::<SeriesId>().map(drop).map_err(Failure::usage_of)
                        }
                    };
                    checked.map_err(|failure| said(self.file, spot, failure))?;
                }
                Ok(ids.iter().map(|id| id.value.clone()).collect())
            }
        }
    }

    /// The settings of a training as its job carries them.
    fn settings(&self, training: &FileTraining, kind: &Spot) -> Result<String, Failure> {
        let FileTraining { label, epochs, batch, seed, hold_out, engine, precision, .. } = training;
        let FileTraining { network, input_size, input_depth, base_channels, .. } = training;
        let FileTraining { patience, folds, seeds, .. } = training;
        let FileTraining { plan, learning_rate, average_decay, mirroring, .. } = training;
        let supervision = self.word(training.supervision.as_ref())?;
        let usual = TrainSettings::default();
        let usual = TrainSettings {
            label: label.as_ref().map_or(usual.label, |label| label.value.clone()),
            network: self.word(network.as_ref())?,
            ..TrainSettings::default()
        };
        let default = plan.as_ref().map_or(Ok(usual.clone()), |plan| self.planned(&usual, plan))?;
        let decimal = |said: &Option<Placed<f64>>| said.as_ref().map(|said| said.value);
        let count = |said: &Option<Placed<u32>>| said.as_ref().map(|said| said.value);
        let size = |said, usual| count(said).map_or(usual, |value| value as usize);
        let settings = TrainSettings {
            input_size: size(input_size, default.input_size),
            input_depth: size(input_depth, default.input_depth),
            base_channels: size(base_channels, default.base_channels),
            epochs: count(epochs).unwrap_or(default.epochs),
            batch_size: count(batch).unwrap_or(default.batch_size),
            learning_rate: decimal(learning_rate).unwrap_or(default.learning_rate),
            average_decay: decimal(average_decay).unwrap_or(default.average_decay),
            supervision,
            mirroring: self.word(mirroring.as_ref())?,
            seed: seed.as_ref().map_or(default.seed, |seed| seed.value),
            patience_epochs: count(patience).unwrap_or(default.patience_epochs),
            sweep: learning::sweep(count(folds), count(seeds)),
            hold_out: hold_out.iter().map(|patient| patient.value.clone()).collect(),
            engine: self.word(engine.as_ref())?,
            precision: self.word(precision.as_ref())?,
            data_memory_mib: training.data_memory.as_ref().map(|memory| memory.value.0),
            ..default
        };
        settings.check().map_err(|error| {
            let LearningError::Setting { setting, .. } = &error else {
                return self.refuse(kind, error);
            };
            let spot = match *setting {
                "learning_rate" => learning_rate.as_ref().map(|placed| &placed.spot),
                "average_decay" => average_decay.as_ref().map(|placed| &placed.spot),
                "epochs" => spot(epochs.as_ref()),
                "batch_size" => spot(batch.as_ref()),
                "input_size" => spot(input_size.as_ref()),
                "input_depth" => spot(input_depth.as_ref()),
                "base_channels" => spot(base_channels.as_ref()),
                "patience_epochs" => spot(patience.as_ref()),
                "supervision" => training.supervision.as_ref().map(|placed| &placed.spot),
                "folds" => spot(folds.as_ref()),
                "seeds" => spot(seeds.as_ref()),
                _ => None,
            };
            self.refuse(spot.unwrap_or(kind), error)
        })?;
        for Placed { value, spot } in hold_out {
            let patient: PatientKey = value.parse().map_err(|error| self.refuse(spot, error))?;
            let there = self.shelf.series.iter().any(|record| record.patient == patient);
            if !there && self.coming == Coming::Results {
                return Err(self.refuse(
                    spot,
                    format!("the library has no patient {patient}; gantry data series names each series' patient"),
                ));
            }
        }
        serde_json::to_string(&settings).map_err(Failure::trouble)
    }

    /// Settings with the sizes that are planned for the samples there are.
    fn planned(
        &self,
        settings: &TrainSettings,
        memory: &Placed<MemoryMib>,
    ) -> Result<TrainSettings, Failure> {
        let samples = self.shelf.library.usable_samples().map_err(Failure::trouble)?;
        let plan = gantry_learning::plan(settings, &samples, memory.value.0)
            .map_err(|error| self.refuse(&memory.spot, error))?;
        output::progress(&learning::words(&plan));
        Ok(plan.settings)
    }

    /// One of the words that a setting takes; its default where the file says nothing.
    fn word<T>(&self, said: Option<&Placed<String>>) -> Result<T, Failure>
    where
        T: FromStr<Err = LearningError> + Default,
    {
        let read = |Placed { value, spot }: &Placed<String>| {
            value.parse().map_err(|error| self.refuse(spot, error))
        };
        said.map_or(Ok(T::default()), read)
    }

    /// The name of a training's run. Where the file names none it follows from the submission's key
    /// and the job's name: the same file with the same key goes on with the same run.
    fn run(&self, training: &FileTraining, base: &str) -> Result<String, Failure> {
        let Some(Placed { value, spot }) = &training.run else {
            return Ok(run_name(base, &self.job().spec.name));
        };
        learning::check_run(value).map_err(|failure| said(self.file, spot, failure))?;
        Ok(value.clone())
    }

    /// The model of a prediction, as its job names it.
    fn model(&self, model: &Placed<FileModel>) -> Result<String, Failure> {
        let name = match &model.value {
            FileModel::Job(training) => {
                let training = &self.file.jobs[*training];
                let Work::Builtin(Builtin::Train { library, run, .. }) = &training.spec.work else {
                    return Err(self.refuse(&model.spot, "the job that it names is no training"));
                };
                if training.spec.array.is_some() {
                    return Err(self.refuse(
                        &model.spot,
                        format!(
                            "the training {:?} leaves a model for each fold and seed; name one of them, as run:{run}-fold1",
                            training.spec.name
                        ),
                    ));
                }
                if *library == self.shelf.folder {
                    return Ok(format!("run:{run}"));
                }
                return Err(self.refuse(
                    &model.spot,
                    format!(
                        "the training {:?} is on the library {library}, and this job on {}; give both the same library",
                        training.spec.name, self.shelf.folder
                    ),
                ));
            }
            FileModel::Named(name) => name,
        };
        let waits = !self.job().after.is_empty() || self.coming == Coming::Anything;
        match self.shelf.library.model(name) {
            Ok(_) => Ok(name.clone()),
            // A job that it waits for may leave it.
            Err(LibraryError::Unknown { .. }) if waits => Ok(name.clone()),
            Err(LibraryError::Unknown { .. }) => Err(self.refuse(
                &model.spot,
                format!(
                    "the library has no model {name:?}, and no job that would leave it is waited for; gantry data models lists what there is, and a training of the file is named by its job"
                ),
            )),
            Err(error) => Err(Failure::trouble(error)),
        }
    }

    /// The series that have a prediction of the model that the job will find. What a training
    /// leaves has predicted nothing yet.
    fn predicted(
        &self,
        model: &Placed<FileModel>,
        name: &str,
    ) -> Result<BTreeSet<SeriesId>, Failure> {
        let library = &self.shelf.library;
        match (&model.value, library.model(name)) {
            (FileModel::Named(_), Ok(record)) => learning::predicted(library, &record.id),
            (FileModel::Job(_), _) | (_, Err(LibraryError::Unknown { .. })) => Ok(BTreeSet::new()),
            (_, Err(error)) => Err(Failure::trouble(error)),
        }
    }
}

/// Where a number is written, if it is.
fn spot(placed: Option<&Placed<u32>>) -> Option<&Spot> {
    placed.map(|placed| &placed.spot)
}

/// The name of the run of a job that names none: what of its own name a folder may have, and a
/// number that no other submission and job have. The number is FNV-1a (Fowler, Noll and Vo, 1991).
fn run_name(base: &str, job: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let name: String = job.chars().filter(plain).take(NAME_IN_RUN_MAX).collect();
    let number = format!("{base}/{job}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{name}-{number:016x}")
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
