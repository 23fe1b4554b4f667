//! The end of a journal that is lost or damaged: what was acknowledged is never silently gone.

use super::*;

/// Files by name.
type Files = Vec<(&'static str, Vec<u8>)>;

/// What a killed process leaves of a journal of eight batches and a grant: each file with its bytes.
fn killed() -> (Files, Vec<(At, Event)>) {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let expected: Vec<(At, Event)> = (0..24).map(|n| (At(n), event(n))).collect();
    for batch in expected.chunks(3) {
        store.append(&records(batch)).unwrap();
    }
    let grant = Grant { role: None, revoked: true, void: At(9), since: At(9), by: "ada".into() };
    store.keep_grant(&Principal::Node("cpu-1".into()), &grant).unwrap();
    let read = |name| (name, fs::read(folder.path().join(name)).unwrap());
    (vec![read("journal.sqlite"), read("journal.sqlite-wal"), read("journal.head")], expected)
}

/// Starts from files; gives the events where the start is not refused, and holds that the grant is
/// there too.
fn start_from(files: &[(&str, Vec<u8>)]) -> Result<Vec<(At, Event)>, SchedulerError> {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let mut store = Store::open(folder.path())?;
    let events = all(&mut store)?;
    assert_eq!(store.grants().unwrap().len(), 1, "an access that was taken away is back");
    Ok(events)
}

#[test]
fn a_log_that_is_torn_at_any_byte_is_not_taken_for_a_shorter_one() {
    let (mut files, expected) = killed();
    assert_eq!(start_from(&files).unwrap(), expected);
    let whole = files[1].1.clone();
    let mut refused = 0;
    for length in (0..whole.len()).step_by(499) {
        files[1].1 = whole[..length].to_vec();
        match start_from(&files) {
            Ok(found) => assert_eq!(found, expected, "cut at {length}"),
            Err(error) => {
                let sentence = error.to_string();
                assert!(sentence.contains("was acknowledged"), "cut at {length}: {sentence}");
                refused += 1;
            }
        }
    }
    assert!(refused > 50, "{refused} were refused");
}

#[test]
fn a_bit_of_the_log_that_is_another_loses_nothing_silently() {
    let (mut files, expected) = killed();
    let whole = files[1].1.clone();
    let (mut refused, mut harmless) = (0, 0);
    for place in (0..whole.len()).step_by(331) {
        files[1].1 = whole.clone();
        files[1].1[place] ^= 1 << (place % 8);
        match start_from(&files) {
            Ok(found) => {
                assert_eq!(found, expected, "byte {place}");
                harmless += 1;
            }
            Err(_) => refused += 1,
        }
    }
    eprintln!("{refused} flipped bits were refused, {harmless} did nothing");
    assert!(refused > 50, "{refused} were refused");
}

#[test]
fn an_end_that_was_acknowledged_waits_for_a_repair_which_says_what_is_given_up() {
    let (mut files, _) = killed();
    // The grant and a batch or two.
    let shorter = files[1].1.len() - 8 * 4120;
    files[1].1.truncate(shorter);
    let folder = TempDir::new().unwrap();
    for (name, bytes) in &files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let report = check(folder.path()).unwrap();
    assert!(report.damage.unwrap().contains("everything up to block 25 was acknowledged"));
    let repaired = repair(folder.path()).unwrap();
    let blocks = 25 - repaired.cut;
    assert!(blocks > 3 && repaired.cut > 0 && repaired.events == blocks, "{repaired:?}");
    assert_eq!(check(folder.path()).unwrap().damage, None);
    let mut store = Store::open(folder.path()).unwrap();
    assert_eq!(all(&mut store).unwrap().len() as u64, repaired.events);
    store.append(&records(&[(At(99), event(1))])).unwrap();
    drop(store);
    assert_eq!(check(folder.path()).unwrap().damage, None);
}
