//! From what the cluster tells of an execution or a job to spans. Nothing here has a clock or a state.

use gantry_cluster::TryEnd;
use gantry_model::{AfterStop, At, Exit, JobId, JobRow, JobState, TaskState, TryId};
use sha2::{Digest, Sha256};

/// The trace of a job: 16 bytes for it, 8 for its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) id: [u8; 16],
    pub(super) root: [u8; 8],
}

/// What happened from a time to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) trace: [u8; 16],
    pub(super) id: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    pub(super) name: String,
    pub(super) start: At,
    /// Not before the start.
    pub(super) end: At,
    pub(super) attributes: Vec<(&'static str, Value)>,
    /// What happened meanwhile.
    pub(super) events: Vec<(At, &'static str)>,
    pub(super) status: Status,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Truth(bool),
}

/// How a span ended, as OpenTelemetry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Neither: it waited, was cancelled, or was stopped to go on later.
    Unset,
    Well,
    /// With a sentence in which nothing is that a user wrote.
    Ill(String),
}

impl Trace {
    /// The trace of a job, which no other job has: two clusters of one name differ in the millisecond
    /// of its submission.
    pub(super) fn of(cluster: &str, job: JobId, submitted: At) -> Self {
        let text = format!("gantry trace\0{cluster}\0{}\0{}", job.0, submitted.0);
        let hash = Sha256::digest(text.as_bytes());
        Self { id: first(&hash), root: first(&hash[16..]) }
    }

    /// The span of an execution.
    pub(super) fn of_try(&self, try_id: TryId) -> [u8; 8] {
        self.below("try", try_id)
    }

    fn below(&self, what: &str, try_id: TryId) -> [u8; 8] {
        let hash = Sha256::new().chain_update(self.id).chain_update(what);
        first(&hash.chain_update(try_id.0.to_be_bytes()).finalize())
    }

    /// What a program is told so that its spans are below those of its execution: `traceparent` of the
    /// W3C, sampled.
    pub(super) fn parent(&self, try_id: TryId) -> String {
        let (trace, id) = (u128::from_be_bytes(self.id), u64::from_be_bytes(self.of_try(try_id)));
        format!("00-{trace:032x}-{id:016x}-01")
    }
}

fn first<const N: usize>(hash: &[u8]) -> [u8; N] {
    std::array::from_fn(|place| hash[place])
}

/// The root of a trace: a job that has ended. `left_out` of its executions have no spans.
pub(super) fn of_job(cluster: &str, row: &JobRow, left_out: u32) -> Span {
    let trace = Trace::of(cluster, row.job, row.submitted);
    let ended = row.ended.unwrap_or(row.submitted).max(row.submitted);
    let (outcome, status) = match row.state {
        JobState::Done => ("done", Status::Well),
        JobState::Fail => {
            let why =
                row.exit.as_ref().map_or_else(|| "it failed".to_owned(), |exit| cause(exit).1);
            ("failed", Status::Ill(why))
        }
        _ => ("cancelled", Status::Unset),
    };
    let mut attributes = vec![
        ("gantry.job.id", Value::Text(row.job.to_string())),
        ("gantry.job.kind", Value::Text(row.kind.clone())),
        ("gantry.job.outcome", Value::Text(outcome.into())),
        ("gantry.user", Value::Text(row.user.clone())),
        ("gantry.job.cores", number(row.resources.cores)),
        ("gantry.job.gpus", number(row.resources.gpus)),
        ("gantry.job.tasks", number(row.tasks.total())),
        ("gantry.job.tasks.failed", number(row.tasks.fail)),
        ("gantry.job.tasks.cancelled", number(row.tasks.cancel)),
        ("gantry.job.starts", number(row.starts)),
    ];
    if let (JobState::Fail, Some(exit)) = (row.state, &row.exit) {
        attributes.push(("error.type", Value::Text(cause(exit).0.into())));
    }
    if left_out > 0 {
        attributes.push(("gantry.job.tries.left_out", number(left_out)));
    }
    Span {
        trace: trace.id,
        id: trace.root,
        parent: None,
        name: format!("job {}", row.kind),
        start: row.submitted,
        end: ended,
        attributes,
        events: row.started.map(|at| (at, "first start")).into_iter().collect(),
        status,
    }
}

/// How a task waited for an execution, from a time on.
pub(super) fn of_wait(cluster: &str, end: &TryEnd, since: At) -> Span {
    let trace = Trace::of(cluster, end.task.job, end.submitted);
    Span {
        trace: trace.id,
        id: trace.below("wait", end.try_id),
        parent: Some(trace.root),
        name: "wait".into(),
        start: since.min(end.placed),
        end: end.placed,
        attributes: of_task(end),
        events: Vec::new(),
        status: Status::Unset,
    }
}

/// An execution that ended at a time, and the job that it had made room for, if it had.
pub(super) fn of_try(cluster: &str, end: &TryEnd, at: At, preempted_by: Option<JobId>) -> Span {
    let trace = Trace::of(cluster, end.task.job, end.submitted);
    let (outcome, status) = match (end.exit.is_success(), end.stopped, preempted_by) {
        (true, ..) => ("done", Status::Well),
        (_, Some(AfterStop::Cancel), _) => ("cancelled", Status::Unset),
        (_, Some(AfterStop::Again), Some(_)) => ("preempted", Status::Unset),
        (_, Some(AfterStop::Again), None) => ("requeued", Status::Unset),
        (_, None, _) => ("failed", Status::Ill(cause(&end.exit).1)),
    };
    let mut attributes = of_task(end);
    attributes.extend([
        ("gantry.node", Value::Text(end.node.clone())),
        ("gantry.try.outcome", Value::Text(outcome.into())),
        ("gantry.try.again", Value::Truth(end.then == TaskState::Waiting)),
    ]);
    // A node that is lost says no code.
    if end.exit != Exit::NodeLost {
        attributes.push(("process.exit.code", number(u32::from(end.exit.code()))));
    }
    if matches!(status, Status::Ill(_)) {
        attributes.push(("error.type", Value::Text(cause(&end.exit).0.into())));
    }
    if let Some(by) = preempted_by.filter(|_| outcome == "preempted") {
        attributes.push(("gantry.try.preempted_by", Value::Text(by.to_string())));
    }
    Span {
        trace: trace.id,
        id: trace.of_try(end.try_id),
        parent: Some(trace.root),
        name: "try".into(),
        start: end.placed,
        end: at.max(end.placed),
        attributes,
        events: end.began.map(|began| (began, "running")).into_iter().collect(),
        status,
    }
}

/// What the spans of a task say of it.
fn of_task(end: &TryEnd) -> Vec<(&'static str, Value)> {
    vec![
        ("gantry.job.id", Value::Text(end.task.job.to_string())),
        ("gantry.job.kind", Value::Text(end.kind.into())),
        ("gantry.user", Value::Text(end.user.clone())),
        ("gantry.task.index", number(end.task.index)),
        ("gantry.try.id", Value::Text(end.try_id.to_string())),
        ("gantry.try.start", number(end.start)),
    ]
}

fn number(number: u32) -> Value {
    Value::Number(number.into())
}

/// The word and the sentence for an end that was not well. Sentences of the end itself may name a path.
fn cause(exit: &Exit) -> (&'static str, String) {
    match exit {
        Exit::Code(code) => ("exit", format!("exit {code}")),
        Exit::Signal(signal) => ("signal", format!("ended by signal {signal}")),
        Exit::NotStarted { code: 125, .. } => {
            ("node_not_ready", "its node could not be made ready for it".into())
        }
        Exit::NotStarted { code, .. } => {
            ("not_started", format!("it could not be started: {code}"))
        }
        Exit::Failed(_) => ("operation", "the operation failed".into()),
        Exit::TimeLimit => ("time_limit", "ended at its time limit".into()),
        Exit::NodeLost => ("node_lost", "its node was lost".into()),
        Exit::OutOfMemory { used, limit } => {
            ("out_of_memory", format!("out of memory: it used {used} of {limit}"))
        }
    }
}

#[cfg(test)]
mod tests;
