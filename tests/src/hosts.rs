//! Hosts on one machine: network namespaces, each with a cable to a switch that is a bridge in a
//! namespace of its own.
//!
//! A cluster on them meets what a network does to real hosts: cables that are pulled, switches that
//! stop forwarding, packets that are lost. Nothing of it is in the machine's own network, so that
//! two runs never meet and no address is taken from anybody; names carry the number of this
//! process. All of it goes when the value is dropped, also after a panic, and what a killed run has
//! left is removed by the next one.
//!
//! It needs root and the program `ip`; a test without them is told to skip itself, aloud.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::installed;

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";
const PREFIX: &str = "gantry-hosts-";
/// How long the processes of a host may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Hosts that this process has built so far.
static BUILT: AtomicU32 = AtomicU32::new(0);

/// How a host is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its cable is pulled: the host sees it at once.
    Cable,
    /// The switch forwards nothing from or to it: the host sees nothing.
    Switch,
}

/// Hosts, numbered from 1, with a switch between them.
#[derive(Debug)]
pub struct Hosts {
    /// What the names of all its namespaces begin with.
    name: String,
    count: u8,
}

impl Hosts {
    /// Builds hosts; nothing where this machine does not allow it, which is said aloud.
    ///
    /// # Errors
    /// Where it begins well and then fails.
    pub fn build(test: &str, count: u8) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: {test} needs root, for network namespaces");
            return Ok(None);
        }
        if !installed("ip", test) || !installed("nsenter", test) {
            eprintln!("SKIPPED: {test} needs the programs ip and nsenter");
            return Ok(None);
        }
        sweep()?;
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { name: format!("{PREFIX}{}-{number}", std::process::id()), count };
        if let Err(error) = ip(&["netns", "add", &hosts.switch()]) {
            eprintln!("SKIPPED: {test} needs network namespaces: {error:#}");
            return Ok(None);
        }
        hosts.wire()?;
        Ok(Some(hosts))
    }

    /// Lays the cables.
    fn wire(&self) -> Result<()> {
        let switch = self.switch();
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "switch", "up"])?;
        for host in self.numbers() {
            let (name, port) = (self.namespace(host), port(host));
            ip(&["netns", "add", &name])?;
            let link = ["link", "add", port.as_str(), "type", "veth", "peer", "name", "eth0"];
            ip(&[&["-n", &switch][..], &link, &["netns", &name]].concat())?;
            ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"])?;
            let address = format!("{}/24", Self::address(host));
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn numbers(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.count
    }

    /// The address of a host, known to these hosts only.
    #[must_use]
    pub const fn address(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, host)
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.name)
    }

    /// A program that is to run in a host's namespace, as a command to which its arguments are
    /// added.
    #[must_use]
    pub fn command(namespace: &str, program: &Path) -> Command {
        // It takes the place of nsenter, so that its process is the one that was started.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMES}/{namespace}")).arg(program);
        command
    }

    /// Cuts a host off from all others.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn cut(&self, host: u8, how: Cut) -> Result<()> {
        match how {
            Cut::Cable => self.port(host, &["down"]),
            Cut::Switch => self.port(host, &["nomaster"]),
        }
    }

    /// Connects a host again.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn heal(&self, host: u8, how: Cut) -> Result<()> {
        match how {
            Cut::Cable => self.port(host, &["up"]),
            Cut::Switch => self.port(host, &["master", "switch"]),
        }
    }

    fn port(&self, host: u8, change: &[&str]) -> Result<()> {
        let (switch, port) = (self.switch(), port(host));
        ip(&[&["-n", &switch, "link", "set", &port][..], change].concat())
    }

    /// Makes the network of a host lose or delay packets in both directions, as `["loss", "5%"]`;
    /// says whether this kernel can.
    ///
    /// # Errors
    /// Where `tc` cannot be run.
    pub fn spoil(&self, host: u8, how: &[&str]) -> Result<bool> {
        for (namespace, device) in [(self.switch(), port(host)), (self.namespace(host), eth())] {
            let mut tc = Command::new("tc");
            tc.args(["-n", &namespace, "qdisc", "replace", "dev", &device, "root", "netem"]);
            let output = tc.args(how).stdin(Stdio::null()).output().context("running tc")?;
            if !output.status.success() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Every process that runs on a host.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn processes(&self, host: u8) -> Result<Vec<Pid>> {
        processes(&self.namespace(host))
    }

    /// Kills every process on a host, again and again until none is left.
    ///
    /// # Errors
    /// Where some do not go.
    pub fn kill_all(&self, host: u8) -> Result<()> {
        kill_all(&self.namespace(host))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in self.numbers() {
            // What cannot be removed now is swept by the next run.
            let _ = remove(&self.namespace(host));
        }
        let _ = remove(&self.switch());
    }
}

fn port(host: u8) -> String {
    format!("port-{host}")
}

fn eth() -> String {
    "eth0".to_owned()
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.context("running ip")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), error.trim());
    Ok(())
}

fn processes(namespace: &str) -> Result<Vec<Pid>> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    Ok(numbers.filter_map(Pid::from_raw).collect())
}

fn kill_all(namespace: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = processes(namespace)?;
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > GONE_WITHIN {
            bail!("{} processes of {namespace} do not go", left.len());
        }
        for process in left {
            // An error means that it has ended meanwhile.
            let _ = kill_process(process, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes a namespace with everything in it.
fn remove(namespace: &str) -> Result<()> {
    if Path::new(NAMES).join(namespace).exists() {
        kill_all(namespace)?;
        ip(&["netns", "del", namespace])?;
    }
    Ok(())
}

/// Removes what runs have left that were killed.
fn sweep() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(NAMES) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let ended = |process: &str| !Path::new("/proc").join(process).exists();
        if process.is_some_and(ended) {
            // Another run may be faster.
            let _ = remove(&name);
        }
    }
    Ok(())
}
