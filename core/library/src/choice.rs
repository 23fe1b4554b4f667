//! Which case a person labels next: the one that the current model is least sure of, since its label
//! teaches the most (uncertainty sampling, Lewis & Gale 1994); where no model says anything of those
//! that are left, the oldest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::LibraryError;
use crate::ids::{ModelId, PredictionId, SeriesId};
use crate::instances::SeriesRecord;
use crate::models::{ModelRecord, Stage};
use crate::predictions::PredictionRecord;
use crate::root::Library;

/// How a case was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The model is least sure of it.
    LeastSure,
    /// It has waited longest.
    Oldest,
}

/// A case to be labelled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NextCase {
    /// Its series.
    pub series: SeriesId,
    /// How it was chosen.
    pub rule: Rule,
    /// The approved model that was asked, if there is one.
    pub model: Option<ModelId>,
    /// What it says of the series.
    pub prediction: Option<PredictionId>,
    /// One minus the confidence of that.
    pub uncertainty: Option<f32>,
    /// Series that no person has labelled, this one among them.
    pub unlabelled: u64,
    /// Those among them of which the model has said nothing.
    pub unpredicted: u64,
}

impl Library {
    /// The case to label next, of those that no person has labelled; with a label, of those that lack
    /// this one. None where nothing is left.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn next_case(&self, label: Option<&str>) -> Result<Option<NextCase>, LibraryError> {
        let mut done = BTreeSet::new();
        for sample in self.samples()? {
            let fits = label.is_none_or(|label| sample.label == label);
            if fits && self.sample_state(&sample)?.state.is_by_person() {
                done.insert(sample.series);
            }
        }
        let mut left = self.series()?;
        left.retain(|series| !done.contains(&series.id));
        let Some(model) = self.current_model(label)? else {
            return Ok(choose(left, None, Vec::new()));
        };
        let mut predictions = self.predictions()?;
        predictions.retain(|one| one.model == model.id);
        Ok(choose(left, Some(&model.id), predictions))
    }

    /// The newest approved model, of those that mark this label.
    fn current_model(&self, label: Option<&str>) -> Result<Option<ModelRecord>, LibraryError> {
        let mut models = self.models()?;
        models.retain(|model| label.is_none_or(|label| marks(model, label)));
        models.sort_by_key(|model| std::cmp::Reverse(model.created_ms));
        for model in models {
            if self.stage(&model.id)? == Stage::Approved {
                return Ok(Some(model));
            }
        }
        Ok(None)
    }
}

/// Whether a model marks a label, as its metadata says.
fn marks(model: &ModelRecord, label: &str) -> bool {
    let labels = model.metadata["labels"].as_array();
    labels.is_some_and(|labels| labels.iter().any(|one| one == label))
}

/// Chooses among series.
fn choose(
    left: Vec<SeriesRecord>,
    model: Option<&ModelId>,
    predictions: Vec<PredictionRecord>,
) -> Option<NextCase> {
    // Of several predictions of a series the newest counts.
    let mut newest: BTreeMap<SeriesId, PredictionRecord> = BTreeMap::new();
    for one in predictions {
        match newest.get(&one.series) {
            Some(known) if known.created_ms >= one.created_ms => {}
            _ => drop(newest.insert(one.series.clone(), one)),
        }
    }
    let unlabelled = left.len() as u64;
    let (mut predicted, unpredicted): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|series| newest.contains_key(&series.id));
    let case = |series: SeriesId, rule, prediction: Option<&PredictionRecord>| NextCase {
        series,
        rule,
        model: model.cloned(),
        prediction: prediction.map(|one| one.id.clone()),
        uncertainty: prediction.map(|one| 1.0 - one.confidence),
        unlabelled,
        unpredicted: unpredicted.len() as u64,
    };
    // Ties go to the one that has waited longest, so that the answer does not hang on chance.
    predicted.sort_by(|a, b| {
        let sure = |one: &SeriesRecord| newest[&one.id].confidence;
        let waited = || (a.last_received_ms, &a.id).cmp(&(b.last_received_ms, &b.id));
        sure(a).total_cmp(&sure(b)).then_with(waited)
    });
    if let Some(first) = predicted.first() {
        return Some(case(first.id.clone(), Rule::LeastSure, newest.get(&first.id)));
    }
    let oldest = unpredicted.iter().min_by_key(|one| (one.last_received_ms, &one.id))?;
    Some(case(oldest.id.clone(), Rule::Oldest, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ObjectHash, PatientKey};

    fn series(name: &str, last_received_ms: u64) -> SeriesRecord {
        SeriesRecord {
            id: SeriesId::of(&[name.as_bytes()]),
            patient: PatientKey::of(&[b"p"]),
            modality: "CT".into(),
            instances: 1,
            conflicts: 0,
            last_received_ms,
        }
    }

    fn prediction(name: &str, confidence: f32, created_ms: u64) -> PredictionRecord {
        PredictionRecord {
            id: PredictionId::of(&[name.as_bytes(), &created_ms.to_le_bytes()]),
            series: SeriesId::of(&[name.as_bytes()]),
            patient: PatientKey::of(&[b"p"]),
            model: ModelId::of(&[b"m"]),
            mask: ObjectHash::of(&[b"mask"]),
            segmentation: None,
            volume_ml: 1.0,
            confidence,
            embedding: Vec::new(),
            findings: serde_json::Value::Null,
            created_ms,
        }
    }

    #[test]
    fn the_least_sure_case_comes_first_and_the_oldest_where_nothing_is_known() {
        let left = || vec![series("a", 30), series("b", 20), series("c", 10)];
        let of = |name: &str| SeriesId::of(&[name.as_bytes()]);
        for (predictions, series, rule, unpredicted) in [
            (vec![], "c", Rule::Oldest, 3),
            (vec![prediction("a", 0.9, 1), prediction("b", 0.6, 1)], "b", Rule::LeastSure, 1),
            // The newer of two counts, and of two alike the older series.
            (
                vec![prediction("a", 0.6, 1), prediction("b", 0.1, 1), prediction("b", 0.6, 2)],
                "b",
                Rule::LeastSure,
                1,
            ),
            (vec![prediction("x", 0.1, 1)], "c", Rule::Oldest, 3),
        ] {
            let case = choose(left(), Some(&ModelId::of(&[b"m"])), predictions).unwrap();
            assert_eq!((case.series, case.rule), (of(series), rule));
            assert_eq!((case.unlabelled, case.unpredicted), (3, unpredicted));
        }
        assert_eq!(choose(Vec::new(), None, Vec::new()), None);
    }
}
