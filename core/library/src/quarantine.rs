//! What was set aside: bytes that are no instance, with the reason. Nothing that came is dropped.

use serde::{Deserialize, Serialize};

use crate::error::LibraryError;
use crate::ids::ObjectHash;
use crate::instances::Source;
use crate::root::{Library, now_ms};

/// A file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its bytes.
    pub object: ObjectHash,
    /// A stable word.
    pub reason: String,
    /// The sentence.
    pub sentence: String,
    /// How many bytes.
    pub bytes: u64,
    /// Where it came from.
    pub source: Source,
    /// When.
    pub at_ms: u64,
}

impl Library {
    /// Sets bytes aside with a reason. They are kept like everything else.
    ///
    /// # Errors
    /// Where the storage is full or fails.
    pub fn quarantine(
        &self,
        bytes: &[u8],
        reason: &str,
        sentence: &str,
        source: &Source,
    ) -> Result<(), LibraryError> {
        let object = self.put_object(bytes)?;
        let name = format!("quarantine/{object}.json");
        let record = Quarantined {
            object,
            reason: reason.to_owned(),
            sentence: sentence.to_owned(),
            bytes: bytes.len() as u64,
            source: source.clone(),
            at_ms: now_ms(),
        };
        self.records().create(&name, &record).map(|_| ())
    }

    /// Everything that was set aside.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, LibraryError> {
        self.records().read_all("quarantine")
    }
}
