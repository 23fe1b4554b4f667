//! Real daemons over a network that loses, delays, reorders and doubles packets.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use gantry_tests::relay::{Relay, Weather};
use gantry_tests::{Cluster, until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// How long the weather lasts at least.
const BAD: Duration = Duration::from_secs(15);
/// A sample that is older than this says nothing about now.
const FRESH: Duration = Duration::from_secs(5);

/// The rows of the nodes; each is up, and its last sample is not old.
fn all_is_well(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.gantry.json(&["nodes"])?;
    let nodes = nodes.as_array().context("a list of nodes")?;
    ensure!(nodes.len() == NODES.len(), "{nodes:?}");
    for node in nodes {
        ensure!(node["state"] == "up", "{node}");
        let came = UNIX_EPOCH + Duration::from_millis(node["sampled_ms"].as_u64().unwrap_or(0));
        let age = came.elapsed().unwrap_or_default();
        ensure!(age < FRESH, "telemetry has stopped for {age:?}: {node}");
    }
    Ok(())
}

/// What the event log says of connections.
fn said_of_connections(cluster: &Cluster) -> Result<Vec<String>> {
    let events = cluster.gantry.json(&["events", "--grep", "connection", "-n", "0"])?;
    let rows = events.as_array().context("a list of events")?;
    Ok(rows.iter().map(Value::to_string).collect())
}

#[test]
fn a_bad_network_loses_no_node_and_runs_nothing_twice() -> Result<()> {
    let seed = 20_261_129;
    println!("seed {seed}");
    let mut cluster = Cluster::start(PROGRAM)?;
    let weather = Weather {
        seed,
        lost_permille: 50,
        doubled_permille: 20,
        delay: (Duration::from_millis(2), Duration::from_millis(40)),
    };
    let relay = Relay::start(cluster.address()?, weather)?;
    for node in NODES {
        cluster.join_through(node, "cores = 2\nmemory = \"1G\"\nworkers = 1", relay.address)?;
    }
    let count = cluster.folder().join("count");
    let line = format!("echo $GANTRY_INDEX >> {}; sleep 0.05", count.display());
    let submit = ["submit", "--array", "0-299", "--", "sh", "-c", &line];
    let job = cluster.gantry.json(&submit)?["job"].as_str().context("a job")?.to_owned();
    until("a sample of each node", || all_is_well(&cluster).ok())?;
    let begun = Instant::now();
    while begun.elapsed() < BAD {
        all_is_well(&cluster)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(cluster.gantry.run(&["wait", &job])?.status.success());
    let mut ran: Vec<u32> =
        std::fs::read_to_string(&count)?.lines().map(|line| line.parse().unwrap()).collect();
    ran.sort_unstable();
    ensure!(ran == (0..300).collect::<Vec<_>>(), "each element ran once: {ran:?}");
    ensure!(said_of_connections(&cluster)?.is_empty(), "{:?}", said_of_connections(&cluster)?);
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    println!("{:?}", relay.counts);
    let passed = count(&relay.counts.passed);
    for (what, faults) in [
        ("lost", count(&relay.counts.lost)),
        ("doubled", count(&relay.counts.doubled)),
        ("overtaken", count(&relay.counts.overtaken)),
    ] {
        ensure!(passed > 300 && faults * 200 > passed, "{faults} of {passed} packets were {what}");
    }
    a_cut_is_noticed_and_mended(&cluster, &relay)
}

/// The same looks see a network that is cut, so that what they saw before means something.
fn a_cut_is_noticed_and_mended(cluster: &Cluster, relay: &Relay) -> Result<()> {
    relay.cut(true);
    until("the cut", || all_is_well(cluster).is_err().then_some(()))?;
    relay.cut(false);
    until("the return", || all_is_well(cluster).is_ok().then_some(()))?;
    ensure!(!said_of_connections(cluster)?.is_empty());
    let done = cluster.gantry.run(&["submit", "--wait", "--", "true"])?;
    ensure!(done.status.success());
    Ok(())
}
