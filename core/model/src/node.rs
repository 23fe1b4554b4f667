//! What a node is: its facts as its agent reports them, and where it stands.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::reject::Reject;
use crate::resources::Resources;
use crate::units::MemoryMib;

/// One GPU of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// NVML's id of the device, stable over restarts.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// Its memory.
    pub memory: MemoryMib,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl NodeFacts {
    /// Checks what an agent says before anything is decided from it.
    pub fn validate(&self) -> Result<(), Reject> {
        crate::job::check_name("node", &self.name)?;
        let count = self.gpus.len();
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

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Connected.
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
