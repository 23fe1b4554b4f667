//! Nodes that come, go late, are lost, and come back.

use std::collections::BTreeSet;

use gantry_model::{
    At, Exit, Level, NodeFacts, NodeId, NodeState, Order, Subject, TaskState, TryId,
};

use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::node::Node;

impl Cluster {
    /// A node's agent has connected. What it holds is compared with what it should hold:
    ///
    /// - a try it holds that was given up is told to stop, and the node gets no new work until
    ///   that try's end is reported;
    /// - a try it should hold and does not: the order was lost with the connection, or the agent
    ///   was restarted and the process is gone; the task is queued again, as a new try.
    pub(crate) fn node_up(
        &mut self,
        at: At,
        facts: NodeFacts,
        holds: &[TryId],
        effects: &mut Vec<Effect>,
    ) {
        if let Err(reject) = facts.validate() {
            effects.push(note(at, Level::Warn, Subject::Cluster, reject.sentence));
            return;
        }
        let name = facts.name.clone();
        let next_id = NodeId(self.nodes.len() as u32 + 1);
        let known = self.nodes.get(&name).map(|node| node.state);
        let node =
            self.nodes.entry(name.clone()).or_insert_with(|| Node::new(next_id, facts.clone(), at));
        node.renew(facts);
        if known != Some(NodeState::Up) {
            (node.state, node.since) = (NodeState::Up, at);
            let sentence = if known.is_none() { "joined" } else { "is back" };
            effects.push(note(at, Level::Info, Subject::Node(name.clone()), sentence));
        }
        let held: BTreeSet<TryId> = holds.iter().copied().collect();
        node.strays = held.iter().copied().filter(|id| !node.live.contains_key(id)).collect();
        for try_id in node.strays.clone() {
            let order = Order::Stop { try_id };
            effects.push(Effect::Order { node: name.clone(), order });
        }
        let missing: Vec<TryId> =
            node.live.keys().copied().filter(|try_id| !held.contains(try_id)).collect();
        for try_id in missing {
            self.missing(at, &name, try_id, effects);
        }
        // A stop that was ordered while the node was away may not have reached it.
        let Some(node) = self.nodes.get(&name) else { return };
        for (try_id, live) in &node.live {
            let task =
                self.jobs.get(&live.task.job).and_then(|job| job.tasks.get(&live.task.index));
            if task.is_some_and(|task| matches!(task.state, TaskState::Stopping { .. })) {
                let order = Order::Stop { try_id: *try_id };
                effects.push(Effect::Order { node: name.clone(), order });
            }
        }
    }

    fn missing(&mut self, at: At, name: &str, try_id: TryId, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some(task) = node.live.get(&try_id).map(|live| live.task) else { return };
        node.take_back(try_id);
        self.conclude(at, task, &Exit::NodeLost, effects);
    }

    pub(crate) fn node_down(&mut self, at: At, name: &str, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.state == NodeState::Up {
            (node.state, node.since) = (NodeState::Late, at);
            let sentence = "its connection is gone";
            effects.push(note(at, Level::Warn, Subject::Node(name.to_owned()), sentence));
        }
    }

    pub(crate) fn node_lost(&mut self, at: At, name: &str, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        (node.state, node.since) = (NodeState::Lost, at);
        let given_up: Vec<TryId> = node.live.keys().copied().collect();
        let sentence = format!("lost; {} tasks are queued again", given_up.len());
        effects.push(note(at, Level::Fail, Subject::Node(name.to_owned()), sentence));
        for try_id in given_up {
            let Some(node) = self.nodes.get_mut(name) else { return };
            let Some(live) = node.take_back(try_id) else { continue };
            self.conclude(at, live.task, &Exit::NodeLost, effects);
        }
    }
}
