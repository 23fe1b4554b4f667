//! A cluster of real processes for a benchmark: the scheduler with its journal, agents, a client on
//! the link.
//!
//! The processes run this very program under the name `gantry`, by a link beside it, so that there
//! is no other build to be measured by mistake. Requests go over one open connection: what starting
//! a command costs is no part of a number, where a row does not say so.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use gantry::cli::client::{Access, Client};
use gantry::error::Failure;
use gantry_link::{Identity, join};
use gantry_model::{Array, IndexSet, JobId, JobRow, JobSpec, Resources, Work};
use gantry_tests::Cluster;
use gantry_wire::{NodeStatus, Reply, Request};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A scheduler, its agents and a client.
pub(crate) struct Served {
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
    program: PathBuf,
    keys: u64,
    // Dropped last: the processes above run from it.
    _home: TempDir,
}

impl Served {
    /// Starts a scheduler in a folder of its own.
    pub(crate) fn start() -> Result<Self> {
        let own = std::env::current_exe().context("finding this program")?;
        let beside = own.parent().context("this program lies in no folder")?;
        // Not in the folder for temporary files: a link cannot leave its file system.
        let home = tempfile::Builder::new().prefix("measure-").tempdir_in(beside)?;
        let program = home.path().join("gantry");
        fs::hard_link(&own, &program)
            .with_context(|| format!("linking this program as {}", program.display()))?;
        let cluster = Cluster::start(&program.display().to_string())?;
        let client = Client::connect(Some(cluster.folder().join("scheduler"))).map_err(said)?;
        Ok(Self { client, cluster, program, keys: 0, _home: home })
    }

    /// Adds lines to the scheduler's settings, and lets it read them.
    pub(crate) fn set(&self, lines: &str) -> Result<()> {
        let path = self.scheduler_folder().join("scheduler.toml");
        let before = fs::read_to_string(&path)?;
        fs::write(&path, format!("{before}{lines}\n"))?;
        match self.ask(&Request::Reload)? {
            Reply::Reloaded(_) => Ok(()),
            other => bail!("the settings were not read: {other:?}"),
        }
    }

    pub(crate) fn scheduler_folder(&self) -> PathBuf {
        self.cluster.folder().join("scheduler")
    }

    /// How commands reach it.
    pub(crate) fn access(&self) -> Result<Access> {
        Access::find(Some(self.scheduler_folder())).map_err(said)
    }

    /// Connects again, after the scheduler was started again.
    pub(crate) fn reconnect(&mut self) -> Result<()> {
        self.client = Client::to(&self.access()?).map_err(said)?;
        Ok(())
    }

    pub(crate) fn ask(&self, request: &Request) -> Result<Reply> {
        self.client.ask(request).map_err(said)
    }

    /// Submits a job; returns once it is durable.
    pub(crate) fn submit(&mut self, spec: JobSpec) -> Result<JobId> {
        self.keys += 1;
        let key = format!("{}-{}", std::process::id(), self.keys);
        match self.ask(&Request::Submit { key, spec: Box::new(spec) })? {
            Reply::Submitted(job) => Ok(job),
            other => bail!("a submit was answered with {other:?}"),
        }
    }

    /// Waits until a job has ended, and expects that all of its tasks are done.
    pub(crate) fn wait_done(&self, job: JobId) -> Result<JobRow> {
        let row = self.client.wait(job, None).map_err(said)?;
        if row.tasks.done == row.tasks.total() {
            return Ok(row);
        }
        bail!("{job} of a benchmark did not end well: {}", row.reason.unwrap_or_default())
    }

    pub(crate) fn job(&self, job: JobId) -> Result<JobRow> {
        match self.ask(&Request::Job { job })? {
            Reply::Job(row) => Ok(*row),
            other => bail!("asked for {job}, got {other:?}"),
        }
    }

    pub(crate) fn nodes(&self) -> Result<Vec<NodeStatus>> {
        self.client.nodes().map_err(said)
    }

    /// An agent's identity without an agent: a node joins, and this process speaks for it.
    pub(crate) fn identity(&self, node: &str) -> Result<Identity> {
        let token = match self.ask(&Request::Token { node: node.to_owned() })? {
            Reply::Token(token) => token,
            other => bail!("asked for a token, got {other:?}"),
        };
        let address = self.access()?.address;
        let runtime = tokio::runtime::Runtime::new()?;
        Ok(runtime.block_on(join(address, &token, node))?)
    }

    /// The processes of this cluster whose command line has all of these words.
    pub(crate) fn processes(&self, words: &[&str]) -> Result<Vec<Pid>> {
        let program = self.program.display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            // A process that has ended meanwhile is not among them.
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let has = |word: &str| line.split('\0').any(|argument| argument == word);
            if line.contains(&program) && words.iter().all(|word| has(word)) {
                found.extend(number.and_then(Pid::from_raw));
            }
        }
        Ok(found)
    }

    /// Processor time so far of the processes whose command line has all of these words, in
    /// milliseconds.
    pub(crate) fn processor_ms(&self, words: &[&str]) -> Result<f64> {
        let processes = self.processes(words)?;
        processes.iter().map(|process| processor_ms_of(&process.as_raw_nonzero().to_string())).sum()
    }

    /// Processor time so far of each of [`PARTS`].
    pub(crate) fn parts(&self) -> Result<Vec<f64>> {
        PARTS.iter().map(|(_, words)| self.processor_ms(words)).collect()
    }

    /// Sends a signal to the processes whose command line has all of these words.
    pub(crate) fn signal(&self, words: &[&str], signal: Signal) -> Result<()> {
        let found = self.processes(words)?;
        anyhow::ensure!(!found.is_empty(), "no process of {words:?} was found");
        for process in found {
            kill_process(process, signal).context("sending a signal")?;
        }
        Ok(())
    }
}

/// Processor time so far of one process, in milliseconds.
pub(crate) fn processor_ms_of(process: &str) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name, in brackets, may hold anything; the two times are the twelfth and thirteenth words
    // behind it.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = times.map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Ok(ticks as f64 * 1000.0 / TICKS_PER_SECOND)
}

/// In what the kernel counts processor time, on every architecture gantry runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The parts of gantry that take processor time for a task, each with the words of its processes.
pub(crate) const PARTS: [(&str, &[&str]); 4] = [
    ("scheduler", &["scheduler", "--exit-with-parent"]),
    ("agent", &["agent", "--exit-with-parent"]),
    ("supervisor", &["supervise"]),
    ("workers", &["worker"]),
];

/// A failed command as an error.
pub(crate) fn said(failure: Failure) -> anyhow::Error {
    anyhow!(failure.sentence)
}

/// A job of one core that runs this.
pub(crate) fn command(arguments: &[&str]) -> JobSpec {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    let work = Work::Command { arguments, folder: None };
    JobSpec {
        resources: Resources { cores: 1, ..Resources::default() },
        ..JobSpec::new("measured", work)
    }
}

/// An array of so many of these.
pub(crate) fn array(count: u32, spec: JobSpec) -> JobSpec {
    let array = Array { indices: IndexSet::first(count), at_once_max: None };
    JobSpec { array: Some(array), ..spec }
}
