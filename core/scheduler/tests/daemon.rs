//! The daemon over real QUIC, with agents and consoles played by the test.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gantry_config::SchedulerSettings;
use gantry_link::{Identity, Session, connect, join};
use gantry_model::{
    Exit, JobId, JobSpec, JobState, Launch, MemoryMib, Millis, NodeFacts, Order, Report, Resources,
    Role, TryId, Work,
};
use gantry_scheduler::SchedulerError;
use gantry_wire::{AgentMessage, Peer, Reply, Request, SchedulerMessage, Scope, Update};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Daemon {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), SchedulerError>>,
}

async fn start(folder: &Path, settings: SchedulerSettings) -> Daemon {
    let _ = std::fs::remove_file(folder.join("address"));
    let (stop, stopped) = oneshot::channel::<()>();
    let path = folder.to_owned();
    let served = tokio::spawn(async move {
        gantry_scheduler::serve(&path, settings, async { stopped.await.unwrap_or(()) }).await
    });
    let address = loop {
        assert!(!served.is_finished(), "the scheduler ended");
        if let Ok(text) = std::fs::read_to_string(folder.join("address")) {
            break text.trim().parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    Daemon { address, stop: Some(stop), served }
}

impl Daemon {
    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

fn settings() -> SchedulerSettings {
    SchedulerSettings { listen: ([127, 0, 0, 1], 0).into(), ..SchedulerSettings::default() }
}

fn cluster() -> TempDir {
    let folder = TempDir::new().unwrap();
    gantry_scheduler::init(folder.path(), "test").unwrap();
    folder
}

async fn console(folder: &Path, daemon: &Daemon) -> Session {
    let identity = Identity::load(folder, "operator").unwrap();
    connect(daemon.address, &identity, Peer::Console).await.unwrap()
}

async fn ask(session: &Session, request: Request) -> Reply {
    let (mut sender, mut receiver) = session.connection.open().await.unwrap();
    sender.send(&request).await.unwrap();
    receiver.expect().await.unwrap()
}

fn submit(key: &str) -> Request {
    let work = Work::Command { arguments: vec!["true".into()], folder: None };
    Request::Submit { key: key.into(), spec: Box::new(JobSpec::new("job", work)) }
}

async fn joined(console: &Session, daemon: &Daemon, node: &str) -> Identity {
    let Reply::Token(token) = ask(console, Request::Token { node: node.into() }).await else {
        panic!()
    };
    join(daemon.address, &token, node).await.unwrap()
}

async fn agent(daemon: &Daemon, identity: &Identity, holds: &[u64]) -> Session {
    let mut session = connect(daemon.address, identity, Peer::Agent).await.unwrap();
    let facts = NodeFacts {
        name: identity.name().unwrap(),
        roles: vec![Role::Cpu],
        resources: Resources { cores: 1, memory: MemoryMib(1024), gpus: 0 },
        gpus: Vec::new(),
        gpu_reason: Some("no NVML".into()),
        agent_version: "test".into(),
        boot_id: "1".into(),
    };
    let holds = holds.iter().map(|id| TryId(*id)).collect();
    session.sender.send(&AgentMessage::Up { facts, holds }).await.unwrap();
    session
}

async fn launch(session: &mut Session) -> Launch {
    loop {
        let SchedulerMessage::Order(order) = session.receiver.expect().await.unwrap();
        if let Order::Launch(launch) = order {
            return *launch;
        }
    }
}

async fn report(session: &mut Session, report: Report) {
    session.sender.send(&AgentMessage::Report(report)).await.unwrap();
}

#[tokio::test]
async fn a_job_goes_to_an_agent_and_its_end_to_whoever_waits() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let identity = joined(&console, &daemon, "cpu-1").await;
    let mut agent = agent(&daemon, &identity, &[]).await;
    assert_eq!(ask(&console, submit("k")).await, Reply::Submitted(JobId(1)));
    assert_eq!(ask(&console, submit("k")).await, Reply::Submitted(JobId(1)), "the same key");
    let launched = launch(&mut agent).await;
    assert_eq!((launched.task, launched.user.as_str()), (JobId(1).task(0), "operator"));
    let try_id = launched.try_id;
    report(&mut agent, Report::Started { try_id }).await;
    report(&mut agent, Report::Ended { try_id, exit: Exit::Code(7) }).await;
    let Reply::Job(row) = ask(&console, Request::Wait { job: JobId(1) }).await else { panic!() };
    assert_eq!((row.state, row.exit), (JobState::Fail, Some(Exit::Code(7))));
    let SchedulerMessage::Order(order) = agent.receiver.expect().await.unwrap();
    assert_eq!(order, Order::Acknowledge { try_id });
    let Reply::Refused(reject) = ask(&console, Request::Job { job: JobId(9) }).await else {
        panic!()
    };
    assert!(reject.sentence.contains("j9"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_restart_forgets_nothing_and_takes_back_what_nodes_hold() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let first = console(folder.path(), &daemon).await;
    let identity = joined(&first, &daemon, "cpu-1").await;
    let mut session = agent(&daemon, &identity, &[]).await;
    for key in ["a", "b", "c"] {
        ask(&first, submit(key)).await;
    }
    let try_id = launch(&mut session).await.try_id;
    report(&mut session, Report::Started { try_id }).await;
    daemon.stop().await;

    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    assert_eq!(ask(&console, submit("b")).await, Reply::Submitted(JobId(2)), "keys are known");
    let mut session = agent(&daemon, &identity, &[try_id.0]).await;
    report(&mut session, Report::Ended { try_id, exit: Exit::Code(0) }).await;
    let Reply::Job(row) = ask(&console, Request::Wait { job: JobId(1) }).await else { panic!() };
    assert_eq!((row.state, row.starts), (JobState::Done, 1), "it was not run again");
    assert_eq!(launch(&mut session).await.task, JobId(2).task(0));
    daemon.stop().await;
}

#[tokio::test]
async fn tokens_and_certificates_are_good_for_what_they_were_made_for() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let console = console(folder.path(), &daemon).await;
    let Reply::Token(token) = ask(&console, Request::Token { node: "cpu-1".into() }).await else {
        panic!()
    };
    let error = join(daemon.address, &token, "cpu-2").await.unwrap_err().to_string();
    assert!(error.contains("another node"), "{error}");
    let attempts = (0..8).map(|_| join(daemon.address, &token, "cpu-1"));
    let mut redeemed = Vec::new();
    for attempt in attempts {
        redeemed.extend(attempt.await.ok());
    }
    assert_eq!(redeemed.len(), 1, "a token is used once");
    let refused = connect(daemon.address, &redeemed[0], Peer::Console).await.unwrap_err();
    assert!(refused.to_string().contains("operator"), "{refused}");
    // An agent that speaks for another node is turned away.
    let mut session = connect(daemon.address, &redeemed[0], Peer::Agent).await.unwrap();
    let facts = NodeFacts {
        name: "cpu-9".into(),
        roles: Vec::new(),
        resources: Resources::default(),
        gpus: Vec::new(),
        gpu_reason: None,
        agent_version: String::new(),
        boot_id: String::new(),
    };
    session.sender.send(&AgentMessage::Up { facts, holds: Vec::new() }).await.unwrap();
    let reason = session.connection.closed().await;
    assert!(reason.contains("own node"), "{reason}");
    let Reply::Nodes(nodes) = ask(&console, Request::Nodes).await else { panic!() };
    assert!(nodes.is_empty());
    daemon.stop().await;

    let expired = SchedulerSettings { token_valid: Millis(0), ..settings() };
    let daemon = start(folder.path(), expired).await;
    let console = self::console(folder.path(), &daemon).await;
    let Reply::Token(token) = ask(&console, Request::Token { node: "cpu-3".into() }).await else {
        panic!()
    };
    tokio::time::sleep(Duration::from_millis(5)).await;
    let error = join(daemon.address, &token, "cpu-3").await.unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_console_gets_pictures_and_one_that_does_not_read_harms_nobody() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let watcher = console(folder.path(), &daemon).await;
    let stuck: Vec<_> = {
        let mut streams = Vec::new();
        for _ in 0..8 {
            let (mut sender, receiver) = watcher.connection.open().await.unwrap();
            sender.send(&Request::Watch { scope: Scope::Jobs }).await.unwrap();
            streams.push((sender, receiver));
        }
        streams
    };
    let (mut sender, mut receiver) = watcher.connection.open().await.unwrap();
    sender.send(&Request::Watch { scope: Scope::Overview }).await.unwrap();
    let first: Update = receiver.expect().await.unwrap();
    assert_eq!((first.cluster.as_str(), first.summary.nodes), ("test", 0));
    let identity = joined(&watcher, &daemon, "cpu-1").await;
    let _agent = agent(&daemon, &identity, &[]).await;
    let start = Instant::now();
    loop {
        let update: Update = receiver.expect().await.unwrap();
        if update.summary.nodes_up == 1 {
            assert_eq!(update.nodes[0].row.facts.name, "cpu-1");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    drop(stuck);
    daemon.stop().await;
}

#[tokio::test]
async fn a_second_scheduler_and_a_folder_without_a_cluster_are_sentences() {
    let folder = cluster();
    let daemon = start(folder.path(), settings()).await;
    let error = gantry_scheduler::serve(folder.path(), settings(), std::future::pending()).await;
    assert!(error.unwrap_err().to_string().contains("another scheduler"));
    daemon.stop().await;
    let empty = TempDir::new().unwrap();
    let error = gantry_scheduler::serve(empty.path(), settings(), std::future::pending()).await;
    assert!(error.unwrap_err().to_string().contains("init"));
    let error = gantry_scheduler::init(folder.path(), "again").unwrap_err().to_string();
    assert!(error.contains("already holds one"), "{error}");
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    let mount = TempDir::new().unwrap();
    let path = mount.path().display().to_string();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs", &path])
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: a full disk needs the right to mount a small tmpfs");
        return;
    }
    let folder = mount.path().join("scheduler");
    gantry_scheduler::init(&folder, "test").unwrap();
    let daemon = start(&folder, settings()).await;
    let console = console(&folder, &daemon).await;
    let filler = mount.path().join("filler");
    std::fs::write(&filler, vec![0; 1 << 20]).unwrap();
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in 0..400 {
        let mut request = submit(&format!("k{n}"));
        if let Request::Submit { spec, .. } = &mut request {
            spec.environment.insert("PAD".into(), "x".repeat(10_000));
        }
        match ask(&console, request).await {
            Reply::Submitted(job) => acknowledged.push(job),
            Reply::Refused(reject) => {
                assert!(reject.sentence.contains("disk is full"), "{reject}");
                refused += 1;
                if refused == 3 {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 3, "the disk was never full");
    std::fs::remove_file(&filler).unwrap();
    assert!(matches!(ask(&console, submit("later")).await, Reply::Submitted(_)), "it goes on");
    daemon.stop().await;
    let daemon = start(&folder, settings()).await;
    let console = self::console(&folder, &daemon).await;
    for job in acknowledged {
        assert!(
            matches!(ask(&console, Request::Job { job }).await, Reply::Job(_)),
            "{job} is lost"
        );
    }
    daemon.stop().await;
    Command::new("umount").args(["-l", &path]).output().unwrap();
}
