//! What agents and nodes that join say, and what they are told.

use gantry_model::health::Finding;
use gantry_model::{At, JobId, Millis, NodeFacts, NodeId, Order, Reject, Report, TaskId, TryId};
use gantry_telemetry::{Answer, Point, Reading};
use serde::{Deserialize, Serialize};

use super::{Found, Output};

/// Who is calling. The certificate must agree with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    /// An agent, for its own node.
    Agent,
    /// A console or a command, for a user.
    Console,
    /// A new node with a token and no certificate yet.
    Joining,
    /// A person with a token and no certificate yet.
    JoiningUser,
    /// Whoever has a certificate and wants the next one, also a while after the old one has ended.
    Renewing,
}

/// The first message on a connection, from the one who called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Who is calling.
    pub peer: Peer,
    /// The oldest protocol version it speaks.
    pub version_min: u16,
    /// The newest protocol version it speaks.
    pub version_max: u16,
    /// Its program version, for people.
    pub software: String,
}

/// The answer to a greeting. Connected means that a welcome has arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Speak on.
    Welcome {
        /// The protocol version both speak from here on.
        version: u16,
        /// The cluster's name.
        cluster: String,
        /// The scheduler's clock.
        at: At,
    },
    /// Go away; the sentence says why and what to do.
    Refused(Reject),
}

/// What an agent says on its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentMessage {
    /// Right after the welcome: what the node is, and every try it holds, live or with an end
    /// that is not acknowledged yet.
    Up {
        /// The node's facts.
        facts: Box<NodeFacts>,
        /// Tries it holds.
        holds: Vec<TryId>,
    },
    /// Something happened to a try.
    Report(Report),
    /// A reading of the node. Sent as a datagram where it fits.
    Reading(Box<Reading>),
    /// New points of metrics that a task printed.
    Metrics {
        /// The task that printed them.
        task: TaskId,
        /// The points, in the order in which they were printed.
        points: Vec<(String, Point)>,
    },
    /// Something is wrong with the node, or not any more.
    Found(Finding),
    /// A test that was ordered has ended.
    Tested {
        /// The test's number.
        number: u64,
        /// What is wrong; nothing where it is absent.
        wrong: Option<String>,
    },
    /// How far a task says it is.
    Progress {
        /// The task that printed it.
        task: TaskId,
        /// Thousandths of its work that are done.
        permille: u16,
    },
    /// In place of [`Self::Up`], from who supervises the node's commands: the agent is gone.
    Gone {
        /// The scheduler's clock when it welcomed that agent, which is how the two know it.
        welcomed: At,
        /// Tries that outlive it, live or with an end that is not acknowledged.
        holds: Vec<TryId>,
    },
    /// After [`Self::Up`]: the node will be gone after so long, and shall be free by then.
    Leaves {
        /// From now.
        after: Millis,
    },
}

/// What the scheduler says on an agent's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerMessage {
    /// Do this.
    Order(Order),
    /// What has become of a reading.
    Answer(Answer),
}

/// What the scheduler asks of an agent, on a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRequest {
    /// A piece of the output of the newest try of a task that ran here.
    Output {
        /// The task.
        task: TaskId,
        /// From this byte on; `u64::MAX` asks for the last piece.
        offset: u64,
    },
    /// Lines of the output of a job's tasks that ran here.
    Search {
        /// The job.
        job: JobId,
        /// The text, as it stands.
        text: String,
    },
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeReply {
    /// It was refused.
    Refused(Reject),
    /// A piece of output.
    Output(Output),
    /// Lines that were found.
    Found {
        /// The lines, by task.
        lines: Vec<Found>,
        /// Whether there are more than an answer holds.
        more: bool,
    },
}

/// A new node asks for its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The single-use token.
    pub token: String,
    /// The node's or person's name; must be the one the token was made for.
    pub node: String,
    /// The certificate signing request, DER. The key never leaves the node.
    pub request_der: Vec<u8>,
}

/// Somebody with a certificate asks for the next one, for the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The certificate signing request, DER. The key never leaves its host.
    pub request_der: Vec<u8>,
}

/// The answer to a join, and to a wish for the next certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// Welcome to the cluster.
    Joined {
        /// The node's number.
        node: Option<NodeId>,
        /// Its certificate, DER.
        certificate_der: Vec<u8>,
        /// The authority's certificate, DER.
        authority_der: Vec<u8>,
    },
    /// Refused; the sentence says why.
    Refused(Reject),
}
