//! A node's decisions as a pure state machine.
//!
//! [`Node`] takes the cluster's orders and what the runner observes, and says what to start, which
//! signal to send and what to report. It never decides what runs.
//!
//! What it promises: a try is started at most once, and never after it was told to stop; every
//! try's end is kept ([`Effect::Spool`]) before it is reported, and reported again after each
//! reconnection until the cluster acknowledges it; a try that is told to stop gets TERM, and KILL
//! once the grace time is over. After the agent's own restart it takes over what still runs
//! ([`Event::Restored`]), with the time limits counted from the first start. Processes, files and
//! sockets are the agent's business.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod machine;

pub use machine::{Effect, End, Event, Node, NodeSettings, Signal};
