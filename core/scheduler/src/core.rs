//! The way to the cluster, for sessions: one bounded channel to the thread that owns it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_cluster::{Answer, Cluster, ClusterSettings, Event};
use gantry_config::SchedulerSettings;
use gantry_link::Connection;
use gantry_model::{At, Machine, NodeFacts, Order, Reject, RejectKind, TryId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::agents::{Agent, Agents, ORDERS_MAX};
use crate::board::Board;
use crate::clock::Clock;
use crate::error::SchedulerError;
use crate::shell::Shell;
use crate::store::Store;

/// Commands that wait; beyond that a caller waits, which slows its own connection only.
const WAITING_MAX: usize = 4096;

pub(crate) type Replied = oneshot::Sender<Result<Answer, Reject>>;
pub(crate) type Read = Box<dyn FnOnce(&Cluster) + Send>;
pub(crate) type Done = oneshot::Sender<Result<(), Reject>>;

/// What the thread is asked to do.
pub(crate) enum Command {
    /// Something happened; somebody may wait for the answer.
    Event(Event, Option<Replied>),
    /// An agent has connected and said what it is and holds.
    Enter(NodeFacts, Vec<TryId>, Agent),
    /// A session has ended.
    Leave { node: String, session: u64 },
    /// Look at the cluster.
    Read(Read),
    /// Keep the hash of a new token.
    AddToken { hash: String, node: String, expires: At, done: Done },
    /// Use a token up.
    Redeem { hash: String, node: String, done: Done },
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
    board: Arc<Mutex<Board>>,
    ended: watch::Receiver<u64>,
    sessions: Arc<AtomicU64>,
}

/// Opens the journal, applies it, and starts the thread. The receiver tells when it had to end.
pub(crate) fn start(
    folder: &Path,
    settings: &SchedulerSettings,
) -> Result<(Core, oneshot::Receiver<SchedulerError>), SchedulerError> {
    let mut store = Store::open(folder)?;
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
    let clock = Clock::new(last);
    let (commands, receiver) = mpsc::channel(WAITING_MAX);
    let (ended_sender, ended) = watch::channel(0);
    let board = Arc::new(Mutex::new(Board::default()));
    let agents = Arc::new(Agents::default());
    let (failed, core_ended) = oneshot::channel();
    let shell =
        Shell::new(store, cluster, clock, receiver, board.clone(), agents.clone(), ended_sender);
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
    Ok((Core { commands, clock, agents, board, ended, sessions }, core_ended))
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

    /// Gives an agent's session its place. Returns its number, and the orders to it.
    pub(crate) async fn enter(
        &self,
        facts: NodeFacts,
        holds: Vec<TryId>,
        connection: Connection,
    ) -> (u64, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let agent = Agent { session, orders, connection };
        // Where the thread is gone the orders end at once, and the session with them.
        let _ = self.commands.send(Command::Enter(facts, holds, agent)).await;
        (session, receiver)
    }

    /// Says that an agent's session has ended.
    pub(crate) async fn leave(&self, node: String, session: u64) {
        let _ = self.commands.send(Command::Leave { node, session }).await;
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
        self.done(|done| Command::AddToken { hash, node, expires, done }).await
    }

    /// Uses a token up.
    pub(crate) async fn redeem(&self, hash: String, node: String) -> Result<(), Reject> {
        self.done(|done| Command::Redeem { hash, node, done }).await
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
