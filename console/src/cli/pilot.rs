//! `gantry pilot`: agents inside the allocations of another scheduler, for a time.
//!
//! A pilot is a node like any other, which joins from a job of Slurm, works, and leaves before the job's
//! limit. Nothing secret is in the job: its identity is made here, by who submits, and lies in a folder
//! on shared storage that nobody else may open; the job names the folder. A node keeps its folder and its
//! name, so that a hundred pilots one after the other are one node, not a hundred.

mod slurm;

use std::fs::{DirBuilder, File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};
use gantry_model::{MemoryMib, Millis};
use gantry_wire::{Reply, Request};
use serde_json::json;

use super::client::{Access, Client, Reach, resolve, unexpected};
use crate::error::{Failure, Outcome};
use crate::output::Format;
use slurm::Plan;

/// Nodes of one command.
const NODES_MAX: u32 = 1000;
/// Folders that are looked at for a free one: as many nodes may have the same first name.
const SLOTS_MAX: u32 = 10_000;
/// The file in a pilot's folder that says which job of Slurm has it.
const JOB_FILE: &str = "job";

/// `gantry pilot`.
#[derive(Debug, Args)]
pub struct Pilot {
    #[command(subcommand)]
    verb: Verb,
}

/// Whose allocations.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Submit agents to Slurm (sbatch) that join, work, and leave before the time limit.
    Slurm(Slurm),
}

/// `gantry pilot slurm`.
#[derive(Debug, Args)]
struct Slurm {
    /// How many nodes, each a job of its own that starts as soon as there is room.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u32,
    /// GPUs of each.
    #[arg(long, value_name = "N", default_value_t = 0)]
    gpus: u32,
    /// Cores of each.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cores: u32,
    /// Memory of each, as 64G; what the partition gives where nothing is said.
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemoryMib>,
    /// The time limit of the job, as 2h; the node takes no task that would not end before.
    #[arg(long, value_name = "TIME")]
    time: Millis,
    /// The partition.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// The account.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// A folder on storage that the nodes see too; it is opened to nobody else.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// What the nodes' names begin with.
    #[arg(long, value_name = "NAME", default_value = "slurm")]
    name: String,
    /// A label of the nodes; may be repeated.
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// The scheduler as the nodes reach it; as this command does where nothing is said.
    #[arg(long, value_name = "HOST:PORT")]
    scheduler: Option<String>,
    /// gantry as the nodes find it; where this one is if nothing is said.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Say what would be submitted, and submit nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Pilot {
    /// Carries it out.
    ///
    /// # Errors
    /// Where Slurm or the scheduler refuses, or the folder cannot be used.
    pub fn run(self, cluster: Reach, format: Format) -> Outcome {
        let Verb::Slurm(slurm) = self.verb;
        slurm.run(cluster, format)
    }
}

impl Slurm {
    fn run(&self, cluster: Reach, format: Format) -> Outcome {
        if self.nodes == 0 || self.nodes > NODES_MAX {
            let many = self.nodes;
            return Err(Failure::usage(format!("--nodes {many} is not from 1 to {NODES_MAX}")));
        }
        gantry_model::job::check_name("node", &self.name)?;
        if self.name.contains(['/', ' ', '%']) || self.name.starts_with(['.', '-']) {
            let name = &self.name;
            return Err(Failure::usage(format!("{name:?} cannot be the name of folders")));
        }
        let folder = std::path::absolute(&self.folder)?;
        let program = self.program.clone().map_or_else(std::env::current_exe, Ok)?;
        let plan = Plan {
            program,
            folder: folder.clone(),
            name: self.name.clone(),
            cores: self.cores,
            gpus: self.gpus,
            memory: self.memory,
            time: self.time,
            partition: self.partition.clone(),
            account: self.account.clone(),
        };
        let script = plan.script()?;
        if self.dry_run {
            let slots: Vec<u32> = (1..=self.nodes).collect();
            let arguments = plan.arguments(&slots);
            let value = json!({ "arguments": arguments, "script": script });
            let people = || format!("sbatch {}\n\n{script}", arguments.join(" "));
            format.print("sbatch", &value, people, String::new)?;
            return Ok(0);
        }
        let address = self.address(&cluster)?;
        let client = Client::connect(cluster)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let _lock = lock(&folder)?;
        let slots = self.free(&folder, &running()?)?;
        let runtime = tokio::runtime::Runtime::new()?;
        for slot in &slots {
            let node = plan.node(*slot);
            let reply = client.ask(&Request::Token { node: node.clone() })?;
            let Reply::Token(token) = reply else { return Err(unexpected(&reply)) };
            let identity = runtime.block_on(gantry_link::join(address, &token, &node))?;
            let own = plan.place(*slot);
            DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
            identity.save(&own, "agent")?;
            std::fs::write(own.join("agent.toml"), self.settings(&node, address))?;
        }
        let job = submit(&plan.arguments(&slots), &script)?;
        for slot in &slots {
            std::fs::write(plan.place(*slot).join(JOB_FILE), format!("{job}\n"))?;
        }
        let nodes: Vec<String> = slots.iter().map(|slot| plan.node(*slot)).collect();
        let value = json!({ "slurm_job": job, "nodes": nodes });
        let people = || {
            format!(
                "job {job} of Slurm brings {}; each leaves {} before its limit of {}\nwatch them with gantry nodes; end them with scancel {job}",
                nodes.join(", "),
                slurm::margin(self.time),
                self.time
            )
        };
        format.print("pilot", &value, people, || job.clone())?;
        Ok(0)
    }

    /// The scheduler as nodes on other hosts reach it.
    fn address(&self, cluster: &Reach) -> Result<SocketAddr, Failure> {
        if let Some(text) = &self.scheduler {
            return resolve(text);
        }
        let address = Access::find(cluster.clone())?.address;
        if address.ip().is_loopback() {
            return Err(Failure::usage(format!(
                "the scheduler is reached at {address} here, which the nodes cannot; say --scheduler HOST:PORT"
            )));
        }
        Ok(address)
    }

    /// The first folders that no living job of Slurm has.
    fn free(&self, folder: &Path, running: &[String]) -> Result<Vec<u32>, Failure> {
        let is_free = |slot: &u32| {
            let file = folder.join(format!("{}-{slot}", self.name)).join(JOB_FILE);
            let job = std::fs::read_to_string(file).unwrap_or_default();
            !running.iter().any(|one| one == job.trim())
        };
        let slots: Vec<u32> = (1..=SLOTS_MAX).filter(is_free).take(self.nodes as usize).collect();
        if slots.len() < self.nodes as usize {
            return Err(Failure::usage(format!(
                "{SLOTS_MAX} pilots named {} wait or run already; end some with scancel",
                self.name
            )));
        }
        Ok(slots)
    }

    /// The settings of a node: its tasks end with its agent, as the allocation does.
    fn settings(&self, node: &str, address: SocketAddr) -> String {
        let role = if self.gpus > 0 { "gpu" } else { "cpu" };
        let mut labels: Vec<String> = vec![format!("{:?}", "pilot=slurm")];
        labels.extend(self.label.iter().map(|label| format!("{label:?}")));
        format!(
            "node = {node:?}\nscheduler = {:?}\nroles = [{role:?}]\nlabels = [{}]\norphans = \"end\"\n",
            address.to_string(),
            labels.join(", ")
        )
    }
}

/// Two commands at once would take the same folders.
fn lock(folder: &Path) -> Result<File, Failure> {
    let file = File::create(folder.join("lock"))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => Failure::usage(format!(
            "another gantry pilot uses {} right now; try again",
            folder.display()
        )),
        TryLockError::Error(error) => Failure::trouble(error),
    })?;
    Ok(file)
}

/// The jobs of Slurm that wait or run.
fn running() -> Result<Vec<String>, Failure> {
    let text = said(Command::new("squeue").args(["--noheader", "--me", "--format=%F"]), "")?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Submits a script; gives the job's number.
fn submit(arguments: &[String], script: &str) -> Result<String, Failure> {
    let text = said(Command::new("sbatch").args(arguments), script)?;
    let job = text.trim().split(';').next().unwrap_or_default().to_owned();
    if job.is_empty() {
        return Err(Failure::trouble("sbatch said no number of a job"));
    }
    Ok(job)
}

/// What a command of Slurm prints.
fn said(command: &mut Command, input: &str) -> Result<String, Failure> {
    use std::io::Write;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Failure::trouble(format!(
                "running {name} failed: {error}; gantry pilot slurm runs where Slurm's commands are"
            ))
        })?;
    // What it does not read it says why.
    let _ = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::trouble(format!("{name} refused: {}", why.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
