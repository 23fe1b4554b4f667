//! Launches ahead: tasks that wait on a node for the lease of one of their own job that runs there.
//!
//! Between the end of a short task and the order to start the next lies the way to the scheduler,
//! its journal and the way back. A node that already knows what comes next starts it at once and
//! tells both in one report, and many such reports share one message and one sync of the journal.
//! What waits there holds nothing. It is of the same job and asks for the same, so that neither
//! room nor quotas change when a lease is handed on.
//!
//! Deciding early must not decide worse. A job gets tasks ahead only where it is the first by rank
//! that waits for room on that node, only for so long as its last tasks say that they take
//! ([`crate::ClusterSettings::ahead`], together), and never more than its share of what is left
//! over all its running tasks. What changes that (a hold, a drain, a change, a task that takes
//! longer than those before it) calls them back; a node returns what it has not started. It hands a
//! lease on only after a task that ended well, so that a bad node eats one task and not the queue.

use std::collections::BTreeMap;

use gantry_model::{
    AfterStop, At, Exit, GPU_WHOLE, IndexSet, JobId, Lease, Millis, NodeId, Order, TaskId,
    TaskState, TryId, Usage,
};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::event::Effect;
use crate::job::Job;
use crate::node::Live;
use crate::tries::{Over, wait_again};

/// Tasks ahead of one that runs: their launches together are some ten kilobytes.
const EACH_MAX: u32 = 64;
/// Tasks ahead of one job on one node, which a connection takes without waiting.
const ON_NODE_MAX: u32 = 2048;
/// Ends of a job's tasks before anything is said of how long they take.
const ENDS_MIN: u32 = 4;
/// Ends after which the earlier ones count half.
const ENDS_MAX: u32 = 64;
/// What waits for so many times as long as it should is called back.
const PATIENCE: u64 = 4;

/// How fast the tasks of a job end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pace {
    ends: u32,
    held: Millis,
}

impl Pace {
    /// One more task has ended well.
    pub(crate) fn count(&mut self, held: Millis) {
        if self.ends >= ENDS_MAX {
            self.ends /= 2;
            self.held.0 /= 2;
        }
        self.ends += 1;
        self.held.0 = self.held.0.saturating_add(held.0);
    }

    /// How many tasks take so long together, as the last ones did.
    fn within(self, time: Millis) -> u32 {
        if self.ends < ENDS_MIN {
            return 0;
        }
        let count = time.0.saturating_mul(u64::from(self.ends)) / self.held.0.max(1);
        u32::try_from(count).unwrap_or(u32::MAX).min(EACH_MAX)
    }
}

/// A try that waits on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ahead {
    pub(crate) task: TaskId,
    /// Whether it was called back, and what becomes of it then.
    pub(crate) recalled: Option<AfterStop>,
}

impl Cluster {
    /// Launches tasks of a job ahead on a node where one of it has ended, as far as it may have
    /// them there.
    pub(crate) fn look_ahead(
        &mut self,
        at: At,
        node: NodeId,
        id: JobId,
        effects: &mut Vec<Effect>,
    ) {
        let here = self.node(node);
        let have = here.ahead.get(&id).map_or(0, BTreeMap::len) as u32;
        let most = self.jobs.get(&id).map_or(0, |job| self.ahead_max(job, node));
        // A few at a time: one look serves many ends.
        if have.saturating_mul(2) > most || most == 0 || !self.may_look_ahead(at, node, id) {
            return;
        }
        let first = here.ahead.is_empty();
        for _ in have..most {
            let Some(index) = self.jobs.get(&id).and_then(Job::next_index) else { break };
            self.launch_ahead(id, index, node, effects);
        }
        if first {
            self.node_mut(node).handed = at;
            self.arm(at, node);
        }
        self.requeue(id);
    }

    /// How many tasks of a job may wait on a node.
    fn ahead_max(&self, job: &Job, node: NodeId) -> u32 {
        let here = job.on.get(&node).copied().unwrap_or(0);
        // What is left is shared by all that run, so that no node keeps it from another.
        let share = job.counts.wait / job.counts.run.max(1);
        let each = job.pace.within(self.settings.ahead).min(share);
        each.saturating_mul(here).min(ON_NODE_MAX)
    }

    /// Whether nothing speaks against it but how many there are.
    fn may_look_ahead(&self, at: At, node: NodeId, id: JobId) -> bool {
        let (Some(job), Some(class)) = (self.jobs.get(&id), self.class_of(id)) else {
            return false;
        };
        let kind = self.kinds.get(job.kind);
        let here = self.node(node);
        let kept = self.reservation.as_ref().is_some_and(|kept| kept.nodes.contains_key(&node));
        let plain = kind.gang.is_none() && kind.resources.gpus == 0;
        let cap = job.spec.array.as_ref().and_then(|array| array.at_once_max);
        let over = cap.is_some_and(|cap| job.counts.run > cap);
        if !plain || kept || over || job.held || job.blocked || job.next_index().is_none() {
            return false;
        }
        let open = here.is_closed(kind, at).is_none() && here.windows.is_empty() && !here.over;
        if !open {
            return false;
        }
        // Whoever waits for room before it must not find that room promised.
        let mine = self.rank(at, class, id);
        !self.queue.classes.keys().any(|other| {
            let before = self.head(*other).is_some_and(|head| self.rank(at, *other, head) < mine);
            before
                && here.never_takes(self.kinds.get(other.kind), None).is_none()
                && self.waits_for_quota(*other).is_none()
        })
    }

    fn launch_ahead(&mut self, id: JobId, index: u32, node: NodeId, effects: &mut Vec<Effect>) {
        self.tries_made += 1;
        let try_id = TryId(self.tries_made);
        let Some(job) = self.jobs.get_mut(&id) else { unreachable!("{id} was looked at") };
        job.step(index, &TaskState::Ahead { node, try_id });
        let start = job.touch(index).map_or(1, |task| task.starts + 1);
        let resources = self.kinds.get(job.kind).resources;
        // The node puts in the devices of the lease that it hands on, where there are any.
        let lease = Lease { resources, gpus: Vec::new(), gpu_permille: GPU_WHOLE };
        let launch = job.launch(index, try_id, lease, start, None);
        let here = self.node_mut(node);
        let entry = Ahead { task: id.task(index), recalled: None };
        here.ahead.entry(id).or_default().insert(try_id, entry);
        let order = Order::Ahead(Box::new(launch));
        effects.push(Effect::Order { node: here.name().to_owned(), order });
    }

    /// A node has handed the lease of a try that ended on to one that waited for it. Room and quotas
    /// stay as they are. Gives what held the lease before.
    pub(crate) fn hand_on(
        &mut self,
        at: At,
        node: NodeId,
        ended: TryId,
        usage: Usage,
        heir: TryId,
        effects: &mut Vec<Effect>,
    ) -> Option<Live> {
        let job = self.node(node).live.get(&ended)?.task.job;
        let Some(Ahead { task, recalled }) = self.node_mut(node).take_ahead(job, heir) else {
            // The heir has ended as well, and its end was heard first.
            return self.release(at, node, ended, usage);
        };
        let live = self.node_mut(node).live.remove(&ended)?;
        self.spend(at, &live, usage);
        let wanted = self.stops_to_wait(live.task);
        let until = self.jobs.get(&job).and_then(|job| self.kinds.get(job.kind).duration);
        let until = until.map(|duration| at.after(duration));
        let here = self.node_mut(node);
        here.live.insert(heir, Live { task, since: at, until, port: None, ..live.clone() });
        here.handed = at;
        self.begins(at, node, task, heir);
        // It was called back too late, or what wants the lease back has stopped the one before it.
        match recalled {
            Some(AfterStop::Cancel) => drop(self.stop_task(at, task, AfterStop::Cancel, effects)),
            _ if wanted => drop(self.stop_task(at, task, AfterStop::Again, effects)),
            _ => {}
        }
        Some(live)
    }

    /// A try that waited on a node has ended there before it was heard that it had begun.
    pub(crate) fn ended_ahead(
        &mut self,
        at: At,
        node: NodeId,
        try_id: TryId,
        exit: &Exit,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(Ahead { task, .. }) = self.node_mut(node).find_ahead(try_id) {
            self.begins(at, node, task, try_id);
            let over = Over { try_id, task, node, placed: at };
            self.conclude(at, &over, exit, effects);
        }
    }

    /// Whether a task is being stopped and waits again, so that its lease is wanted for another.
    fn stops_to_wait(&self, task: TaskId) -> bool {
        let state = self.jobs.get(&task.job).and_then(|job| job.tasks.get(&task.index));
        state.is_some_and(|task| {
            matches!(task.state, TaskState::Stopping { then: AfterStop::Again, .. })
        })
    }

    /// What waited for a lease runs with it.
    fn begins(&mut self, at: At, node: NodeId, task: TaskId, try_id: TryId) {
        let Some(job) = self.jobs.get_mut(&task.job) else { return };
        job.step(task.index, &TaskState::Running { node, try_id, since: at });
        job.parked.remove(task.index);
        job.starts += 1;
        if let Some(started) = job.touch(task.index) {
            started.starts += 1;
            started.node = Some(node);
        }
    }

    /// A node has returned a try that it never started, or was lost with it.
    pub(crate) fn returned(
        &mut self,
        at: At,
        node: NodeId,
        try_id: TryId,
        effects: &mut Vec<Effect>,
    ) {
        let found = self.node_mut(node).find_ahead(try_id);
        let Some(Ahead { task, recalled }) = found else { return };
        let id = task.job;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if recalled == Some(AfterStop::Cancel) {
            job.step(task.index, &TaskState::Cancelled);
        } else {
            wait_again(job, task.index);
            // It was held meanwhile.
            if job.parked.contains(task.index) {
                job.again.remove(&task.index);
            }
        }
        self.requeue(id);
        self.element_ended(at, task, effects);
        self.end_of_job(at, id, effects);
    }

    /// Calls back what waits of a job, on any node.
    pub(crate) fn recall_tasks(
        &mut self,
        id: JobId,
        indices: Option<&IndexSet>,
        then: AfterStop,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let wanted = |ahead: &Ahead| indices.is_none_or(|some| some.contains(ahead.task.index));
        self.nodes.iter_mut().map(|node| node.recall(Some(id), wanted, then, effects)).sum()
    }

    /// Calls back what waits on a node.
    pub(crate) fn recall_node(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        self.node_mut(node).recall(None, |_| true, AfterStop::Again, effects);
    }

    /// Calls back what has waited on a node for too long: what runs there takes longer than what
    /// ran before.
    pub(crate) fn recall_late(&mut self, at: At, node: NodeId, effects: &mut Vec<Effect>) {
        if self.ahead_ends(node).is_some_and(|ends| ends <= at) {
            self.recall_node(node, effects);
        }
    }

    /// When what waits on a node has waited for too long.
    pub(crate) fn ahead_ends(&self, node: NodeId) -> Option<At> {
        let here = self.node(node);
        let waits = here.ahead.values().flat_map(BTreeMap::values);
        let patience = Millis(self.settings.ahead.0.saturating_mul(PATIENCE));
        let any = waits.into_iter().any(|ahead| ahead.recalled.is_none());
        any.then(|| here.handed.after(patience))
    }
}

impl crate::node::Node {
    fn find_ahead(&mut self, try_id: TryId) -> Option<Ahead> {
        let found = self.ahead.iter().find(|(_, tries)| tries.contains_key(&try_id));
        let job = *found?.0;
        self.take_ahead(job, try_id)
    }

    fn take_ahead(&mut self, job: JobId, try_id: TryId) -> Option<Ahead> {
        let tries = self.ahead.get_mut(&job)?;
        let ahead = tries.remove(&try_id)?;
        if tries.is_empty() {
            self.ahead.remove(&job);
        }
        Some(ahead)
    }

    /// Calls back what waits of one job or of all; says of how many that was not said before.
    fn recall(
        &mut self,
        job: Option<JobId>,
        wanted: impl Fn(&Ahead) -> bool,
        then: AfterStop,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let mut count = 0;
        for (id, tries) in &mut self.ahead {
            if job.is_some_and(|job| job != *id) {
                continue;
            }
            for (try_id, ahead) in tries.iter_mut().filter(|(_, ahead)| wanted(ahead)) {
                // A cancel is not taken back, and called back once is enough.
                if ahead.recalled.is_some_and(|before| before <= then) {
                    continue;
                }
                if ahead.recalled.replace(then).is_none() {
                    let order = Order::Recall { try_id: *try_id };
                    effects.push(Effect::Order { node: self.facts.name.clone(), order });
                }
                count += 1;
            }
        }
        count
    }

    /// What of a node's waiting tries has to be called back again after its connection was lost.
    pub(crate) fn recalled(&self) -> impl Iterator<Item = TryId> {
        let tries = self.ahead.values().flatten();
        tries.filter(|(_, ahead)| ahead.recalled.is_some()).map(|(try_id, _)| *try_id)
    }

    /// Every try that waits on a node.
    pub(crate) fn waits(&self) -> impl Iterator<Item = TryId> {
        self.ahead.values().flat_map(BTreeMap::keys).copied()
    }
}
