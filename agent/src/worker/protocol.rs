//! What an agent and its worker say to each other, over the worker's standard input and output.
//!
//! A message is its length in four bytes, little endian, and the encoded value.

use std::io::{self, Read, Write};

use gantry_model::{Builtin, Exit, TaskId};
use gantry_wire::codec::{self, VALUE_BYTES_MAX};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Carry out an operation; its lines go to the end of this file.
    Run {
        /// The task.
        task: TaskId,
        /// The operation.
        builtin: Builtin,
        /// The output file.
        output: String,
    },
    /// End the operation soon, keeping what can be kept.
    Stop,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// It is there.
    Ready,
    /// The operation has ended.
    Done(Exit),
}

/// Writes a message.
pub(crate) fn write<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let bytes = codec::encode(message).map_err(io::Error::other)?;
    to.write_all(&(bytes.len() as u32).to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
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
