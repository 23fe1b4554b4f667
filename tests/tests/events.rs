//! The event log as people ask for it, with real processes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result};
use gantry_tests::{Cluster, PATIENCE, until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// A job that waits: no node gives it work.
fn submit(cluster: &Cluster) -> Result<String> {
    let value = cluster.gantry.json(&["submit", "--", "true"])?;
    Ok(value["job"].as_str().context("no job")?.to_owned())
}

/// One line of the event log for each of these priorities.
fn change(cluster: &Cluster, job: &str, priorities: std::ops::Range<u32>) -> Result<()> {
    for priority in priorities {
        cluster.gantry.json(&["change", job, "--priority", &priority.to_string()])?;
    }
    Ok(())
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["number"].as_u64().unwrap()).collect()
}

/// Everything that matches, as `gantry events --json` has it.
fn events(cluster: &Cluster, arguments: &[&str]) -> Result<Vec<Value>> {
    let all: Vec<&str> = ["events"].iter().chain(arguments).copied().collect();
    Ok(cluster.gantry.json(&all)?.as_array().context("no list")?.clone())
}

/// A `gantry events --follow` whose lines are read as they come.
struct Follower {
    child: Child,
    lines: Receiver<Value>,
}

impl Follower {
    fn start(cluster: &Cluster) -> Result<Self> {
        let mut child = cluster
            .gantry
            .command(&["--json", "events", "--follow", "--limit", "0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap_or_default()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// So many further lines.
    fn next(&self, count: usize) -> Result<Vec<Value>> {
        let next = || self.lines.recv_timeout(PATIENCE).context("a line did not come");
        (0..count).map(|_| next()).collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn whoever_follows_sees_each_line_once_over_a_killed_scheduler() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    let job = submit(&cluster)?;
    change(&cluster, &job, 0..5)?;
    let before = events(&cluster, &["--limit", "0"])?;
    let follower = Follower::start(&cluster)?;
    assert_eq!(follower.next(before.len())?, before);
    for round in 1..3_u32 {
        cluster.kill_scheduler();
        cluster.start_scheduler()?;
        change(&cluster, &job, round * 10..round * 10 + 5)?;
    }
    let all = events(&cluster, &["--limit", "0"])?;
    assert!(all.len() >= before.len() + 10, "{all:?}");
    assert_eq!(all[..before.len()], before, "what a life before has written is there");
    assert_eq!(follower.next(all.len() - before.len())?, all[before.len()..]);
    assert_eq!(numbers(&all), (1..=all.len() as u64).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn lines_are_chosen_and_exported() -> Result<()> {
    let mut cluster = Cluster::start(PROGRAM)?;
    cluster.join("cpu-1", "cores = 1\nmemory = \"1G\"")?;
    cluster.gantry.json(&["drain", "cpu-1", "--reason", "new disk"])?;
    let (first, second) = (submit(&cluster)?, submit(&cluster)?);
    change(&cluster, &first, 0..3)?;
    change(&cluster, &second, 0..4)?;
    cluster.kill_agent("cpu-1");
    until("the node's loss is noted", || {
        events(&cluster, &["--node", "cpu-1", "--level", "warn"]).ok()?.first().map(drop)
    })?;
    for (arguments, count) in [
        (&["--job", &first][..], 3),
        (&["--job", &second, "--limit", "2"], 2),
        (&["--node", "cpu-1", "--grep", "new disk"], 1),
        (&["--grep", "no such words"], 0),
        (&["--until", "2001-01-01"], 0),
        (&["--job", &first, "--since", "1h"], 3),
    ] {
        assert_eq!(events(&cluster, arguments)?.len(), count, "{arguments:?}");
    }
    let all = events(&cluster, &["--limit", "0"])?;
    let file = cluster.folder().join("events.jsonl");
    let path = file.display().to_string();
    let value = cluster.gantry.json(&["events", "--export", &path])?;
    assert_eq!(value["lines"], all.len());
    let text = std::fs::read_to_string(&file)?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    assert_eq!(lines, all, "an export is the whole log, a value a line");
    let output = cluster.gantry.run(&["events", "--export", "-", "--job", &second])?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.lines().all(|line| line.contains(&second)), "{text}");
    Ok(())
}
