//! Which case a person labels next: the one that the current model is least sure of, since its label
//! teaches the most (uncertainty sampling, Lewis & Gale 1994); where no model says anything of those
//! that are left, the oldest. The command line and the console both ask here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::LibraryError;
use crate::ids::{ModelId, PredictionId, SampleId, SeriesId};
use crate::instances::SeriesRecord;
use crate::models::{ModelRecord, Stage};
use crate::predictions::PredictionRecord;
use crate::root::Library;
use crate::samples::SampleRecord;
use crate::states::{LabelState, StateRecord};

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

/// What the choice is made from.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// All series.
    pub series: &'a [SeriesRecord],
    /// All samples.
    pub samples: &'a [SampleRecord],
    /// Where they stand; one that is not named is where it began.
    pub states: &'a BTreeMap<SampleId, StateRecord>,
    /// The models that are approved.
    pub approved: &'a [ModelRecord],
    /// What models have said.
    pub predictions: &'a [PredictionRecord],
}

/// A case that waits for a person.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Its series.
    pub series: &'a SeriesRecord,
    /// The newest mask that a pipeline has made of it, to begin with.
    pub sample: Option<&'a SampleRecord>,
    /// The newest that the current model has said of it.
    pub prediction: Option<&'a PredictionRecord>,
}

impl<'a> Known<'a> {
    /// The newest approved model, of those that mark this label.
    #[must_use]
    pub fn current_model(&self, label: Option<&str>) -> Option<&'a ModelRecord> {
        let fit =
            self.approved.iter().filter(|model| label.is_none_or(|label| marks(model, label)));
        fit.min_by_key(|model| Reverse(model.created_ms))
    }

    /// The cases that no person has labelled; with a label, those that lack this one. The one to label
    /// next comes first.
    #[must_use]
    pub fn waiting(&self, label: Option<&str>) -> Vec<Case<'a>> {
        let state = |one: &SampleRecord| {
            self.states.get(&one.id).map_or_else(|| one.first_state().state, |state| state.state)
        };
        let (mut done, mut begun) = (BTreeSet::new(), BTreeMap::new());
        let fits = |one: &&SampleRecord| label.is_none_or(|label| one.label == label);
        for sample in self.samples.iter().filter(fits) {
            match state(sample) {
                state if state.is_by_person() => drop(done.insert(&sample.series)),
                LabelState::Auto => newest(&mut begun, sample, |one| (&one.series, one.created_ms)),
                _ => {}
            }
        }
        // Of several predictions of a series the newest counts.
        let mut said = BTreeMap::new();
        if let Some(model) = self.current_model(label) {
            for one in self.predictions.iter().filter(|one| one.model == model.id) {
                newest(&mut said, one, |one| (&one.series, one.created_ms));
            }
        }
        let left = self.series.iter().filter(|series| !done.contains(&series.id));
        let mut cases: Vec<Case<'a>> = left
            .map(|series| Case {
                series,
                sample: begun.get(&series.id).copied(),
                prediction: said.get(&series.id).copied(),
            })
            .collect();
        // What the model has not spoken of comes last: nothing says that it is hard. Ties go to the one
        // that has waited longest, so that the answer does not hang on chance.
        cases.sort_by(|a, b| {
            let sure =
                |one: &Case<'_>| one.prediction.map_or(f32::INFINITY, |said| said.confidence);
            let waited = |one: &Case<'a>| (one.series.last_received_ms, &one.series.id);
            sure(a).total_cmp(&sure(b)).then_with(|| waited(a).cmp(&waited(b)))
        });
        cases
    }

    /// The first of them, and why it is.
    #[must_use]
    pub fn next_case(&self, label: Option<&str>) -> Option<NextCase> {
        let waiting = self.waiting(label);
        let first = waiting.first()?;
        let said = first.prediction;
        Some(NextCase {
            series: first.series.id.clone(),
            rule: if said.is_some() { Rule::LeastSure } else { Rule::Oldest },
            model: self.current_model(label).map(|model| model.id.clone()),
            prediction: said.map(|one| one.id.clone()),
            uncertainty: said.map(|one| 1.0 - one.confidence),
            unlabelled: waiting.len() as u64,
            unpredicted: waiting.iter().filter(|one| one.prediction.is_none()).count() as u64,
        })
    }
}

impl Library {
    /// The case to label next, of those that no person has labelled; with a label, of those that lack
    /// this one. None where nothing is left.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn next_case(&self, label: Option<&str>) -> Result<Option<NextCase>, LibraryError> {
        let samples = self.samples()?;
        let mut approved = Vec::new();
        for model in self.models()? {
            if self.stage(&model.id)? == Stage::Approved {
                approved.push(model);
            }
        }
        let known = Known {
            series: &self.series()?,
            samples: &samples,
            states: &self.states_of(&samples)?,
            approved: &approved,
            predictions: &self.predictions()?,
        };
        Ok(known.next_case(label))
    }
}

/// Whether a model marks a label, as its metadata says.
fn marks(model: &ModelRecord, label: &str) -> bool {
    let labels = model.metadata["labels"].as_array();
    labels.is_some_and(|labels| labels.iter().any(|one| one == label))
}

/// Keeps the newest record of each series; of two alike in age the first.
fn newest<'a, T>(
    kept: &mut BTreeMap<&'a SeriesId, &'a T>,
    one: &'a T,
    of: impl Fn(&'a T) -> (&'a SeriesId, u64),
) {
    let (series, at_ms) = of(one);
    let known = kept.get(series).map(|known| of(known).1);
    if known.is_none_or(|known| known < at_ms) {
        kept.insert(series, one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ObjectHash, PatientKey};
    use crate::samples::{Author, Provenance};

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

    fn model() -> ModelRecord {
        ModelRecord {
            id: ModelId::of(&[b"m"]),
            name: "m".into(),
            run: "r".into(),
            weights: ObjectHash::of(&[b"w"]),
            metadata: serde_json::json!({ "labels": ["lungs"] }),
            metrics: serde_json::Value::Null,
            created_ms: 1,
        }
    }

    fn sample(name: &str, label: &str, author: Author, created_ms: u64) -> SampleRecord {
        SampleRecord {
            id: SampleId::of(&[name.as_bytes(), label.as_bytes(), &created_ms.to_le_bytes()]),
            series: SeriesId::of(&[name.as_bytes()]),
            patient: PatientKey::of(&[b"p"]),
            modality: "CT".into(),
            label: label.into(),
            image: ObjectHash::of(&[b"image"]),
            mask: ObjectHash::of(&[b"mask"]),
            size: [1; 3],
            spacing_mm: [1.0; 3],
            mask_voxels: 1,
            volume_ml: 1.0,
            provenance: Provenance {
                sources: Vec::new(),
                pipeline: "chest-ct".into(),
                pipeline_hash: "ab".into(),
                program: "0.1.0".into(),
                author,
            },
            created_ms,
        }
    }

    #[test]
    fn the_least_sure_case_comes_first_and_the_oldest_where_nothing_is_known() {
        let series = [series("a", 30), series("b", 20), series("c", 10)];
        let of = |name: &str| SeriesId::of(&[name.as_bytes()]);
        for (predictions, next, rule, unpredicted) in [
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
            let known = Known {
                series: &series,
                samples: &[],
                states: &BTreeMap::new(),
                approved: &[model()],
                predictions: &predictions,
            };
            let case = known.next_case(None).unwrap();
            assert_eq!((case.series, case.rule), (of(next), rule));
            assert_eq!((case.unlabelled, case.unpredicted), (3, unpredicted));
            assert_eq!(case.model, Some(model().id));
            // A model that is not approved is not asked.
            let alone = Known { approved: &[], ..known }.next_case(None).unwrap();
            assert_eq!((alone.series, alone.rule, alone.model), (of("c"), Rule::Oldest, None));
            assert_eq!(Known { series: &[], ..known }.next_case(None), None);
        }
    }

    #[test]
    fn what_a_person_vouches_for_waits_no_more_and_the_newest_mask_is_begun_with() {
        let series = [series("a", 30), series("b", 20), series("c", 10)];
        let samples = [
            sample("a", "lungs", Author::Auto, 1),
            sample("a", "lungs", Author::Auto, 3),
            sample("a", "liver", Author::Auto, 2),
            sample("b", "lungs", Author::Person("ada".into()), 1),
            sample("c", "lungs", Author::Auto, 1),
        ];
        let said = StateRecord { state: LabelState::Rejected, ..samples[4].first_state() };
        let known = Known {
            series: &series,
            samples: &samples,
            states: &BTreeMap::from([(samples[4].id.clone(), said)]),
            approved: &[model()],
            predictions: &[prediction("a", 0.2, 1), prediction("c", 0.7, 1)],
        };
        let of = |name: &str| SeriesId::of(&[name.as_bytes()]);
        let lungs = vec![(of("a"), Some(&samples[1].id)), (of("c"), None)];
        let livers = vec![(of("c"), None), (of("b"), None), (of("a"), Some(&samples[2].id))];
        for (label, expected) in [
            // What was rejected is drawn anew, from nothing.
            (None, lungs.clone()),
            (Some("lungs"), lungs),
            // The model marks no livers, so the oldest comes first.
            (Some("liver"), livers),
        ] {
            let waiting = known.waiting(label).into_iter();
            let found: Vec<(SeriesId, Option<&SampleId>)> = waiting
                .map(|one| (one.series.id.clone(), one.sample.map(|sample| &sample.id)))
                .collect();
            assert_eq!(found, expected, "{label:?}");
        }
    }
}
