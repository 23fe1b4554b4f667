//! The event log to a file or to standard output, oldest line first, a page at a time.
//!
//! A file gets its name when it is whole: an export that is broken off never looks like one that
//! went through.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_wire::{NoteQuery, NoteRow};
use serde_json::json;

use super::{Ask, behind, lines};
use crate::cli::time;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Between two words about how far it is.
const PROGRESS_EACH: Duration = Duration::from_secs(1);

/// Writes every line that is asked for.
///
/// # Errors
/// Where the scheduler does not answer or the file cannot be written; then the file is not there.
pub(super) fn run(path: &Path, query: &NoteQuery, format: Format, ask: &mut Ask) -> Outcome {
    if path == Path::new("-") {
        let write = &mut |text: &str| output::text(text);
        let count = pages(query, format, ask, write)?;
        output::progress(&format!("{count} lines"));
        return Ok(0);
    }
    let count = to_file(path, query, format, ask)?;
    let value = json!({ "file": path.display().to_string(), "lines": count });
    let people = || format!("{count} lines are in {}", path.display());
    format.print("export", &value, people, String::new)?;
    Ok(0)
}

fn to_file(path: &Path, query: &NoteQuery, format: Format, ask: &mut Ask) -> Result<u64, Failure> {
    // A pipe or a device is written as it is.
    let whole = !path.exists() || path.is_file();
    let part = if whole { part(path) } else { path.to_owned() };
    let failed = |error: &io::Error| {
        Failure::trouble(format!(
            "writing the event log to {} failed: {error}; name another file or make room",
            path.display()
        ))
    };
    let file = File::create(&part).map_err(|error| failed(&error))?;
    let mut writer = BufWriter::new(file);
    let write = &mut |text: &str| {
        let end = if text.is_empty() { "" } else { "\n" };
        write!(writer, "{text}{end}").map_err(|error| failed(&error))
    };
    let written = pages(query, format, ask, write).and_then(|count| {
        let named = writer.flush().and_then(|()| {
            if !whole {
                return Ok(());
            }
            writer.get_ref().sync_all()?;
            std::fs::rename(&part, path)
        });
        named.map(|()| count).map_err(|error| failed(&error))
    });
    if written.is_err() && whole {
        // What is left of it helps nobody; where it stays, its name says so.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// The name of a file that is not whole yet.
fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Gives every page as text, and how many lines there were.
fn pages(
    query: &NoteQuery,
    format: Format,
    ask: &mut Ask,
    write: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let (mut count, mut told) = (0, Instant::now());
    let mut take = |rows: &[NoteRow]| {
        count += rows.len() as u64;
        if let Some(last) = rows.last()
            && told.elapsed() >= PROGRESS_EACH
        {
            told = Instant::now();
            output::progress(&format!("{count} lines, up to {}", time::stamp(last.note.at)));
        }
        write(&lines(rows, format))
    };
    behind(query, 0, ask, &mut take)?;
    Ok(count)
}
