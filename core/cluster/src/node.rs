//! A node within the cluster: its facts, what is leased of it, and what it still has to end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_model::health::Ailment;
use gantry_model::{
    At, JobId, Lease, NodeFacts, NodeId, NodeState, Preemption, Resources, Service, Sharing,
    TaskId, TryId, Window,
};
use serde::{Deserialize, Serialize};

use crate::accounts::AccountId;
use crate::ahead::Ahead;
use crate::health::Relapse;
use crate::room::Room;

/// The first port at which the ranks of a gang meet; a node gives each gang its own.
const PORT_FIRST: u16 = 29_500;

/// A try that holds a lease, with what others need to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(crate) task: TaskId,
    pub(crate) lease: Lease,
    /// Devices of the lease that its node has lost.
    pub(crate) gone: Vec<String>,
    pub(crate) sharing: Sharing,
    pub(crate) since: At,
    /// When it will have ended at the latest, where its owner said so or it is being stopped.
    pub(crate) until: Option<At>,
    pub(crate) account: AccountId,
    pub(crate) preemption: Preemption,
    /// The port of its gang, where it is the rank at which the others meet.
    pub(crate) port: Option<u16>,
}

/// The end of a try on a node, for the judgement whether the node is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FastEnd {
    pub(crate) job: JobId,
    /// Whether tasks of the job have ended well elsewhere.
    pub(crate) well_elsewhere: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) facts: NodeFacts,
    pub(crate) state: NodeState,
    pub(crate) since: At,
    pub(crate) service: Service,
    pub(crate) windows: Vec<Window>,
    /// What it has when nothing is leased.
    pub(crate) whole: Room,
    pub(crate) room: Room,
    pub(crate) live: BTreeMap<TryId, Live>,
    /// Tries that wait there for the lease of one of their job.
    pub(crate) ahead: BTreeMap<JobId, BTreeMap<TryId, Ahead>>,
    /// When a lease was last handed on there, or the first try was launched ahead.
    pub(crate) handed: At,
    /// Whether it came back smaller than what is leased of it.
    pub(crate) over: bool,
    /// Tries that were given up while the node was away. It gets no new work until each is
    /// reported ended.
    pub(crate) strays: BTreeSet<TryId>,
    /// When the cluster looks at it next.
    pub(crate) armed: Option<At>,
    /// Fast failures in a row.
    pub(crate) fast: VecDeque<FastEnd>,
    /// What is wrong with it and its GPUs.
    pub(crate) ailments: Vec<Ailment>,
    /// What was wrong and is over.
    pub(crate) relapses: Vec<Relapse>,
}

impl Node {
    pub(crate) fn new(id: NodeId, facts: NodeFacts, at: At) -> Self {
        let whole = Room::whole(&facts);
        let room = whole.clone();
        Self {
            id,
            facts,
            whole,
            state: NodeState::Up,
            since: at,
            service: Service::Open,
            windows: Vec::new(),
            room,
            live: BTreeMap::new(),
            ahead: BTreeMap::new(),
            handed: at,
            over: false,
            strays: BTreeSet::new(),
            armed: None,
            fast: VecDeque::new(),
            ailments: Vec::new(),
            relapses: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.facts.name
    }

    /// Grants a lease to a try.
    ///
    /// # Panics
    /// Where less is free than is asked, or the try holds one already.
    pub(crate) fn grant(&mut self, try_id: TryId, live: Live) {
        self.room.take(&live.lease, live.sharing);
        let before = self.live.insert(try_id, live);
        assert!(before.is_none(), "{try_id} was granted twice");
    }

    /// Takes a lease back; nothing where the try holds none here.
    pub(crate) fn take_back(&mut self, try_id: TryId) -> Option<Live> {
        let live = self.live.remove(&try_id)?;
        // What is marked counts as taken, whatever is given back of it.
        if self.over || self.facts.gpus.iter().any(|gpu| gpu.unfit.is_some()) {
            self.weigh();
        } else {
            self.room.give_back(&live.lease, live.sharing);
        }
        Some(live)
    }

    /// Takes new facts of the same node, after a restart of its agent or a change of hardware.
    pub(crate) fn renew(&mut self, facts: NodeFacts) {
        // A device that is gone moves those behind it, and it may come back under its task: leases
        // follow their devices by UUID.
        for live in self.live.values_mut() {
            let known = |index: &u16| Some(self.facts.gpus.get(usize::from(*index))?.uuid.clone());
            let mut uuids: Vec<String> = live.lease.gpus.iter().filter_map(known).collect();
            uuids.append(&mut live.gone);
            live.lease.gpus.clear();
            for uuid in uuids {
                match facts.gpus.iter().position(|gpu| gpu.uuid == uuid) {
                    Some(place) => live.lease.gpus.push(place as u16),
                    None => live.gone.push(uuid),
                }
            }
            live.lease.gpus.sort_unstable();
        }
        self.whole = Room::whole(&facts);
        self.facts = facts;
        self.mark();
    }

    pub(crate) fn weigh(&mut self) {
        self.room = self.recount();
        self.over = Room::is_over(&self.facts, self.live.values().map(|live| &live.lease));
    }

    /// What is free, from the facts and the leases alone.
    pub(crate) fn recount(&self) -> Room {
        Room::left(&self.facts, self.live.values().map(|live| (&live.lease, live.sharing)))
    }

    /// What is free once every lease has ended that ends by `then`; with `None`, once all have. One
    /// that should have ended before `at` ends nobody knows when.
    pub(crate) fn room_at(&self, at: At, then: Option<At>) -> Room {
        let known = |live: &&Live| live.until.filter(|until| *until > at);
        let stays =
            |live: &&Live| then.is_some_and(|then| known(live).is_none_or(|until| until > then));
        let held = self.live.values().filter(stays);
        Room::left(&self.facts, held.map(|live| (&live.lease, live.sharing)))
    }

    /// What tasks hold of it; devices count whole, however small the share.
    pub(crate) fn held(&self) -> Resources {
        let leases = self.live.values().map(|live| live.lease.resources);
        let sum = leases.fold(Resources::default(), |sum, one| sum.plus(&one));
        let devices = self.live.values().flat_map(|live| &live.lease.gpus);
        let gpus = devices.collect::<BTreeSet<_>>().len() as u32;
        Resources { gpus, ..sum }
    }

    /// A port of this node that no other gang meets at.
    pub(crate) fn free_port(&self) -> u16 {
        let used: BTreeSet<u16> = self.live.values().filter_map(|live| live.port).collect();
        (PORT_FIRST..=u16::MAX).find(|port| !used.contains(port)).unwrap_or(PORT_FIRST)
    }
}
