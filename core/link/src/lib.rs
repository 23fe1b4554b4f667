//! QUIC with mutual TLS: who is calling, streams of messages, datagrams and coming back.
//!
//! A cluster has its own authority ([`Authority`]). Every peer holds an [`Identity`] that the
//! authority signed; a new node gets its own by [`join`] with a single-use [`token`]. A peer is
//! connected once the scheduler's welcome has arrived, never before: with TLS 1.3 a client's
//! handshake succeeds even where the server is about to refuse its certificate. Certificates are
//! short-lived; [`renew`] fetches the next one, also for a while after the old one has ended, and [`Own`]
//! does so when it is due.
//!
//! People on the scheduler's own host are known by their account ([`local`]). Peers that are not of the
//! cluster are met in [`outside`], by TLS over TCP.
//!
//! This crate is the only one that knows quinn and rustls. It decides nothing: what a peer may do
//! is the scheduler's business, by the [`PeerIdentity`] that stands on the connection.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod authority;
pub mod backoff;
pub mod connect;
pub mod connection;
pub mod error;
pub mod identity;
pub mod local;
pub mod outside;
pub mod own;
mod place;
pub mod server;
mod socket;
mod tls;
pub mod token;
mod transport;

pub use authority::{Authority, Term, Trust};
pub use backoff::Backoff;
pub use connect::{Caller, Credentials, Session, connect, join, join_user, renew};
pub use connection::{Connection, Receiver, Sender};
pub use error::LinkError;
pub use identity::{Identity, IdentityKind, PeerIdentity};
pub use local::{Local, LocalCaller};
pub use outside::{Ended, Outside, Outward, Refused};
pub use own::Own;
pub use server::{Incoming, Server, Times};
