//! Upgrades: which versions of the protocol understand one another, and daemons that are replaced one by
//! one while tasks run.
//!
//! The program that is replaced is the one that `GANTRY_BEFORE` names, or else a copy of the one that
//! replaces it: there is one version of the protocol so far. What an older or newer program says of itself is
//! said by the test: both are heard as far as there is a common version. The bytes of messages and of
//! the journal are held by `core/wire/tests/golden.rs` and `core/scheduler/src/store/tests/golden.rs`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gantry_link::{Caller, Credentials, Identity, LinkError};
use gantry_tests::{Cluster, until};
use gantry_wire::hello::{self, VERSION_MAX, VERSION_MIN};
use gantry_wire::{Greeting, Peer, Reply, Request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const NODE: &str = "cpu-1";
const SETTINGS: &str = "cores = 8\nmemory = \"1G\"\nworkers = 1\norphans = \"keep\"";
const TASKS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_heard_where_there_is_a_common_version_and_told_what_to_upgrade() -> Result<()>
{
    let cluster = Cluster::start(PROGRAM)?;
    let identity = Identity::load(&cluster.folder().join("scheduler"), "operator")?;
    let (caller, credentials) = (Caller::new(cluster.address()?)?, Credentials::new(&identity)?);
    let newer = VERSION_MAX + 1;
    for (version_min, version_max, refused) in [
        (VERSION_MIN, VERSION_MAX, None),
        // The next version and the one before it are understood by whoever speaks the next.
        (VERSION_MAX, newer, None),
        (VERSION_MIN - 1, VERSION_MIN, None),
        (0, u16::MAX, None),
        (newer, newer + 1, Some("upgrade the scheduler")),
        (VERSION_MIN - 1, VERSION_MIN - 1, Some("upgrade the caller")),
    ] {
        let software = "another".to_owned();
        let ours = hello::greeting(Peer::Console);
        let greeting = Greeting { version_min, version_max, software, ..ours };
        let what = format!("{version_min} to {version_max}");
        match (caller.connect_as(&credentials, &greeting).await, refused) {
            (Ok(session), None) => {
                ensure!(session.version == version_max.min(VERSION_MAX), "{what}");
                let (mut sender, mut receiver) = session.connection.open().await?;
                sender.send(&Request::Status).await?;
                let reply: Reply = receiver.expect().await?;
                ensure!(matches!(reply, Reply::Status(_)), "{what}: {reply:?}");
            }
            (Err(LinkError::Refused(reject)), Some(part)) => {
                let sentence = reject.sentence;
                ensure!(sentence.contains("no common protocol"), "{what}: {sentence}");
                ensure!(sentence.contains(part) && sentence.contains("another"), "{sentence}");
            }
            (other, _) => bail!("{what}: {:?}", other.map(|session| session.version)),
        }
    }
    Ok(())
}

/// Whether a daemon runs from the file that is there now.
fn is_of_the_file(cluster: &Cluster, name: &str) -> Result<bool> {
    let process = cluster.process(name).with_context(|| format!("no process of {name}"))?;
    let program = fs::read_link(format!("/proc/{}/exe", process.as_raw_nonzero()))?;
    Ok(!program.display().to_string().ends_with(" (deleted)"))
}

/// A task that is placed after a step, and done.
fn works(cluster: &Cluster, step: &str) -> Result<()> {
    let value = cluster.gantry.json(&["submit", "--wait", "--", "true"]);
    value.map(drop).with_context(|| format!("a job after {step}"))
}

fn lines(marks: &Path) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    for line in fs::read_to_string(marks).unwrap_or_default().lines() {
        *seen.entry(line.to_owned()).or_default() += 1;
    }
    seen
}

#[test]
fn the_scheduler_is_replaced_first_and_tasks_do_not_notice() -> Result<()> {
    replaced(["scheduler", NODE])
}

#[test]
fn the_agent_is_replaced_first_and_tasks_do_not_notice() -> Result<()> {
    replaced([NODE, "scheduler"])
}

/// Replaces the daemons in this order, while tasks run.
fn replaced(order: [&str; 2]) -> Result<()> {
    let home =
        tempfile::Builder::new().prefix("upgrade-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (program, next) = (home.path().join("gantry"), home.path().join("next"));
    let before = std::env::var("GANTRY_BEFORE").unwrap_or_else(|_| PROGRAM.to_owned());
    eprintln!("replacing {before}");
    fs::copy(before, &program)?;
    fs::copy(PROGRAM, &next)?;
    let mut cluster = Cluster::start(&program.display().to_string())?;
    cluster.join(NODE, SETTINGS)?;
    let (marks, go) = (cluster.folder().join("marks"), cluster.folder().join("go"));
    let line = format!(
        "echo start $GANTRY_TASK >> {0}; until [ -e {1} ]; do sleep 0.05; done; echo end $GANTRY_TASK >> {0}",
        marks.display(),
        go.display(),
    );
    let array = format!("0-{}", TASKS - 1);
    let job = cluster.gantry.json(&["submit", "--array", &array, "--", "sh", "-c", &line])?;
    let job = job["job"].as_str().context("no job")?.to_owned();
    until("the start of all tasks", || (lines(&marks).len() == TASKS).then_some(()))?;

    // As a package does it: the name leads to another file, and what runs keeps its own.
    fs::rename(&next, &program)?;
    for name in order {
        ensure!(!is_of_the_file(&cluster, name)?, "{name} runs from the new file already");
    }
    works(&cluster, "the new file, before anything is started from it")?;

    for (name, step) in order.into_iter().zip(["the other is old", "only the supervisor is old"]) {
        if name == NODE {
            cluster.kill_agent(NODE);
            cluster.start_agent(NODE)?;
        } else {
            cluster.kill_scheduler();
            cluster.start_scheduler()?;
        }
        ensure!(is_of_the_file(&cluster, name)?, "{name} is the old one");
        works(&cluster, &format!("{name} is new, {step}"))?;
    }

    ensure!(lines(&marks).len() == TASKS, "a task ended or was started again");
    fs::write(&go, "")?;
    cluster.gantry.json(&["wait", &job])?;
    let seen = lines(&marks);
    ensure!(seen.len() == 2 * TASKS && seen.values().all(|count| *count == 1), "{seen:?}");
    Ok(())
}
