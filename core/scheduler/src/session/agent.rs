//! An agent's session: what its node is and holds, orders to it, reports and samples from it.

use std::sync::{Arc, Mutex, PoisonError};

use gantry_cluster::Event;
use gantry_link::{Connection, LinkError, Receiver, Sender};
use gantry_model::limits::{GPUS_MAX, NAME_CHARACTERS_MAX};
use gantry_model::{Action, Exit, Millis, Order, Reject, RejectKind, Report, Window};
use gantry_telemetry::{Answer, Decoder, Reading, Verdict};
use gantry_wire::{AgentMessage, Point, SchedulerMessage};
use tokio::sync::mpsc;

use super::{Greeted, Shared};
use crate::agents::Called;

/// Points of metrics in one message.
const POINTS_MAX: usize = 1000;
/// Answers to readings that wait to be sent.
const ANSWERS_MAX: usize = 16;
/// Orders that are sent together, where so many wait.
const TOGETHER_MAX: usize = 256;
/// Characters of why a try ended: what a screen can show, and little of a record.
const REASON_CHARACTERS_MAX: usize = 1000;
/// Why a node is kept free whose agent has said that it leaves.
const LEAVES: &str = "its agent leaves then";
/// How long it is kept free: it is gone long before the end of that.
const LEAVES_FOR: Millis = Millis::from_seconds(3600);
/// Within this time two words of a node's leaving mean the same.
const LEAVES_APART: Millis = Millis::from_seconds(30);
/// Further ahead nothing is planned.
const LEAVES_MAX: Millis = Millis::from_seconds(366 * 86_400);

pub(super) async fn run(shared: &Shared, greeted: Greeted) -> Result<(), LinkError> {
    let Greeted { connection, sender, mut receiver, at: welcomed, _counted } = greeted;
    let node = connection.peer().name.clone();
    let session = shared.core.number();
    let (mut facts, holds) = match receiver.expect().await? {
        AgentMessage::Up { facts, holds } => (facts, holds),
        AgentMessage::Gone { welcomed, holds } => {
            shared.core.gone(node, welcomed, holds).await;
            return Ok(());
        }
        _ => return Err(refused(&connection, "an agent must say first what its node is")),
    };
    if facts.name != node {
        return Err(refused(&connection, "an agent may speak for its own node only"));
    }
    // An administrator may have said where others reach it; otherwise it is what is seen.
    if facts.address.is_empty() {
        facts.address = connection.remote().ip().to_string();
    }
    if let Err(reject) = facts.validate() {
        return Err(refused(&connection, &reject.sentence));
    }
    let gpus: Vec<String> = facts.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    let called = Called { session, welcomed };
    let orders = shared.core.enter(called, facts, holds, connection.clone()).await;
    let named = node.clone();
    // Where it cannot be read the scheduler is ending.
    let ailments = shared.core.read(move |cluster| cluster.ailments(&named)).await;
    let at = shared.core.clock.now();
    shared.core.board().telemetry.meet(&node, &ailments.unwrap_or_default(), &gpus, at);
    let (answer, answers) = mpsc::channel(ANSWERS_MAX);
    let agent = Agent { shared, node, gpus, decoder: Mutex::default(), answer };
    let result = tokio::select! {
        result = agent.hear(receiver) => result,
        result = agent.hear_datagrams(&connection) => result,
        result = tell(sender, orders, answers) => result,
    };
    shared.core.leave(agent.node, session).await;
    result
}

/// An agent that is heard.
struct Agent<'a> {
    shared: &'a Shared,
    node: String,
    /// The UUIDs of its GPUs, by index.
    gpus: Vec<String>,
    /// Makes samples of its readings, whether they come by stream or datagram.
    decoder: Mutex<Decoder>,
    /// What its readings are answered.
    answer: mpsc::Sender<Answer>,
}

impl Agent<'_> {
    async fn hear(&self, mut receiver: Receiver) -> Result<(), LinkError> {
        while let Some(message) = receiver.receive::<AgentMessage>().await? {
            // Rare, and larger than all that waits for it: ten thousand agents wait here.
            Box::pin(self.take(message)).await;
        }
        Ok(())
    }

    async fn hear_datagrams(&self, connection: &Connection) -> Result<(), LinkError> {
        loop {
            match connection.receive_datagram::<AgentMessage>().await {
                // What may be lost may only be a reading.
                Ok(Some(AgentMessage::Reading(reading))) => self.reading(*reading).await,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => tracing::warn!(self.node, "a datagram was dropped: {error}"),
            }
        }
    }

    async fn take(&self, message: AgentMessage) {
        let (shared, node) = (self.shared, &self.node);
        match message {
            AgentMessage::Report(report) => {
                let report = bounded(report);
                shared.core.tell(Event::Report { node: node.clone(), report }).await;
            }
            AgentMessage::Reading(reading) => self.reading(*reading).await,
            AgentMessage::Metrics { task, points } => metrics(shared, node, task, points).await,
            AgentMessage::Progress { task, permille } => {
                if runs_here(shared, node, task).await {
                    shared.core.board().progress(task, permille.min(1000));
                }
            }
            AgentMessage::Found(mut finding) => {
                finding.gpu.as_mut().map(cut);
                cut(&mut finding.detail);
                shared.core.tell(Event::Found { node: node.clone(), finding }).await;
            }
            AgentMessage::Tested { number, mut wrong } => {
                wrong.as_mut().map(cut);
                shared.core.tell(Event::Tested { node: node.clone(), number, wrong }).await;
            }
            AgentMessage::Leaves { after } => self.leaves(after).await,
            AgentMessage::Up { .. } | AgentMessage::Gone { .. } => {
                tracing::warn!(node, "an agent said later what may only be said first");
            }
        }
    }

    /// Keeps the node free from the time on at which it will be gone. It says so on each connection, and
    /// the times differ by what messages take.
    async fn leaves(&self, after: Millis) {
        let (core, node) = (&self.shared.core, self.node.clone());
        let from = core.clock.now().after(after.min(LEAVES_MAX));
        let known = core.read(move |cluster| cluster.windows(&node)).await.unwrap_or_default();
        let is_same = |window: &Window| {
            window.reason == LEAVES && window.from.0.abs_diff(from.0) < LEAVES_APART.0
        };
        if known.iter().any(is_same) {
            return;
        }
        let window = Window { from, until: from.after(LEAVES_FOR), reason: LEAVES.into() };
        let action = Action::AddWindow { node: self.node.clone(), window };
        let event = Event::Act { request: 0, user: self.node.clone(), action };
        if let Err(reject) = core.ask(event).await {
            tracing::warn!(self.node, "its leaving was not planned: {}", reject.sentence);
        }
    }

    /// Takes a reading: its sample is kept and looked at, and the agent hears what became of it.
    async fn reading(&self, reading: Reading) {
        let (taken, sample) = {
            let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = decoder.take(reading);
            let newer = taken.verdict == Verdict::Newer;
            (taken, newer.then(|| decoder.share()).flatten())
        };
        if let Some(answer) = taken.answer {
            // Where it reads nothing it gets no answer; it sends keyframes then, and lives.
            let _ = self.answer.try_send(answer);
        }
        let Some(mut sample) = sample else { return };
        if sample.gpus.len() > GPUS_MAX {
            Arc::make_mut(&mut sample).gpus.truncate(GPUS_MAX);
        }
        let at = self.shared.core.clock.now();
        let taken = self.shared.core.board().telemetry.take(&self.node, sample, at);
        crate::settings::say(&self.shared.core, taken.said);
        for finding in taken.seen.into_iter().filter_map(|seen| seen.finding(&self.gpus)) {
            let node = self.node.clone();
            Box::pin(self.shared.core.tell(Event::Found { node, finding })).await;
        }
    }
}

/// Cuts a sentence that is too long to be kept and shown.
fn bounded(mut report: Report) -> Report {
    if let Report::Ended {
        exit: Exit::NotStarted { sentence, .. } | Exit::Failed(sentence), ..
    } = &mut report
    {
        cut(sentence);
    }
    report
}

fn cut(sentence: &mut String) {
    if let Some((end, _)) = sentence.char_indices().nth(REASON_CHARACTERS_MAX) {
        sentence.truncate(end);
    }
}

/// Whether a node is the one that runs a task.
async fn runs_here(shared: &Shared, node: &str, task: gantry_model::TaskId) -> bool {
    let runs_on = shared.core.read(move |cluster| cluster.task_node(task)).await;
    runs_on.ok().flatten().as_deref() == Some(node)
}

/// Takes points of a task, but only from the node that runs it.
async fn metrics(
    shared: &Shared,
    node: &str,
    task: gantry_model::TaskId,
    points: Vec<(String, Point)>,
) {
    if !runs_here(shared, node, task).await {
        return;
    }
    let mut board = shared.core.board();
    for (name, point) in points.into_iter().take(POINTS_MAX) {
        if name.len() <= NAME_CHARACTERS_MAX {
            board.point(task.job, &name, point);
        }
    }
}

async fn tell(
    mut sender: Sender,
    mut orders: mpsc::Receiver<Order>,
    mut answers: mpsc::Receiver<Answer>,
) -> Result<(), LinkError> {
    loop {
        tokio::select! {
            first = orders.recv() => {
                let Some(first) = first else { return Ok(()) };
                // Not before there is one: ten thousand agents wait here.
                let mut messages = vec![SchedulerMessage::Order(first)];
                while messages.len() < TOGETHER_MAX && let Ok(next) = orders.try_recv() {
                    messages.push(SchedulerMessage::Order(next));
                }
                sender.send_all(&messages).await?;
            }
            Some(answer) = answers.recv() => {
                sender.send(&SchedulerMessage::Answer(answer)).await?;
            }
        }
    }
}

fn refused(connection: &Connection, sentence: &str) -> LinkError {
    connection.close(sentence);
    LinkError::Refused(Reject::new(RejectKind::Forbidden, sentence))
}
