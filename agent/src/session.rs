//! The agent's connection to the scheduler: it comes back for ever, with jitter.
//!
//! It lives on a thread of its own with all that QUIC does for it. What arrives together is then
//! decoded together, and what is told together leaves in one packet, as no other thread sends it
//! off between two messages; and the disk that the shell waits for does not hold up the connection.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_link::{Backoff, Connection, LinkError, Own, Receiver, Sender};
use gantry_telemetry::{Encoder, Sample};
use gantry_wire::{AgentMessage, NodeReply, NodeRequest, Peer, SchedulerMessage};
use tokio::sync::{mpsc, oneshot, watch};

use crate::shell::Input;

/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The same where the scheduler has refused: access that was taken away does not come back in seconds.
const REFUSED_WAIT_MAX: Duration = Duration::from_mins(1);
/// A session that lasted so long was a good one: the next wait is short again.
const LASTING: Duration = Duration::from_secs(2);
/// Turns of the other tasks before the thread ends: one does what the closing needs, and the others
/// cost nothing.
const FAREWELL_TURNS: usize = 8;
/// Messages that wait to be sent.
const OUTBOX_MAX: usize = 4096;
/// Messages that are sent together, where so many wait.
const TOGETHER_MAX: usize = 256;

/// The thread of the connection.
pub(crate) struct Session(tokio::task::JoinHandle<()>);

impl Session {
    /// Waits until the connection is closed; it is told so by the end of the shell.
    pub(crate) async fn ended(self) {
        // An error is a panic, which has been told on standard error.
        let _ = self.0.await;
    }
}

/// Starts the thread. It ends with the receiver of `inputs`.
pub(crate) fn start(
    own: Own,
    inputs: mpsc::Sender<Input>,
    samples: watch::Receiver<Sample>,
) -> io::Result<Session> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        let closed = inputs.clone();
        tokio::select! {
            () = keep(own, inputs, samples) => {}
            () = closed.closed() => {}
        }
        // The scheduler hears of it at once: the connection's own tasks get to say so.
        for _ in 0..FAREWELL_TURNS {
            tokio::task::yield_now().await;
        }
    };
    Ok(Session(tokio::task::spawn_blocking(move || runtime.block_on(serve))))
}

/// Connects again and again until the shell is gone.
async fn keep(mut own: Own, inputs: mpsc::Sender<Input>, samples: watch::Receiver<Sample>) {
    let mut backoff = Backoff::new(WAIT_MAX);
    let mut refusals = Backoff::new(REFUSED_WAIT_MAX);
    let mut session = 0;
    let mut away = false;
    while !inputs.is_closed() {
        let wait = match own.connect(Peer::Agent).await {
            Ok(connected) => {
                let address = connected.connection.remote();
                tracing::info!(%address, cluster = connected.cluster, "connected");
                (away, session) = (false, session + 1);
                let begun = Instant::now();
                let (connection, greeted) = (connected.connection.clone(), connected.at);
                let outcome = tokio::select! {
                    outcome = run(session, connected, &inputs, samples.clone()) => outcome,
                    never = own.keep_fresh(greeted) => match never {},
                };
                if inputs.send(Input::Disconnected { session }).await.is_err() {
                    connection.close("the agent is ending");
                    return;
                }
                // A scheduler that welcomes and lets go at once, its disk full, is not called in a storm.
                if begun.elapsed() >= LASTING {
                    backoff.reset();
                    refusals.reset();
                }
                let reason =
                    outcome.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                tracing::warn!("the connection to the scheduler is gone: {reason}");
                backoff.next_wait()
            }
            Err(error) => {
                // Once per absence, not once per attempt.
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!("{error}; trying again for as long as it takes");
                }
                if matches!(error, LinkError::Refused(_)) {
                    refusals.next_wait()
                } else {
                    backoff.next_wait()
                }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn run(
    session: u64,
    connected: gantry_link::Session,
    inputs: &mpsc::Sender<Input>,
    samples: watch::Receiver<Sample>,
) -> Result<(), LinkError> {
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let gone = || LinkError::Closed("the agent is ending".into());
    let first = Input::Connected { session, welcomed: connected.at, outbox };
    inputs.send(first).await.map_err(|_| gone())?;
    let connection = connected.connection;
    let encoder = Mutex::new(Encoder::default());
    tokio::select! {
        result = tell(connected.sender, messages, &connection, samples, &encoder) => result,
        result = hear(session, connected.receiver, inputs, &encoder) => result,
        () = answer(&connection, inputs) => Ok(()),
        reason = connection.closed() => Err(LinkError::Closed(reason)),
    }
}

/// Sends what the shell says, and each new sample: as a datagram where it fits.
async fn tell(
    mut sender: Sender,
    mut messages: mpsc::Receiver<AgentMessage>,
    connection: &Connection,
    mut samples: watch::Receiver<Sample>,
    encoder: &Mutex<Encoder>,
) -> Result<(), LinkError> {
    let mut greeted = false;
    let mut taken = Vec::with_capacity(TOGETHER_MAX);
    loop {
        tokio::select! {
            count = messages.recv_many(&mut taken, TOGETHER_MAX) => {
                if count == 0 {
                    return Ok(());
                }
                greeted = true;
                sender.send_all(&taken).await?;
                taken.clear();
            }
            changed = samples.changed(), if greeted => {
                if changed.is_err() {
                    return Ok(());
                }
                let reading = {
                    let mut encoder = encoder.lock().unwrap_or_else(PoisonError::into_inner);
                    encoder.encode(&samples.borrow_and_update())
                };
                // One beyond all limits is left out, as a gap.
                let Some(reading) = reading else { continue };
                let message = AgentMessage::Reading(Box::new(reading));
                if !connection.send_datagram(&message) {
                    sender.send(&message).await?;
                }
            }
        }
    }
}

async fn hear(
    session: u64,
    mut receiver: Receiver,
    inputs: &mpsc::Sender<Input>,
    encoder: &Mutex<Encoder>,
) -> Result<(), LinkError> {
    while let Some(message) = receiver.receive().await? {
        match message {
            SchedulerMessage::Order(order) => {
                if inputs.send(Input::Order { session, order }).await.is_err() {
                    return Ok(());
                }
            }
            SchedulerMessage::Answer(answer) => {
                encoder.lock().unwrap_or_else(PoisonError::into_inner).answer(answer);
            }
        }
    }
    Ok(())
}

/// Answers what the scheduler asks, each question on a stream of its own.
async fn answer(connection: &Connection, inputs: &mpsc::Sender<Input>) {
    let inputs = Arc::new(inputs.clone());
    while let Some((sender, receiver)) = connection.accept().await {
        tokio::spawn(answer_one(sender, receiver, inputs.clone()));
    }
}

async fn answer_one(mut sender: Sender, mut receiver: Receiver, inputs: Arc<mpsc::Sender<Input>>) {
    let Ok(request) = receiver.expect().await else { return };
    let answer = match request {
        NodeRequest::Output { task, offset } => {
            let ask = |reply| Input::Output { task, offset, reply };
            ask_shell(&inputs, ask).await.map(|answer| answer.map(NodeReply::Output))
        }
        NodeRequest::Search { job, text } => {
            let ask = |reply| Input::Search { job, text, reply };
            let found = |(lines, more)| NodeReply::Found { lines, more };
            ask_shell(&inputs, ask).await.map(|answer| answer.map(found))
        }
    };
    let Some(answer) = answer else { return };
    let reply = answer.unwrap_or_else(NodeReply::Refused);
    // An error means that the scheduler has left.
    if sender.send(&reply).await.is_ok() {
        sender.delivered().await;
    }
}

/// Asks the shell; nothing where it is gone.
async fn ask_shell<T>(
    inputs: &mpsc::Sender<Input>,
    ask: impl FnOnce(oneshot::Sender<T>) -> Input,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    inputs.send(ask(reply)).await.ok()?;
    answer.await.ok()
}
