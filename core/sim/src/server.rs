//! A simulated server: the node machine, its shell, its processes, its GPUs and its spool.
//!
//! Processes belong to the host and not to the agent: when the agent is killed they go on, and the
//! next agent finds them, and the ends of those that ended meanwhile. When the host is started
//! again they are gone and only the spool is left.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{
    At, Exit, Gpu, Launch, Machine, MemoryMib, Millis, NodeFacts, Order, Resources, Role, TryId,
};
use gantry_node::{Effect, End, Event, Node};

use crate::calendar::Happening;
use crate::clock::Clock;
use crate::ledger::Gone;
use crate::network::Said;
use crate::process::{Process, used};
use crate::random::Random;
use crate::settings::Flaw;
use crate::trace::{Line, name};
use crate::world::World;

/// The clock of a host is off by up to so much.
const SKEW_MAX_MS: u64 = 3_600_000;
/// The number in a server's name.
pub(crate) fn number(name: &str) -> usize {
    name.trim_start_matches("node").parse::<usize>().unwrap_or(1).saturating_sub(1)
}

/// An agent's process.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) node: Node,
    pub(crate) session: Option<u64>,
    /// What it found when it started, and says whenever it connects.
    pub(crate) facts: NodeFacts,
    clock: Clock,
    armed: Option<At>,
    /// The longest wait before the next call; it doubles with each that fails.
    call_bound_ms: u64,
}

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// All it was built with.
    hardware: NodeFacts,
    gone_gpus: BTreeSet<usize>,
    boots: u32,
    /// Counts starts and ends of agents.
    pub(crate) life: u32,
    pub(crate) agent: Option<Agent>,
    pub(crate) processes: BTreeMap<TryId, Process>,
    /// Ends that the cluster has not acknowledged, on disk.
    pub(crate) spool: BTreeMap<TryId, End>,
    /// Ends of processes that no agent has seen, on disk.
    pub(crate) unseen: BTreeMap<TryId, (Launch, At, Exit)>,
    pub(crate) plans: u64,
    pub(crate) random: Random,
}

impl Server {
    pub(crate) fn new(server: usize, mut random: Random) -> Self {
        let hardware = hardware(server, &mut random);
        Self {
            hardware,
            gone_gpus: BTreeSet::new(),
            boots: 1,
            life: 0,
            agent: None,
            processes: BTreeMap::new(),
            spool: BTreeMap::new(),
            unseen: BTreeMap::new(),
            plans: 0,
            random,
        }
    }

    /// What an agent says of it now: GPUs that vanished are not seen.
    fn facts(&self) -> NodeFacts {
        let mut facts = self.hardware.clone();
        facts.boot_id = format!("boot-{}", self.boots);
        let seen = |(index, _): &(usize, &Gpu)| !self.gone_gpus.contains(index);
        let gpus = self.hardware.gpus.iter().enumerate().filter(seen);
        facts.gpus = gpus.map(|(_, gpu)| gpu.clone()).collect();
        facts.resources.gpus = facts.gpus.len() as u32;
        facts
    }

    /// What it was built with.
    pub(crate) fn hardware(&self) -> &NodeFacts {
        &self.hardware
    }

    pub(crate) fn lose_gpu(&mut self, gpu: usize) -> bool {
        gpu < self.hardware.gpus.len() && self.gone_gpus.insert(gpu)
    }

    pub(crate) fn find_gpu(&mut self, gpu: usize) {
        self.gone_gpus.remove(&gpu);
    }
}

/// A third of the servers has GPUs.
fn hardware(server: usize, random: &mut Random) -> NodeFacts {
    let gpus = if server.is_multiple_of(3) { *random.pick(&[4_usize, 8]) } else { 0 };
    let gpu = |index: usize| Gpu {
        uuid: format!("GPU-{server}-{index}"),
        name: "H100".into(),
        memory: MemoryMib(80 * 1024),
        island: (index / 4) as u16,
        ..Gpu::default()
    };
    let cores = if gpus > 0 { 64 } else { *random.pick(&[16, 32]) };
    NodeFacts {
        name: name(server),
        roles: vec![if gpus > 0 { Role::Gpu } else { Role::Cpu }],
        resources: Resources {
            cores,
            memory: MemoryMib(u64::from(cores) * 4096),
            gpus: gpus as u32,
            scratch: MemoryMib(1 << 20),
        },
        gpus: (0..gpus).map(gpu).collect(),
        gpu_reason: None,
        agent_version: "simulated".into(),
        boot_id: String::new(),
        labels: BTreeSet::new(),
        address: String::new(),
    }
}

impl World {
    /// Tells a node's machine what happened and does what it asks for.
    pub(crate) fn tell_node(&mut self, server: usize, event: Event) {
        let here = &mut self.servers[server];
        let Some(agent) = &mut here.agent else { return };
        let mut effects = Vec::new();
        agent.node.apply(agent.clock.read(self.now), event, &mut effects);
        let kept = agent.node.check();
        self.hold(kept);
        for effect in effects {
            self.act(server, effect);
        }
    }

    fn act(&mut self, server: usize, effect: Effect) {
        let here = &mut self.servers[server];
        match effect {
            Effect::Start(launch) => self.begin(server, *launch),
            Effect::Spool(end) => drop(here.spool.insert(end.try_id, end)),
            Effect::Unspool { try_id } => drop(here.spool.remove(&try_id)),
            Effect::Send(report) => {
                let session = here.agent.as_ref().and_then(|agent| agent.session);
                if let Some(session) = session {
                    self.say(session, Said::Report(report));
                }
            }
            Effect::Signal { try_id, signal } => self.signal(server, try_id, signal),
            Effect::Wake(at) => self.arm_agent(server, at),
        }
    }

    fn arm_agent(&mut self, server: usize, wake: At) {
        let here = &mut self.servers[server];
        let Some(agent) = &mut here.agent else { return };
        let due = agent.clock.when(wake).max(self.now);
        if agent.armed.is_none_or(|armed| due < armed || armed < self.now) {
            agent.armed = Some(due);
            self.calendar.note(due, Happening::AgentTimer { server, life: here.life });
        }
    }

    pub(crate) fn agent_timer(&mut self, server: usize, life: u32) {
        let here = &mut self.servers[server];
        let Some(agent) = here.agent.as_mut().filter(|_| here.life == life) else { return };
        if agent.armed.is_some_and(|at| at <= self.now) {
            agent.armed = None;
            self.tell_node(server, Event::Tick);
        }
    }

    /// The agent is killed; its processes go on.
    pub(crate) fn kill_agent(&mut self, server: usize) {
        let here = &mut self.servers[server];
        here.life += 1;
        let session = here.agent.take().and_then(|agent| agent.session);
        if let Some(session) = session.and_then(|id| self.network.sessions.get_mut(&id)) {
            session.server_open = false;
        }
    }

    /// The host loses power, and its processes with it.
    pub(crate) fn reboot(&mut self, server: usize) {
        self.kill_agent(server);
        let here = &mut self.servers[server];
        here.boots += 1;
        here.unseen.clear();
        for (try_id, process) in std::mem::take(&mut here.processes) {
            self.ledger.gone(process.launch.task, try_id, Gone::Badly);
        }
    }

    /// An agent starts and finds what the one before it left.
    pub(crate) fn start_agent(&mut self, server: usize) {
        let node = Node::new(self.settings.node);
        let here = &mut self.servers[server];
        if here.agent.is_some() {
            return;
        }
        here.life += 1;
        let skew = here.random.between(0, 2 * SKEW_MAX_MS);
        let clock = Clock::new(At((self.now.0 + skew).saturating_sub(SKEW_MAX_MS)), self.now);
        // What ran while there was no agent is measured by the time since its start.
        let since = |began: At| At(clock.read(self.now).0 - self.now.since(began).0);
        let facts = here.facts();
        let agent = Agent { node, session: None, facts, clock, armed: None, call_bound_ms: 100 };
        let unseen = std::mem::take(&mut here.unseen);
        let running = here.processes.values().map(|p| (p.launch.clone(), since(p.began)));
        let ended = unseen.values().map(|(launch, began, _)| (launch.clone(), since(*began)));
        let mut live: Vec<(Launch, At)> = running.chain(ended).collect();
        if self.settings.flaw == Flaw::ForgetsProcesses {
            live.clear();
        }
        let spool: Vec<End> = here.spool.values().cloned().collect();
        here.agent = Some(agent);
        let line = Line::AgentStarted { server, live: live.len(), ended: spool.len() };
        self.trace.write(self.now, line);
        self.tell_node(server, Event::Restored { spool, live });
        for (try_id, (launch, began, exit)) in unseen {
            let usage = used(&launch, self.now.since(began));
            self.tell_node(server, Event::Exited { try_id, exit, usage });
        }
        self.call_soon(server);
    }

    /// The agent calls the scheduler after a part of a wait that doubles, up to five seconds.
    pub(crate) fn call_soon(&mut self, server: usize) {
        let here = &mut self.servers[server];
        let Some(agent) = &mut here.agent else { return };
        let wait = Millis(here.random.between(0, agent.call_bound_ms));
        agent.call_bound_ms = (agent.call_bound_ms * 2).min(5_000);
        let happening = Happening::Call { server, life: here.life };
        self.calendar.note(self.now.after(wait), happening);
    }

    /// The scheduler has welcomed the agent on a session.
    pub(crate) fn welcome(&mut self, server: usize, session: u64) {
        let Some(agent) = &mut self.servers[server].agent else { return };
        let facts = Box::new(agent.facts.clone());
        agent.session = Some(session);
        agent.call_bound_ms = 100;
        let holds = agent.node.holds();
        self.trace.write(self.now, Line::Connected { server, session });
        self.say(session, Said::Up { facts, holds });
        self.tell_node(server, Event::Connected);
    }

    /// The agent's session is gone; it calls again.
    pub(crate) fn agent_leaves(&mut self, server: usize, session: u64) {
        let Some(agent) = &mut self.servers[server].agent else { return };
        if agent.session != Some(session) {
            return;
        }
        agent.session = None;
        self.trace.write(self.now, Line::Disconnected { server, session });
        self.tell_node(server, Event::Disconnected);
        self.call_soon(server);
    }

    /// An order arrives.
    pub(crate) fn agent_hears(&mut self, server: usize, session: u64, order: Order) {
        let Some(agent) = &self.servers[server].agent else { return };
        // An order of an earlier session was given before the cluster heard what is held.
        let current = agent.session == Some(session);
        if current || (self.settings.flaw == Flaw::HearsOldSessions && agent.session.is_some()) {
            self.tell_node(server, Event::Order(order));
        }
    }
}
