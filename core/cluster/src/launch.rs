//! Granting leases and giving the orders to start.

use gantry_model::{
    At, JobId, Launch, Lease, Level, NodeId, Order, Preemption, Subject, TaskState, TaskWork, TryId,
};

use crate::accounts::Step;
use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::gang::Places;
use crate::job::Job;
use crate::node::Live;

impl Cluster {
    /// Starts the next task of a job on a node that has room for it.
    pub(crate) fn launch(&mut self, at: At, id: JobId, node: NodeId, effects: &mut Vec<Effect>) {
        let next = self.jobs.get(&id).and_then(Job::next_index);
        let Some(index) = next else { unreachable!("{id} was queued without a task to start") };
        self.start(at, id, index, node, None, effects);
        self.has_started(at, id, node, effects);
    }

    /// Starts every rank of a gang.
    pub(crate) fn launch_gang(
        &mut self,
        at: At,
        id: JobId,
        places: &Places,
        effects: &mut Vec<Effect>,
    ) {
        let Some((first, _)) = places.first().copied() else { return };
        let meeting = self.node(first);
        let (address, port) = (meeting.facts.address.clone(), meeting.free_port());
        let ranks: u32 = places.iter().map(|(_, count)| count).sum();
        let mut rank = 0;
        for (group_rank, (node, count)) in places.iter().enumerate() {
            for local in 0..*count {
                let pairs = [
                    ("MASTER_ADDR", address.clone()),
                    ("MASTER_PORT", port.to_string()),
                    ("RANK", rank.to_string()),
                    ("LOCAL_RANK", local.to_string()),
                    ("GROUP_RANK", group_rank.to_string()),
                    ("WORLD_SIZE", ranks.to_string()),
                    ("LOCAL_WORLD_SIZE", count.to_string()),
                    ("GROUP_WORLD_SIZE", places.len().to_string()),
                ];
                let rendezvous = Rendezvous { pairs, port: (rank == 0).then_some(port) };
                self.start(at, id, rank, *node, Some(rendezvous), effects);
                rank += 1;
            }
        }
        self.has_started(at, id, first, effects);
    }

    fn has_started(&mut self, at: At, id: JobId, node: NodeId, effects: &mut Vec<Effect>) {
        let name = self.node(node).name().to_owned();
        self.unkeep(id);
        self.requeue(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // One line per job, not per task: an array of a million is one thing that happened.
        if job.started.is_none() {
            job.started = Some(at);
            effects.push(note(at, Level::Info, Subject::Job(id), format!("started on {name}")));
        }
    }

    fn start(
        &mut self,
        at: At,
        id: JobId,
        index: u32,
        node: NodeId,
        rendezvous: Option<Rendezvous>,
        effects: &mut Vec<Effect>,
    ) {
        self.tries_made += 1;
        let try_id = TryId(self.tries_made);
        let Some(job) = self.jobs.get_mut(&id) else { unreachable!("{id} was queued") };
        let kind = self.kinds.get(job.kind);
        let here = &mut self.nodes[node.0 as usize - 1];
        let Some(lease) = here.room.choose(&here.facts.gpus, kind) else {
            unreachable!("{id} was placed on {} without room there", here.name());
        };
        let task = id.task(index);
        let live = Live {
            task,
            lease: lease.clone(),
            gone: Vec::new(),
            sharing: kind.sharing,
            since: at,
            until: kind.duration.map(|duration| at.after(duration)),
            account: job.account,
            preemption: job.spec.preemption,
            port: rendezvous.as_ref().and_then(|rendezvous| rendezvous.port),
        };
        if live.preemption == Preemption::Requeue {
            *self.preemptible.entry(node).or_default() += 1;
        }
        here.grant(try_id, live);
        for (name, count) in &kind.licences {
            *self.licences.entry(name.clone()).or_default() += count;
        }
        self.accounts.change(job.account, at, &lease, Step::Begin, &self.settings);
        job.step(index, &TaskState::Starting { node, try_id });
        job.starts += 1;
        let Some(started) = job.touch(index) else { return };
        started.starts += 1;
        started.node = Some(node);
        let start = started.starts;
        let launch = job.launch(index, try_id, lease, start, rendezvous);
        let order = Order::Launch(Box::new(launch));
        effects.push(Effect::Order { node: here.name().to_owned(), order });
    }
}

impl Job {
    /// The order to start an element.
    pub(crate) fn launch(
        &self,
        index: u32,
        try_id: TryId,
        lease: Lease,
        start: u32,
        rendezvous: Option<Rendezvous>,
    ) -> Launch {
        let mut environment = self.spec.environment.clone();
        for (name, value) in rendezvous.into_iter().flat_map(|rendezvous| rendezvous.pairs) {
            environment.insert(name.to_owned(), value);
        }
        let task = self.id.task(index);
        Launch {
            try_id,
            task,
            name: self.spec.name.clone(),
            user: self.user.clone(),
            work: TaskWork::of(&self.spec, index),
            lease,
            time_limit: self.time_limit(index),
            output: self.spec.output_of(task),
            warning: self.spec.warning,
            environment,
            start,
            inherits: None,
        }
    }
}

/// How the ranks of a gang find one another, by the names that torchrun gives them.
pub(crate) struct Rendezvous {
    pairs: [(&'static str, String); 8],
    /// The port, where this is the rank at which the others meet.
    port: Option<u16>,
}
