//! Commands on a library: import, send, list, similar cases. They work on the shared storage
//! itself, without the scheduler: what they read never travels there.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gantry_agent::ingest::send::{self, Peer};
use gantry_agent::{import, ingest};
use gantry_imaging::dicom::deidentify::Profile;
use gantry_library::{Library, SeriesId};
use serde_json::{Value, json};

use super::client::resolve;
use super::completions;
use super::secure::Secure;
use super::texts;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Which library a command works on.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The library's folder on the shared storage.
    #[arg(long, env = "GANTRY_LIBRARY", value_name = "DIR")]
    pub library: PathBuf,
}

impl Place {
    /// Opens the library.
    ///
    /// # Errors
    /// Where there is none in that folder.
    pub fn open(&self) -> Result<Library, Failure> {
        Library::open(&self.library).map_err(Failure::usage_of)
    }

    /// The folder as a job names it: absolute, since a task runs elsewhere.
    ///
    /// # Errors
    /// Where it does not exist.
    pub fn folder(&self) -> Result<String, Failure> {
        let folder = self.library.canonicalize().map_err(|error| {
            Failure::usage(format!(
                "finding the library {} failed: {error}",
                self.library.display()
            ))
        })?;
        Ok(folder.display().to_string())
    }
}

/// `gantry import`.
#[derive(Debug, Args)]
pub struct Import {
    #[command(flatten)]
    place: Place,
    /// Take patients out of the images first (DICOM PS3.15 annex E, basic profile), with options by
    /// their codes, as 113107,113108; 113100 for none.
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    deidentify: Option<Vec<u32>>,
    /// A private element that stays, as GGGG,CREATOR,EE; may be repeated. Needs option 113111.
    #[arg(long, value_name = "ELEMENT", requires = "deidentify")]
    keep_private: Vec<String>,
    /// A folder, or a file.
    path: PathBuf,
}

impl Import {
    /// Carries it out. Every file gets a verdict; none is dropped. Exits with 1 where a file could
    /// not even be read.
    ///
    /// # Errors
    /// Where the path cannot be read or the library not written.
    pub fn run(&self, format: Format) -> Outcome {
        // A new folder is synced into the one above it, which a relative name need not have.
        let folder = std::path::absolute(&self.place.library)?;
        let library = Library::open_or_create(&folder).map_err(Failure::trouble)?;
        let mut seen = 0_u64;
        let deidentifier = self.deidentify.as_ref().map(|codes| {
            let profile = Profile::new(codes, &self.keep_private).map_err(Failure::usage)?;
            Ok::<_, Failure>(ingest::Deidentifier::new(profile, &library))
        });
        let deidentifier = deidentifier.transpose()?;
        let report = import::import(&library, &self.path, deidentifier.as_ref(), &mut |_| {
            seen += 1;
            if seen.is_multiple_of(500) {
                output::progress(&format!("{seen} files"));
            }
        })
        .map_err(Failure::trouble)?;
        let people = || {
            let mut lines = vec![format!(
                "{} stored, {} known already, {} conflicts, {} quarantined",
                report.stored,
                report.same,
                report.conflicts,
                report.quarantined.len()
            )];
            lines.extend(
                report.quarantined.iter().map(|file| format!("{}: {}", file.reason, file.sentence)),
            );
            lines.extend(
                report
                    .unread
                    .iter()
                    .map(|file| format!("! {}: {}", file.file.display(), file.sentence)),
            );
            lines.join("\n")
        };
        format.print("import", &report, people, String::new)?;
        Ok(u8::from(!report.unread.is_empty()))
    }
}

/// `gantry send`.
#[derive(Debug, Args)]
pub struct Send {
    /// The receiver, as HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// The receiver's AE title.
    #[arg(long, default_value = "GANTRY")]
    called: String,
    /// Our AE title.
    #[arg(long, default_value = "SCANNER")]
    calling: String,
    #[command(flatten)]
    secure: Secure,
    /// A folder, or a file.
    path: PathBuf,
}

impl Send {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the path cannot be read or the receiver does not answer.
    pub fn run(&self, format: Format) -> Outcome {
        let address = resolve(&self.to)?;
        let peer = Peer {
            tls: self.secure.tls(&self.to)?,
            ..Peer::plain(address, &self.calling, &self.called)
        };
        let files = read_files(&self.path)?;
        let mut refused = 0_u64;
        send::send(&peer, &files, &mut |status| {
            if status != 0 {
                refused += 1;
            }
        })
        .map_err(Failure::trouble)?;
        let sent = files.len() as u64 - refused;
        let value = json!({ "sent": sent, "refused": refused });
        format.print("sent", &value, || format!("{sent} sent, {refused} refused"), String::new)?;
        Ok(u8::from(refused > 0))
    }
}

/// Every regular file below a path, in a stable order.
fn read_files(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let fail = |error: std::io::Error| {
        Failure::trouble(format!("reading {} failed: {error}", path.display()))
    };
    if path.is_file() {
        return Ok(vec![std::fs::read(path).map_err(fail)?]);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        names.push(entry.map_err(fail)?.path());
    }
    names.sort();
    let mut files = Vec::new();
    for name in names {
        files.extend(read_files(&name)?);
    }
    Ok(files)
}

/// A record as a list: a line for each of its fields.
pub(super) fn list_of(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let row = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name:<12} {}", output::clean(&text))
    };
    fields.map(row).collect::<Vec<_>>().join("\n")
}

/// What `gantry data` lists.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Counts of everything.
    Counts,
    /// Series.
    Series,
    /// Samples.
    Samples,
    /// Models.
    Models,
    /// Predictions.
    Predictions,
    /// Who has written of which series; the words are not among it.
    Texts,
    /// Files set aside, with their reasons.
    Quarantine,
    /// Check every hash and reference.
    Verify,
}

/// `gantry data`.
#[derive(Debug, Args)]
pub struct Data {
    #[command(flatten)]
    place: Place,
    /// What to list.
    #[arg(value_enum, default_value = "counts")]
    what: What,
}

impl Data {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the library cannot be read.
    pub fn run(&self, format: Format) -> Outcome {
        let library = self.place.open()?;
        let rows: Vec<Value> = match self.what {
            What::Counts => vec![values(library.counts())?],
            What::Series => each(library.series())?,
            What::Samples => samples(&library)?,
            What::Models => each(library.models())?,
            What::Predictions => each(library.predictions())?,
            What::Texts => each(library.texts())?,
            What::Quarantine => each(library.quarantined())?,
            What::Verify => vec![values(library.verify())?],
        };
        format.print("data", &rows, || records(&rows), || ids(&rows))?;
        Ok(0)
    }
}

/// Samples with their states.
fn samples(library: &Library) -> Result<Vec<Value>, Failure> {
    let mut rows = Vec::new();
    for sample in library.samples().map_err(Failure::trouble)? {
        let state = library.sample_state(&sample).map_err(Failure::trouble)?.state;
        let mut row = serde_json::to_value(&sample).map_err(Failure::trouble)?;
        row["state"] = json!(state);
        rows.push(row);
    }
    Ok(rows)
}

pub(super) fn values<T: serde::Serialize, E: ToString>(
    value: Result<T, E>,
) -> Result<Value, Failure> {
    serde_json::to_value(value.map_err(Failure::trouble)?).map_err(Failure::trouble)
}

fn each<T: serde::Serialize, E: ToString>(rows: Result<Vec<T>, E>) -> Result<Vec<Value>, Failure> {
    let rows = rows.map_err(Failure::trouble)?;
    rows.iter().map(|row| serde_json::to_value(row).map_err(Failure::trouble)).collect()
}

fn ids(rows: &[Value]) -> String {
    rows.iter().filter_map(|row| row["id"].as_str()).collect::<Vec<_>>().join("\n")
}

/// The fields that a table begins with, in this order; the others follow by name.
const FIRST: [&str; 7] = ["id", "name", "series", "patient", "label", "state", "reason"];
/// Digits of a hash that a person needs to tell it from another.
const HASH_SHOWN: usize = 12;

/// A table of records: a column for each plain field of the first one.
fn records(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else { return "nothing there".into() };
    let plain = |value: &Value| !value.is_object() && !value.is_array();
    let mut fields: Vec<&String> =
        first.iter().filter(|(_, value)| plain(value)).map(|(name, _)| name).collect();
    let place = |name: &str| FIRST.iter().position(|one| *one == name).unwrap_or(FIRST.len());
    fields.sort_by_key(|name| (place(name), name.as_str()));
    let heading: Vec<String> = fields.iter().map(|name| name.to_uppercase()).collect();
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    let cell = |value: &Value| match value {
        Value::String(text) if text.len() == 64 => text.chars().take(HASH_SHOWN).collect(),
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.2}", number.as_f64().unwrap_or(0.0))
        }
        other => other.to_string(),
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| fields.iter().map(|name| cell(&row[name.as_str()])).collect())
        .collect();
    output::table(&heading, &rows)
}

/// `gantry similar`.
#[derive(Debug, Args)]
pub struct Similar {
    #[command(flatten)]
    place: Place,
    /// The series, which must have been predicted.
    #[arg(required_unless_present = "text", conflicts_with = "text", add = completions::series())]
    series: Option<String>,
    /// Series that are written of with these words instead, the best first (BM25).
    #[arg(long, value_name = "WORDS")]
    text: Option<String>,
    /// How many.
    #[arg(long, short = 'k', default_value_t = 5)]
    count: usize,
}

impl Similar {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the series was never predicted, there are no words, or the library cannot be read.
    pub fn run(&self, format: Format) -> Outcome {
        let library = self.place.open()?;
        if let Some(words) = &self.text {
            return texts::like(&library, words, self.count, format);
        }
        let series = self.series.as_deref().unwrap_or_default();
        let series: SeriesId = series.parse().map_err(Failure::usage_of)?;
        let prediction = library.prediction_of(&series).map_err(|error| {
            Failure::usage(format!("{error}; gantry predict {series} makes one"))
        })?;
        let nearest = library.nearest(&prediction, self.count).map_err(Failure::trouble)?;
        let people = || {
            let row = |near: &gantry_library::Neighbour| {
                vec![
                    near.series.to_string(),
                    format!("{:.4}", near.distance),
                    near.findings.to_string(),
                ]
            };
            output::table(
                &["SERIES", "DISTANCE", "FINDINGS"],
                &nearest.iter().map(row).collect::<Vec<_>>(),
            )
        };
        let quiet =
            || nearest.iter().map(|near| near.series.to_string()).collect::<Vec<_>>().join("\n");
        format.print("similar", &nearest, people, quiet)?;
        Ok(0)
    }
}
