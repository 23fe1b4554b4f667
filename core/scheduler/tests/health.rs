//! Troubles of nodes over real QUIC: found in samples, and over again, also across a restart.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use gantry_config::SchedulerSettings;
use gantry_link::Session;
use gantry_model::At;
use gantry_telemetry::{Encoder, Sample, StorageSample};
use gantry_wire::{AgentMessage, NoteQuery, Reply, Request};
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
    let Reply::Nodes { rows: nodes, .. } = ask(console, Request::Nodes { after: None }).await
    else {
        panic!()
    };
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
        tell(agent, &mut encoder, &sample(answer_ms)).await;
    }
}

async fn tell(agent: &mut Session, encoder: &mut Encoder, sample: &Sample) {
    let reading = encoder.encode(sample).unwrap();
    agent.sender.send(&AgentMessage::Reading(Box::new(reading))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// What the event log says of alerts, oldest first.
async fn alerts(console: &Session) -> Vec<String> {
    let query = NoteQuery { text: Some("alert".into()), ..NoteQuery::default() };
    let Reply::Notes(page) = ask(console, Request::Notes { query }).await else { panic!() };
    page.rows.iter().map(|row| row.note.sentence.clone()).collect()
}

/// Sends readings until so much is said of alerts.
async fn read_until_said(
    agent: &mut Session,
    console: &Session,
    cpu_permille: u32,
    lines: usize,
) -> Vec<String> {
    let (begun, mut encoder) = (Instant::now(), Encoder::default());
    while alerts(console).await.len() < lines {
        assert!(begun.elapsed() < WITHIN, "{:?}", alerts(console).await);
        tell(agent, &mut encoder, &Sample { cpu_permille, ..sample(None) }).await;
    }
    alerts(console).await
}

#[tokio::test]
async fn an_alert_outlives_the_scheduler_and_ends_after_it() {
    let folder = cluster();
    let text =
        "listen = \"127.0.0.1:0\"\n[[alert]]\nname = \"busy\"\nseries = \"cpu\"\nabove = \"90%\"\n";
    let settings: SchedulerSettings = gantry_config::load("scheduler.toml", text).unwrap();
    let daemon = start(folder.path(), settings.clone()).await;
    let watcher = console(folder.path(), &daemon).await;
    let identity = joined(&watcher, daemon.address, "cpu-1").await;
    let mut node = agent(&daemon, &identity, &[]).await;
    let raised = read_until_said(&mut node, &watcher, 950, 1).await;
    assert!(raised[0].contains("alert busy: cpu is 95.0%"), "{raised:?}");
    daemon.stop().await;
    // What is still bad is known, and not said again; what is well again is over.
    let daemon = start(folder.path(), settings.clone()).await;
    let watcher = console(folder.path(), &daemon).await;
    let mut node = agent(&daemon, &identity, &[]).await;
    let mut encoder = Encoder::default();
    for _ in 0..3 {
        tell(&mut node, &mut encoder, &Sample { cpu_permille: 960, ..sample(None) }).await;
    }
    let both = read_until_said(&mut node, &watcher, 100, 2).await;
    assert_eq!(both[0], raised[0]);
    assert!(both[1].contains("cpu is 10.0% and the alert is over"), "{both:?}");
    daemon.stop().await;
    // It is not known any more after that.
    let daemon = start(folder.path(), settings).await;
    let watcher = console(folder.path(), &daemon).await;
    let mut node = agent(&daemon, &identity, &[]).await;
    assert_eq!(read_until_said(&mut node, &watcher, 970, 3).await.len(), 3);
    daemon.stop().await;
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
