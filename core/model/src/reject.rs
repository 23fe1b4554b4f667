//! A refusal is data: what kind it is, and a sentence that says what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something was refused; decides the exit code of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectKind {
    /// The request itself is wrong: a malformed value, or one outside a limit.
    Invalid,
    /// What the request names does not exist.
    NotFound,
    /// The request is well formed and cannot be met by any node of the cluster.
    Unsatisfiable,
    /// The step is not allowed from the present state.
    State,
    /// The peer's role may not do this.
    Forbidden,
    /// A limit is reached; the same request may be accepted later.
    Busy,
}

/// A refused request or event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Reject {
    /// The kind of refusal.
    pub kind: RejectKind,
    /// One sentence for a person: what, why, and what to do.
    pub sentence: String,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Reject {
    /// A refusal of any kind.
    pub fn new(kind: RejectKind, sentence: impl Into<String>) -> Self {
        Self { kind, sentence: sentence.into() }
    }

    /// A malformed or out-of-limit request.
    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self::new(RejectKind::Invalid, sentence)
    }

    /// A request for something that does not exist.
    pub fn not_found(sentence: impl Into<String>) -> Self {
        Self::new(RejectKind::NotFound, sentence)
    }
}
