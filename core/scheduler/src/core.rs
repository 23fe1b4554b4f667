//! The way to the cluster, for sessions: one bounded channel to the thread that owns it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_cluster::{Answer, Cluster, ClusterSettings, Effect, Event};
use gantry_link::Connection;
use gantry_model::{
    At, JobRow, Level, Machine, Millis, NodeFacts, Note, Order, Principal, Reject, RejectKind,
    Subject, TryId,
};
use gantry_wire::{HistoryQuery, JournalCopy, NotePage, NoteQuery, UseBy, UseRow};
use tokio::sync::{mpsc, oneshot, watch};

use crate::access::{Access, Change, Grants};
use crate::agents::{Agent, Agents, Called, ORDERS_MAX};
use crate::alerts::Kept;
use crate::board::Board;
use crate::clock::Clock;
use crate::error::SchedulerError;
use crate::notes::{Notes, SHOWN_MAX};
use crate::shell::{Parts, Shell};
use crate::store::{Retention, Store};
use crate::traces::Watch;

/// Commands that wait; beyond that a caller waits, which slows its own connection only.
const WAITING_MAX: usize = 4096;

pub(crate) type Replied = oneshot::Sender<Result<Answer, Reject>>;
pub(crate) type Read = Box<dyn FnOnce(&Cluster) + Send>;
pub(crate) type Done = oneshot::Sender<Result<(), Reject>>;
pub(crate) type Page = oneshot::Sender<Result<NotePage, Reject>>;

/// What the thread is asked to do.
pub(crate) enum Command {
    /// Something happened; somebody may wait for the answer.
    Event(Event, Option<Replied>),
    /// An agent has connected and said what it is and holds.
    Enter(Box<NodeFacts>, Vec<TryId>, Agent),
    /// A session has ended.
    Leave { node: String, session: u64 },
    /// An agent is gone, as its node says.
    Gone { node: String, welcomed: At, holds: Vec<TryId> },
    /// Look at the cluster.
    Read(Read),
    /// A page of ended jobs.
    History { query: HistoryQuery, page: oneshot::Sender<Result<(Vec<JobRow>, bool), Reject>> },
    /// A report of use.
    Use { by: UseBy, from: At, until: At, report: oneshot::Sender<Result<Vec<UseRow>, Reject>> },
    /// A page of the event log.
    Notes { query: NoteQuery, page: Page },
    /// A session has added a line to the event log.
    Noted,
    /// Keep so much of the event log from now on.
    Retain(Retention),
    /// Keep the hash of a new token.
    AddToken { hash: String, principal: Principal, expires: At, done: Done },
    /// Use a token up.
    Redeem { hash: String, principal: Principal, done: Done },
    /// Copy the journal into this file.
    Copy { to: PathBuf, done: oneshot::Sender<Result<JournalCopy, Reject>> },
    /// Change who has access.
    Access { by: String, change: Change, done: oneshot::Sender<Result<Principal, Reject>> },
    /// End, after what came before this.
    Stop,
}

/// The way to the cluster. Clones share it.
#[derive(Clone)]
pub(crate) struct Core {
    commands: mpsc::Sender<Command>,
    /// The clock by which everything is stamped.
    pub(crate) clock: Clock,
    /// The connected agents.
    pub(crate) agents: Arc<Agents>,
    /// Who has access.
    pub(crate) access: Access,
    board: Arc<Mutex<Board>>,
    ended: watch::Receiver<u64>,
    sessions: Arc<AtomicU64>,
}

/// Opens the journal, applies it, and starts the thread, which shows `traces` what it does. The clock is
/// so far `ahead` of the host's.
pub(crate) fn start(
    folder: &Path,
    settings: ClusterSettings,
    retention: Retention,
    ahead: Millis,
    traces: Option<Watch>,
) -> Result<Started, SchedulerError> {
    let mut store = Store::open(folder)?;
    store.retain(retention);
    let mut restored = restore(&mut store, settings)?;
    let clock = Clock::new(restored.last, ahead);
    let access = Access::new(Grants::restored(store.grants()?));
    let (commands, receiver) = mpsc::channel(WAITING_MAX);
    let (ended_sender, ended) = watch::channel(0);
    let alerts = store.alerts()?;
    let mut notes = Notes::restored(store.newest_notes(SHOWN_MAX)?);
    for note in std::mem::take(&mut restored.notes) {
        notes.push(note);
    }
    let board = Arc::new(Mutex::new(Board::with_notes(notes)));
    let agents = Arc::new(Agents::default());
    let (failed, core_ended) = oneshot::channel();
    let parts = Parts {
        clock,
        commands: receiver,
        board: board.clone(),
        agents: agents.clone(),
        access: access.clone(),
        ended: ended_sender,
        traces,
    };
    let shell = Shell::new(store, restored, parts);
    std::thread::Builder::new()
        .name("cluster".into())
        .spawn(move || {
            if let Err(error) = shell.run() {
                tracing::error!("{error}");
                // Nobody listens only when the daemon is ending anyway.
                let _ = failed.send(error);
            }
        })
        .map_err(|error| SchedulerError::file("starting the thread of", folder, &error))?;
    let sessions = Arc::new(AtomicU64::new(0));
    let core = Core { commands, clock, agents, access, board, ended, sessions };
    Ok(Started { core, ended: core_ended, alerts })
}

/// A thread that runs.
pub(crate) struct Started {
    pub(crate) core: Core,
    /// Tells when it had to end.
    pub(crate) ended: oneshot::Receiver<SchedulerError>,
    /// The alerts that an earlier scheduler had raised.
    pub(crate) alerts: Vec<Kept>,
}

/// What the journal gave.
pub(crate) struct Restored {
    pub(crate) cluster: Cluster,
    /// The time of the newest event.
    pub(crate) last: At,
    /// What the settings file says, where that is not what the cluster has.
    pub(crate) settings: Option<ClusterSettings>,
    /// Jobs that have ended since the snapshot: the history may lack them.
    pub(crate) over: Vec<JobRow>,
    /// Lines of the event log that the store lacks.
    pub(crate) notes: Vec<Note>,
}

/// Applies the journal.
pub(crate) fn restore(
    store: &mut Store,
    settings: ClusterSettings,
) -> Result<Restored, SchedulerError> {
    let begun = std::time::Instant::now();
    let state = RefCell::new((Cluster::new(settings.clone()), At(0)));
    let mut effects = Vec::new();
    let (mut over, mut notes) = (Vec::new(), Vec::new());
    let start = |at, cluster| *state.borrow_mut() = (cluster, at);
    let noted = store.noted();
    let replayed = store.replay(start, |block, at, event| {
        let (cluster, last) = &mut *state.borrow_mut();
        cluster.apply(at, event, &mut effects);
        *last = at.max(*last);
        for effect in effects.drain(..) {
            match effect {
                Effect::JobEnded(row) => over.push(*row),
                Effect::Note(note) if block > noted => notes.push(note),
                // What other effects asked for was done in an earlier life, or is made up for when
                // the nodes come back and say what they hold.
                _ => {}
            }
        }
    })?;
    let (cluster, last) = state.into_inner();
    cluster.check().map_err(SchedulerError::Journal)?;
    if let Some(cut) = &replayed.cut {
        tracing::error!("the journal's end was damaged: {cut}");
    }
    let (snapshot, events) = (replayed.snapshot, replayed.events);
    let took_ms = begun.elapsed().as_millis() as u64;
    tracing::info!(snapshot, events, took_ms, "journal applied");
    let settings = (*cluster.settings() != settings).then_some(settings);
    Ok(Restored { cluster, last, settings, over, notes })
}

impl Core {
    /// Tells the cluster what happened; waits only while too much is waiting.
    pub(crate) async fn tell(&self, event: Event) {
        // The thread is gone only when the daemon is ending.
        let _ = self.commands.send(Command::Event(event, None)).await;
    }

    /// Asks the cluster to change something; the answer comes once it is durable.
    pub(crate) async fn ask(&self, event: Event) -> Result<Answer, Reject> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Event(event, Some(reply))).await;
        sent.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }

    /// A page of ended jobs, newest first; and whether further ones exist.
    pub(crate) async fn history(&self, query: HistoryQuery) -> Result<(Vec<JobRow>, bool), Reject> {
        let (page, answer) = oneshot::channel();
        let sent = self.commands.send(Command::History { query, page }).await;
        sent.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }

    /// A report of use.
    pub(crate) async fn sum_use(
        &self,
        by: UseBy,
        from: At,
        until: At,
    ) -> Result<Vec<UseRow>, Reject> {
        let (report, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Use { by, from, until, report }).await;
        sent.map_err(|_| ending())?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }

    /// A number for a new session, greater than any before. It is taken when the caller is
    /// welcomed: an agent calls again only once it has given its call before up, and what that one
    /// still says must not be taken for newer.
    pub(crate) fn number(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives an agent's session its place. Returns the orders to it.
    pub(crate) async fn enter(
        &self,
        called: Called,
        facts: Box<NodeFacts>,
        holds: Vec<TryId>,
        connection: Connection,
    ) -> mpsc::Receiver<Order> {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let agent = Agent { called, orders, connection };
        // Where the thread is gone the orders end at once, and the session with them.
        let _ = self.commands.send(Command::Enter(facts, holds, agent)).await;
        receiver
    }

    /// Says that an agent's session has ended.
    pub(crate) async fn leave(&self, node: String, session: u64) {
        let _ = self.commands.send(Command::Leave { node, session }).await;
    }

    /// Says that an agent that was welcomed then is gone, and what outlives it.
    pub(crate) async fn gone(&self, node: String, welcomed: At, holds: Vec<TryId>) {
        let _ = self.commands.send(Command::Gone { node, welcomed, holds }).await;
    }

    /// Reads from the cluster as it is now.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Cluster) -> T + Send + 'static,
    ) -> Result<T, Reject> {
        let (done, result) = oneshot::channel();
        let command = Command::Read(Box::new(move |cluster| {
            // The reader may have left.
            let _ = done.send(read(cluster));
        }));
        self.commands.send(command).await.map_err(|_| ending())?;
        result.await.map_err(|_| ending())
    }

    /// A page of the event log.
    pub(crate) async fn notes(&self, query: NoteQuery) -> Result<NotePage, Reject> {
        let (page, result) = oneshot::channel();
        self.commands.send(Command::Notes { query, page }).await.map_err(|_| ending())?;
        result.await.map_err(|_| ending())?
    }

    /// Adds a line to the event log. Nothing is waited for.
    pub(crate) fn note(&self, level: Level, subject: Subject, sentence: String) {
        let note = Note { at: self.clock.now(), level, subject, sentence };
        self.board().notes.push(note);
        // Where too much is waiting the thread is awake, and keeps the line with what it does next.
        let _ = self.commands.try_send(Command::Noted);
    }

    /// Says how much of the event log is kept from now on.
    pub(crate) async fn retain(&self, retention: Retention) {
        let _ = self.commands.send(Command::Retain(retention)).await;
    }

    /// Keeps a token's hash.
    pub(crate) async fn add_token(
        &self,
        hash: String,
        principal: Principal,
        expires: At,
    ) -> Result<(), Reject> {
        self.done(|done| Command::AddToken { hash, principal, expires, done }).await
    }

    /// Uses a token up.
    pub(crate) async fn redeem(&self, hash: String, principal: Principal) -> Result<(), Reject> {
        self.done(|done| Command::Redeem { hash, principal, done }).await
    }

    /// Copies the journal, as it is now, into a file.
    pub(crate) async fn copy(&self, to: PathBuf) -> Result<JournalCopy, Reject> {
        let (done, copied) = oneshot::channel();
        self.commands.send(Command::Copy { to, done }).await.map_err(|_| ending())?;
        copied.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Changes who has access; the answer, whom it was about, comes once that is durable and holds.
    pub(crate) async fn change_access(
        &self,
        by: String,
        change: Change,
    ) -> Result<Principal, Reject> {
        let (done, changed) = oneshot::channel();
        let command = Command::Access { by, change, done };
        self.commands.send(command).await.map_err(|_| ending())?;
        changed.await.unwrap_or_else(|_| Err(ending()))
    }

    async fn done(&self, command: impl FnOnce(Done) -> Command) -> Result<(), Reject> {
        let (done, result) = oneshot::channel();
        self.commands.send(command(done)).await.map_err(|_| ending())?;
        result.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Changes whenever a job has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.clone()
    }

    /// What only screens need.
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread once it has done what is waiting, and the journal is closed.
    pub(crate) async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
        self.commands.closed().await;
    }
}

fn ending() -> Reject {
    Reject::new(RejectKind::Busy, "the scheduler is ending; ask again once it is back")
}
