//! Commands that submit the built-in operations as jobs: preprocess, train, predict.
//!
//! What they ask a library (which series it has, and which have a result already) and what they
//! refuse is the same for a job file, which comes here too.

use std::collections::BTreeSet;
use std::io::Read;

use clap::Args;
use gantry_agent::samples::{self, Need};
use gantry_imaging::pipeline::{Pipeline, TEXT_BYTES_MAX};
use gantry_learning::{Mirroring, NetworkKind, Plan, Supervision, Sweep, TrainSettings, plan};
use gantry_library::{Library, LibraryError, ModelId, SeriesId, SeriesRecord};
use gantry_model::{Array, Builtin, IndexSet, JobSpec, MemoryMib, Work};
use serde_json::json;

use super::client::Reach;
use super::completions;
use super::library::Place;
use super::needs::{GangFlags, Needs, NodeLabels};
use super::submit::Submission;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// The pipeline of a job that names none.
pub const PIPELINE: &str = "chest-ct";
/// What is said of all series where there are none.
pub const NO_SERIES: &str = "the library has no series; gantry import takes images into it";

/// Series of a library, named one by one or all of them.
#[derive(Clone, Debug, Args)]
struct Choice {
    /// Series, as gantry data series lists them.
    #[arg(required_unless_present_any = ["all", "pending"], add = completions::series())]
    series: Vec<String>,
    /// Every series of the library.
    #[arg(long, conflicts_with = "series")]
    all: bool,
    /// Every series without a result of this very pipeline or model.
    #[arg(long, conflicts_with_all = ["series", "all"])]
    pending: bool,
}

impl Choice {
    /// The ids, each of which the library knows; none where none is pending. `done` gives those that
    /// have a result.
    fn resolve(
        &self,
        library: &Library,
        done: impl FnOnce(&[SeriesRecord]) -> Result<BTreeSet<SeriesId>, Failure>,
    ) -> Result<Vec<String>, Failure> {
        let known = library.series().map_err(Failure::trouble)?;
        if self.all && known.is_empty() {
            return Err(Failure::usage(NO_SERIES));
        }
        if self.all {
            return Ok(known.iter().map(|record| record.id.to_string()).collect());
        }
        if self.pending {
            let done = done(&known)?;
            let pending = known.iter().filter(|record| !done.contains(&record.id));
            return Ok(pending.map(|record| record.id.to_string()).collect());
        }
        for text in &self.series {
            check_series(text, &known)?;
        }
        Ok(self.series.clone())
    }
}

/// Refuses what is no series of these.
///
/// # Errors
/// Where it is no id, or the library does not know it.
pub fn check_series(text: &str, known: &[SeriesRecord]) -> Result<(), Failure> {
    let id: SeriesId = text.parse().map_err(Failure::usage_of)?;
    if known.iter().any(|record| record.id == id) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the library has no series {id}; gantry data series lists the {} it has",
        known.len()
    )))
}

/// The series with a sample of this very pipeline, made of all the images that they have now: one
/// that grew since is to be done again.
///
/// # Errors
/// Where the library cannot be read.
pub fn prepared(
    library: &Library,
    pipeline: &Pipeline,
    known: &[SeriesRecord],
) -> Result<BTreeSet<SeriesId>, Failure> {
    let hash = pipeline.hash();
    let mut made = BTreeSet::new();
    for sample in library.samples().map_err(Failure::trouble)? {
        if sample.provenance.pipeline_hash == hash {
            made.insert((sample.series, sample.provenance.sources.len() as u64));
        }
    }
    let whole = |record: &&SeriesRecord| {
        made.contains(&(record.id.clone(), record.instances.saturating_sub(record.conflicts)))
    };
    Ok(known.iter().filter(whole).map(|record| record.id.clone()).collect())
}

/// The series with a prediction of this model.
///
/// # Errors
/// Where the library cannot be read.
pub fn predicted(library: &Library, model: &ModelId) -> Result<BTreeSet<SeriesId>, Failure> {
    let all = library.predictions().map_err(Failure::trouble)?;
    Ok(all.into_iter().filter(|one| one.model == *model).map(|one| one.series).collect())
}

/// The most characters of a run's name, as the library has it.
const RUN_CHARACTERS_MAX: usize = 64;

/// Refuses the name of a run before the library does so on a node.
///
/// # Errors
/// Where no folder can have that name.
pub fn check_run(run: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let length = run.len();
    if (1..=RUN_CHARACTERS_MAX).contains(&length) && !run.starts_with('.') && run.chars().all(plain)
    {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{run:?} is not the name of a run; use 1 to {RUN_CHARACTERS_MAX} letters, digits, - and _"
    )))
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

    /// Submits a job with a task for each of these series. Where none is pending there is nothing to
    /// do, which is no failure: a job of every night finds that often.
    fn submit_over(&self, series: usize, spec: JobSpec, cluster: Reach, format: Format) -> Outcome {
        if series > 0 {
            return self.submit(over(spec, series), cluster, format);
        }
        let nothing = || "nothing was submitted: no series is pending".to_owned();
        format.print("submitted", &json!({ "job": null }), nothing, String::new)?;
        Ok(0)
    }

    fn submit(&self, spec: JobSpec, cluster: Reach, format: Format) -> Outcome {
        self.submission.submit(spec, cluster, format)
    }
}

/// The runs of a sweep; nothing where there is one.
#[must_use]
pub fn sweep(folds: Option<u32>, seeds: Option<u32>) -> Option<Sweep> {
    (folds.is_some() || seeds.is_some())
        .then(|| Sweep { folds: folds.unwrap_or(1), seeds: seeds.unwrap_or(1) })
}

/// A job with one task for each of so many series, or runs.
#[must_use]
pub fn over(spec: JobSpec, count: usize) -> JobSpec {
    let indices = IndexSet::first(count as u32);
    JobSpec { array: Some(Array { indices, at_once_max: None }), ..spec }
}

/// `gantry preprocess`.
#[derive(Debug, Args)]
pub struct Preprocess {
    #[command(flatten)]
    place: Place,
    /// A pipeline file, or the name of a shipped pipeline.
    #[arg(long, default_value = PIPELINE, add = completions::pipelines())]
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
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let (pipeline, parsed) = read_pipeline(&self.pipeline)?;
        let library = self.place.open()?;
        let series = self.choice.resolve(&library, |known| prepared(&library, &parsed, known))?;
        let count = series.len();
        let folder = self.place.folder()?;
        let asked = memory_for(&library, &parsed, &series)?;
        let work = Work::Builtin(Builtin::Preprocess { library: folder, pipeline, series });
        let mut spec = self.needs.spec("preprocess", work)?;
        ask_for(&mut spec, asked);
        self.needs.submit_over(count, spec, cluster, format)
    }
}

/// Asks for so much memory where the job says nothing of it.
pub fn ask_for(spec: &mut JobSpec, memory: Option<MemoryMib>) {
    if spec.resources.memory == MemoryMib::default() {
        spec.resources.memory = memory.unwrap_or_default();
    }
}

/// The memory to ask for a task of a pipeline: what its plan predicts for the largest of these series,
/// and a quarter. None where no series is known well enough: what makes no volume says so in its task.
///
/// # Errors
/// Where a step of the pipeline cannot be done to a series.
pub fn memory_for(
    library: &Library,
    pipeline: &Pipeline,
    series: &[String],
) -> Result<Option<MemoryMib>, Failure> {
    let mut most: Option<Need> = None;
    for (number, text) in series.iter().enumerate() {
        if number > 0 && number.is_multiple_of(100) {
            let all = series.len();
            output::progress(&format!("looked how large {number} of {all} series are"));
        }
        let Ok(id) = text.parse::<SeriesId>() else { continue };
        let Ok(outline) = samples::outline(library, &id) else { continue };
        let need = Need::of(pipeline, &outline)
            .map_err(|error| Failure::usage(format!("series {id}: {error}")))?;
        most = most.max(Some(need));
    }
    if let Some(most) = most {
        let (peak, request) = (most.peak, most.request());
        output::progress(&format!(
            "each task asks for {request} of memory: {peak} by the plan for the largest series, and a quarter"
        ));
    }
    Ok(most.map(Need::request))
}

/// The text of a pipeline, checked: a file, or a shipped pipeline by its name.
///
/// # Errors
/// Where there is no such pipeline, or it has a mistake.
pub fn pipeline(name: &str) -> Result<String, Failure> {
    read_pipeline(name).map(|(text, _)| text)
}

/// The same, and what the text says.
///
/// # Errors
/// Where there is no such pipeline, or it has a mistake.
pub fn read_pipeline(name: &str) -> Result<(String, Pipeline), Failure> {
    let text = pipeline_text(name)?;
    let parsed = Pipeline::parse(&text, name).map_err(Failure::usage_of)?;
    Ok((text, parsed))
}

/// The text of a pipeline, which may have mistakes.
///
/// # Errors
/// Where there is no such pipeline, or it is longer than one may be.
pub fn pipeline_text(name: &str) -> Result<String, Failure> {
    let shipped = gantry_config::PIPELINES.iter().find(|(shipped, _)| *shipped == name);
    if let Some((_, text)) = shipped {
        return Ok((*text).to_owned());
    }
    let mut text = String::new();
    // One byte more than is allowed, so that the parser sees that it is too long.
    std::fs::File::open(name)
        .and_then(|file| file.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(|error| {
            let names: Vec<&str> = gantry_config::PIPELINES.iter().map(|(name, _)| *name).collect();
            Failure::usage(format!(
                "reading the pipeline {name:?} failed: {error}; name a file, or one of {}",
                names.join(", ")
            ))
        })?;
    Ok(text)
}

/// Which network is trained.
#[derive(Debug, Args)]
struct NetworkFlags {
    /// The network: U-Nets mark voxels, over slices or stacks of slices; resnet18 and densenet121 say
    /// whether a slice shows the label.
    #[arg(long, default_value = "unet2d", value_parser = NetworkKind::ALL.map(NetworkKind::word))]
    network: String,
    /// Pixels along a side of its input.
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<usize>,
    /// Slices of its input, for a network over stacks of slices.
    #[arg(long, value_name = "SLICES")]
    input_depth: Option<usize>,
    /// Channels of its first level.
    #[arg(long, value_name = "CHANNELS")]
    base_channels: Option<usize>,
}

/// `gantry train`.
#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    place: Place,
    /// The label to learn.
    #[arg(long, default_value = "lungs")]
    label: String,
    #[command(flatten)]
    network: NetworkFlags,
    /// Epochs.
    #[arg(long, default_value_t = 12)]
    epochs: u32,
    /// Images per step; 8 where nothing is said or planned.
    #[arg(long)]
    batch: Option<u32>,
    /// Choose the sizes that are not said (input, channels, images per step) by the samples there are,
    /// within this much memory.
    #[arg(long, value_name = "MEMORY", num_args = 0..=1, default_missing_value = "4G")]
    plan: Option<MemoryMib>,
    /// The first step's learning rate.
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// The seed of weights, order and augmentation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep an average of the weights, of which each step keeps this share (0.99), and publish that.
    #[arg(long, value_name = "SHARE")]
    average_decay: Option<f64>,
    /// Where a U-Net is told what it should have said: at its top, or at every size on its way up.
    #[arg(long, default_value = "top", value_parser = Supervision::ALL.map(Supervision::word))]
    supervision: String,
    /// From which sides the network looks at an image, when it is measured and when it predicts:
    /// left-right averages what it says of the image as it is and mirrored.
    #[arg(long, default_value = "none", value_parser = Mirroring::ALL.map(Mirroring::word))]
    mirroring: String,
    /// End after so many epochs without a better validation, and publish the best epoch's weights.
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<u32>,
    /// Train once for each fold of a cross-validation, each in a task of its own: RUN-fold1 and so on.
    #[arg(long, value_name = "FOLDS")]
    folds: Option<u32>,
    /// Train with so many seeds, counted up from the first, each in a task of its own.
    #[arg(long, value_name = "SEEDS")]
    seeds: Option<u32>,
    /// What trains: torch on the GPUs of the task and over its ranks, or the embedded engine, which
    /// needs nothing and uses the CPU. auto takes torch where the node has it.
    #[arg(long, default_value = "auto", value_parser = ["auto", "embedded", "torch"])]
    engine: String,
    /// With how many bits torch computes: auto takes bf16 on a GPU that has it.
    #[arg(long, default_value = "auto", value_parser = ["auto", "fp32", "bf16"])]
    precision: String,
    /// Memory for samples: those that do not fit are read from shards when they are needed, and what is
    /// learnt is the same. Half of the task's memory where nothing is said, 4 GiB where that is not known.
    #[arg(long, value_name = "MEMORY")]
    data_memory: Option<MemoryMib>,
    /// Patients never trained on, as gantry data samples lists them.
    #[arg(long, value_name = "PATIENT")]
    hold_out: Vec<String>,
    /// The run's name: its checkpoints are kept, and a second start goes on from the last.
    #[arg(long)]
    run: Option<String>,
    #[command(flatten)]
    gang: GangFlags,
    #[command(flatten)]
    needs: JobNeeds,
}

impl Train {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the library has nothing to train on, or the job is refused.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let library = self.place.open()?;
        let settings = self.settings(&library)?;
        let runs = settings.sweep.map(Sweep::runs);
        let settings = serde_json::to_string(&settings).map_err(Failure::trouble)?;
        let run = self.run.clone().unwrap_or_else(super::client::submit_key);
        check_run(&run)?;
        let library = self.place.folder()?;
        let work = Work::Builtin(Builtin::Train { library, settings, run });
        let spec = JobSpec { gang: self.gang.gang(), ..self.needs.spec("train", work)? };
        let spec = runs.map_or(spec.clone(), |runs| over(spec, runs as usize));
        self.needs.submit(spec, cluster, format)
    }

    /// The settings that are asked for, with the sizes that are planned.
    fn settings(&self, library: &Library) -> Result<TrainSettings, Failure> {
        let network = self.network.network.parse().map_err(Failure::usage_of)?;
        let mut default =
            TrainSettings { label: self.label.clone(), network, ..TrainSettings::default() };
        if let Some(memory) = self.plan {
            let samples = library.usable_samples().map_err(Failure::trouble)?;
            let plan = plan(&default, &samples, memory.0).map_err(Failure::usage_of)?;
            output::progress(&words(&plan));
            default = plan.settings;
        }
        let settings = TrainSettings {
            input_size: self.network.input_size.unwrap_or(default.input_size),
            input_depth: self.network.input_depth.unwrap_or(default.input_depth),
            base_channels: self.network.base_channels.unwrap_or(default.base_channels),
            epochs: self.epochs,
            batch_size: self.batch.unwrap_or(default.batch_size),
            learning_rate: self.learning_rate.unwrap_or(default.learning_rate),
            average_decay: self.average_decay.unwrap_or(default.average_decay),
            supervision: self.supervision.parse().map_err(Failure::usage_of)?,
            mirroring: self.mirroring.parse().map_err(Failure::usage_of)?,
            patience_epochs: self.patience.unwrap_or(default.patience_epochs),
            sweep: sweep(self.folds, self.seeds),
            seed: self.seed,
            hold_out: self.hold_out.clone(),
            engine: self.engine.parse().map_err(Failure::usage_of)?,
            precision: self.precision.parse().map_err(Failure::usage_of)?,
            data_memory_mib: self.data_memory.map(|memory| memory.0),
            ..default
        };
        settings.check().map_err(Failure::usage_of)?;
        Ok(settings)
    }
}

/// A plan in a sentence.
#[must_use]
pub fn words(plan: &Plan) -> String {
    let Plan { settings, step_mib, size: [x, y, z], spacing_mm: [dx, dy, dz], samples } = plan;
    let TrainSettings { input_size, base_channels, batch_size, .. } = settings;
    let depth = match settings.network {
        NetworkKind::UNet3d | NetworkKind::ResidualUNet3d => {
            format!(" × {} slices", settings.input_depth)
        }
        _ => String::new(),
    };
    format!(
        "planned: input {input_size} × {input_size}{depth}, {base_channels} channels, {batch_size} images \
         a step, {step_mib} MiB for them; by {samples} samples of {x} × {y} × {z} voxels, {dx:.2} × {dy:.2} \
         × {dz:.2} mm each"
    )
}

/// `gantry predict`.
#[derive(Debug, Args)]
pub struct Predict {
    #[command(flatten)]
    place: Place,
    /// The model, by id or name, or run:NAME for what a run leaves.
    #[arg(long, add = completions::models())]
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
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let library = self.place.open()?;
        let series = self.choice.resolve(&library, |_| match library.model(&self.model) {
            Ok(model) => predicted(&library, &model.id),
            // Nothing has a prediction of a model that a training is yet to leave.
            Err(LibraryError::Unknown { .. }) => Ok(BTreeSet::new()),
            Err(error) => Err(Failure::trouble(error)),
        })?;
        let count = series.len();
        let (library, model) = (self.place.folder()?, self.model.clone());
        let work = Work::Builtin(Builtin::Predict { library, model, series });
        self.needs.submit_over(count, self.needs.spec("predict", work)?, cluster, format)
    }
}
