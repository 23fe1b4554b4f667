//! What the agent itself costs a node: processor time and memory at one sample a second.
//!
//! Run with `cargo test -p gantry-agent --bench cost`. The agent is a process of its own with a
//! session over real QUIC, whose other side only reads; its GPUs are those of a driver made for
//! tests, so that the driver's own time, which a real node spends too, is not in the figures. The
//! goal is at most 0.5 % of a core and 25 MB.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/daemon_support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod daemon_support;
#[path = "../tests/nvml/fake.rs"]
mod fake;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use daemon_support::{Bench, Scheduler, command, settings};
use fake::Fake;

/// How long each case is watched, after its start.
const WATCHED: Duration = Duration::from_secs(20);
/// A start costs more, and is not what a node pays every second.
const STARTING: Duration = Duration::from_secs(4);
/// Eight GPUs at work, each with a process.
const GPUS: u32 = 8;
/// Processes of the task of the last case.
const PROCESSES: u32 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [role] if role == "worker" => return gantry_agent::worker::run(),
        [role] if role == "supervise" => return gantry_agent::supervise::run(),
        [role, folder, scheduler, nvml] if role == "agent" => {
            serve(Path::new(folder), scheduler.parse().unwrap(), Path::new(nvml));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (what, gpus, processes) in [
        ("no GPU", 0, 0),
        ("8 GPUs", GPUS, 0),
        ("8 GPUs and a task of 200 processes", GPUS, PROCESSES),
    ] {
        runtime.block_on(case(what, gpus, processes));
    }
    ExitCode::SUCCESS
}

/// The agent.
fn serve(folder: &Path, scheduler: SocketAddr, nvml: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut settings = settings(scheduler);
    settings.nvml = Some(nvml.to_owned());
    runtime.block_on(gantry_agent::serve(folder, settings, std::future::pending())).unwrap();
}

/// What one process has used.
#[derive(Clone, Copy)]
struct Used {
    nanos: u64,
    resident_kib: u64,
}

impl Used {
    fn of(child: &Child) -> Self {
        let folder = format!("/proc/{}/task", child.id());
        // Nanoseconds on a core, thread by thread; those that have ended are few and short.
        let nanos = std::fs::read_dir(folder).unwrap().flatten().filter_map(|thread| {
            let line = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            line.split(' ').next()?.parse::<u64>().ok()
        });
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kib = resident.trim().split(' ').next().unwrap().parse().unwrap();
        Self { nanos: nanos.sum(), resident_kib }
    }
}

async fn case(what: &str, gpus: u32, processes: u32) {
    let bench = Bench::new();
    let scheduler = Scheduler::new(&bench, None);
    let mut nvml = "/nowhere/libnvidia-ml.so.1".into();
    let fake = if gpus > 0 { Fake::build(bench.folder()) } else { None };
    if let Some(fake) = &fake {
        fake.say(&format!("gpus {gpus}"));
        for gpu in 0..gpus {
            fake.say(&format!("busy {gpu} 930\nprocess {gpu} {} 70000", 4000 + gpu));
        }
        nvml = fake.library().to_owned();
    } else if gpus > 0 {
        return;
    }
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .arg("agent")
        .arg(bench.folder().join("agent"))
        .arg(scheduler.address().to_string())
        .arg(nvml)
        .spawn()
        .unwrap();
    let mut session = scheduler.session().await;
    if processes > 0 {
        let script = format!("for i in $(seq {}); do sleep 1000 & done; wait", processes - 1);
        session.launch(1, command(&["sh", "-c", &script]), None).await;
        session.started(1).await;
    }
    let until = Instant::now() + STARTING;
    while Instant::now() < until {
        session.any_sample().await;
    }
    let (from, begun, mut samples, mut told) = (Used::of(&agent), Instant::now(), 0, 0);
    while begun.elapsed() < WATCHED {
        let sample = session.any_sample().await;
        samples += 1;
        told = sample.running.first().map_or(0, |task| task.processes);
        assert_eq!(sample.gpus.len() as u32, gpus);
    }
    let (to, took) = (Used::of(&agent), begun.elapsed());
    let percent = (to.nanos - from.nanos) as f64 / took.as_nanos() as f64 * 100.0;
    println!(
        "{what}: {percent:.2} % of a core, {:.1} MB, {samples} samples in {:.0} s, {told} processes told",
        to.resident_kib as f64 / 1024.0,
        took.as_secs_f64(),
    );
    agent.kill().unwrap();
    agent.wait().unwrap();
}
