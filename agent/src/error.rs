//! What keeps an agent from doing its work.

use std::path::{Path, PathBuf};

use gantry_library::LibraryError;
use gantry_link::LinkError;
use gantry_metrics::MetricsError;

/// A failure of the agent itself; what a task does wrong is its exit, not an error of the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The settings ask for a de-identification that is not carried out.
    #[error("[ingest.deidentify] cannot be carried out: {reason}")]
    Deidentify {
        /// What to change.
        reason: String,
    },
    /// The receiver cannot answer, or call back, with TLS.
    #[error("[{section}] cannot be used: {reason}")]
    Tls {
        /// The section of the settings.
        section: &'static str,
        /// What to change.
        reason: String,
    },
    /// A file or folder of the agent.
    #[error("{what} {path} failed: {reason}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another agent uses the folder.
    #[error(
        "another agent runs in {folder}; stop it first, or give this one a folder of its own",
        folder = folder.display()
    )]
    Running {
        /// The folder.
        folder: PathBuf,
    },
    /// The process that starts commands.
    #[error("taking over what runs on this node failed: {reason}")]
    Supervisor {
        /// Why, and what to do.
        reason: String,
    },
    /// Identity or connection.
    #[error("{0}; join this node first with gantry join TOKEN")]
    Identity(#[from] LinkError),
    /// The address for metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The library.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The DICOM receiver cannot listen.
    #[error(
        "receiving DICOM on {address} failed: {reason}; another receiver may be running there, or choose another port"
    )]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        reason: String,
    },
    /// A DICOM peer did not do what was asked.
    #[error("sending to {peer} failed: {reason}")]
    Send {
        /// The peer.
        peer: std::net::SocketAddr,
        /// Why, and what to do.
        reason: String,
    },
}

impl AgentError {
    pub(crate) fn file(what: &'static str, path: &Path, error: impl std::fmt::Display) -> Self {
        Self::File { what, path: path.to_owned(), reason: error.to_string() }
    }
}
