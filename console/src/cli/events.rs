//! The event log: `gantry events`, once, followed, or written to a file.
//!
//! The scheduler answers in pages, and says with each how far it has looked: whoever follows asks
//! for what lies behind, and so sees every line once, also when the scheduler was away in between.

mod export;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use gantry_model::{JobId, Level, Subject};
use gantry_wire::{NotePage, NotePlace, NoteQuery, NoteRow, Reply, Request};
use serde_json::{Value, json};

use super::client::{Client, Patience, Reach, unexpected};
use super::{completions, time};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Between two looks at an event log that is followed.
const FOLLOW_EACH: Duration = Duration::from_millis(500);
/// Lines that are printed where nothing is said.
const LIMIT: usize = 200;

/// `gantry events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only what happened since then: 2h ago, or 2026-11-24, also with T18:00.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what happened before then.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what matters so much or more.
    #[arg(long, value_enum)]
    level: Option<Least>,
    /// Only what is about this node.
    #[arg(long, conflicts_with = "job", add = completions::nodes())]
    node: Option<String>,
    /// Only what is about this job and its tasks, or about one task: j12, j12.3.
    #[arg(long, value_parser = subject, add = completions::jobs())]
    job: Option<Subject>,
    /// Only lines that hold this text, as it stands.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// At most so many of the newest lines, 0 for all; 200 where nothing is said.
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "export")]
    limit: Option<usize>,
    /// Print further lines as they come, until interrupted; with --json one value a line.
    #[arg(long, short, conflicts_with_all = ["until", "export"])]
    follow: bool,
    /// Write every line to a file, - for standard output; with --json one value a line.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

/// How much a line matters at least.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Least {
    /// The normal course of work.
    Info,
    /// What an operator did.
    Note,
    /// Odd, nothing lost.
    Warn,
    /// A person must act.
    Fail,
}

impl Least {
    const fn level(self) -> Level {
        match self {
            Self::Info => Level::Info,
            Self::Note => Level::Note,
            Self::Warn => Level::Warn,
            Self::Fail => Level::Fail,
        }
    }
}

/// A job or a task, as people write it.
fn subject(text: &str) -> Result<Subject, String> {
    let found = if text.contains('.') {
        text.parse().map(Subject::Task)
    } else {
        text.parse::<JobId>().map(Subject::Job)
    };
    found.map_err(|reject| reject.sentence)
}

/// One way to ask the scheduler.
type Ask<'a> = dyn FnMut(&Request) -> Result<Reply, Failure> + 'a;

impl Events {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a time cannot be read, the scheduler is not there, or a file cannot be written.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let query = self.query()?;
        let client = Client::connect(cluster.clone())?;
        if let Some(path) = &self.export {
            return export::run(path, &query, format, &mut |request| client.ask(request));
        }
        let limit = self.limit.unwrap_or(LIMIT);
        let (rows, last) = newest(&query, limit, &mut |request| client.ask(request))?;
        if self.follow {
            print(&rows, format)?;
            let patience = Patience::new(cluster);
            return Follower { client, patience, query, last, format }.run();
        }
        let value: Vec<Value> = rows.iter().map(row_value).collect();
        format.print("events", &value, || table(&rows), || lines(&rows, format))?;
        Ok(0)
    }

    /// What is asked for.
    fn query(&self) -> Result<NoteQuery, Failure> {
        let now = time::now();
        let point =
            |text: &Option<String>| text.as_deref().map(|text| time::back(text, now)).transpose();
        let (from, until) = (point(&self.since)?, point(&self.until)?);
        if let (Some(from), Some(until)) = (from, until)
            && from >= until
        {
            return Err(Failure::usage(
                "nothing lies between --since and --until; --since is the earlier one",
            ));
        }
        Ok(NoteQuery {
            from,
            until,
            least: self.level.map(Least::level),
            subject: self.node.clone().map(Subject::Node).or_else(|| self.job.clone()),
            text: self.grep.clone(),
            place: NotePlace::Newest,
        })
    }
}

fn page(query: &NoteQuery, place: NotePlace, ask: &mut Ask) -> Result<NotePage, Failure> {
    match ask(&Request::Notes { query: NoteQuery { place, ..query.clone() } })? {
        Reply::Notes(page) => Ok(page),
        other => Err(unexpected(&other)),
    }
}

/// The newest lines, oldest first, and the number behind which further ones will lie.
fn newest(query: &NoteQuery, limit: usize, ask: &mut Ask) -> Result<(Vec<NoteRow>, u64), Failure> {
    let NotePage { rows, mut first, last, mut more } = page(query, NotePlace::Newest, ask)?;
    // Newest first, until there are enough.
    let mut all: Vec<NoteRow> = rows.into_iter().rev().collect();
    while more && (limit == 0 || all.len() < limit) {
        let older = page(query, NotePlace::Before(first), ask)?;
        all.extend(older.rows.into_iter().rev());
        (first, more) = (older.first, older.more);
    }
    if limit > 0 {
        all.truncate(limit);
    }
    all.reverse();
    Ok((all, last))
}

/// Every line behind a number, page by page, and the number behind which further ones will lie.
fn behind(
    query: &NoteQuery,
    mut last: u64,
    ask: &mut Ask,
    take: &mut dyn FnMut(&[NoteRow]) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    loop {
        let found = page(query, NotePlace::Behind(last), ask)?;
        take(&found.rows)?;
        last = found.last;
        if !found.more {
            return Ok(last);
        }
    }
}

/// Prints lines as they come, also over a restart of the scheduler.
struct Follower {
    client: Client,
    patience: Patience,
    query: NoteQuery,
    /// What was seen already.
    last: u64,
    format: Format,
}

impl Follower {
    fn run(mut self) -> Outcome {
        loop {
            std::thread::sleep(FOLLOW_EACH);
            let client = &self.client;
            let place = NotePlace::Behind(self.last);
            match page(&self.query, place, &mut |request| client.ask(request)) {
                Ok(page) => {
                    print(&page.rows, self.format)?;
                    self.last = page.last;
                    self.patience.content();
                }
                Err(failure) => {
                    if let Some(again) = self.patience.call_again(failure)? {
                        self.client = again;
                    }
                }
            }
        }
    }
}

fn print(rows: &[NoteRow], format: Format) -> Result<(), Failure> {
    output::text(&lines(rows, format))
}

/// Lines that stand for themselves, each with a newline behind it but the last.
fn lines(rows: &[NoteRow], format: Format) -> String {
    rows.iter().map(|row| line(row, format)).collect::<Vec<_>>().join("\n")
}

fn line(row: &NoteRow, format: Format) -> String {
    match format {
        Format::Json => row_value(row).to_string(),
        Format::Quiet => row.number.to_string(),
        Format::Table => {
            let note = &row.note;
            let (time, word) = (time::stamp(note.at), note.level.word());
            let line =
                format!("{time}  {word:<5}  {:<8}  {}", note.subject.to_string(), note.sentence);
            output::clean(&line)
        }
    }
}

fn table(rows: &[NoteRow]) -> String {
    if rows.is_empty() {
        return "no line of the event log matches; ask with fewer conditions or more time".into();
    }
    let row = |row: &NoteRow| {
        vec![
            time::stamp(row.note.at),
            row.note.level.word().into(),
            row.note.subject.to_string(),
            row.note.sentence.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    output::table(&["TIME", "LEVEL", "SUBJECT", "WHAT"], &rows)
}

fn row_value(row: &NoteRow) -> Value {
    let note = &row.note;
    json!({
        "number": row.number,
        "at_ms": note.at.0,
        "level": note.level,
        "subject": note.subject.to_string(),
        "sentence": note.sentence,
    })
}

#[cfg(test)]
mod tests;
