//! Where a sample stands: made by a pipeline, corrected by a person, final, or rejected with a reason.
//!
//! The mask of a sample never changes: a corrected mask is another sample. Its state does, and each
//! change is a record of its own with who made it, when, and the hash of the mask that it was made of,
//! so that what was said of a label can be told for ever, and taken back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::LibraryError;
use crate::files::Made;
use crate::ids::{ObjectHash, SampleId};
use crate::limits::{REASON_CHARACTERS_MAX, STAGES_MAX};
use crate::root::{Library, now_ms};
use crate::samples::{Author, SampleRecord};

/// Where a sample stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelState {
    /// A pipeline has made its mask, and nobody has looked at it.
    Auto,
    /// A person has drawn or corrected its mask.
    Corrected,
    /// A person says that its mask is as good as it gets.
    Final,
    /// A person says that it is not to be used.
    Rejected,
}

impl LabelState {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Corrected => "corrected",
            Self::Final => "final",
            Self::Rejected => "rejected",
        }
    }

    /// Whether a person has vouched for the mask.
    #[must_use]
    pub const fn is_by_person(self) -> bool {
        matches!(self, Self::Corrected | Self::Final)
    }
}

/// One state of a sample, and who has put it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// Where it stands.
    pub state: LabelState,
    /// Who says so: the name of an account, or of a pipeline.
    pub by: String,
    /// Why, where it is rejected.
    pub reason: Option<String>,
    /// Since when.
    pub at_ms: u64,
    /// The mask that it was said of.
    pub mask: ObjectHash,
}

/// What a person says of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its mask is final.
    Final,
    /// It is not to be used, and why.
    Rejected(String),
    /// The last verdict is taken back.
    Undone,
}

impl SampleRecord {
    /// The state that a sample was made in.
    #[must_use]
    pub fn first_state(&self) -> StateRecord {
        let (state, by) = match &self.provenance.author {
            Author::Auto => (LabelState::Auto, &self.provenance.pipeline),
            Author::Person(name) => (LabelState::Corrected, name),
        };
        StateRecord {
            state,
            by: by.clone(),
            reason: None,
            at_ms: self.created_ms,
            mask: self.mask.clone(),
        }
    }
}

impl Library {
    /// Every state that a sample was in, the first first.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn sample_states(&self, sample: &SampleRecord) -> Result<Vec<StateRecord>, LibraryError> {
        let mut all = vec![sample.first_state()];
        all.extend(self.records().read_all::<StateRecord>(&states_of(&sample.id))?);
        Ok(all)
    }

    /// Where a sample stands.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn sample_state(&self, sample: &SampleRecord) -> Result<StateRecord, LibraryError> {
        match self.records().names(&states_of(&sample.id))?.last() {
            None => Ok(sample.first_state()),
            Some(name) => self.records().read(name),
        }
    }

    /// Where each of some samples stands.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn states_of(
        &self,
        samples: &[SampleRecord],
    ) -> Result<BTreeMap<SampleId, StateRecord>, LibraryError> {
        samples.iter().map(|one| Ok((one.id.clone(), self.sample_state(one)?))).collect()
    }

    /// Every sample that is not rejected, in the order of their ids.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn usable_samples(&self) -> Result<Vec<SampleRecord>, LibraryError> {
        let mut usable = Vec::new();
        for sample in self.samples()? {
            if self.sample_state(&sample)?.state != LabelState::Rejected {
                usable.push(sample);
            }
        }
        Ok(usable)
    }

    /// Keeps what a person says of a sample, and gives where it stands then. To say the same again
    /// changes nothing. What is taken back is the last verdict that still holds, and stays readable.
    ///
    /// # Errors
    /// Where the sample is unknown, nobody or no reason is named, there is no verdict to take back, or
    /// the storage fails.
    pub fn judge_sample(
        &self,
        id: &SampleId,
        verdict: &Verdict,
        by: &str,
    ) -> Result<StateRecord, LibraryError> {
        let sample = self.sample(id)?;
        let said = |what: &str, text: &str| {
            let characters = text.chars().count();
            if (1..=REASON_CHARACTERS_MAX).contains(&characters) && !text.trim().is_empty() {
                return Ok(());
            }
            Err(LibraryError::Invalid(format!(
                "a verdict on a sample needs {what} of 1 to {REASON_CHARACTERS_MAX} characters"
            )))
        };
        said("a name", by)?;
        let states = self.sample_states(&sample)?;
        let now = standing(&states);
        let (state, reason) = match verdict {
            Verdict::Final => (LabelState::Final, None),
            Verdict::Rejected(reason) => {
                said("a reason", reason)?;
                (LabelState::Rejected, Some(reason.clone()))
            }
            Verdict::Undone => match now.len() {
                0 | 1 => {
                    return Err(LibraryError::Invalid(format!(
                        "sample {id} is {}, and no verdict on it can be taken back",
                        states[0].state.word()
                    )));
                }
                count => (now[count - 2].state, now[count - 2].reason.clone()),
            },
        };
        let last = &states[states.len() - 1];
        if *verdict != Verdict::Undone && (last.state, &last.reason) == (state, &reason) {
            return Ok(last.clone());
        }
        let mask = sample.mask.clone();
        let record = StateRecord { state, by: by.to_owned(), reason, at_ms: now_ms(), mask };
        self.add_state(&sample, states.len() as u32 - 1, &record)?;
        Ok(record)
    }

    /// Writes a state under the next free number.
    fn add_state(
        &self,
        sample: &SampleRecord,
        next: u32,
        record: &StateRecord,
    ) -> Result<(), LibraryError> {
        for number in next..STAGES_MAX {
            let name = format!("{}/{number:04}.json", states_of(&sample.id));
            if self.records().create(&name, record)? == Made::New {
                return Ok(());
            }
        }
        Err(LibraryError::Invalid(format!(
            "sample {} has changed its state {STAGES_MAX} times",
            sample.id
        )))
    }
}

/// The states that hold, one over the other: one that is as the one below the last takes the last back.
fn standing(states: &[StateRecord]) -> Vec<&StateRecord> {
    let mut held: Vec<&StateRecord> = Vec::new();
    for state in states {
        let below = held.len().checked_sub(2).map(|place| held[place]);
        let again =
            below.is_some_and(|below| (below.state, &below.reason) == (state.state, &state.reason));
        if again {
            held.pop();
        } else {
            held.push(state);
        }
    }
    held
}

/// The folder of what people said of a sample.
fn states_of(id: &SampleId) -> String {
    format!("samples/{id}")
}
