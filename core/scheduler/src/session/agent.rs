//! An agent's session: what its node is and holds, orders to it, reports and samples from it.

use gantry_cluster::Event;
use gantry_link::{Connection, LinkError, Receiver, Sender};
use gantry_model::limits::{GPUS_MAX, NAME_CHARACTERS_MAX};
use gantry_model::{Exit, Order, Reject, RejectKind, Report};
use gantry_wire::{AgentMessage, Point, SchedulerMessage};
use tokio::sync::mpsc;

use super::{Greeted, Shared};

/// Points of metrics in one message.
const POINTS_MAX: usize = 1000;
/// Characters of why a try ended: what a screen can show, and little of a record.
const REASON_CHARACTERS_MAX: usize = 1000;

pub(super) async fn run(shared: &Shared, greeted: Greeted) -> Result<(), LinkError> {
    let Greeted { connection, sender, mut receiver } = greeted;
    let node = connection.peer().name.clone();
    let session = shared.core.number();
    let AgentMessage::Up { mut facts, holds } = receiver.expect().await? else {
        return Err(refused(&connection, "an agent must say first what its node is"));
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
    let orders = shared.core.enter(session, facts, holds, connection.clone()).await;
    let result = tokio::select! {
        result = hear(shared, &node, receiver) => result,
        result = hear_datagrams(shared, &node, &connection) => result,
        result = tell(sender, orders) => result,
    };
    shared.core.leave(node, session).await;
    result
}

async fn hear(shared: &Shared, node: &str, mut receiver: Receiver) -> Result<(), LinkError> {
    while let Some(message) = receiver.receive::<AgentMessage>().await? {
        take(shared, node, message).await;
    }
    Ok(())
}

async fn hear_datagrams(
    shared: &Shared,
    node: &str,
    connection: &Connection,
) -> Result<(), LinkError> {
    loop {
        match connection.receive_datagram::<AgentMessage>().await {
            // What may be lost may only be a sample.
            Ok(Some(message @ AgentMessage::Sample(_))) => take(shared, node, message).await,
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(error) => tracing::warn!(node, "a datagram was dropped: {error}"),
        }
    }
}

async fn take(shared: &Shared, node: &str, message: AgentMessage) {
    match message {
        AgentMessage::Report(report) => {
            let report = bounded(report);
            shared.core.tell(Event::Report { node: node.to_owned(), report }).await;
        }
        AgentMessage::Sample(mut sample) => {
            sample.gpus.truncate(GPUS_MAX);
            let at = shared.core.clock.now();
            shared.core.board().sample(node, *sample, at);
        }
        AgentMessage::Metrics { task, points } => metrics(shared, node, task, points).await,
        AgentMessage::Progress { task, permille } => {
            if runs_here(shared, node, task).await {
                shared.core.board().progress(task, permille.min(1000));
            }
        }
        AgentMessage::Up { .. } => tracing::warn!(node, "an agent said twice what its node is"),
    }
}

/// Cuts a sentence that is too long to be kept and shown.
fn bounded(mut report: Report) -> Report {
    if let Report::Ended {
        exit: Exit::NotStarted { sentence, .. } | Exit::Failed(sentence), ..
    } = &mut report
        && let Some((end, _)) = sentence.char_indices().nth(REASON_CHARACTERS_MAX)
    {
        sentence.truncate(end);
    }
    report
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

async fn tell(mut sender: Sender, mut orders: mpsc::Receiver<Order>) -> Result<(), LinkError> {
    while let Some(order) = orders.recv().await {
        sender.send(&SchedulerMessage::Order(order)).await?;
    }
    Ok(())
}

fn refused(connection: &Connection, sentence: &str) -> LinkError {
    connection.close(sentence);
    LinkError::Refused(Reject::new(RejectKind::Forbidden, sentence))
}
