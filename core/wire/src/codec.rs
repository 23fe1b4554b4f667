//! Values to bytes and back. The only module that knows the encoding (bincode 2, standard
//! configuration: little endian, variable-length integers).
//!
//! A value never takes more than [`VALUE_BYTES_MAX`] encoded, neither on the wire nor in the
//! journal nor in a spool file. Decoding takes no more memory than [`DECODED_BYTES_MAX`], whatever a
//! length prefix claims, and refuses bytes that are left over.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WireError;

/// Bytes of one encoded value: a page of 200 jobs with names, nodes and reasons at their limits
/// stays below it, and 16 streams of a connection can hold one each within its 1 MiB window.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Bytes that a value may claim while it is decoded. An empty string takes one byte encoded and
/// claims nine, so that a value within [`VALUE_BYTES_MAX`] claims at most nine times as much: what
/// was encoded can always be decoded.
pub const DECODED_BYTES_MAX: usize = 16 * VALUE_BYTES_MAX;

// Every part is named, so that a change of the library's default cannot change the wire.
fn configuration() -> Configuration<LittleEndian, Varint, Limit<DECODED_BYTES_MAX>> {
    config::standard().with_little_endian().with_variable_int_encoding().with_limit()
}

/// Encodes a value.
///
/// # Errors
/// Where it is longer than [`VALUE_BYTES_MAX`], or cannot be encoded at all.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    append(value, &mut bytes)?;
    Ok(bytes)
}

/// Encodes a value behind what is in `bytes` already.
pub(crate) fn append<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), WireError> {
    let before = bytes.len();
    bincode::serde::encode_into_std_write(value, bytes, configuration())
        .map_err(|error| WireError::Encode(error.to_string()))?;
    let length = bytes.len() - before;
    if length > VALUE_BYTES_MAX {
        return Err(WireError::TooLong { length, limit: VALUE_BYTES_MAX });
    }
    Ok(())
}

/// Decodes a value that takes all of `bytes`.
///
/// # Errors
/// Where the bytes are malformed, too long, or more than the value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(WireError::TooLong { length: bytes.len(), limit: VALUE_BYTES_MAX });
    }
    let (value, consumed) = bincode::serde::decode_from_slice(bytes, configuration())
        .map_err(|error| WireError::Decode(error.to_string()))?;
    if consumed != bytes.len() {
        return Err(WireError::LeftOver { consumed, length: bytes.len() });
    }
    Ok(value)
}

/// Bytes of a snapshot of the whole cluster: a hundred thousand jobs with their commands.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

fn snapshot_configuration() -> Configuration<LittleEndian, Varint, Limit<SNAPSHOT_BYTES_MAX>> {
    config::standard().with_little_endian().with_variable_int_encoding().with_limit()
}

/// Encodes a snapshot, which never travels and may be longer than other values.
///
/// # Errors
/// Where it is longer than [`SNAPSHOT_BYTES_MAX`], or cannot be encoded at all.
pub fn encode_snapshot<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let bytes = bincode::serde::encode_to_vec(value, snapshot_configuration())
        .map_err(|error| WireError::Encode(error.to_string()))?;
    let (length, limit) = (bytes.len(), SNAPSHOT_BYTES_MAX);
    if length > limit { Err(WireError::TooLong { length, limit }) } else { Ok(bytes) }
}

/// Decodes a snapshot that takes all of `bytes`.
///
/// # Errors
/// Where the bytes are malformed, too long, or more than the value.
pub fn decode_snapshot<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (length, limit) = (bytes.len(), SNAPSHOT_BYTES_MAX);
    if length > limit {
        return Err(WireError::TooLong { length, limit });
    }
    let (value, consumed) = bincode::serde::decode_from_slice(bytes, snapshot_configuration())
        .map_err(|error| WireError::Decode(error.to_string()))?;
    if consumed == length { Ok(value) } else { Err(WireError::LeftOver { consumed, length }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_prefix_that_lies_is_refused_without_allocating() {
        // A vector that claims 2^60 elements in nine bytes.
        let mut bytes = vec![0xfd];
        bytes.extend((1_u64 << 60).to_le_bytes());
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(WireError::Decode(_))));
        assert!(matches!(decode::<Vec<String>>(&bytes), Err(WireError::Decode(_))));
    }

    #[test]
    fn what_is_left_over_or_too_long_is_refused() {
        let mut bytes = encode(&7_u32).unwrap();
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(WireError::LeftOver { .. })));
        assert!(matches!(encode(&vec![1_u8; VALUE_BYTES_MAX]), Err(WireError::TooLong { .. })));
        assert!(matches!(
            decode::<Vec<u8>>(&vec![0; VALUE_BYTES_MAX + 1]),
            Err(WireError::TooLong { .. })
        ));
    }

    #[test]
    fn whatever_can_be_encoded_can_be_decoded() {
        for (count, length) in [(7_300, 1), (32_000, 1), (60_000, 0), (300, 200)] {
            let value = vec!["x".repeat(length); count];
            let bytes = encode(&value).unwrap();
            assert_eq!(decode::<Vec<String>>(&bytes).unwrap(), value, "{count} of {length}");
        }
        let pairs: Vec<(String, Option<String>)> = vec![(String::new(), None); 30_000];
        assert_eq!(
            decode::<Vec<(String, Option<String>)>>(&encode(&pairs).unwrap()).unwrap(),
            pairs
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<crate::Request>(&bytes);
            let _ = decode::<crate::AgentMessage>(&bytes);
            let _ = decode::<crate::Update>(&bytes);
        }
    }
}
