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

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::JobId;

    #[test]
    fn messages_come_back_and_damage_is_an_error() {
        let series = (0..300).map(|number| format!("s{number:015}")).collect();
        let builtin = Builtin::Predict { library: "l".into(), model: "run:a".into(), series };
        let task = JobId(7).task(0);
        let mut bytes = Vec::new();
        let run = ToWorker::Run { task, builtin: builtin.clone(), output: "o".into() };
        write(&mut bytes, &run).unwrap();
        write(&mut bytes, &ToWorker::Stop).unwrap();
        let mut from = bytes.as_slice();
        let Ok(Some(ToWorker::Run { task: read_task, builtin: read_builtin, .. })) =
            read(&mut from)
        else {
            panic!()
        };
        assert_eq!((read_task, read_builtin), (task, builtin));
        assert!(matches!(read(&mut from), Ok(Some(ToWorker::Stop))));
        assert!(matches!(read::<ToWorker>(&mut from), Ok(None)));
        for damaged in [&bytes[..bytes.len() / 2], &[0xff; 8], &[1, 0, 0, 0, 99]] {
            assert!(read::<ToWorker>(&mut &*damaged).is_err(), "{}", damaged.len());
        }
    }
}
