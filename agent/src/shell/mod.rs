//! The shell around the node machine: the one place where the agent acts.
//!
//! Everything that happens comes through one bounded channel. What is waiting is taken together,
//! applied to the machine, and its effects are carried out in order; what is to be told waits until
//! the ends among it are synced in the spool, once for all of them. The disk is waited for beside the
//! loop, which goes on to start what comes next meanwhile. What nobody waits for, starts and
//! ends whose lease was handed on, waits a moment for more to go with it, as each message makes the
//! cluster sync its journal. The connection ([`crate::session`]), the supervisor
//! ([`crate::supervise`]) and the workers ([`crate::worker`]) only bring events and take orders.

mod tries;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gantry_model::health::Finding;
use gantry_model::{At, JobId, Machine, NodeFacts, Order, Reject, Report, TaskId, TryId};
use gantry_node::{Effect, End, Event, Node};
use gantry_telemetry::Sample;
use gantry_wire::{AgentMessage, Found, Output};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::now;
use crate::error::AgentError;
use crate::leave::Leave;
use crate::output::{Hearing, Outputs, Tail};
use crate::probe::GpuList;
use crate::self_test::SelfTest;
use crate::spool::Spool;
use crate::supervise::client::{Plan, Supervisor};
use crate::supervise::protocol::FromSupervisor;
use crate::worker::pool::{Ended, Pool, Said};

/// Between two looks at the output files for metrics.
const LOOK_EACH: Duration = Duration::from_millis(500);
/// Inputs that are taken together: their ends share one sync of the spool.
const BATCH_MAX: usize = 256;
/// Starts that come sooner than this after something was told wait for so long at most.
const STARTS_WAIT: Duration = Duration::from_millis(2);
/// The same for ends whose lease was handed on: a tenth of the time that waits on a node by default.
const ENDS_WAIT: Duration = Duration::from_millis(10);
/// Messages that wait for more to go with them.
const PATIENT_MAX: usize = 256;
/// Messages with what tasks have said that wait for a connection.
const UNHEARD_MAX: usize = 1024;

/// What comes to the shell.
pub(crate) enum Input {
    /// The scheduler has welcomed a session; what the node is and holds goes into its outbox first.
    Connected { session: u64, welcomed: At, outbox: mpsc::Sender<AgentMessage> },
    /// A session has ended.
    Disconnected { session: u64 },
    /// An order on a session.
    Order { session: u64, order: Order },
    /// The supervisor said something.
    Supervisor(Vec<FromSupervisor>),
    /// The supervisor is dead.
    SupervisorGone,
    /// A worker said something.
    Worker(u64, Vec<Said>),
    /// What was written to the spool is on the disk.
    Synced(Result<(), AgentError>),
    /// A test has ended.
    Tested { number: u64, wrong: Option<String> },
    /// Something is wrong with the node, or not any more.
    Found(Finding),
    /// The GPUs are others than they were.
    Gpus(GpuList),
    /// Somebody asks for output.
    Output { task: TaskId, offset: u64, reply: oneshot::Sender<Result<Output, Reject>> },
    /// Somebody searches output.
    Search { job: JobId, text: String, reply: oneshot::Sender<Result<(Vec<Found>, bool), Reject>> },
}

/// What was found within this time is told again on a new connection: it may have been lost with the
/// one before.
const FOUND_AGAIN: Duration = Duration::from_mins(1);
/// Findings that are kept for that.
const FOUND_MAX: usize = 64;

/// What carries out a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    /// A command of the supervisor's.
    Command,
    /// A built-in operation as a process of the supervisor's.
    Operation,
    /// A warm worker.
    Worker,
}

/// What is known of a live try beside the machine.
struct Running {
    task: TaskId,
    carrier: Carrier,
    tail: Tail,
    hearing: Hearing,
    /// The folder that was made for its checkpoints.
    checkpoint: Option<PathBuf>,
    /// It was ended because it wrote too much.
    over: bool,
}

/// What a shell is made of.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) spool: Spool,
    pub(crate) pool: Pool,
    pub(crate) plan: Plan,
    pub(crate) facts: NodeFacts,
    pub(crate) leave: Leave,
    /// How long outputs stay; for good where zero.
    pub(crate) output_age: Duration,
    pub(crate) tasks: Arc<AtomicU32>,
    pub(crate) gpu_test: Vec<String>,
    pub(crate) samples: watch::Receiver<Sample>,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// The shell.
pub(crate) struct Shell {
    parts: Parts,
    outputs: Outputs,
    supervisor: Option<Supervisor>,
    running: BTreeMap<TryId, Running>,
    session: Option<(u64, mpsc::Sender<AgentMessage>)>,
    /// The scheduler's clock when it welcomed us the last time.
    welcomed: Option<At>,
    wake: Option<At>,
    /// What is told once the spool is synced.
    outgoing: Vec<AgentMessage>,
    /// When something was told the last time.
    told: Instant,
    /// Ends that the supervisor may forget once the spool is synced.
    kept: Vec<TryId>,
    /// What waits for the disk.
    syncing: Option<Syncing>,
    /// What was found lately, for a connection that was lost while it was told.
    found: VecDeque<(Instant, Finding)>,
}

/// What waits for the disk: messages, and ends that the supervisor may forget then.
struct Syncing {
    outgoing: Vec<AgentMessage>,
    kept: Vec<TryId>,
}

impl Shell {
    /// A shell that takes over what the spool and the supervisor hold.
    pub(crate) fn new(mut parts: Parts, spooled: Vec<End>) -> Result<Self, AgentError> {
        let (supervisor, held) = Supervisor::open(&parts.plan, &parts.inputs)?;
        let live = held.iter().map(|held| (held.launch.clone(), held.since)).collect();
        let told: BTreeSet<TryId> = spooled.iter().map(|end| end.try_id).collect();
        parts.node.apply(now(), Event::Restored { spool: spooled, live }, &mut Vec::new());
        let outputs = Outputs::new(parts.plan.places.output.clone());
        let mut shell = Self {
            parts,
            outputs,
            supervisor: Some(supervisor),
            running: BTreeMap::new(),
            session: None,
            welcomed: None,
            wake: None,
            outgoing: Vec::new(),
            told: Instant::now(),
            kept: Vec::new(),
            syncing: None,
            found: VecDeque::new(),
        };
        if !held.is_empty() {
            tracing::info!(tries = held.len(), "taking over what an earlier agent has left");
        }
        for one in held {
            shell.adopt(one, &told)?;
        }
        // Time limits went on meanwhile.
        shell.apply(Event::Tick)?;
        shell.settle()?;
        Ok(shell)
    }

    /// Runs until `inputs` closes, the node leaves or the spool fails.
    pub(crate) async fn run(
        &mut self,
        mut inputs: mpsc::Receiver<Input>,
    ) -> Result<(), AgentError> {
        let mut look = tokio::time::interval(LOOK_EACH);
        let mut age = tokio::time::interval(tries::age_each(self.parts.output_age));
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let wait = self.wait();
            tokio::select! {
                count = inputs.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    for input in batch.drain(..) {
                        self.take(input)?;
                    }
                }
                _ = look.tick() => {
                    self.look_at_output();
                    self.sync_output();
                    self.parts.pool.spread();
                    // Acknowledged ends, for which nobody waits.
                    self.parts.spool.write()?;
                    if self.parts.leave.is_now(self.parts.node.holds().is_empty()) {
                        return Ok(());
                    }
                }
                _ = age.tick() => self.remove_old(),
                () = tokio::time::sleep(wait) => {
                    self.wake = None;
                    self.apply(Event::Tick)?;
                }
            }
            self.settle()?;
        }
    }

    /// How long the shell may sleep.
    fn wait(&self) -> Duration {
        let wake = self
            .wake
            .map_or(Duration::from_hours(1), |at| Duration::from_millis(at.since(now()).0));
        wake.min(self.patience().unwrap_or(wake))
    }

    /// How much longer what is to be told may wait for more to go with it; nothing where somebody
    /// waits for it.
    fn patience(&self) -> Option<Duration> {
        if self.session.is_none() || self.outgoing.len() >= PATIENT_MAX {
            return None;
        }
        let each = self.outgoing.iter().map(|message| match message {
            AgentMessage::Report(Report::Started { .. }) => STARTS_WAIT,
            AgentMessage::Report(Report::Ended { heir: Some(_), .. }) => ENDS_WAIT,
            _ => Duration::ZERO,
        });
        let left = each.min()?.checked_sub(self.told.elapsed())?;
        (!left.is_zero()).then_some(left)
    }

    fn take(&mut self, input: Input) -> Result<(), AgentError> {
        match input {
            Input::Connected { session, welcomed, outbox } => {
                self.connected(session, welcomed, outbox)?;
            }
            Input::Disconnected { session } if self.is_current(session) => {
                self.session = None;
                self.apply(Event::Disconnected)?;
            }
            // An order of an earlier session was given before the cluster heard what is held.
            Input::Order { session, order } if self.is_current(session) => {
                self.apply(Event::Order(order))?;
            }
            Input::Supervisor(said) => {
                for one in said {
                    self.hear(one)?;
                }
            }
            Input::Disconnected { .. } | Input::Order { .. } => {}
            Input::SupervisorGone => self.supervisor_gone()?,
            Input::Worker(id, said) => {
                for one in said {
                    let (ended, started) = self.parts.pool.hear(id, one);
                    for Ended { try_id, exit, usage, last } in ended {
                        self.ended_saying(try_id, exit, usage, &last)?;
                    }
                    self.started(started)?;
                }
            }
            Input::Synced(result) => {
                result?;
                self.synced();
            }
            Input::Tested { number, wrong } => {
                self.outgoing.push(AgentMessage::Tested { number, wrong });
            }
            Input::Found(finding) => self.found(finding),
            Input::Gpus(found) => self.gpus(found),
            Input::Output { task, offset, reply } => {
                let live = self.running.values().any(|running| running.task == task);
                let outputs = self.outputs.clone();
                // Whoever asked may have left; the same holds for the search.
                tokio::task::spawn_blocking(move || {
                    reply.send(outputs.piece(task, offset, live)).is_ok()
                });
            }
            Input::Search { job, text, reply } => {
                let outputs = self.outputs.clone();
                tokio::task::spawn_blocking(move || reply.send(outputs.search(job, &text)).is_ok());
            }
        }
        Ok(())
    }

    fn hear(&mut self, said: FromSupervisor) -> Result<(), AgentError> {
        match said {
            FromSupervisor::Started { try_id } => self.apply(Event::Started { try_id }),
            FromSupervisor::Ended { try_id, exit, usage } => self.ended(try_id, exit, usage),
            // Said only before the shell is there.
            FromSupervisor::Held(_) | FromSupervisor::Ready => Ok(()),
        }
    }

    fn is_current(&self, session: u64) -> bool {
        self.session.as_ref().is_some_and(|(current, _)| *current == session)
    }

    fn connected(
        &mut self,
        session: u64,
        welcomed: At,
        outbox: mpsc::Sender<AgentMessage>,
    ) -> Result<(), AgentError> {
        self.welcomed = Some(welcomed);
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.welcomed(&self.parts.plan, welcomed);
        }
        let up = AgentMessage::Up {
            facts: Box::new(self.parts.facts.clone()),
            holds: self.parts.node.holds(),
        };
        if outbox.try_send(up).is_ok() {
            self.session = Some((session, outbox));
            // What an earlier connection was to hear is told again, as of now.
            let reports = |message: &AgentMessage| matches!(message, AgentMessage::Report(_));
            self.outgoing.retain(|message| !reports(message));
            if let Some(syncing) = &mut self.syncing {
                syncing.outgoing.retain(|message| !reports(message));
            }
            let lately = self.found.iter().filter(|(at, _)| at.elapsed() < FOUND_AGAIN);
            self.outgoing.extend(self.parts.leave.message());
            self.outgoing.extend(lately.map(|(_, finding)| AgentMessage::Found(finding.clone())));
            self.apply(Event::Connected)?;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), AgentError> {
        let mut effects = Vec::new();
        self.parts.node.apply(now(), event, &mut effects);
        for effect in effects {
            self.carry_out(effect)?;
        }
        self.parts.tasks.store(self.parts.node.live() as u32, Ordering::Relaxed);
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), AgentError> {
        match effect {
            Effect::Start(launch) => self.start(*launch)?,
            Effect::Signal { try_id, signal } => self.signal(try_id, signal)?,
            Effect::Spool(end) => {
                self.kept.push(end.try_id);
                self.parts.spool.keep(end)?;
            }
            Effect::Test { number, gpu } => self.test(number, gpu),
            Effect::Unspool { try_id } => self.parts.spool.forget(try_id)?,
            Effect::Send(report) => self.outgoing.push(AgentMessage::Report(report)),
            Effect::Wake(at) => self.wake = Some(at),
        }
        Ok(())
    }

    /// Tells what was found.
    fn found(&mut self, finding: Finding) {
        if self.session.is_some() {
            self.outgoing.push(AgentMessage::Found(finding.clone()));
        }
        self.found.push_back((Instant::now(), finding));
        if self.found.len() > FOUND_MAX {
            self.found.pop_front();
        }
    }

    /// The GPUs are others: the scheduler hears of it with the next greeting.
    fn gpus(&mut self, found: GpuList) {
        let facts = &mut self.parts.facts;
        (facts.gpus, facts.gpu_reason) = match found {
            Ok(gpus) => (gpus, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        facts.resources.gpus = facts.gpus.len() as u32;
        self.session = None;
        self.parts.node.apply(now(), Event::Disconnected, &mut Vec::new());
    }

    /// Tests the node, or a GPU of it, beside everything else.
    fn test(&self, number: u64, gpu: Option<String>) {
        let place = |uuid: &String| self.parts.facts.gpus.iter().position(|gpu| gpu.uuid == *uuid);
        let test = match gpu {
            None => Ok(None),
            Some(uuid) => match place(&uuid) {
                Some(place) => Ok(Some((place, uuid))),
                None => Err("the node has no such GPU any more".to_owned()),
            },
        };
        let inputs = self.parts.inputs.clone();
        let (command, samples) = (self.parts.gpu_test.clone(), self.parts.samples.clone());
        let folder = self.parts.plan.places.work.clone();
        tokio::task::spawn_blocking(move || {
            let wrong = match test {
                Ok(gpu) => SelfTest { gpu, command, folder, samples }.run(),
                Err(wrong) => Some(wrong),
            };
            // The shell is gone only when the agent is ending.
            inputs.blocking_send(Input::Tested { number, wrong }).is_ok()
        });
    }

    /// Sends what was taken to the supervisor and the workers, syncs its ends, then tells.
    fn settle(&mut self) -> Result<(), AgentError> {
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.send();
        }
        self.parts.pool.send();
        if let Err(error) = self.outputs.write() {
            tracing::warn!("the last lines of built-in operations are lost: {error}");
        }
        if self.syncing.is_some() || self.patience().is_some() {
            return Ok(());
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        if self.kept.is_empty() {
            self.tell_scheduler(outgoing);
            return Ok(());
        }
        let unsynced = self.parts.spool.begin_sync()?;
        self.syncing = Some(Syncing { outgoing, kept: std::mem::take(&mut self.kept) });
        let inputs = self.parts.inputs.clone();
        // The shell is gone only when the agent is ending: the supervisor has those ends still.
        tokio::task::spawn_blocking(move || {
            inputs.blocking_send(Input::Synced(unsynced.sync())).is_ok()
        });
        Ok(())
    }

    /// The disk has what was waited for.
    fn synced(&mut self) {
        let Some(Syncing { outgoing, kept }) = self.syncing.take() else { return };
        for try_id in kept {
            if let Some(supervisor) = &mut self.supervisor {
                // Sent with what comes next, as nobody waits for it.
                supervisor.kept(try_id);
            }
        }
        self.tell_scheduler(outgoing);
    }

    /// Tells what is durable. Without a connection reports are left out, as they are told again on the
    /// next; what tasks have said waits for it.
    fn tell_scheduler(&mut self, mut outgoing: Vec<AgentMessage>) {
        if self.session.is_none() {
            outgoing.retain(|message| !matches!(message, AgentMessage::Report(_)));
            outgoing.append(&mut self.outgoing);
            outgoing.truncate(UNHEARD_MAX);
            self.outgoing = outgoing;
            return;
        }
        if !outgoing.is_empty() {
            self.told = Instant::now();
        }
        for message in without_told(outgoing) {
            self.send(message);
        }
    }

    /// Puts a message into the outbox. Where that is full the session is stuck: it is left, and
    /// what must not be lost is told again on the next.
    fn send(&mut self, message: AgentMessage) {
        let Some((_, outbox)) = &self.session else { return };
        let Err(error) = outbox.try_send(message) else { return };
        if matches!(error, mpsc::error::TrySendError::Full(_)) {
            tracing::warn!("the scheduler does not read; connecting again");
        }
        self.session = None;
        // Being disconnected has no effect but to say less.
        self.parts.node.apply(now(), Event::Disconnected, &mut Vec::new());
    }
}

/// Leaves out starts whose end stands in the same messages, which says both.
fn without_told(mut messages: Vec<AgentMessage>) -> Vec<AgentMessage> {
    let end = |message: &AgentMessage| match message {
        AgentMessage::Report(Report::Ended { try_id, .. }) => Some(*try_id),
        _ => None,
    };
    let ended: BTreeSet<TryId> = messages.iter().filter_map(end).collect();
    messages.retain(|message| {
        !matches!(message, AgentMessage::Report(Report::Started { try_id }) if ended.contains(try_id))
    });
    messages
}
