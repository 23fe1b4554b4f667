//! What a node is: its facts as its agent reports them, and where it stands.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::reject::Reject;
use crate::resources::Resources;
use crate::units::{At, MemoryMib};

/// One GPU of a node, or one MIG instance of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// NVML's id of the device, stable over restarts.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// Its memory.
    pub memory: MemoryMib,
    /// The profile, where it is a MIG instance.
    pub mig: Option<String>,
    /// GPUs with the same number reach one another over `NVLink`.
    pub island: u16,
    /// The NUMA node it hangs on, where the kernel says so.
    pub numa: Option<u16>,
    /// Why it gets no work, where the cluster has marked it.
    pub unfit: Option<String>,
}

/// What a node is for, beside running tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs preprocessing and other tasks on its cores.
    Cpu,
    /// Trains: has GPUs, or computes on the processor where it has none.
    Gpu,
    /// Receives DICOM images from scanners.
    Ingest,
}

/// What an agent says of its node when it connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The node's name, unique in the cluster.
    pub name: String,
    /// What it is for.
    pub roles: Vec<Role>,
    /// Cores, memory and GPUs that tasks may have.
    pub resources: Resources,
    /// The GPUs, by index.
    pub gpus: Vec<Gpu>,
    /// Why there are no GPU facts, where NVML is absent or failing.
    pub gpu_reason: Option<String>,
    /// The agent's version.
    pub agent_version: String,
    /// The kernel's id of this boot: a process id means nothing under another one.
    pub boot_id: String,
    /// What jobs may ask for by name, as `nvme` or `site=north`.
    pub labels: BTreeSet<String>,
    /// Where other nodes reach it; the scheduler fills in what it sees where it is empty.
    pub address: String,
    /// What keeps tasks apart on it, as `cgroup: memory cpu pids` or `rlimits: no delegated cgroup`.
    pub isolation: String,
}

impl NodeFacts {
    /// Checks what an agent says before anything is decided from it.
    pub fn validate(&self) -> Result<(), Reject> {
        crate::job::check_name("node", &self.name)?;
        let count = self.gpus.len();
        if self.address.len() > limits::ADDRESS_BYTES_MAX || self.address.contains(char::is_control)
        {
            return Err(Reject::invalid(format!(
                "node {} has an address that is longer than {} bytes or holds a control character",
                self.name,
                limits::ADDRESS_BYTES_MAX
            )));
        }
        let characters = self.isolation.chars().count();
        if characters > limits::ISOLATION_CHARACTERS_MAX
            || self.isolation.contains(char::is_control)
        {
            return Err(Reject::invalid(format!(
                "node {} says in {characters} characters what keeps its tasks apart; at most {} are allowed, and no control character",
                self.name,
                limits::ISOLATION_CHARACTERS_MAX
            )));
        }
        if self.labels.len() > limits::LABELS_MAX {
            return Err(Reject::invalid(format!(
                "node {} has {} labels; at most {} are allowed",
                self.name,
                self.labels.len(),
                limits::LABELS_MAX
            )));
        }
        for label in &self.labels {
            crate::job::check_name("label", label)?;
        }
        if count > limits::GPUS_MAX || count != self.resources.gpus as usize {
            return Err(Reject::invalid(format!(
                "node {} reports {count} gpus in its list and {} in its resources; at most {} are allowed",
                self.name,
                self.resources.gpus,
                limits::GPUS_MAX
            )));
        }
        Ok(())
    }
}

/// Whether a node is given work, as people and the cluster decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// It is.
    #[default]
    Open,
    /// It gets no new work; what runs there may end.
    Drain {
        /// Why, for people.
        reason: String,
        /// When what still runs there is stopped and queued again.
        deadline: Option<At>,
    },
    /// Many tasks failed fast on it; it gets no new work until a person resumes it.
    Quarantine {
        /// What was seen.
        reason: String,
    },
}

impl Service {
    /// The word for it on screens and in JSON.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Drain { .. } => "drain",
            Self::Quarantine { .. } => "quarantine",
        }
    }
}

/// A time in which a node is not to be used. No task starts that could run into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its begin.
    pub from: At,
    /// Its end.
    pub until: At,
    /// Why, for people.
    pub reason: String,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Connected.
    #[default]
    Up,
    /// Its connection is gone and the time to come back is running.
    Late,
    /// It did not come back in time; its tasks were queued again.
    Lost,
}

impl NodeState {
    /// The word for it on screens and in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Late => "late",
            Self::Lost => "lost",
        }
    }
}
