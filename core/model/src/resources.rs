//! What a task asks for, and what a try is given.

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
    /// Whole GPUs.
    pub gpus: u32,
}

impl Resources {
    /// Whether all of `asked` is here.
    #[must_use]
    pub fn hold(&self, asked: &Self) -> bool {
        self.cores >= asked.cores && self.memory >= asked.memory && self.gpus >= asked.gpus
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
        }
    }

    /// The sum of both, saturating.
    #[must_use]
    pub fn plus(&self, given: &Self) -> Self {
        Self {
            cores: self.cores.saturating_add(given.cores),
            memory: MemoryMib(self.memory.0.saturating_add(given.memory.0)),
            gpus: self.gpus.saturating_add(given.gpus),
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores, {} memory, {} gpus", self.cores, self.memory, self.gpus)
    }
}

/// What one try holds on its node: the amount, and which GPUs by their index on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The amount.
    pub resources: Resources,
    /// Indices of the GPUs on the node, rising.
    pub gpus: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_add_and_compare_by_every_part() {
        let node = Resources { cores: 8, memory: MemoryMib(1024), gpus: 2 };
        let task = Resources { cores: 2, memory: MemoryMib(512), gpus: 1 };
        assert!(node.hold(&task) && node.hold(&node));
        assert!(!task.hold(&node));
        assert!(!node.hold(&Resources { gpus: 3, ..task }));
        assert_eq!(node.minus(&task).plus(&task), node);
    }
}
