//! The endpoint, alerts and the webhook of a whole daemon, read as a monitoring system reads them.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gantry_config::{DASHBOARD_FILE, RULES_FILE, SchedulerSettings, load};
use gantry_link::Session;
use gantry_model::health::{Finding, Sign, Trouble};
use gantry_model::{Gpu, Level, MemoryMib, NodeFacts, Resources, Role};
use gantry_telemetry::{
    Encoder, GpuSample, IngestCounts, LibraryCounts, Pressure, Sample, StorageSample,
};
use gantry_wire::{AgentMessage, NoteQuery, Reply, Request};
use support::{Daemon, ask, cluster, console, greeted, joined, start};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const WITHIN: Duration = Duration::from_secs(30);

/// An address that nobody listens at.
async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn agent(daemon: &Daemon, console: &Session) -> Session {
    let identity = joined(console, daemon.address, "gpu-1").await;
    let gpu = |uuid: &str| Gpu {
        uuid: uuid.into(),
        name: "A100".into(),
        memory: MemoryMib(40_960),
        ..Gpu::default()
    };
    let facts = NodeFacts {
        name: "gpu-1".into(),
        roles: vec![Role::Gpu],
        resources: Resources { cores: 8, memory: MemoryMib(1024), gpus: 2, ..Resources::default() },
        gpus: vec![gpu("GPU-a"), gpu("GPU-b")],
        agent_version: "test".into(),
        boot_id: "1".into(),
        ..NodeFacts::default()
    };
    greeted(daemon.address, &identity, facts, &[]).await
}

/// A sample with every reading there is.
fn sample() -> Sample {
    let gpu = |temperature| GpuSample {
        busy_permille: Some(875),
        memory_busy_permille: Some(500),
        memory_used_mib: Some(1024),
        temperature_c: Some(temperature),
        power_mw: Some(250_000),
        power_limit_mw: Some(400_000),
        clock_mhz: Some(1410),
        memory_clock_mhz: Some(1215),
        ecc_corrected: Some(12),
        ecc_uncorrected: Some(0),
        rows_remapped: Some(1),
        remap_pending: Some(false),
        remap_failed: Some(false),
        pcie_sent_kib: Some(1),
        pcie_received_kib: Some(2),
        pcie_replays: Some(3),
        nvlink_errors: Some(4),
        encoder_permille: Some(5),
        decoder_permille: Some(6),
        ..GpuSample::default()
    };
    Sample {
        cpu_permille: 250,
        load_centi: 125,
        memory_used_mib: 512,
        memory_total_mib: 1024,
        pressure: Some(Pressure::default()),
        disk_free_mib: 50_000,
        disk_total_mib: 100_000,
        network_received_kib: 10,
        storage: Some(StorageSample { answer_ms: Some(3), free_mib: Some(1000) }),
        driver_silent_s: Some(0),
        gpus: vec![gpu(60), gpu(91)],
        library: Some(LibraryCounts { series: 17, ..LibraryCounts::default() }),
        ingest: Some(IngestCounts { received: 23, ..IngestCounts::default() }),
        ..Sample::default()
    }
}

/// Reads a page with a plain TCP client; nothing where nobody listens yet.
async fn read(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), body.len());
    Some(body.to_owned())
}

/// Holds a page against the format and gives its points: names, with labels where there are any.
fn points(text: &str) -> BTreeMap<String, f64> {
    let (mut all, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut name, mut kind, mut helped) = (String::new(), String::new(), String::new());
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    for line in text.lines().filter(|line| *line != "# EOF") {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", of, help] => {
                assert!(!help.is_empty());
                of.clone_into(&mut helped);
            }
            ["#", "TYPE", of, is] => {
                assert!(families.insert(of.to_owned()), "{of} begins twice");
                assert_eq!(helped, of, "a family says what it is before its type");
                assert!(["gauge", "counter", "info"].contains(&is), "{line}");
                (name, kind) = (of.to_owned(), is.to_owned());
            }
            ["#", "UNIT", of, unit] => {
                assert!(of == name && name.ends_with(&format!("_{unit}")), "{line}");
            }
            _ => {
                let (point, value) = line.rsplit_once(' ').unwrap();
                let ending = match kind.as_str() {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let bare = point.split('{').next().unwrap();
                assert_eq!(bare, format!("{name}{ending}"), "{line}");
                assert!(bare.len() == point.len() || point.ends_with("\"}"), "{line}");
                let value: f64 = value.parse().unwrap();
                assert_eq!(all.insert(point.to_owned(), value), None, "{point} stands there twice");
            }
        }
    }
    all
}

/// The names that a file asks for.
fn asked_for(text: &str) -> BTreeSet<&str> {
    let rest = text.match_indices("gantry_").map(|(start, _)| &text[start..]);
    let end = |rest: &str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    rest.map(|rest| &rest[..end(rest).unwrap_or(rest.len())]).collect()
}

/// Takes one POST and gives its body.
async fn posted(hook: &TcpListener) -> String {
    let (mut stream, _) = hook.accept().await.unwrap();
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "it ended with {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn settings(metrics: SocketAddr, more: &str) -> (SchedulerSettings, String) {
    let text = format!("listen = \"127.0.0.1:0\"\nmetrics = \"{metrics}\"\n{more}");
    (load("scheduler.toml", &text).unwrap(), text)
}

/// Sends readings until the page has what follows from them too.
async fn seen(agent: &mut Session, metrics: SocketAddr) -> BTreeMap<String, f64> {
    let mut encoder = Encoder::default();
    let begun = Instant::now();
    loop {
        let reading = encoder.encode(&sample()).unwrap();
        agent.sender.send(&AgentMessage::Reading(Box::new(reading))).await.unwrap();
        let page = read(metrics, "/metrics").await.map(|text| points(&text)).unwrap_or_default();
        let there = |name: &str| page.keys().any(|point| point.starts_with(name));
        if there("gantry_alert{") && there("gantry_node_trouble{") {
            return page;
        }
        assert!(begun.elapsed() < WITHIN, "it never came: {page:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Holds the points of a page against the sample.
fn check_points(found: &BTreeMap<String, f64>) {
    let node = |name: &str| format!("gantry_node_{name}{{node=\"gpu-1\"}}");
    let gpu = |name: &str, index: u32| {
        let uuid = ["GPU-a", "GPU-b"][index as usize];
        format!("gantry_gpu_{name}{{node=\"gpu-1\",gpu=\"{index}\",uuid=\"{uuid}\"}}")
    };
    let about = |name: &str, labels: &str| format!("gantry_{name}{{node=\"gpu-1\",{labels}}}");
    for (point, value) in [
        ("gantry_nodes{state=\"up\"}".to_owned(), 1.0),
        ("gantry_nodes{state=\"lost\"}".into(), 0.0),
        ("gantry_jobs{state=\"wait\"}".into(), 0.0),
        ("gantry_cores".into(), 8.0),
        ("gantry_gpus".into(), 2.0),
        (node("up"), 1.0),
        (node("cpu_ratio"), 0.25),
        (node("memory_used_bytes"), 536_870_912.0),
        (gpu("busy_ratio", 0), 0.875),
        (gpu("power_watts", 1), 250.0),
        (gpu("temperature_celsius", 1), 91.0),
        (gpu("memory_size_bytes", 0), 42_949_672_960.0),
        (gpu("ecc_corrected_total", 0), 12.0),
        (about("library_records", "kind=\"series\""), 17.0),
        (about("dicom_instances_total", "result=\"stored\""), 23.0),
        (about("alert", "alert=\"hot\",gpu=\"1\""), 1.0),
        (about("node_trouble", "trouble=\"xid-gpu\",gpu=\"1\",uuid=\"GPU-b\""), 1.0),
    ] {
        assert_eq!(found.get(&point), Some(&value), "{point} in {found:#?}");
    }
    assert!(found[&node("sample_age_seconds")] < 30.0);
    let journal = |name: &str| found[&format!("gantry_journal_{name}_total")];
    assert!(journal("events") >= journal("syncs") && journal("syncs") >= 2.0, "{found:#?}");
    assert!(journal("written_bytes") > journal("events") && journal("sync_seconds") > 0.0);
}

/// Holds the shipped files against the names of a page.
fn check_shipped(found: &BTreeMap<String, f64>) {
    let names: BTreeSet<&str> = found.keys().filter_map(|point| point.split('{').next()).collect();
    for (file, text) in [("grafana.json", DASHBOARD_FILE), ("prometheus-rules.yml", RULES_FILE)] {
        let asked = asked_for(text);
        assert!(asked.len() > 5, "{file} asks for {asked:?}");
        let missing: Vec<_> = asked.difference(&names).collect();
        assert!(
            missing.is_empty(),
            "{file} asks for {missing:?}, which the endpoint does not give"
        );
    }
}

/// The alert is in the event log, and has been sent.
async fn check_alert(console: &Session, hook: &TcpListener) {
    let query = NoteQuery { text: Some("alert hot".into()), ..NoteQuery::default() };
    let Reply::Notes(page) = ask(console, Request::Notes { query }).await else { panic!() };
    let note = &page.rows[0].note;
    assert_eq!((page.rows.len(), note.level), (1, Level::Fail));
    assert!(note.sentence.contains("gpu-temperature of gpu 1 is 91 C"), "{}", note.sentence);
    let body = tokio::time::timeout(WITHIN, async {
        loop {
            let body = posted(hook).await;
            if body.contains("alert hot") {
                break body;
            }
        }
    });
    let body = body.await.unwrap();
    for part in ["\"cluster\":\"test\"", "\"level\":\"fail\"", "\"subject\":\"gpu-1\""] {
        assert!(body.contains(part), "{body} lacks {part}");
    }
}

#[tokio::test]
async fn a_monitoring_system_sees_the_whole_cluster() {
    let folder = cluster();
    let metrics = free().await;
    let (first, _) = settings(metrics, "");
    let daemon = start(folder.path(), first).await;
    let console = console(folder.path(), &daemon).await;

    // An alert and the webhook come with a reload, while the scheduler runs.
    let hook = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = format!(
        "webhook = \"http://{}/\"\n[[alert]]\nname = \"hot\"\nseries = \"gpu-temperature\"\n\
         above = 85\nlevel = \"fail\"\n",
        hook.local_addr().unwrap()
    );
    let (_, text) = settings(metrics, &more);
    std::fs::write(folder.path().join("scheduler.toml"), text).unwrap();
    assert_eq!(ask(&console, Request::Reload).await, Reply::Reloaded(Vec::new()));

    let mut agent = agent(&daemon, &console).await;
    let finding = Finding {
        trouble: Trouble::XidGpu,
        sign: Sign::Begun,
        gpu: Some("GPU-b".into()),
        detail: "XID 62".into(),
    };
    agent.sender.send(&AgentMessage::Found(finding)).await.unwrap();
    let found = seen(&mut agent, metrics).await;
    check_points(&found);
    check_shipped(&found);
    check_rules(folder.path());
    assert_eq!(read(metrics, "/healthz").await.unwrap(), "ok\n");
    check_alert(&console, &hook).await;
    daemon.stop().await;
    assert_eq!(read(metrics, "/metrics").await, None, "the endpoint ends with the scheduler");
}

/// Holds the rules against Prometheus' own tool, where it is installed.
fn check_rules(folder: &Path) {
    let path = folder.join("rules.yml");
    std::fs::write(&path, RULES_FILE).unwrap();
    match Command::new("promtool").args(["check", "rules"]).arg(&path).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => eprintln!("SKIPPED: promtool did not check the rules: {error}"),
    }
}

#[tokio::test]
async fn an_address_that_is_taken_keeps_the_scheduler_from_starting() {
    let folder = TempDir::new().unwrap();
    gantry_scheduler::init(folder.path(), "test").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (settings, _) = settings(taken.local_addr().unwrap(), "");
    let served = gantry_scheduler::serve(folder.path(), settings, std::future::pending());
    let error = served.await.unwrap_err().to_string();
    assert!(error.contains("choose another address for metrics"), "{error}");
}
