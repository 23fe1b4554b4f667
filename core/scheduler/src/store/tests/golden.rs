//! The bytes of a journal, as format 3 has them for ever: an event of every kind, and a snapshot.
//!
//! A difference here means that a scheduler would not understand what the one before has written. Add a
//! variant behind the others; where a layout must change, a new format, with what reads this one.

use std::fmt::Write as _;

use gantry_model::health::{Finding, Sign, Trouble};
use gantry_model::{Action, JobId};
use gantry_wire::codec;

use super::*;

const GOLDEN: &str = include_str!("golden/format-3.txt");

/// An event of every kind, after a story of jobs that ran and ended.
fn events() -> Vec<(At, Event)> {
    let mut events = story();
    let newest = events.last().map_or(0, |(at, _)| at.0);
    let (user, node) = ("ada".to_owned(), "cpu-1".to_owned());
    let indices = Some("0-3,7".parse().unwrap());
    let finding = Finding {
        trouble: Trouble::XidBus,
        sign: Sign::Begun,
        gpu: Some("GPU-1".into()),
        detail: "XID 79".into(),
    };
    let act = Action::Hold { job: JobId(1), indices: None };
    let others = [
        Event::Cancel { request: 300, user: user.clone(), job: JobId(1), indices },
        Event::Act { request: 301, user, action: act },
        Event::Settings(Box::default()),
        Event::Found { node: node.clone(), finding },
        Event::Tested { node: node.clone(), number: 70_000, wrong: Some("no".into()) },
        Event::Tick,
        Event::NodeGone { node: node.clone(), holds: vec![TryId(300)] },
        Event::NodeDown { node },
        Event::Restored { taken: At(7) },
    ];
    events.extend((1..).zip(others).map(|(n, event)| (At(newest + n), event)));
    events
}

/// A name for each kind; a new one does not compile without one.
const fn kind(event: &Event) -> &'static str {
    match event {
        Event::Submit { .. } => "submit",
        Event::Cancel { .. } => "cancel",
        Event::Act { .. } => "act",
        Event::Settings(_) => "settings",
        Event::NodeUp { .. } => "node-up",
        Event::NodeDown { .. } => "node-down",
        Event::Report { .. } => "report",
        Event::Found { .. } => "found",
        Event::Tested { .. } => "tested",
        Event::Tick => "tick",
        Event::NodeGone { .. } => "node-gone",
        Event::Restored { .. } => "restored",
    }
}

const KINDS: usize = 12;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

#[test]
fn a_journal_has_the_bytes_of_format_3_and_is_understood() {
    let events = events();
    let mut cluster = Cluster::new(ClusterSettings::default());
    let mut text = String::new();
    for (at, event) in &events {
        writeln!(text, "{} {} {}", kind(event), at.0, hex(&record(event).unwrap())).unwrap();
        cluster.apply(*at, event.clone(), &mut Vec::new());
    }
    let newest = events.last().unwrap().0;
    let snapshot = codec::encode_snapshot(&cluster).unwrap();
    writeln!(text, "snapshot {} {}", newest.0, hex(&snapshot)).unwrap();
    if std::env::var_os("GANTRY_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/tests/golden/format-3.txt");
        fs::write(path, &text).unwrap();
        return;
    }
    for (found, expected) in text.lines().zip(GOLDEN.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(text.lines().count(), GOLDEN.lines().count());
    // A start from what stands in the file, beginning with the events and with the snapshot.
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for line in GOLDEN.lines() {
        let [kind, at, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if kind == "snapshot" {
            let kept: Cluster = codec::decode_snapshot(&bytes(hex)).unwrap();
            assert_eq!(kept, cluster, "the snapshot");
        } else {
            kinds.insert(kind);
            store.append(&[(At(at.parse().unwrap()), bytes(hex))]).unwrap();
        }
    }
    drop(store);
    assert_eq!(kinds.len(), KINDS, "{kinds:?}");
    assert_eq!(restored(folder.path()).unwrap(), (cluster, events.len() as i64));
}
