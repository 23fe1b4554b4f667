//! Records: JSON with a version and the hash of its content.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LibraryError;
use crate::files::{self, Made};
use crate::ids::sha256_hex;

/// The version of every record.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    sha256: String,
    record: Value,
}

/// Creates a record unless one of its name is there.
pub(crate) fn create<T: Serialize>(path: &Path, record: &T) -> Result<Made, LibraryError> {
    let invalid = |error: serde_json::Error| {
        LibraryError::Invalid(format!("a record cannot be written: {error}"))
    };
    let record = serde_json::to_value(record).map_err(invalid)?;
    let envelope = Envelope { version: VERSION, sha256: hash(&record), record };
    let mut bytes = serde_json::to_vec_pretty(&envelope).map_err(invalid)?;
    bytes.push(b'\n');
    files::create(path, &bytes)
}

/// Reads a record and checks it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, LibraryError> {
    let bytes = files::read(path)?;
    let envelope: Envelope = serde_json::from_slice(&bytes)
        .map_err(|error| LibraryError::damaged(path, error.to_string()))?;
    if envelope.version > VERSION {
        let path = path.to_owned();
        return Err(LibraryError::Newer { path, found: envelope.version, known: VERSION });
    }
    if hash(&envelope.record) != envelope.sha256 {
        return Err(LibraryError::damaged(path, "its content does not have the hash it claims"));
    }
    serde_json::from_value(envelope.record)
        .map_err(|error| LibraryError::damaged(path, error.to_string()))
}

/// Reads every record of a folder, in the order of their names.
pub(crate) fn read_all<T: DeserializeOwned>(folder: &Path) -> Result<Vec<T>, LibraryError> {
    let paths = files::list(folder)?;
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| read(path))
        .collect()
}

/// The hash of a value. Its keys are sorted, so that equal values have equal hashes.
fn hash(value: &Value) -> String {
    sha256_hex(&[value.to_string().as_bytes()])
}
