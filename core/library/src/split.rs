//! Which samples train, which validate and which test, decided for patients as a whole: what was
//! learnt from one image of a patient must not be examined on another of the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::LibraryError;
use crate::ids::{PatientKey, sha256_hex};
use crate::samples::SampleRecord;

/// A side of the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Learnt from.
    Train,
    /// Looked at while learning.
    Validation,
    /// Never looked at before the end.
    Test,
}

/// How many patients of a hundred go where; the rest trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fractions {
    /// Percent for validation.
    pub validation_percent: u32,
    /// Percent for testing, beside those held out by name.
    pub test_percent: u32,
}

/// A decision for each patient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPlan {
    sides: BTreeMap<PatientKey, Split>,
}

impl SplitPlan {
    /// Decides for the patients of samples. Held-out patients test; the others are put into an
    /// order that depends on the seed and on their keys only, and dealt from its end.
    ///
    /// # Errors
    /// Where a held-out patient has no sample, nobody is left to train on, or one image belongs to
    /// patients of two sides.
    pub fn new(
        samples: &[SampleRecord],
        seed: u64,
        fractions: Fractions,
        hold_out: &[PatientKey],
    ) -> Result<Self, LibraryError> {
        let (sides, others) = Self::in_order(samples, seed, hold_out)?;
        let share = |percent: u32| (others.len() * percent as usize).div_ceil(100);
        let (test, validation) =
            (share(fractions.test_percent), share(fractions.validation_percent));
        let spare = others.len().saturating_sub(1);
        let dealt = (test + validation).min(spare);
        let dealt = others.into_iter().rev().take(dealt).enumerate().map(|(place, patient)| {
            (patient, if place < validation { Split::Validation } else { Split::Test })
        });
        Self::of_sides(sides, dealt, samples)
    }

    /// Decides for one fold of a cross-validation, counted from 1: the patients who are not held out
    /// are dealt to the folds in turn, in the order of [`SplitPlan::new`], so that each validates
    /// once.
    ///
    /// # Errors
    /// As [`SplitPlan::new`], and where there are fewer patients than folds.
    pub fn fold(
        samples: &[SampleRecord],
        seed: u64,
        (number, of): (u32, u32),
        hold_out: &[PatientKey],
    ) -> Result<Self, LibraryError> {
        let (sides, others) = Self::in_order(samples, seed, hold_out)?;
        if others.len() < of as usize {
            return Err(LibraryError::Invalid(format!(
                "{of} folds need as many patients, and {} are not held out; take fewer folds",
                others.len()
            )));
        }
        let first = number.saturating_sub(1) as usize;
        let own = others.into_iter().skip(first).step_by(of.max(1) as usize);
        Self::of_sides(sides, own.map(|patient| (patient, Split::Validation)), samples)
    }

    /// Every patient's side before anybody is dealt, and those who can be, in their order.
    fn in_order(
        samples: &[SampleRecord],
        seed: u64,
        hold_out: &[PatientKey],
    ) -> Result<(BTreeMap<PatientKey, Split>, Vec<PatientKey>), LibraryError> {
        let mut sides: BTreeMap<PatientKey, Split> =
            samples.iter().map(|sample| (sample.patient.clone(), Split::Train)).collect();
        for patient in hold_out {
            let side = sides.get_mut(patient).ok_or_else(|| {
                LibraryError::Invalid(format!(
                    "patient {patient} is held out and has no sample; gantry data samples lists the patients"
                ))
            })?;
            *side = Split::Test;
        }
        let mut others: Vec<(String, PatientKey)> = sides
            .iter()
            .filter(|(_, side)| **side == Split::Train)
            .map(|(patient, _)| {
                let parts: [&[u8]; 2] = [&seed.to_le_bytes(), patient.as_str().as_bytes()];
                (sha256_hex(&parts), patient.clone())
            })
            .collect();
        others.sort();
        Ok((sides, others.into_iter().map(|(_, patient)| patient).collect()))
    }

    fn of_sides(
        mut sides: BTreeMap<PatientKey, Split>,
        dealt: impl Iterator<Item = (PatientKey, Split)>,
        samples: &[SampleRecord],
    ) -> Result<Self, LibraryError> {
        sides.extend(dealt);
        if !sides.values().any(|side| *side == Split::Train) {
            return Err(LibraryError::Invalid(
                "no patient is left to train on; hold out fewer, or add samples of others".into(),
            ));
        }
        let plan = Self { sides };
        plan.prove(samples)?;
        Ok(plan)
    }

    /// The side of a patient; those who came later than the plan test.
    #[must_use]
    pub fn side(&self, patient: &PatientKey) -> Split {
        self.sides.get(patient).copied().unwrap_or(Split::Test)
    }

    /// Proves for these samples, also such as came after the plan, that no patient is on two sides, and neither is an image, which one
    /// patient under two ids would bring about.
    ///
    /// # Errors
    /// Names the samples of a patient or an image that is on two sides.
    pub fn prove(&self, samples: &[SampleRecord]) -> Result<(), LibraryError> {
        let mut seen: BTreeMap<&str, &SampleRecord> = BTreeMap::new();
        for sample in samples {
            for (what, key) in
                [("patient", sample.patient.as_str()), ("image", sample.image.as_str())]
            {
                let first = *seen.entry(key).or_insert(sample);
                let (before, now) = (self.side(&first.patient), self.side(&sample.patient));
                if before != now {
                    return Err(LibraryError::Invalid(format!(
                        "samples {} ({before:?}) and {} ({now:?}) are of one {what}; hold out the patients {} and {} together, or remove one of the samples",
                        first.id, sample.id, first.patient, sample.patient
                    )));
                }
            }
        }
        Ok(())
    }

    /// The samples of a side.
    #[must_use]
    pub fn of<'a>(&self, split: Split, samples: &'a [SampleRecord]) -> Vec<&'a SampleRecord> {
        samples.iter().filter(|sample| self.side(&sample.patient) == split).collect()
    }
}
