//! Commands that submit the built-in operations as jobs: preprocess, train, predict.

use std::path::{Path, PathBuf};

use clap::Args;
use gantry_imaging::pipeline::Pipeline;
use gantry_learning::TrainSettings;
use gantry_library::{Library, SeriesId};
use gantry_model::{Array, Builtin, IndexSet, JobSpec, Work};

use super::library::Place;
use super::needs::{Needs, NodeLabels};
use super::submit::Submission;
use crate::error::{Failure, Outcome};
use crate::output::Format;

/// Series of a library, named one by one or all of them.
#[derive(Clone, Debug, Args)]
struct Choice {
    /// Series, as gantry data series lists them.
    #[arg(required_unless_present = "all")]
    series: Vec<String>,
    /// Every series of the library.
    #[arg(long, conflicts_with = "series")]
    all: bool,
}

impl Choice {
    /// The ids, each of which the library knows.
    fn resolve(&self, library: &Library) -> Result<Vec<String>, Failure> {
        let known = library.series().map_err(Failure::trouble)?;
        if self.all {
            return Ok(known.iter().map(|record| record.id.to_string()).collect());
        }
        for text in &self.series {
            let id: SeriesId = text.parse().map_err(Failure::usage_of)?;
            if !known.iter().any(|record| record.id == id) {
                return Err(Failure::usage(format!(
                    "the library has no series {id}; gantry data series lists the {} it has",
                    known.len()
                )));
            }
        }
        Ok(self.series.clone())
    }
}

/// What a built-in operation needs as a job, and how it is submitted.
#[derive(Clone, Debug, Args)]
struct JobNeeds {
    #[command(flatten)]
    submission: Submission,
    #[command(flatten)]
    needs: Needs,
    #[command(flatten)]
    labels: NodeLabels,
}

impl JobNeeds {
    fn spec(&self, name: &str, work: Work) -> Result<JobSpec, Failure> {
        Ok(JobSpec { labels: self.labels.set(), ..self.needs.spec(name, work)? })
    }

    fn submit(&self, spec: JobSpec, cluster: Option<PathBuf>, format: Format) -> Outcome {
        self.submission.submit(spec, cluster, format)
    }
}

/// A job with one task for each of these series.
#[must_use]
pub fn over_series(spec: JobSpec, count: usize) -> JobSpec {
    let indices = IndexSet::first(count as u32);
    JobSpec { array: Some(Array { indices, at_once_max: None }), ..spec }
}

/// `gantry preprocess`.
#[derive(Debug, Args)]
pub struct Preprocess {
    #[command(flatten)]
    place: Place,
    /// A pipeline file, or the name of a shipped pipeline.
    #[arg(long, default_value = "chest-ct")]
    pipeline: String,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    needs: JobNeeds,
}

impl Preprocess {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the pipeline has a mistake (said with line and column), a series is unknown, or the
    /// job is refused.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        let pipeline = pipeline(&self.pipeline)?;
        let series = self.choice.resolve(&self.place.open()?)?;
        let count = series.len();
        let library = self.place.folder()?;
        let work = Work::Builtin(Builtin::Preprocess { library, pipeline, series });
        let spec = over_series(self.needs.spec("preprocess", work)?, count);
        self.needs.submit(spec, cluster, format)
    }
}

/// The text of a pipeline, checked: a file, or a shipped pipeline by its name.
///
/// # Errors
/// Where there is no such pipeline, or it has a mistake.
pub fn pipeline(name: &str) -> Result<String, Failure> {
    let shipped = gantry_config::PIPELINES.iter().find(|(shipped, _)| *shipped == name);
    let text = match shipped {
        Some((_, text)) => (*text).to_owned(),
        None => std::fs::read_to_string(Path::new(name)).map_err(|error| {
            let names: Vec<&str> = gantry_config::PIPELINES.iter().map(|(name, _)| *name).collect();
            Failure::usage(format!(
                "reading the pipeline {name:?} failed: {error}; name a file, or one of {}",
                names.join(", ")
            ))
        })?,
    };
    Pipeline::parse(&text, name).map_err(Failure::usage_of)?;
    Ok(text)
}

/// `gantry train`.
#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    place: Place,
    /// The label to learn.
    #[arg(long, default_value = "lungs")]
    label: String,
    /// Epochs.
    #[arg(long, default_value_t = 12)]
    epochs: u32,
    /// Images per step.
    #[arg(long, default_value_t = 8)]
    batch: u32,
    /// The seed of weights, order and augmentation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Patients never trained on, as gantry data samples lists them.
    #[arg(long, value_name = "PATIENT")]
    hold_out: Vec<String>,
    /// The run's name: its checkpoints are kept, and a second start goes on from the last.
    #[arg(long)]
    run: Option<String>,
    #[command(flatten)]
    needs: JobNeeds,
}

impl Train {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the library has nothing to train on, or the job is refused.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        self.place.open()?;
        let settings = TrainSettings {
            label: self.label.clone(),
            epochs: self.epochs,
            batch_size: self.batch,
            seed: self.seed,
            hold_out: self.hold_out.clone(),
            ..TrainSettings::default()
        };
        let settings = serde_json::to_string(&settings).map_err(Failure::trouble)?;
        let run = self.run.clone().unwrap_or_else(super::client::submit_key);
        let library = self.place.folder()?;
        let work = Work::Builtin(Builtin::Train { library, settings, run });
        self.needs.submit(self.needs.spec("train", work)?, cluster, format)
    }
}

/// `gantry predict`.
#[derive(Debug, Args)]
pub struct Predict {
    #[command(flatten)]
    place: Place,
    /// The model, by id or name, or run:NAME for what a run leaves.
    #[arg(long)]
    model: String,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    needs: JobNeeds,
}

impl Predict {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a series is unknown or the job is refused.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        let series = self.choice.resolve(&self.place.open()?)?;
        let count = series.len();
        let (library, model) = (self.place.folder()?, self.model.clone());
        let work = Work::Builtin(Builtin::Predict { library, model, series });
        let spec = over_series(self.needs.spec("predict", work)?, count);
        self.needs.submit(spec, cluster, format)
    }
}
