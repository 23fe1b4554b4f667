//! A console's or a command's session: each request on a stream of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_cluster::{Answer, Event};
use gantry_link::{Connection, LinkError, Receiver, Sender};
use gantry_model::limits::{JOBS_PAGE_MAX, KEY_CHARACTERS_MAX, METRIC_POINTS_MAX};
use gantry_model::{Action, IndexSet, JobId, JobRow, NodeRow, Reject, RejectKind, TaskId};
use gantry_wire::{
    GpuNode, GpuPage, HistoryQuery, Holder, NodeReply, NodeRequest, Output, Reply, Request,
    SchedulerStatus, Scope,
};
use tokio::task::JoinSet;

use super::strangers::Unheard;
use super::{Caller, Greeted, Shared, trust};
use crate::update;

/// How long the first message of a stream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node may take to answer for its output.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of one session at once; the connection's own limit of streams is below it.
const REQUESTS_MAX: usize = 128;
/// Requests a second of one session, and how many it may save up: a script that submits jobs one by
/// one is never slowed, one that floods is.
const REQUESTS_A_SECOND: u32 = 2000;
const REQUESTS_AT_ONCE: u32 = 4000;
/// Nodes of one page of GPUs: with eight each, a page has about ten thousand bytes.
const GPU_NODES_MAX: usize = 64;
/// Nodes of one page, where so many fit an answer.
const NODES_PAGE_MAX: usize = 200;
/// Bytes of a text that is searched for.
const SEARCH_BYTES_MAX: usize = 256;
/// Points of a curve in one answer: eight curves fit a frame.
const POINTS_SHOWN: usize = METRIC_POINTS_MAX / 4;

pub(super) async fn run(shared: &Arc<Shared>, greeted: Greeted) -> Result<(), LinkError> {
    let Greeted { connection, _counted, .. } = greeted;
    let caller = Arc::new(Caller::of(&connection));
    let mut pace = Pace::new(Instant::now());
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = requests.join_next() => {}
            stream = connection.accept() => {
                let Some((sender, receiver)) = stream else { return Ok(()) };
                // A client that asks faster waits, and its streams with it: others are not in its way.
                // Even a sleep of nothing lasts until the clock's next millisecond.
                let wait = pace.wait(Instant::now());
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                if requests.len() < REQUESTS_MAX {
                    requests.spawn(serve(shared.clone(), caller.clone(), sender, receiver));
                }
            }
        }
    }
}

/// How fast one session may ask: a bucket that fills steadily.
struct Pace {
    left: u32,
    filled: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { left: REQUESTS_AT_ONCE, filled: now }
    }

    /// Takes one request, and says how long it has to wait.
    fn wait(&mut self, now: Instant) -> Duration {
        let since_us = now.duration_since(self.filled).as_micros() as u64;
        let more = since_us * u64::from(REQUESTS_A_SECOND) / 1_000_000;
        if more > 0 {
            let full = u64::from(self.left) + more;
            self.left = full.min(u64::from(REQUESTS_AT_ONCE)) as u32;
            self.filled = now;
        }
        if self.left > 0 {
            self.left -= 1;
            return Duration::ZERO;
        }
        // The next one to come is taken, and waited for.
        let each = Duration::from_secs(1) / REQUESTS_A_SECOND;
        self.filled += each;
        self.filled.duration_since(now)
    }
}

/// Between two looks at elements that are waited for: only the end of a whole job is told.
const ELEMENTS_EACH: Duration = Duration::from_millis(200);

async fn serve(
    shared: Arc<Shared>,
    caller: Arc<Caller>,
    mut sender: Sender,
    mut receiver: Receiver,
) {
    let request = match tokio::time::timeout(REQUEST_TIMEOUT, receiver.expect()).await {
        Ok(Ok(request)) => request,
        // It has left, does not speak, or speaks something else: its stream ends with this function.
        Ok(Err(error)) => return shared.given_up.count((&error).into()),
        Err(_) => return shared.given_up.count(Unheard::Late),
    };
    let reply = match request {
        // Everybody who is heard may watch; what not everybody may see is left out.
        Request::Watch { scope } => {
            let owner = match scope {
                Scope::Job(job) => caller.owner(&shared, job).await,
                _ => None,
            };
            let reads = || caller.reads_output(&shared, owner.as_deref());
            update::watch(&shared, scope, &reads, &mut sender, &mut receiver).await;
            return;
        }
        other => {
            let answer = async |request| answer(&shared, &caller, request).await;
            caller.heard(&shared, other, answer).await
        }
    };
    let mut reply = reply.unwrap_or_else(Reply::Refused);
    update::fit(&mut reply);
    // An error means that the console has left.
    if sender.send(&reply).await.is_ok() {
        sender.delivered().await;
    }
}

async fn answer(shared: &Shared, caller: &Caller, request: Request) -> Result<Reply, Reject> {
    let core = &shared.core;
    let user = caller.peer.name.as_str();
    match request {
        Request::Submit { key, spec } => {
            if key.is_empty() || key.chars().count() > KEY_CHARACTERS_MAX {
                return Err(Reject::invalid(format!(
                    "the key of a submit has 1 to {KEY_CHARACTERS_MAX} characters"
                )));
            }
            spec.validate()?;
            core.ask(Event::Submit { request: 0, user: user.to_owned(), key, spec })
                .await
                .map(reply_of)
        }
        Request::Cancel { job, indices } => {
            let event = Event::Cancel { request: 0, user: user.to_owned(), job, indices };
            let answer = core.ask(event).await?;
            tracing::info!(user, %job, "cancelled");
            Ok(reply_of(answer))
        }
        Request::Act(action) => {
            tracing::info!(user, ?action, "a change was asked for");
            let forgotten = match &action {
                Action::Forget { node } => Some(node.clone()),
                _ => None,
            };
            let event = Event::Act { request: 0, user: user.to_owned(), action };
            let answer = core.ask(event).await?;
            if let Some(node) = forgotten {
                core.board().telemetry.forget(&node);
            }
            Ok(reply_of(answer))
        }
        Request::Reload => {
            let waits = crate::settings::reload(shared).await?;
            tracing::info!(user, "the settings were read again");
            Ok(Reply::Reloaded(waits))
        }
        Request::Copy => {
            let copied = core.copy(shared.folder.join(crate::store::COPY)).await?;
            tracing::info!(user, bytes = copied.bytes, "the journal was copied for a backup");
            Ok(Reply::Copied(copied))
        }
        Request::Spec { job } => spec(shared, user, job).await,
        Request::Search { job, text } => search(shared, job, text).await,
        Request::Output { task, offset } => output(shared, task, offset).await.map(Reply::Output),
        Request::Wait { job, indices } => wait(shared, job, indices).await,
        Request::Watch { .. } => Err(Reject::invalid("this request has a stream of its own")),
        Request::Token { .. }
        | Request::UserToken { .. }
        | Request::Access { .. }
        | Request::Grant { .. }
        | Request::Revoke { .. }
        | Request::Audit { .. }
        | Request::VerifyAudit
        | Request::Authority { .. } => trust::answer(shared, caller, request).await,
        other => show(shared, other).await,
    }
}

fn reply_of(answer: Answer) -> Reply {
    match answer {
        Answer::Submitted(job) => Reply::Submitted(job),
        Answer::Cancelled(count) => Reply::Cancelled(count),
        Answer::Acted(count) => Reply::Acted(count),
    }
}

/// Requests that only read.
async fn show(shared: &Shared, request: Request) -> Result<Reply, Reject> {
    let core = &shared.core;
    match request {
        Request::Jobs { before, ended } => {
            let read =
                move |cluster: &gantry_cluster::Cluster| cluster.jobs(before, ended, JOBS_PAGE_MAX);
            let (rows, more) = core.read(read).await?;
            Ok(Reply::Jobs { rows, more })
        }
        Request::Job { job } => {
            let mut row = known(shared, job).await?;
            core.board().add_progress(&mut row);
            Ok(Reply::Job(Box::new(row)))
        }
        Request::Why { job, indices } => {
            let at = core.clock.now();
            let why = core.read(move |cluster| cluster.why(at, job, indices.as_ref())).await??;
            Ok(Reply::Why(Box::new(why)))
        }
        Request::History { query } => {
            let (rows, more) = core.history(query).await?;
            Ok(Reply::Jobs { rows, more })
        }
        Request::Use { by, from, until } => core.sum_use(by, from, until).await.map(Reply::Use),
        Request::Series { node, quantities, span, cells } => {
            let at = core.clock.now();
            let past = core.board().telemetry.past(&node, &quantities, at, span, cells.into());
            let rows = past.ok_or_else(|| {
                Reject::not_found(format!(
                    "node {node:?} has said nothing since the scheduler was started; gantry nodes lists those that have"
                ))
            })?;
            Ok(Reply::Series { at, rows })
        }
        Request::Tasks { job, from } => {
            let rows = core.read(move |cluster| cluster.tasks(job, from, JOBS_PAGE_MAX)).await?;
            let (rows, more) = rows.ok_or_else(|| unknown(job))?;
            Ok(Reply::Tasks { rows, more })
        }
        Request::Nodes { after } => {
            let read = move |cluster: &gantry_cluster::Cluster| {
                cluster.some_nodes(after.as_deref(), NODES_PAGE_MAX)
            };
            let (rows, more) = core.read(read).await?;
            Ok(Reply::Nodes { rows: update::with_samples(core, rows), more })
        }
        Request::Status => {
            let summary = core.read(gantry_cluster::Cluster::summary).await?;
            let journal = core.board().journal.told();
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let at = core.clock.now();
            let status = SchedulerStatus { at, version, summary, journal };
            Ok(Reply::Status(Box::new(status)))
        }
        Request::Gpus { after, job } => gpus(shared, after, job).await.map(Reply::Gpus),
        Request::Metrics { job } => Ok(Reply::Metrics(core.board().metrics(job, POINTS_SHOWN))),
        Request::Notes { query } => {
            if let Some(text) = &query.text {
                check_text(text)?;
            }
            core.notes(query).await.map(Reply::Notes)
        }
        _ => Err(Reject::invalid("this request changes something and is not a question")),
    }
}

async fn wait(shared: &Shared, job: JobId, indices: Option<IndexSet>) -> Result<Reply, Reject> {
    let mut ended = shared.core.ended();
    loop {
        // Marked before the look, so that an end in between is not missed.
        ended.borrow_and_update();
        let row = match indices.clone() {
            None => known(shared, job).await?,
            Some(some) => shared.core.read(move |cluster| cluster.part(job, &some)).await??,
        };
        if row.state.is_ended() {
            return Ok(Reply::Job(Box::new(row)));
        }
        let gone =
            || Reject::new(RejectKind::Busy, "the scheduler is ending; wait again once it is back");
        let changed = ended.changed();
        if indices.is_none() {
            changed.await.map_err(|_| gone())?;
        } else if let Ok(changed) = tokio::time::timeout(ELEMENTS_EACH, changed).await {
            changed.map_err(|_| gone())?;
        }
    }
}

/// Asks the node that runs or ran a task for a piece of its output.
pub(super) async fn output(shared: &Shared, task: TaskId, offset: u64) -> Result<Output, Reject> {
    let known =
        shared.core.read(move |cluster| (cluster.has_task(task), cluster.task_node(task))).await?;
    let node = match known {
        (false, _) => {
            return Err(Reject::not_found(format!(
                "there is no task {task}; gantry job {} lists them",
                task.job
            )));
        }
        (true, None) => return Ok(Output { bytes: Vec::new(), next: 0, live: true }),
        (true, Some(node)) => node,
    };
    let away = |why: &str| {
        Reject::new(
            RejectKind::Busy,
            format!("the output of {task} is on {node}, {why}; ask again once it is back"),
        )
    };
    let Some(connection) = shared.core.agents.connection(&node) else {
        return Err(away("which is not connected"));
    };
    let request = NodeRequest::Output { task, offset };
    match tokio::time::timeout(OUTPUT_TIMEOUT, exchange(&connection, &request)).await {
        Ok(Ok(NodeReply::Output(output))) => Ok(output),
        Ok(Ok(NodeReply::Refused(reject))) => Err(reject),
        Ok(Ok(NodeReply::Found { .. }) | Err(_)) | Err(_) => Err(away("which does not answer")),
    }
}

/// What was submitted as a job.
async fn spec(shared: &Shared, user: &str, job: JobId) -> Result<Reply, Reject> {
    let read = move |cluster: &gantry_cluster::Cluster| {
        cluster.spec(job).map(|(owner, spec)| (owner.to_owned(), Box::new(spec.clone())))
    };
    let (owner, spec) = shared.core.read(read).await??;
    if owner != user && !spec.environment.is_empty() {
        return Err(Reject::new(
            RejectKind::Forbidden,
            format!("{job} sets variables, which only {owner}, who submitted it, may see"),
        ));
    }
    Ok(Reply::Spec(spec))
}

/// One page of nodes with GPUs.
async fn gpus(
    shared: &Shared,
    after: Option<String>,
    job: Option<JobId>,
) -> Result<GpuPage, Reject> {
    let read = move |cluster: &gantry_cluster::Cluster| {
        let (rows, more) = cluster.gpu_nodes(after.as_deref(), job, GPU_NODES_MAX);
        let held: BTreeSet<JobId> =
            rows.iter().flat_map(|row| &row.gpu_jobs).flatten().copied().collect();
        let holder = |job| {
            let row = cluster.job(job)?;
            Some(Holder { job, name: row.name, user: row.user })
        };
        (rows, held.into_iter().filter_map(holder).collect(), more)
    };
    let (rows, holders, more) = shared.core.read(read).await?;
    let board = shared.core.board();
    let node = |row: &NodeRow| {
        let known = board.telemetry.newest(&row.facts.name);
        GpuNode::new(row, known.as_ref().map(|(sample, at)| (sample.as_ref(), *at)), job)
    };
    Ok(GpuPage { nodes: rows.iter().map(node).collect(), holders, more })
}

/// A job that the cluster knows, or else the history.
async fn known(shared: &Shared, job: JobId) -> Result<JobRow, Reject> {
    if let Some(row) = shared.core.read(move |cluster| cluster.job(job)).await? {
        return Ok(row);
    }
    let before = Some(JobId(job.0.saturating_add(1)));
    let query = HistoryQuery { before, ..HistoryQuery::default() };
    let (rows, _) = shared.core.history(query).await?;
    rows.into_iter().find(|row| row.job == job).ok_or_else(|| unknown(job))
}

/// Whether a text may be searched for.
fn check_text(text: &str) -> Result<(), Reject> {
    if text.is_empty() || text.len() > SEARCH_BYTES_MAX {
        let sentence = format!("a search is for 1 to {SEARCH_BYTES_MAX} bytes of text");
        return Err(Reject::invalid(sentence));
    }
    Ok(())
}

/// Asks every node on which tasks of a job ran for the lines that hold a text.
async fn search(shared: &Shared, job: JobId, text: String) -> Result<Reply, Reject> {
    check_text(&text)?;
    let nodes = shared.core.read(move |cluster| cluster.job_nodes(job)).await?;
    let nodes = nodes.ok_or_else(|| unknown(job))?;
    let (mut lines, mut more) = (Vec::new(), false);
    let mut asked = JoinSet::new();
    for node in nodes {
        let Some(connection) = shared.core.agents.connection(&node) else {
            more = true;
            continue;
        };
        let request = NodeRequest::Search { job, text: text.clone() };
        asked.spawn(async move {
            tokio::time::timeout(OUTPUT_TIMEOUT, exchange(&connection, &request)).await
        });
    }
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(Ok(NodeReply::Found { lines: found, more: further }))) => {
                lines.extend(found);
                more |= further;
            }
            _ => more = true,
        }
    }
    lines.sort_by_key(|found| (found.task, found.line));
    Ok(Reply::Found { lines, more })
}

async fn exchange(connection: &Connection, request: &NodeRequest) -> Result<NodeReply, LinkError> {
    let (mut sender, mut receiver) = connection.open().await?;
    sender.send(request).await?;
    sender.finish();
    receiver.expect::<NodeReply>().await
}

pub(super) fn unknown(job: JobId) -> Reject {
    Reject::not_found(format!("there is no job {job}; gantry jobs lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_slowed_and_a_script_is_not() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..20_000 {
            now += pace.wait(now);
        }
        let took = now.duration_since(start).as_secs_f64();
        assert!((7.9..8.2).contains(&took), "16,000 beyond the first 4,000 took {took} s");
        let mut now = now + Duration::from_secs(2);
        for _ in 0..5000 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            now += Duration::from_millis(1);
        }
    }
}
