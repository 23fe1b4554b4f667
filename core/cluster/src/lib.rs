//! The scheduler's decisions as a pure state machine.
//!
//! [`Cluster`] takes what users ask, what nodes report and the time, and gives orders, answers and
//! notes. It keeps no clock and touches nothing outside: the daemon around it appends each
//! [`Event`] to the journal before it is applied, so that the journal is the whole state.
//!
//! What it promises: no core, byte of memory or GPU is leased twice; a task has at most one live
//! try; a try that was given up is ended on its node before that node gets new work; what ended
//! never runs again. [`Cluster::check`](gantry_model::Machine::check) proves it.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod cluster;
mod event;
mod job;
mod node;
mod nodes;
mod place;
mod requests;
mod tries;
mod views;

pub use cluster::{Cluster, ClusterSettings};
pub use event::{Answer, Effect, Event};
