//! Traces of real jobs: what a real scheduler exports to a collector, read by OpenTelemetry's own
//! messages; and what a collector that is away, slow or refuses does to the scheduler, which is
//! nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_tests::page::MetricsPage;
use gantry_tests::{Cluster, free_ports, python, until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

/// What a collector does with requests.
#[derive(Clone, Copy)]
enum Does {
    Takes,
    /// Refuses them for good.
    Refuses,
    /// Reads them and says nothing for as long as the caller stays.
    Hangs,
}

/// A collector of traces over HTTP.
struct Collector {
    address: SocketAddr,
    /// The bodies of all requests so far.
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start(does: Does) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A caller that leaves in the middle has said nothing.
                let _ = serve(stream, does, &kept);
            }
        });
        Ok(Self { address, bodies })
    }

    /// The spans of all requests so far, as another program reads them.
    fn spans(&self, python: &Path, folder: &Path) -> Result<Vec<Value>> {
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/spans.py"));
        for (number, body) in self.bodies.lock().unwrap().iter().enumerate() {
            let path = folder.join(format!("request-{number}"));
            std::fs::write(&path, body)?;
            command.arg(path);
        }
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn serve(stream: TcpStream, does: Does, bodies: &Mutex<Vec<Vec<u8>>>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line)? > 2 {
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse()?,
            "content-type" => ensure!(value.trim() == "application/x-protobuf", "{value}"),
            _ => {}
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    bodies.lock().unwrap().push(body);
    let mut stream = reader.into_inner();
    let status = match does {
        Does::Takes => "200 OK",
        Does::Refuses => "400 Bad Request",
        Does::Hangs => {
            stream.read_exact(&mut [0])?;
            return Ok(());
        }
    };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    Ok(())
}

/// A cluster of one node whose traces go to a collector.
struct Traced {
    cluster: Cluster,
    metrics: MetricsPage,
}

impl Traced {
    fn start(collector: SocketAddr) -> Result<Self> {
        let mut cluster = Cluster::start(PROGRAM)?;
        let endpoint = format!("http://{collector}/v1/traces");
        let variable = ("GANTRY_SET_TRACES_ENDPOINT".to_owned(), endpoint);
        cluster.set_environment("scheduler", [variable]);
        let metrics = MetricsPage::of(&mut cluster)?;
        cluster.join("node-1", "")?;
        Ok(Self { cluster, metrics })
    }

    /// What has become of spans: sent, dropped, waiting.
    fn counts(&self) -> Result<[u64; 3]> {
        let number = |name: &str| self.metrics.number(name).map(|number| number as u64);
        Ok([
            number("gantry_traces_sent_total")?,
            number("gantry_traces_dropped_total")?,
            number("gantry_traces_waiting")?,
        ])
    }

    fn until_counts(&self, what: &str, wanted: impl Fn([u64; 3]) -> bool) -> Result<[u64; 3]> {
        until(what, || self.counts().ok().filter(|counts| wanted(*counts)))
            .with_context(|| self.cluster.log("scheduler"))
    }

    /// Runs a job to its end; gives its exit code.
    fn run(&self, words: &[&str]) -> Result<Option<i32>> {
        Ok(self.cluster.gantry.run(&[&["submit", "--wait"], words].concat())?.status.code())
    }
}

fn nanoseconds(span: &Value, key: &str) -> u64 {
    span[key].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_real_job_with_a_retry_is_one_trace_in_another_programs_eyes() -> Result<()> {
    let Some(python) = python(&["opentelemetry.proto.trace.v1.trace_pb2"], "reading traces") else {
        return Ok(());
    };
    let collector = Collector::start(Does::Takes)?;
    let traced = Traced::start(collector.address)?;
    let gantry = &traced.cluster.gantry;
    let script = "echo \"$TRACEPARENT\"; test -n \"$GANTRY_RESUME\" || exit 3";
    let code = traced.run(&[
        "--name",
        "patient-7",
        "--retries",
        "1",
        "--env",
        "WHO=patient-8",
        "--",
        "sh",
        "-c",
        script,
        "patient-9",
    ])?;
    ensure!(code == Some(0), "{code:?}: {}", traced.cluster.log("scheduler"));
    traced.until_counts("five spans are sent", |counts| counts == [5, 0, 0])?;
    let spans = collector.spans(&python, traced.cluster.folder())?;

    let named: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(named, ["wait", "try", "wait", "try", "job command"], "{spans:#?}");
    let root = &spans[4];
    assert_eq!(root["parentSpanId"], "");
    for span in &spans[..4] {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&root["traceId"], &root["spanId"]));
    }
    // One begins where the one before ends, and all are within the job.
    let (start, end) = ("startTimeUnixNano", "endTimeUnixNano");
    for pair in spans[..4].windows(2) {
        assert_eq!(nanoseconds(&pair[0], end), nanoseconds(&pair[1], start), "{spans:#?}");
    }
    assert_eq!(nanoseconds(&spans[0], start), nanoseconds(root, start));
    assert_eq!(nanoseconds(&spans[3], end), nanoseconds(root, end));
    assert!(spans[..4].iter().all(|span| nanoseconds(span, start) <= nanoseconds(span, end)));
    let waited = nanoseconds(&spans[2], end) - nanoseconds(&spans[2], start);
    assert!(waited >= 1_000_000_000, "the second start comes after a second: {waited}");
    // They are the times that gantry itself tells.
    let row = gantry.json(&["job", "j1"])?;
    for (key, of) in [("submitted_ms", start), ("ended_ms", end)] {
        let told = row[key].as_u64().with_context(|| row.to_string())? * 1_000_000;
        assert_eq!(nanoseconds(root, of), told, "{key}");
    }

    let statuses: Vec<Option<&str>> =
        spans.iter().map(|span| span["status"]["code"].as_str()).collect();
    let (ok, error) = (Some("STATUS_CODE_OK"), Some("STATUS_CODE_ERROR"));
    assert_eq!(statuses, [None, error, None, ok, ok]);
    assert_eq!(spans[1]["status"]["message"], "exit 3");
    for (span, key, expected) in [
        (&spans[1], "error.type", Value::from("exit")),
        (&spans[1], "process.exit.code", "3".into()),
        (&spans[1], "gantry.try.again", true.into()),
        (&spans[3], "gantry.try.again", false.into()),
        (&spans[3], "gantry.node", "node-1".into()),
        (&spans[3], "gantry.try.start", "2".into()),
        (root, "gantry.job.id", "j1".into()),
        (root, "gantry.job.starts", "2".into()),
        (root, "gantry.user", "operator".into()),
        (root, "resource service.name", "gantry".into()),
        (root, "resource gantry.cluster", "test".into()),
    ] {
        assert_eq!(span["attributes"][key], expected, "{key}: {span:#?}");
    }

    // The program was told the span of its own execution.
    let log = gantry.run(&["logs", "j1"])?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let parent = |span: &Value| {
        let text = |key: &str| span[key].as_str().unwrap().to_owned();
        format!("00-{}-{}-01", text("traceId"), text("spanId"))
    };
    assert!(log.contains(&parent(&spans[3])), "{log}");

    // What a person wrote has not left the scheduler.
    let sent = collector.bodies.lock().unwrap().concat();
    for written in ["patient", "TRACEPARENT", "sh\0", "echo"] {
        let found = sent.windows(written.len()).any(|bytes| bytes == written.as_bytes());
        assert!(!found, "{written:?} was sent");
    }
    Ok(())
}

#[test]
fn a_killed_scheduler_goes_on_with_the_same_trace() -> Result<()> {
    let Some(python) = python(&["opentelemetry.proto.trace.v1.trace_pb2"], "reading traces") else {
        return Ok(());
    };
    let collector = Collector::start(Does::Takes)?;
    let mut traced = Traced::start(collector.address)?;
    let go_on = traced.cluster.folder().join("go-on");
    let waits = format!("until test -e {}; do sleep 0.05; done", go_on.display());
    let script = format!("test -n \"$GANTRY_RESUME\" || exit 3; {waits}");
    let words = ["submit", "--retries", "1", "--", "sh", "-c", &script];
    traced.cluster.gantry.json(&words)?;
    traced.until_counts("the first execution is sent", |counts| counts == [2, 0, 0])?;
    traced.cluster.kill_scheduler();
    traced.cluster.start_scheduler()?;
    std::fs::write(go_on, "")?;
    until("the root is there", || {
        let spans = collector.spans(&python, traced.cluster.folder()).ok()?;
        spans.iter().any(|span| span["name"] == "job command").then_some(())
    })?;
    let spans = collector.spans(&python, traced.cluster.folder())?;
    // Since when the second one waited was known to the scheduler alone that is gone.
    let named: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(named, ["wait", "try", "try", "job command"], "{spans:#?}");
    let root = &spans[3];
    for span in &spans[..3] {
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&root["traceId"], &root["spanId"]));
    }
    Ok(())
}

#[test]
fn a_collector_that_is_away_or_slow_or_refuses_harms_nothing() -> Result<()> {
    let away: SocketAddr = ([127, 0, 0, 1], free_ports()?.1).into();
    let slow = Collector::start(Does::Hangs)?;
    let refusing = Collector::start(Does::Refuses)?;
    for (what, address, dropped) in
        [("away", away, 0), ("slow", slow.address, 0), ("refusing", refusing.address, 9)]
    {
        let mut traced = Traced::start(address)?;
        let begun = Instant::now();
        for job in 0..3 {
            assert_eq!(traced.run(&["--", "true"])?, Some(0), "job {job} with a collector {what}");
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "three jobs took {took:?}, a collector {what}");
        // Three spans each: some wait for the collector, or are given up and counted.
        traced.until_counts(what, |[sent, lost, waiting]| {
            sent == 0 && lost == dropped && waiting == 9 - dropped
        })?;
        if dropped > 0 {
            let log = traced.cluster.log("scheduler");
            let said = log.matches("did not take spans: it answered 400").count();
            assert_eq!(said, 1, "one line for one outage: {log}");
            assert!(!log.contains("/v1/traces\""), "its address is not told: {log}");
        }
        // Nor does it hold up the end.
        let begun = Instant::now();
        traced.cluster.stop_scheduler()?;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(15), "the end took {took:?}, a collector {what}");
    }
    Ok(())
}
