//! `gantry pipeline run`: a pipeline on one series on this machine, to see what it does.
//!
//! Nothing is kept in the library but the results of steps, unless `--keep` makes a sample of it, which
//! is the one that `gantry preprocess` would make.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_agent::samples::{self, SeriesVolume};
use gantry_imaging::measure;
use gantry_imaging::pipeline::{CacheCounts, Labelled, Pipeline, StepReport};
use gantry_library::{SampleId, SeriesId};
use serde_json::{Value, json};

use super::{cache, grid, time};
use crate::cli::library::Place;
use crate::cli::{completions, learning};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// `gantry pipeline run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// A pipeline file, or the name of a shipped pipeline.
    #[arg(value_name = "FILE", add = completions::pipelines())]
    pipeline: String,
    /// The series.
    #[arg(add = completions::series())]
    series: String,
    #[command(flatten)]
    place: Place,
    /// Keep the result as a sample of the library, as gantry preprocess does.
    #[arg(long)]
    keep: bool,
    /// Write image.nii.gz and mask.nii.gz into this folder.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Run every step, and keep none of the results.
    #[arg(long)]
    no_cache: bool,
}

/// What came of it.
struct Done {
    labelled: Labelled,
    sample: Option<SampleId>,
    counts: CacheCounts,
}

impl Run {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the pipeline has a mistake, the series makes no volume, a step fails, or what is to be
    /// written cannot be.
    pub(super) fn run(&self, format: Format) -> Outcome {
        let (_, pipeline) = learning::read_pipeline(&self.pipeline)?;
        let library = self.place.open()?;
        let series: SeriesId = self.series.parse().map_err(Failure::usage_of)?;
        library.series_record(&series).map_err(Failure::usage_of)?;
        let volume = samples::volume(&library, &series).map_err(Failure::usage)?;
        output::progress(&format!("series {series}: {}", grid(&volume.image.geometry)));
        let SeriesVolume { image, sources, .. } = volume;
        let steps = pipeline.steps().len();
        let mut number = 0;
        let mut say = |step: StepReport| {
            number += 1;
            output::progress(&format!("{number}/{steps}  {}", said(&step)));
        };
        let (labelled, counts) = if self.no_cache {
            (pipeline.run(&image, &mut say), CacheCounts::default())
        } else {
            let mut cache = cache(&library)?;
            (pipeline.run_cached(&image, &mut cache, &mut say), cache.counts)
        };
        let labelled = labelled.map_err(Failure::usage_of)?;
        if let Some(folder) = &self.output {
            write(folder, "image.nii.gz", &samples::nifti_image(&labelled.image))?;
            write(folder, "mask.nii.gz", &samples::nifti_mask(&labelled.mask))?;
        }
        let keep = || samples::keep(&library, &pipeline, &series, sources, &labelled);
        let kept = self.keep.then(keep).transpose().map_err(Failure::usage)?;
        let done = Done { sample: kept.map(|(sample, _)| sample), labelled, counts };
        let quiet = || done.sample.as_ref().map_or(String::new(), ToString::to_string);
        format.print("run", &self.value(&pipeline, &done), || text(&pipeline, &done), quiet)?;
        Ok(0)
    }

    fn value(&self, pipeline: &Pipeline, done: &Done) -> Value {
        let Done { labelled, sample, counts } = done;
        json!({
            "series": self.series,
            "pipeline": pipeline.name(),
            "hash": pipeline.hash(),
            "label": labelled.label,
            "size": labelled.image.geometry.size,
            "spacing_mm": labelled.image.geometry.spacing_mm,
            "mask_voxels": labelled.mask.count(),
            "volume_ml": measure::volume_ml(&labelled.mask, 1),
            "steps": labelled.steps,
            "cache": counts,
            "sample": sample,
            "output": self.output,
        })
    }
}

fn said(step: &StepReport) -> String {
    let took = if step.cached { "cached".to_owned() } else { time(Some(step.milliseconds)) };
    format!("{}  {took}  {} voxels", step.name, step.voxels)
}

/// Writes a file that is not there yet.
fn write(folder: &Path, name: &str, bytes: &Result<Vec<u8>, String>) -> Result<(), Failure> {
    let bytes = bytes.as_ref().map_err(Failure::trouble)?;
    let path = folder.join(name);
    let fail = |error: std::io::Error| {
        Failure::usage(format!("writing {} failed: {error}; name another folder", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(fail)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)
}

fn text(pipeline: &Pipeline, done: &Done) -> String {
    let Done { labelled, sample, counts } = done;
    let row = |step: &StepReport| {
        vec![
            step.name.clone(),
            step.operation.clone(),
            if step.cached { "cached".to_owned() } else { time(Some(step.milliseconds)) },
            step.voxels.to_string(),
        ]
    };
    let heading = ["STEP", "OPERATION", "TIME", "VOXELS"];
    let rows: Vec<Vec<String>> = labelled.steps.iter().map(row).collect();
    let mut text = format!(
        "{}\n\n{} marks {:.1} ml of {} in {}",
        output::aligned(&heading, &rows, 2..4),
        pipeline.name(),
        measure::volume_ml(&labelled.mask, 1),
        labelled.label,
        grid(&labelled.image.geometry)
    );
    // Writing to a string cannot fail.
    if let Some(sample) = sample {
        let _ = write!(text, "\nsample {sample}");
    }
    if counts.full > 0 {
        let full = counts.full;
        let _ = write!(
            text,
            "\n! {full} results were not kept: they are larger than the cache, or its storage failed"
        );
    }
    text
}
