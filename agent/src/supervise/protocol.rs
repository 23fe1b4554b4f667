//! What an agent and its supervisor say to each other.
//!
//! An agent that was replaced by a newer one finds the supervisor of the older one, and both must go on.
//! The supervisor says first what it speaks at most, the agent answers with what both speak, and the
//! layout of these two messages never changes. A message is never changed either: another one is added
//! behind the last, and sent to nobody who is too old for it.

use std::net::SocketAddr;
use std::path::PathBuf;

use gantry_config::Orphans;
use gantry_model::{At, Exit, Launch, TryId, Usage};
use serde::{Deserialize, Serialize};

use super::isolation::Isolation;

/// The version of everything below but [`Hello`] and [`Welcome`]. It rises when a message is added.
pub(super) const VERSION: u16 = 5;
/// The oldest one that is still spoken.
pub(super) const VERSION_MIN: u16 = 4;
/// The first one with [`ToSupervisor::Welcomed`].
pub(super) const WELCOMED_SINCE: u16 = 5;

/// The version that is spoken with somebody who speaks this one at most; nothing where that is too old.
pub(super) fn common(other: u16) -> Option<u16> {
    (other >= VERSION_MIN).then_some(other.min(VERSION))
}

/// The agent's first message, in answer to the supervisor's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// What both speak. Where the supervisor does not, it closes.
    pub(super) version: u16,
}

/// The supervisor's first message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    /// What it speaks at most.
    pub(super) version: u16,
    /// Its process, for people who must end it.
    pub(super) process: u32,
}

/// What a supervisor is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToSupervisor {
    /// What becomes of what runs when the connection closes.
    Orphans(Orphans),
    /// How commands that are started from now on are kept apart.
    Isolation(Box<Isolation>),
    /// Start a command.
    Start(Box<Start>),
    /// Send a signal to all processes of a try.
    Signal {
        /// The execution.
        try_id: TryId,
        /// The signal's number.
        number: u8,
    },
    /// The output of a try was read up to here.
    Read {
        /// The execution.
        try_id: TryId,
        /// Bytes of its output.
        offset: u64,
    },
    /// The end of a try is in the agent's spool and need not be kept here any more.
    Kept {
        /// The execution.
        try_id: TryId,
    },
    /// The scheduler has welcomed the agent.
    Welcomed(Welcomed),
}

/// Who is to be told when the agent is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcomed {
    /// The scheduler.
    pub(crate) scheduler: SocketAddr,
    /// The agent's folder, with its identity and its spool.
    pub(crate) folder: PathBuf,
    /// The scheduler's clock when it welcomed the agent.
    pub(crate) at: At,
}

/// A command to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The order, for the agent that comes after the present one.
    pub(crate) launch: Launch,
    /// The command line of a process that carries out a built-in operation.
    pub(crate) operation: Vec<String>,
    /// The variables that gantry adds.
    pub(crate) environment: Vec<(String, String)>,
    /// Where the command runs.
    pub(crate) folder: PathBuf,
    /// The file its output goes to.
    pub(crate) output: PathBuf,
    /// The folder to be made for its checkpoints.
    pub(crate) checkpoint: Option<PathBuf>,
    /// The NUMA nodes that its GPUs hang on, where the kernel says so.
    pub(crate) near: Vec<u16>,
    /// Bytes of output that the task's earlier starts have left.
    pub(crate) read: u64,
}

/// What a supervisor says after its welcome: every try it holds, that it is ready, and then what
/// happens.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromSupervisor {
    /// A try that an earlier agent started and whose end it has not kept.
    Held(Box<Held>),
    /// That were all.
    Ready,
    /// A command runs.
    Started {
        /// The execution.
        try_id: TryId,
    },
    /// A command has ended or could not be started, and nothing of it runs any more.
    Ended {
        /// The execution.
        try_id: TryId,
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
    },
}

/// A try that a supervisor holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The order.
    pub(crate) launch: Launch,
    /// When it was started.
    pub(crate) since: At,
    /// Up to where its output was read for metrics.
    pub(crate) read: u64,
    /// How it ended, if it has.
    pub(crate) end: Option<(Exit, Usage)>,
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
