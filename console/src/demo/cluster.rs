//! The demonstration's cluster: its folder, its daemons, its nodes, and asking its scheduler.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_model::{JobId, JobRow, JobSpec};
use gantry_wire::{Reply, Request};
use tempfile::TempDir;

use super::processes::Processes;
use crate::cli::client::{Access, Client, unexpected};
use crate::error::Failure;

/// How long anything of the demonstration may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_mins(15);
/// How often a condition is looked at.
const LOOK_EACH: Duration = Duration::from_millis(100);

/// The nodes: name, and the lines of its settings beside the common ones.
const NODES: [(&str, &str); 3] = [
    ("cpu-1", "roles = [\"cpu\", \"ingest\"]\ncores = 2\nworkers = 1\n"),
    ("cpu-2", "roles = [\"cpu\"]\ncores = 2\nworkers = 1\n"),
    ("gpu-1", "roles = [\"gpu\"]\ncores = 2\nworkers = 1\n"),
];

/// A running cluster on loopback.
pub(super) struct Site {
    folder: PathBuf,
    ingest: SocketAddr,
    processes: Processes,
    abandoned: AtomicBool,
    // Dropped last: the daemons write into it until they end.
    _temporary: Option<TempDir>,
}

impl Site {
    /// Makes a cluster in a folder, starts its daemons and waits until every node is up.
    pub(super) fn start(folder: Option<&Path>) -> Result<Self, Failure> {
        let temporary = match folder {
            Some(_) => None,
            None => Some(TempDir::with_prefix("gantry-demo-").map_err(stage)?),
        };
        let folder = match (folder, &temporary) {
            (Some(folder), _) => made(folder)?,
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => return Err(Failure::trouble("there is no folder to work in")),
        };
        let scheduler = folder.join("scheduler");
        std::fs::create_dir(&scheduler).map_err(stage)?;
        gantry_scheduler::init(&scheduler, "demo").map_err(stage)?;
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        let port = UdpSocket::bind(loopback).and_then(|s| s.local_addr()).map_err(stage)?.port();
        let ingest = TcpListener::bind(loopback).and_then(|s| s.local_addr()).map_err(stage)?;
        let settings = format!("listen = \"127.0.0.1:{port}\"\n");
        std::fs::write(scheduler.join("scheduler.toml"), settings).map_err(stage)?;
        // Known ids make two demonstrations alike in every number; the images are nobody's.
        gantry_library::Library::create_salted(&folder.join("library"), "demo").map_err(stage)?;
        let processes = Processes::new(&folder);
        let dir = scheduler.display().to_string();
        processes.start("scheduler", &["scheduler", "--dir", &dir]);
        let abandoned = AtomicBool::new(false);
        let site = Self { folder, ingest, processes, abandoned, _temporary: temporary };
        for (node, settings) in NODES {
            site.join(node, settings)?;
        }
        site.until("the nodes' start", || {
            let Reply::Nodes { rows: nodes, .. } = site.ask(&Request::Nodes { after: None })?
            else {
                return Ok(None);
            };
            let up = nodes.iter().filter(|node| node.row.state == gantry_model::NodeState::Up);
            Ok((up.count() == NODES.len()).then_some(()))
        })?;
        Ok(site)
    }

    /// Joins a node with a token, as an administrator does, and starts its agent.
    fn join(&self, node: &str, settings: &str) -> Result<(), Failure> {
        let reply = self.ask(&Request::Token { node: node.into() })?;
        let Reply::Token(token) = reply else { return Err(unexpected(&reply)) };
        let dir = self.folder.join(node);
        std::fs::create_dir(&dir).map_err(stage)?;
        let address = self.access()?.address;
        let runtime = tokio::runtime::Runtime::new().map_err(stage)?;
        runtime.block_on(gantry_link::join(address, &token, node))?.save(&dir, "agent")?;
        let library = self.library_folder();
        let receiver = if settings.contains("ingest") {
            let ingest = self.ingest;
            format!(
                "[ingest]\nlisten = \"{ingest}\"\nae_title = \"GANTRY\"\nseries_stable = \"2s\"\n"
            )
        } else {
            String::new()
        };
        let text = format!(
            "node = {node:?}\nscheduler = \"{address}\"\nlibrary = {:?}\norphans = \"end\"\n{settings}{receiver}",
            library.display().to_string()
        );
        std::fs::write(dir.join("agent.toml"), text).map_err(stage)?;
        self.processes.start(node, &["agent", "--dir", &dir.display().to_string()]);
        Ok(())
    }

    /// How to reach the scheduler.
    pub(super) fn access(&self) -> Result<Access, Failure> {
        let folder = self.folder.join("scheduler");
        self.until("the scheduler's start", || Ok(Access::find(Some(folder.clone())).ok()))
    }

    /// The library's folder.
    pub(super) fn library_folder(&self) -> PathBuf {
        self.folder.join("library")
    }

    /// The folder that everything is in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the scanner sends to.
    pub(super) fn ingest(&self) -> SocketAddr {
        self.ingest
    }

    /// What the node that trains computes on.
    pub(super) fn computes_on(&self) -> Result<String, Failure> {
        let reply = self.ask(&Request::Nodes { after: None })?;
        let Reply::Nodes { rows: nodes, .. } = reply else { return Err(unexpected(&reply)) };
        let trains = |role: &gantry_model::Role| *role == gantry_model::Role::Gpu;
        let facts = nodes.iter().map(|node| &node.row.facts);
        let node = facts.into_iter().find(|facts| facts.roles.iter().any(trains));
        Ok(node.map_or_else(String::new, |facts| match (facts.gpus.first(), &facts.gpu_reason) {
            (Some(gpu), _) => {
                format!("{}, with a {} that the embedded engine leaves alone", facts.name, gpu.name)
            }
            (None, Some(reason)) => format!("the processor of {}: {reason}", facts.name),
            (None, None) => format!("the processor of {}", facts.name),
        }))
    }

    /// How often daemons had to be started again.
    pub(super) fn restarts(&self) -> u32 {
        self.processes.restarts()
    }

    /// Makes whoever waits give up.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        // Who waits for a job hears that the scheduler ends, and looks.
        self.processes.stop();
    }

    /// Asks the scheduler. While it is away the question is asked again: it may have been killed
    /// and be on its way back.
    pub(super) fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        self.until("the scheduler's answer", || {
            again(Client::to(&self.access()?).and_then(|client| client.ask(request)))
        })
    }

    /// Submits a job once, however often that takes.
    pub(super) fn submit(&self, key: &str, spec: JobSpec) -> Result<JobId, Failure> {
        spec.validate()?;
        let request = Request::Submit { key: key.into(), spec: Box::new(spec) };
        match self.ask(&request)? {
            Reply::Submitted(job) => Ok(job),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the end of a job that must succeed.
    pub(super) fn wait(&self, job: JobId) -> Result<(), Failure> {
        let row: JobRow = self.until("the job's end", || {
            again(Client::to(&self.access()?).and_then(|client| client.wait(job, None)))
        })?;
        if row.state == gantry_model::JobState::Done {
            return Ok(());
        }
        let reason = row.reason.unwrap_or_else(|| row.state.word().into());
        let log = row.nodes.first().map(|node| self.processes.log_end(node)).unwrap_or_default();
        Err(Failure::trouble(format!("{} failed: {reason} ({log})", row.name)))
    }

    /// Waits until `ready` gives a value.
    pub(super) fn until<T>(
        &self,
        what: &str,
        mut ready: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            if self.abandoned.load(Ordering::Relaxed) {
                return Err(Failure::trouble("the demonstration was left"));
            }
            if start.elapsed() > PATIENCE {
                let log = self.processes.log_end("scheduler");
                return Err(Failure::trouble(format!("{what} did not happen ({log})")));
            }
            std::thread::sleep(LOOK_EACH);
        }
    }
}

/// An answer that has not come because the scheduler is away is one to wait for.
fn again<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.kind == "unreachable" => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn made(folder: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(folder).map_err(stage)?;
    let folder = folder.canonicalize().map_err(stage)?;
    if std::fs::read_dir(&folder).map_err(stage)?.next().is_some() {
        return Err(Failure::usage(format!(
            "the folder {} is not empty; the demonstration begins anew, name another",
            folder.display()
        )));
    }
    Ok(folder)
}

fn stage(error: impl std::fmt::Display) -> Failure {
    Failure::trouble(format!("setting up the cluster failed: {error}"))
}
