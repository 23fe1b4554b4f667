//! The thread that owns the cluster machine and the journal.
//!
//! Everything that changes the cluster comes through one bounded channel. The thread takes what is
//! waiting, up to [`BATCH_MAX`], appends the events with one sync, applies them, carries out their
//! effects, and then answers what only reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use gantry_cluster::{Answer, Cluster, ClusterSettings, Effect, Event};
use gantry_config::SchedulerSettings;
use gantry_model::{At, Machine, Reject, RejectKind};
use tokio::sync::{mpsc, oneshot, watch};

use crate::agents::Agents;
use crate::board::Board;
use crate::error::SchedulerError;
use crate::store::Store;

/// Commands that wait; beyond that a caller waits, which slows its own connection only.
const WAITING_MAX: usize = 4096;
/// Events that one sync covers: at 5,000 syncs a second the delay stays below a millisecond.
const BATCH_MAX: usize = 512;

type Replied = oneshot::Sender<Result<Answer, Reject>>;
type Read = Box<dyn FnOnce(&Cluster) + Send>;

enum Command {
    Event(Event, Option<Replied>),
    Read(Read),
    AddToken { hash: String, node: String, expires: At, done: oneshot::Sender<Result<(), Reject>> },
    Redeem { hash: String, node: String, done: oneshot::Sender<Result<(), Reject>> },
    Stop,
}

/// The way to the cluster, for sessions. Clones share it.
#[derive(Clone)]
pub(crate) struct Core {
    commands: mpsc::Sender<Command>,
    /// What only screens need.
    pub(crate) board: Arc<Mutex<Board>>,
    /// The connected agents.
    pub(crate) agents: Arc<Agents>,
    ended: watch::Receiver<u64>,
}

/// The scheduler's clock.
pub(crate) fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

/// Opens the journal, applies it, and starts the thread. The receiver tells when it had to end.
pub(crate) fn start(
    folder: &Path,
    settings: &SchedulerSettings,
) -> Result<(Core, oneshot::Receiver<SchedulerError>), SchedulerError> {
    let store = Store::open(folder)?;
    let mut cluster = Cluster::new(ClusterSettings { node_timeout: settings.node_timeout });
    let mut effects = Vec::new();
    let mut last = At(0);
    let count = store.replay(|at, event| {
        cluster.apply(at, event, &mut effects);
        // What the effects asked for was done in an earlier life, or is made up for when the
        // nodes come back and say what they hold.
        effects.clear();
        last = last.max(at);
    })?;
    cluster.check().map_err(SchedulerError::Journal)?;
    tracing::info!(events = count, "journal applied");
    let (commands, receiver) = mpsc::channel(WAITING_MAX);
    let (ended_sender, ended) = watch::channel(0);
    let board = Arc::new(Mutex::new(Board::default()));
    let agents = Arc::new(Agents::default());
    let (failed, core_ended) = oneshot::channel();
    let mut shell = Shell {
        store,
        cluster,
        last,
        wake: None,
        replies: BTreeMap::new(),
        requests: 0,
        board: board.clone(),
        agents: agents.clone(),
        ended: ended_sender,
    };
    std::thread::Builder::new()
        .name("cluster".into())
        .spawn(move || {
            if let Err(error) = shell.run(receiver) {
                tracing::error!("{error}");
                // Nobody listens only when the daemon is ending anyway.
                let _ = failed.send(error);
            }
        })
        .map_err(|error| SchedulerError::file("starting the thread of", folder, &error))?;
    Ok((Core { commands, board, agents, ended }, core_ended))
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

    /// Keeps a token's hash.
    pub(crate) async fn add_token(
        &self,
        hash: String,
        node: String,
        expires: At,
    ) -> Result<(), Reject> {
        let (done, result) = oneshot::channel();
        let command = Command::AddToken { hash, node, expires, done };
        self.commands.send(command).await.map_err(|_| ending())?;
        result.await.unwrap_or_else(|_| Err(ending()))
    }

    /// Uses a token up.
    pub(crate) async fn redeem(&self, hash: String, node: String) -> Result<(), Reject> {
        let (done, result) = oneshot::channel();
        self.commands.send(Command::Redeem { hash, node, done }).await.map_err(|_| ending())?;
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

    /// Ends the thread once it has done what is waiting.
    pub(crate) async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
        self.commands.closed().await;
    }
}

fn ending() -> Reject {
    Reject::new(RejectKind::Busy, "the scheduler is ending; ask again once it is back")
}

fn full() -> Reject {
    Reject::new(RejectKind::Busy, SchedulerError::Full.to_string())
}

struct Shell {
    store: Store,
    cluster: Cluster,
    /// Time never goes back in the journal, whatever the host's clock does.
    last: At,
    wake: Option<At>,
    replies: BTreeMap<u64, Replied>,
    requests: u64,
    board: Arc<Mutex<Board>>,
    agents: Arc<Agents>,
    ended: watch::Sender<u64>,
}

impl Shell {
    fn run(&mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), SchedulerError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| SchedulerError::Journal(error.to_string()))?;
        // Nobody has been heard in this life yet.
        let up = self.cluster.up_nodes();
        self.batch(up.into_iter().map(|node| (Event::NodeDown { node }, None)).collect())?;
        loop {
            let first = runtime.block_on(async {
                let wait = self
                    .wake
                    .map_or(Duration::from_hours(1), |at| Duration::from_millis(at.since(now()).0));
                tokio::time::timeout(wait, commands.recv()).await
            });
            let mut events = Vec::new();
            let mut reads = Vec::new();
            let mut stop = false;
            match first {
                Ok(Some(command)) => stop |= self.sort(command, &mut events, &mut reads)?,
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
            while events.len() < BATCH_MAX && reads.len() < BATCH_MAX {
                let Ok(command) = commands.try_recv() else { break };
                stop |= self.sort(command, &mut events, &mut reads)?;
            }
            if self.wake.is_some_and(|at| at <= now()) {
                self.wake = None;
                events.push((Event::Tick, None));
            }
            self.batch(events)?;
            for read in reads {
                read(&self.cluster);
            }
            if stop {
                return Ok(());
            }
        }
    }

    /// Puts a command where it belongs; says whether it asks to stop.
    fn sort(
        &mut self,
        command: Command,
        events: &mut Vec<(Event, Option<Replied>)>,
        reads: &mut Vec<Read>,
    ) -> Result<bool, SchedulerError> {
        match command {
            Command::Event(event, reply) => events.push((event, reply)),
            Command::Read(read) => reads.push(read),
            Command::AddToken { hash, node, expires, done } => {
                let result = self.store.add_token(&hash, &node, now(), expires);
                let _ = done.send(refusable(result.map(Ok))?);
            }
            Command::Redeem { hash, node, done } => {
                let result = self.store.redeem(&hash, &node, now());
                let _ = done.send(refusable(result)?);
            }
            Command::Stop => return Ok(true),
        }
        Ok(false)
    }

    fn batch(&mut self, events: Vec<(Event, Option<Replied>)>) -> Result<(), SchedulerError> {
        if events.is_empty() {
            return Ok(());
        }
        self.last = self.last.max(now());
        let at = self.last;
        let mut numbered = Vec::with_capacity(events.len());
        for (mut event, reply) in events {
            if let Some(reply) = reply {
                self.requests += 1;
                if let Event::Submit { request, .. } | Event::Cancel { request, .. } = &mut event {
                    *request = self.requests;
                }
                self.replies.insert(self.requests, reply);
            }
            numbered.push((at, event));
        }
        match self.store.append(&numbered) {
            Ok(()) => {}
            Err(SchedulerError::Full) => {
                // Nothing was written and nothing is acknowledged. Agents repeat what they said
                // when they come back.
                tracing::error!("{}", SchedulerError::Full);
                for (_, reply) in std::mem::take(&mut self.replies) {
                    let _ = reply.send(Err(full()));
                }
                self.agents.close_all("the journal's disk is full");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let mut effects = Vec::new();
        for (at, event) in numbered {
            self.cluster.apply(at, event, &mut effects);
        }
        self.carry_out(effects);
        Ok(())
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut ended = false;
        for effect in effects {
            match effect {
                Effect::Reply { request, answer } => {
                    if let Some(reply) = self.replies.remove(&request) {
                        let _ = reply.send(answer);
                    }
                }
                Effect::Order { node, order } => self.agents.order(&node, order),
                Effect::Note(note) => {
                    self.board.lock().unwrap_or_else(PoisonError::into_inner).note(note);
                }
                Effect::Wake(at) => self.wake = Some(at),
                Effect::JobEnded(_) => ended = true,
            }
        }
        if ended {
            self.ended.send_modify(|count| *count += 1);
        }
    }
}

/// Separates what a caller is told from what ends the scheduler.
fn refusable(
    result: Result<Result<(), Reject>, SchedulerError>,
) -> Result<Result<(), Reject>, SchedulerError> {
    match result {
        Ok(answer) => Ok(answer),
        Err(SchedulerError::Refused(reject)) => Ok(Err(reject)),
        Err(SchedulerError::Full) => Ok(Err(full())),
        Err(error) => Err(error),
    }
}
