//! `gantry pipeline`: which pipelines are shipped, what is wrong with one, what one will do to a series
//! before anything runs, and a run on one series on this machine.
//!
//! A run keeps the result of each step in the library's cache, so that it goes on from where it was
//! stopped, and a changed step costs only itself and those behind it.

mod plan;
mod run;

use clap::{Args, Subcommand};
use gantry_imaging::Geometry;
use gantry_imaging::pipeline::{CACHE_BYTES_MAX, Cache, Pipeline};
use gantry_library::Library;
use serde_json::json;

use super::{completions, learning};
use crate::error::{Failure, Outcome, USAGE};
use crate::output::{self, Format};

/// `gantry pipeline`.
#[derive(Debug, Args)]
pub struct Pipelines {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the shipped pipelines.
    List,
    /// Look for mistakes in pipeline files, each with its line and column. Exits with 2 where there is
    /// one.
    Check(Check),
    /// Say what a pipeline will do to a series: its steps, their memory and time, and what is cached.
    Plan(plan::Plan),
    /// Run a pipeline on one series on this machine.
    Run(run::Run),
}

#[derive(Debug, Args)]
struct Check {
    /// Pipeline files, or names of shipped pipelines.
    #[arg(required = true, value_name = "FILE", add = completions::pipelines())]
    files: Vec<String>,
}

impl Pipelines {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a pipeline has a mistake, or the library cannot be read.
    pub fn run(&self, format: Format) -> Outcome {
        match &self.what {
            What::List => list(format),
            What::Check(check) => check.run(format),
            What::Plan(plan) => plan.run(format),
            What::Run(run) => run.run(format),
        }
    }
}

fn list(format: Format) -> Outcome {
    let mut all = Vec::new();
    for (name, text) in gantry_config::PIPELINES {
        all.push(Pipeline::parse(text, name).map_err(Failure::trouble)?);
    }
    let value = |one: &Pipeline| {
        json!({
            "name": one.name(),
            "label": one.label(),
            "about": one.about(),
            "steps": one.steps().len(),
            "hash": one.hash(),
        })
    };
    let people = || {
        let row = |one: &Pipeline| {
            let steps = one.steps().len().to_string();
            vec![one.name().to_owned(), one.label().to_owned(), steps, one.about().to_owned()]
        };
        let heading = ["PIPELINE", "LABEL", "STEPS", "ABOUT"];
        output::aligned(&heading, &all.iter().map(row).collect::<Vec<_>>(), 2..3)
    };
    let names = || all.iter().map(Pipeline::name).collect::<Vec<_>>().join("\n");
    format.print("pipelines", &all.iter().map(value).collect::<Vec<_>>(), people, names)?;
    Ok(0)
}

impl Check {
    fn run(&self, format: Format) -> Outcome {
        let (mut values, mut lines, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for file in &self.files {
            let text = learning::pipeline_text(file)?;
            let value = match Pipeline::parse(&text, file) {
                Ok(parsed) => {
                    let (name, steps, hash) = (parsed.name(), parsed.steps().len(), parsed.hash());
                    lines.push(format!("{file}: {name} is sound, {steps} steps, hash {hash}"));
                    json!({ "file": file, "name": name, "steps": steps, "hash": hash, "mistake": null })
                }
                Err(mistake) => {
                    lines.push(mistake.to_string());
                    wrong.push(file.clone());
                    json!({
                        "file": file,
                        "name": null,
                        "steps": null,
                        "hash": null,
                        "mistake": {
                            "line": mistake.line,
                            "column": mistake.column,
                            "problem": mistake.problem,
                        },
                    })
                }
            };
            values.push(value);
        }
        format.print("pipeline-check", &values, || lines.join("\n"), || wrong.join("\n"))?;
        Ok(if wrong.is_empty() { 0 } else { USAGE })
    }
}

/// The cache of a library, as far as it has one or one is to be made.
fn cache(library: &Library) -> Result<Cache, Failure> {
    Cache::open(&library.cache_folder(), CACHE_BYTES_MAX).map_err(|error| {
        Failure::trouble(format!(
            "opening the cache {} failed: {error}; --no-cache does without",
            library.cache_folder().display()
        ))
    })
}

/// A size as people write it.
fn sides(size: [usize; 3]) -> String {
    size.map(|n| n.to_string()).join(" × ")
}

/// A grid as people write it.
fn grid(geometry: &Geometry) -> String {
    let spacing = geometry.spacing_mm.map(|mm| ((mm * 1000.0).round() / 1000.0).to_string());
    format!("{} voxels of {} mm", sides(geometry.size), spacing.join(" × "))
}

/// A time as a table has it.
fn time(milliseconds: Option<u64>) -> String {
    match milliseconds {
        None => String::new(),
        Some(short) if short < 10_000 => format!("{short} ms"),
        Some(long) => format!("{} s", long / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_and_times_are_written_for_people() {
        let geometry = Geometry::new([512, 512, 48], [0.703_125, 0.703_125, 2.5]);
        assert_eq!(grid(&geometry), "512 × 512 × 48 voxels of 0.703 × 0.703 × 2.5 mm");
        for (milliseconds, text) in [(None, ""), (Some(9), "9 ms"), (Some(61_000), "61 s")] {
            assert_eq!(time(milliseconds), text);
        }
    }
}
