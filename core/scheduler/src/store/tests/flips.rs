//! Bits of a scheduler's files that are others. What is decided from is right, or the start is refused with
//! the file and what to do. Of the history and the event log, which only serve people and are too long to
//! be read at each start, a row may be missing; a check says so.

use gantry_model::{JobId, JobRow, Level, Note, Reject, Subject};
use gantry_wire::{HistoryQuery, NoteQuery};

use super::*;

/// Flips of each file, spread by this.
const SEED: u64 = 20_261_130;
const FLIPS: usize = 1500;

/// The next place, by the multiplier of Knuth's MMIX.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 20
}

fn user(name: &str) -> Principal {
    Principal::User(name.into())
}

fn history_row(n: u64) -> JobRow {
    let (job, ended) = (JobId(n), Some(At(n * 10)));
    JobRow { job, ended, user: "ada".into(), kind: "train".into(), ..JobRow::default() }
}

fn note(n: u64) -> Note {
    let (at, level) = (At(n * 10), Level::Info);
    Note { at, level, subject: Subject::Job(JobId(n)), sentence: format!("line {n}") }
}

/// Everything that a start takes over, and what people ask for.
#[derive(Debug, PartialEq, Eq)]
struct State {
    events: Vec<(At, Event)>,
    grants: Vec<(Principal, Grant)>,
    history: Vec<JobRow>,
    notes: Vec<Note>,
    /// A token that is good, one that was used, one that nobody has made.
    tokens: [Result<(), Reject>; 3],
}

fn filled(folder: &std::path::Path) {
    let mut store = Store::open(folder).unwrap();
    let events: Vec<(At, Event)> = (0..60).map(|n| (At(n), event(n))).collect();
    for batch in events.chunks(6) {
        store.append(&records(batch)).unwrap();
    }
    for n in 0..12 {
        let role = (n % 3 != 0).then_some(PersonRole::Viewer);
        let (revoked, by) = (role.is_none(), "operator".to_owned());
        let grant = Grant { role, revoked, void: At(n), since: At(n), by };
        store.keep_grant(&user(&format!("person-{n}")), &grant).unwrap();
    }
    for hash in ["good", "used", "other"] {
        store.add_token(hash, &user("ada"), At(0), At(100)).unwrap();
    }
    store.redeem("used", &user("ada"), At(1)).unwrap().unwrap();
    let rows: Vec<JobRow> = (1..=30).map(history_row).collect();
    let notes: Vec<Note> = (1..=30).map(note).collect();
    store.keep_after(&rows, &notes, At(0)).unwrap();
}

fn state(folder: &std::path::Path) -> Result<State, SchedulerError> {
    let mut store = Store::open(folder)?;
    let (events, grants) = (all(&mut store)?, store.grants()?);
    let history = store.history(&HistoryQuery::default(), 100)?.0;
    let notes = store.notes(&NoteQuery::default())?.rows;
    let notes = notes.into_iter().map(|row| row.note).collect();
    let mut redeem = |hash| store.redeem(hash, &user("ada"), At(2));
    let tokens = [redeem("good")?, redeem("used")?, redeem("none")?];
    Ok(State { events, grants, history, notes, tokens })
}

#[test]
fn bits_that_are_others_are_refused_or_change_nothing() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    // Closed as a scheduler that ends: all is in one file.
    let names = ["journal.sqlite", "journal.head"];
    let files = names.map(|name| fs::read(folder.path().join(name)).unwrap());
    let truth = state(folder.path()).unwrap();
    assert!(truth.tokens[0].is_ok() && truth.tokens[1].is_err() && truth.grants.len() == 12);
    let mut chance = SEED;
    for (which, name) in names.iter().enumerate() {
        let (mut refused, mut harmless, mut said) = (0, 0, 0);
        for _ in 0..FLIPS {
            let bit = next(&mut chance) as usize % (files[which].len() * 8);
            let folder = TempDir::new().unwrap();
            for (other, bytes) in names.iter().zip(&files) {
                let mut bytes = bytes.clone();
                if other == name {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                fs::write(folder.path().join(other), bytes).unwrap();
            }
            let why = format!("bit {bit} of {name}, seed {SEED}");
            match state(folder.path()) {
                Ok(found) if found == truth => harmless += 1,
                Ok(found) => {
                    let (history, notes) = (truth.history.clone(), truth.notes.clone());
                    let changed = found.notes.len() == notes.len() && found.history == history;
                    let is_said = |note: &Note| note.sentence.contains("is damaged");
                    assert!(!changed || found.notes.iter().any(is_said), "{why}: {found:?}");
                    assert_eq!(State { history, notes, ..found }, truth, "{why}");
                    assert!(check(folder.path()).unwrap().damage.is_some(), "{why}: unnoticed");
                    said += 1;
                }
                Err(error) => {
                    let sentence = error.to_string();
                    let names_file = sentence.contains("journal.sqlite");
                    assert!(names_file && sentence.contains("repair"), "{why}: {sentence}");
                    refused += 1;
                }
            }
        }
        eprintln!(
            "{name}: {refused} refused, {harmless} harmless, {said} told by a line or a check"
        );
        let is_journal = which == 0;
        assert!(harmless > 0 && (refused > FLIPS / 20) == is_journal, "{name}: {refused} refused");
    }
}

#[test]
fn tables_that_say_who_may_do_what_are_held_against_their_seals() {
    for harm in [
        "UPDATE access SET role = 'administrator' WHERE name = 'person-1'",
        "UPDATE access SET revoked = 0 WHERE name = 'person-3'",
        "DELETE FROM access WHERE name = 'person-3'",
        "UPDATE access SET void = 1 WHERE name = 'person-6'",
        "UPDATE user_tokens SET used = 0 WHERE hash = 'used'",
        "UPDATE user_tokens SET expires = 999 WHERE hash = 'good'",
        "INSERT INTO tokens VALUES ('x', 'cpu-1', 999, 0)",
        "DELETE FROM seals WHERE name = 'access'",
    ] {
        let folder = TempDir::new().unwrap();
        filled(folder.path());
        let store = Store::open(folder.path()).unwrap();
        store.database.execute_batch(harm).unwrap();
        drop(store);
        let error = Store::open(folder.path()).err().map(|error| error.to_string());
        let said = error.unwrap_or_default();
        assert!(said.contains("is not as it was written"), "{harm}: {said:?}");
        let damage = check(folder.path()).unwrap().damage.unwrap();
        assert!(damage.contains("is not as it was written"), "{harm}: {damage}");
        // What a person has decided to go on with is sealed as it is.
        repair(folder.path()).unwrap();
        assert_eq!(check(folder.path()).unwrap().damage, None, "{harm}");
    }
}

#[test]
fn a_store_from_before_there_were_checksums_of_rows_is_understood() {
    let folder = TempDir::new().unwrap();
    filled(folder.path());
    let store = Store::open(folder.path()).unwrap();
    let old = "DROP TABLE seals; ALTER TABLE notes DROP COLUMN crc; \
         ALTER TABLE history DROP COLUMN crc";
    store.database.execute_batch(old).unwrap();
    drop(store);
    let found = state(folder.path()).unwrap();
    assert_eq!((found.grants.len(), found.history.len(), found.notes.len()), (12, 30, 30));
    let store = Store::open(folder.path()).unwrap();
    store.database.execute_batch("UPDATE access SET void = 7 WHERE name = 'person-3'").unwrap();
    drop(store);
    assert!(Store::open(folder.path()).is_err(), "it is sealed from then on");
}
