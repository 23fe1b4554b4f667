//! Messages to bytes and back: the words that agents, consoles and the scheduler exchange.
//!
//! [`codec`] is the only place that knows the encoding, [`frame`] the only one that knows how a
//! message stands on a stream. Both check lengths before they allocate. A released message is
//! never edited: a new version is added beside it, and [`hello`] agrees on the one both speak.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod error;
pub mod frame;
pub mod hello;
pub mod message;

pub use error::WireError;
pub use frame::Message;
pub use message::{
    AccessRow, AgentMessage, AuditPage, AuditQuery, AuditReport, AuditRow, AuthorityState,
    AuthorityStep, Changes, Found, GpuNode, GpuPage, GpuRow, Greeting, HistoryQuery, Holder,
    Invitation, JoinReply, JoinRequest, JournalCopy, JournalUse, Metric, NodeReply, NodeRequest,
    NodeStatus, NotePage, NotePlace, NoteQuery, NoteRow, Output, Peer, Point, RenewRequest, Reply,
    Request, SchedulerMessage, SchedulerStatus, Scope, SeriesRow, Step, Update, UseBy, UseRow,
    Verdict,
};
