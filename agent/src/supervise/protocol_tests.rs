//! The bytes of every message between an agent and its supervisor.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use gantry_config::{CpuLimit, RunAs};
use gantry_model::{JobId, Lease, MemoryMib, Millis, Resources, TaskWork, Warning};

use super::*;
use crate::pipe;
use crate::supervise::cgroup::Place;
use crate::supervise::isolation::{Pin, RootJobs, Scratch, Scripts};

fn line(table: &mut String, name: &str, message: &impl Serialize) {
    let bytes = pipe::frame(message).unwrap();
    let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    writeln!(table, "{name} {hex}").unwrap();
}

fn launch() -> Launch {
    Launch {
        try_id: TryId(7),
        task: JobId(1).task(2),
        name: "name".into(),
        user: "ada".into(),
        work: TaskWork::Command { arguments: vec!["true".into()], folder: Some("/w".into()) },
        lease: Lease {
            resources: Resources {
                cores: 3,
                memory: MemoryMib(300),
                gpus: 1,
                scratch: MemoryMib(9),
            },
            gpus: vec![4],
            gpu_permille: 1000,
        },
        time_limit: Some(Millis(5000)),
        output: Some("out".into()),
        warning: Some(Warning { signal: 10, before: Millis(6000) }),
        environment: BTreeMap::from([("A".into(), "b".into())]),
        start: 2,
        inherits: Some(TryId(6)),
    }
}

fn isolation(place: Result<Place, String>) -> Isolation {
    Isolation {
        place,
        cpu: CpuLimit::Hard,
        pids: Some(300),
        run_as: RunAs::Submitter,
        root: RootJobs::Refused,
        umask: 0o077,
        pin: Pin::Nothing,
        scratch: Some(Scratch { folder: "/s".into(), prefix: "p-".into() }),
        scripts: Scripts {
            prolog: Some("/b".into()),
            epilog: Some("/e".into()),
            limit: Millis(60_000),
        },
    }
}

/// A difference means that an agent no longer understands a supervisor of the version before, whose tasks
/// run: add a message behind the last instead.
#[test]
fn messages_have_the_bytes_of_their_version_for_ever() {
    let mut table = String::new();
    line(&mut table, "hello", &Hello { version: 5 });
    line(&mut table, "welcome", &Welcome { version: 5, process: 77 });
    let start = Start {
        launch: launch(),
        operation: vec!["gantry".into(), "work".into()],
        environment: vec![("C".into(), "d".into())],
        folder: "/f".into(),
        output: "/o".into(),
        checkpoint: Some("/c".into()),
        near: vec![1],
        read: 300,
    };
    let scheduler = ([10, 0, 0, 1], 7400).into();
    let welcomed = Welcomed { scheduler, folder: "/a".into(), at: At(1_000_000) };
    for (name, message) in [
        ("orphans", ToSupervisor::Orphans(Orphans::End)),
        ("isolation", ToSupervisor::Isolation(isolation(Ok(Place::golden())).into())),
        ("isolation", ToSupervisor::Isolation(isolation(Err("none".into())).into())),
        ("start", ToSupervisor::Start(start.into())),
        ("signal", ToSupervisor::Signal { try_id: TryId(7), number: 15 }),
        ("read", ToSupervisor::Read { try_id: TryId(7), offset: 300 }),
        ("kept", ToSupervisor::Kept { try_id: TryId(7) }),
        ("welcomed", ToSupervisor::Welcomed(welcomed)),
    ] {
        line(&mut table, name, &message);
    }
    let usage = Usage { cpu_ms: 300, memory_peak: MemoryMib(9), read_kib: 70_000, written_kib: 1 };
    let end = Some((Exit::TimeLimit, usage));
    let held = Held { launch: launch(), since: At(5), read: 300, end };
    for (name, message) in [
        ("held", FromSupervisor::Held(held.into())),
        ("ready", FromSupervisor::Ready),
        ("started", FromSupervisor::Started { try_id: TryId(7) }),
        ("ended", FromSupervisor::Ended { try_id: TryId(7), exit: Exit::Code(3), usage }),
    ] {
        line(&mut table, name, &message);
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/supervisor.txt");
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    for (found, expected) in table.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(table.lines().count(), expected.lines().count());
}
