//! Receiving images from scanners, and sending them as one.
//!
//! The only module that knows the DICOM network protocol. What arrives is kept as it came: the
//! data set's bytes behind a file meta group made from the negotiated context, never re-encoded.

mod command;
mod receive;
pub mod send;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gantry_imaging::dicom::{Instance, inspect};
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
    refused: AtomicU64,
}

impl Counters {
    pub(crate) fn read(self: &Arc<Self>) -> IngestCounts {
        IngestCounts {
            associations: self.associations.load(Ordering::Relaxed),
            associations_total: self.associations_total.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            quarantined: self.quarantined.load(Ordering::Relaxed),
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

/// Gives a file its verdict and keeps it: under its series, or aside with the reason. Nothing is
/// dropped. The receiver and the import of folders both come through here.
///
/// # Errors
/// Where the storage is full or fails; nothing is half kept.
pub fn keep(library: &Library, bytes: &[u8], source: &Source) -> Result<Kept, LibraryError> {
    match inspect(bytes) {
        Ok(instance) => library.store_instance(&key(instance), source, bytes).map(Kept::Stored),
        Err(refusal) => {
            let reason = refusal.reason.to_string();
            library.quarantine(bytes, &reason, &refusal.sentence, source)?;
            Ok(Kept::Quarantined { reason, sentence: refusal.sentence })
        }
    }
}

fn key(instance: Instance) -> InstanceKey {
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
