//! Models beside each other: what each was trained with, how good it is, and the mean and spread over
//! folds and seeds, without which a difference between two says little.

use std::fmt::Write as _;

use gantry_library::{Library, ModelRecord};
use serde_json::{Value, json};

use super::{best, find, merit};
use crate::error::Failure;
use crate::output::{self, Format};

/// Columns of a curve.
const CURVE_COLUMNS: usize = 16;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn run(library: &Library, names: &[String], format: Format) -> Result<(), Failure> {
    let models = chosen(library, names)?;
    let values: Vec<Value> = models.iter().map(value).collect();
    let spread = |key: &str| Spread::of(values.iter().filter_map(|one| one[key].as_f64()));
    let (validation, test) = (spread("validation"), spread("test"));
    let answer = json!({
        "models": values,
        "validation": validation.as_ref().map(Spread::value),
        "test": test.as_ref().map(Spread::value),
    });
    let people = || {
        let heading =
            ["MODEL", "RUN", "NETWORK", "SAMPLES", "EPOCHS", "LOSS", "BEST", "TEST", "VALIDATION"];
        let rows: Vec<Vec<String>> = values.iter().zip(&models).map(row).collect();
        let mut text = output::aligned(&heading, &rows, 3..8);
        for (what, spread) in [("best validation", &validation), ("test", &test)] {
            if let Some(spread) = spread.as_ref().filter(|spread| spread.count > 1) {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n{what}: {}", spread.words());
            }
        }
        text
    };
    let ids = || models.iter().map(|one| one.id.to_string()).collect::<Vec<_>>().join("\n");
    format.print("models-compared", &answer, people, ids)
}

/// The models of these names, each once; `run:NAME` stands for all folds and seeds of the run.
fn chosen(library: &Library, names: &[String]) -> Result<Vec<ModelRecord>, Failure> {
    let all = library.models().map_err(Failure::trouble)?;
    let mut chosen: Vec<ModelRecord> = Vec::new();
    for name in names {
        let of_run = |run: &str| {
            let part = move |model: &&ModelRecord| {
                let rest = model.run.strip_prefix(run);
                rest.is_some_and(|rest| rest.starts_with("-fold") || rest.starts_with("-seed"))
            };
            all.iter().filter(part).cloned().collect::<Vec<_>>()
        };
        let mut found = name.strip_prefix("run:").map(of_run).unwrap_or_default();
        if found.is_empty() {
            found.push(find(library, name)?);
        }
        found.sort_by(|a, b| a.run.cmp(&b.run));
        found.retain(|one| chosen.iter().all(|other| other.id != one.id));
        chosen.extend(found);
    }
    Ok(chosen)
}

fn value(model: &ModelRecord) -> Value {
    let (metadata, metrics) = (&model.metadata, &model.metrics);
    let kind = metadata["network"]["kind"].as_str().unwrap_or("unet2d");
    let test = metrics["test_dice"].as_f64().or_else(|| metrics["test_auc"].as_f64());
    json!({
        "id": model.id,
        "run": model.run,
        "network": kind,
        "label": metadata["labels"][1],
        "samples": metadata["samples"],
        "library_hash": metadata["library_hash"],
        "epochs": metadata["epochs"],
        "seed": metadata["seed"],
        "fold": metadata["fold"],
        "loss": metrics["loss"],
        "validation": best(model),
        "test": test,
        "curve": metrics["epochs"].as_array().map(|epochs| epochs.iter().map(merit).collect::<Vec<_>>()),
    })
}

fn row((value, model): (&Value, &ModelRecord)) -> Vec<String> {
    let figure =
        |key: &str| value[key].as_f64().map_or_else(String::new, |one| format!("{one:.4}"));
    let count = |key: &str| value[key].as_u64().map_or_else(String::new, |one| one.to_string());
    let points: Vec<f64> = value["curve"]
        .as_array()
        .map(|curve| curve.iter().filter_map(Value::as_f64).collect())
        .unwrap_or_default();
    vec![
        model.id.to_string(),
        model.run.clone(),
        value["network"].as_str().unwrap_or_default().to_owned(),
        count("samples"),
        count("epochs"),
        figure("loss"),
        figure("validation"),
        figure("test"),
        curve(&points),
    ]
}

/// Points from 0 to 1, each column the last of those that it stands for.
fn curve(points: &[f64]) -> String {
    let columns = points.len().min(CURVE_COLUMNS);
    let column = |column: usize| {
        let value = points[(column + 1) * points.len() / columns - 1].clamp(0.0, 1.0);
        BLOCKS[((value * 8.0) as usize).min(7)]
    };
    (0..columns).map(column).collect()
}

/// The mean of some figures, and how far they lie apart.
struct Spread {
    count: usize,
    mean: f64,
    /// The standard deviation of a sample (n - 1); 0 of one.
    deviation: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let all: Vec<f64> = figures.collect();
        let count = all.len();
        let lowest = all.iter().copied().min_by(f64::total_cmp)?;
        let highest = all.iter().copied().max_by(f64::total_cmp)?;
        let mean = all.iter().sum::<f64>() / count as f64;
        let squares: f64 = all.iter().map(|one| (one - mean).powi(2)).sum();
        let deviation = (squares / count.saturating_sub(1).max(1) as f64).sqrt();
        Some(Self { count, mean, deviation, lowest, highest })
    }

    fn words(&self) -> String {
        let Self { count, mean, deviation, lowest, highest } = self;
        format!("{mean:.4} ± {deviation:.4} over {count} models ({lowest:.4} to {highest:.4})")
    }

    fn value(&self) -> Value {
        let Self { count, mean, deviation, lowest, highest } = self;
        json!({
            "models": count,
            "mean": mean,
            "deviation": deviation,
            "lowest": lowest,
            "highest": highest,
        })
    }
}

#[cfg(test)]
mod tests {
    use gantry_library::ModelDraft;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn folds_are_compared_under_the_name_of_their_run() {
        let folder = TempDir::new().unwrap();
        let library = Library::create(&folder.path().join("library")).unwrap();
        for (run, dice) in [("a-fold2", 0.8), ("a-fold1", 0.9), ("a-other", 0.1), ("b", 0.5)] {
            let draft = ModelDraft {
                name: run.into(),
                run: run.into(),
                weights: vec![1],
                metadata: json!({ "samples": 4, "epochs": 1 }),
                metrics: json!({ "epochs": [{ "loss": 0.4, "validation_dice": dice }] }),
            };
            library.publish_model(draft).unwrap();
        }
        let runs = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            chosen(&library, &names).unwrap().into_iter().map(|model| model.run).collect()
        };
        assert_eq!(runs(&["run:a"]), ["a-fold1", "a-fold2"]);
        assert_eq!(runs(&["run:b", "run:a", "a-fold2"]), ["b", "a-fold1", "a-fold2"]);
        assert!(chosen(&library, &["run:c".to_owned()]).is_err());
    }

    #[test]
    fn the_spread_is_that_of_a_sample() {
        let spread = Spread::of([0.8, 0.9, 1.0].into_iter()).unwrap();
        assert!((spread.mean - 0.9).abs() < 1e-12 && (spread.deviation - 0.1).abs() < 1e-12);
        assert_eq!(spread.words(), "0.9000 ± 0.1000 over 3 models (0.8000 to 1.0000)");
        assert!(Spread::of([0.5].into_iter()).unwrap().deviation.abs() < 1e-12);
        assert!(Spread::of(std::iter::empty()).is_none());
    }

    #[test]
    fn curves_keep_their_last_point() {
        assert_eq!(curve(&[0.0, 0.5, 1.0]), "▁▅█");
        let long: Vec<f64> = (0..=100).map(|one| f64::from(one) / 100.0).collect();
        let drawn = curve(&long);
        assert_eq!((drawn.chars().count(), drawn.chars().last()), (16, Some('█')));
        assert_eq!(curve(&[]), "");
    }
}
