//! What a console watches: one picture at a time, the newest, never a backlog.
//!
//! Each scope that somebody watches has one maker: some times a second it makes a picture and, where
//! it differs from the one before, puts it into a slot of which only the newest is kept. A console
//! takes from the slot when it has taken the one before, so a slow console gets fewer pictures and
//! harms nobody, and a hundred consoles cost the cluster's thread no more than one. Who has the picture
//! before is sent what is otherwise, everybody else the whole. Either is written once, whoever takes it;
//! where large ones go to many they are made less often ([`pause`]).
//!
//! Every picture and every answer fits one frame: rows give way first ([`Fit`]).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gantry_link::{Receiver, Sender};
use gantry_model::{JobId, JobRow, Millis, NodeRow, Reject};
use gantry_telemetry::Sample;
use gantry_wire::message::NodeStatus;
use gantry_wire::{Output, Reply, Request, Scope, Step, Update};
use gantry_wire::{codec, frame};
use tokio::sync::watch;

use crate::core::Core;
use crate::session::{self, Shared};

/// Between two pictures: what a node says of itself is on a screen within a quarter of a second.
const PICTURE_EACH: Duration = Duration::from_millis(200);
/// What all consoles of one scope together are sent in a second, at most: about a tenth of a core.
const BYTES_A_SECOND: usize = 28_000_000;
/// Between two pictures of a job: for each of them its node is asked for the end of its output.
const JOB_PICTURE_EACH: Duration = Duration::from_secs(1);
/// A picture that did not change is sent again after this time: silence means trouble.
const PICTURE_AGAIN: Millis = Millis::from_seconds(5);
/// How long a picture waits for a node that shall give the end of an output.
const OUTPUT_WITHIN: Duration = Duration::from_secs(1);
/// Scopes that are watched at once; what is beyond is not served.
const SCOPES_MAX: usize = 1024;
/// Rows of a picture: what the largest screen shows, and a little to scroll.
const ROWS_MAX: usize = 100;
const NOTES_SHOWN: usize = 20;
const OWNERS_MAX: usize = 20;
/// Points of a curve in a picture: two for each column of a wide panel.
const POINTS_SHOWN: usize = 240;
const BUSY_SPAN: Millis = Millis::from_seconds(3600);
const BUSY_CELLS: usize = 120;

type Slot = watch::Sender<Option<Arc<Picture>>>;

/// A picture, and how it is sent.
struct Picture {
    /// Which of its scope it is.
    number: u64,
    update: Update,
    /// The message for who has the picture before; none where there is none.
    changes: Option<Vec<u8>>,
    /// The message for everybody else, once somebody needs it; none where it cannot be written.
    whole: OnceLock<Option<Vec<u8>>>,
}

impl Picture {
    /// The message that leads from the picture with a number to this one.
    fn from(&self, had: Option<u64>) -> Option<&[u8]> {
        let follows = had.is_some_and(|had| had + 1 == self.number);
        match &self.changes {
            Some(changes) if follows => Some(changes),
            _ => self.whole.get_or_init(|| written(&whole(&self.update))).as_deref(),
        }
    }
}

fn whole(update: &Update) -> Step {
    Step::Whole(Box::new(update.clone()))
}

/// One that cannot be written is like one that did not come: silence means trouble.
fn written(step: &Step) -> Option<Vec<u8>> {
    frame::write(step).ok()
}

/// The makers of pictures, one for each scope that is watched.
#[derive(Default)]
pub(crate) struct Pictures(Mutex<Vec<(Scope, Arc<Slot>)>>);

impl Pictures {
    /// The slot of a scope; a maker is started where there is none.
    fn of(shared: &Arc<Shared>, scope: Scope) -> Option<watch::Receiver<Option<Arc<Picture>>>> {
        let mut makers = shared.pictures.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slot)) = makers.iter().find(|(known, _)| *known == scope) {
            let mut pictures = slot.subscribe();
            // What is in the slot already is new to this console.
            pictures.mark_changed();
            return Some(pictures);
        }
        if makers.len() >= SCOPES_MAX {
            return None;
        }
        let (slot, pictures) = watch::channel(None);
        let slot = Arc::new(slot);
        makers.push((scope, slot.clone()));
        tokio::spawn(make(shared.clone(), scope, slot));
        Some(pictures)
    }

    /// Ends a maker whose pictures nobody takes any more.
    fn end(&self, scope: Scope, slot: &Slot) -> bool {
        let mut makers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unwatched = slot.receiver_count() == 0;
        if unwatched {
            makers.retain(|(known, _)| *known != scope);
        }
        unwatched
    }
}

/// Sends pictures of a scope until the console leaves. The output of a job is left out for as long as
/// whoever watches may not read it.
pub(crate) async fn watch(
    shared: &Arc<Shared>,
    scope: Scope,
    reads_output: &(dyn Fn() -> bool + Sync),
    sender: &mut Sender,
    receiver: &mut Receiver,
) {
    let Some(mut pictures) = Pictures::of(shared, scope) else {
        tracing::warn!(SCOPES_MAX, "a watch was refused: too many scopes are watched");
        return;
    };
    // The number of the picture that it has as it is.
    let mut has = None;
    loop {
        tokio::select! {
            changed = pictures.changed() => if changed.is_err() { return },
            // A console ends its watch by ending its half of the stream.
            _ = receiver.receive::<Request>() => return,
        }
        let Some(picture) = pictures.borrow_and_update().clone() else { continue };
        let sent = if picture.update.output.is_none() || reads_output() {
            let Some(message) = picture.from(has) else { continue };
            has = Some(picture.number);
            sender.send_written(message).await
        } else {
            has = None;
            sender.send(&whole(&Update { output: None, ..picture.update.clone() })).await
        };
        if sent.is_err() {
            // It has left, or takes nothing; it will ask again.
            return;
        }
    }
}

/// Makes the pictures of one scope until nobody watches.
async fn make(shared: Arc<Shared>, scope: Scope, slot: Arc<Slot>) {
    loop {
        if shared.pictures.end(scope, &slot) {
            return;
        }
        let had = slot.borrow().clone();
        let before = had.as_ref().map(|picture| &picture.update);
        let begun = Instant::now();
        let Ok(mut update) = picture(&shared, scope, before).await else {
            // The scheduler is ending.
            return;
        };
        fit(&mut update);
        let mut bytes = 0;
        if before.is_none_or(|before| differs(before, &mut update)) {
            let changes = before.map(|before| Step::Changes(Box::new(before.changes(&update))));
            let changes = changes.as_ref().and_then(written);
            let number = had.as_ref().map_or(0, |had| had.number + 1);
            let picture = Picture { number, update, changes, whole: OnceLock::new() };
            // The whole where there are no changes that can be sent.
            bytes = picture.from(number.checked_sub(1)).map_or(0, <[u8]>::len);
            slot.send_replace(Some(Arc::new(picture)));
        }
        let pause = pause(scope, bytes * slot.receiver_count());
        tokio::time::sleep(pause.saturating_sub(begun.elapsed())).await;
    }
}

/// How long after a picture the next one is made, where so many bytes of it are sent in all.
fn pause(scope: Scope, bytes: usize) -> Duration {
    let least = if matches!(scope, Scope::Job(_)) { JOB_PICTURE_EACH } else { PICTURE_EACH };
    least.max(Duration::from_millis((bytes * 1000 / BYTES_A_SECOND) as u64))
}

/// Whether a picture shows something else than the one before, or that one is old.
fn differs(before: &Update, picture: &mut Update) -> bool {
    let at = std::mem::replace(&mut picture.at, before.at);
    let same = picture == before;
    picture.at = at;
    !same || at.since(before.at) >= PICTURE_AGAIN
}

async fn picture(shared: &Shared, scope: Scope, before: Option<&Update>) -> Result<Update, Reject> {
    let core = &shared.core;
    let shows_nodes = matches!(scope, Scope::Overview | Scope::Nodes | Scope::Data);
    let read = move |cluster: &gantry_cluster::Cluster| {
        let jobs = match scope {
            Scope::Job(job) => cluster.job(job).into_iter().collect(),
            Scope::Nodes => cluster.jobs(None, false, ROWS_MAX).0,
            Scope::Summary => Vec::new(),
            Scope::Jobs => cluster.jobs(None, true, ROWS_MAX).0,
            Scope::Overview | Scope::Data => live_first(
                cluster.jobs(None, false, ROWS_MAX).0,
                cluster.jobs(None, true, ROWS_MAX).0,
            ),
        };
        let nodes = if shows_nodes { cluster.some_nodes(None, ROWS_MAX).0 } else { Vec::new() };
        let owners = if scope == Scope::Overview { cluster.owners(OWNERS_MAX) } else { Vec::new() };
        (cluster.summary(), nodes, jobs, owners)
    };
    let (summary, nodes, jobs, owners) = core.read(read).await?;
    let mut nodes = with_samples(core, nodes);
    nodes.iter_mut().filter_map(|node| node.sample.as_mut()).for_each(shorten);
    let at = core.clock.now();
    let (mut metrics, mut output) = (Vec::new(), None);
    if let Scope::Job(job) = scope {
        metrics = core.board().metrics(job, POINTS_SHOWN);
        output = end_of_output(shared, job, jobs.first(), before).await;
    }
    let board = core.board();
    let mut jobs = jobs;
    for row in &mut jobs {
        board.add_progress(row);
    }
    Ok(Update {
        at,
        cluster: shared.cluster.clone(),
        summary,
        nodes,
        busy_permille: board.telemetry.busy(at, BUSY_SPAN, BUSY_CELLS),
        gpu_busy_permille: board.telemetry.gpu_busy(at, BUSY_SPAN, BUSY_CELLS),
        gpu_power_w: board.telemetry.gpu_power(at, BUSY_SPAN, BUSY_CELLS),
        owners,
        jobs,
        metrics,
        output,
        notes: board.notes.newest(NOTES_SHOWN),
    })
}

/// The newest jobs, newest first, but none that lives gives way to one that has ended.
fn live_first(live: Vec<JobRow>, newest: Vec<JobRow>) -> Vec<JobRow> {
    let room = ROWS_MAX - live.len().min(ROWS_MAX);
    let ended = newest.into_iter().filter(|row| row.state.is_ended()).take(room);
    let mut rows: Vec<JobRow> = live.into_iter().chain(ended).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.job));
    rows
}

/// The end of the output of a job's first task. Where its node does not answer, what was known
/// before stands; an ended job whose whole output is known is not asked about again.
async fn end_of_output(
    shared: &Shared,
    job: JobId,
    row: Option<&JobRow>,
    before: Option<&Update>,
) -> Option<Output> {
    let row = row?;
    let known = before.and_then(|before| before.output.clone());
    if row.state.is_ended() && known.as_ref().is_some_and(|output| !output.live) {
        return known;
    }
    let asked = session::end_of_output(shared, job.task(0));
    tokio::time::timeout(OUTPUT_WITHIN, asked).await.ok().flatten().or(known)
}

/// Nodes with their newest samples.
pub(crate) fn with_samples(core: &Core, rows: Vec<NodeRow>) -> Vec<NodeStatus> {
    let board = core.board();
    rows.into_iter()
        .map(|row| {
            let (sample, sampled) = board.telemetry.newest(&row.facts.name).unzip();
            NodeStatus { row, sample: sample.map(Arc::unwrap_or_clone), sampled }
        })
        .collect()
}

/// Leaves out what no screen shows of all its nodes; who wants it asks for the node.
fn shorten(sample: &mut Sample) {
    sample.cores_permille = Vec::new();
    sample.disks = Vec::new();
    sample.networks = Vec::new();
    sample.running = Vec::new();
    for gpu in &mut sample.gpus {
        gpu.processes = Vec::new();
    }
}

/// What can become shorter until it fits a frame.
pub(crate) trait Fit: Sized + serde::Serialize {
    /// Whether it fits as it is.
    fn fits(&self) -> bool {
        codec::encode(self).is_ok()
    }

    /// Lets about half of what is least needed go; says whether there was something.
    fn shrink(&mut self) -> bool;
}

/// Shortens a message until it fits a frame.
pub(crate) fn fit(message: &mut impl Fit) {
    while !message.fits() && message.shrink() {}
}

impl Fit for Update {
    fn fits(&self) -> bool {
        codec::encode(&whole(self)).is_ok()
    }

    fn shrink(&mut self) -> bool {
        let jobs = halve(&mut self.jobs);
        let nodes = halve(&mut self.nodes);
        let metrics = self.metrics.iter_mut().map(|metric| thin(&mut metric.points));
        let metrics = metrics.fold(false, |any, one| any | one);
        jobs | nodes | metrics || self.output.take().is_some() || halve(&mut self.notes)
    }
}

impl Fit for Reply {
    fn shrink(&mut self) -> bool {
        match self {
            Self::Jobs { rows, more } => {
                *more = true;
                halve(rows)
            }
            Self::Tasks { rows, more } => {
                *more = true;
                halve(rows)
            }
            Self::Nodes { rows, more } => {
                *more = true;
                halve(rows)
            }
            Self::Found { lines, more } => {
                *more = true;
                halve(lines)
            }
            Self::Access { rows, more } => {
                *more = true;
                halve(rows)
            }
            Self::Use(rows) => halve(rows),
            Self::Gpus(page) => {
                page.more = true;
                halve(&mut page.nodes)
            }
            Self::Metrics(metrics) => metrics
                .iter_mut()
                .map(|metric| thin(&mut metric.points))
                .fold(false, |any, one| any | one),
            _ => false,
        }
    }
}

/// Keeps the first half, and at least one.
fn halve<T>(rows: &mut Vec<T>) -> bool {
    let before = rows.len();
    rows.truncate(before.div_ceil(2));
    rows.len() < before
}

/// Keeps every second point, and the newest.
fn thin<T>(points: &mut Vec<T>) -> bool {
    let before = points.len();
    let mut left = before;
    points.retain(|_| {
        left -= 1;
        left.is_multiple_of(2)
    });
    points.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: Option<&[u8]>) -> Step {
        frame::read(message.unwrap()).unwrap()
    }

    #[test]
    fn who_has_the_picture_before_is_sent_what_is_otherwise_and_others_the_whole() {
        let before = Update { cluster: "c".into(), ..Update::default() };
        let update = Update { busy_permille: vec![Some(7)], ..before.clone() };
        let changes = Step::Changes(Box::new(before.changes(&update)));
        let whole = Step::Whole(Box::new(update.clone()));
        let first = Picture { number: 0, update: before, changes: None, whole: OnceLock::new() };
        assert!(matches!(read(first.from(None)), Step::Whole(_)));
        let written = written(&changes);
        let picture = Picture { number: 5, update, changes: written, whole: OnceLock::new() };
        assert_eq!(read(picture.from(Some(4))), changes);
        assert_eq!(read(picture.from(Some(3))), whole, "it has missed one");
        assert_eq!(read(picture.from(None)), whole, "it is new, or has another one");
    }
}
