//! The nouns of gantry: ids, units, resources, jobs, nodes and the allowed steps between states.
//!
//! Every other crate speaks in these words, so each is defined once, here, with its parser and
//! its printer. Nothing in this crate reads a clock, a file or a socket: time is an argument
//! ([`At`]), and what can go wrong is data with a sentence for a person ([`Reject`]).
//!
//! The three machines of gantry (cluster, node, console) have one shape, [`Machine`].

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod array;
pub mod ids;
pub mod job;
pub mod limits;
pub mod machine;
pub mod node;
pub mod note;
pub mod order;
pub mod reject;
pub mod resources;
pub mod task;
pub mod units;
pub mod view;

pub use array::{Array, IndexSet};
pub use ids::{JobId, NodeId, TaskId, TryId};
pub use job::{Builtin, Dependency, DependencyKind, JobSpec, Work};
pub use machine::Machine;
pub use node::{Gpu, NodeFacts, NodeState, Role};
pub use note::{Level, Note, Subject};
pub use order::{Launch, Order, Report, TaskWork};
pub use reject::{Reject, RejectKind};
pub use resources::{Lease, Resources};
pub use task::{Exit, JobState, TaskState};
pub use units::{At, MemoryMib, Millis};
pub use view::{JobRow, NodeRow, Summary, TaskCounts, TaskRow};
