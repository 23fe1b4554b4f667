//! Receiving images from scanners, and sending them as one.
//!
//! The only module that knows the DICOM network protocol. What arrives is kept as it came: the
//! data set's bytes behind a file meta group made from the negotiated context, never re-encoded,
//! unless patients are to be taken out of it, which comes before anything is kept.

mod association;
mod client;
mod command;
mod commitment;
mod complete;
mod group;
mod receive;
pub(crate) mod refusals;
pub mod send;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gantry_imaging::dicom::deidentify::{Profile, deidentify};
use gantry_imaging::dicom::{Instance, Refusal, inspect};
use gantry_library::{InstanceKey, Library, LibraryError, Source, Stored};
use gantry_telemetry::IngestCounts;

pub(crate) use receive::{Receiver, start};

/// What a receiver has done.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    associations: AtomicU32,
    associations_total: AtomicU64,
    received: AtomicU64,
    quarantined: AtomicU64,
    conflicts: AtomicU64,
    refused: AtomicU64,
    /// Who was turned away.
    pub(crate) refusals: refusals::Refusals,
}

impl Counters {
    pub(crate) fn read(self: &Arc<Self>) -> IngestCounts {
        IngestCounts {
            associations: self.associations.load(Ordering::Relaxed),
            associations_total: self.associations_total.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            quarantined: self.quarantined.load(Ordering::Relaxed),
            conflicts: self.conflicts.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Under its series.
    Stored(Stored),
    /// Aside, with the reason.
    Quarantined {
        /// A stable word.
        reason: String,
        /// The sentence.
        sentence: String,
    },
}

/// How patients are taken out of what comes.
#[derive(Clone, Debug)]
pub struct Deidentifier {
    profile: Profile,
    key: Vec<u8>,
}

impl Deidentifier {
    /// By this profile, with pseudonyms, UIDs and dates that are the library's own.
    #[must_use]
    pub fn new(profile: Profile, library: &Library) -> Self {
        Self { profile, key: library.secret("de-identification") }
    }
}

/// Gives a file its verdict and keeps it: under its series, or aside with the reason. Nothing is
/// dropped. The receiver and the import of folders have the same verdicts.
///
/// # Errors
/// Where the storage is full or fails; nothing is half kept.
pub fn keep(
    library: &Library,
    bytes: &[u8],
    source: &Source,
    deidentifier: Option<&Deidentifier>,
) -> Result<Kept, LibraryError> {
    match verdict(bytes.into(), deidentifier) {
        Ok((key, bytes)) => library.store_instance(&key, source, &bytes).map(Kept::Stored),
        Err(refusal) => set_aside(library, bytes, refusal, source),
    }
}

/// What a file is, and the bytes of it that are kept: as it came, or without its patient.
fn verdict<'a>(
    bytes: Cow<'a, [u8]>,
    deidentifier: Option<&Deidentifier>,
) -> Result<(InstanceKey, Cow<'a, [u8]>), Refusal> {
    let Some(by) = deidentifier else { return Ok((key(inspect(&bytes)?), bytes)) };
    // Refused for what it is, and not for what is left of it.
    inspect(&bytes)?;
    let clean = deidentify(&bytes, &by.profile, &by.key)?;
    Ok((key(inspect(&clean)?), Cow::Owned(clean)))
}

fn set_aside(
    library: &Library,
    bytes: &[u8],
    refusal: Refusal,
    source: &Source,
) -> Result<Kept, LibraryError> {
    let reason = refusal.reason.to_string();
    library.quarantine(bytes, &reason, &refusal.sentence, source)?;
    Ok(Kept::Quarantined { reason, sentence: refusal.sentence })
}

pub(crate) fn key(instance: Instance) -> InstanceKey {
    InstanceKey {
        patient_id: instance.patient_id,
        study_uid: instance.study_uid,
        series_uid: instance.series_uid,
        sop_instance_uid: instance.sop_instance_uid,
        sop_class_uid: instance.sop_class_uid,
        modality: instance.modality,
        transfer_syntax_uid: instance.transfer_syntax_uid,
        rows: instance.rows,
        columns: instance.columns,
        frames: instance.frames,
    }
}
