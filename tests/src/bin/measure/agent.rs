//! What an agent takes of its node: processor time and memory, while it reads everything once a
//! second and nothing runs. The node has 8 GPUs by a driver that is made for tests, so that their
//! readings are part of the cost.
//!
//! Beside it stands the node exporter of Prometheus where it is installed, asked once a second for
//! all it knows, at the same time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_tests::{free_ports, until};

use crate::Size;
use crate::fake::Fake;
use crate::report::{Goal, Peer, Row};
use crate::samples::GPUS;
use crate::served::{Served, processor_ms_of};
use crate::statistics::{median, memory};

/// Seconds of a round.
const SECONDS: u32 = 20;
const PROCESSOR_PERCENT: f64 = 0.5;
const MEMORY_MB: f64 = 25.0;
const AGENT: [&str; 2] = ["agent", "--exit-with-parent"];
const EXPORTER: &str = "prometheus-node-exporter";

/// What a process took in each round.
#[derive(Default)]
struct Taken {
    /// Processor time, in hundredths of a core.
    percent: Vec<f64>,
    /// Memory at the end of the round, in MB.
    memory_mb: Vec<f64>,
}

impl Taken {
    fn add(&mut self, before_ms: f64, after_ms: f64, seconds: f64, process: &str) -> Result<()> {
        self.percent.push((after_ms - before_ms) / (seconds * 10.0));
        self.memory_mb.push(memory(process, "VmRSS")? as f64 / 1e6);
        Ok(())
    }
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let mut served = Served::start()?;
    let driver = Fake::build(served.cluster.folder());
    let gpus = if let Some(driver) = &driver {
        driver.say(&format!("gpus {GPUS}"));
        (0..GPUS).for_each(|gpu| driver.say(&at_work(gpu)));
        GPUS
    } else {
        0
    };
    let nvml = driver.as_ref().map(|driver| format!("nvml = \"{}\"\n", driver.library().display()));
    let settings = format!("{}cores = 8\nmemory = \"8G\"\nworkers = 1", nvml.unwrap_or_default());
    served.cluster.join("gpu-1", &settings)?;
    until("a sample of all GPUs", || {
        let nodes = served.nodes().ok()?;
        (nodes.first()?.sample.as_ref()?.gpus.len() == gpus).then_some(())
    })?;
    let agent = process(&served, &AGENT)?;
    let exporter = Exporter::start()?;
    let (mut ours, mut theirs) = (Taken::default(), Taken::default());
    for _ in 0..size.rounds() {
        let start = Instant::now();
        let before = processor_ms_of(&agent)?;
        let before_theirs = exporter.as_ref().map(Exporter::processor_ms).transpose()?;
        for second in 1..=size.count.unwrap_or(SECONDS) {
            if let Some(exporter) = &exporter {
                exporter.ask()?;
            }
            // The rate is what is measured.
            let next = Duration::from_secs(second.into());
            std::thread::sleep(next.saturating_sub(start.elapsed()));
        }
        let seconds = start.elapsed().as_secs_f64();
        ours.add(before, processor_ms_of(&agent)?, seconds, &agent)?;
        if let (Some(exporter), Some(before)) = (&exporter, before_theirs) {
            theirs.add(before, exporter.processor_ms()?, seconds, &exporter.process())?;
        }
    }
    ensure!(served.nodes()?.len() == 1, "the node was lost while it was measured");
    rows(&served, gpus, &ours, exporter.is_some().then_some(&theirs))
}

fn rows(served: &Served, gpus: usize, ours: &Taken, theirs: Option<&Taken>) -> Result<Vec<Row>> {
    let peer = |of: fn(&Taken) -> &Vec<f64>| {
        let value = median(of(theirs?));
        Some(Peer { name: "node exporter".to_owned(), value })
    };
    let mut rows = vec![
        Row::new(
            format!("agent, {gpus} GPUs, 1 sample/s, processor time"),
            "% of a core",
            median(&ours.percent),
        )
        .peer(peer(|taken| &taken.percent))
        .goal(Goal::AtMost(PROCESSOR_PERCENT)),
        Row::new("agent, memory", "MB", median(&ours.memory_mb))
            .peer(peer(|taken| &taken.memory_mb))
            .goal(Goal::AtMost(MEMORY_MB)),
    ];
    for (what, word) in [("supervisor, memory", "supervise"), ("a warm worker, memory", "worker")] {
        let found = served.processes(&[word])?;
        if let Some(process) = found.first() {
            let bytes = memory(&process.as_raw_nonzero().to_string(), "VmRSS")?;
            rows.push(Row::new(what, "MB", bytes as f64 / 1e6));
        }
    }
    Ok(rows)
}

fn process(served: &Served, words: &[&str]) -> Result<String> {
    let found = served.processes(words)?;
    let process = found.first().with_context(|| format!("no process of {words:?}"))?;
    Ok(process.as_raw_nonzero().to_string())
}

/// A GPU in training.
fn at_work(gpu: usize) -> String {
    [
        "busy G 930",
        "memory_busy G 410",
        "memory_used G 61500",
        "temperature G 61",
        "power G 512000",
        "power_limit G 700000",
        "clock G 1845",
        "memory_clock G 2619",
        "process G 4711 61000",
    ]
    .join("\n")
    .replace('G', &gpu.to_string())
}

/// Prometheus' node exporter.
struct Exporter {
    child: Child,
    address: SocketAddr,
}

impl Exporter {
    /// Starts it; nothing where it is not installed.
    fn start() -> Result<Option<Self>> {
        let (_, port) = free_ports()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = Command::new(EXPORTER);
        command.arg(format!("--web.listen-address={address}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else { return Ok(None) };
        let exporter = Self { child, address };
        until("the node exporter's first answer", || exporter.ask().ok())?;
        Ok(Some(exporter))
    }

    fn process(&self) -> String {
        self.child.id().to_string()
    }

    fn processor_ms(&self) -> Result<f64> {
        processor_ms_of(&self.process())
    }

    /// Asks for all it knows, as Prometheus does.
    fn ask(&self) -> Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(answer.starts_with(b"HTTP/1.0 200"), "{EXPORTER} gave no metrics");
        Ok(())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
