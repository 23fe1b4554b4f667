//! Messages to a process of `PyTorch` and back: the length of a JSON header (4 bytes, little
//! endian), the header, and the arrays that it names, one after the other.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::LearningError;
use crate::weights::Parameter;

/// Bytes of a header: a network's arrays have some hundred names.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Numbers of an array: 4 GiB.
const VALUES_MAX: usize = 1 << 30;

/// An array as it is sent.
pub(super) enum Array<'a> {
    F32(&'a [usize], &'a [f32]),
    U8(&'a [usize], &'a [u8]),
}

/// One process of `PyTorch`.
pub(super) struct Link {
    stream: UnixStream,
}

/// What a header says beside what the message is for.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    arrays: Vec<(String, String, Vec<usize>)>,
    error: Option<String>,
    #[serde(default)]
    sentence: String,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Sends a message with arrays.
    pub(super) fn send(
        &mut self,
        mut header: Value,
        arrays: &[(&str, Array<'_>)],
    ) -> Result<(), LearningError> {
        let named = arrays.iter().map(|(name, array)| match array {
            Array::F32(shape, _) => json!([name, "f32", shape]),
            Array::U8(shape, _) => json!([name, "u8", shape]),
        });
        header["arrays"] = named.collect();
        let text = header.to_string();
        let mut send = || -> io::Result<()> {
            self.stream.write_all(&(text.len() as u32).to_le_bytes())?;
            self.stream.write_all(text.as_bytes())?;
            for (_, array) in arrays {
                match array {
                    Array::F32(_, values) => {
                        // In pieces: the arrays of a large network need no copy of their own.
                        for piece in values.chunks(1 << 16) {
                            let bytes: Vec<u8> =
                                piece.iter().flat_map(|value| value.to_le_bytes()).collect();
                            self.stream.write_all(&bytes)?;
                        }
                    }
                    Array::U8(_, values) => self.stream.write_all(values)?,
                }
            }
            Ok(())
        };
        match send() {
            // It may have said why before it ended.
            Err(error) => Err(self.receive().err().unwrap_or_else(|| gone(&error))),
            Ok(()) => Ok(()),
        }
    }

    /// Waits for a message: its header, and its arrays by name.
    pub(super) fn receive(&mut self) -> Result<(Value, Vec<(String, Parameter)>), LearningError> {
        let mut length = [0; 4];
        self.exactly(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > HEADER_BYTES_MAX {
            return Err(strange(&format!("a header of {length} bytes")));
        }
        let mut text = vec![0; length];
        self.exactly(&mut text)?;
        let header: Value =
            serde_json::from_slice(&text).map_err(|error| strange(&error.to_string()))?;
        let head = Head::deserialize(&header).map_err(|error| strange(&error.to_string()))?;
        match head.error.as_deref() {
            Some("memory") => {
                let advice = "set a smaller batch_size or input_size";
                return Err(LearningError::Engine(format!("{}; {advice}", head.sentence)));
            }
            Some(_) => return Err(LearningError::Engine(format!("PyTorch: {}", head.sentence))),
            None => {}
        }
        let mut arrays = Vec::with_capacity(head.arrays.len());
        for (name, kind, shape) in head.arrays {
            let count = shape.iter().try_fold(1_usize, |all, side| all.checked_mul(*side));
            let count = count.filter(|count| *count <= VALUES_MAX && kind == "f32");
            let Some(count) = count else {
                return Err(strange(&format!("an array of {kind} {shape:?}")));
            };
            let mut bytes = vec![0; 4 * count];
            self.exactly(&mut bytes)?;
            let values = bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
            arrays.push((name, Parameter { shape, values }));
        }
        Ok((header, arrays))
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), LearningError> {
        self.stream.read_exact(bytes).map_err(|error| gone(&error))
    }
}

fn gone(error: &io::Error) -> LearningError {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) {
        return LearningError::Engine(
            "a process of PyTorch has ended; its output says why, and the same run goes on from its \
             last checkpoint"
                .into(),
        );
    }
    LearningError::Engine(format!("the process of PyTorch cannot be reached: {error}"))
}

fn strange(what: &str) -> LearningError {
    LearningError::Engine(format!("PyTorch's process says what gantry does not understand: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, UnixStream) {
        let (own, its) = UnixStream::pair().unwrap();
        (Link::new(own), its)
    }

    fn answer(bytes: &[u8]) -> String {
        let (mut link, mut its) = pair();
        its.write_all(bytes).unwrap();
        drop(its);
        link.receive().unwrap_err().to_string()
    }

    fn framed(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn arrays_come_back_as_they_were_sent() {
        let (mut link, its) = pair();
        let values: Vec<f32> = (0..200_000).map(|value| value as f32 / 7.0).collect();
        let mut other = Link::new(its);
        let shape = [2, 100_000];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                link.send(json!({"kind": "x"}), &[("a.b", Array::F32(&shape, &values))]).unwrap();
            });
            let (header, arrays) = other.receive().unwrap();
            assert_eq!(header["kind"], "x");
            let expected = Parameter { shape: shape.to_vec(), values: values.clone() };
            assert_eq!(arrays, [("a.b".to_owned(), expected)]);
        });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bytes, part) in [
            (Vec::new(), "has ended"),
            (vec![0xff; 8], "a header of"),
            (framed("{]"), "does not understand"),
            (framed(r#"{"error":"memory","sentence":"too small"}"#), "smaller batch_size"),
            (framed(r#"{"error":"other","sentence":"ValueError: x"}"#), "PyTorch: ValueError: x"),
            (framed(r#"{"arrays":[["a","f32",[4294967296,4294967296]]]}"#), "an array of"),
            (framed(r#"{"arrays":[["a","f64",[1]]]}"#), "an array of f64"),
            (framed(r#"{"arrays":[["a","f32",[9]]]}"#), "has ended"),
        ] {
            let sentence = answer(&bytes);
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
