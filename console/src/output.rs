//! What a command prints: a table, one JSON value, or ids only. The only module that writes to
//! standard output.
//!
//! A reader that goes away (`gantry queue | head -1`) ends the command silently. Text that came
//! from users is cleaned of control characters before a terminal sees it ([`table`]).

mod table;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Failure, Outcome};
pub use table::{aligned, clean, columns, measure, table, width};

/// The version of every JSON value that is printed; it grows when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON value.
    Json,
    /// Ids only, one per line.
    Quiet,
}

impl Format {
    /// Prints one value as JSON with its schema, or a text made for people.
    ///
    /// # Errors
    /// Where standard output fails for another reason than a reader that left.
    pub fn print(
        self,
        kind: &str,
        value: &impl Serialize,
        people: impl FnOnce() -> String,
        quiet: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self {
            Self::Json => {
                let value = serde_json::to_value(value).map_err(Failure::trouble)?;
                line(&json!({ "schema": SCHEMA, "kind": kind, kind: value }).to_string())
            }
            Self::Table => text(&people()),
            Self::Quiet => text(&quiet()),
        }
    }

    /// Prints how a command failed, and gives its exit code.
    #[must_use]
    pub fn fail(self, failure: &Failure) -> u8 {
        if self == Self::Json {
            let error = json!({ "kind": failure.kind, "sentence": failure.sentence });
            let value: Value = json!({ "schema": SCHEMA, "kind": "error", "error": error });
            // Nothing more can be done where even this fails.
            let _ = line(&value.to_string());
        } else {
            complain(&failure.sentence);
        }
        failure.code
    }
}

/// Writes a line to standard error.
pub fn complain(sentence: &str) {
    // Standard error may be closed; the exit code still tells.
    let _ = writeln!(io::stderr(), "gantry: {}", clean(sentence));
}

/// Writes progress to standard error where a person is looking.
pub fn progress(sentence: &str) {
    if io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "{}", clean(sentence));
    }
}

/// Writes a line to standard output.
pub fn line(line: &str) -> Result<(), Failure> {
    raw(format!("{line}\n").as_bytes())
}

/// Writes text to standard output, with a newline at its end unless it is empty.
pub fn text(text: &str) -> Result<(), Failure> {
    if text.is_empty() { Ok(()) } else { line(text.trim_end_matches('\n')) }
}

/// Writes bytes to standard output as they are.
pub fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::trouble(format!("writing to standard output failed: {error}"))),
    }
}

/// What programs of users have written, on its way to standard output: byte for byte to a file or a
/// pipe, and cleaned to a terminal, which must not obey it.
#[derive(Debug)]
pub struct Foreign {
    is_terminal: bool,
    /// The first bytes of a character whose others have not come yet.
    rest: Vec<u8>,
}

impl Foreign {
    /// To what standard output is.
    #[must_use]
    pub fn new() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), rest: Vec::new() }
    }

    /// Writes a piece.
    ///
    /// # Errors
    /// Where standard output fails for another reason than a reader that left.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if !self.is_terminal {
            return raw(bytes);
        }
        self.rest.extend(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let rest = self.rest.split_off(whole);
        let whole = std::mem::replace(&mut self.rest, rest);
        raw(shown(&String::from_utf8_lossy(&whole)).as_bytes())
    }
}

impl Default for Foreign {
    fn default() -> Self {
        Self::new()
    }
}

/// Lines and tabs as they are, everything else that steers a terminal made visible.
fn shown(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(clean).collect::<Vec<_>>().join("\t");
    let lines = text.split('\n').map(|one| line(one.strip_suffix('\r').unwrap_or(one)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Turns an outcome into an exit code, after saying what failed.
#[must_use]
pub fn finish(format: Format, outcome: Outcome) -> std::process::ExitCode {
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => format.fail(&failure).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_programs_is_shown_and_not_obeyed() {
        for (text, expected) in [
            ("a\tb\r\nc\n", "a\tb\nc\n"),
            ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
            ("10 %\r20 %", "10 %␍20 %"),
            ("\x1b]52;c;AAAA\x07", "␛]52;c;AAAA␇"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn a_character_that_comes_in_two_pieces_is_one() {
        let mut foreign = Foreign { is_terminal: true, rest: Vec::new() };
        let bytes = "é".as_bytes();
        foreign.write(&bytes[..1]).unwrap();
        assert_eq!(foreign.rest, &bytes[..1]);
        foreign.write(&bytes[1..]).unwrap();
        assert!(foreign.rest.is_empty());
    }
}
