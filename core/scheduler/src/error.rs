//! What keeps a scheduler from serving.

use std::path::{Path, PathBuf};

use gantry_link::LinkError;
use gantry_metrics::MetricsError;
use gantry_model::Reject;

/// A scheduler that cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The folder holds no cluster.
    #[error("no cluster in {folder}: {reason}; make one with gantry scheduler --dir {folder} init", folder = folder.display())]
    NoCluster {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Identities or the socket.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The address for metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A collector in the settings of a program that sends no traces.
    #[error(
        "traces_endpoint is set, and this program was built without traces: build it with cargo build --release --features traces, or take the setting out"
    )]
    WithoutTraces,
    /// A name that cannot be used.
    #[error("{0}")]
    Refused(Reject),
    /// A file.
    #[error("{what} {path} failed: {reason}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A backup that cannot be made or used.
    #[error("{0}")]
    Backup(String),
    /// Another scheduler uses the journal.
    #[error("another scheduler is using {folder}; stop it first", folder = folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// What the journal holds cannot be used.
    #[error(
        "the journal cannot be used: {0}; nothing was changed; restore journal.sqlite from a backup, or see what gantry scheduler check and repair can save"
    )]
    Journal(String),
    /// The journal cannot be written, and it is not known what is on the disk.
    #[error(
        "writing the journal failed: {0}; nothing more is acknowledged, check the disk and start the scheduler again"
    )]
    Storage(String),
    /// The disk is full. Nothing was acknowledged, and the scheduler goes on.
    #[error("the journal's disk is full; free some space, nothing acknowledged was lost")]
    Full,
}

impl SchedulerError {
    pub(crate) fn file(what: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::File { what, path: path.to_owned(), reason: error.to_string() }
    }
}
