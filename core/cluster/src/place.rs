//! Which waiting task goes to which node, and why the others wait.
//!
//! One pass looks at jobs by priority, then by submission. Jobs that ask for the same are of one
//! [`Kind`] and queue behind one another; once the first of a kind finds no place the others of it
//! are not looked at, so that the cost of a pass follows kinds and placements, not waiting jobs.
//! The sentence that explains a wait comes from the search that failed.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use gantry_model::{
    At, JobId, Launch, Level, MemoryMib, NodeState, Order, Resources, Subject, TaskState, TaskWork,
    TryId,
};

use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::job::{Class, Kind, Place};
use crate::node::Node;

impl Cluster {
    /// Places what can be placed now.
    pub(crate) fn place(&mut self, at: At, effects: &mut Vec<Effect>) {
        let first = |(kind, class): (&Kind, &Class)| Some((*class.jobs.first()?, kind.clone()));
        let mut heads: BTreeSet<(Place, Kind)> = self.queue.iter().filter_map(first).collect();
        while let Some((place, kind)) = heads.pop_first() {
            match self.find(&kind) {
                Ok(node) => {
                    self.launch(at, place.1, &node, effects);
                    self.requeue(place.1);
                    let next = self.queue.get(&kind).and_then(|class| class.jobs.first());
                    heads.extend(next.map(|place| (*place, kind)));
                }
                Err(reason) => {
                    if let Some(class) = self.queue.get_mut(&kind) {
                        class.reason = reason;
                    }
                }
            }
        }
    }

    /// The best node for a kind now, or why there is none.
    ///
    /// A role is asked for only where a node has it, is not lost and could hold the task when
    /// empty: a cluster without a GPU node still trains.
    fn find(&self, kind: &Kind) -> Result<String, String> {
        if self.nodes.is_empty() {
            return Err("no node has joined yet".into());
        }
        let asked = &kind.resources;
        let pinned: Vec<&Node> = self
            .nodes
            .values()
            .filter(|node| kind.node.as_ref().is_none_or(|name| *name == node.facts.name))
            .collect();
        let role = kind.role.filter(|role| {
            pinned.iter().any(|node| {
                node.facts.roles.contains(role)
                    && node.state != NodeState::Lost
                    && node.facts.resources.hold(asked)
            })
        });
        let allowed: Vec<&Node> = pinned
            .into_iter()
            .filter(|node| role.is_none_or(|role| node.facts.roles.contains(&role)))
            .collect();
        // Keep GPUs for those who ask for them, then spread over the nodes.
        let preference = |node: &&Node| {
            let wasted = if asked.gpus == 0 { node.facts.resources.gpus } else { 0 };
            (Reverse(wasted), node.free.cores, Reverse(node.id))
        };
        let fits = |node: &&Node| node.takes_work() && node.free.hold(asked);
        let best = allowed.iter().copied().filter(fits).max_by_key(preference);
        best.map(|node| node.facts.name.clone()).ok_or_else(|| why(asked, &allowed))
    }

    fn launch(&mut self, at: At, id: JobId, name: &str, effects: &mut Vec<Effect>) {
        let (Some(job), Some(node)) = (self.jobs.get_mut(&id), self.nodes.get_mut(name)) else {
            unreachable!("{id} was placed on {name} without being there");
        };
        let Some(index) = job.next_index() else {
            unreachable!("{id} was queued without a task to start");
        };
        self.tries_made += 1;
        let try_id = TryId(self.tries_made);
        let task = id.task(index);
        let lease = node.grant(try_id, task, job.spec.resources);
        job.step(index, &TaskState::Starting { node: node.id, try_id });
        job.started.get_or_insert(at);
        let Some(started) = job.touch(index) else { return };
        started.starts += 1;
        started.node = Some(name.to_owned());
        let start = started.starts;
        let launch = Launch {
            try_id,
            task,
            name: job.spec.name.clone(),
            user: job.user.clone(),
            work: TaskWork::of(&job.spec, index),
            lease,
            time_limit: job.spec.time_limit,
            environment: job.spec.environment.clone(),
            start,
        };
        // One line per job, not per task: an array of a million is one thing that happened.
        if start == 1 && job.tasks.len() == 1 {
            effects.push(note(at, Level::Info, Subject::Job(id), format!("started on {name}")));
        }
        let order = Order::Launch(Box::new(launch));
        effects.push(Effect::Order { node: name.to_owned(), order });
    }
}

/// Why none of the nodes that a task may run on takes it now: the first rule that says no.
fn why(asked: &Resources, allowed: &[&Node]) -> String {
    let working: Vec<&Node> = allowed.iter().copied().filter(|node| node.takes_work()).collect();
    let able: Vec<&Node> =
        working.iter().copied().filter(|node| node.facts.resources.hold(asked)).collect();
    match (allowed, working.len(), able.len()) {
        ([one], 0, _) if one.state == NodeState::Up => {
            format!("{} has to end {} earlier tries first", one.facts.name, one.strays.len())
        }
        ([one], 0, _) => format!("{} is {}", one.facts.name, one.state.word()),
        (_, 0, _) => format!("none of {} nodes takes work now", allowed.len()),
        (_, _, 0) => format!("no node that is up has {asked}"),
        (_, _, count) => {
            let most = |part: fn(&Resources) -> u64| able.iter().map(|node| part(&node.free)).max();
            let gpus = most(|free| u64::from(free.gpus)).unwrap_or(0);
            let cores = most(|free| u64::from(free.cores)).unwrap_or(0);
            let memory = MemoryMib(most(|free| free.memory.0).unwrap_or(0));
            if gpus < u64::from(asked.gpus) {
                let wanted = asked.gpus;
                format!(
                    "needs {wanted} gpus on one node; the most free is {gpus}, of {count} nodes"
                )
            } else if cores < u64::from(asked.cores) {
                format!("needs {} cores; the most free is {cores}, of {count} nodes", asked.cores)
            } else if memory < asked.memory {
                format!(
                    "needs {} of memory; the most free is {memory}, of {count} nodes",
                    asked.memory
                )
            } else {
                format!("no one of {count} nodes has {asked} free together")
            }
        }
    }
}
