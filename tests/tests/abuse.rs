//! Callers who mean harm, on real sockets: half-open connections, dribbling peers, floods of
//! connections and streams, frames that are too long or never end, and names and paths that lead
//! elsewhere.
//!
//! Each is refused and counted, and while it goes on others are served: a question on an open
//! connection is answered within [`ANSWER_MAX`], and whoever calls anew is heard within
//! [`CALL_MAX`].
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_link::{Caller, Connection, Credentials, Identity, Session};
use gantry_model::{JobSpec, MemoryMib, NodeFacts, Resources, Role, Work};
use gantry_tests::page::MetricsPage;
use gantry_tests::{Cluster, peak_kib, until};
use gantry_wire::frame::{self, HEADER_BYTES};
use gantry_wire::{AgentMessage, Peer, Reply, Request};
use tokio::task::JoinSet;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// What a question may take while somebody does harm: a hundred times what it takes alone, for a
/// machine that does other things too.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The same with a handshake: the turns of 256 callers who do not go on are over in 0.2 s, and a
/// caller may have to prove its address first.
const CALL_MAX: Duration = Duration::from_secs(3);

/// A scheduler, and somebody who asks it questions.
struct Site {
    cluster: Cluster,
    identity: Identity,
    address: SocketAddr,
    metrics: MetricsPage,
    session: Session,
}

impl Site {
    async fn start() -> Result<Self> {
        let mut cluster = Cluster::start(PROGRAM)?;
        let metrics = MetricsPage::of(&mut cluster)?;
        let folder = cluster.folder().join("scheduler");
        let identity = Identity::load(&folder, "operator")?;
        let address = cluster.address()?;
        let session = gantry_link::connect(address, &identity, Peer::Console).await?;
        Ok(Self { cluster, identity, address, metrics, session })
    }

    /// Asks on the open connection and on a new one, and holds both to their times.
    async fn is_served(&self, during: &str) -> Result<()> {
        let begun = Instant::now();
        let reply = ask(&self.session.connection, &Request::Status).await?;
        let answered = begun.elapsed();
        ensure!(matches!(reply, Reply::Status(_)), "{reply:?}");
        let begun = Instant::now();
        let other = gantry_link::connect(self.address, &self.identity, Peer::Console).await;
        let other = other.with_context(|| format!("calling during {during}"))?;
        ask(&other.connection, &Request::Status).await?;
        let called = begun.elapsed();
        eprintln!("during {during}: answered in {answered:?}, a new caller in {called:?}");
        ensure!(answered <= ANSWER_MAX && called <= CALL_MAX, "{during}: {answered:?}, {called:?}");
        Ok(())
    }

    /// A number of the metrics page.
    fn counted(&self, name: &str, reason: &str) -> Result<u64> {
        let number = self.metrics.number(&format!("{name}_total{{reason=\"{reason}\"}}"))?;
        Ok(number as u64)
    }
}

async fn ask(connection: &Connection, request: &Request) -> Result<Reply> {
    let (mut sender, mut receiver) = connection.open().await?;
    sender.send(request).await?;
    Ok(receiver.expect().await?)
}

/// The first packets of so many callers, each of a call of its own.
async fn first_packets(identity: &Identity, count: usize) -> Result<Vec<Vec<u8>>> {
    // It answers nothing: the callers try again, and their first packets are what is wanted.
    let sink = UdpSocket::bind("127.0.0.1:0")?;
    sink.set_nonblocking(true)?;
    let sink = tokio::net::UdpSocket::from_std(sink)?;
    let caller = std::sync::Arc::new(Caller::new(sink.local_addr()?)?);
    let credentials = Credentials::new(identity)?;
    let mut calls = JoinSet::new();
    let mut packets = BTreeMap::new();
    let mut bytes = vec![0; 2048];
    while packets.len() < count {
        let (caller, credentials) = (caller.clone(), credentials.clone());
        calls.spawn(async move { caller.connect(&credentials, Peer::Console).await.is_ok() });
        let known = packets.len();
        while packets.len() == known {
            let length = sink.recv(&mut bytes).await?;
            let packet = &bytes[..length];
            // Each call has a connection id of its own, also where a packet of it comes again.
            let id = &packet[6..6 + usize::from(packet[5])];
            packets.entry(id.to_vec()).or_insert_with(|| packet.to_vec());
        }
    }
    calls.shutdown().await;
    Ok(packets.into_values().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_connections_keep_nobody_out() -> Result<()> {
    let site = Site::start().await?;
    let packets = first_packets(&site.identity, 1000).await?;
    // From one address; what is answered is not read.
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for packet in &packets {
        socket.send_to(packet, site.address)?;
    }
    site.is_served("1,000 half-open connections").await?;
    site.is_served("1,000 half-open connections").await?;
    let late = || site.counted("gantry_callers_turned_away", "late").ok().filter(|n| *n > 100);
    let late = until("the end of those that did not go on", late)?;
    // Above 256 a caller has to prove its address first, which these do not.
    ensure!(late <= 300, "{late} were half-open at once");
    let lines = site.cluster.log("scheduler");
    let lines = lines.lines().filter(|line| line.contains("was turned away")).count();
    ensure!((1..=10).contains(&lines), "{lines} lines of the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_dribble_and_floods_of_streams_slow_nobody_down() -> Result<()> {
    let site = Site::start().await?;
    let (caller, credentials) = (Caller::new(site.address)?, Credentials::new(&site.identity)?);
    let whole = frame::write(&Request::Status)?;
    let (mut sessions, mut dribbling) = (Vec::new(), JoinSet::new());
    for _ in 0..50 {
        let session = caller.connect(&credentials, Peer::Console).await?;
        // As many streams as one may have beside its first, each with one byte now and then.
        for _ in 0..63 {
            let (mut sender, receiver) = session.connection.open().await?;
            let bytes = whole.clone();
            dribbling.spawn(async move {
                for byte in &bytes[..bytes.len() - 1] {
                    if sender.send_written(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                drop(receiver);
            });
        }
        sessions.push(session);
    }
    site.is_served("3,150 streams that dribble").await?;
    // One more is not taken while those are open.
    let more = tokio::time::timeout(ANSWER_MAX, sessions[0].connection.open());
    ensure!(more.await.is_err(), "a 65th stream was opened");
    let late = || site.counted("gantry_requests_given_up", "late").ok().filter(|n| *n == 3150);
    until("the end of all streams", late)?;
    ask(&sessions[0].connection, &Request::Status).await.context("their streams are free again")?;
    dribbling.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_is_served_beside_others() -> Result<()> {
    let site = Site::start().await?;
    let caller = std::sync::Arc::new(Caller::new(site.address)?);
    let credentials = Credentials::new(&site.identity)?;
    let mut calls = JoinSet::new();
    for _ in 0..500 {
        let (caller, credentials) = (caller.clone(), credentials.clone());
        calls.spawn(async move { caller.connect(&credentials, Peer::Console).await });
    }
    site.is_served("500 calls at once").await?;
    let sessions = calls.join_all().await;
    let open = sessions.iter().filter(|session| session.is_ok()).count();
    ensure!(open >= 250, "{open} of 500 callers were heard");
    site.is_served("500 open connections").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_too_long_or_never_end_are_given_up() -> Result<()> {
    let site = Site::start().await?;
    let header = |length: u32| {
        let mut bytes = frame::write(&Request::Status).unwrap()[..HEADER_BYTES].to_vec();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let connection = &site.session.connection;
    // Longer than a frame may be, by one byte and by all there can be: nothing of it is read.
    for length in [64 * 1024 + 1, u32::MAX] {
        let (mut sender, mut receiver) = connection.open().await?;
        sender.send_written(&header(length)).await?;
        ensure!(receiver.expect::<Reply>().await.is_err(), "{length} bytes were answered");
    }
    // What goes on for ever is refused once a frame of it is there, and writing it fails.
    let (mut sender, mut receiver) = connection.open().await?;
    sender.send_written(&header(64 * 1024)).await?;
    let rubbish = vec![0xaa; 64 * 1024];
    let mut written = 0;
    while sender.send_written(&rubbish).await.is_ok() {
        written += rubbish.len();
        ensure!(written < 16 << 20, "an endless message is taken");
    }
    ensure!(receiver.expect::<Reply>().await.is_err(), "rubbish was answered");
    let malformed = || site.counted("gantry_requests_given_up", "malformed").ok();
    until("the count of all three", || malformed().filter(|count| *count == 3))?;
    site.is_served("malformed frames").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_message_of_an_agent_ends_its_connection_and_nothing_else() -> Result<()> {
    const NODE: &str = "endless";
    let site = Site::start().await?;
    let asked = ask(&site.session.connection, &Request::Token { node: NODE.into() }).await?;
    let Reply::Token(token) = asked else { anyhow::bail!("{asked:?}") };
    let identity = gantry_link::join(site.address, &token, NODE).await?;
    let scheduler = site.cluster.process("scheduler").context("no scheduler")?;
    let state = || -> Option<String> {
        let nodes = site.cluster.gantry.json(&["nodes"]).ok()?;
        let row = nodes.as_array()?.iter().find(|row| row["node"] == NODE)?;
        Some(row["state"].as_str()?.to_owned())
    };
    // A length that no frame may have, a frame without a meaning, and what is no frame.
    let up = AgentMessage::Up { facts: Box::new(facts(NODE)), holds: Vec::new() };
    let head = |length: u32| {
        let mut bytes = frame::write(&up).unwrap()[..HEADER_BYTES].to_vec();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let rubbish = vec![0xaa; 64 * 1024];
    for (what, begin, again) in [
        ("too long", head(u32::MAX), &rubbish),
        ("rubbish", head(64 * 1024), &rubbish),
        ("no frame", rubbish.clone(), &rubbish),
    ] {
        let mut session = gantry_link::connect(site.address, &identity, Peer::Agent).await?;
        session.sender.send(&up).await?;
        until("the node's start", || state().filter(|state| state == "up"))?;
        let before = peak_kib(scheduler)?;
        let mut written = 0;
        session.sender.send_written(&begin).await?;
        while session.sender.send_written(again).await.is_ok() {
            written += again.len();
            ensure!(written < 16 << 20, "{what}: an endless message is taken");
        }
        until("the node's end", || state().filter(|state| state != "up"))?;
        let more = peak_kib(scheduler)? - before;
        ensure!(more < 16 << 10, "{what}: the scheduler took {more} KiB for it");
        site.is_served(what).await?;
    }
    let said = site.cluster.log("scheduler");
    ensure!(said.contains("a session ended"), "nobody was told: {said}");
    Ok(())
}

fn facts(node: &str) -> NodeFacts {
    NodeFacts {
        name: node.into(),
        roles: vec![Role::Cpu],
        resources: Resources { cores: 1, memory: MemoryMib(1024), ..Resources::default() },
        gpu_reason: Some("no driver".into()),
        agent_version: "test".into(),
        boot_id: "1".into(),
        ..NodeFacts::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_beyond_all_limits_is_refused_and_kept_nowhere() -> Result<()> {
    let site = Site::start().await?;
    let spec = || {
        let work = Work::Command { arguments: vec!["true".into()], folder: None };
        JobSpec::new("job", work)
    };
    // As many as a frame takes; a million would take a hundred frames.
    let labels = JobSpec { labels: (0..10_000).map(|n| format!("l{n}")).collect(), ..spec() };
    let key = |n: u32| (format!("K{n}"), String::new());
    let environment = JobSpec { environment: (0..5000).map(key).collect(), ..spec() };
    let steering = spec();
    let names = ["\u{1b}[2J", "a\nb", "\u{7}"]
        .map(|name| JobSpec { name: name.into(), ..steering.clone() });
    for (spec, part) in [(labels, "10000 labels"), (environment, "5000 entries")]
        .into_iter()
        .chain(names.map(|spec| (spec, "control character")))
    {
        let request = Request::Submit { key: "k".into(), spec: Box::new(spec) };
        let reply = ask(&site.session.connection, &request).await?;
        let Reply::Refused(reject) = reply else { anyhow::bail!("{reply:?}") };
        ensure!(reject.sentence.contains(part), "{reject}");
        ensure!(!reject.sentence.contains('\u{1b}'), "{:?}", reject.sentence);
    }
    let million: BTreeMap<String, String> =
        (0..1_000_000).map(|n| (format!("K{n}"), String::new())).collect();
    let million = JobSpec { environment: million, ..spec() };
    let request = Request::Submit { key: "k".into(), spec: Box::new(million) };
    ensure!(ask(&site.session.connection, &request).await.is_err(), "no frame takes it");
    // The same from a file, which is looked at before it is read.
    let file = site.cluster.folder().join("million.toml");
    let labels: Vec<String> = (0..1_000_000).map(|n| format!("\"l{n}\"")).collect();
    std::fs::write(&file, format!("[[job]]\nlabels = [{}]\n", labels.join(",")))?;
    let file = file.display().to_string();
    let (code, sentence) = site.cluster.gantry.refusal(&["submit", &file])?;
    ensure!(code == 2 && sentence.contains("bytes"), "{code} {sentence}");
    let jobs = site.cluster.gantry.json(&["jobs"])?;
    ensure!(jobs.as_array().is_some_and(Vec::is_empty), "{jobs}");
    site.is_served("jobs beyond all limits").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_climbs_out_of_a_folder_makes_no_file() -> Result<()> {
    let site = Site::start().await?;
    let cluster = &site.cluster;
    let inside = cluster.folder().join("inside");
    std::fs::create_dir(&inside)?;
    let dir = inside.display().to_string();
    let address = site.address.to_string();
    for name in ["../climbed", "/tmp/climbed", ".hidden"] {
        let token = cluster.gantry.json(&["access", "token", name, "--role", "user"])?;
        let token = token["token"].as_str().context("no token")?.to_owned();
        let join = ["join", &token, "--user", name, "--scheduler", &address, "--dir", &dir];
        let (code, sentence) = cluster.gantry.refusal(&join)?;
        ensure!(code == 2 && sentence.contains("name of a file"), "{code} {sentence}");
    }
    ensure!(std::fs::read_dir(&inside)?.next().is_none(), "a file was made");
    ensure!(!cluster.folder().join("climbed.key").exists(), "it climbed");
    Ok(())
}
