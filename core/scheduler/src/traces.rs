//! Traces of jobs, for a collector that takes OpenTelemetry's protocol (OTLP over HTTP).
//!
//! A job is a trace: its root is the job from submission to end, below it each time a task waited and
//! each of its executions. [`spans`] makes them of what the cluster tells when an execution or a job
//! ends; [`watch`] is how the thread that decides hands them in; [`sender`] ships them from a thread of
//! its own; [`otlp`] is their form on the wire. Nobody waits for a collector: what a bounded queue
//! cannot hold, and what is not taken in time, is counted and given up.
//!
//! Ids follow from the cluster's name, the job and its submission, so that a restart continues a trace,
//! and so that a task can be told its own before anything was sent. No command, environment, path or
//! name that a user made up is in a span.
//!
//! Without the feature `traces` there is nothing of this but the refusal to start with a collector in the
//! settings ([`absent`]).

#[cfg(any(test, not(feature = "traces")))]
#[cfg_attr(feature = "traces", allow(dead_code))]
mod absent;
#[cfg(feature = "traces")]
mod otlp;
#[cfg(feature = "traces")]
mod sender;
#[cfg(feature = "traces")]
mod spans;
#[cfg(feature = "traces")]
mod watch;

#[cfg(not(feature = "traces"))]
pub(crate) use absent::{Exporter, Watch, start};
#[cfg(feature = "traces")]
pub(crate) use sender::{Exporter, start};
#[cfg(feature = "traces")]
pub(crate) use watch::Watch;
