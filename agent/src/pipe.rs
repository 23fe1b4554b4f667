//! Messages over a pipe or a local socket: between the agent, its workers and its supervisor.
//!
//! A message is its length in four bytes, little endian, and the encoded value, written at once.
//! One that is longer than a value may be is refused on both sides.

use std::io::{self, Read, Write};

use gantry_wire::codec::{self, VALUE_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a message.
pub(crate) fn write<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&frame(message)?)?;
    to.flush()
}

/// The bytes of a message.
pub(crate) fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let value = codec::encode(message).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&value);
    Ok(bytes)
}

/// Whether bytes begin with a whole message.
pub(crate) fn holds_message(bytes: &[u8]) -> bool {
    let whole =
        |(length, rest): (&[u8; 4], &[u8])| u32::from_le_bytes(*length) as usize <= rest.len();
    bytes.split_first_chunk().is_some_and(whole)
}

/// Reads a message; nothing where the other end has closed.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > VALUE_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes is over the limit")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    codec::decode(&bytes).map(Some).map_err(io::Error::other)
}
