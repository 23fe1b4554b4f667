//! Which waiting task goes to which node, and why the others wait.
//!
//! One pass looks at jobs by priority, then by submission. Tasks that ask for the same are of one
//! [`Kind`]; once a kind finds no place in a pass it is not tried again, so that the cost of a
//! pass follows kinds and placements rather than waiting jobs. The sentence that explains a wait
//! comes from the same search that failed.

use std::collections::BTreeMap;

use gantry_model::{
    At, JobId, Launch, Level, Order, Resources, Role, Subject, TaskState, TaskWork, TryId,
};

use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::job::Kind;

impl Cluster {
    /// Places what can be placed now.
    pub(crate) fn place(&mut self, at: At, effects: &mut Vec<Effect>) {
        let mut refused: BTreeMap<Kind, String> = BTreeMap::new();
        let queued: Vec<JobId> = self.queue.iter().map(|(_, id)| *id).collect();
        for id in queued {
            while self.place_one(at, id, &mut refused, effects) {}
            self.requeue(id);
        }
    }

    /// Places one task of a job; says whether another may follow.
    fn place_one(
        &mut self,
        at: At,
        id: JobId,
        refused: &mut BTreeMap<Kind, String>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(job) = self.jobs.get(&id).filter(|job| job.wants_placement()) else {
            return false;
        };
        let kind = job.kind();
        let Some(index) = job.next_index(at) else {
            self.say_why(id, "waits before its next start".into());
            return false;
        };
        let found = match refused.get(&kind) {
            Some(reason) => Err(reason.clone()),
            None => self.find(&kind),
        };
        match found {
            Ok(node) => {
                self.launch(at, id, index, &node, effects);
                true
            }
            Err(reason) => {
                self.say_why(id, reason.clone());
                refused.insert(kind, reason);
                false
            }
        }
    }

    fn say_why(&mut self, id: JobId, reason: String) {
        if let Some(job) = self.jobs.get_mut(&id)
            && job.counts.run == 0
        {
            job.reason = Some(reason);
        }
    }

    /// The best node for a kind now, or why there is none.
    ///
    /// A role is asked for only where some node has it: a cluster without a GPU node still trains.
    fn find(&self, kind: &Kind) -> Result<String, String> {
        if self.nodes.is_empty() {
            return Err("no node has joined yet".into());
        }
        let has = |role: Role| self.nodes.values().any(|node| node.facts.roles.contains(&role));
        let role = kind.role.filter(|role| has(*role));
        let fits = |node: &&crate::node::Node| {
            kind.node.as_ref().is_none_or(|name| *name == node.facts.name)
                && role.is_none_or(|role| node.facts.roles.contains(&role))
        };
        let allowed: Vec<_> = self.nodes.values().filter(fits).collect();
        let working: Vec<_> = allowed.iter().filter(|node| node.takes_work()).collect();
        let best = working
            .iter()
            .filter(|node| node.free.hold(&kind.resources))
            // Keep GPUs for those who ask for them, then spread over the nodes.
            .max_by_key(|node| {
                let wasted = if kind.resources.gpus == 0 { node.facts.resources.gpus } else { 0 };
                (std::cmp::Reverse(wasted), node.free.cores, std::cmp::Reverse(&node.facts.name))
            });
        if let Some(node) = best {
            return Ok(node.facts.name.clone());
        }
        let asked = &kind.resources;
        Err(match (allowed.len(), working.len()) {
            (0, _) => format!("no node of role {role:?} fits").to_lowercase(),
            (1, 0) => format!("{} is {}", allowed[0].facts.name, allowed[0].state.word()),
            (count, 0) => format!("none of {count} nodes is up"),
            _ if working.iter().all(|node| !node.facts.resources.hold(asked)) => {
                format!("no node that is up has {asked}")
            }
            (_, count) => {
                let most = working.iter().map(|node| node.free.cores).max().unwrap_or(0);
                scarce(asked, count, most, working.iter().map(|node| node.free.gpus).max())
            }
        })
    }

    fn launch(&mut self, at: At, id: JobId, index: u32, name: &str, effects: &mut Vec<Effect>) {
        self.tries_made += 1;
        let try_id = TryId(self.tries_made);
        let task = id.task(index);
        let (Some(job), Some(node)) = (self.jobs.get_mut(&id), self.nodes.get_mut(name)) else {
            return;
        };
        let lease = node.grant(try_id, task, job.spec.resources);
        job.step(index, &TaskState::Starting { node: node.id, try_id });
        job.started.get_or_insert(at);
        job.reason = None;
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

fn scarce(asked: &Resources, nodes: usize, cores: u32, gpus: Option<u32>) -> String {
    if asked.gpus > 0 {
        return format!(
            "needs {} gpus on one node; the most free is {}, of {nodes} nodes",
            asked.gpus,
            gpus.unwrap_or(0)
        );
    }
    format!("needs {} cores; the most free is {cores}, of {nodes} nodes", asked.cores)
}
