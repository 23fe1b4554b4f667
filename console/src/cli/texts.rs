//! What people have written of series: kept with `gantry library text`, found with `gantry similar
//! --text`. A text tells of a patient: it is read from a file, printed to who asks, and named by its id
//! everywhere else.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use gantry_imaging::dicom::report_text;
use gantry_library::{Library, SeriesId, TextMatch, TextRecord};
use serde_json::json;

use super::completions;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Bytes of a file that are read: more than the library keeps, so that it says its own limit.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// `gantry library text`.
#[derive(Debug, Args)]
pub(super) struct Text {
    /// The series that it is written of.
    #[arg(add = completions::series())]
    series: String,
    /// The file with it: plain text, or a structured report of DICOM; without one the texts of the
    /// series are printed.
    #[arg(requires = "by")]
    file: Option<PathBuf>,
    /// Who has written it.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl Text {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the series is unknown, the file cannot be read, or the library fails.
    pub(super) fn run(&self, library: &Library, format: Format) -> Outcome {
        let series: SeriesId = self.series.parse().map_err(Failure::usage_of)?;
        let Some(file) = &self.file else { return show(library, &series, format) };
        let text = read(file)?;
        let by = self.by.as_deref().unwrap_or_default();
        let id = library.add_text(&series, &text, by).map_err(Failure::usage_of)?;
        let value = json!({ "id": id, "series": series });
        format.print("text", &value, || format!("text {id} kept"), || id.to_string())?;
        Ok(0)
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read =
        File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        Failure::usage(format!("reading {} failed: {error}; name a text file", file.display()))
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{} is larger than {FILE_BYTES_MAX} bytes; name a file with the report alone",
            file.display()
        )));
    }
    if bytes.get(128..132) == Some(b"DICM") {
        return report_text(&bytes).map_err(|refusal| {
            Failure::usage(format!(
                "{} cannot be read: {refusal}; name a structured report or a text file",
                file.display()
            ))
        });
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::usage(format!(
            "{} is no plain text in UTF-8; save the report as one, and name that",
            file.display()
        ))
    })
}

/// Prints the texts of a series, the oldest first.
fn show(library: &Library, series: &SeriesId, format: Format) -> Outcome {
    let mut own: Vec<TextRecord> = library.texts().map_err(Failure::trouble)?;
    own.retain(|text| text.series == *series);
    if own.is_empty() {
        // What is mistyped is another trouble than what has no text yet.
        library.series_record(series).map_err(Failure::usage_of)?;
    }
    own.sort_by(|a, b| a.created_ms.cmp(&b.created_ms).then_with(|| a.id.cmp(&b.id)));
    let mut rows = Vec::new();
    for record in &own {
        let text = library.text(record).map_err(Failure::trouble)?;
        rows.push(json!({
            "id": record.id, "by": record.by, "created_ms": record.created_ms, "text": text,
        }));
    }
    let people = || {
        let one = |row: &serde_json::Value| {
            let part = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let lines: Vec<String> = part("text").lines().map(output::clean).collect();
            format!("{} by {}\n{}", part("id"), output::clean(&part("by")), lines.join("\n"))
        };
        let texts: Vec<String> = rows.iter().map(one).collect();
        if texts.is_empty() { "nothing is written of it".into() } else { texts.join("\n\n") }
    };
    let ids = || own.iter().map(|text| text.id.to_string()).collect::<Vec<_>>().join("\n");
    format.print("texts", &rows, people, ids)?;
    Ok(0)
}

/// Prints the series that are written of with these words.
///
/// # Errors
/// Where there are no words, or the library fails.
pub(super) fn like(library: &Library, words: &str, count: usize, format: Format) -> Outcome {
    let found = library.texts_like(words, count).map_err(Failure::usage_of)?;
    let people = || {
        let row = |one: &TextMatch| {
            vec![one.series.to_string(), format!("{:.2}", one.score), output::clean(&one.extract)]
        };
        if found.is_empty() {
            return "no text has any of these words".into();
        }
        output::table(&["SERIES", "SCORE", "TEXT"], &found.iter().map(row).collect::<Vec<_>>())
    };
    let ids = || found.iter().map(|one| one.series.to_string()).collect::<Vec<_>>().join("\n");
    format.print("written", &found, people, ids)?;
    Ok(0)
}
