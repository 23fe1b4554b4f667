//! A simulated server: the node machine, its shell, its processes, its GPUs and its spool.
//!
//! Processes belong to the host and not to the agent: when the agent is killed they go on, and the
//! next agent finds them, and the ends of those that ended meanwhile. When the host is started
//! again they are gone and only the spool is left.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::health::Finding;
use gantry_model::{At, Exit, Launch, Machine, Millis, NodeFacts, Order, Report, TryId};
use gantry_node::{Effect, Event, Node};

use crate::calendar::Happening;
use crate::clock::{Clock, drift};
use crate::hardware::Hardware;
use crate::ledger::Gone;
use crate::network::Said;
use crate::process::{Process, used};
use crate::random::Random;
use crate::settings::Flaw;
use crate::spool::Spool;
use crate::trace::Line;
use crate::world::World;

/// The number in a server's name.
pub(crate) fn number(name: &str) -> usize {
    name.trim_start_matches("node").parse::<usize>().unwrap_or(1).saturating_sub(1)
}

/// Whether a host that is started again had power all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Kept,
    Cut,
}

/// An agent's process.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) node: Node,
    pub(crate) session: Option<u64>,
    /// What it found when it started, and says whenever it connects.
    pub(crate) facts: NodeFacts,
    armed: Option<At>,
    /// What is told once the spool is synced.
    pub(crate) outgoing: Vec<Report>,
    /// What it has found, and when.
    pub(crate) found: Vec<(At, Finding)>,
    /// Since when it runs.
    pub(crate) since: At,
    /// The longest wait before the next call; it doubles with each that fails.
    call_bound_ms: u64,
}

/// A server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// All it was built with.
    hardware: Hardware,
    gone_boards: BTreeSet<usize>,
    /// How many faults make each board ill, and let the driver lose it.
    pub(crate) ill: BTreeMap<usize, u32>,
    pub(crate) driver_lost: BTreeMap<usize, u32>,
    /// Counts from the host's start.
    clock: Clock,
    drift_ppm: i64,
    /// How far its wall clock is off.
    pub(crate) wall_ms: i64,
    /// How many faults make what runs here fail.
    pub(crate) bad: u32,
    boots: u32,
    /// Counts starts and ends of agents.
    pub(crate) life: u32,
    pub(crate) agent: Option<Agent>,
    pub(crate) processes: BTreeMap<TryId, Process>,
    /// Ends that the cluster has not acknowledged, on disk.
    pub(crate) spool: Spool,
    /// Ends of processes that no agent has seen, on disk.
    pub(crate) unseen: BTreeMap<TryId, (Launch, At, Exit)>,
    /// Ends that the agent has seen and that are not safe in its spool: the supervisor keeps them.
    pub(crate) reaped: BTreeMap<TryId, (Launch, At, Exit)>,
    pub(crate) plans: u64,
    pub(crate) random: Random,
}

impl Server {
    pub(crate) fn new(server: usize, now: At, mut random: Random) -> Self {
        let hardware = Hardware::draw(server, &mut random);
        let drift_ppm = drift(&mut random);
        Self {
            hardware,
            gone_boards: BTreeSet::new(),
            ill: BTreeMap::new(),
            driver_lost: BTreeMap::new(),
            clock: Clock::new(At(0), now, drift_ppm),
            drift_ppm,
            wall_ms: 0,
            bad: 0,
            boots: 1,
            life: 0,
            agent: None,
            processes: BTreeMap::new(),
            spool: Spool::default(),
            unseen: BTreeMap::new(),
            reaped: BTreeMap::new(),
            plans: 0,
            random,
        }
    }

    /// What an agent says of it now: GPUs that vanished are not seen.
    fn facts(&self) -> NodeFacts {
        let mut facts = self.hardware.without(&self.gone_boards);
        facts.boot_id = format!("boot-{}", self.boots);
        facts
    }

    /// The tries that are there without an agent: live, or ended and not acknowledged.
    pub(crate) fn outlives_agent(&self) -> Vec<TryId> {
        let ends = self.unseen.keys().chain(self.reaped.keys());
        self.processes.keys().chain(ends).copied().chain(self.spool.kept()).collect()
    }

    /// What it was built with.
    pub(crate) fn hardware(&self) -> &NodeFacts {
        &self.hardware.facts
    }

    /// A board is not seen any more. Gives its devices; none where it was gone or never there.
    pub(crate) fn lose_board(&mut self, board: usize) -> BTreeSet<String> {
        let devices = self.hardware.devices(board);
        if devices.is_empty() || !self.gone_boards.insert(board) {
            return BTreeSet::new();
        }
        devices
    }

    /// The devices of a board that are seen.
    pub(crate) fn devices(&self, board: usize) -> BTreeSet<String> {
        let gone = self.gone_boards.contains(&board);
        if gone { BTreeSet::new() } else { self.hardware.devices(board) }
    }

    /// The devices that are listed and that the driver has lost.
    pub(crate) fn lost_devices(&self) -> BTreeSet<String> {
        self.driver_lost.keys().flat_map(|board| self.devices(*board)).collect()
    }

    /// What a test of a device finds.
    pub(crate) fn is_ill(&self, uuid: &String) -> Option<&'static str> {
        let on = |board: &usize| self.hardware.devices(*board).contains(uuid);
        if self.gone_boards.iter().any(on) {
            return Some("the node has no such GPU any more");
        }
        self.ill.keys().any(on).then_some("its sums differ")
    }

    pub(crate) fn find_board(&mut self, board: usize) {
        self.gone_boards.remove(&board);
    }

    /// The time by which an agent goes.
    fn read_clock(&self, now: At, flaw: Flaw) -> At {
        let steady = self.clock.read(now);
        match flaw {
            Flaw::GoesByWallClock => At(now.0.saturating_add_signed(self.wall_ms)),
            _ => steady,
        }
    }
}

impl World {
    /// Tells a node's machine what happened and does what it asks for.
    pub(crate) fn tell_node(&mut self, server: usize, event: Event) {
        let here = &mut self.servers[server];
        let at = here.read_clock(self.now, self.settings.flaw);
        let Some(agent) = &mut here.agent else { return };
        let mut effects = Vec::new();
        agent.node.apply(at, event, &mut effects);
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
            Effect::Spool(end) => self.spool(server, end),
            Effect::Unspool { try_id } => here.spool.forget(try_id),
            Effect::Send(report) if here.spool.owes() => {
                if let Some(agent) = &mut here.agent {
                    agent.outgoing.push(report);
                }
            }
            Effect::Send(report) => self.tell(server, report),
            Effect::Signal { try_id, signal } => self.signal(server, try_id, signal),
            Effect::Wake(at) => self.arm_agent(server, at),
            Effect::Test { number, gpu } => self.begin_test(server, number, gpu),
        }
    }

    fn arm_agent(&mut self, server: usize, wake: At) {
        let here = &mut self.servers[server];
        let due = match self.settings.flaw {
            Flaw::GoesByWallClock => {
                self.now.after(wake.since(here.read_clock(self.now, self.settings.flaw)))
            }
            _ => here.clock.when(wake),
        };
        let due = due.max(self.now);
        let Some(agent) = &mut here.agent else { return };
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
        // What the agent had not written yet is lost; the supervisor keeps what the spool may not
        // have.
        if here.spool.owes() && here.random.chance(500) {
            here.spool.crash(&mut here.random);
        }
        here.unseen.append(&mut here.reaped);
        let session = here.agent.take().and_then(|agent| agent.session);
        if let Some(session) = session.and_then(|id| self.network.sessions.get_mut(&id)) {
            session.server_open = false;
        }
    }

    /// The host is started again, and its processes are gone.
    pub(crate) fn reboot(&mut self, server: usize, power: Power) {
        self.kill_agent(server);
        let here = &mut self.servers[server];
        if power == Power::Cut {
            self.summary.records_torn += here.spool.crash(&mut here.random) as u32;
        }
        here.boots += 1;
        here.clock = Clock::new(At(0), self.now, here.drift_ppm);
        here.unseen.clear();
        here.reaped.clear();
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
        // What ran while there was no agent is measured by the time since its start.
        let at = here.read_clock(self.now, self.settings.flaw);
        let since = |began: At| At(at.0.saturating_sub(self.now.since(began).0));
        let facts = here.facts();
        let agent = Agent {
            node,
            session: None,
            facts,
            armed: None,
            outgoing: Vec::new(),
            found: Vec::new(),
            since: self.now,
            call_bound_ms: 100,
        };
        let unseen = std::mem::take(&mut here.unseen);
        let running = here.processes.values().map(|p| (p.launch.clone(), since(p.began)));
        let ended = unseen.values().map(|(launch, began, _)| (launch.clone(), since(*began)));
        let mut live: Vec<(Launch, At)> = running.chain(ended).collect();
        if self.settings.flaw == Flaw::ForgetsProcesses {
            live.clear();
        }
        let mut spool = here.spool.open();
        for end in &spool {
            self.ledger.is_safe(end);
        }
        // The supervisor tells again what it was not told to forget.
        let told = |try_id: &TryId| spool.iter().any(|end| end.try_id == *try_id);
        here.reaped = unseen.clone();
        here.reaped.retain(|try_id, _| !told(try_id));
        if self.settings.flaw == Flaw::ForgetsSpool {
            spool.clear();
        }
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
        self.tell_found_again(server, session);
        self.tell_node(server, Event::Connected);
    }

    /// The agent's session is gone; it calls again.
    pub(crate) fn agent_leaves(&mut self, server: usize, session: u64) {
        let Some(agent) = &mut self.servers[server].agent else { return };
        if agent.session != Some(session) {
            return;
        }
        agent.session = None;
        agent.outgoing.clear();
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
