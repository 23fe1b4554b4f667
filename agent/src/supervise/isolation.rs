//! How commands are kept apart on this node: what the settings ask for, and what the node lets.
//!
//! The agent makes it once at its start and hands it to its supervisor, which holds to it for every
//! command that it starts from then on. What cannot be had is said once, in the log and in the facts
//! of the node, and falls back: where no cgroup limits memory the data of each process is limited,
//! but for tasks with GPUs, whose driver maps far more than they use.

use std::path::PathBuf;

use gantry_config::{CpuLimit, IsolationSettings, RunAs};
use gantry_model::limits::ISOLATION_CHARACTERS_MAX;
use gantry_model::{Lease, MemoryMib, Millis};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use super::cgroup::{Controller, Limits, Place};

/// How commands are kept apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Isolation {
    /// Where tries have their cgroups, or why they have none.
    pub(super) place: Result<Place, String>,
    /// What the cores of a lease mean.
    pub(super) cpu: CpuLimit,
    /// Processes of a try.
    pub(super) pids: Option<u32>,
    /// As whom commands run.
    pub(super) run_as: RunAs,
    /// Whether root may be that.
    pub(super) root: RootJobs,
    /// Their file mode creation mask, where that is not the agent.
    pub(super) umask: u32,
    /// Whether they are bound to cores.
    pub(super) pin: Pin,
    /// Where tries have their scratch folders.
    pub(super) scratch: Option<Scratch>,
    /// Programs that run before and after.
    pub(super) scripts: Scripts,
}

/// Whether what root has submitted is run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RootJobs {
    Allowed,
    Refused,
}

/// Whether commands are bound to cores of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pin {
    Cores,
    Nothing,
}

/// Where tries have their scratch folders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scratch {
    /// The folder of all.
    pub(super) folder: PathBuf,
    /// What the names of this agent's begin with.
    pub(super) prefix: String,
}

/// Programs that run before and after each command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scripts {
    pub(super) prolog: Option<PathBuf>,
    pub(super) epilog: Option<PathBuf>,
    pub(super) limit: Millis,
}

impl Isolation {
    /// What the settings ask for, as far as it can be had. `mark` tells this agent from others.
    pub(crate) fn prepare(settings: &IsolationSettings, mark: &str) -> Self {
        let place = Place::prepare(&settings.cgroup, mark);
        let made = Self::of(settings, mark, place);
        tracing::info!("tasks are kept apart by {made}");
        if made.run_as == RunAs::Submitter && !rustix::process::geteuid().is_root() {
            tracing::warn!(
                "run_as = \"submitter\" needs an agent that is root: jobs of other users are refused"
            );
        }
        made
    }

    fn of(settings: &IsolationSettings, mark: &str, place: Result<Place, String>) -> Self {
        let prefix = format!("gantry-{:08x}-", super::cgroup::digest(mark));
        Self {
            place,
            cpu: settings.cpu_limit,
            pids: settings.pids_max,
            run_as: settings.run_as,
            root: if settings.allow_root { RootJobs::Allowed } else { RootJobs::Refused },
            umask: settings.umask.0,
            pin: if settings.pin { Pin::Cores } else { Pin::Nothing },
            scratch: settings.scratch_folder.clone().map(|folder| Scratch { folder, prefix }),
            scripts: Scripts {
                prolog: settings.prolog.clone(),
                epilog: settings.epilog.clone(),
                limit: settings.script_limit,
            },
        }
    }

    /// Nothing but what every command has.
    pub(crate) fn none() -> Self {
        Self::of(&IsolationSettings::default(), "", Err("nothing was asked for yet".into()))
    }

    /// Whether a try is made ready or cleared up by more than a few system calls.
    pub(super) fn takes_time(&self) -> bool {
        let scripts = self.scripts.prolog.is_some() || self.scripts.epilog.is_some();
        scripts || self.scratch.is_some() || self.run_as == RunAs::Submitter
    }

    fn has(&self, controller: Controller) -> bool {
        self.place.as_ref().is_ok_and(|place| place.has(controller))
    }

    /// The limits of a try's cgroup.
    pub(super) fn limits(&self, lease: &Lease) -> Limits {
        let resources = &lease.resources;
        Limits { memory: resources.memory, cores: resources.cores, cpu: self.cpu, pids: self.pids }
    }

    /// The limits of a try's processes, for what no cgroup limits.
    pub(super) fn process_limits(&self, lease: &Lease) -> Vec<(Resource, u64)> {
        let mut all = Vec::new();
        let memory = lease.resources.memory;
        // Not the address space, of which a runtime may reserve any amount: what can be written to.
        if !self.has(Controller::Memory) && memory > MemoryMib(0) && lease.gpus.is_empty() {
            all.push((Resource::Data, memory.0.saturating_mul(1 << 20)));
        }
        // The kernel counts all processes of a user: the agent's own would be among them.
        if let Some(pids) = self.pids
            && self.run_as == RunAs::Submitter
            && !self.has(Controller::Pids)
        {
            all.push((Resource::Nproc, u64::from(pids)));
        }
        all
    }

    /// Ends and removes what tries have left whose supervisor is dead.
    pub(crate) fn clear(&self) {
        let groups = self.place.as_ref().map_or(0, Place::clear_tries);
        let folders = self.scratch.as_ref().map_or(0, super::scratch::clear);
        if groups + folders > 0 {
            tracing::warn!(groups, folders, "removed what a dead supervisor had left");
        }
    }
}

impl std::fmt::Display for Isolation {
    /// A sentence for the facts of a node.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match &self.place {
            Ok(place) => place.to_string(),
            Err(reason) => format!("rlimits: {reason}"),
        };
        let fits = text.chars().filter(|one| !one.is_control()).take(ISOLATION_CHARACTERS_MAX);
        fits.collect::<String>().fmt(f)
    }
}
