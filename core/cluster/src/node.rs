//! A node within the cluster: its facts, what is leased of it, and what it still has to end.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{At, Lease, MemoryMib, NodeFacts, NodeId, NodeState, Resources, TaskId, TryId};

/// A try that holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) task: TaskId,
    pub(crate) lease: Lease,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) facts: NodeFacts,
    pub(crate) state: NodeState,
    pub(crate) since: At,
    pub(crate) free: Resources,
    pub(crate) free_gpus: BTreeSet<u16>,
    pub(crate) live: BTreeMap<TryId, Live>,
    /// Tries that were given up while the node was away. It gets no new work until each is
    /// reported ended.
    pub(crate) strays: BTreeSet<TryId>,
}

impl Node {
    pub(crate) fn new(id: NodeId, facts: NodeFacts, at: At) -> Self {
        let mut node = Self {
            id,
            facts,
            state: NodeState::Up,
            since: at,
            free: Resources::default(),
            free_gpus: BTreeSet::new(),
            live: BTreeMap::new(),
            strays: BTreeSet::new(),
        };
        node.recount();
        node
    }

    /// Whether it can be given new work at all.
    pub(crate) fn takes_work(&self) -> bool {
        self.state == NodeState::Up && self.strays.is_empty()
    }

    /// Grants a lease to a try.
    ///
    /// # Panics
    /// Where less is free than is asked.
    pub(crate) fn grant(&mut self, try_id: TryId, task: TaskId, asked: Resources) -> Lease {
        assert!(self.free.hold(&asked), "{} has {} free, not {asked}", self.facts.name, self.free);
        let gpus: Vec<u16> = self.free_gpus.iter().copied().take(asked.gpus as usize).collect();
        assert_eq!(gpus.len(), asked.gpus as usize, "free gpus of {}", self.facts.name);
        let lease = Lease { resources: asked, gpus };
        let before = self.live.insert(try_id, Live { task, lease: lease.clone() });
        assert!(before.is_none(), "{try_id} was granted twice");
        self.recount();
        lease
    }

    /// Takes a lease back; nothing where the try holds none here.
    pub(crate) fn take_back(&mut self, try_id: TryId) -> Option<Live> {
        let live = self.live.remove(&try_id)?;
        self.recount();
        Some(live)
    }

    /// Takes new facts of the same node, after a restart of its agent or a change of hardware.
    pub(crate) fn renew(&mut self, facts: NodeFacts) {
        self.facts = facts;
        self.recount();
    }

    /// What tasks hold of it.
    pub(crate) fn held(&self) -> Resources {
        let leases = self.live.values().map(|live| live.lease.resources);
        leases.fold(Resources::default(), |sum, one| sum.plus(&one))
    }

    /// Free is what the node has less what is leased. A node that came back smaller than its
    /// leases has nothing free until enough of them have ended.
    fn recount(&mut self) {
        let (whole, held) = (self.facts.resources, self.held());
        let held_gpus: BTreeSet<u16> =
            self.live.values().flat_map(|live| live.lease.gpus.iter().copied()).collect();
        let all_gpus = 0..self.facts.gpus.len() as u16;
        self.free_gpus = all_gpus.filter(|gpu| !held_gpus.contains(gpu)).collect();
        self.free = Resources {
            cores: whole.cores.saturating_sub(held.cores),
            memory: MemoryMib(whole.memory.0.saturating_sub(held.memory.0)),
            gpus: self.free_gpus.len() as u32,
        };
    }
}
