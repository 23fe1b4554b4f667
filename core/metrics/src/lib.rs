//! What a daemon tells a monitoring system.
//!
//! A [`Page`] holds families of numbers with their names, units and labels, and becomes text in the
//! `OpenMetrics` format. [`serve`] gives the page of a [`Source`] to whoever asks over HTTP. The
//! scheduler's endpoint and an agent's say the same of a node ([`node`]), the one of all nodes and
//! the other of its own.
//!
//! Labels name nodes, GPUs and states. Names of jobs and users, and sentences, never become labels:
//! there is no end to them, and a monitoring system is read by more people than a cluster.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod node;
mod page;
mod server;

pub use page::{Family, Kind, Labels, Page, Unit, Value, labels};
pub use server::{Answer, Call, MetricsError, Source, bind, serve};
