//! What the library holds, as the rows of a screen. It is read again when a folder has other counts,
//! when something was done here, and once in a while for what changes without that.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_learning::TrainSettings;
use gantry_library::{
    Author, Case, Counts, Fractions, Known, LabelState, Library, LibraryError, ModelRecord,
    PredictionRecord, SampleId, SampleRecord, Split, SplitPlan, Stage, StateRecord,
};
use gantry_wire::{Metric, Point};
use serde_json::Value;

use super::nearest::found;
use crate::app::library::{
    AsideLine, LabelLine, Listing, ModelLine, PredictionLine, ROWS_MAX, SampleLine, SeriesLine,
    Told, WaitingLine,
};

/// What nobody is told of, as a model's stage, is seen so late.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// What was listed last.
#[derive(Debug, Default)]
pub(super) struct Shown(Option<(Counts, Instant)>);

impl Shown {
    /// Has everything read again with the next look.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Looks; gives nothing where nothing is new.
    pub(super) fn look(&mut self, library: &Library) -> Option<Told> {
        let counts = match library.counts() {
            Ok(counts) => counts,
            Err(error) => return Some(Told::Absent(error.to_string())),
        };
        let known = self.0.as_ref();
        if known.is_some_and(|(known, at)| *known == counts && at.elapsed() < AGAIN_AFTER) {
            return None;
        }
        self.0 = Some((counts, Instant::now()));
        Some(Told::Listing(Arc::new(list(library))))
    }
}

/// Lists everything. What cannot be read is said, and the rest is listed all the same.
fn list(library: &Library) -> Listing {
    let mut listing = Listing::default();
    let mut trouble = None;
    let samples = read(library.samples(), &mut trouble);
    let predictions = read(library.predictions(), &mut trouble);
    let models = read(library.models(), &mut trouble);
    let series = read(library.series(), &mut trouble);
    let asides = read(library.quarantined(), &mut trouble);
    let states = read(library.states_of(&samples), &mut trouble);
    listing.trouble = trouble;
    let stages: Vec<Option<Stage>> = models.iter().map(|one| library.stage(&one.id).ok()).collect();
    let approved: Vec<ModelRecord> = (models.iter().zip(&stages))
        .filter(|(_, stage)| **stage == Some(Stage::Approved))
        .map(|(model, _)| model.clone())
        .collect();
    let known = Known {
        series: &series,
        samples: &samples,
        states: &states,
        approved: &approved,
        predictions: &predictions,
    };
    let waiting = known.waiting(None);
    listing.waits = waiting.len() as u64;
    listing.waiting = waiting.iter().take(ROWS_MAX).map(waiting_line).collect();
    let mut made = BTreeMap::new();
    for sample in &samples {
        *made.entry(sample.series.clone()).or_insert(0_u32) += 1;
    }
    listing.series = series
        .into_iter()
        .map(|one| SeriesLine {
            samples: made.get(&one.id).copied().unwrap_or(0),
            id: one.id.to_string(),
            patient: one.patient.to_string(),
            modality: one.modality,
            instances: one.instances,
            conflicts: one.conflicts,
            at_ms: one.last_received_ms,
        })
        .collect();
    (listing.samples, listing.labels) = sample_lines(&samples, &predictions, &states);
    let with_stages = models.iter().zip(stages);
    listing.models = with_stages.map(|(one, stage)| model_line(one, stage, &predictions)).collect();
    let lines = predictions.iter().map(|one| prediction_line(one, &listing.models));
    listing.predictions = lines.collect();
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for aside in &asides {
        *counted.entry(aside.reason.clone()).or_default() += 1;
    }
    listing.reasons = counted.into_iter().collect();
    listing.reasons.sort_by_key(|(_, files)| Reverse(*files));
    listing.asides = asides
        .into_iter()
        .map(|one| AsideLine {
            id: one.object.as_str().chars().take(12).collect(),
            reason: one.reason,
            sentence: one.sentence,
            bytes: one.bytes,
            at_ms: one.at_ms,
        })
        .collect();
    listing.left_out = newest(&mut listing.series, |one| one.at_ms)
        + newest(&mut listing.samples, |one| one.at_ms)
        + newest(&mut listing.models, |one| one.at_ms)
        + newest(&mut listing.predictions, |one| one.at_ms)
        + newest(&mut listing.asides, |one| one.at_ms);
    listing
}

/// What was read, or nothing of it with the reason kept; the first one is said.
fn read<T: Default>(found: Result<T, LibraryError>, trouble: &mut Option<String>) -> T {
    found.unwrap_or_else(|error| {
        trouble.get_or_insert_with(|| error.to_string());
        T::default()
    })
}

/// Puts the newest first and keeps so many; gives how many are left out.
fn newest<T>(rows: &mut Vec<T>, at_ms: impl Fn(&T) -> u64) -> u64 {
    rows.sort_by_key(|row| Reverse(at_ms(row)));
    let out = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    out as u64
}

/// The samples, and what they come to by label and side.
fn sample_lines(
    samples: &[SampleRecord],
    predictions: &[PredictionRecord],
    states: &BTreeMap<SampleId, StateRecord>,
) -> (Vec<SampleLine>, Vec<LabelLine>) {
    // How sure the newest prediction of each series is.
    let mut sure = BTreeMap::new();
    for one in predictions {
        let newest = sure.entry(one.series.clone()).or_insert((one.created_ms, one.confidence));
        if one.created_ms >= newest.0 {
            *newest = (one.created_ms, one.confidence);
        }
    }
    let mut by_label: BTreeMap<&str, Vec<SampleRecord>> = BTreeMap::new();
    for sample in samples {
        by_label.entry(&sample.label).or_default().push(sample.clone());
    }
    let settings = TrainSettings::default();
    let fractions = Fractions { validation_percent: settings.validation_percent, test_percent: 0 };
    let (mut lines, mut labels) = (Vec::new(), Vec::new());
    for (label, all) in by_label {
        let now =
            |one: &SampleRecord| states.get(&one.id).cloned().unwrap_or_else(|| one.first_state());
        // As a training with the default seed would deal them: without what was rejected.
        let usable = |one: &&SampleRecord| now(one).state != LabelState::Rejected;
        let learnt: Vec<SampleRecord> = all.iter().filter(usable).cloned().collect();
        let plan = SplitPlan::new(&learnt, settings.seed, fractions, &[]).ok();
        let mut line = LabelLine { label: label.to_owned(), ..LabelLine::default() };
        let mut patients = std::collections::BTreeSet::new();
        for one in &all {
            let StateRecord { state, reason, .. } = now(one);
            let why = (state == LabelState::Rejected).then(|| reason.unwrap_or_default());
            let author = match &one.provenance.author {
                Author::Person(name) => Some(name.clone()),
                Author::Auto => None,
            };
            let side = plan.as_ref().filter(|_| why.is_none()).map(|plan| plan.side(&one.patient));
            if let Some(side) = side {
                line.sides[side as usize] += 1;
            }
            line.counts[0] += 1;
            line.counts[1] += u64::from(author.is_some());
            line.counts[2] += u64::from(why.is_some());
            patients.insert(&one.patient);
            lines.push(SampleLine {
                id: one.id.to_string(),
                series: one.series.to_string(),
                label: one.label.clone(),
                side: side.map_or("-", side_word),
                author,
                state,
                rejected: why,
                volume_ml: one.volume_ml,
                size: one.size,
                confidence: sure.get(&one.series).map(|(_, confidence)| *confidence),
                at_ms: one.created_ms,
            });
        }
        line.counts[3] = patients.len() as u64;
        labels.push(line);
    }
    (lines, labels)
}

const fn side_word(side: Split) -> &'static str {
    match side {
        Split::Train => "train",
        Split::Validation => "validation",
        Split::Test => "test",
    }
}

fn waiting_line(case: &Case<'_>) -> WaitingLine {
    WaitingLine {
        series: case.series.id.to_string(),
        sample: case.sample.map(|sample| sample.id.to_string()),
    }
}

fn model_line(
    model: &ModelRecord,
    stage: Option<Stage>,
    predictions: &[PredictionRecord],
) -> ModelLine {
    let stage = match stage {
        Some(Stage::Candidate) => "candidate",
        Some(Stage::Approved) => "approved",
        Some(Stage::Retired) => "retired",
        None => "unknown",
    };
    let epochs = model.metrics["epochs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let curves = curves(epochs);
    let dice = curves.iter().find(|curve| curve.name == "validation_dice");
    let dice = dice.and_then(|curve| curve.points.iter().map(Point::value).reduce(f64::max));
    ModelLine {
        id: model.id.to_string(),
        name: model.name.clone(),
        run: model.run.clone(),
        stage,
        dice,
        curves,
        predictions: predictions.iter().filter(|one| one.model == model.id).count() as u32,
        at_ms: model.created_ms,
    }
}

/// The numbers of epochs as curves, one for each name.
fn curves(epochs: &[Value]) -> Vec<Metric> {
    let mut curves: Vec<Metric> = Vec::new();
    for (n, epoch) in epochs.iter().enumerate() {
        for (name, value) in epoch.as_object().into_iter().flatten() {
            let Some(value) = value.as_f64() else { continue };
            let point = Point::new(n as u64 + 1, value);
            match curves.iter_mut().find(|curve| curve.name == *name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Metric { name: name.clone(), points: vec![point] }),
            }
        }
    }
    curves
}

fn prediction_line(one: &PredictionRecord, models: &[ModelLine]) -> PredictionLine {
    let model = models.iter().find(|model| model.id == one.model.as_str());
    PredictionLine {
        id: one.id.to_string(),
        series: one.series.to_string(),
        model: one.model.to_string(),
        name: model.map_or_else(|| one.model.to_string(), |model| model.name.clone()),
        stage: model.map_or("unknown", |model| model.stage),
        volume_ml: one.volume_ml,
        confidence: one.confidence,
        findings: found(&one.findings),
        at_ms: one.created_ms,
    }
}
