//! The nouns of gantry: ids, units, resources, jobs, nodes and the allowed steps between states.
//!
//! Every other crate speaks in these words, so each is defined once, here, with its parser and
//! its printer. Nothing in this crate reads a clock, a file or a socket: time is an argument
//! ([`At`]), and what can go wrong is data with a sentence for a person ([`Reject`]).
//!
//! The three machines of gantry (cluster, node, console) have one shape, [`Machine`].

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod action;
pub mod array;
pub mod conditions;
pub mod health;
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
pub mod work;

pub use access::Principal;
pub use action::{Action, JobChange};
pub use array::{Array, IndexSet};
pub use conditions::{Dependency, DependencyKind, DependencyScope, Gang, Preemption, Warning};
pub use ids::{JobId, NodeId, TaskId, TryId};
pub use job::JobSpec;
pub use machine::Machine;
pub use node::{Gpu, NodeFacts, NodeState, Role, Service, Window};
pub use note::{Level, Note, Subject};
pub use order::{Launch, Order, Report, TaskWork};
pub use reject::{Reject, RejectKind};
pub use resources::{GPU_WHOLE, GpuDemand, GpuPart, Lease, Resources, Sharing};
pub use task::{AfterStop, Exit, JobState, TaskState, Usage};
pub use units::{At, MemoryMib, Millis, things};
pub use view::{JobRow, NodeRow, OwnerRow, Spent, Summary, TaskCounts, TaskRow, Why};
pub use work::{Builtin, Work};
