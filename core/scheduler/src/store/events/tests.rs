//! The event log: what is found, page by page, what is kept, and what a crash leaves of it.

use std::path::Path;

use gantry_cluster::{Cluster, ClusterSettings, Effect, Event};
use gantry_model::Machine;
use gantry_wire::{Reply, codec, frame};
use tempfile::TempDir;

use super::*;
use crate::store::record;

fn note(at: u64, level: Level, subject: Subject, sentence: &str) -> Note {
    Note { at: At(at), level, subject, sentence: sentence.into() }
}

/// A log of so many lines, ten a second, about a few nodes and jobs.
fn lines(count: u64) -> Vec<Note> {
    let line = |n: u64| {
        let subject = match n % 5 {
            0 => Subject::Cluster,
            1 => Subject::Node(format!("cpu-{}", n % 3)),
            2 => Subject::Job(JobId(n % 7)),
            3 => Subject::Task(JobId(n % 7).task((n % 2) as u32)),
            _ => Subject::Node("gpu-1".into()),
        };
        note(n * 100, LEVELS[(n % 11 / 3) as usize], subject, &format!("line {n} of the log"))
    };
    (1..=count).map(line).collect()
}

fn filled(folder: &Path, notes: &[Note]) -> Store {
    let mut store = Store::open(folder).unwrap();
    for some in notes.chunks(100) {
        store.keep_after(&[], some, At(0)).unwrap();
    }
    store
}

/// Every page of a question, from the end back or from the beginning on.
fn pages(store: &Store, query: &NoteQuery, forward: bool) -> Vec<NoteRow> {
    let place = if forward { NotePlace::Behind(0) } else { NotePlace::Newest };
    let mut query = NoteQuery { place, ..query.clone() };
    let mut all: Vec<NoteRow> = Vec::new();
    loop {
        let page = store.notes(&query).unwrap();
        frame::write(&Reply::Notes(page.clone())).unwrap();
        if forward {
            all.extend(page.rows);
            query.place = NotePlace::Behind(page.last);
        } else {
            all.splice(0..0, page.rows);
            query.place = NotePlace::Before(page.first);
        }
        if !page.more {
            return all;
        }
    }
}

/// Whether a line is one that a question asks for.
type Wanted = fn(&Note) -> bool;

#[test]
fn every_question_finds_all_of_its_lines_once_in_order_from_both_ends() {
    let folder = TempDir::new().unwrap();
    let notes = lines(25_000);
    let store = filled(folder.path(), &notes);
    let all = NoteQuery::default;
    let table: [(NoteQuery, Wanted); 12] = [
        (all(), |_| true),
        (NoteQuery { from: Some(At(2_000_000)), ..all() }, |note| note.at >= At(2_000_000)),
        (NoteQuery { until: Some(At(150)), ..all() }, |note| note.at < At(150)),
        (NoteQuery { from: Some(At(700)), until: Some(At(900)), ..all() }, |note| {
            (At(700)..At(900)).contains(&note.at)
        }),
        (NoteQuery { from: Some(At(u64::MAX)), ..all() }, |_| false),
        (NoteQuery { until: Some(At(0)), ..all() }, |_| false),
        (NoteQuery { least: Some(Level::Fail), ..all() }, |note| note.level == Level::Fail),
        (NoteQuery { subject: Some(Subject::Node("cpu-2".into())), ..all() }, |note| {
            note.subject == Subject::Node("cpu-2".into())
        }),
        (NoteQuery { subject: Some(Subject::Job(JobId(3))), ..all() }, |note| match note.subject {
            Subject::Job(job) => job == JobId(3),
            Subject::Task(task) => task.job == JobId(3),
            _ => false,
        }),
        (NoteQuery { subject: Some(Subject::Task(JobId(3).task(1))), ..all() }, |note| {
            note.subject == Subject::Task(JobId(3).task(1))
        }),
        (NoteQuery { subject: Some(Subject::Cluster), ..all() }, |note| {
            note.subject == Subject::Cluster
        }),
        (NoteQuery { text: Some("line 77".into()), ..all() }, |note| {
            note.sentence.starts_with("line 77")
        }),
    ];
    for (query, wanted) in table {
        let expected: Vec<&Note> = notes.iter().filter(|note| wanted(note)).collect();
        for forward in [false, true] {
            let found = pages(&store, &query, forward);
            assert_eq!(
                found.iter().map(|row| &row.note).collect::<Vec<_>>(),
                expected,
                "{query:?}"
            );
            assert!(found.windows(2).all(|two| two[0].number < two[1].number), "{query:?}");
        }
    }
    assert_eq!(store.newest_notes(1000).unwrap(), notes[24_000..]);
}

#[test]
fn whoever_follows_sees_each_line_once_and_looks_at_no_line_twice() {
    let folder = TempDir::new().unwrap();
    let notes = lines(300);
    let mut store = Store::open(folder.path()).unwrap();
    let loud = NoteQuery { least: Some(Level::Warn), ..NoteQuery::default() };
    let mut last = store.notes(&loud).unwrap().last;
    assert_eq!(last, 0, "the log is empty");
    let mut seen = Vec::new();
    for (n, some) in notes.chunks(3).enumerate() {
        store.keep_after(&[], some, At(0)).unwrap();
        let place = NotePlace::Behind(last);
        let page = store.notes(&NoteQuery { place, ..loud.clone() }).unwrap();
        assert_eq!((page.more, page.last), (false, n as u64 * 3 + 3));
        seen.extend(page.rows.into_iter().map(|row| row.note));
        last = page.last;
    }
    let expected = notes.iter().filter(|note| note.level >= Level::Warn).cloned();
    assert_eq!(seen, expected.collect::<Vec<_>>());
    // A log that was put back from a backup is behind what was seen: it is followed from its end.
    let place = NotePlace::Behind(9000);
    let page = store.notes(&NoteQuery { place, ..loud }).unwrap();
    assert_eq!((page.rows.len(), page.last, page.more), (0, 300, false));
}

#[test]
fn a_page_of_the_longest_lines_fits_a_frame() {
    let folder = TempDir::new().unwrap();
    let wide = "\u{1F9EA}".repeat(SENTENCE_CHARACTERS_MAX + 9);
    let notes: Vec<Note> = (0..50)
        .map(|_| note(u64::MAX >> 1, Level::Fail, Subject::Node("n".repeat(64)), &wide))
        .collect();
    let store = filled(folder.path(), &notes);
    let rows = pages(&store, &NoteQuery::default(), true);
    assert_eq!(rows.len(), 50);
    assert!(rows.iter().all(|row| row.note.sentence.chars().count() == SENTENCE_CHARACTERS_MAX));
    let page = store.notes(&NoteQuery::default()).unwrap();
    assert!(page.more && page.rows.len() < 50);
    assert!(codec::encode(&page).unwrap().len() < VALUE_BYTES_MAX);
}

#[test]
fn the_oldest_give_way_in_small_steps_and_numbers_go_on() {
    let kept = |lines, age| Retention { lines, age, ..Retention::default() };
    for (retention, now, kept) in [
        (kept(1000, Millis(0)), 0, 1000),
        (kept(1000, Millis(5_000)), 500_000, 51),
        (kept(1_000_000, Millis(100_000)), 500_000, 1001),
        (kept(1_000_000, Millis(1)), 900_000, 1),
        (kept(1_000_000, Millis(0)), 900_000, 5000),
    ] {
        let folder = TempDir::new().unwrap();
        let mut store = filled(folder.path(), &lines(5000));
        let count = |store: &Store| -> i64 {
            let sql = "SELECT count(*) FROM notes";
            store.database.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        store.retain(retention);
        let mut before = count(&store);
        loop {
            store.keep_after(&[], &[], At(now)).unwrap();
            let after = count(&store);
            assert!(before - after <= PRUNE_STEP, "{before} to {after}");
            if after == before {
                break;
            }
            before = after;
        }
        assert_eq!(before, kept, "{retention:?}");
        let rows = pages(&store, &NoteQuery::default(), true);
        assert_eq!((rows.len() as i64, rows.last().unwrap().number), (kept, 5000));
        assert_eq!(pages(&store, &NoteQuery::default(), false), rows);
        drop(store);
        let mut store = Store::open(folder.path()).unwrap();
        store.keep_after(&[], &[note(0, Level::Info, Subject::Cluster, "next")], At(0)).unwrap();
        let page =
            store.notes(&NoteQuery { place: NotePlace::Behind(5000), ..NoteQuery::default() });
        let NotePage { rows, last, .. } = page.unwrap();
        assert_eq!((rows[0].number, last, rows[0].note.sentence.as_str()), (5001, 5001, "next"));
        assert_eq!(rows[0].note.at, At(500_000), "time in the log does not go back");
    }
}

/// A cluster that takes nodes up and down, with or without what follows from its last events.
fn story(folder: &Path, kept: usize) -> Vec<Note> {
    let mut store = Store::open(folder).unwrap();
    let mut cluster = Cluster::new(ClusterSettings::default());
    let mut all = Vec::new();
    for n in 0..12 {
        let facts = gantry_model::NodeFacts {
            name: format!("cpu-{}", n / 2),
            roles: vec![gantry_model::Role::Cpu],
            resources: gantry_model::Resources { cores: 1, ..Default::default() },
            ..Default::default()
        };
        let event = if n % 2 == 0 {
            Event::NodeUp { facts: Box::new(facts), holds: Vec::new() }
        } else {
            Event::NodeDown { node: facts.name }
        };
        let (at, mut effects) = (At(n * 10), Vec::new());
        store.append(&[(at, record(&event).unwrap())]).unwrap();
        cluster.apply(at, event, &mut effects);
        let notes: Vec<Note> = effects
            .into_iter()
            .filter_map(|effect| if let Effect::Note(note) = effect { Some(note) } else { None })
            .collect();
        if (n as usize) < kept {
            store.keep_after(&[], &notes, at).unwrap();
        }
        all.extend(notes);
    }
    all
}

#[tokio::test]
async fn lines_that_a_crash_took_are_made_again_from_the_journal_and_none_twice() {
    for kept in [0, 1, 5, 11, 12] {
        let folder = TempDir::new().unwrap();
        let expected = story(folder.path(), kept);
        assert!(expected.len() >= 12, "the story has lines: {expected:?}");
        for _ in 0..2 {
            let settings = ClusterSettings::default();
            let core = crate::core::start(
                folder.path(),
                settings,
                Retention::default(),
                gantry_model::Millis(0),
                None,
            )
            .unwrap()
            .core;
            let page = core.notes(NoteQuery::default()).await.unwrap();
            let count = expected.len();
            let found: Vec<&Note> = page.rows.iter().take(count).map(|row| &row.note).collect();
            assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{kept} were kept");
            assert_eq!(core.board().notes.newest(1000)[..count], expected, "{kept} were kept");
            core.stop().await;
        }
    }
}

#[test]
fn a_repair_keeps_the_lines() {
    let folder = TempDir::new().unwrap();
    let expected = story(folder.path(), 12);
    let store = Store::open(folder.path()).unwrap();
    store.database.execute("UPDATE events SET payload = x'00' WHERE seq = 8", []).unwrap();
    drop(store);
    assert_eq!(crate::store::repair(folder.path()).unwrap().cut, 5);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.newest_notes(1000).unwrap(), expected, "what happened stays said");
}

#[tokio::test]
async fn a_session_s_line_is_kept_without_anything_else_happening() {
    let folder = TempDir::new().unwrap();
    let settings = ClusterSettings::default();
    let core = crate::core::start(
        folder.path(),
        settings.clone(),
        Retention::default(),
        gantry_model::Millis(0),
        None,
    )
    .unwrap()
    .core;
    for n in 0..500 {
        core.note(Level::Note, Subject::Cluster, format!("session line {n}"));
    }
    let query = NoteQuery { text: Some("session line".into()), ..NoteQuery::default() };
    let page = core.notes(query.clone()).await.unwrap();
    assert_eq!(page.rows.len(), 500);
    core.stop().await;
    let core = crate::core::start(
        folder.path(),
        settings,
        Retention::default(),
        gantry_model::Millis(0),
        None,
    )
    .unwrap()
    .core;
    assert_eq!(core.notes(query).await.unwrap().rows, page.rows);
    core.stop().await;
}
