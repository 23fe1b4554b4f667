//! Everything that a simulation holds, and the one place where something happens next.

use std::collections::{BTreeMap, BTreeSet};

use gantry_cluster::{Answer, ClusterSettings, Event};
use gantry_model::{At, JobId, Millis, Note, Reject};

use crate::calendar::{Calendar, Happening};
use crate::clock::drift;
use crate::ledger::Ledger;
use crate::network::Network;
use crate::random::Random;
use crate::report::{Failure, Summary};
use crate::scheduler::{Input, Scheduler};
use crate::server::Server;
use crate::sessions::BEAT;
use crate::settings::SimulationSettings;
use crate::site;
use crate::trace::{Line, Trace};
use crate::users::Users;

/// Between two looks at everything.
const LOOK: Millis = Millis::from_seconds(60);
/// With so many of a thousand actions of users the settings are changed.
const RELOADS_PERMILLE: u64 = 20;
/// A user who got no answer asks again.
const ASK_AGAIN: Millis = Millis::from_seconds(7);
/// Requests from outside have numbers from here on; the simulated users stay below.
pub(crate) const OUTSIDE_FIRST: u64 = 1 << 48;
/// Notes kept for whoever shows them.
const NOTES_MAX: usize = 1000;

/// A whole world.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) settings: SimulationSettings,
    pub(crate) now: At,
    pub(crate) calendar: Calendar,
    /// For the scheduler's host and the checks.
    pub(crate) random: Random,
    pub(crate) faults: Random,
    pub(crate) ailing: Random,
    pub(crate) network: Network,
    pub(crate) scheduler: Scheduler,
    pub(crate) servers: Vec<Server>,
    pub(crate) users: Users,
    pub(crate) ledger: Ledger,
    pub(crate) trace: Trace,
    pub(crate) summary: Summary,
    pub(crate) notes: Vec<Note>,
    /// Answers to requests from outside.
    pub(crate) answers: BTreeMap<u64, Result<Answer, Reject>>,
    /// Servers that the cluster calls lost.
    pub(crate) lost: BTreeSet<usize>,
    /// The first settings of the cluster, and what decides about others.
    pub(crate) first: ClusterSettings,
    administrator: Random,
    /// Servers whose drivers have lost a GPU, or whose GPU is thought to be.
    pub(crate) watched: BTreeSet<usize>,
    /// Jobs that wait beside an idle node, and since when.
    pub(crate) waits: BTreeMap<JobId, At>,
    /// Users and faults have stopped.
    pub(crate) calm: bool,
    pub(crate) failure: Option<Box<Failure>>,
}

impl World {
    pub(crate) fn new(settings: SimulationSettings) -> Self {
        let stream = |number: u64| Random::new(settings.seed, number);
        let count = settings.nodes.max(1) as usize;
        let now = settings.start;
        let server = |server: usize| Server::new(server, now, stream(100 + server as u64));
        let servers: Vec<Server> = (0..count).map(server).collect();
        let hardware = || servers.iter().map(Server::hardware);
        let first = site::first(settings.cluster.clone(), hardware());
        let mut random = stream(1);
        let drift_ppm = drift(&mut random);
        let mut world = Self {
            now,
            calendar: Calendar::default(),
            random,
            faults: stream(2),
            ailing: stream(7),
            network: Network::new(settings.loss_permille, stream(3)),
            scheduler: Scheduler::new(first.clone(), now, drift_ppm),
            users: Users::new(count, stream(4)),
            servers,
            ledger: Ledger::default(),
            trace: Trace::new(now),
            summary: Summary::default(),
            notes: Vec::new(),
            answers: BTreeMap::new(),
            lost: BTreeSet::new(),
            first: first.clone(),
            administrator: stream(6),
            watched: BTreeSet::new(),
            waits: BTreeMap::new(),
            calm: false,
            failure: None,
            settings,
        };
        for server in 0..count {
            let starts = Millis(world.random.between(0, 2000));
            world.calendar.note(now.after(starts), Happening::AgentStart { server });
        }
        world.calendar.note(now.after(BEAT), Happening::Beat);
        world.calendar.note(now.after(LOOK), Happening::Look);
        world.calendar.note(now.after(Millis::from_seconds(5)), Happening::UserActs);
        world.plan_fault();
        world.plan_ailing();
        world
    }

    /// A check has failed. The first counts.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        if self.failure.is_none() {
            let (seed, after) = (self.settings.seed, self.trace.after(self.now));
            let failure = Failure { seed, after, what: what.into(), recent: self.trace.recent() };
            self.failure = Some(Box::new(failure));
        }
    }

    /// Fails where a check does.
    pub(crate) fn hold(&mut self, kept: Result<(), String>) {
        if let Err(what) = kept {
            self.fail(what);
        }
    }

    /// Lets happen what comes next, up to a time; says whether anything did.
    pub(crate) fn step(&mut self, end: At) -> bool {
        let Some((at, happening)) = self.calendar.next(end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(at);
        match happening {
            Happening::Beat => self.beat(),
            Happening::Look => {
                self.look();
                self.calendar.note(self.now.after(LOOK), Happening::Look);
            }
            Happening::Deliver { session, direction } => self.deliver(session, direction),
            Happening::Closed { session, direction } => self.closed(session, direction),
            Happening::Call { server, life } => self.call(server, life),
            Happening::Taken { server, life, scheduler_life } => {
                self.taken(server, life, scheduler_life);
            }
            Happening::Farewell { server, session, holds } => {
                self.reach_scheduler(Input::Gone { session, server, holds });
            }
            Happening::Drain { life } => self.drain(life),
            Happening::Synced { life } => self.synced(life),
            Happening::SchedulerTimer { life } => self.scheduler_timer(life),
            Happening::SpoolSynced { server, life } => self.spool_synced(server, life),
            Happening::AgentTimer { server, life } => self.agent_timer(server, life),
            Happening::AgentStart { server } => self.start_agent(server),
            Happening::Begun { server, try_id } => self.begun(server, try_id),
            Happening::Ends { server, try_id, number } => self.ends(server, try_id, number),
            Happening::Tested { server, life, number, gpu } => {
                self.tested(server, life, number, gpu.as_ref());
            }
            Happening::UserActs => self.user_acts(),
            Happening::AsksAgain { request } => self.asks_again(request),
            Happening::Strikes(fault) => self.strike(fault),
            Happening::Over(fault) => self.over(fault),
        }
        true
    }

    fn user_acts(&mut self) {
        if self.calm {
            return;
        }
        let (request, event) = self.users.act(self.scheduler.clock.read(self.now));
        self.ask(request, event);
        if self.administrator.chance(RELOADS_PERMILLE) {
            let settings = site::others(&self.first, &mut self.administrator);
            self.reload(settings);
        }
        // Seven of ten actions submit.
        let mean = 3_600_000 * 7 / 10 / u64::from(self.settings.jobs_per_hour.max(1));
        let wait = self.random.wait(Millis(mean));
        self.calendar.note(self.now.after(wait), Happening::UserActs);
    }

    /// The settings file is another one, and the scheduler is told to read it.
    pub(crate) fn reload(&mut self, settings: ClusterSettings) {
        self.scheduler.file = settings;
        self.reach_scheduler(Input::Reload);
    }

    /// Sends a request, and again until it is answered.
    pub(crate) fn ask(&mut self, request: u64, event: Event) {
        self.trace.write(self.now, Line::Asked { request });
        self.reach_scheduler(Input::Request(event));
        self.calendar.note(self.now.after(ASK_AGAIN), Happening::AsksAgain { request });
    }

    fn asks_again(&mut self, request: u64) {
        if let Some(event) = self.users.pending.get(&request).cloned() {
            self.ask(request, event);
        }
    }

    /// An answer leaves the scheduler.
    pub(crate) fn answered(&mut self, request: u64, answer: Result<Answer, Reject>, event: &Event) {
        self.users.pending.remove(&request);
        let line =
            if answer.is_ok() { Line::Answered { request } } else { Line::Refused { request } };
        self.trace.write(self.now, line);
        if answer.is_err() {
            self.summary.refused += 1;
        }
        if let (Ok(Answer::Submitted(job)), Event::Submit { user, key, spec, .. }) =
            (&answer, event)
        {
            self.trace.write(self.now, Line::Submitted { job: *job });
            let kept = self.ledger.submitted(user, key, *job, spec);
            self.hold(kept);
            self.users.submitted(*job);
        }
        if request >= OUTSIDE_FIRST {
            self.answers.insert(request, answer);
        }
    }

    pub(crate) fn keep_note(&mut self, note: Note) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }
}
