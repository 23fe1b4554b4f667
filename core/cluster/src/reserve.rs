//! What is kept for the first job that finds no room, so that those behind it cannot keep it
//! waiting: EASY backfill (Lifka, 1995).
//!
//! For that job the nodes are chosen on which it can start soonest, and the time is worked out from
//! when the tasks there will have ended, as far as their owners said. A job behind it may start on
//! such a node only if it ends before that time, or if the first job still has its room beside it.
//! Where the time is not known nothing starts there that would stand in its way at the end: a wide
//! job is not starved by narrow ones.
//!
//! Nothing is kept for a job that runs already: its next task takes the place of one of its own.

use std::collections::BTreeMap;

use gantry_model::{At, JobId, NodeId, Role};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::event::Effect;
use crate::gang::{Places, spread};
use crate::kind::Kind;
use crate::node::Node;
use crate::queue::{ClassId, Rank};
use crate::rule::Rule;

/// Nodes that are looked at for a reservation. More would cost time with each task that ends, and
/// the job takes any other node that has room first.
const LOOKED_AT_MAX: usize = 256;

/// Room that is kept for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) job: JobId,
    pub(crate) class: ClassId,
    /// How many of its tasks each node is kept for.
    pub(crate) nodes: BTreeMap<NodeId, u32>,
    /// When it can start, where that is known.
    pub(crate) start: Option<At>,
}

/// A time that may not be known: known ones first.
type When = (Unknown, At);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unknown {
    No,
    Yes,
}

impl Cluster {
    /// Keeps room for a job that found none, unless room is kept for one before it.
    pub(crate) fn reserve(
        &mut self,
        at: At,
        rank: Rank,
        class: ClassId,
        job: JobId,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(kept) = &self.reservation {
            let first = kept.job == job;
            if !first && self.rank(at, kept.class, kept.job) < rank {
                return;
            }
            if first && self.holds_good(at, kept) {
                return;
            }
        }
        let role = self.role(class.kind);
        let runs = self.jobs.get(&job).is_some_and(|job| job.counts.run > 0);
        let mut next = self.preempt(at, class, job, role, effects);
        if next.is_none() && !runs {
            next = self.plan(at, class, job, role);
        }
        // Its turn has come by rank alone, and what was kept from it is free: it is looked at again.
        if let Some(next) = next.as_ref().filter(|next| next.start == Some(at)) {
            self.changed.extend(next.nodes.keys());
        }
        for node in next.iter().flat_map(|next| next.nodes.keys()) {
            self.recall_node(*node, effects);
        }
        if next.is_some() || self.reservation.as_ref().is_some_and(|kept| kept.job == job) {
            self.keep(next);
        }
    }

    /// Replaces the reservation; the nodes it leaves may take others now.
    pub(crate) fn keep(&mut self, next: Option<Reservation>) {
        if let Some(before) = std::mem::replace(&mut self.reservation, next) {
            let now = self.reservation.as_ref();
            let left = before.nodes.keys().copied().filter(|node| {
                now.is_none_or(|now| !now.nodes.contains_key(node) || now.start > before.start)
            });
            self.changed.extend(left);
        }
    }

    /// The job for which room was kept needs it no more.
    pub(crate) fn unkeep(&mut self, job: JobId) {
        if self.reservation.as_ref().is_some_and(|kept| kept.job == job) {
            self.keep(None);
        }
    }

    fn holds_good(&self, at: At, kept: &Reservation) -> bool {
        let kind = self.kinds.get(kept.class.kind);
        let open = |node: &NodeId| self.node(*node).is_closed(kind, at).is_none();
        kept.start.is_none_or(|start| start > at) && kept.nodes.keys().all(open)
    }

    /// Where and when a job can start soonest, as far as is known.
    pub(crate) fn plan(
        &self,
        at: At,
        class: ClassId,
        job: JobId,
        role: Option<Role>,
    ) -> Option<Reservation> {
        let kind = self.kinds.get(class.kind);
        let open = |node: &&Node| {
            node.never_takes(kind, role).is_none() && node.is_closed(kind, at).is_none()
        };
        let nodes = self.nodes.iter().filter(open).take(LOOKED_AT_MAX);
        let reservation = |nodes: BTreeMap<NodeId, u32>, when: When| Reservation {
            job,
            class,
            nodes,
            start: (when.0 == Unknown::No).then_some(when.1),
        };
        let Some(gang) = kind.gang else {
            let soonest = nodes.filter_map(|node| Some((earliest(node, kind, 1, at)?, node)));
            let best =
                soonest.min_by_key(|(when, node)| (*when, std::cmp::Reverse(node.room.free.cores)));
            return best.map(|(when, node)| reservation([(node.id, 1)].into(), when));
        };
        let each = gang.nodes.map(|nodes| gang.ranks / nodes);
        let mut soonest: Vec<(When, NodeId, u32)> = nodes
            .filter_map(|node| {
                let most = node.room_at(at, None).capacity(&node.facts.gpus, kind).min(gang.ranks);
                let count = each.map_or(most, |each| if most >= each { each } else { 0 });
                let when = (count > 0).then(|| earliest(node, kind, count, at)).flatten()?;
                Some((when, node.id, count))
            })
            .collect();
        soonest.sort_by_key(|(when, node, count)| (*when, std::cmp::Reverse(*count), *node));
        for end in 1..=soonest.len() {
            let first = &soonest[..end];
            let room: Places = first.iter().map(|(_, node, count)| (*node, *count)).collect();
            let enough = room.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
            if enough >= u64::from(gang.ranks)
                && let Some(places) = spread(gang, room)
            {
                let when = first.iter().map(|(when, ..)| *when).max()?;
                return Some(reservation(places.into_iter().collect(), when));
            }
        }
        None
    }

    /// Whether a node is kept for a job before this one, which one more task of this kind would
    /// delay.
    pub(crate) fn is_kept(&self, at: At, node: &Node, kind: &Kind, job: JobId) -> Option<Rule> {
        let kept = self.reservation.as_ref().filter(|kept| kept.job != job)?;
        let count = *kept.nodes.get(&node.id)?;
        let mine = self.class_of(job)?;
        if self.rank(at, mine, job) < self.rank(at, kept.class, kept.job) {
            return None;
        }
        let ends = kind.duration.map(|duration| at.after(duration));
        if let (Some(ends), Some(start)) = (ends, kept.start)
            && ends <= start
        {
            return None;
        }
        let mut room = node.room_at(at, kept.start);
        if let Some(lease) = room.choose(&node.facts.gpus, kind) {
            room.take(&lease, kind.sharing);
            let theirs = self.kinds.get(kept.class.kind);
            if room.capacity(&node.facts.gpus, theirs) >= count {
                return None;
            }
        }
        Some(Rule::Kept(kept.job))
    }
}

/// When a node has room for so many tasks of a kind, if it ever has: now, when enough of what runs
/// there will have ended, or at a time that nobody has said.
fn earliest(node: &Node, kind: &Kind, count: u32, at: At) -> Option<When> {
    let enough = |time| node.room_at(at, time).capacity(&node.facts.gpus, kind) >= count;
    if !enough(None) {
        return None;
    }
    let known = |until: &At| *until > at;
    let mut times: Vec<At> =
        node.live.values().filter_map(|live| live.until).filter(known).collect();
    times.push(at);
    times.sort_unstable();
    times.dedup();
    // More has ended later: the first time that is enough is found by halving.
    let first = times.partition_point(|time| !enough(Some(*time)));
    let found = times.get(first).map(|time| (Unknown::No, *time));
    Some(found.unwrap_or((Unknown::Yes, at)))
}
