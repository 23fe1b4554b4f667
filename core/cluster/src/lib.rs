//! The scheduler's decisions as a pure state machine.
//!
//! [`Cluster`] takes what users ask, what nodes report and the time, and gives orders, answers and
//! notes. It keeps no clock and touches nothing outside: the daemon around it appends each
//! [`Event`] to the journal before it is applied, so that the journal is the whole state.
//!
//! What it promises: no core, byte of memory or GPU is leased twice; a task has at most one live
//! try; a try that was given up is ended on its node before that node gets new work; what ended
//! never runs again; a gang starts whole or not at all; a job that room is kept for is not delayed
//! by those behind it. [`Cluster::check`](gantry_model::Machine::check) proves what can be proved of
//! a state alone.
//!
//! Where to begin: [`cluster`] has the value and its one method, [`place`] the pass that starts
//! tasks, [`rule`] the rules by which a node takes a task or does not, [`tries`] what follows from
//! the end of one.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod actions;
mod ahead;
mod changes;
mod check;
mod cluster;
mod decay;
mod dependencies;
mod event;
mod gang;
mod health;
mod holds;
mod job;
mod kind;
mod launch;
mod node;
mod nodes;
mod place;
mod preempt;
mod queue;
mod ranges;
mod requests;
mod reserve;
mod restored;
mod room;
mod rule;
mod settings;
mod tries;
mod views;
mod why;

pub use cluster::Cluster;
pub use event::{Answer, Effect, Event, TryEnd};
pub use settings::{ClusterSettings, GroupSettings};
