//! What else runs tasks on this machine: a bare loop, `HyperQueue`, Slurm.
//!
//! The bare loop is the machine's limit. A peer is started here, given the same work and stopped
//! again; where it is not installed there is no number. `HyperQueue` is an `hq`, named or on PATH,
//! or the Python package `hyperqueue`, which brings server and worker as a library. Slurm is used as it
//! is configured on this host, or started with one node and no other limit than its own (`--slurm`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use gantry_tests::slurm::Slurm;
use gantry_tests::until;
use tempfile::TempDir;

use crate::Size;
use crate::report::Peer;
use crate::statistics::{median, over_rounds, seconds};

/// Elements of one array that Slurm takes as it is shipped.
const SLURM_ARRAY_MAX: u32 = 1000;
/// Slots that a Slurm of our own has. Its speed rises with them: with as many as the others are given it
/// would do a twentieth.
const SLURM_SLOTS: u32 = 512;
/// Elements by which its speed is judged, and the seconds that a round may take.
const SLURM_FIRST: u32 = 20;
const SLURM_ROUND_S: f64 = 15.0;

/// Server, worker and job within one Python process; prints the seconds from the submit until the
/// last task has ended. The package itself looks for the end once a second, which is too coarse:
/// a task that waits for all others writes down when it runs.
const LIBRARY: &str = "
import sys, time
from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.job import Job
count, cores, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with LocalCluster(server_dir=folder) as cluster:
    cluster.start_worker(WorkerConfig(cores=cores))
    client = cluster.client()
    def run(count, name):
        job, path = Job(), folder + '/' + name
        tasks = [job.program(['true'], stdout=None, stderr=None) for _ in range(count)]
        job.program(['date', '+%s%N'], stdout=path, stderr=None, deps=tasks)
        begun = time.time_ns()
        submitted = client.submit(job)
        client.connection.wait_for_jobs((submitted.id,), lambda jobs: None)
        return (int(open(path).read()) - begun) / 1e9
    run(1, 'first')
    print('took', run(count, 'second'))
";

/// Starts `true` so often and waits for each, with so many at once.
pub(crate) fn bare_loop(count: u32, at_once: u32) -> Result<f64> {
    let next = AtomicU32::new(0);
    let one = || -> Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            ensure!(quiet(&mut Command::new("true")).status()?.success(), "true failed");
        }
        Ok(())
    };
    let took = seconds(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one)).collect();
            for thread in threads {
                let ended = thread.join();
                ended.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the loop panicked")))?;
            }
            anyhow::Ok(())
        })
    })?;
    Ok(f64::from(count) / took)
}

/// `true` processes per second of every peer that is installed.
pub(crate) fn tasks(size: &Size, count: u32, slots: u32) -> Result<(Option<Peer>, Option<Peer>)> {
    let rate = |took: f64| f64::from(count) / took;
    let hyperqueue = match HyperQueue::start(size, slots)? {
        Some(server) => {
            let took = over_rounds(size.rounds(), || server.array(count))?;
            Some(Peer { name: server.name.clone(), value: rate(took) })
        }
        None => library(size, count, slots)?.map(|(name, took)| Peer { name, value: rate(took) }),
    };
    Ok((hyperqueue, slurm(size, count)?))
}

/// Milliseconds from the start of a command that submits `true` until it has seen its end.
pub(crate) fn round_trip(size: &Size, count: u32) -> Result<Option<Peer>> {
    let Some(server) = HyperQueue::start(size, 1)? else { return Ok(None) };
    let mut took = Vec::new();
    for _ in 0..count {
        took.push(server.array(1)? * 1000.0);
    }
    Ok(Some(Peer { name: server.name.clone(), value: median(&took) }))
}

/// Milliseconds of `squeue` with so many jobs that wait.
pub(crate) fn queue(size: &Size, count: u32) -> Result<Option<Peer>> {
    let Some(slurm) = SlurmPeer::find(size, 1)? else { return Ok(None) };
    let mut jobs = Vec::new();
    for first in (0..count).step_by(SLURM_ARRAY_MAX as usize) {
        let last = (count - first).min(SLURM_ARRAY_MAX) - 1;
        let array = format!("--array=0-{last}");
        let arguments = ["--hold", "--parsable", &array, "--output=/dev/null", "--wrap", "true"];
        jobs.push(printed(slurm.command("sbatch").args(arguments)).context("Slurm took no job")?);
    }
    let mut rounds = Vec::new();
    for _ in 0..size.rounds() {
        // An array that waits is one line unless each element is wanted.
        let mut command = slurm.command("squeue");
        command.args(["--array", "--noheader", "--jobs", &jobs.join(",")]);
        rounds.push(crate::cli::printed(command, count)?);
    }
    ensure!(quiet(slurm.command("scancel").args(&jobs)).status()?.success(), "scancel failed");
    Ok(Some(Peer { name: slurm.name, value: median(&rounds) }))
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// What a command prints; nothing where it is not installed or fails.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A server of `HyperQueue` with one worker; both end with this value.
struct HyperQueue {
    name: String,
    program: PathBuf,
    folder: TempDir,
    processes: Vec<Child>,
}

impl HyperQueue {
    fn start(size: &Size, slots: u32) -> Result<Option<Self>> {
        let program = size.hq.clone().unwrap_or_else(|| "hq".into());
        let Some(name) = printed(Command::new(&program).arg("--version")) else {
            return Ok(None);
        };
        let mut server = Self { name, program, folder: TempDir::new()?, processes: Vec::new() };
        let journal = server.folder.path().join("journal").display().to_string();
        server.spawn(&["server", "start", "--journal", &journal])?;
        until("HyperQueue's first answer", || printed(&mut server.command(&["server", "info"])))?;
        server.spawn(&["worker", "start", "--cpus", &slots.to_string()])?;
        server.array(1)?;
        Ok(Some(server))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--server-dir").arg(self.folder.path()).args(arguments);
        command
    }

    fn spawn(&mut self, arguments: &[&str]) -> Result<()> {
        let child = quiet(&mut self.command(arguments)).spawn().context("starting HyperQueue")?;
        self.processes.push(child);
        Ok(())
    }

    /// Seconds of a command that submits so many `true` and waits for them.
    fn array(&self, count: u32) -> Result<f64> {
        let array = format!("1-{count}");
        let arguments =
            ["submit", "--wait", "--array", &array, "--stdout", "none", "--stderr", "none", "true"];
        let took = seconds(|| {
            let ended = quiet(&mut self.command(&arguments)).status()?;
            ensure!(ended.success(), "HyperQueue did not run an array of {count}");
            Ok(())
        })?;
        Ok(took)
    }
}

impl Drop for HyperQueue {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The Python package: its name, and the seconds it took.
fn library(size: &Size, count: u32, slots: u32) -> Result<Option<(String, f64)>> {
    let python = size.python.as_deref().unwrap_or(Path::new("python3"));
    let version = "import importlib.metadata as m; print(m.version('hyperqueue'))";
    let Some(version) = printed(Command::new(python).args(["-c", version])) else {
        return Ok(None);
    };
    let took = over_rounds(size.rounds(), || {
        let folder = TempDir::new()?;
        let arguments = [count.to_string(), slots.to_string()];
        let mut command = Command::new(python);
        command.args(["-c", LIBRARY]).args(arguments).arg(folder.path());
        let text = printed(&mut command).context("HyperQueue's Python package failed")?;
        let took = text.lines().find_map(|line| line.strip_prefix("took ")?.parse().ok());
        took.with_context(|| format!("HyperQueue's Python package printed {text:?}"))
    })?;
    Ok(Some((format!("HyperQueue {version} from PyPI, no journal"), took)))
}

/// Slurm: the one of this host where its controller answers, else one of our own where that is wanted, for
/// as long as this lives. Its commands alone are none: without a controller each of them tries for nine seconds before it
/// fails.
struct SlurmPeer {
    name: String,
    own: Option<Slurm>,
}

impl SlurmPeer {
    fn find(size: &Size, cores: u32) -> Result<Option<Self>> {
        let answers = printed(Command::new("scontrol").arg("ping")).is_some();
        let wanted = size.slurm && !answers;
        let own = if wanted { Slurm::start("beside Slurm", cores)? } else { None };
        if !answers && own.is_none() {
            return Ok(None);
        }
        let mut peer = Self { name: String::new(), own };
        peer.name = printed(peer.command("sinfo").arg("--version")).context("sinfo failed")?;
        Ok(Some(peer))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(own) = &self.own {
            command.env("SLURM_CONF", own.conf());
        }
        command
    }

    /// Seconds in which it runs so many `true`.
    fn array(&self, count: u32) -> Result<f64> {
        let array = format!("--array=1-{count}");
        let arguments = ["--wait", &array, "--output=/dev/null", "--wrap", "true"];
        seconds(|| {
            let ended = quiet(self.command("sbatch").args(arguments)).status()?;
            ensure!(ended.success(), "Slurm did not run an array of {count}");
            Ok(())
        })
    }
}

/// `true` processes per second of Slurm, where it has a node.
fn slurm(size: &Size, count: u32) -> Result<Option<Peer>> {
    let Some(slurm) = SlurmPeer::find(size, SLURM_SLOTS)? else { return Ok(None) };
    let nodes = printed(slurm.command("sinfo").args(["--noheader", "--states", "idle"]));
    if nodes.is_none_or(|nodes| nodes.is_empty()) {
        return Ok(None);
    }
    // What it does in so many seconds: with a thousand one would wait for minutes.
    let rate = f64::from(SLURM_FIRST) / slurm.array(SLURM_FIRST)?;
    let most = ((rate * SLURM_ROUND_S) as u32).max(SLURM_FIRST);
    let count = count.min(SLURM_ARRAY_MAX).min(most);
    let took = over_rounds(size.rounds(), || slurm.array(count))?;
    Ok(Some(Peer { name: format!("{}, {count}", slurm.name), value: f64::from(count) / took }))
}
