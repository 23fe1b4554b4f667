//! Kill -9 at random moments, and count: nothing that was acknowledged is lost, nothing runs twice,
//! no task is killed.
//!
//! `GANTRY_KILLS=1000 cargo test -p gantry-tests --test faults` is the long form.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use gantry_tests::chance::Chance;
use gantry_tests::{Cluster, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const SETTINGS: &str = "cores = 4\nmemory = \"1G\"\nworkers = 1\norphans = \"keep\"";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Scheduler,
    Agent,
}

fn kills() -> u64 {
    std::env::var("GANTRY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Submits jobs while a daemon is killed again and again, waits for all of them, and counts what
/// each task has left in a file.
fn storm(victim: Victim, seed: u64) -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", SETTINGS)?;
    let marks = cluster.folder().join("marks");
    let line = format!(
        "echo start $GANTRY_TASK >> {0}; sleep 0.0$(($$ % 9)); echo end $GANTRY_TASK >> {0}",
        marks.display()
    );
    let mut chance = Chance::new(seed);
    let mut jobs = BTreeSet::new();
    let (mut recoveries, mut longest) = (Duration::ZERO, Duration::ZERO);
    for round in 0..kills() {
        let key = format!("storm-{round}");
        let arguments = ["submit", "--array", "0-7", "--key", &key, "--", "sh", "-c", &line];
        let value = cluster.gantry.json(&arguments)?;
        jobs.insert(value["job"].as_str().unwrap().to_owned());
        std::thread::sleep(Duration::from_millis(chance.below(60)));
        let killed = Instant::now();
        match victim {
            Victim::Scheduler => {
                cluster.kill_scheduler();
                cluster.start_scheduler()?;
            }
            Victim::Agent => {
                cluster.kill_agent("cpu-1");
                cluster.start_agent("cpu-1")?;
            }
        }
        recoveries += killed.elapsed();
        longest = longest.max(killed.elapsed());
        // The same key gives the same job, also from the next life of the scheduler.
        let again = cluster.gantry.json(&arguments)?;
        assert!(jobs.contains(again["job"].as_str().unwrap()), "{key} was acknowledged and lost");
    }
    assert_eq!(jobs.len() as u64, kills());
    for job in &jobs {
        let ended = || (cluster.gantry.run(&["wait", job]).ok()?.status.code()? == 0).then_some(());
        until("the end of a job", ended)?;
    }
    let text = std::fs::read_to_string(&marks)?;
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    text.lines().for_each(|line| *seen.entry(line).or_default() += 1);
    for job in &jobs {
        for index in 0..8 {
            for word in ["start", "end"] {
                let mark = format!("{word} {job}.{index}");
                assert_eq!(seen.get(mark.as_str()), Some(&1), "{mark}, {victim:?}, seed {seed}");
            }
        }
    }
    eprintln!("{victim:?}: {} kills, 0 lost, 0 doubled, 0 tasks killed", kills());
    if victim == Victim::Scheduler {
        let mean_ms = recoveries.as_millis() / u128::from(kills());
        eprintln!("answered again after {mean_ms} ms, at most {} ms", longest.as_millis());
    }
    Ok(())
}

#[test]
fn a_scheduler_that_is_killed_again_and_again_loses_and_doubles_nothing() -> Result<()> {
    storm(Victim::Scheduler, 1)
}

#[test]
fn an_agent_that_is_killed_again_and_again_loses_and_doubles_nothing() -> Result<()> {
    storm(Victim::Agent, 2)
}
