//! `gantry pipeline plan`: the steps of a pipeline on a grid, their memory, the time that they took
//! before, and which of them are cached.

use std::path::PathBuf;

use clap::Args;
use gantry_agent::samples::{self, Need, Outline};
use gantry_imaging::Geometry;
use gantry_imaging::pipeline::{Pipeline, PlannedStep};
use gantry_library::{Library, SeriesId};
use gantry_model::MemoryMib;
use serde_json::{Value, json};

use super::{cache, grid, sides, time};
use crate::cli::library::Place;
use crate::cli::{completions, learning};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// What is planned for where nothing is named: a chest CT.
const SIZE: [usize; 3] = [512, 512, 128];
const SPACING_MM: [f64; 3] = [0.7, 0.7, 2.5];

/// `gantry pipeline plan`.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// A pipeline file, or the name of a shipped pipeline.
    #[arg(value_name = "FILE", add = completions::pipelines())]
    pipeline: String,
    /// A series of the library; its headers say how large it is.
    #[arg(requires = "library", conflicts_with_all = ["size", "spacing"], add = completions::series())]
    series: Option<String>,
    /// The library's folder on the shared storage.
    #[arg(long, env = "GANTRY_LIBRARY", value_name = "DIR")]
    library: Option<PathBuf>,
    /// Plan for so many voxels: 512,512,128.
    #[arg(long, value_name = "X,Y,Z", value_parser = three::<usize>)]
    size: Option<[usize; 3]>,
    /// Plan for voxels so large, in mm: 0.7,0.7,2.5.
    #[arg(long, value_name = "X,Y,Z", value_parser = three::<f64>)]
    spacing: Option<[f64; 3]>,
}

/// Three values with commas between them.
fn three<T: std::str::FromStr>(text: &str) -> Result<[T; 3], String> {
    let parts: Option<Vec<T>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    parts
        .and_then(|all| all.try_into().ok())
        .ok_or_else(|| format!("{text:?} is not three numbers with commas between them"))
}

/// What is known of a step before it is run.
struct Known {
    planned: PlannedStep,
    predicted_ms: Option<u64>,
    cached: bool,
}

impl Plan {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the pipeline has a mistake or cannot be done to such an image, or the series is unknown.
    pub(super) fn run(&self, format: Format) -> Outcome {
        let (_, pipeline) = learning::read_pipeline(&self.pipeline)?;
        let library = self.library.clone().map(|library| Place { library }.open()).transpose()?;
        let outline = self.outline(library.as_ref())?;
        let plan = pipeline.plan(&outline.geometry).map_err(Failure::usage_of)?;
        let need = Need::of(&pipeline, &outline).map_err(Failure::usage_of)?;
        let (cached, predicted) = match &library {
            Some(library) if library.cache_folder().is_dir() => {
                let cache = cache(library)?;
                let cached = match self.series_id()? {
                    Some(series) => {
                        let volume = samples::volume(library, &series).map_err(Failure::usage)?;
                        pipeline.cached(&volume.image, &cache)
                    }
                    None => Vec::new(),
                };
                (cached, pipeline.predicted_ms(&plan, &cache))
            }
            _ => (Vec::new(), Vec::new()),
        };
        let known = |(place, planned): (usize, PlannedStep)| Known {
            planned,
            predicted_ms: predicted.get(place).copied().flatten(),
            cached: cached.get(place).copied().unwrap_or(false),
        };
        let steps: Vec<Known> = plan.steps.into_iter().enumerate().map(known).collect();
        let value = self.value(&pipeline, &outline, need, &steps);
        let people = || text(&pipeline, &outline, need, &steps);
        format.print("plan", &value, people, || pipeline.hash())?;
        Ok(0)
    }

    fn series_id(&self) -> Result<Option<SeriesId>, Failure> {
        self.series.as_ref().map(|text| text.parse().map_err(Failure::usage_of)).transpose()
    }

    fn outline(&self, library: Option<&Library>) -> Result<Outline, Failure> {
        if let (Some(series), Some(library)) = (self.series_id()?, library) {
            library.series_record(&series).map_err(Failure::usage_of)?;
            return samples::outline(library, &series).map_err(Failure::usage);
        }
        let size = self.size.unwrap_or(SIZE);
        let geometry = Geometry::new(size, self.spacing.unwrap_or(SPACING_MM));
        geometry.check().map_err(Failure::usage_of)?;
        // Files of 16-bit pixels.
        Ok(Outline { geometry, file_bytes: 2 * geometry.voxels() as u64 })
    }

    fn value(&self, pipeline: &Pipeline, outline: &Outline, need: Need, steps: &[Known]) -> Value {
        let step = |known: &Known| {
            json!({
                "name": known.planned.name,
                "operation": known.planned.operation,
                "size": known.planned.size,
                "peak_bytes": known.planned.peak_bytes,
                "predicted_ms": known.predicted_ms,
                "cached": known.cached,
                "prefix": known.planned.prefix,
            })
        };
        json!({
            "pipeline": pipeline.name(),
            "label": pipeline.label(),
            "hash": pipeline.hash(),
            "series": self.series,
            "size": outline.geometry.size,
            "spacing_mm": outline.geometry.spacing_mm,
            "steps": steps.iter().map(step).collect::<Vec<_>>(),
            "peak_mib": need.peak.0,
            "request_mib": need.request().0,
            "predicted_ms": remaining_ms(steps),
        })
    }
}

/// How long the steps will take that are not cached, where the time of each is known.
fn remaining_ms(steps: &[Known]) -> Option<u64> {
    steps.iter().filter(|step| !step.cached).map(|step| step.predicted_ms).sum()
}

fn text(pipeline: &Pipeline, outline: &Outline, need: Need, steps: &[Known]) -> String {
    let row = |known: &Known| {
        vec![
            known.planned.name.clone(),
            known.planned.operation.to_owned(),
            sides(known.planned.size),
            MemoryMib(known.planned.peak_bytes.div_ceil(1 << 20)).to_string(),
            time(known.predicted_ms),
            if known.cached { "yes".to_owned() } else { String::new() },
        ]
    };
    let heading = ["STEP", "OPERATION", "VOXELS", "MEMORY", "TIME", "CACHED"];
    let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
    let time =
        remaining_ms(steps).map_or(String::new(), |ms| format!(", about {}", time(Some(ms))));
    format!(
        "{} marks {}; hash {}\n{}\n\n{}\n\nat most {} of memory{time}; gantry preprocess asks for {}, a quarter more",
        pipeline.name(),
        pipeline.label(),
        pipeline.hash(),
        grid(&outline.geometry),
        output::aligned(&heading, &rows, 3..5),
        need.peak,
        need.request(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_people_type() {
        assert_eq!(three::<usize>("512, 512,128"), Ok([512, 512, 128]));
        assert_eq!(three::<f64>("0.7,0.7,2.5"), Ok([0.7, 0.7, 2.5]));
        for wrong in ["", "1,2", "1,2,3,4", "a,b,c", "-1,2,3"] {
            assert!(three::<usize>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_time_is_known_once_that_of_each_step_to_run_is() {
        let step = |predicted_ms, cached| Known {
            planned: PlannedStep {
                name: "a".into(),
                operation: "otsu",
                prefix: String::new(),
                size: [1; 3],
                peak_bytes: 0,
            },
            predicted_ms,
            cached,
        };
        let two = |first, second| remaining_ms(&[first, second]);
        assert_eq!(two(step(Some(5), false), step(Some(7), false)), Some(12));
        assert_eq!(two(step(Some(5), true), step(Some(7), false)), Some(7));
        assert_eq!(two(step(None, true), step(Some(7), false)), Some(7));
        assert_eq!(two(step(None, false), step(Some(7), false)), None);
    }
}
