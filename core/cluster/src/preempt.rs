//! Stopping work to make room, only where that is proven to make it.
//!
//! Victims are tasks whose owner allows it (they write checkpoints and go on from them), and which
//! have a lower priority than the job that needs room, or belong to a group that has borrowed what
//! the job's group is guaranteed. The search ends with a set of victims without which the job fits,
//! checked by the same functions that place it; without such a set nothing is stopped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{
    AfterStop, At, JobId, Level, Millis, NodeId, Preemption, Resources, Role, Subject, TaskState,
    TryId,
};

use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::gang::{Places, spread};
use crate::kind::Kind;
use crate::node::{Live, Node};
use crate::place::times;
use crate::queue::ClassId;
use crate::reserve::Reservation;
use crate::room::Room;

/// What groups hold, by their name.
type Lent<'a> = BTreeMap<&'a str, Resources>;

/// How long a task that is stopped may take: for planning, not a limit.
pub(crate) const STOP_TAKES: Millis = Millis::from_seconds(60);

impl Cluster {
    /// Stops what makes room for a job, and keeps that room for it.
    pub(crate) fn preempt(
        &mut self,
        at: At,
        class: ClassId,
        job: JobId,
        role: Option<Role>,
        effects: &mut Vec<Effect>,
    ) -> Option<Reservation> {
        if self.preemptible.is_empty() {
            return None;
        }
        let kind = self.kinds.get(class.kind);
        let open = |node: &&Node| {
            // A single task needs a node with something to stop; a gang takes empty ones as well.
            (kind.gang.is_some() || self.preemptible.contains_key(&node.id))
                && node.never_takes(kind, role).is_none()
                && node.is_closed(kind, at).is_none()
        };
        let lent = self.lent(class);
        let mut could: BTreeMap<NodeId, Vec<TryId>> = BTreeMap::new();
        let mut room = Places::new();
        for node in self.nodes.iter().filter(open) {
            let victims = self.victims(node, class, lent.clone());
            let most = without(node, &victims).capacity(&node.facts.gpus, kind);
            room.push((node.id, most.min(kind.together())));
            could.insert(node.id, victims);
        }
        let places = if let Some(gang) = kind.gang {
            spread(gang, room)?
        } else {
            // The fewest tasks are stopped, and then those that have run for the shortest time.
            let fits = room.into_iter().filter(|(_, count)| *count > 0);
            let cost = |(id, _): &(NodeId, u32)| {
                let node = self.node(*id);
                fewest(node, kind, 1, &could[id]).map_or(usize::MAX, |some| some.len())
            };
            vec![fits.min_by_key(cost)?]
        };
        let (mut chosen, mut lent) = (BTreeSet::new(), lent);
        for (id, count) in &places {
            let node = self.node(*id);
            for try_id in fewest(node, kind, *count, &could[id])? {
                // Several nodes together may take more of a group than it has borrowed.
                if !self.may_stop(&node.live[&try_id], class, &mut lent) {
                    return None;
                }
                chosen.insert(try_id);
            }
        }
        let nodes: BTreeMap<NodeId, u32> = places.into_iter().collect();
        if chosen.is_empty() {
            // Room is there once what is being stopped has ended.
            return None;
        }
        // What waits there for a lease must not get it from what is stopped.
        for node in nodes.keys() {
            self.recall_node(*node, effects);
        }
        self.stop_all(at, job, &chosen, effects);
        Some(Reservation { job, class, nodes, start: Some(at.after(STOP_TAKES)) })
    }

    /// What of a node may be stopped for a job of a class, cheapest first.
    fn victims(&self, node: &Node, class: ClassId, mut lent: Lent<'_>) -> Vec<TryId> {
        let mut all: Vec<(&TryId, &Live)> = node.live.iter().collect();
        all.retain(|(_, live)| live.preemption == Preemption::Requeue);
        all.sort_by_key(|(id, live)| (self.priority(live), Reverse(live.since), **id));
        all.retain(|(_, live)| self.may_stop(live, class, &mut lent));
        all.into_iter().map(|(try_id, _)| *try_id).collect()
    }

    /// The priority of a try's job as it stands now: it may have been changed since the start.
    fn priority(&self, live: &Live) -> i32 {
        self.jobs.get(&live.task.job).map_or(i32::MAX, |job| job.spec.priority)
    }

    fn is_stopping(&self, live: &Live) -> bool {
        let task = self.jobs.get(&live.task.job).and_then(|job| job.tasks.get(&live.task.index));
        task.is_some_and(|task| matches!(task.state, TaskState::Stopping { .. }))
    }

    /// What other groups hold, less what is being stopped, where the class's own may take back what
    /// they have borrowed; nothing where it may not.
    fn lent(&self, class: ClassId) -> Lent<'_> {
        let kind = self.kinds.get(class.kind);
        let asked = times(&kind.resources, kind.together());
        let mut lent = Lent::new();
        if !self.accounts.is_guaranteed(class.account, &asked, &self.settings) {
            return lent;
        }
        let own = self.accounts.group(class.account);
        for live in self.nodes.iter().flat_map(|node| node.live.values()) {
            let group = self.accounts.group(live.account);
            if group != own && !self.is_stopping(live) {
                let held = lent.entry(group).or_default();
                *held = held.plus(&live.lease.resources);
            }
        }
        lent
    }

    /// Whether a try may be stopped for a job of a class, beside those before it. What a group is
    /// guaranteed is left to it.
    fn may_stop(&self, live: &Live, class: ClassId, lent: &mut Lent<'_>) -> bool {
        if self.is_stopping(live) {
            return true;
        }
        let held = lent.get_mut(self.accounts.group(live.account));
        let borrowed = held
            .as_ref()
            .is_some_and(|held| self.accounts.borrows(live.account, held, &self.settings));
        let may = borrowed || self.priority(live) < class.priority;
        if let Some(held) = held.filter(|_| may) {
            *held = held.minus(&live.lease.resources);
        }
        may
    }

    fn stop_all(
        &mut self,
        at: At,
        job: JobId,
        chosen: &BTreeSet<TryId>,
        effects: &mut Vec<Effect>,
    ) {
        let tasks: BTreeSet<_> = self
            .nodes
            .iter()
            .flat_map(|node| &node.live)
            .filter(|(try_id, _)| chosen.contains(try_id))
            .map(|(_, live)| live.task)
            .collect();
        for task in tasks {
            let gang = self.jobs.get(&task.job).is_some_and(crate::job::Job::is_gang);
            let sentence = format!("stopped to make room for {job}; it goes on later");
            effects.push(note(at, Level::Note, Subject::Task(task), sentence));
            effects.push(Effect::Preempted { task, by: job });
            if gang {
                self.stop_gang(at, task.job, AfterStop::Again, effects);
            } else {
                self.stop_task(at, task, AfterStop::Again, effects);
            }
        }
    }
}

/// The room of a node once some tries have ended.
fn without(node: &Node, gone: &[TryId]) -> Room {
    let stay = node.live.iter().filter(|(try_id, _)| !gone.contains(try_id));
    Room::left(&node.facts, stay.map(|(_, live)| (&live.lease, live.sharing)))
}

/// The first of the victims without whom so many tasks fit, less those who need not go.
fn fewest(node: &Node, kind: &Kind, count: u32, victims: &[TryId]) -> Option<Vec<TryId>> {
    let fits = |gone: &[TryId]| without(node, gone).capacity(&node.facts.gpus, kind) >= count;
    let enough = (0..=victims.len()).find(|end| fits(&victims[..*end]))?;
    let mut chosen = victims[..enough].to_vec();
    // The cheap ones that came first may not have been needed after all.
    for victim in &victims[..enough] {
        let rest: Vec<TryId> = chosen.iter().copied().filter(|other| other != victim).collect();
        if fits(&rest) {
            chosen = rest;
        }
    }
    Some(chosen)
}
