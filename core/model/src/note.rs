//! The event log: what happened to what, in a sentence.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, TaskId};
use crate::units::At;

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The normal course of work.
    Info,
    /// What an operator did.
    Note,
    /// Odd, nothing lost.
    Warn,
    /// A person must act.
    Fail,
}

impl Level {
    /// The word for it; loud levels are upper case so that colour need not carry the meaning.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Note => "note",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// What a note is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// A node, by its name.
    Node(String),
    /// A job.
    Job(JobId),
    /// A task.
    Task(TaskId),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Node(name) => f.write_str(name),
            Self::Job(job) => job.fmt(f),
            Self::Task(task) => task.fmt(f),
        }
    }
}

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When it happened.
    pub at: At,
    /// How much it matters.
    pub level: Level,
    /// What it is about.
    pub subject: Subject,
    /// One sentence.
    pub sentence: String,
}
