//! What a console watches: one picture at a time, the newest, never a backlog.
//!
//! A picture is made when the console has taken the one before, so a slow console gets fewer and
//! harms nobody. Every picture fits one frame: rows give way first.

use std::sync::Arc;
use std::time::Duration;

use gantry_link::{Receiver, Sender};
use gantry_model::{JobRow, NodeRow, Reject};
use gantry_wire::codec::{self, VALUE_BYTES_MAX};
use gantry_wire::message::NodeStatus;
use gantry_wire::{Reply, Request, Scope, Update};
use tokio::time::MissedTickBehavior;

use crate::core::{Core, now};
use crate::session::{self, Shared};

/// Between two pictures.
const PICTURE_EACH: Duration = Duration::from_secs(1);
/// A console that does not take a picture within this time is left.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// Rows of a picture: what the largest screen shows, and a little to scroll.
const ROWS_MAX: usize = 100;
const NOTES_SHOWN: usize = 20;
/// Points of a curve in a picture: two for each column of a wide panel.
const POINTS_SHOWN: usize = 240;
const BUSY_SECONDS: u64 = 3600;
const BUSY_CELLS: usize = 120;

/// Sends pictures of a scope until the console leaves.
pub(crate) async fn watch(
    shared: &Arc<Shared>,
    scope: Scope,
    sender: &mut Sender,
    receiver: &mut Receiver,
) {
    let mut clock = tokio::time::interval(PICTURE_EACH);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            // A console ends its watch by ending its half of the stream.
            _ = receiver.receive::<Request>() => return,
        }
        let Ok(update) = picture(shared, scope).await else { return };
        let sent = tokio::time::timeout(TAKE_WITHIN, sender.send(&update)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

async fn picture(shared: &Shared, scope: Scope) -> Result<Update, Reject> {
    let core = &shared.core;
    let shows_nodes = !matches!(scope, Scope::Jobs | Scope::Job(_));
    let read = move |cluster: &gantry_cluster::Cluster| {
        let jobs = match scope {
            Scope::Job(job) => cluster.job(job).into_iter().collect(),
            Scope::Nodes => cluster.jobs(None, false, ROWS_MAX).0,
            Scope::Overview | Scope::Jobs | Scope::Data => cluster.jobs(None, true, ROWS_MAX).0,
        };
        let nodes = if shows_nodes { cluster.nodes() } else { Vec::new() };
        (cluster.summary(), nodes, jobs)
    };
    let (summary, mut nodes, jobs) = core.read(read).await?;
    nodes.truncate(ROWS_MAX);
    let nodes = with_samples(core, nodes);
    let at = now();
    let (mut metrics, mut output) = (Vec::new(), None);
    if let Scope::Job(job) = scope {
        metrics = core.board().metrics(job, POINTS_SHOWN);
        output = session::console_output(shared, job.task(0)).await;
    }
    let board = core.board();
    let mut update = Update {
        at,
        cluster: shared.cluster.clone(),
        summary,
        nodes,
        busy_permille: board.busy(at, BUSY_SECONDS, BUSY_CELLS),
        jobs,
        metrics,
        output,
        notes: board.notes(NOTES_SHOWN),
    };
    drop(board);
    fit(&mut update);
    Ok(update)
}

/// Lets rows go until the picture fits a frame.
fn fit(update: &mut Update) {
    while codec::encode(update).is_err() {
        let longest = update.jobs.len().max(update.nodes.len()).max(update.metrics.len());
        if longest <= 1 {
            update.notes.clear();
            update.output = None;
            return;
        }
        update.jobs.truncate(update.jobs.len().div_ceil(2));
        update.nodes.truncate(update.nodes.len().div_ceil(2));
        update.metrics.truncate(update.metrics.len().div_ceil(2));
    }
}

/// A page of jobs that fits a frame; what does not is on the next page.
pub(crate) fn page_of_jobs(mut rows: Vec<JobRow>, mut more: bool) -> Reply {
    while rows.len() > 1
        && codec::encode(&rows).map_or(true, |bytes| bytes.len() > VALUE_BYTES_MAX - 64)
    {
        rows.truncate(rows.len().div_ceil(2));
        more = true;
    }
    Reply::Jobs { rows, more }
}

/// Nodes with their newest samples.
pub(crate) fn with_samples(core: &Core, rows: Vec<NodeRow>) -> Vec<NodeStatus> {
    let board = core.board();
    rows.into_iter()
        .map(|row| {
            let (sample, sampled) = board.newest(&row.facts.name).unzip();
            NodeStatus { row, sample, sampled }
        })
        .collect()
}
