//! A scheduler in this process, and consoles and agents that speak to it.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gantry_config::SchedulerSettings;
use gantry_link::{Identity, Session, connect, join};
use gantry_model::{JobSpec, MemoryMib, NodeFacts, Resources, Role, TryId, Work};
use gantry_scheduler::SchedulerError;
use gantry_wire::{AgentMessage, Peer, Reply, Request};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A scheduler that runs.
pub(crate) struct Daemon {
    pub(crate) address: SocketAddr,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) served: JoinHandle<Result<(), SchedulerError>>,
}

pub(crate) async fn start(folder: &Path, settings: SchedulerSettings) -> Daemon {
    let _ = std::fs::remove_file(folder.join("address"));
    let (stop, stopped) = oneshot::channel::<()>();
    let path = folder.to_owned();
    let served = tokio::spawn(async move {
        gantry_scheduler::serve(&path, settings, async { stopped.await.unwrap_or(()) }).await
    });
    let address = loop {
        assert!(!served.is_finished(), "the scheduler ended: {:?}", served.await);
        if let Ok(text) = std::fs::read_to_string(folder.join("address")) {
            break text.trim().parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    Daemon { address, stop: Some(stop), served }
}

impl Daemon {
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

pub(crate) fn settings() -> SchedulerSettings {
    SchedulerSettings { listen: ([127, 0, 0, 1], 0).into(), ..SchedulerSettings::default() }
}

pub(crate) fn cluster() -> TempDir {
    let folder = TempDir::new().unwrap();
    gantry_scheduler::init(folder.path(), "test").unwrap();
    folder
}

pub(crate) async fn console(folder: &Path, daemon: &Daemon) -> Session {
    let identity = Identity::load(folder, "operator").unwrap();
    connect(daemon.address, &identity, Peer::Console).await.unwrap()
}

pub(crate) async fn ask(session: &Session, request: Request) -> Reply {
    let (mut sender, mut receiver) = session.connection.open().await.unwrap();
    sender.send(&request).await.unwrap();
    receiver.expect().await.unwrap()
}

pub(crate) fn submit(key: &str) -> Request {
    let work = Work::Command { arguments: vec!["true".into()], folder: None };
    Request::Submit { key: key.into(), spec: Box::new(JobSpec::new("job", work)) }
}

pub(crate) async fn joined(console: &Session, address: SocketAddr, node: &str) -> Identity {
    let Reply::Token(token) = ask(console, Request::Token { node: node.into() }).await else {
        panic!()
    };
    join(address, &token, node).await.unwrap()
}

pub(crate) async fn agent(daemon: &Daemon, identity: &Identity, holds: &[u64]) -> Session {
    let facts = NodeFacts {
        name: identity.name().unwrap(),
        roles: vec![Role::Cpu],
        resources: Resources { cores: 1, memory: MemoryMib(1024), gpus: 0, ..Resources::default() },
        gpu_reason: Some("no NVML".into()),
        agent_version: "test".into(),
        boot_id: "1".into(),
        ..NodeFacts::default()
    };
    greeted(daemon.address, identity, facts, holds).await
}

/// An agent's session that has said what its node is.
pub(crate) async fn greeted(
    address: SocketAddr,
    identity: &Identity,
    facts: NodeFacts,
    holds: &[u64],
) -> Session {
    let mut session = connect(address, identity, Peer::Agent).await.unwrap();
    let holds = holds.iter().map(|id| TryId(*id)).collect();
    session.sender.send(&AgentMessage::Up { facts: Box::new(facts), holds }).await.unwrap();
    session
}
