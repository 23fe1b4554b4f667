//! The journal under restarts, damage and crashes.

use std::fs;

use gantry_cluster::{Cluster, ClusterSettings, Event};
use gantry_model::{
    Exit, JobSpec, Machine, MemoryMib, NodeFacts, Report, Resources, Role, TryId, Usage, Work,
};
use tempfile::TempDir;

use gantry_model::Principal;
use gantry_model::access::Role as PersonRole;

use super::*;
use crate::access::Grant;
use crate::core::Started;

mod copies;
mod ends;
mod flips;
mod golden;
mod history;

fn event(n: u64) -> Event {
    Event::NodeDown { node: format!("node-{n}") }
}

fn records(events: &[(At, Event)]) -> Vec<(At, Vec<u8>)> {
    events.iter().map(|(at, event)| (*at, record(event).unwrap())).collect()
}

fn all(store: &mut Store) -> Result<Vec<(At, Event)>, SchedulerError> {
    let mut events = Vec::new();
    store.replay(|_, _| {}, |_, at, event| events.push((at, event)))?;
    Ok(events)
}

#[test]
fn what_was_appended_is_there_after_a_restart_and_in_order() {
    let folder = TempDir::new().unwrap();
    let expected: Vec<(At, Event)> = (0..50).map(|n| (At(n), event(n))).collect();
    for batch in expected.chunks(7) {
        Store::open(folder.path()).unwrap().append(&records(batch)).unwrap();
    }
    assert_eq!(all(&mut Store::open(folder.path()).unwrap()).unwrap(), expected);
}

#[test]
fn events_of_one_moment_are_one_block_and_old_rows_are_understood() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let expected: Vec<(At, Event)> = (0..1000).map(|n| (At(n / 400), event(n))).collect();
    store.append(&records(&expected)).unwrap();
    let rows = |store: &Store| -> i64 {
        store.database.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(rows(&store), 3);
    assert_eq!(all(&mut store).unwrap(), expected);
    // As the first schedulers wrote them: one row an event.
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    for (n, (at, bytes)) in records(&expected[..5]).into_iter().enumerate() {
        let seq = n as i64 + 1;
        let insert =
            "INSERT INTO events (seq, at, format, crc, payload) VALUES (?1, ?2, 1, ?3, ?4)";
        let crc = checksum(seq, at, &bytes);
        store.database.execute(insert, rusqlite::params![seq, at.0 as i64, crc, bytes]).unwrap();
    }
    store.last = 5;
    assert_eq!(all(&mut store).unwrap(), expected[..5]);
}

#[test]
fn what_one_large_transaction_took_of_the_disk_is_given_back() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let log = folder.path().join(format!("{FILE}-wal"));
    let bytes = || fs::metadata(&log).unwrap().len();
    let large = Event::NodeDown { node: "n".repeat(1000) };
    store.append(&records(&vec![(At(1), large); 20_000])).unwrap();
    assert!(bytes() > 4 * u64::from(WAL_BYTES), "{}", bytes());
    for n in 0..10 {
        store.append(&records(&[(At(2), event(n))])).unwrap();
    }
    assert!(bytes() <= u64::from(WAL_BYTES), "{}", bytes());
}

#[test]
fn a_second_scheduler_is_refused_and_damage_is_named() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let events: Vec<(At, Event)> = (0..9).map(|n| (At(n), event(n))).collect();
    store.append(&records(&events)).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(SchedulerError::InUse { .. })));
    for (harm, part) in [
        ("UPDATE events SET at = 9 WHERE seq = 2", "block 2 has a wrong checksum"),
        ("UPDATE events SET crc = 'x' WHERE seq = 2", "block 2 cannot be read"),
        ("UPDATE events SET payload = x'00' WHERE seq = 2", "block 2 has a wrong checksum"),
        ("UPDATE events SET format = 99 WHERE seq = 3", "block 3 was written by a newer"),
        ("DELETE FROM events WHERE seq = 4", "block 4 is missing"),
        ("DELETE FROM events WHERE seq = 9", "block 9 is missing"),
        ("DELETE FROM events WHERE seq = 9; UPDATE events SET seq = 9 WHERE seq = 8", "block 8"),
    ] {
        store.database.execute_batch("SAVEPOINT whole").unwrap();
        store.database.execute_batch(harm).unwrap();
        let error = all(&mut store).unwrap_err().to_string();
        assert!(error.contains(part), "{harm}: {error}");
        store.database.execute_batch("ROLLBACK TO whole; RELEASE whole").unwrap();
    }
    assert_eq!(all(&mut store).unwrap(), events);
}

#[test]
fn a_crash_at_any_byte_of_the_log_leaves_whole_batches() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let expected: Vec<(At, Event)> = (0..24).map(|n| (At(n), event(n))).collect();
    for batch in expected.chunks(3) {
        store.append(&records(batch)).unwrap();
    }
    // As a killed process leaves them: the database and the log beside it.
    let base = fs::read(folder.path().join("journal.sqlite")).unwrap();
    let log = fs::read(folder.path().join("journal.sqlite-wal")).unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    for cut in (0..=log.len()).step_by(211).chain([log.len()]) {
        let crashed = TempDir::new().unwrap();
        fs::write(crashed.path().join("journal.sqlite"), &base).unwrap();
        fs::write(crashed.path().join("journal.sqlite-wal"), &log[..cut]).unwrap();
        let found = all(&mut Store::open(crashed.path()).unwrap()).unwrap();
        assert_eq!(found, expected[..found.len()], "cut at {cut}");
        assert_eq!(found.len() % 3, 0, "half a batch after a cut at {cut}");
        lengths.insert(found.len());
    }
    assert_eq!(lengths.len(), 9, "every number of batches was seen: {lengths:?}");
}

#[test]
fn a_changed_byte_is_never_taken_for_an_event() {
    let folder = TempDir::new().unwrap();
    let expected: Vec<(At, Event)> = (0..24).map(|n| (At(n), event(n))).collect();
    Store::open(folder.path()).unwrap().append(&records(&expected)).unwrap();
    let base = fs::read(folder.path().join("journal.sqlite")).unwrap();
    let (mut noticed, mut harmless) = (0, 0);
    for place in (0..base.len()).step_by(17) {
        let mut bytes = base.clone();
        bytes[place] ^= 0x10;
        let damaged = TempDir::new().unwrap();
        fs::write(damaged.path().join("journal.sqlite"), &bytes).unwrap();
        match Store::open(damaged.path()).and_then(|mut store| all(&mut store)) {
            // What is damaged at the very end is cut, and nothing is ever taken for what it is not.
            Ok(found) if found.len() < expected.len() => {
                assert_eq!(found, expected[..found.len()], "byte {place}");
                noticed += 1;
            }
            Ok(found) => {
                assert_eq!(found, expected, "byte {place}");
                harmless += 1;
            }
            Err(error) => {
                assert!(!matches!(error, SchedulerError::Full), "byte {place}: {error}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 20 && harmless > 20, "{noticed} noticed, {harmless} in unused space");
}

fn story() -> Vec<(At, Event)> {
    let facts = NodeFacts {
        name: "cpu-1".into(),
        roles: vec![Role::Cpu],
        resources: Resources { cores: 2, memory: MemoryMib(1024), gpus: 0, ..Resources::default() },
        agent_version: "test".into(),
        boot_id: "1".into(),
        ..NodeFacts::default()
    };
    let submit = |key: &str| {
        let work = Work::Command { arguments: vec!["true".into()], folder: None };
        let mut spec = JobSpec::new("job", work);
        spec.retries = 1;
        let (user, spec) = ("operator".into(), Box::new(spec));
        Event::Submit { request: 0, user, key: key.into(), spec }
    };
    let report = |report| Event::Report { node: "cpu-1".into(), report };
    let started = |n| report(Report::Started { try_id: TryId(n) });
    let ended = |n, exit| {
        report(Report::Ended { try_id: TryId(n), exit, usage: Usage::default(), heir: None })
    };
    let events = [
        submit("a"),
        Event::NodeUp { facts: Box::new(facts.clone()), holds: Vec::new() },
        submit("b"),
        submit("c"),
        started(1),
        started(2),
        ended(1, Exit::Code(1)),
        Event::NodeDown { node: "cpu-1".into() },
        Event::Tick,
        Event::NodeUp { facts: Box::new(facts), holds: vec![TryId(2)] },
        ended(2, Exit::Code(0)),
        Event::Tick,
    ];
    events.into_iter().enumerate().map(|(n, event)| (At(n as u64 * 4_000), event)).collect()
}

#[test]
fn every_prefix_of_a_journal_gives_a_cluster_that_holds() {
    let story = story();
    let settings = ClusterSettings::default();
    let mut live = Cluster::new(settings.clone());
    let mut effects = Vec::new();
    for count in 0..=story.len() {
        let folder = TempDir::new().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.append(&records(&story[..count])).unwrap();
        let mut replayed = Cluster::new(settings.clone());
        store.replay(|_, _| {}, |_, at, event| replayed.apply(at, event, &mut Vec::new())).unwrap();
        assert_eq!(replayed.check(), Ok(()), "after {count} events");
        assert_eq!(replayed, live, "after {count} events");
        if let Some((at, event)) = story.get(count) {
            live.apply(*at, event.clone(), &mut effects);
        }
    }
    assert_eq!(live.summary().jobs_ended, 1, "the story is about something");
}

/// The thread with the store of a folder.
fn start(folder: &Path) -> Result<Started, SchedulerError> {
    crate::core::start(
        folder,
        ClusterSettings::default(),
        Retention::default(),
        gantry_model::Millis(0),
        None,
    )
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_ends_the_scheduler_and_acknowledges_nothing() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // The third event fails in a way that is not a full disk.
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON events WHEN NEW.seq > 2
        BEGIN SELECT RAISE(ABORT, 'input/output error'); END";
    store.database.execute_batch(broken).unwrap();
    drop(store);
    let Started { core, ended, .. } = start(folder.path()).unwrap();
    let mut submits =
        story().into_iter().filter(|(_, event)| matches!(event, Event::Submit { .. }));
    let mut submit = || submits.next().map(|(_, event)| event).unwrap();
    assert!(core.ask(submit()).await.is_ok());
    let refused = core.ask(submit()).await.unwrap_err();
    assert!(refused.sentence.contains("ending"), "{refused}");
    let error = ended.await.unwrap().to_string();
    assert!(error.contains("input/output error") && error.contains("check the disk"), "{error}");
    let mut store = Store::open(folder.path()).unwrap();
    assert_eq!(all(&mut store).unwrap().len(), 2, "a tick and the submit that was acknowledged");
}

#[tokio::test]
async fn a_clock_in_the_future_of_the_journal_loses_no_node() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    // The earlier life ran with a clock that was a year ahead.
    let ahead = crate::clock::Clock::new(At(0), gantry_model::Millis(0))
        .now()
        .after(gantry_model::Millis(31_536_000_000));
    let (_, up) = story().swap_remove(1);
    store.append(&records(&[(ahead, up.clone())])).unwrap();
    drop(store);
    let core = start(folder.path()).unwrap().core;
    let state = |cluster: &Cluster| cluster.nodes()[0].state;
    assert_eq!(core.read(state).await.unwrap(), gantry_model::NodeState::Late);
    core.tell(up).await;
    assert_eq!(core.read(state).await.unwrap(), gantry_model::NodeState::Up);
    core.stop().await;
    let mut store = Store::open(folder.path()).unwrap();
    store.database.execute("DELETE FROM snapshots", []).unwrap();
    let times: Vec<At> = all(&mut store).unwrap().into_iter().map(|(at, _)| at).collect();
    assert!(times.len() > 2 && times.is_sorted(), "time went back: {times:?}");
}

#[test]
fn a_token_is_good_once_in_time_and_for_its_node() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let node = |name: &str| Principal::Node(name.to_owned());
    let user = |name: &str| Principal::User(name.to_owned());
    for hash in ["a", "b", "c"] {
        store.add_token(hash, &node("cpu-1"), At(0), At(100)).unwrap();
    }
    store.add_token("u", &user("ada"), At(0), At(100)).unwrap();
    store.add_token("v", &user("grace"), At(0), At(100)).unwrap();
    store.forget_tokens(&user("grace")).unwrap();
    for (hash, node, now, part) in [
        ("a", node("cpu-1"), 1, ""),
        ("a", node("cpu-1"), 2, "used already"),
        ("b", node("cpu-2"), 1, "another node"),
        ("b", node("cpu-1"), 101, "expired"),
        ("x", node("cpu-1"), 1, "not known"),
        ("c", user("cpu-1"), 1, "not known"),
        ("u", node("ada"), 1, "not known"),
        ("u", user("ada"), 1, ""),
        ("v", user("grace"), 1, "not known"),
    ] {
        match store.redeem(hash, &node, At(now)).unwrap() {
            Ok(()) => assert_eq!(part, "", "{hash} {node} {now}"),
            Err(reject) => {
                assert!(!part.is_empty() && reject.sentence.contains(part), "{reject}");
            }
        }
    }
}

#[test]
fn who_has_access_is_there_after_a_restart_and_after_a_repair() {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let grant = |role, revoked, void| Grant {
        role,
        revoked,
        void: At(void),
        since: At(9),
        by: "operator".into(),
    };
    let ada = Principal::User("ada".into());
    let rows = [
        (Principal::Node("cpu-1".into()), grant(None, true, 9)),
        (ada.clone(), grant(Some(PersonRole::Operator), false, 3)),
    ];
    store.keep_grant(&ada, &grant(Some(PersonRole::Viewer), false, 0)).unwrap();
    for (principal, grant) in &rows {
        store.keep_grant(principal, grant).unwrap();
    }
    store.append(&records(&[(At(1), event(1))])).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.grants().unwrap(), rows);
    let harm = "UPDATE events SET crc = 0; UPDATE access SET role = 'king' WHERE name = 'ada'";
    store.database.execute_batch(harm).unwrap();
    let error = store.grants().unwrap_err().to_string();
    assert!(error.contains("king"), "{error}");
    let mend = "UPDATE access SET role = 'operator' WHERE name = 'ada'";
    store.database.execute_batch(mend).unwrap();
    drop(store);
    repair(folder.path()).unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().grants().unwrap(), rows);
}

/// A cluster after the whole story, and the journal that gave it with a snapshot after each of
/// these events.
fn with_snapshots(folder: &Path, after: &[usize]) -> Cluster {
    let mut store = Store::open(folder).unwrap();
    let mut cluster = Cluster::new(ClusterSettings::default());
    for (n, (at, event)) in story().into_iter().enumerate() {
        store.append(&records(&[(at, event.clone())])).unwrap();
        cluster.apply(at, event, &mut Vec::new());
        if after.contains(&(n + 1)) {
            store.snapshot(at, &cluster).unwrap();
        }
    }
    cluster
}

/// What a start makes of a journal, and how many events it had to apply.
fn restored(folder: &Path) -> Result<(Cluster, i64), SchedulerError> {
    let mut store = Store::open(folder)?;
    let cluster = std::cell::RefCell::new(Cluster::new(ClusterSettings::default()));
    let replayed = store.replay(
        |_, snapshot| *cluster.borrow_mut() = snapshot,
        |_, at, event| cluster.borrow_mut().apply(at, event, &mut Vec::new()),
    )?;
    Ok((cluster.into_inner(), replayed.events))
}

#[test]
fn a_snapshot_and_the_events_after_it_are_the_whole_state() {
    for after in [vec![], vec![1], vec![12], vec![4, 9], vec![2, 3, 4, 5, 11]] {
        let folder = TempDir::new().unwrap();
        let live = with_snapshots(folder.path(), &after);
        let (cluster, applied) = restored(folder.path()).unwrap();
        assert_eq!(cluster, live, "snapshots after {after:?}");
        let newest = after.last().copied().unwrap_or(0);
        assert_eq!(applied, (story().len() - newest) as i64, "snapshots after {after:?}");
    }
}

#[test]
fn a_damaged_snapshot_costs_time_and_nothing_else() {
    for harm in [
        "UPDATE snapshots SET payload = x'00' WHERE seq = 9",
        "UPDATE snapshots SET crc = crc + 1 WHERE seq = 9",
        "DELETE FROM snapshots WHERE seq = 9",
    ] {
        let folder = TempDir::new().unwrap();
        let live = with_snapshots(folder.path(), &[4, 9]);
        Store::open(folder.path()).unwrap().database.execute(harm, []).unwrap();
        let (cluster, applied) = restored(folder.path()).unwrap();
        assert_eq!((cluster, applied), (live, 8), "{harm}");
    }
    // With both gone, and the first events with them, nothing may be made up.
    let folder = TempDir::new().unwrap();
    with_snapshots(folder.path(), &[4, 9, 11]);
    let store = Store::open(folder.path()).unwrap();
    store.database.execute("UPDATE snapshots SET crc = crc + 1", []).unwrap();
    drop(store);
    let error = restored(folder.path()).unwrap_err().to_string();
    assert!(error.contains("snapshot"), "{error}");
}

#[test]
fn a_damaged_end_is_cut_and_a_damaged_middle_waits_for_a_repair() {
    let damage = |folder: &Path, harm: &str| {
        with_snapshots(folder, &[4]);
        Store::open(folder).unwrap().database.execute_batch(harm).unwrap();
    };
    let folder = TempDir::new().unwrap();
    damage(folder.path(), "UPDATE events SET payload = x'00' WHERE seq > 10");
    let error = restored(folder.path()).unwrap_err().to_string();
    assert!(error.contains("block 11"), "what was acknowledged is not cut: {error}");
    // Of a journal from before that was kept nothing is known.
    fs::remove_file(folder.path().join("journal.head")).unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let replayed = store.replay(|_, _| {}, |_, _, _| {}).unwrap();
    assert_eq!((replayed.snapshot, replayed.events), (4, 6));
    assert!(replayed.cut.unwrap().contains("2 blocks in all"));
    store.append(&records(&[(At(99_000), event(1))])).unwrap();
    drop(store);
    assert_eq!(check(folder.path()).unwrap().damage, None, "and it goes on from there");

    let folder = TempDir::new().unwrap();
    damage(folder.path(), "UPDATE events SET payload = x'00' WHERE seq = 8");
    let error = restored(folder.path()).unwrap_err().to_string();
    assert!(error.contains("block 8") && error.contains("repair"), "{error}");
    let report = check(folder.path()).unwrap();
    assert_eq!((report.events, report.snapshot, report.cut), (3, Some(4), 0));
    assert!(report.damage.unwrap().contains("block 8"));
    let repaired = repair(folder.path()).unwrap();
    assert_eq!((repaired.events, repaired.snapshot, repaired.cut), (3, Some(4), 5));
    assert_eq!(restored(folder.path()).unwrap().1, 3);
    assert_eq!(check(folder.path()).unwrap().damage, None);
    assert!(folder.path().join("journal.damaged.sqlite").exists(), "nothing is thrown away");
    assert_eq!(repair(folder.path()).unwrap().cut, 0, "a sound journal is left alone");
}
