//! What the end-to-end tests share: gantry as a process, a cluster of processes, waiting for a
//! condition.
//!
//! The binary under test is this package's own `gantry-under-test`, the same entry point as the
//! product's, so that `cargo test` always builds it fresh. Everything a cluster starts ends with
//! it, and nothing outside its folder is touched.

#![forbid(unsafe_code)]

pub mod chance;
pub mod hosts;
pub mod malformed;
pub mod package;
pub mod page;
pub mod relay;
pub mod slurm;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use hosts::Hosts;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `ready` gives a value, looking again and again.
///
/// # Errors
/// Where it does not within [`PATIENCE`].
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        ensure!(start.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The real images, where they were fetched; says aloud that a test is skipped without them.
#[must_use]
pub fn real_images(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("GANTRY_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!(
            "skipped: {test} needs the real images; run tests/fetch_data.sh and set GANTRY_DATA"
        );
    }
    folder
}

/// A command that is installed; says aloud that a test is skipped without it.
#[must_use]
pub fn installed(tool: &str, test: &str) -> bool {
    let found =
        Command::new("which").arg(tool).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: {test} needs {tool}");
    }
    found
}

/// The Python with `PyTorch` that `GANTRY_TORCH_PYTHON` names, or python3; where it has none, says
/// aloud that the test was skipped.
#[must_use]
pub fn torch(test: &str) -> Option<PathBuf> {
    let python = std::env::var_os("GANTRY_TORCH_PYTHON").unwrap_or_else(|| "python3".into());
    let mut look = Command::new(&python);
    look.args(["-c", "import torch"]).stdout(Stdio::null()).stderr(Stdio::null());
    if look.status().is_ok_and(|status| status.success()) {
        return Some(python.into());
    }
    eprintln!("SKIPPED: {test} needs a Python with torch (GANTRY_TORCH_PYTHON)");
    None
}

/// A Python with packages of `tests/peers/requirements.txt`, as .ci/run makes one and names it in
/// `GANTRY_PYTHON`; says aloud that a test is skipped without it.
#[must_use]
pub fn python(packages: &[&str], test: &str) -> Option<PathBuf> {
    let program = std::env::var_os("GANTRY_PYTHON").map(PathBuf::from);
    let import = format!("import {}", packages.join(", "));
    let found = program.filter(|program| {
        let output = Command::new(program).args(["-c", &import]).output();
        output.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!(
            "skipped: {test} needs {}; set GANTRY_PYTHON to a Python with tests/peers/requirements.txt",
            packages.join(", ")
        );
    }
    found
}

/// Ports that the kernel gives to no caller of its own accord (`ip_local_port_range`, `ip(7)`): whoever is
/// killed and started again finds its port free, however many call meanwhile.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// A free UDP port and a free TCP port on loopback.
///
/// # Errors
/// Where there are none.
pub fn free_ports() -> Result<(u16, u16)> {
    let count = PORTS.len();
    let chance = RandomState::new().build_hasher().finish() as usize % count;
    let mut ports = (0..count).map(|n| PORTS.start + ((chance + n) % count) as u16);
    let mut next = |is_free: fn(SocketAddr) -> bool| {
        ports.find(|port| is_free(([127, 0, 0, 1], *port).into())).context("no port is free")
    };
    let udp = next(|address| UdpSocket::bind(address).is_ok())?;
    Ok((udp, next(|address| TcpListener::bind(address).is_ok())?))
}

/// The most memory that a process has used so far, in KiB.
///
/// # Errors
/// Where there is no such process.
pub fn peak_kib(process: Pid) -> Result<u64> {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The binary under test.
#[derive(Clone, Debug)]
pub struct Gantry {
    program: PathBuf,
    cluster: Option<PathBuf>,
    /// The namespace of the host on which it runs; this machine's own where absent.
    host: Option<String>,
}

/// By this a service manager starts an agent.
const AGENT_UNIT: &str = include_str!("../../config/package/gantry-agent.service");

/// The variables that a unit sets.
fn environment(unit: &str) -> impl Iterator<Item = (&str, &str)> {
    let set = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    set.filter_map(|variable| variable.split_once('='))
}

impl Gantry {
    /// The binary at this path: `env!("CARGO_BIN_EXE_gantry-under-test")`.
    #[must_use]
    pub fn new(program: &str) -> Self {
        Self { program: program.into(), cluster: None, host: None }
    }

    /// A command line, ready to be run.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.host {
            Some(namespace) => Hosts::command(namespace, &self.program),
            None => Command::new(&self.program),
        };
        command.args(arguments).stdin(Stdio::null()).env_remove("GANTRY_LIBRARY");
        if arguments.first() == Some(&"agent") {
            command.envs(environment(AGENT_UNIT));
        }
        match &self.cluster {
            Some(folder) => command.env("GANTRY_CLUSTER", folder),
            None => command.env_remove("GANTRY_CLUSTER"),
        };
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("running gantry {arguments:?}"))
    }

    /// Runs a command that must succeed and gives the value of its `--json`, without its envelope.
    ///
    /// # Errors
    /// Where it fails or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.run(&all)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "gantry {arguments:?} failed: {text}");
        let mut value: Value = serde_json::from_str(&text).context(text.to_string())?;
        let kind = value["kind"].as_str().context("no kind")?.to_owned();
        Ok(value[kind].take())
    }

    /// Runs a command that must fail; gives its exit code and its sentence from `--json`.
    ///
    /// # Errors
    /// Where it succeeds or prints no JSON error.
    pub fn refusal(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.run(&all)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("{all:?}: {text}"))?;
        let sentence = value["error"]["sentence"].as_str().context(text.to_string())?;
        Ok((output.status.code().context("ended by a signal")?, sentence.to_owned()))
    }
}

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Sends it a signal.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = Pid::from_child(&self.0);
        kill_process(process, signal).with_context(|| format!("signalling {process:?}"))
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A scheduler and agents as real processes in a temporary folder.
#[derive(Debug)]
pub struct Cluster {
    /// Commands that know this cluster.
    pub gantry: Gantry,
    scheduler: Option<Daemon>,
    agents: Vec<(String, Option<Daemon>)>,
    /// What a daemon's environment has from its next start on.
    environment: BTreeMap<String, Vec<(String, String)>>,
    // Dropped after the processes that run on them, and before what those write into.
    hosts: Option<Hosts>,
    folder: TempDir,
}

impl Cluster {
    /// Makes a cluster and starts its scheduler.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(program: &str) -> Result<Self> {
        let (port, _) = free_ports()?;
        Self::listening(program, ([127, 0, 0, 1], port).into(), None)
    }

    /// Makes a cluster whose scheduler runs on the first of these hosts, and where the node
    /// `host-N` runs on the Nth. Commands run beside the scheduler.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_on(program: &str, hosts: Hosts) -> Result<Self> {
        // Each port is free there: nobody else knows the host.
        Self::listening(program, (Hosts::address(1), 7400).into(), Some(hosts))
    }

    fn listening(program: &str, listen: SocketAddr, hosts: Option<Hosts>) -> Result<Self> {
        let folder = TempDir::new()?;
        let gantry = Gantry {
            cluster: Some(folder.path().join("scheduler")),
            host: hosts.as_ref().map(|hosts| hosts.namespace(1)),
            ..Gantry::new(program)
        };
        let mut cluster = Self {
            gantry,
            folder,
            scheduler: None,
            agents: Vec::new(),
            environment: BTreeMap::new(),
            hosts,
        };
        let scheduler = cluster.scheduler_folder();
        let text = scheduler.display().to_string();
        cluster.gantry.json(&["scheduler", "--dir", &text, "init", "--name", "test"])?;
        let settings = format!("listen = \"{listen}\"\n");
        std::fs::write(scheduler.join("scheduler.toml"), settings)?;
        cluster.start_scheduler()?;
        Ok(cluster)
    }

    /// The folder that everything of this cluster is in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn scheduler_folder(&self) -> PathBuf {
        self.folder.path().join("scheduler")
    }

    /// The hosts it runs on.
    ///
    /// # Panics
    /// Where it runs on this machine.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().expect("it was started on hosts")
    }

    /// Commands on the host of a daemon.
    fn beside(&self, name: &str) -> Gantry {
        let number = name.strip_prefix("host-").and_then(|number| number.parse().ok());
        let host = self.hosts.as_ref().map(|hosts| hosts.namespace(number.unwrap_or(1)));
        Gantry { host, ..self.gantry.clone() }
    }

    fn daemon(&self, name: &str, arguments: &[&str]) -> Result<Daemon> {
        let path = self.folder.path().join(format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(path)?;
        let mut command = self.beside(name).command(arguments);
        let more = self.environment.get(name).into_iter().flatten();
        command.envs(more.map(|(variable, value)| (variable, value)));
        let child = command.stdout(Stdio::null()).stderr(log).spawn()?;
        Ok(Daemon(child))
    }

    /// Sets variables of a daemon's environment, the scheduler's or that of a node's agent, from its next
    /// start on.
    pub fn set_environment(
        &mut self,
        name: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) {
        self.environment.entry(name.to_owned()).or_default().extend(variables);
    }

    /// Starts the scheduler and waits until it answers.
    ///
    /// # Errors
    /// Where it does not.
    pub fn start_scheduler(&mut self) -> Result<()> {
        let folder = self.scheduler_folder().display().to_string();
        self.scheduler =
            Some(self.daemon("scheduler", &["scheduler", "--dir", &folder, "--exit-with-parent"])?);
        until("the scheduler's first answer", || self.gantry.json(&["nodes"]).ok())
            .with_context(|| self.log("scheduler"))?;
        Ok(())
    }

    /// Kills the scheduler as `kill -9` does.
    pub fn kill_scheduler(&mut self) {
        self.scheduler = None;
    }

    /// Has the scheduler end as a service manager does, and waits for it.
    ///
    /// # Errors
    /// Where there is none, or it does not end well.
    pub fn stop_scheduler(&mut self) -> Result<()> {
        let mut daemon = self.scheduler.take().context("there is no scheduler")?;
        daemon.signal(Signal::TERM)?;
        let status = until("the scheduler's end", || daemon.0.try_wait().ok().flatten())?;
        ensure!(status.success(), "it ended with {status}: {}", self.log("scheduler"));
        Ok(())
    }

    /// Joins a node with more lines for its settings, starts its agent and waits until it is up.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn join(&mut self, node: &str, settings: &str) -> Result<()> {
        let address = self.address()?;
        self.join_through(node, settings, address)
    }

    /// The address that the scheduler listens on.
    ///
    /// # Errors
    /// Where it has written none.
    pub fn address(&self) -> Result<SocketAddr> {
        let text = std::fs::read_to_string(self.scheduler_folder().join("address"))?;
        Ok(text.trim().parse()?)
    }

    /// As [`Self::join`], where the agent calls the scheduler at this address.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn join_through(
        &mut self,
        node: &str,
        settings: &str,
        scheduler: SocketAddr,
    ) -> Result<()> {
        let dir = self.folder.path().join(node);
        let text = dir.display().to_string();
        let token = self.gantry.json(&["scheduler", "token", node])?["token"]
            .as_str()
            .context("no token")?
            .to_owned();
        let scheduler = scheduler.to_string();
        let join = ["join", &token, "--node", node, "--scheduler", &scheduler, "--dir", &text];
        self.beside(node).json(&join)?;
        let path = dir.join("agent.toml");
        let base = std::fs::read_to_string(&path)?;
        // A test that ends leaves nothing behind, unless it says that it wants to.
        let orphans = if settings.contains("orphans") { "" } else { "orphans = \"end\"\n" };
        std::fs::write(&path, format!("{base}{orphans}{settings}\n"))?;
        self.agents.push((node.to_owned(), None));
        self.start_agent(node)
    }

    /// Starts the agent of a node that has joined and waits until it is up.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start_agent(&mut self, node: &str) -> Result<()> {
        let dir = self.folder.path().join(node).display().to_string();
        let daemon = self.daemon(node, &["agent", "--dir", &dir, "--exit-with-parent"])?;
        match self.agents.iter_mut().find(|(name, _)| name == node) {
            Some((_, slot)) => *slot = Some(daemon),
            None => bail!("{node} has not joined"),
        }
        until("the node's start", || {
            let nodes = self.gantry.json(&["nodes"]).ok()?;
            let nodes = nodes.as_array()?;
            nodes.iter().any(|row| row["node"] == node && row["state"] == "up").then_some(())
        })
        .with_context(|| self.log(node))
    }

    /// Sends a signal to the agent of a node.
    ///
    /// # Errors
    /// Where it has none.
    pub fn signal_agent(&self, node: &str, signal: Signal) -> Result<()> {
        let agent = self.agents.iter().find(|(name, _)| name == node);
        let agent = agent.and_then(|(_, daemon)| daemon.as_ref());
        agent.with_context(|| format!("{node} has no agent"))?.signal(signal)
    }

    /// The process of a daemon: the scheduler's, or that of a node's agent; nothing where there is none.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<Pid> {
        let agent = self.agents.iter().find(|(node, _)| node == name);
        let daemon = match agent {
            Some((_, daemon)) => daemon.as_ref(),
            None => self.scheduler.as_ref().filter(|_| name == "scheduler"),
        };
        daemon.map(|daemon| Pid::from_child(&daemon.0))
    }

    /// Kills the agent of a node as `kill -9` does.
    pub fn kill_agent(&mut self, node: &str) {
        for (name, daemon) in &mut self.agents {
            if name == node {
                *daemon = None;
            }
        }
    }

    /// What a daemon has logged so far.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let path = self.folder.path().join(format!("{name}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}
