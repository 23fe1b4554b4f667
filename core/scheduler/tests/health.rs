//! Troubles of nodes over real QUIC: found in samples, and over again, also across a restart.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use gantry_link::Session;
use gantry_model::At;
use gantry_telemetry::{Encoder, Sample, StorageSample};
use gantry_wire::{AgentMessage, Reply, Request};
use support::{agent, ask, cluster, console, joined, settings, start};

const WITHIN: Duration = Duration::from_secs(30);

/// A sample of a node whose storage answers after this time, or not at all.
fn sample(answer_ms: Option<u32>) -> Sample {
    let storage = Some(StorageSample { answer_ms, free_mib: None });
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Sample { at: At(since.as_millis() as u64), storage, ..Sample::default() }
}

/// The troubles of the only node.
async fn troubles(console: &Session) -> Vec<String> {
    let Reply::Nodes(nodes) = ask(console, Request::Nodes).await else { panic!() };
    nodes[0].row.ailments.iter().map(|ailment| ailment.trouble.to_string()).collect()
}

/// Sends readings until the node has these troubles.
async fn read_until(
    agent: &mut Session,
    console: &Session,
    answer_ms: Option<u32>,
    expected: &[&str],
) {
    let (begun, mut encoder) = (Instant::now(), Encoder::default());
    while troubles(console).await != expected {
        assert!(begun.elapsed() < WITHIN, "{:?} is not {expected:?}", troubles(console).await);
        let reading = encoder.encode(&sample(answer_ms)).unwrap();
        agent.sender.send(&AgentMessage::Reading(Box::new(reading))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_trouble_that_ends_while_no_scheduler_runs_is_over_after_its_start() {
    let folder = cluster();
    let mut quick = settings();
    quick.watch.storage_silent = gantry_model::Millis::from_seconds(1);
    let daemon = start(folder.path(), quick.clone()).await;
    let watcher = console(folder.path(), &daemon).await;
    let identity = joined(&watcher, daemon.address, "cpu-1").await;
    let mut node = agent(&daemon, &identity, &[]).await;
    read_until(&mut node, &watcher, None, &["storage-silent"]).await;
    daemon.stop().await;

    let daemon = start(folder.path(), quick).await;
    let watcher = console(folder.path(), &daemon).await;
    let mut node = agent(&daemon, &identity, &[]).await;
    assert_eq!(troubles(&watcher).await, ["storage-silent"], "the journal has it");
    read_until(&mut node, &watcher, Some(2), &[]).await;
    daemon.stop().await;
}
