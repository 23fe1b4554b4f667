//! `gantry models`: what trainings have left, and the stage of each: a candidate, approved by a
//! person, or retired. Who moved a model to a stage is kept with it.

use std::fmt::Write as _;

use clap::Args;
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
    /// Show this one, by id or name, or run:NAME for what a run leaves; all are listed without it.
    #[arg(add = completions::models())]
    model: Option<String>,
    /// Say that a person found it good enough to be served.
    #[arg(long, requires = "model", conflicts_with = "retire")]
    approve: bool,
    /// Say that it is not to be used any more.
    #[arg(long, requires = "model")]
    retire: bool,
    /// Who decides.
    #[arg(long, env = "USER", value_name = "NAME", default_value = "")]
    by: String,
}

impl Models {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a model is unknown or the library cannot be read.
    pub fn run(&self, format: Format) -> Outcome {
        let library = self.place.open()?;
        let Some(name) = &self.model else {
            list(&library, format)?;
            return Ok(0);
        };
        match (self.approve, self.retire) {
            (true, _) => to_stage(&library, name, Stage::Approved, &self.by, format)?,
            (_, true) => to_stage(&library, name, Stage::Retired, &self.by, format)?,
            _ => show(&library, name, format)?,
        }
        Ok(0)
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

/// The best figure of merit that a training wrote down, as Dice of its validation.
fn dice(model: &ModelRecord) -> Option<f64> {
    let epochs = model.metrics["epochs"].as_array()?;
    let all = epochs.iter().filter_map(|epoch| epoch["validation_dice"].as_f64());
    all.max_by(f64::total_cmp)
}

fn value(library: &Library, model: &ModelRecord) -> Result<Value, Failure> {
    let stage = library.stage(&model.id).map_err(Failure::trouble)?;
    Ok(json!({
        "id": model.id,
        "name": model.name,
        "run": model.run,
        "stage": stage,
        "validation_dice": dice(model),
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
            let dice = one["validation_dice"].as_f64();
            vec![
                text("id"),
                text("name"),
                text("run"),
                text("stage"),
                dice.map_or_else(String::new, |dice| format!("{dice:.3}")),
                time::clock(At(one["created_ms"].as_u64().unwrap_or(0)), now),
            ]
        };
        let heading = ["MODEL", "NAME", "RUN", "STAGE", "DICE", "MADE"];
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
        let figure = |value: &Value| value.as_f64().map_or_else(String::new, |n| format!("{n:.4}"));
        let row = |(number, epoch): (usize, &Value)| {
            let cells = ["loss", "validation_dice"].map(|key| figure(&epoch[key]));
            [vec![(number + 1).to_string()], cells.to_vec()].concat()
        };
        let rows: Vec<Vec<String>> = epochs.iter().enumerate().map(row).collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{}", output::aligned(&["EPOCH", "LOSS", "DICE"], &rows, 0..3));
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
    }
}
