//! What can go wrong between two peers, in sentences.

use std::net::SocketAddr;
use std::path::PathBuf;

use gantry_model::Reject;
use gantry_wire::WireError;

/// A failure of identities or of the connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answered, or not as gantry does.
    #[error(
        "connecting to the scheduler at {address} failed: {reason}; check that it runs (gantry scheduler) and that UDP reaches it"
    )]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The scheduler refused; the sentence is its own.
    #[error("{0}")]
    Refused(Reject),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// A caller's certificate is not one of this cluster, has ended too long ago, or is not the caller's.
    #[error("a caller without a certificate that counts here was turned away: {0}")]
    Untrusted(String),
    /// A peer sent something that is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A peer did not answer in time.
    #[error("the peer did not answer within {seconds} s while {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// A file of an identity cannot be used.
    #[error("{what} {path} failed: {reason}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A certificate, key or token is not what it should be.
    #[error("{0}")]
    Identity(String),
    /// The socket could not be opened.
    #[error(
        "listening on {address} failed: {reason}; another scheduler may be running there, or choose another port"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

impl From<rcgen::Error> for LinkError {
    fn from(error: rcgen::Error) -> Self {
        Self::Identity(format!("making a certificate failed: {error}"))
    }
}
