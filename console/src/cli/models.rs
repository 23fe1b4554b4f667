//! `gantry models`: what trainings have left, and the stage of each: a candidate, approved by a
//! person, or retired. Who moved a model to a stage is kept with it. Models are compared, and carried
//! from one library to another.

mod compare;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use gantry_learning::{export_model, import_model};
use gantry_library::{Library, ModelRecord, Stage};
use gantry_model::At;
use serde_json::{Value, json};

use super::library::Place;
use super::{completions, time};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// `gantry models`.
#[derive(Debug, Args)]
pub struct Models {
    #[command(flatten)]
    place: Place,
    /// Show this one, by id or name, or run:NAME for what a run left; all are listed without it.
    /// Several are compared.
    #[arg(add = completions::models())]
    model: Vec<String>,
    /// Say that a person found it good enough to be served.
    #[arg(long, requires = "model", conflicts_with_all = ["retire", "compare", "to", "import"])]
    approve: bool,
    /// Say that it is not to be used any more.
    #[arg(long, requires = "model", conflicts_with_all = ["compare", "to", "import"])]
    retire: bool,
    /// Who decides.
    #[arg(long, env = "USER", value_name = "NAME", default_value = "")]
    by: String,
    /// Compare them: figures, their mean and spread, and curves; run:NAME stands for all folds and
    /// seeds of a run.
    #[arg(long, requires = "model", conflicts_with_all = ["to", "import"])]
    compare: bool,
    /// Write it into this folder: weights (safetensors), ONNX, and what is said of it.
    #[arg(long, value_name = "DIR", requires = "model", conflicts_with = "import")]
    to: Option<PathBuf>,
    /// Take a model that was exported into a folder; it is a candidate here.
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    import: Option<PathBuf>,
}

impl Models {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a model is unknown or the library cannot be read.
    pub fn run(&self, format: Format) -> Outcome {
        let library = self.place.open()?;
        if let Some(folder) = &self.import {
            let id = import_model(&library, folder).map_err(Failure::usage_of)?;
            let people = || format!("{id} is here as a candidate");
            format.print("model-imported", &json!({ "model": id }), people, || id.to_string())?;
            return Ok(0);
        }
        match &self.model[..] {
            [] => list(&library, format)?,
            names if self.compare || (names.len() > 1 && !self.decides() && self.to.is_none()) => {
                compare::run(&library, names, format)?;
            }
            names => names.iter().try_for_each(|name| self.one(&library, name, format))?,
        }
        Ok(0)
    }

    const fn decides(&self) -> bool {
        self.approve || self.retire
    }

    fn one(&self, library: &Library, name: &str, format: Format) -> Result<(), Failure> {
        if self.approve {
            return to_stage(library, name, Stage::Approved, &self.by, format);
        }
        if self.retire {
            return to_stage(library, name, Stage::Retired, &self.by, format);
        }
        let Some(folder) = &self.to else { return show(library, name, format) };
        let model = find(library, name)?;
        // Each of several has a folder of its own.
        let folder =
            if self.model.len() > 1 { folder.join(model.id.as_str()) } else { folder.clone() };
        let id = export_model(library, model.id.as_str(), &folder).map_err(Failure::trouble)?;
        let value = json!({ "model": id, "folder": folder });
        let people = || format!("{id} is in {}", folder.display());
        format.print("model-exported", &value, people, || folder.display().to_string())
    }
}

/// Moves a model to a stage.
fn to_stage(
    library: &Library,
    name: &str,
    stage: Stage,
    by: &str,
    format: Format,
) -> Result<(), Failure> {
    if by.is_empty() {
        return Err(Failure::usage("a stage has somebody who decided it; name yourself with --by"));
    }
    let model = find(library, name)?;
    library.set_stage(&model.id, stage, by).map_err(Failure::trouble)?;
    let value = json!({ "model": model.id, "stage": stage, "by": by });
    let people = || format!("{} is {} by {by}", model.id, word(stage));
    format.print("stage", &value, people, || model.id.to_string())
}

const fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Candidate => "candidate",
        Stage::Approved => "approved",
        Stage::Retired => "retired",
    }
}

/// A model by what a person types for it.
fn find(library: &Library, name: &str) -> Result<ModelRecord, Failure> {
    library.model(name).map_err(|error| {
        let known = library.models().unwrap_or_default();
        let names = known.iter().flat_map(|model| [model.id.as_str(), &model.name]);
        let near = gantry_config::nearest(name, names);
        let hint = near.map_or_else(
            || "gantry models lists those there are".to_owned(),
            |near| format!("did you mean {near}"),
        );
        Failure { kind: "not-found", ..Failure::usage(format!("{error}; {hint}")) }
    })
}

/// How good an epoch was by its validation: Dice, or the area under the curve of a classifier.
fn merit(epoch: &Value) -> Option<f64> {
    epoch["validation_dice"].as_f64().or_else(|| epoch["validation_auc"].as_f64())
}

/// What the merit of a model is called.
fn merit_word(model: &ModelRecord) -> &'static str {
    if best_of(model, "validation_auc").is_some() { "AUC" } else { "DICE" }
}

/// The best merit of a training's epochs.
fn best(model: &ModelRecord) -> Option<f64> {
    model.metrics["epochs"].as_array()?.iter().filter_map(merit).max_by(f64::total_cmp)
}

/// The same, under the name of what it is.
fn best_of(model: &ModelRecord, key: &str) -> Option<f64> {
    let epochs = model.metrics["epochs"].as_array()?;
    epochs.iter().filter_map(|epoch| epoch[key].as_f64()).max_by(f64::total_cmp)
}

fn value(library: &Library, model: &ModelRecord) -> Result<Value, Failure> {
    let stage = library.stage(&model.id).map_err(Failure::trouble)?;
    Ok(json!({
        "id": model.id,
        "name": model.name,
        "run": model.run,
        "stage": stage,
        "validation_dice": best_of(model, "validation_dice"),
        "validation_auc": best_of(model, "validation_auc"),
        "created_ms": model.created_ms,
    }))
}

fn list(library: &Library, format: Format) -> Result<(), Failure> {
    let mut models = library.models().map_err(Failure::trouble)?;
    models.sort_by_key(|model| std::cmp::Reverse(model.created_ms));
    let values = models.iter().map(|one| value(library, one)).collect::<Result<Vec<_>, _>>()?;
    let people = || {
        if values.is_empty() {
            return "the library has no models; gantry train makes one".into();
        }
        let now = time::now();
        let row = |one: &Value| {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let merit = merit(one);
            vec![
                text("id"),
                text("name"),
                text("run"),
                text("stage"),
                merit.map_or_else(String::new, |merit| format!("{merit:.3}")),
                time::clock(At(one["created_ms"].as_u64().unwrap_or(0)), now),
            ]
        };
        let heading = ["MODEL", "NAME", "RUN", "STAGE", "BEST", "MADE"];
        output::aligned(&heading, &values.iter().map(row).collect::<Vec<_>>(), 4..5)
    };
    let ids = || models.iter().map(|one| one.id.to_string()).collect::<Vec<_>>().join("\n");
    format.print("models", &values, people, ids)
}

fn show(library: &Library, name: &str, format: Format) -> Result<(), Failure> {
    let model = find(library, name)?;
    let mut value = value(library, &model)?;
    value["metrics"] = model.metrics.clone();
    value["metadata"] = model.metadata.clone();
    let people = || {
        let mut text = format!(
            "{}  {}  of run {}, {}\n",
            model.id,
            output::clean(&model.name),
            output::clean(&model.run),
            value["stage"].as_str().unwrap_or_default()
        );
        let epochs = model.metrics["epochs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let figure = |value: Option<f64>| value.map_or_else(String::new, |n| format!("{n:.4}"));
        let row = |(number, epoch): (usize, &Value)| {
            vec![(number + 1).to_string(), figure(epoch["loss"].as_f64()), figure(merit(epoch))]
        };
        let rows: Vec<Vec<String>> = epochs.iter().enumerate().map(row).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{}",
            output::aligned(&["EPOCH", "LOSS", merit_word(&model)], &rows, 0..3)
        );
        text
    };
    format.print("model", &value, people, || model.id.to_string())
}

#[cfg(test)]
mod tests {
    use gantry_library::ModelDraft;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_model_is_found_shown_and_moved_to_a_stage() {
        let folder = TempDir::new().unwrap();
        let library = Library::create(&folder.path().join("library")).unwrap();
        let epochs = json!([{ "loss": 0.9, "validation_dice": 0.5 },
                            { "loss": 0.4, "validation_dice": 0.875 }]);
        let draft = ModelDraft {
            name: "lungs-1".into(),
            run: "r1".into(),
            weights: vec![1, 2, 3],
            metadata: json!({}),
            metrics: json!({ "epochs": epochs }),
        };
        let id = library.publish_model(draft).unwrap();
        for name in [id.as_str(), "lungs-1", "run:r1"] {
            assert_eq!(find(&library, name).unwrap().id, id, "{name}");
        }
        let wrong = find(&library, "lung-1").unwrap_err();
        assert!(wrong.sentence.ends_with("did you mean lungs-1"), "{}", wrong.sentence);
        let model = find(&library, "lungs-1").unwrap();
        assert_eq!(value(&library, &model).unwrap()["stage"], "candidate");
        to_stage(&library, "lungs-1", Stage::Approved, "ada", Format::Quiet).unwrap();
        let value = value(&library, &model).unwrap();
        assert_eq!(value["stage"], "approved");
        assert_eq!(value["validation_dice"], 0.875);
        assert_eq!((best(&model), merit_word(&model)), (Some(0.875), "DICE"));
    }
}
