//! Every message, by who says it to whom.
//!
//! After the [`Greeting`] on the first stream, an agent keeps that stream for [`AgentMessage`] and
//! [`SchedulerMessage`]. Each [`Request`] of a console or a command, and each [`NodeRequest`] of
//! the scheduler to an agent, has a stream of its own with one answer, except
//! [`Request::Watch`], which is answered by [`Step`]s until the stream is closed.

mod access;
mod agent;
mod gpus;
mod picture;
mod status;

use gantry_model::access::Role;
use gantry_model::{
    Action, At, IndexSet, JobId, JobRow, JobSpec, Level, Millis, NodeRow, Note, Principal, Reject,
    Spent, Subject, TaskId, TaskRow, Why,
};
pub use gantry_telemetry::Point;
use gantry_telemetry::{Bucket, Quantity, Sample};
use serde::{Deserialize, Serialize};

pub use access::{
    AccessRow, AuditPage, AuditQuery, AuditReport, AuditRow, AuthorityState, AuthorityStep,
    Invitation,
};
pub use agent::{
    AgentMessage, Greeting, JoinReply, JoinRequest, NodeReply, NodeRequest, Peer, RenewRequest,
    SchedulerMessage, Verdict,
};
pub use gpus::{GpuNode, GpuPage, GpuRow, Holder};
pub use picture::{Changes, Rows, Step, Update};
pub use status::{JournalCopy, JournalUse, SchedulerStatus};

/// A curve of one metric of one job, newest last, thinned to what a screen can show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name, as the task printed it.
    pub name: String,
    /// Its points.
    pub points: Vec<Point>,
}

/// What a user asks of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Submit a job. The same key gives the same job, however often it is sent.
    Submit {
        /// The idempotency key, made by the sender.
        key: String,
        /// The job.
        spec: Box<JobSpec>,
    },
    /// Cancel a job, or some elements of it.
    Cancel {
        /// The job.
        job: JobId,
        /// Which elements; all where absent.
        indices: Option<IndexSet>,
    },
    /// Change something of a job or a node.
    Act(Action),
    /// Why a job waits, or some elements of it.
    Why {
        /// The job.
        job: JobId,
        /// Which elements; all where absent.
        indices: Option<IndexSet>,
    },
    /// One page of jobs that have ended, newest first.
    History {
        /// Which ones.
        query: HistoryQuery,
    },
    /// What was used in a time, summed.
    Use {
        /// By whom or what it is summed.
        by: UseBy,
        /// Jobs that ended from then on.
        from: At,
        /// Jobs that ended before then.
        until: At,
    },
    /// Lines of the output of a job's tasks that hold a text.
    Search {
        /// The job.
        job: JobId,
        /// The text, as it stands.
        text: String,
    },
    /// Read the settings file again.
    Reload,
    /// One page of jobs, newest first.
    Jobs {
        /// Only those older than this one: the last of the page before.
        before: Option<JobId>,
        /// Ended jobs too.
        ended: bool,
    },
    /// One job.
    Job {
        /// The job.
        job: JobId,
    },
    /// One page of a job's tasks.
    Tasks {
        /// The job.
        job: JobId,
        /// From this array index on.
        from: u32,
    },
    /// Wait until a job has ended, or some elements of it, then answer with a row of those.
    Wait {
        /// The job.
        job: JobId,
        /// Which elements; all where absent.
        indices: Option<IndexSet>,
    },
    /// One page of nodes with their last samples, in the order of their names.
    Nodes {
        /// Only those whose names come later: the last of the page before.
        after: Option<String>,
    },
    /// The past of readings of a node, each in so many equal parts.
    Series {
        /// The node.
        node: String,
        /// Which readings; of each GPU where they are a GPU's.
        quantities: Vec<Quantity>,
        /// How far back.
        span: Millis,
        /// Into how many parts it is divided.
        cells: u16,
    },
    /// A piece of a task's output.
    Output {
        /// The task.
        task: TaskId,
        /// From this byte on.
        offset: u64,
    },
    /// The metrics of a job.
    Metrics {
        /// The job.
        job: JobId,
    },
    /// One page of the event log.
    Notes {
        /// Which lines.
        query: NoteQuery,
    },
    /// Make a token with which one node of this name may join.
    Token {
        /// The node's name.
        node: String,
    },
    /// Send what this screen shows, now and whenever it changes.
    Watch {
        /// What is on the screen.
        scope: Scope,
    },
    /// One page of nodes that have GPUs, in the order of their names.
    Gpus {
        /// Only those whose names come later: the last of the page before.
        after: Option<String>,
        /// Only the GPUs that this job holds.
        job: Option<JobId>,
    },
    /// What was submitted as a job. Others than its user are given it only where it sets no
    /// variables, which may be secret.
    Spec {
        /// The job.
        job: JobId,
    },
    /// How the scheduler itself does.
    Status,
    /// One page of those who have access, people first; of people without more rights their own row.
    Access {
        /// Only those that come later: the last of the page before.
        after: Option<Principal>,
    },
    /// Give a person who has access another role. It holds at once.
    Grant {
        /// The person.
        user: String,
        /// The role.
        role: Role,
    },
    /// Take access away: live connections are closed, and certificates made so far count no more.
    Revoke {
        /// From whom.
        principal: Principal,
    },
    /// Make a token with which a person of this name gets an identity, with this role.
    UserToken {
        /// The person.
        user: String,
        /// The role.
        role: Role,
    },
    /// One page of the audit log.
    Audit {
        /// Which lines.
        query: AuditQuery,
    },
    /// Look whether the audit log is as it was written.
    VerifyAudit,
    /// Copy the journal, as it is now, to a file beside it, for a backup.
    Copy,
    /// How far a rotation of the cluster's authority has come.
    Authority {
        /// The step of it to take first.
        step: Option<AuthorityStep>,
    },
}

/// Which ended jobs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// Only those of this user.
    pub user: Option<String>,
    /// Only those of this group.
    pub group: Option<String>,
    /// Only those that ended from then on.
    pub from: Option<At>,
    /// Only those that ended before then.
    pub until: Option<At>,
    /// Only those older than this one: the last of the page before.
    pub before: Option<JobId>,
}

/// Which lines of the event log are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteQuery {
    /// Only what happened from then on.
    pub from: Option<At>,
    /// Only what happened before then.
    pub until: Option<At>,
    /// Only what matters so much or more.
    pub least: Option<Level>,
    /// Only what is about this; a job's lines are its tasks' lines too.
    pub subject: Option<Subject>,
    /// Only lines whose sentence holds this text, as it stands.
    pub text: Option<String>,
    /// Which of them.
    pub place: NotePlace,
}

/// Where in the event log a page lies. Lines have numbers that rise with their times and are never
/// given twice; between two there may be a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotePlace {
    /// At its end.
    #[default]
    Newest,
    /// Right before the line with this number.
    Before(u64),
    /// Right behind the line with this number; behind 0 is its beginning.
    Behind(u64),
}

/// One line of the event log as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRow {
    /// Its number.
    pub number: u64,
    /// What it says.
    pub note: Note,
}

/// One page of the event log: what a look over some numbers has found. A page may be empty and
/// have more beyond it, since one look goes over a bounded number of lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotePage {
    /// The lines, oldest first.
    pub rows: Vec<NoteRow>,
    /// The page before this one lies before this number.
    pub first: u64,
    /// The page after this one lies behind this number.
    pub last: u64,
    /// Whether lines exist beyond, in the direction of the question: older ones, or newer ones
    /// where those behind a line were asked for.
    pub more: bool,
}

/// By what use is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UseBy {
    /// By who submitted.
    User,
    /// By the group whose quota was used.
    Group,
    /// By what the jobs did.
    Kind,
    /// By day, in UTC.
    Day,
}

/// One line of a report of use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UseRow {
    /// The user, group, kind or day.
    pub name: String,
    /// Jobs that ended.
    pub jobs: u64,
    /// Jobs among them that failed.
    pub failed: u64,
    /// Their tasks.
    pub tasks: u64,
    /// What they took.
    pub spent: Spent,
}

/// A line of output that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Whose output it is.
    pub task: TaskId,
    /// The line, counted from 1.
    pub line: u64,
    /// Its text, cut where it is long.
    pub text: String,
}

/// What is on a console's screen, and so what is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Summary, nodes, running and waiting jobs, notes.
    Overview,
    /// Nodes with their samples.
    Nodes,
    /// Jobs, newest first.
    Jobs,
    /// One job with its metrics and the end of its first task's output.
    Job(JobId),
    /// Library counts and the jobs that work on it.
    Data,
    /// The summary and the newest lines of the event log; what else is shown is asked for by page.
    Summary,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It was refused.
    Refused(Reject),
    /// The job is durable under this id.
    Submitted(JobId),
    /// So many tasks were cancelled or told to stop.
    Cancelled(u32),
    /// It is done, to so many tasks.
    Acted(u32),
    /// Why a job waits.
    Why(Box<Why>),
    /// A report of use.
    Use(Vec<UseRow>),
    /// Lines that were found.
    Found {
        /// The lines, by task.
        lines: Vec<Found>,
        /// Whether there are more than an answer holds, or a node did not answer.
        more: bool,
    },
    /// The settings are read; what of them waits for a restart.
    Reloaded(Vec<String>),
    /// A page of jobs.
    Jobs {
        /// The rows.
        rows: Vec<JobRow>,
        /// Whether older ones exist.
        more: bool,
    },
    /// One job.
    Job(Box<JobRow>),
    /// A page of tasks.
    Tasks {
        /// The rows.
        rows: Vec<TaskRow>,
        /// Whether further ones exist.
        more: bool,
    },
    /// A page of nodes with their last samples.
    Nodes {
        /// The rows.
        rows: Vec<NodeStatus>,
        /// Whether further ones exist.
        more: bool,
    },
    /// The past of readings.
    Series {
        /// The scheduler's clock, with which the last part ends.
        at: At,
        /// One for each quantity, and for each GPU where it is a GPU's.
        rows: Vec<SeriesRow>,
    },
    /// A piece of output.
    Output(Output),
    /// Metrics.
    Metrics(Vec<Metric>),
    /// A page of the event log.
    Notes(NotePage),
    /// A token.
    Token(String),
    /// A page of nodes with GPUs.
    Gpus(GpuPage),
    /// What was submitted.
    Spec(Box<JobSpec>),
    /// How the scheduler does.
    Status(Box<SchedulerStatus>),
    /// A page of those who have access; after a change the one that it was about.
    Access {
        /// The rows.
        rows: Vec<AccessRow>,
        /// Whether further ones exist.
        more: bool,
    },
    /// A page of the audit log.
    Audit(AuditPage),
    /// Whether the audit log is as it was written.
    Verified(AuditReport),
    /// The journal is copied.
    Copied(JournalCopy),
    /// The cluster's authority.
    Authority(Box<AuthorityState>),
}

/// A node with what is known of it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub row: NodeRow,
    /// Its newest sample.
    pub sample: Option<Sample>,
    /// When the sample arrived, by the scheduler's clock.
    pub sampled: Option<At>,
}

/// The past of one reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesRow {
    /// What was read.
    pub quantity: Quantity,
    /// Of which GPU, by index; absent where it is the node's.
    pub gpu: Option<u16>,
    /// The parts, oldest first; an absent one is a gap.
    pub cells: Vec<Option<Bucket>>,
}

/// A piece of a task's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The bytes from the offset asked for.
    pub bytes: Vec<u8>,
    /// Where the next piece begins.
    pub next: u64,
    /// Whether more may come: the task has not ended.
    pub live: bool,
}

impl Output {
    /// Bytes of one piece: with its frame it stays below 64 KiB. Who asks for what lies before a piece
    /// asks from so many bytes before it, and the two join.
    pub const PIECE_BYTES: u64 = 32 * 1024;
}
