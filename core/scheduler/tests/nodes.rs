//! The list of nodes, however many there are: pages that fit an answer, and nothing between them.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_link::Session;
use gantry_model::{Gpu, NodeFacts, Resources};
use gantry_wire::{Reply, Request};
use support::{ask, cluster, console, greeted, joined, settings, start};

/// More than one answer holds, with eight GPUs of long names each.
const NODES: usize = 48;

async fn page(console: &Session, after: Option<&str>) -> (Vec<String>, bool) {
    let request = Request::Nodes { after: after.map(str::to_owned) };
    let Reply::Nodes { rows, more } = ask(console, request).await else { panic!() };
    (rows.into_iter().map(|node| node.row.facts.name).collect(), more)
}

fn facts(name: &str) -> NodeFacts {
    let gpu = |index| Gpu {
        uuid: format!("GPU-{index}-{}", "0123456789".repeat(9)),
        name: "a GPU with a long name ".repeat(5),
        ..Gpu::default()
    };
    let gpus: Vec<Gpu> = (0..8).map(gpu).collect();
    let resources = Resources { gpus: gpus.len() as u32, ..Resources::default() };
    NodeFacts { name: name.to_owned(), resources, gpus, ..NodeFacts::default() }
}

#[tokio::test]
async fn every_node_is_on_one_page_and_on_one_only() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let names: Vec<String> = (0..NODES).map(|number| format!("gpu-{number:02}")).collect();
    let mut sessions = Vec::new();
    for name in &names {
        let identity = joined(&console, daemon.address, name).await;
        sessions.push(greeted(daemon.address, &identity, facts(name), &[]).await);
    }
    // Each has said what it is once the scheduler has taken it in.
    while all(&console).await.len() < NODES {
        tokio::task::yield_now().await;
    }
    let (first, more) = page(&console, None).await;
    assert!(more && first.len() < NODES, "one answer held all {NODES}");
    assert_eq!(all(&console).await, names);
    assert_eq!(page(&console, Some("zzz")).await, (Vec::new(), false));
    daemon.stop().await;
}

async fn all(console: &Session) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let (rows, more) = page(console, names.last().map(String::as_str)).await;
        names.extend(rows);
        if !more {
            return names;
        }
    }
}
