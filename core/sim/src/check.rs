//! The checks that need both sides: what the cluster believes and what really runs.

use std::collections::BTreeMap;

use gantry_cluster::Event;
use gantry_model::{
    Action, At, JobId, JobRow, JobState, Launch, Machine, Millis, NodeRow, NodeState, Resources,
    Service, TryId,
};
use gantry_node::Signal;

use crate::books::health::waits_for_a_person;
use crate::process::Process;
use crate::scheduler::Phase;
use crate::server::number;
use crate::settings::Flaw;
use crate::trace::{Line, name};
use crate::world::World;

/// A job whose tasks fit an idle node may not wait for so long: longer than any task takes with
/// its retries, so that a node kept for a wider job has become free for that one meanwhile.
const IDLE_WAIT_MAX: Millis = Millis::from_seconds(2 * 3600);
/// By how much a clock may be off that counts steadily, and how late a signal may be.
const LATE: Millis = Millis::from_seconds(3);
/// After its time limit a task has the grace time, and its agent may have been away.
const OVERTIME: Millis = Millis::from_seconds(60);
/// Jobs that one look goes through.
const LOOK_MAX: usize = 200;

impl World {
    /// An order to launch leaves the scheduler: fencing, held against what really runs.
    pub(crate) fn check_launch(&mut self, server: usize, launch: &Launch) {
        let done = self.ledger.safe_end(launch.task);
        let gang = launch.environment.contains_key("WORLD_SIZE");
        let lost = |try_id: &TryId| self.scheduler.books.lost.contains(try_id);
        if let Some(done) = done.filter(|done| !gang && !lost(done)) {
            self.fail(format!("{} is launched again; it ended well as {done}", launch.task));
        }
        let kept = self.ledger.launched(launch.task, launch.try_id);
        self.hold(kept);
        let others = self.ledger.others(launch.task, launch.try_id);
        if !others.is_empty() {
            let rows = self.scheduler.cluster.nodes();
            for (other, try_id) in others {
                self.check_fenced(&rows, launch, other, try_id);
            }
        }
        let stray = self.servers[server].processes.values().find(|process| {
            let newest = self.ledger.newest.get(&process.launch.task);
            newest.is_some_and(|newest| *newest != process.launch.try_id)
        });
        if let Some(stray) = stray.map(|process| process.launch.try_id) {
            self.fail(format!("{} gets {} beside {stray}, given up", name(server), launch.try_id));
        }
    }

    fn check_fenced(&mut self, rows: &[NodeRow], launch: &Launch, server: usize, try_id: TryId) {
        let row = rows.iter().find(|row| row.facts.name == name(server));
        // One without a row was forgotten, as only what is lost can be.
        let lost = row.is_none_or(|row| row.state == NodeState::Lost);
        if !lost && !self.ledger.is_fenced(try_id) {
            let (task, new) = (launch.task, launch.try_id);
            self.fail(format!(
                "{task} is launched as {new} and runs as {try_id} on {}",
                name(server)
            ));
        }
    }

    /// A process begins: no other of its task that nobody fenced, and nothing used twice.
    pub(crate) fn check_beginning(&mut self, server: usize, try_id: TryId) {
        let here = &self.servers[server];
        let Some(process) = here.processes.get(&try_id) else { return };
        let task = process.launch.task;
        let kept = self.ledger.began(server, task, try_id);
        let mut used = Resources::default();
        let mut gpus: BTreeMap<&str, u32> = BTreeMap::new();
        for process in here.processes.values() {
            used = used.plus(&process.launch.lease.resources);
            for uuid in &process.gpus {
                *gpus.entry(uuid).or_default() += u32::from(process.launch.lease.gpu_permille);
            }
        }
        let whole = here.hardware().resources;
        // GPUs are counted by what each is used for: shares of one add up to more than one lease.
        let over = used.cores > whole.cores || used.memory > whole.memory;
        let twice = gpus.into_iter().find(|(_, permille)| *permille > 1000);
        let twice = twice.map(|(uuid, permille)| format!("{uuid} is used to {permille} of 1000"));
        self.hold(kept);
        if over {
            self.fail(format!("{} has {whole} and its processes use {used}", name(server)));
        }
        if let Some(what) = twice {
            self.fail(what);
        }
        let others = self.ledger.others(task, try_id);
        if !others.is_empty() {
            let rows = self.scheduler.cluster.nodes();
            for (other, old) in others {
                let row = rows.iter().find(|row| row.facts.name == name(other));
                let away = row.is_none_or(|row| row.state != NodeState::Up);
                if !away && !self.ledger.is_fenced(old) {
                    self.fail(format!("{task} has the processes {old} and {try_id}, none fenced"));
                }
            }
        }
    }

    /// What is looked at once an event of the cluster has been carried out.
    pub(crate) fn check_event(&mut self, event: &Event) {
        if self.scheduler.events.is_multiple_of(u64::from(self.settings.check_each.max(1))) {
            let kept = self.scheduler.cluster.check();
            self.hold(kept);
        }
        if *event == Event::Tick && self.away() {
            self.check_lost();
            self.give_up_lost();
        }
    }

    /// Whether a server has no session, so that the cluster may come to call it lost.
    fn away(&self) -> bool {
        (0..self.servers.len()).any(|server| self.scheduler.session(server).is_none())
    }

    /// What runs on nodes that are called lost is given up.
    pub(crate) fn give_up_lost(&mut self) {
        for row in self.scheduler.cluster.nodes() {
            if row.state == NodeState::Lost {
                let here = &self.servers[number(&row.facts.name)];
                self.ledger.given_up.extend(here.processes.keys().copied());
            }
        }
    }

    /// A node is called lost only when nothing of it was heard for as long as is allowed.
    fn check_lost(&mut self) {
        let timeout = self.scheduler.cluster.settings().node_timeout;
        for row in self.scheduler.cluster.nodes() {
            let server = number(&row.facts.name);
            if row.state != NodeState::Lost {
                self.lost.remove(&server);
                continue;
            }
            if !self.lost.insert(server) {
                continue;
            }
            self.summary.nodes_lost += 1;
            let sessions = self.network.sessions.values();
            let here = sessions.filter(|session| session.server == server && session.entered);
            let heard = here.map(|session| session.heard_by_scheduler).max().unwrap_or(At(0));
            // Timers go by the scheduler's clock, which a new life may have set forward, and while
            // the disk is full nobody who comes can be written down.
            let settled = self.now.since(self.scheduler.steady) > timeout;
            // Half a second for the way of the last message and for a slow disk.
            if settled && self.now.since(heard).0 + 500 < timeout.0 {
                let ago = self.now.since(heard);
                self.fail(format!("{} is called lost; it was heard {ago} ago", name(server)));
            }
        }
    }

    /// Every minute: nothing waits for long while an idle node fits it, and an operator resumes
    /// what was quarantined.
    pub(crate) fn look(&mut self) {
        let rows = self.scheduler.cluster.nodes();
        let quarantined = rows.iter().find(|row| matches!(row.service, Service::Quarantine { .. }));
        if let Some(row) = quarantined.filter(|_| self.random.chance(100)) {
            let (request, event) =
                self.users.operate(Action::Resume { node: row.facts.name.clone() });
            self.ask(request, event);
        }
        let waits: Vec<String> = waits_for_a_person(&self.scheduler.cluster).collect();
        for node in waits {
            if self.random.chance(100) {
                let (request, event) = self.users.operate(Action::Resume { node });
                self.ask(request, event);
            }
        }
        self.check_ends_are_told();
        self.check_limits();
        if self.settings.flaw == Flaw::None && self.scheduler.phase != Phase::Down {
            let agree = self.scheduler.books.agree(&self.scheduler.cluster);
            self.hold(agree);
        }
        let idle: Vec<NodeRow> = rows.into_iter().filter(is_idle).collect();
        let (jobs, _) = self.scheduler.cluster.jobs(None, false, LOOK_MAX);
        let mut waits = BTreeMap::new();
        for row in jobs.iter().filter(|row| row.state == JobState::Wait && !row.held) {
            let Some(spec) = self.ledger.jobs.get(&row.job) else { continue };
            let plain = spec.after.is_empty() && spec.gang.is_none() && spec.resources.gpus == 0;
            let free = spec.licences.is_empty() && !self.is_limited(row) && row.tasks_held == 0;
            let fits = |node: &NodeRow| {
                let named = spec.node.as_ref().is_none_or(|name| *name == node.facts.name);
                named
                    && spec.labels.is_subset(&node.facts.labels)
                    && node.facts.resources.hold(&spec.resources)
            };
            if plain && free && idle.iter().any(fits) {
                let since = self.waits.get(&row.job).copied().unwrap_or(self.now);
                waits.insert(row.job, since);
            }
        }
        self.waits = waits;
        let late = self.waits.iter().find(|(_, since)| self.now.since(**since) > IDLE_WAIT_MAX);
        if let Some((job, _)) = late {
            let why = self.scheduler.cluster.job(*job).and_then(|row| row.reason);
            self.fail(format!("{job} waits while an idle node fits it; it says: {why:?}"));
        }
    }

    /// Whether a job's group has a limit.
    fn is_limited(&self, row: &JobRow) -> bool {
        let group = row.group.as_ref().unwrap_or(&row.user);
        let groups = &self.scheduler.cluster.settings().groups;
        groups.get(group).is_some_and(|group| group.limit.is_some())
    }

    /// A signal reaches a process: by its time limit, or the warning before it, only when that has
    /// come.
    pub(crate) fn check_signal(&mut self, server: usize, try_id: TryId, signal: Signal) {
        let Some(process) = self.servers[server].processes.get(&try_id) else { return };
        let ran = self.now.since(process.began);
        let launch = &process.launch;
        let told = self.ledger.is_fenced(try_id);
        let due = match signal {
            Signal::Warn(_) => {
                self.summary.warned += 1;
                launch
                    .time_limit
                    .zip(launch.warning)
                    .map(|(limit, warning)| Millis(limit.0.saturating_sub(warning.before.0)))
            }
            Signal::Term if !told => {
                self.summary.limited += 1;
                launch.time_limit
            }
            _ => return,
        };
        let task = launch.task;
        match due {
            None => self.fail(format!("{task} gets {signal:?} and has no time limit")),
            Some(due) if ran.0 + ran.0 / 1000 + LATE.0 < due.0 => {
                self.fail(format!("{task} gets {signal:?} after {ran}, which is due after {due}"));
            }
            Some(_) => {}
        }
    }

    /// Nothing runs for long past its time limit where an agent is there to end it.
    fn check_limits(&mut self) {
        let late = self.servers.iter().find_map(|server| {
            let agent = server.agent.as_ref()?;
            let watched = self.now.since(agent.since) > OVERTIME;
            let over = |process: &&Process| {
                let ran = self.now.since(process.began).0;
                let limit = process.launch.time_limit;
                limit.is_some_and(|limit| ran > limit.0 + limit.0 / 1000 + OVERTIME.0)
            };
            let process = server.processes.values().filter(|_| watched).find(over)?;
            Some((process.launch.task, process.launch.time_limit))
        });
        if let Some((task, limit)) = late {
            self.fail(format!("{task} runs on past its time limit of {limit:?}"));
        }
    }

    /// Of every job that has ended it was said so.
    fn check_ends_are_told(&mut self) {
        let row = |job: &JobId| self.scheduler.cluster.job(*job);
        let ended = |job: &&JobId| row(job).is_some_and(|row| row.state.is_ended());
        let untold = self.ledger.jobs.keys().find(ended).copied();
        // A scheduler that has crashed tells it when it starts again.
        if let Some(job) = untold.filter(|_| self.scheduler.phase != Phase::Down) {
            let state = row(&job).map(|row| (row.state, row.tasks, row.ended));
            self.fail(format!("{job} has ended and nobody was told: {state:?}"));
        }
    }

    /// Writes down what an event is about.
    pub(crate) fn observe(&mut self, event: &Event) {
        let line = match event {
            Event::NodeUp { facts, holds } => {
                Line::SaidUp { server: number(&facts.name), holds: holds.len() }
            }
            Event::NodeDown { node } => Line::SaidDown { server: number(node) },
            Event::NodeGone { node, holds } => {
                Line::SaidGone { server: number(node), holds: holds.len() }
            }
            Event::Settings(_) => Line::SettingsRead,
            _ => return,
        };
        self.trace.write(self.now, line);
    }
}

fn is_idle(row: &NodeRow) -> bool {
    let open = row.service == Service::Open && row.windows.is_empty();
    row.state == NodeState::Up && open && row.tasks == 0 && row.ailments.is_empty()
}
