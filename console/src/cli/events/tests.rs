//! The pages, lines and files of `gantry events`, against a log that is played.

use clap::Parser;
use gantry_model::{At, Note};

use super::*;

fn row(number: u64) -> NoteRow {
    let level = if number.is_multiple_of(10) { Level::Warn } else { Level::Info };
    let subject = Subject::Node("cpu-1".into());
    NoteRow { number, note: Note { at: At(number), level, subject, sentence: "so\x1b".into() } }
}

/// A log that looks at three lines at a time.
fn log(count: u64) -> impl FnMut(&Request) -> Result<Reply, Failure> {
    move |request| {
        let Request::Notes { query } = request else { panic!("{request:?}") };
        let (first, last, more) = match query.place {
            NotePlace::Newest => (count.saturating_sub(2).max(1), count, count > 3),
            NotePlace::Before(number) => {
                let last = number.saturating_sub(1);
                (last.saturating_sub(2).max(1), last, last > 3)
            }
            NotePlace::Behind(number) => (number + 1, count.min(number + 3), number + 3 < count),
        };
        let rows = (first..=last).map(row);
        let rows = rows.filter(|row| query.least.is_none_or(|least| row.note.level >= least));
        Ok(Reply::Notes(NotePage { rows: rows.collect(), first, last, more }))
    }
}

fn numbers(rows: &[NoteRow]) -> Vec<u64> {
    rows.iter().map(|row| row.number).collect()
}

#[test]
fn the_newest_lines_come_page_by_page_up_to_the_limit() {
    let loud = || NoteQuery { least: Some(Level::Warn), ..NoteQuery::default() };
    for (query, count, limit, expected) in [
        (NoteQuery::default(), 100, 7, (94..=100).collect()),
        (NoteQuery::default(), 100, 0, (1..=100).collect::<Vec<u64>>()),
        (NoteQuery::default(), 5, 200, (1..=5).collect()),
        (NoteQuery::default(), 0, 200, vec![]),
        (loud(), 95, 2, vec![80, 90]),
        (loud(), 95, 100, (1..=9).map(|n| n * 10).collect()),
    ] {
        let (rows, last) = newest(&query, limit, &mut log(count)).unwrap();
        assert_eq!((numbers(&rows), last), (expected, count), "{query:?} {limit}");
    }
}

#[test]
fn what_lies_behind_a_number_comes_once_and_in_order() {
    for (count, last) in [(100, 0), (100, 98), (100, 100), (0, 0)] {
        let mut found = Vec::new();
        let mut take = |rows: &[NoteRow]| {
            found.extend(numbers(rows));
            Ok(())
        };
        let end = behind(&NoteQuery::default(), last, &mut log(count), &mut take).unwrap();
        assert_eq!((found, end), ((last + 1..=count).collect(), count));
    }
}

#[test]
fn an_export_is_whole_or_not_there() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("log");
    let query = NoteQuery::default();
    for (format, part) in [
        (Format::Json, "{\"at_ms\":1,\"level\":\"info\",\"number\":1,"),
        (Format::Table, "  info   cpu-1     so\u{241b}\n"),
        (Format::Quiet, "1\n2\n3\n"),
    ] {
        assert_eq!(export::run(&path, &query, format, &mut log(10)), Ok(0));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 10, "{text}");
        assert!(text.contains(part), "{text}");
    }
    let mut left = 2;
    let mut breaks = |request: &Request| {
        left -= 1;
        if left > 0 { log(10)(request) } else { Err(Failure::trouble("gone")) }
    };
    let other = folder.path().join("other");
    assert!(export::run(&other, &query, Format::Json, &mut breaks).is_err());
    let nowhere = folder.path().join("none/log");
    let failure = export::run(&nowhere, &query, Format::Json, &mut log(10)).unwrap_err();
    assert!(failure.sentence.contains("name another file"), "{}", failure.sentence);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "only the whole export is there");
}

#[test]
fn command_lines_become_questions() {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        events: Events,
    }
    let parse = |text: &str| {
        let words = std::iter::once("events").chain(text.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.events.query().map_err(|failure| failure.sentence)
    };
    let all = NoteQuery::default;
    for (text, expected) in [
        ("", all()),
        ("--level warn", NoteQuery { least: Some(Level::Warn), ..all() }),
        ("--node cpu-1", NoteQuery { subject: Some(Subject::Node("cpu-1".into())), ..all() }),
        ("--job j7", NoteQuery { subject: Some(Subject::Job(JobId(7))), ..all() }),
        ("--job j7.2 -f", NoteQuery { subject: Some(Subject::Task(JobId(7).task(2))), ..all() }),
        ("--grep disk -n 0", NoteQuery { text: Some("disk".into()), ..all() }),
        ("--export -", all()),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
    for (text, part) in [
        ("--node cpu-1 --job j1", "cannot be used with"),
        ("--follow --until 2026-11-24", "cannot be used with"),
        ("--follow --export log", "cannot be used with"),
        ("--limit 5 --export log", "cannot be used with"),
        ("--job seven", "jobs look like j12"),
        ("--job j7.x", "tasks look like j12.3"),
        ("--level loud", "possible values"),
        ("--since noon", "is not a time that has passed"),
        ("--since 1h --until 2h", "--since is the earlier one"),
    ] {
        let sentence = parse(text).unwrap_err();
        assert!(sentence.contains(part), "{text}: {sentence}");
    }
}
