//! The simulated shell of the scheduler: drain, append, sync, apply, carry out.
//!
//! It follows the rule of the real one step by step. A crash loses what was not synced and every
//! connection; the next life makes the cluster from the journal and says of each node that was up
//! that it is down, because nobody has been heard yet.

use std::collections::{BTreeMap, VecDeque};

use gantry_cluster::{Cluster, ClusterSettings, Effect, Event};
use gantry_model::health::Finding;
use gantry_model::{At, JobRow, Millis, NodeFacts, Report, TryId};

use crate::books::Books;
use crate::calendar::Happening;
use crate::clock::Clock;
use crate::disk::{Full, Journal};
use crate::faults::Fault;
use crate::settings::Flaw;
use crate::trace::Line;
use crate::world::World;

/// Events that one sync covers.
const BATCH_MAX: usize = 512;
/// Between a message and the look at what is waiting.
const WAKE_UP: Millis = Millis(1);
/// A sync takes 1 to 4 ms, on a slow disk half a second.
const SYNC_MS: (u64, u64) = (1, 4);
const SYNC_SLOW: Millis = Millis(500);
/// How long after a full disk the next try comes by itself.
const FULL_AGAIN: Millis = Millis::from_seconds(1);
/// What waits for the scheduler.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Request(Event),
    Up {
        session: u64,
        facts: Box<NodeFacts>,
        holds: Vec<TryId>,
    },
    Report {
        session: u64,
        server: usize,
        report: Report,
    },
    Found {
        session: u64,
        server: usize,
        finding: Box<Finding>,
    },
    Tested {
        session: u64,
        server: usize,
        number: u64,
        wrong: Option<String>,
    },
    Left {
        session: u64,
        server: usize,
    },
    Gone {
        session: u64,
        server: usize,
        holds: Vec<TryId>,
    },
    /// The settings file is to be read again.
    Reload,
}

/// What goes with an event, once it is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Nothing,
    Enter { session: u64 },
    Leave { session: u64 },
}

/// Where the scheduler's process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Down,
    Idle,
    /// A batch is on its way to the disk.
    Syncing,
}

/// Whether the scheduler's end is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    None,
    /// It is killed while records are on their way to the disk.
    AtNextSync,
}

/// The scheduler's process and its disk.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    pub(crate) cluster: Cluster,
    /// What the cluster's events and effects say, on the other side of every check.
    pub(crate) books: Books,
    /// What the settings file says.
    pub(crate) file: ClusterSettings,
    pub(crate) journal: Journal,
    pub(crate) phase: Phase,
    /// Counts starts and crashes, so that what an earlier life had planned does not happen.
    pub(crate) life: u32,
    /// Since when it can keep what it hears: when this life began, or its disk was full last.
    pub(crate) steady: At,
    pub(crate) clock: Clock,
    /// How far its host's wall clock is off, and how much too fast its oscillator goes.
    pub(crate) wall_ms: i64,
    pub(crate) drift_ppm: i64,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) drain_noted: bool,
    pub(crate) batch: Vec<(Event, Then)>,
    batch_at: At,
    /// The newest session of each server, as the events taken so far have it.
    pub(crate) taken: BTreeMap<usize, u64>,
    /// The same, with those that were left since: sessions are numbered as calls are taken.
    pub(crate) newest: BTreeMap<usize, u64>,
    /// The sessions that orders go to.
    pub(crate) entered: BTreeMap<usize, u64>,
    /// Servers of which it is not written yet that their connection is gone.
    pub(crate) owed: Vec<String>,
    /// Whether the settings file may say something else than the cluster has.
    pub(crate) file_owed: bool,
    pub(crate) wake: Option<At>,
    pub(crate) armed: Option<At>,
    /// Whether it is to be killed at the worst moment.
    pub(crate) doom: Doom,
    /// How many faults make the disk slow, and how many fill it.
    pub(crate) slow: u32,
    pub(crate) full: u32,
    /// The last life's state, where the journal must lead to the same.
    pub(crate) before: Option<Box<Cluster>>,
    pub(crate) events: u64,
}

impl Scheduler {
    pub(crate) fn new(settings: ClusterSettings, now: At, drift_ppm: i64) -> Self {
        let empty = Cluster::new(settings.clone());
        let books = Books::new(settings.clone());
        Self {
            journal: Journal::new(empty.clone(), books.clone()),
            books,
            file: settings,
            cluster: empty,
            phase: Phase::Idle,
            life: 0,
            steady: now,
            clock: Clock::new(now, now, drift_ppm),
            wall_ms: 0,
            drift_ppm,
            inbox: VecDeque::new(),
            drain_noted: false,
            batch: Vec::new(),
            batch_at: At(0),
            taken: BTreeMap::new(),
            newest: BTreeMap::new(),
            entered: BTreeMap::new(),
            owed: Vec::new(),
            file_owed: false,
            wake: None,
            armed: None,
            doom: Doom::None,
            slow: 0,
            full: 0,
            before: None,
            events: 0,
        }
    }

    /// The session that orders to a server go to.
    pub(crate) fn session(&self, server: usize) -> Option<u64> {
        self.entered.get(&server).copied()
    }

    /// Sorts what is waiting into events.
    fn sort(&mut self, input: Input, flaw: Flaw) {
        let (event, then) = match input {
            Input::Request(event) => (event, Then::Nothing),
            Input::Up { session, facts, holds } => {
                let server = crate::server::number(&facts.name);
                // What a session that was given up had said of the node is no longer true.
                let newest = self.newest.entry(server).or_default();
                if session < *newest && flaw != Flaw::HearsOldSessions {
                    return;
                }
                *newest = session;
                self.taken.insert(server, session);
                (Event::NodeUp { facts, holds }, Then::Enter { session })
            }
            Input::Report { session, server, report } => {
                let current = self.taken.get(&server) == Some(&session);
                if !current && flaw != Flaw::HearsOldSessions {
                    return;
                }
                (Event::Report { node: crate::trace::name(server), report }, Then::Nothing)
            }
            Input::Found { session, server, finding } => {
                if self.taken.get(&server) != Some(&session) {
                    return;
                }
                let node = crate::trace::name(server);
                (Event::Found { node, finding: *finding }, Then::Nothing)
            }
            Input::Tested { session, server, number, wrong } => {
                if self.taken.get(&server) != Some(&session) {
                    return;
                }
                let node = crate::trace::name(server);
                (Event::Tested { node, number, wrong }, Then::Nothing)
            }
            Input::Reload => (Event::Settings(Box::new(self.file.clone())), Then::Nothing),
            // A session that was replaced leaves nothing behind: its node is connected.
            Input::Left { session, server } => {
                if self.taken.get(&server) != Some(&session) {
                    return;
                }
                self.taken.remove(&server);
                let node = crate::trace::name(server);
                (Event::NodeDown { node }, Then::Leave { session })
            }
            // Said of an agent after which another has called, it is old.
            Input::Gone { session, server, holds } => {
                if self.newest.get(&server) != Some(&session) {
                    return;
                }
                self.taken.remove(&server);
                let node = crate::trace::name(server);
                (Event::NodeGone { node, holds }, Then::Leave { session })
            }
        };
        self.batch.push((event, then));
    }
}

impl World {
    /// Something reaches the scheduler's process; lost where there is none.
    pub(crate) fn reach_scheduler(&mut self, input: Input) {
        if self.scheduler.phase != Phase::Down {
            self.scheduler.inbox.push_back(input);
            self.note_drain();
        }
    }

    pub(crate) fn note_drain(&mut self) {
        if self.scheduler.phase == Phase::Idle && !self.scheduler.drain_noted {
            self.scheduler.drain_noted = true;
            let life = self.scheduler.life;
            self.calendar.note(self.now.after(WAKE_UP), Happening::Drain { life });
        }
    }

    /// Takes what is waiting and brings it onto its way to the disk.
    pub(crate) fn drain(&mut self, life: u32) {
        let scheduler = &mut self.scheduler;
        if scheduler.life != life || scheduler.phase != Phase::Idle {
            return;
        }
        scheduler.drain_noted = false;
        // What the file says comes first where that is not what the cluster has.
        if std::mem::take(&mut scheduler.file_owed) {
            scheduler.sort(Input::Reload, self.settings.flaw);
        }
        let owed = std::mem::take(&mut scheduler.owed).into_iter();
        scheduler.batch.extend(owed.map(|node| (Event::NodeDown { node }, Then::Nothing)));
        while scheduler.batch.len() < BATCH_MAX {
            let Some(input) = scheduler.inbox.pop_front() else { break };
            scheduler.sort(input, self.settings.flaw);
        }
        if scheduler.timer_is_due(self.now) && self.settings.flaw != Flaw::ForgetsTimers {
            scheduler.wake = None;
            scheduler.batch.push((Event::Tick, Then::Nothing));
        }
        if scheduler.batch.is_empty() {
            return;
        }
        if scheduler.full > 0 {
            scheduler.journal.fill();
        } else {
            scheduler.journal.make_room();
        }
        scheduler.batch_at = scheduler.clock.read(self.now);
        let at = scheduler.batch_at;
        let records = scheduler.batch.iter().map(|(event, _)| (at, event.clone()));
        if scheduler.journal.append(records) == Err(Full) {
            self.refuse_all();
            return;
        }
        scheduler.phase = Phase::Syncing;
        let slow = scheduler.slow > 0;
        let takes = Millis(self.random.between(SYNC_MS.0, SYNC_MS.1));
        let synced = self.now.after(if slow { SYNC_SLOW } else { takes });
        self.calendar.note(synced, Happening::Synced { life });
        if self.settings.flaw == Flaw::ActsBeforeSync {
            self.apply_batch();
        }
        if self.scheduler.doom == Doom::AtNextSync {
            self.scheduler.doom = Doom::None;
            self.crash_scheduler();
            self.plan_end(Fault::SchedulerCrash);
        }
    }

    /// The batch is safe: it is applied, and what follows from it leaves.
    pub(crate) fn synced(&mut self, life: u32) {
        if self.scheduler.life != life || self.scheduler.phase != Phase::Syncing {
            return;
        }
        self.scheduler.journal.sync();
        if self.settings.flaw != Flaw::ActsBeforeSync {
            self.apply_batch();
        }
        if self.settings.flaw == Flaw::None {
            self.scheduler.journal.compact(&self.scheduler.cluster, &self.scheduler.books);
        }
        self.scheduler.phase = Phase::Idle;
        if !self.scheduler.inbox.is_empty() || self.scheduler.timer_is_due(self.now) {
            self.note_drain();
        }
        self.arm();
    }

    /// The disk is full: nothing was written, and whoever waits must come again.
    fn refuse_all(&mut self) {
        self.scheduler.batch.clear();
        self.scheduler.steady = self.now;
        let entered = std::mem::take(&mut self.scheduler.entered);
        let taken = std::mem::take(&mut self.scheduler.taken);
        for session in entered.into_values().chain(taken.into_values()) {
            self.scheduler_closes(session);
        }
        self.scheduler.owed = self.scheduler.cluster.up_nodes();
        self.scheduler.file_owed = self.scheduler.cluster.settings() != &self.scheduler.file;
        self.scheduler.wake = Some(self.scheduler.clock.read(self.now).after(FULL_AGAIN));
        self.arm();
    }

    fn apply_batch(&mut self) {
        let at = self.scheduler.batch_at;
        for (event, then) in std::mem::take(&mut self.scheduler.batch) {
            match then {
                Then::Nothing => {}
                Then::Enter { session } => self.enter(session),
                Then::Leave { session } => {
                    self.scheduler.entered.retain(|_, entered| *entered != session);
                    // Where it was not gone before.
                    if let Some(session) = self.network.sessions.get_mut(&session) {
                        session.scheduler_open = false;
                    }
                }
            }
            self.observe(&event);
            let watched = event.clone();
            let effects = self.scheduler.apply(at, event, self.settings.flaw);
            self.scheduler.events += 1;
            let scheduler = &mut self.scheduler;
            let kept = scheduler.books.take(at, &watched, &effects, &scheduler.cluster);
            self.hold(kept);
            for effect in effects {
                self.carry_out(effect, &watched);
            }
            self.check_event(&watched);
        }
    }

    /// A new session takes the place of an older one of its server.
    fn enter(&mut self, session: u64) {
        let Some(new) = self.network.sessions.get_mut(&session) else { return };
        new.entered = true;
        let server = new.server;
        if let Some(old) = self.scheduler.entered.insert(server, session) {
            self.scheduler_closes(old);
        }
    }

    fn carry_out(&mut self, effect: Effect, event: &Event) {
        match effect {
            Effect::Reply { request, answer } => self.answered(request, answer, event),
            Effect::Order { node, order } => self.order(crate::server::number(&node), order),
            Effect::Note(note) => self.keep_note(note),
            Effect::Wake(at) => {
                self.scheduler.wake = Some(at);
                if self.scheduler.phase == Phase::Idle {
                    self.arm();
                }
            }
            Effect::JobEnded(row) => self.job_ended(&row),
            // For those who watch.
            Effect::Preempted { .. } | Effect::TryEnded(_) => {}
        }
    }

    pub(crate) fn job_ended(&mut self, row: &JobRow) {
        self.trace.write(self.now, Line::Ended { job: row.job });
        let kept = self.ledger.job_ended(row);
        self.hold(kept);
        self.users.ended(row.job);
        self.summary.count(row);
    }
}
