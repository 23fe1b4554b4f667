//! A message on a stream: a header of twelve bytes, then the encoded value.
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | magic `GY` |
//! | 2 | codec, 1 |
//! | 3 | kind of message |
//! | 4..8 | length of the value, little endian, at most [`VALUE_BYTES_MAX`] |
//! | 8..12 | CRC-32 of the value |
//!
//! The length is checked before a byte of the value is read, so a peer can make us hold no more
//! than one value.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, VALUE_BYTES_MAX};
use crate::error::WireError;
use crate::message;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 12;

/// Bytes that most messages stay below, with their header.
const USUAL_BYTES: usize = 512;

const MAGIC: [u8; 2] = *b"GY";
const CODEC: u8 = 1;

/// A value that may stand in a frame. The kind tells messages apart whose bytes could be taken
/// for one another.
pub trait Message: Serialize + DeserializeOwned {
    /// The kind; never given to two types and never used again.
    const KIND: u8;
}

macro_rules! kinds {
    ($($kind:literal $type:ident),* $(,)?) => {
        $(impl Message for message::$type { const KIND: u8 = $kind; })*
        /// Every kind with its name, for tests and traces.
        pub const KINDS: &[(u8, &str)] = &[$(($kind, stringify!($type))),*];
    };
}

kinds! {
    1 Greeting, 2 Verdict, 3 AgentMessage, 4 SchedulerMessage, 5 Request, 6 Reply,
    // 7 was a picture.
    8 NodeRequest, 9 NodeReply, 10 JoinRequest, 11 JoinReply, 12 RenewRequest, 13 Step,
    14 Invitation,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of message.
    pub kind: u8,
    /// Bytes of the value.
    pub length: usize,
    checksum: u32,
}

/// Encodes a message with its header.
pub fn write<T: Message>(message: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.resize(HEADER_BYTES, 0);
    codec::append(message, &mut bytes)?;
    let (header, value) = bytes.split_at_mut(HEADER_BYTES);
    header[..2].copy_from_slice(&MAGIC);
    header[2..4].copy_from_slice(&[CODEC, T::KIND]);
    header[4..8].copy_from_slice(&(value.len() as u32).to_le_bytes());
    header[8..].copy_from_slice(&crc32fast::hash(value).to_le_bytes());
    Ok(bytes)
}

/// Reads a header, before anything of the value is read.
pub fn header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
    let [m0, m1, codec, kind, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
    if [m0, m1] != MAGIC || codec != CODEC {
        return Err(WireError::NotOurs);
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > VALUE_BYTES_MAX {
        return Err(WireError::TooLong { length, limit: VALUE_BYTES_MAX });
    }
    Ok(Header { kind, length, checksum: u32::from_le_bytes([c0, c1, c2, c3]) })
}

/// Reads the value that belongs to a header.
pub fn value<T: Message>(header: Header, bytes: &[u8]) -> Result<T, WireError> {
    if header.kind != T::KIND {
        return Err(WireError::WrongKind { expected: T::KIND, found: header.kind });
    }
    if header.checksum != crc32fast::hash(bytes) {
        return Err(WireError::Checksum);
    }
    codec::decode(bytes)
}

/// Reads a message that takes all of `bytes`, as a datagram does.
pub fn read<T: Message>(bytes: &[u8]) -> Result<T, WireError> {
    let (head, rest) = bytes.split_first_chunk().ok_or(WireError::NotOurs)?;
    value(header(head)?, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Peer, Request, Verdict};
    use gantry_model::JobId;
    use proptest::prelude::*;

    #[test]
    fn every_kind_has_a_number_of_its_own() {
        for (n, (kind, name)) in KINDS.iter().enumerate() {
            assert!(KINDS[..n].iter().all(|(other, _)| other != kind), "{name}");
        }
    }

    #[test]
    fn damage_is_named() {
        let good = write(&Request::Job { job: JobId(7) }).unwrap();
        assert_eq!(read::<Request>(&good).unwrap(), Request::Job { job: JobId(7) });
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        for (bytes, error) in [
            (with(0, b'X'), WireError::NotOurs),
            (with(2, 9), WireError::NotOurs),
            (with(3, 6), WireError::WrongKind { expected: 5, found: 6 }),
            (with(HEADER_BYTES, 99), WireError::Checksum),
            (good[..5].to_vec(), WireError::NotOurs),
        ] {
            assert_eq!(read::<Request>(&bytes), Err(error));
        }
        let endless = with(7, 0xff);
        assert!(matches!(read::<Request>(&endless), Err(WireError::TooLong { .. })));
    }

    #[test]
    fn the_bytes_of_the_first_messages_never_change() {
        // A greeting and a verdict are read before versions are agreed: their bytes are for ever.
        let greeting = message::Greeting {
            peer: Peer::Agent,
            version_min: 1,
            version_max: 1,
            software: "0.1.0".into(),
        };
        assert_eq!(codec::encode(&greeting).unwrap(), [0, 1, 1, 5, b'0', b'.', b'1', b'.', b'0']);
        let verdict = Verdict::Welcome { version: 1, cluster: "c".into(), at: gantry_model::At(2) };
        assert_eq!(codec::encode(&verdict).unwrap(), [0, 1, 1, b'c', 2]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = read::<Request>(&bytes);
        }
    }
}
