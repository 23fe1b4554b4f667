//! What a command prints: a table, one JSON value, or ids only. The only module that writes to
//! standard output.
//!
//! A reader that goes away (`gantry queue | head -1`) ends the command silently. Text that came
//! from users is cleaned of control characters before a terminal sees it.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthChar;

use crate::error::{Failure, Outcome};

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

/// Text with its control characters made visible, so that a name cannot steer a terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('?'),
            '\x7f' => '\u{2421}',
            c if c.is_control() => '?',
            // Marks that reorder a line would let a name pretend to be another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            c => c,
        })
        .collect()
}

/// The columns that `text` takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// A table: a heading and rows, columns as wide as their widest cell. The last column is ragged.
#[must_use]
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let clean_rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = clean_rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
            cells.chain([width(heading[column])]).max().unwrap_or(0)
        })
        .collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, column) in cells.zip(&widths) {
            row.push_str(cell);
            row.extend(std::iter::repeat_n(' ', column - width(cell) + 2));
        }
        row.trim_end().to_owned()
    };
    let mut lines = vec![print(&mut heading.iter().copied())];
    lines.extend(clean_rows.iter().map(|row| print(&mut row.iter().map(String::as_str))));
    lines.join("\n")
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
    fn a_table_never_breaks() {
        let rows = vec![
            vec!["j1".into(), "胸部CT".into(), "run".into()],
            vec!["j2".into(), "evil\x1b[2J\nname".into(), "wait".into()],
        ];
        let text = table(&["JOB", "NAME", "STATE"], &rows);
        assert!(!text.contains('\x1b'), "{text}");
        let column = |line: &str, word: &str| width(&line[..line.find(word).unwrap()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(column(lines[0], "STATE"), column(lines[1], "run"));
        assert_eq!(column(lines[0], "STATE"), column(lines[2], "wait"));
    }
}
