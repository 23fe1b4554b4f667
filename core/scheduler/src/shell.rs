//! The thread that owns the cluster machine and the journal.
//!
//! It takes what is waiting, up to [`BATCH_MAX`], appends the events with one sync, then applies
//! each and carries out its effects, in order; after that it answers what only reads. Nothing
//! leaves before its event is durable.
//!
//! A full disk is survived: nothing of that batch was written, every caller is told so, and every
//! agent is disconnected, because agents repeat what was not acknowledged when they come back. Any
//! other failure of the journal ends the daemon: what is on the disk is then not known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_cluster::{Cluster, ClusterSettings, Effect, Event};
use gantry_model::limits::JOBS_PAGE_MAX;
use gantry_model::{At, JobRow, Machine, Millis, Principal, Reject, RejectKind};
use gantry_wire::{JournalCopy, NoteQuery};
use tokio::sync::{mpsc, watch};

use crate::access::{Access, Change};
use crate::agents::{Agent, Agents, Called};
use crate::board::Board;
use crate::clock::Clock;
use crate::core::{Command, Page, Read, Replied, Restored};
use crate::error::SchedulerError;
use crate::store::{Store, record};
use crate::traces::Watch;

/// Events that one sync covers: at 5,000 syncs a second the delay stays below a millisecond.
const BATCH_MAX: usize = 512;
/// Looks at the event log between two batches: each may take three milliseconds.
const LOOKS_MAX: usize = 4;
/// How long after a full disk the next try comes by itself.
const FULL_AGAIN: Millis = Millis::from_seconds(1);
/// The longest sleep without a timer.
const SLEEP_MAX: Duration = Duration::from_hours(1);

/// What goes with an event, once it is durable.
enum Then {
    Nothing,
    Answer(Replied),
    Enter(Agent),
    Leave(u64),
}

impl Then {
    /// The event was not written.
    fn refuse(self, reject: &Reject) {
        match self {
            Self::Answer(reply) => {
                // The caller may have left.
                let _ = reply.send(Err(reject.clone()));
            }
            Self::Enter(agent) => agent.connection.close(&reject.sentence),
            Self::Nothing | Self::Leave(_) => {}
        }
    }
}

/// What is done together.
#[derive(Default)]
struct Batch {
    events: Vec<(Event, Then)>,
    reads: Vec<Read>,
    looks: Vec<(NoteQuery, Page)>,
    stop: bool,
}

impl Batch {
    /// Whether more is taken before what is there is done.
    const fn has_room(&self) -> bool {
        self.events.len() < BATCH_MAX
            && self.reads.len() < BATCH_MAX
            && self.looks.len() < LOOKS_MAX
            && !self.stop
    }
}

/// The thread's value.
pub(crate) struct Shell {
    // Dropped in this order: whoever sees the channel closed finds the journal closed too.
    store: Store,
    commands: mpsc::Receiver<Command>,
    cluster: Cluster,
    clock: Clock,
    /// Settings that are to be applied first.
    settings: Option<ClusterSettings>,
    wake: Option<At>,
    /// The newest session of each node, as the events taken so far have it.
    sessions: BTreeMap<String, u64>,
    /// The newest session each node ever had in this life.
    newest: BTreeMap<String, Called>,
    /// Nodes of which it is not written yet that their connection is gone.
    owed: Vec<String>,
    /// Jobs that have ended and are not in the history yet.
    over: Vec<JobRow>,
    full: bool,
    /// Until then nothing more is tried where a full disk did not take what follows from events.
    keep_again: At,
    board: Arc<Mutex<Board>>,
    agents: Arc<Agents>,
    access: Access,
    ended: watch::Sender<u64>,
    traces: Option<Watch>,
}

/// What the thread shares with the sessions.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) board: Arc<Mutex<Board>>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) access: Access,
    pub(crate) ended: watch::Sender<u64>,
    /// What it shows to those who trace jobs.
    pub(crate) traces: Option<Watch>,
}

impl Shell {
    pub(crate) fn new(store: Store, restored: Restored, parts: Parts) -> Self {
        let Parts { clock, commands, board, agents, access, ended, traces } = parts;
        let Restored { cluster, settings, over, .. } = restored;
        // Nobody has been heard in this life yet.
        let owed = cluster.up_nodes();
        let sessions = BTreeMap::new();
        Self {
            store,
            commands,
            cluster,
            clock,
            settings,
            wake: None,
            sessions,
            newest: BTreeMap::new(),
            owed,
            over,
            full: false,
            keep_again: At(0),
            board,
            agents,
            access,
            ended,
            traces,
        }
    }

    /// Runs until it is told to stop, or the journal fails.
    pub(crate) fn run(mut self) -> Result<(), SchedulerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| SchedulerError::Storage(error.to_string()))?;
        // The timers of the earlier life are armed again by this.
        let settings = self.settings.take().map(|settings| Event::Settings(Box::new(settings)));
        let first = settings.into_iter().chain([Event::Tick]);
        self.commit(first.map(|event| (event, Then::Nothing)).collect())?;
        loop {
            let sleep = self.wake.map_or(SLEEP_MAX, |at| {
                Duration::from_millis(at.since(self.clock.now()).0).min(SLEEP_MAX)
            });
            let first =
                runtime.block_on(async { tokio::time::timeout(sleep, self.commands.recv()).await });
            let mut batch = Batch::default();
            // Those that found the disk full.
            if let Some(settings) = self.settings.take() {
                batch.events.push((Event::Settings(Box::new(settings)), Then::Nothing));
            }
            match first {
                Ok(Some(command)) => self.sort(command, &mut batch)?,
                Ok(None) => return self.leave(),
                Err(_) => {}
            }
            while batch.has_room() {
                let Ok(command) = self.commands.try_recv() else { break };
                self.sort(command, &mut batch)?;
            }
            if self.wake.is_some_and(|at| at <= self.clock.now()) {
                self.wake = None;
                batch.events.push((Event::Tick, Then::Nothing));
            }
            self.commit(batch.events)?;
            self.keep_after()?;
            for read in batch.reads {
                read(&self.cluster);
            }
            for (query, page) in batch.looks {
                // The caller may have left.
                let _ = page.send(readable("event log", self.store.notes(&query)));
            }
            if batch.stop {
                return self.leave();
            }
            if self.store.wants_snapshot() {
                self.snapshot()?;
            }
        }
    }

    /// Keeps the whole state, so that the next start has little to apply.
    fn snapshot(&mut self) -> Result<(), SchedulerError> {
        match self.store.snapshot(self.clock.now(), &self.cluster) {
            // It is only worth time: the events are all there.
            Err(SchedulerError::Full) => {
                tracing::warn!("no snapshot: the journal's disk is full");
                Ok(())
            }
            other => other,
        }
    }

    /// The ordinary end.
    fn leave(&mut self) -> Result<(), SchedulerError> {
        if self.store.is_worth_a_snapshot() { self.snapshot() } else { Ok(()) }
    }

    /// Puts a command where it belongs.
    fn sort(&mut self, command: Command, batch: &mut Batch) -> Result<(), SchedulerError> {
        match command {
            Command::Event(event, reply) => {
                batch.events.push((event, reply.map_or(Then::Nothing, Then::Answer)));
            }
            Command::Enter(facts, holds, agent) => {
                let newest = self.newest.entry(facts.name.clone()).or_insert(agent.called);
                if newest.session > agent.called.session {
                    agent.connection.close("a newer session of this node has begun");
                    return Ok(());
                }
                *newest = agent.called;
                self.sessions.insert(facts.name.clone(), agent.called.session);
                batch.events.push((Event::NodeUp { facts, holds }, Then::Enter(agent)));
            }
            Command::Leave { node, session } => {
                // A session that was replaced leaves nothing behind: its node is connected.
                if self.sessions.get(&node) == Some(&session) {
                    self.sessions.remove(&node);
                    batch.events.push((Event::NodeDown { node }, Then::Leave(session)));
                }
            }
            Command::Gone { node, welcomed, holds } => {
                // Said of an agent after which another has called, it is old.
                let gone = self.newest.get(&node).filter(|newest| newest.welcomed == welcomed);
                if let Some(Called { session, .. }) = gone.copied() {
                    self.sessions.remove(&node);
                    batch.events.push((Event::NodeGone { node, holds }, Then::Leave(session)));
                }
            }
            Command::Read(read) => batch.reads.push(read),
            Command::History { query, page } => {
                let _ = page.send(readable("history", self.store.history(&query, JOBS_PAGE_MAX)));
            }
            Command::Use { by, from, until, report } => {
                let _ = report.send(readable("history", self.store.sum_use(by, from, until)));
            }
            Command::Notes { query, page } => batch.looks.push((query, page)),
            // What is added is kept after every batch, and this is one.
            Command::Noted => {}
            Command::Retain(retention) => self.store.retain(retention),
            Command::AddToken { hash, principal, expires, done } => {
                let result = self.store.add_token(&hash, &principal, self.clock.now(), expires);
                let _ = done.send(refusable(result.map(Ok))?);
            }
            Command::Redeem { hash, principal, done } => {
                let result = self.store.redeem(&hash, &principal, self.clock.now());
                let _ = done.send(refusable(result)?);
            }
            Command::Copy { to, done } => {
                let (at, begun) = (self.clock.now(), Instant::now());
                let bytes = readable("journal", self.store.copy(&to));
                let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                let _ = done.send(bytes.map(|bytes| JournalCopy { at, bytes, took_us }));
            }
            Command::Access { by, change, done } => {
                let result = self.change_access(&by, &change);
                let _ = done.send(refusable(result)?);
            }
            Command::Stop => batch.stop = true,
        }
        Ok(())
    }

    /// Decides on a change of who has access, makes it durable, and lets it hold.
    fn change_access(
        &mut self,
        by: &str,
        change: &Change,
    ) -> Result<Result<Principal, Reject>, SchedulerError> {
        // Certificates are held against it.
        let at = self.clock.wall();
        let (principal, grant) = match self.access.look(|grants| grants.change(at, by, change)) {
            Ok(decided) => decided,
            Err(reject) => return Ok(Err(reject)),
        };
        if grant.revoked {
            self.store.forget_tokens(&principal)?;
        }
        self.store.keep_grant(&principal, &grant)?;
        self.access.take(principal.clone(), grant);
        Ok(Ok(principal))
    }

    /// Makes events durable, applies them, and does what follows from each.
    fn commit(&mut self, events: Vec<(Event, Then)>) -> Result<(), SchedulerError> {
        if events.is_empty() {
            return Ok(());
        }
        let at = self.clock.now();
        let owed = std::mem::take(&mut self.owed).into_iter();
        let owed = owed.map(|node| (Event::NodeDown { node }, Then::Nothing));
        let (mut records, mut batch) = (Vec::new(), Vec::new());
        for (event, then) in owed.chain(events) {
            match record(&event) {
                Ok(payload) => {
                    records.push((at, payload));
                    batch.push((event, then));
                }
                Err(error) => {
                    tracing::warn!("an event was dropped, it cannot be kept: {error}");
                    then.refuse(&Reject::invalid(format!("this cannot be kept: {error}")));
                }
            }
        }
        match self.store.append(&records) {
            Ok(()) => self.has_room(),
            Err(SchedulerError::Full) => {
                self.has_no_room(batch, at);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let mut effects = Vec::new();
        for (event, then) in batch {
            let mut reply = None;
            match (&event, then) {
                (_, Then::Answer(replied)) => reply = Some(replied),
                (Event::NodeUp { facts, .. }, Then::Enter(agent)) => {
                    self.agents.enter(&facts.name, agent);
                }
                (Event::NodeDown { node } | Event::NodeGone { node, .. }, Then::Leave(session)) => {
                    self.agents.leave(node, session);
                }
                _ => {}
            }
            self.cluster.apply(at, event, &mut effects);
            self.carry_out(at, effects.drain(..), reply);
        }
        Ok(())
    }

    /// Keeps the jobs that have ended and the lines of the event log. What a full disk does not take
    /// waits in memory, and most of it can be made again from the journal.
    fn keep_after(&mut self) -> Result<(), SchedulerError> {
        let now = self.clock.now();
        let (mut unsaved, unkept) = {
            let mut board = self.board();
            board.journal = self.store.counted();
            if now < self.keep_again {
                return Ok(());
            }
            (board.notes.take_unsaved(), board.telemetry.alerts.take_unkept())
        };
        // Those first: keeping them twice is keeping them.
        let kept = self.store.keep_alerts(&unkept);
        match kept.and_then(|()| self.store.keep_after(&self.over, &unsaved.lines(), now)) {
            Ok(()) => {
                self.over.clear();
                Ok(())
            }
            Err(SchedulerError::Full) => {
                self.board().notes.put_back(unsaved);
                self.board().telemetry.alerts.put_back(unkept);
                self.keep_again = now.after(FULL_AGAIN);
                self.wake = Some(self.wake.map_or(self.keep_again, |at| at.min(self.keep_again)));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what one event asks for; `reply` waits for its answer.
    fn carry_out(
        &mut self,
        at: At,
        effects: impl Iterator<Item = Effect>,
        mut reply: Option<Replied>,
    ) {
        for mut effect in effects {
            if let Some(traces) = &mut self.traces {
                traces.see(at, &self.cluster, &mut effect);
            }
            match effect {
                Effect::Reply { answer, .. } => {
                    if let Some(reply) = reply.take() {
                        // The caller may have left.
                        let _ = reply.send(answer);
                    }
                }
                Effect::Order { node, order } => self.agents.order(&node, order),
                Effect::Note(note) => {
                    self.board().notes.push(note);
                }
                Effect::Wake(at) => self.wake = Some(at),
                Effect::JobEnded(row) => {
                    self.over.push(*row);
                    self.ended.send_modify(|count| *count += 1);
                }
                // Only traces want to know.
                Effect::Preempted { .. } | Effect::TryEnded(_) => {}
            }
        }
    }

    fn has_room(&mut self) {
        if std::mem::take(&mut self.full) {
            tracing::info!("the journal's disk has room again");
        }
    }

    fn has_no_room(&mut self, batch: Vec<(Event, Then)>, at: At) {
        if !std::mem::replace(&mut self.full, true) {
            tracing::error!("{}", SchedulerError::Full);
        }
        for (event, then) in batch {
            // Nobody else says them again.
            if let (Event::Settings(settings), Then::Nothing) = (event, &then) {
                self.settings = Some(*settings);
            }
            then.refuse(&full());
        }
        self.agents.close_all("the journal's disk is full");
        self.sessions.clear();
        self.owed = self.cluster.up_nodes();
        self.wake = Some(at.after(FULL_AGAIN));
    }
}

/// What only reads and fails is told to whoever asked; it ends nothing.
fn readable<T>(what: &str, result: Result<T, SchedulerError>) -> Result<T, Reject> {
    result.map_err(|error| {
        tracing::error!("the {what} cannot be read: {error}");
        Reject::new(RejectKind::Busy, format!("the {what} cannot be read: {error}"))
    })
}

fn full() -> Reject {
    Reject::new(RejectKind::Busy, SchedulerError::Full.to_string())
}

/// Separates what a caller is told from what ends the scheduler.
fn refusable<T>(
    result: Result<Result<T, Reject>, SchedulerError>,
) -> Result<Result<T, Reject>, SchedulerError> {
    match result {
        Ok(answer) => Ok(answer),
        Err(SchedulerError::Refused(reject)) => Ok(Err(reject)),
        Err(SchedulerError::Full) => Ok(Err(full())),
        Err(error) => Err(error),
    }
}
