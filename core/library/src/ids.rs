//! Ids: hashes, so that no name tells of a patient and the same content has the same id.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::LibraryError;

/// Hexadecimal digits of an id: 64 bits, so that a million of them collide once in 10^7 libraries.
const ID_DIGITS: usize = 16;
/// Hexadecimal digits of an object's hash.
const HASH_DIGITS: usize = 64;

/// SHA-256 of parts, each with its length before it, in hexadecimal.
pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        if parts.len() > 1 {
            hasher.update((part.len() as u64).to_le_bytes());
        }
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $digits:expr, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[allow(dead_code)]
            pub(crate) fn of(parts: &[&[u8]]) -> Self {
                let mut text = sha256_hex(parts);
                text.truncate($digits);
                Self(text)
            }

            /// The hexadecimal digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id of such a number.
            #[allow(dead_code)]
            pub(crate) fn from_number(number: u64) -> Self {
                Self(format!("{number:0digits$x}", digits = $digits))
            }

            /// The first 16 digits as a number, in the same order as the ids.
            #[allow(dead_code)]
            pub(crate) fn number(&self) -> u64 {
                self.0.bytes().take(ID_DIGITS).fold(0, |number, digit| {
                    let value = if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
                    number << 4 | u64::from(value)
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = LibraryError;

            fn from_str(text: &str) -> Result<Self, LibraryError> {
                let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                if text.len() == $digits && text.bytes().all(hex) {
                    return Ok(Self(text.to_owned()));
                }
                Err(LibraryError::Invalid(format!(
                    "{text:?} is not the id of a {}; it has {} hexadecimal digits", $kind, $digits
                )))
            }
        }

        impl TryFrom<String> for $name {
            type Error = LibraryError;

            fn try_from(text: String) -> Result<Self, LibraryError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

id!(
    /// A series, by its UID and the library's salt.
    SeriesId, ID_DIGITS, "series"
);
id!(
    /// A patient, by the id in the images and the library's salt.
    PatientKey, ID_DIGITS, "patient"
);
id!(
    /// A sample, by its content.
    SampleId, ID_DIGITS, "sample"
);
id!(
    /// A model, by its weights and what is said of it.
    ModelId, ID_DIGITS, "model"
);
id!(
    /// A prediction, by its series, model and mask.
    PredictionId, ID_DIGITS, "prediction"
);
id!(
    /// A text, by its series and content.
    TextId, ID_DIGITS, "text"
);
id!(
    /// Bytes, by their SHA-256.
    ObjectHash, HASH_DIGITS, "object"
);

id!(
    /// A shard of prepared samples, by what it was made of.
    ShardId, ID_DIGITS, "shard"
);

impl ObjectHash {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let digit =
            |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
        let (pairs, _) = self.0.as_bytes().as_chunks::<2>();
        pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_nothing_else_does() {
        let id = SeriesId::of(&[b"salt", b"1.2.3"]);
        assert_eq!(id.to_string().parse::<SeriesId>().unwrap(), id);
        assert_eq!(SeriesId::from_number(id.number()), id);
        assert_ne!(id, SeriesId::of(&[b"sal", b"t1.2.3"]), "parts do not run into one another");
        for text in ["", "..", "../../etc/passwd", "ABCDEF0123456789", "0123456789abcde"] {
            assert!(text.parse::<SeriesId>().is_err(), "{text}");
        }
    }
}
