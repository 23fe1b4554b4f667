//! How a command ends: its exit code and its sentence.
//!
//! 0 done; the job's own code where a command waited for one; 125 gantry's own trouble; 126 and
//! 127 as a shell has them; 2 for what the user can mend by typing it differently.

use gantry_link::LinkError;
use gantry_model::{Reject, RejectKind};

/// Gantry's own trouble: no scheduler, no storage, a broken file.
pub const TROUBLE: u8 = 125;
/// The command line or what it names is wrong.
pub const USAGE: u8 = 2;

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// A stable word for scripts.
    pub kind: &'static str,
    /// What, why and what to do.
    pub sentence: String,
}

/// What a command gives: the exit code, or how it failed.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// The user can mend it by typing it differently.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self { code: USAGE, kind: "usage", sentence: sentence.into() }
    }

    /// What a file or a name in the command line has wrong, as the crate that read it says it.
    #[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
    pub fn usage_of(error: impl ToString) -> Self {
        Self::usage(error.to_string())
    }

    /// Gantry's own trouble.
    #[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
    pub fn trouble(sentence: impl ToString) -> Self {
        Self { code: TROUBLE, kind: "trouble", sentence: sentence.to_string() }
    }
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Self {
        let (code, kind) = match reject.kind {
            RejectKind::Invalid => (USAGE, "invalid"),
            RejectKind::NotFound => (USAGE, "not-found"),
            RejectKind::Unsatisfiable => (USAGE, "unsatisfiable"),
            RejectKind::State => (USAGE, "state"),
            RejectKind::Forbidden => (TROUBLE, "forbidden"),
            RejectKind::Busy => (TROUBLE, "busy"),
        };
        Self { code, kind, sentence: reject.sentence }
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Refused(reject) => reject.into(),
            LinkError::Connect { .. } => {
                Self { code: TROUBLE, kind: "unreachable", sentence: error.to_string() }
            }
            other => Self::trouble(other),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::trouble(error)
    }
}
