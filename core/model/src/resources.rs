//! What a task asks for, and what a try is given.
//!
//! Amounts ([`Resources`]) add and compare; which GPUs ([`GpuDemand`]) and whether a node is shared
//! ([`Sharing`]) only fit or do not. A MIG instance is a device of its own: a request for whole GPUs
//! never takes one, and a request for a profile takes nothing else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::MemoryMib;

/// An amount of resources: what a task asks for, or what a node has free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resources {
    /// Processor cores.
    pub cores: u32,
    /// Memory.
    pub memory: MemoryMib,
    /// GPUs: whole ones, or MIG instances where the demand names a profile.
    pub gpus: u32,
    /// Scratch space on the node's own disk.
    pub scratch: MemoryMib,
}

impl Resources {
    /// Whether all of `asked` is here.
    #[must_use]
    pub fn hold(&self, asked: &Self) -> bool {
        self.cores >= asked.cores
            && self.memory >= asked.memory
            && self.gpus >= asked.gpus
            && self.scratch >= asked.scratch
    }

    /// What remains once `taken` is gone.
    ///
    /// # Panics
    /// Where less is here than is taken: a lease may never be granted beyond what a node has.
    #[must_use]
    pub fn minus(&self, taken: &Self) -> Self {
        assert!(self.hold(taken), "took {taken} from {self}");
        Self {
            cores: self.cores - taken.cores,
            memory: MemoryMib(self.memory.0 - taken.memory.0),
            gpus: self.gpus - taken.gpus,
            scratch: MemoryMib(self.scratch.0 - taken.scratch.0),
        }
    }

    /// The sum of both, saturating.
    #[must_use]
    pub fn plus(&self, given: &Self) -> Self {
        Self {
            cores: self.cores.saturating_add(given.cores),
            memory: MemoryMib(self.memory.0.saturating_add(given.memory.0)),
            gpus: self.gpus.saturating_add(given.gpus),
            scratch: MemoryMib(self.scratch.0.saturating_add(given.scratch.0)),
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores, {} memory, {} gpus", self.cores, self.memory, self.gpus)?;
        if self.scratch > MemoryMib(0) { write!(f, ", {} scratch", self.scratch) } else { Ok(()) }
    }
}

/// A whole GPU, in thousandths.
pub const GPU_WHOLE: u16 = 1000;

/// Which part of a GPU a task asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpuPart {
    /// All of it, alone.
    #[default]
    Whole,
    /// A share of its memory and time, beside other tasks, in thousandths.
    Share(u16),
    /// A MIG instance with this profile, as `1g.10gb`.
    Mig(String),
}

/// Which GPUs a task asks for, beside how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuDemand {
    /// Which part of each.
    pub part: GpuPart,
    /// A part of the product's name, upper and lower case alike.
    pub model: Option<String>,
    /// Memory of each, at least.
    pub memory: MemoryMib,
}

/// Whether a task shares its node with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// With any other.
    #[default]
    Shared,
    /// With none.
    Exclusive,
}

/// What one try holds on its node: the amount, and which GPUs by their index on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The amount.
    pub resources: Resources,
    /// Indices of the GPUs on the node, rising.
    pub gpus: Vec<u16>,
    /// How much of each of them, in thousandths; [`GPU_WHOLE`] but for a share.
    pub gpu_permille: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_add_and_compare_by_every_part() {
        let node = Resources { cores: 8, memory: MemoryMib(1024), gpus: 2, scratch: MemoryMib(9) };
        let task = Resources { cores: 2, memory: MemoryMib(512), gpus: 1, scratch: MemoryMib(9) };
        assert!(node.hold(&task) && node.hold(&node));
        assert!(!task.hold(&node));
        assert!(!node.hold(&Resources { gpus: 3, ..task }));
        assert_eq!(node.minus(&task).plus(&task), node);
    }
}
