//! Records: JSON with a version and the hash of its content.
//!
//! The hash is over the bytes of the file as they are, with zeros in the hash's own place: numbers
//! need not print as they were read for a record to be whole. Nothing is written that does not read
//! back, since one record that cannot be read would stand in the way of all.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LibraryError;
use crate::files::{self, Made};
use crate::ids::sha256_hex;
use crate::limits::RECORD_BYTES_MAX;

/// The version of every record.
const VERSION: u32 = 1;
/// What stands in the place of the hash while it is computed.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    sha256: String,
    record: Value,
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(record: &T) -> Result<Vec<u8>, LibraryError> {
    let invalid = |error: serde_json::Error| {
        LibraryError::Invalid(format!("a record cannot be kept, is a number infinite? {error}"))
    };
    let record = serde_json::to_value(record).map_err(invalid)?;
    let envelope = Envelope { version: VERSION, sha256: NO_HASH.to_owned(), record };
    let text = serde_json::to_string_pretty(&envelope).map_err(invalid)? + "\n";
    if text.len() > RECORD_BYTES_MAX {
        return Err(LibraryError::Invalid(format!(
            "a record of {} bytes is over the limit of {RECORD_BYTES_MAX}",
            text.len()
        )));
    }
    serde_json::from_value::<T>(envelope.record).map_err(invalid)?;
    let text = text.replacen(NO_HASH, &sha256_hex(&[text.as_bytes()]), 1);
    Ok(text.into_bytes())
}

/// Creates a file of a record unless one of its name is there.
pub(crate) fn create<T>(path: &Path, record: &T) -> Result<Made, LibraryError>
where
    T: Serialize + DeserializeOwned,
{
    files::create(path, &encode(record)?)
}

/// Reads a file of a record and checks it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, LibraryError> {
    decode(path, &files::read(path)?)
}

/// Checks the bytes of a record that lies in this place.
pub(crate) fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, LibraryError> {
    let envelope: Envelope = serde_json::from_slice(bytes)
        .map_err(|error| LibraryError::damaged(path, error.to_string()))?;
    if envelope.version > VERSION {
        let path = path.to_owned();
        return Err(LibraryError::Newer { path, found: envelope.version, known: VERSION });
    }
    let text = String::from_utf8_lossy(bytes).replacen(&envelope.sha256, NO_HASH, 1);
    if sha256_hex(&[text.as_bytes()]) != envelope.sha256 {
        return Err(LibraryError::damaged(path, "its content does not have the hash it claims"));
    }
    serde_json::from_value(envelope.record)
        .map_err(|error| LibraryError::damaged(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_print_unlike_they_were_read_do_not_damage_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        // Found by a training's metrics: without `float_roundtrip`, `serde_json` reads some numbers
        // one unit in the last place away from what it wrote.
        let numbers: Vec<f64> =
            (1..2000).map(|n| f64::from(1.0_f32 / n as f32)).chain([f64::MIN_POSITIVE]).collect();
        create(&path, &numbers).unwrap();
        let back: Vec<f64> = read(&path).unwrap();
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-15 * a.abs();
        assert!(back.iter().zip(&numbers).all(near));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("0.5", "0.6", 1)).unwrap();
        assert!(read::<Vec<f64>>(&path).is_err());
    }

    #[test]
    fn what_would_not_read_back_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let error = create(&path, &vec![f64::NAN]).unwrap_err().to_string();
        assert!(error.contains("infinite") && !path.exists(), "{error}");
        let large = "x".repeat(RECORD_BYTES_MAX);
        assert!(create(&path, &large).unwrap_err().to_string().contains("over the limit"));
    }

    #[test]
    fn a_record_of_a_newer_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        create(&path, &1).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
        assert!(matches!(read::<u32>(&path), Err(LibraryError::Newer { found: 2, .. })));
    }
}
