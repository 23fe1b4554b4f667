//! Which samples a run trains on, which it measures after each epoch, and which it holds out.

use gantry_library::{Fractions, Library, PatientKey, SampleId, SampleRecord, Split, SplitPlan};

use crate::checkpoint::Sides;
use crate::error::LearningError;
use crate::settings::{Fold, TrainSettings};

/// Decides which samples are trained on.
pub(crate) fn split(
    all: &[SampleRecord],
    settings: &TrainSettings,
) -> Result<Sides, LearningError> {
    let labelled: Vec<SampleRecord> =
        all.iter().filter(|sample| sample.label == settings.label).cloned().collect();
    if labelled.is_empty() {
        let labels = Library::fingerprint(all).labels;
        let there = if labels.is_empty() {
            "the library has no samples; make some with gantry preprocess".to_owned()
        } else {
            let names: Vec<&str> = labels.keys().map(String::as_str).collect();
            format!("the library has samples of {}", names.join(", "))
        };
        return Err(LearningError::NoSamples { label: settings.label.clone(), there });
    }
    let hold_out = settings
        .hold_out
        .iter()
        .map(|key| key.parse::<PatientKey>())
        .collect::<Result<Vec<_>, _>>()?;
    let plan = if let Some(Fold { number, of }) = settings.fold {
        SplitPlan::fold(&labelled, settings.seed, (number, of), &hold_out)?
    } else {
        let validation_percent = settings.validation_percent;
        let fractions = Fractions { validation_percent, test_percent: 0 };
        SplitPlan::new(&labelled, settings.seed, fractions, &hold_out)?
    };
    let ids = |side| plan.of(side, &labelled).iter().map(|sample| sample.id.clone()).collect();
    Ok(Sides {
        train: ids(Split::Train),
        validation: ids(Split::Validation),
        test: ids(Split::Test),
    })
}

/// The records of samples, which are all there.
pub(crate) fn select<'a>(
    all: &'a [SampleRecord],
    ids: &[SampleId],
) -> Result<Vec<&'a SampleRecord>, LearningError> {
    let one = |id: &SampleId| {
        all.iter().find(|sample| sample.id == *id).ok_or_else(|| {
            LearningError::Damaged(format!(
                "sample {id}, which the run was begun with, is gone from the library; restore it, \
                 or start another run"
            ))
        })
    };
    ids.iter().map(one).collect()
}
