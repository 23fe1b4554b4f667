//! Nodes that come, go late, are lost, come back, and are forgotten; drains, maintenance and quarantine.

use std::collections::BTreeSet;

use gantry_model::{
    At, Exit, Level, NodeFacts, NodeId, NodeState, Order, Reject, RejectKind, Service, Subject,
    TaskId, TaskState, TryId, Usage, things,
};

use crate::cluster::{Cluster, note};
use crate::event::{Answer, Effect};
use crate::node::{FastEnd, Live, Node};
use crate::tries::Over;

/// Nodes of one cluster: ten thousand agents with room to spare.
const NODES_MAX: usize = 20_000;
/// Names that nodes of one cluster ever had: each keeps its number, since ended tasks name it by that.
const NAMES_MAX: usize = 100_000;

impl Cluster {
    /// A node's agent has connected. What it holds is compared with what it should hold:
    ///
    /// - a try it holds that was given up is told to stop, and the node gets no new work until
    ///   that try's end is reported;
    /// - a try it should hold and does not: the order was lost with the connection, or the host
    ///   was restarted and the process is gone; the task is queued again, as a new try.
    pub(crate) fn node_up(
        &mut self,
        at: At,
        facts: NodeFacts,
        holds: &[TryId],
        effects: &mut Vec<Effect>,
    ) {
        let is_new = !self.names.contains_key(&facts.name);
        let full = is_new && (self.names.len() >= NODES_MAX || self.nodes.len() >= NAMES_MAX);
        let refused = facts.validate().err().map(|reject| reject.sentence);
        let refused = refused.or(full.then(|| {
            format!("{NODES_MAX} nodes are the most, and {NAMES_MAX} names that they ever had")
        }));
        if let Some(sentence) = refused {
            effects.push(note(at, Level::Warn, Subject::Cluster, sentence));
            return;
        }
        let id = self.enter_node(at, facts, effects);
        // A journal whose end was cut has forgotten tries that nodes know: their ids stay theirs.
        let newest = holds.iter().map(|try_id| try_id.0).max().unwrap_or(0);
        self.tries_made = self.tries_made.max(newest);
        let node = self.node_mut(id);
        let name = node.name().to_owned();
        let held: BTreeSet<TryId> = holds.iter().copied().collect();
        let waits: BTreeSet<TryId> = node.waits().collect();
        let known = |id: &TryId| node.live.contains_key(id) || waits.contains(id);
        node.strays = held.iter().copied().filter(|id| !known(id)).collect();
        for try_id in node.strays.clone() {
            let order = Order::Stop { try_id };
            effects.push(Effect::Order { node: name.clone(), order });
        }
        self.keep_only(at, id, &held, effects);
        if self.node(id).over {
            self.recall_node(id, effects);
        }
        // What was called back while the node was away may not have reached it; the same holds for
        // stops.
        for try_id in self.node(id).recalled() {
            let order = Order::Recall { try_id };
            effects.push(Effect::Order { node: name.clone(), order });
        }
        for (try_id, live) in &self.node(id).live {
            let task =
                self.jobs.get(&live.task.job).and_then(|job| job.tasks.get(&live.task.index));
            if task.is_some_and(|task| matches!(task.state, TaskState::Stopping { .. })) {
                let order = Order::Stop { try_id: *try_id };
                effects.push(Effect::Order { node: name.clone(), order });
            }
        }
        self.test_again(at, id, effects);
        self.look_at_node(at, id, effects);
    }

    fn enter_node(&mut self, at: At, facts: NodeFacts, effects: &mut Vec<Effect>) -> NodeId {
        let name = facts.name.clone();
        let known = self.names.get(&name).copied();
        let id =
            known.or_else(|| self.forgotten(&name)).unwrap_or(NodeId(self.nodes.len() as u32 + 1));
        if known.is_none() {
            self.names.insert(name.clone(), id);
            let node = Node::new(id, facts, at);
            match self.nodes.get_mut(id.0 as usize - 1) {
                Some(there) => *there = node,
                None => self.nodes.push(node),
            }
        } else {
            let before = self.node(id).facts.resources.gpus;
            let lost = before.saturating_sub(facts.resources.gpus);
            if lost > 0 {
                let sentence = format!("came back with {lost} gpus fewer than the {before} before");
                effects.push(note(at, Level::Fail, Subject::Node(name.clone()), sentence));
            }
            self.node_mut(id).renew(facts);
        }
        self.generation += 1;
        self.has_changed(id);
        let node = self.node_mut(id);
        if known.is_none() || node.state != NodeState::Up {
            (node.state, node.since) = (NodeState::Up, at);
            let sentence = if known.is_none() { "joined" } else { "is back" };
            effects.push(note(at, Level::Info, Subject::Node(name), sentence));
        }
        id
    }

    /// The number of a node that was forgotten.
    fn forgotten(&self, name: &str) -> Option<NodeId> {
        // All are looked through only where some were.
        let some = self.names.len() < self.nodes.len();
        let mut nodes = self.nodes.iter().filter(|_| some);
        nodes.find(|node| node.name() == name).map(|node| node.id)
    }

    /// Whether a node was not forgotten.
    pub(crate) fn is_member(&self, node: &Node) -> bool {
        // Only what is lost can be forgotten.
        node.state != NodeState::Lost || self.names.get(node.name()) == Some(&node.id)
    }

    /// Forgets a node that is lost. What it held was queued again when it was lost, and what it still
    /// holds should it come back is stopped as on any node. It keeps its number, for the ended tasks that
    /// name it by that; everything else of it is gone.
    pub(crate) fn forget_node(
        &mut self,
        at: At,
        user: &str,
        name: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        let id = self.named(name)?;
        let node = self.node(id);
        if node.state != NodeState::Lost {
            let state = node.state.word();
            return Err(Reject::new(
                RejectKind::State,
                format!(
                    "{name} is {state} and would be back at once; drain it, stop its agent, and forget it once it is lost"
                ),
            ));
        }
        let mut facts = node.facts.clone();
        facts.gpus.iter_mut().for_each(|gpu| gpu.unfit = None);
        let (state, since) = (node.state, node.since);
        *self.node_mut(id) = Node { state, since, ..Node::new(id, facts, at) };
        self.timers.retain(|(_, node)| *node != id);
        self.names.remove(name);
        self.generation += 1;
        // What waits may name this node as its reason.
        self.queue.reopen();
        let sentence = format!("forgotten by {user}");
        effects.push(note(at, Level::Note, Subject::Node(name.to_owned()), sentence));
        Ok(Answer::Acted(0))
    }

    /// What a node should hold and does not is queued again.
    fn keep_only(&mut self, at: At, id: NodeId, held: &BTreeSet<TryId>, effects: &mut Vec<Effect>) {
        let node = self.node(id);
        let without = |try_id: &TryId| !held.contains(try_id);
        let missing: Vec<TryId> = node.live.keys().copied().filter(without).collect();
        let unlaunched: Vec<TryId> = node.waits().filter(without).collect();
        for try_id in missing {
            self.missing(at, id, try_id, effects);
        }
        for try_id in unlaunched {
            self.returned(at, id, try_id, effects);
        }
    }

    fn missing(&mut self, at: At, id: NodeId, try_id: TryId, effects: &mut Vec<Effect>) {
        if let Some(live) = self.release(at, id, try_id, Usage::default()) {
            let over = Over { try_id, task: live.task, node: id, placed: live.since };
            self.conclude(at, &over, &Exit::NodeLost, effects);
        }
    }

    /// A node's connection is gone: it has its time to come back.
    pub(crate) fn node_down(&mut self, at: At, name: &str, effects: &mut Vec<Effect>) {
        if let Some(id) = self.names.get(name).copied() {
            self.is_late(at, id, "its connection is gone", effects);
        }
    }

    /// A node's agent is gone. What has gone with it is queued again now; what outlives it waits for
    /// the next agent as on any node that is late.
    pub(crate) fn node_gone(
        &mut self,
        at: At,
        name: &str,
        holds: &[TryId],
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = self.names.get(name).copied() else { return };
        let held: BTreeSet<TryId> = holds.iter().copied().collect();
        let live = self.node(id).live.keys();
        let (on, gone): (Vec<&TryId>, Vec<&TryId>) = live.partition(|id| held.contains(id));
        let sentence = format!(
            "its agent is gone; {} outlived it, {} queued again",
            things(on.len() as u64, "task"),
            gone.len()
        );
        self.is_late(at, id, &sentence, effects);
        self.keep_only(at, id, &held, effects);
    }

    fn is_late(&mut self, at: At, id: NodeId, sentence: &str, effects: &mut Vec<Effect>) {
        let returning = self.returning;
        let node = self.node_mut(id);
        // After a restore the time to come back counts from the scheduler's start.
        if node.state == NodeState::Up || (returning && node.state == NodeState::Late) {
            (node.state, node.since) = (NodeState::Late, at);
            let name = node.name().to_owned();
            effects.push(note(at, Level::Warn, Subject::Node(name), sentence));
            // What was due on it before this was heard is done now: its timer is set anew.
            self.look_at_node(at, id, effects);
        }
    }

    fn node_lost(&mut self, at: At, id: NodeId, effects: &mut Vec<Effect>) {
        let node = self.node_mut(id);
        (node.state, node.since) = (NodeState::Lost, at);
        let name = node.name().to_owned();
        let given_up: Vec<TryId> = node.live.keys().copied().collect();
        self.generation += 1;
        // Work that preferred its role may go elsewhere now.
        self.queue.reopen();
        let sentence = format!("lost; {} queued again", things(given_up.len() as u64, "task"));
        effects.push(note(at, Level::Fail, Subject::Node(name), sentence));
        let waits: Vec<TryId> = self.node(id).waits().collect();
        for try_id in given_up {
            self.missing(at, id, try_id, effects);
        }
        for try_id in waits {
            self.returned(at, id, try_id, effects);
        }
    }

    /// Looks at every node whose time has come.
    pub(crate) fn look_at_nodes(&mut self, at: At, effects: &mut Vec<Effect>) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= at) {
            self.look_at_node(at, id, effects);
        }
    }

    /// Does what is due on a node: it is lost, its drain's deadline is over, a window begins or ends.
    pub(crate) fn look_at_node(&mut self, at: At, id: NodeId, effects: &mut Vec<Effect>) {
        let timeout = self.settings.node_timeout;
        let node = self.node(id);
        if node.state == NodeState::Late && node.since.after(timeout) <= at {
            self.node_lost(at, id, effects);
        }
        if self.node(id).service != Service::Open || !self.node(id).windows.is_empty() {
            self.recall_node(id, effects);
        }
        self.recall_late(at, id, effects);
        let node = self.node_mut(id);
        if let Service::Drain { deadline, .. } = &mut node.service
            && deadline.is_some_and(|deadline| deadline <= at)
        {
            *deadline = None;
            self.clear(at, id, "the deadline of its drain is over", effects);
        }
        let node = self.node_mut(id);
        let before = node.windows.len();
        node.windows.retain(|window| window.until > at);
        if node.windows.len() < before {
            let name = node.name().to_owned();
            let sentence = "its maintenance window is over";
            effects.push(note(at, Level::Info, Subject::Node(name), sentence));
            self.has_changed(id);
        }
        if self.node(id).windows.iter().any(|window| window.from <= at) {
            self.clear(at, id, "its maintenance window has begun", effects);
        }
        self.give_up_tests(at, id, effects);
        self.arm(at, id);
    }

    /// Stops what runs on a node and lets it wait again.
    fn clear(&mut self, at: At, id: NodeId, why: &str, effects: &mut Vec<Effect>) {
        let tasks: Vec<TaskId> = self.node(id).live.values().map(|live| live.task).collect();
        let stop = |task| self.stop_to_wait(at, task, effects);
        let count: u32 = tasks.into_iter().map(stop).sum();
        if count > 0 {
            let name = self.node(id).name().to_owned();
            let sentence = format!("{why}; {} stopped and queued again", things(count, "task"));
            effects.push(note(at, Level::Note, Subject::Node(name), sentence));
        }
    }

    /// Sets the timer of a node for what comes next on it.
    pub(crate) fn arm(&mut self, at: At, id: NodeId) {
        let timeout = self.settings.node_timeout;
        let ahead = self.ahead_ends(id);
        let node = self.node_mut(id);
        let late = (node.state == NodeState::Late).then(|| node.since.after(timeout));
        let deadline = match &node.service {
            Service::Drain { deadline, .. } => *deadline,
            _ => None,
        };
        let windows = node.windows.iter().flat_map(|window| [window.from, window.until]);
        // What was due has been done.
        let test = node.test_ends();
        let next = late
            .into_iter()
            .chain(deadline)
            .chain(windows)
            .chain(test)
            .chain(ahead)
            .filter(|time| *time > at)
            .min();
        let before = std::mem::replace(&mut node.armed, next);
        if before != next {
            if let Some(before) = before {
                self.timers.remove(&(before, id));
            }
            self.timers.extend(next.map(|next| (next, id)));
        }
    }

    /// Judges a node by how a try ended on it. Many tasks in a row that fail fast point to the node,
    /// unless they are all of one job that has ended well nowhere: then the job is to blame. One that
    /// was told to stop says nothing, and one that the node was not ready for is never to blame.
    pub(crate) fn judge(
        &mut self,
        at: At,
        id: NodeId,
        live: &Live,
        exit: &Exit,
        effects: &mut Vec<Effect>,
    ) {
        let after = self.settings.quarantine_after as usize;
        let fault = matches!(exit, Exit::Code(_) | Exit::NotStarted { .. } | Exit::Failed(_))
            && !exit.is_success();
        let fast = at.since(live.since) <= self.settings.quarantine_within;
        let job = self.jobs.get(&live.task.job);
        let task = job.and_then(|job| job.tasks.get(&live.task.index));
        let told = task.is_some_and(|task| matches!(task.state, TaskState::Stopping { .. }));
        let node = self.node(id);
        if exit.is_success() {
            self.node_mut(id).fast.clear();
            return;
        }
        if after == 0 || !fault || !fast || told || node.service != Service::Open {
            return;
        }
        let well_elsewhere = exit.is_of_node()
            || job.is_some_and(|job| {
                job.done.iter().any(|(other, done)| *other != id && !done.is_empty())
            });
        let others = self.nodes.iter().any(|other| {
            other.id != id && other.state == NodeState::Up && other.service == Service::Open
        });
        let node = self.node_mut(id);
        node.fast.push_back(FastEnd { job: live.task.job, well_elsewhere });
        while node.fast.len() > after {
            node.fast.pop_front();
        }
        let one_job = node.fast.iter().all(|end| end.job == live.task.job);
        let blamed = node.fast.iter().any(|end| end.well_elsewhere) || !one_job;
        // The last node that works is kept: a bad one is better than none.
        if node.fast.len() < after || !blamed || !others {
            return;
        }
        node.fast.clear();
        let reason = format!("{after} tasks in a row failed fast, the last one with: {exit}");
        let name = node.name().to_owned();
        let sentence = format!("quarantined: {reason}; gantry resume {name} once it is mended");
        node.service = Service::Quarantine { reason };
        effects.push(note(at, Level::Fail, Subject::Node(name), sentence));
        self.recall_node(id, effects);
    }
}
