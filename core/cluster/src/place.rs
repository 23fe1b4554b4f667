//! Which waiting task goes to which node.
//!
//! One pass looks at the first job of each class, by rank. A class that has found no node is asked
//! only of nodes that have changed since, and when nothing has changed it is not asked at all: the
//! cost of a pass follows classes and changed nodes, not jobs.
//!
//! The first job by rank that finds no room gets a reservation ([`crate::reserve`]); those behind it
//! may start only where they do not delay it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use gantry_model::{At, JobId, MemoryMib, NodeId, NodeState, Resources, Role};

use crate::cluster::Cluster;
use crate::event::Effect;
use crate::kind::{Kind, KindId};
use crate::node::Node;
use crate::queue::{ClassId, Rank};
use crate::rule::{Rule, sentence};

/// Passes that one event may cause: a reservation that moves lets others look at the nodes it left.
const ROUNDS_MAX: u32 = 4;

/// How welcome a task is on a node: greater is better.
type Welcome = (Reverse<u32>, Reverse<u32>, u32, Reverse<NodeId>);

/// Nodes that may take a class, best first, as far as a pass has looked.
type Candidates = BinaryHeap<(Welcome, NodeId)>;

/// What a look at one job gave.
enum Look {
    Placed,
    /// No node takes it; why, where that was worked out anew.
    Refused(Option<String>),
    /// Not for lack of room: nothing is kept for it.
    Waits(String),
}

impl Cluster {
    /// Places what can be placed now.
    pub(crate) fn place(&mut self, at: At, effects: &mut Vec<Effect>) {
        for _ in 0..ROUNDS_MAX {
            if self.changed.is_empty() && self.queue.open.is_empty() {
                return;
            }
            self.pass(at, effects);
        }
    }

    fn pass(&mut self, at: At, effects: &mut Vec<Effect>) {
        let changed = std::mem::take(&mut self.changed);
        self.accounts.look(at, &self.settings);
        let mut heads: BTreeSet<(Rank, ClassId)> = self
            .worth_a_look(at, &changed)
            .into_iter()
            .filter_map(|class| Some((self.rank(at, class, self.head(class)?), class)))
            .collect();
        let mut found: BTreeMap<ClassId, Candidates> = BTreeMap::new();
        while let Some((rank, class)) = heads.pop_first() {
            let Some(job) = self.head(class) else { continue };
            // Its user may have been given something since.
            let now = self.rank(at, class, job);
            if now > rank {
                heads.insert((now, class));
                continue;
            }
            match self.look(at, class, job, &changed, &mut found, effects) {
                Look::Placed => {
                    let next = self.head(class).map(|job| (self.rank(at, class, job), class));
                    heads.extend(next);
                }
                Look::Refused(reason) => {
                    let epoch = self.queue.epoch;
                    self.close(class, reason, Some(epoch));
                    self.reserve(at, rank, class, job, effects);
                }
                Look::Waits(reason) => self.close(class, Some(reason), None),
            }
        }
    }

    /// The classes that may have found a node by what has changed, and the one that room is kept
    /// for; all of them where room is kept for none.
    fn worth_a_look(&mut self, at: At, changed: &BTreeSet<NodeId>) -> Vec<ClassId> {
        let kept = self.reservation.as_ref().map(|kept| kept.class);
        // Where room is kept for nobody, somebody may have to be the first for whom it is.
        if changed.is_empty() && kept.is_some() {
            return self.queue.open.iter().copied().collect();
        }
        let mut known: Option<(KindId, bool)> = None;
        let mut worth = Vec::new();
        let classes: Vec<(ClassId, bool)> = self
            .queue
            .classes
            .iter()
            .map(|(id, class)| (*id, class.refused == Some(self.queue.epoch)))
            .collect();
        for (class, refused) in classes {
            // Classes of one kind follow one another.
            let fits = match known {
                Some((kind, fits)) if kind == class.kind => fits,
                _ => {
                    let role = self.role(class.kind);
                    let kind = self.kinds.get(class.kind);
                    let takes = |id: &NodeId| {
                        let node = self.node(*id);
                        node.room.capacity(&node.facts.gpus, kind) > 0
                            && node.refuses(kind, role, at).is_none()
                    };
                    changed.iter().any(takes)
                }
            };
            known = Some((class.kind, fits));
            if fits || !refused || kept.is_none() || kept == Some(class) {
                worth.push(class);
            }
        }
        worth
    }

    fn close(&mut self, class: ClassId, reason: Option<String>, epoch: Option<u64>) {
        self.queue.open.remove(&class);
        if let Some(queued) = self.queue.classes.get_mut(&class) {
            queued.refused = epoch;
            if let Some(reason) = reason {
                queued.reason = reason;
            }
        }
    }

    fn look(
        &mut self,
        at: At,
        class: ClassId,
        job: JobId,
        changed: &BTreeSet<NodeId>,
        found: &mut BTreeMap<ClassId, Candidates>,
        effects: &mut Vec<Effect>,
    ) -> Look {
        if let Some(reason) = self.waits_for_quota(class) {
            return Look::Waits(reason);
        }
        let role = self.role(class.kind);
        let refused = self.queue.classes.get(&class).and_then(|class| class.refused);
        let only = (refused == Some(self.queue.epoch)).then_some(changed);
        if self.kinds.get(class.kind).gang.is_some() {
            return match self.find_for_gang(at, class, job, role) {
                Ok(places) => {
                    self.launch_gang(at, job, &places, effects);
                    Look::Placed
                }
                Err(reason) => Look::Refused(Some(reason)),
            };
        }
        let mut candidates =
            found.remove(&class).unwrap_or_else(|| self.candidates(at, class.kind, role, only));
        let best = self.best(at, class, job, role, &mut candidates);
        found.insert(class, candidates);
        match best {
            Some(node) => {
                self.launch(at, job, node, effects);
                Look::Placed
            }
            None if only.is_some() => Look::Refused(None),
            None => Look::Refused(Some(self.why_not(at, class, job, role))),
        }
    }

    /// Why a class may not start anything now, whatever the nodes have free.
    pub(crate) fn waits_for_quota(&self, class: ClassId) -> Option<String> {
        let kind = self.kinds.get(class.kind);
        let together = kind.together();
        for (name, count) in &kind.licences {
            let all = self.settings.licences.get(name).copied().unwrap_or(0);
            let held = self.licences.get(name).copied().unwrap_or(0);
            let asked = count.saturating_mul(together);
            if held.saturating_add(asked) > all {
                let free = all.saturating_sub(held);
                return Some(format!(
                    "needs {asked} of the licence {name}; {free} of {all} are free"
                ));
            }
        }
        let all = times(&kind.resources, together);
        self.accounts.over_limit(class.account, &all, &self.settings)
    }

    /// The role that is asked for: only where a node has it, is not lost and could hold the task
    /// when empty. A cluster without a GPU node still trains.
    pub(crate) fn role(&mut self, kind: KindId) -> Option<Role> {
        if let Some(known) = self.kinds.role(kind, self.generation) {
            return known.0;
        }
        let role = self.known_role(kind);
        self.kinds.keep_role(kind, self.generation, role);
        role
    }

    /// The same, worked out anew.
    pub(crate) fn known_role(&self, kind: KindId) -> Option<Role> {
        let kind = self.kinds.get(kind);
        kind.role.filter(|role| {
            self.nodes.iter().any(|node| {
                node.state != NodeState::Lost && node.never_takes(kind, Some(*role)).is_none()
            })
        })
    }

    fn candidates(
        &self,
        at: At,
        kind: KindId,
        role: Option<Role>,
        only: Option<&BTreeSet<NodeId>>,
    ) -> Candidates {
        let kind = self.kinds.get(kind);
        let fits = |node: &&Node| node.refuses(kind, role, at).is_none();
        let entry = |node: &Node| (welcome(node, kind), node.id);
        match only {
            Some(some) => some.iter().map(|id| self.node(*id)).filter(fits).map(entry).collect(),
            None => self.nodes.iter().filter(fits).map(entry).collect(),
        }
    }

    /// The best of the candidates that takes a task of a class now.
    fn best(
        &self,
        at: At,
        class: ClassId,
        job: JobId,
        role: Option<Role>,
        candidates: &mut Candidates,
    ) -> Option<NodeId> {
        let kind = self.kinds.get(class.kind);
        while let Some((known, id)) = candidates.pop() {
            let node = self.node(id);
            if node.refuses(kind, role, at).is_some() || self.is_kept(at, node, kind, job).is_some()
            {
                continue;
            }
            // What was placed since may have made others better.
            let now = welcome(node, kind);
            candidates.push((now, id));
            if now >= known {
                return Some(id);
            }
        }
        None
    }

    /// Each node's first rule that says no to a job, in the order of the nodes.
    pub(crate) fn rules(
        &self,
        at: At,
        class: ClassId,
        job: JobId,
        role: Option<Role>,
    ) -> Vec<(&str, Option<Rule>)> {
        let kind = self.kinds.get(class.kind);
        let rule = |node: &Node| {
            node.refuses(kind, role, at).or_else(|| self.is_kept(at, node, kind, job))
        };
        let members = self.nodes.iter().filter(|node| self.is_member(node));
        members.map(|node| (node.name(), rule(node))).collect()
    }

    pub(crate) fn why_not(&self, at: At, class: ClassId, job: JobId, role: Option<Role>) -> String {
        let rules = self.rules(at, class, job, role).into_iter();
        let rules: Vec<(&str, Rule)> =
            rules.filter_map(|(name, rule)| Some((name, rule?))).collect();
        sentence(&rules)
    }

    /// A task has ended, or its node has changed: it may take more.
    pub(crate) fn has_changed(&mut self, node: NodeId) {
        self.changed.insert(node);
    }
}

/// Gpus are kept for those who ask for them; who asks for none is spread over the nodes, and who
/// asks for some goes where they just fit, so that whole nodes stay for the wide.
fn welcome(node: &Node, kind: &Kind) -> Welcome {
    let free = &node.room.free;
    let (wasted, left) =
        if kind.resources.gpus == 0 { (node.facts.resources.gpus, 0) } else { (0, free.gpus) };
    (Reverse(wasted), Reverse(left), free.cores, Reverse(node.id))
}

/// An amount so many times.
pub(crate) fn times(asked: &Resources, count: u32) -> Resources {
    Resources {
        cores: asked.cores.saturating_mul(count),
        memory: MemoryMib(asked.memory.0.saturating_mul(u64::from(count))),
        gpus: asked.gpus.saturating_mul(count),
        scratch: MemoryMib(asked.scratch.0.saturating_mul(u64::from(count))),
    }
}
