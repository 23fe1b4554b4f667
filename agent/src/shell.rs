//! The shell around the node machine: the one place where the agent acts.
//!
//! Everything that happens comes through one bounded channel, is applied to the machine, and its
//! effects are carried out in order: an end is in the spool before it is told. The connection
//! ([`crate::session`]), the processes ([`crate::runner`]) and the workers ([`crate::worker`]) only
//! bring events and take orders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use gantry_model::{At, Exit, Launch, Machine, NodeFacts, Order, TaskId, TaskWork, TryId};
use gantry_node::{Effect, Event, Node, Signal};
use gantry_wire::{AgentMessage, Output};
use rustix::process::{Pid, kill_process_group};
use tokio::sync::{mpsc, oneshot};

use crate::error::AgentError;
use crate::output::{self, Tail};
use crate::runner::{self, Places};
use crate::spool::Spool;
use crate::worker::pool::{Pool, Said};

/// Between two looks at the output files for metrics.
const LOOK_EACH: Duration = Duration::from_millis(500);

/// Points of one message: with names of the greatest length it stays below 64 KiB.
const POINTS_MAX: usize = 500;

/// What comes to the shell.
pub(crate) enum Input {
    /// The scheduler has welcomed a session; what the node is and holds goes into its outbox first.
    Connected { session: u64, outbox: mpsc::Sender<AgentMessage> },
    /// A session has ended.
    Disconnected { session: u64 },
    /// An order on a session.
    Order { session: u64, order: Order },
    /// A command's process has ended.
    Exited(TryId, Exit),
    /// A worker said something.
    Worker(u64, Said),
    /// Somebody asks for output.
    Output {
        task: TaskId,
        offset: u64,
        reply: oneshot::Sender<Result<Output, gantry_model::Reject>>,
    },
}

/// What is known of a live try beside the machine.
struct Running {
    task: TaskId,
    group: Option<Pid>,
    tail: Tail,
    /// It was ended because it wrote too much.
    over: bool,
}

/// The shell.
pub(crate) struct Shell {
    pub(crate) node: Node,
    pub(crate) spool: Spool,
    pub(crate) pool: Pool,
    pub(crate) places: Places,
    pub(crate) facts: NodeFacts,
    pub(crate) tasks: Arc<AtomicU32>,
    pub(crate) inputs: mpsc::Sender<Input>,
    running: BTreeMap<TryId, Running>,
    session: Option<(u64, mpsc::Sender<AgentMessage>)>,
    wake: Option<At>,
}

fn now() -> At {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    At(since.as_millis() as u64)
}

impl Shell {
    /// A shell that runs nothing yet.
    pub(crate) fn new(
        node: Node,
        spool: Spool,
        pool: Pool,
        places: Places,
        facts: NodeFacts,
        tasks: Arc<AtomicU32>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        Self {
            node,
            spool,
            pool,
            places,
            facts,
            tasks,
            inputs,
            running: BTreeMap::new(),
            session: None,
            wake: None,
        }
    }

    /// Runs until `inputs` closes or the spool fails.
    pub(crate) async fn run(
        &mut self,
        mut inputs: mpsc::Receiver<Input>,
    ) -> Result<(), AgentError> {
        let mut look = tokio::time::interval(LOOK_EACH);
        loop {
            let wait = self
                .wake
                .map_or(Duration::from_hours(1), |at| Duration::from_millis(at.since(now()).0));
            tokio::select! {
                input = inputs.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    self.take(input)?;
                }
                _ = look.tick() => self.look_at_output(),
                () = tokio::time::sleep(wait) => {
                    self.wake = None;
                    self.apply(Event::Tick)?;
                }
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<(), AgentError> {
        match input {
            Input::Connected { session, outbox } => {
                let up = AgentMessage::Up { facts: self.facts.clone(), holds: self.node.holds() };
                if outbox.try_send(up).is_ok() {
                    self.session = Some((session, outbox));
                    self.apply(Event::Connected)?;
                }
            }
            Input::Disconnected { session } => {
                if self.session.as_ref().is_some_and(|(current, _)| *current == session) {
                    self.session = None;
                    self.apply(Event::Disconnected)?;
                }
            }
            Input::Order { session, order } => {
                // An order of an earlier session was given before the cluster heard what is held.
                if self.session.as_ref().is_some_and(|(current, _)| *current == session) {
                    self.apply(Event::Order(order))?;
                }
            }
            Input::Exited(try_id, exit) => self.ended(try_id, exit)?,
            Input::Worker(id, said) => {
                let (ended, started) = self.pool.hear(id, said);
                if let Some((try_id, exit)) = ended {
                    self.ended(try_id, exit)?;
                }
                self.started(started)?;
            }
            Input::Output { task, offset, reply } => {
                let live = self.running.values().any(|running| running.task == task);
                // Whoever asked may have left.
                let _ = reply.send(output::piece(&self.places.output, task, offset, live));
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), AgentError> {
        let mut effects = Vec::new();
        self.node.apply(now(), event, &mut effects);
        for effect in effects {
            self.carry_out(effect)?;
        }
        self.tasks.store(self.node.live() as u32, Ordering::Relaxed);
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), AgentError> {
        match effect {
            Effect::Start(launch) => self.start(&launch)?,
            Effect::Signal { try_id, signal } => self.signal(try_id, signal)?,
            Effect::Spool { try_id, exit } => self.spool.keep(try_id, &exit)?,
            Effect::Unspool { try_id } => self.spool.forget(try_id),
            Effect::Send(report) => self.send(AgentMessage::Report(report)),
            Effect::Wake(at) => self.wake = Some(at),
        }
        Ok(())
    }

    fn start(&mut self, launch: &Launch) -> Result<(), AgentError> {
        let (try_id, task) = (launch.try_id, launch.task);
        let tail = Tail::new(&self.places.output, task);
        self.running.insert(try_id, Running { task, group: None, tail, over: false });
        match &launch.work {
            TaskWork::Builtin(builtin) => {
                if let Err(error) = output::open(&self.places.output, task) {
                    let sentence = format!("the output file cannot be written: {error}");
                    return self.ended(try_id, Exit::NotStarted { code: 126, sentence });
                }
                let path = output::path(&self.places.output, task);
                let started = self.pool.submit(try_id, task, builtin.clone(), path);
                self.started(started)
            }
            TaskWork::Command { arguments, folder } => {
                let started = runner::start(
                    launch,
                    arguments,
                    folder.as_deref(),
                    &self.places,
                    &self.facts.gpus,
                );
                match started {
                    Ok(process) => {
                        if let Some(running) = self.running.get_mut(&try_id) {
                            running.group = Some(process.group);
                        }
                        let inputs = self.inputs.clone();
                        tokio::spawn(async move {
                            let exit = process.wait().await;
                            // The shell is gone only when the agent ends.
                            let _ = inputs.send(Input::Exited(try_id, exit)).await;
                        });
                        self.apply(Event::Started { try_id })
                    }
                    Err(exit) => self.ended(try_id, exit),
                }
            }
        }
    }

    fn started(&mut self, started: Vec<(TryId, Result<(), Exit>)>) -> Result<(), AgentError> {
        for (try_id, result) in started {
            match result {
                Ok(()) => self.apply(Event::Started { try_id })?,
                Err(exit) => self.ended(try_id, exit)?,
            }
        }
        Ok(())
    }

    fn signal(&mut self, try_id: TryId, signal: Signal) -> Result<(), AgentError> {
        let group = self.running.get(&try_id).and_then(|running| running.group);
        match (group, signal) {
            (Some(group), Signal::Term) => {
                // An error means that it has ended and its end is on the way.
                let _ = kill_process_group(group, rustix::process::Signal::TERM);
            }
            (Some(group), Signal::Kill) => {
                let _ = kill_process_group(group, rustix::process::Signal::KILL);
            }
            (None, Signal::Term) => {
                if let Some(exit) = self.pool.stop(try_id) {
                    self.ended(try_id, exit)?;
                }
            }
            (None, Signal::Kill) => self.pool.kill(try_id),
        }
        Ok(())
    }

    fn ended(&mut self, try_id: TryId, mut exit: Exit) -> Result<(), AgentError> {
        if let Some(mut running) = self.running.remove(&try_id) {
            let points = running.tail.look_to_the_end();
            self.send_metrics(running.task, &points);
            if running.over {
                exit = Exit::Failed(format!(
                    "it wrote more than the {} GiB that the output of a task may have; let it print less",
                    output::OUTPUT_BYTES_MAX >> 30
                ));
            }
        }
        self.apply(Event::Exited { try_id, exit })
    }

    /// Looks at every live output file: for metrics, and whether it is too long.
    fn look_at_output(&mut self) {
        let mut looks = Vec::new();
        let mut over = Vec::new();
        for (try_id, running) in &mut self.running {
            looks.push((running.task, running.tail.look()));
            if !running.over && running.tail.is_over() {
                running.over = true;
                over.push((*try_id, running.group));
            }
        }
        for (task, points) in looks {
            self.send_metrics(task, &points);
        }
        for (try_id, group) in over {
            match group {
                // An error means that it has ended and its end is on the way.
                Some(group) => {
                    let _ = kill_process_group(group, rustix::process::Signal::KILL);
                }
                None => self.pool.kill(try_id),
            }
        }
    }

    fn send_metrics(&mut self, task: TaskId, points: &[(String, gantry_wire::Point)]) {
        for chunk in points.chunks(POINTS_MAX) {
            self.send(AgentMessage::Metrics { task, points: chunk.to_vec() });
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
        self.node.apply(now(), Event::Disconnected, &mut Vec::new());
    }
}

impl Drop for Shell {
    /// Nothing runs that nobody fences: what is live ends with the shell.
    fn drop(&mut self) {
        for group in self.running.values().filter_map(|running| running.group) {
            // An error means that it has ended.
            let _ = kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}
