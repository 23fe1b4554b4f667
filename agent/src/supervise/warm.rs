//! The process of a warm worker: limited as a command with the same lease is, but a child of the
//! agent, which it ends with.
//!
//! A worker serves many tries of many users, so that what belongs to one try alone (an account, cores
//! bound to it, scratch space, scripts) is none of it: where a node asks for any of these, an operation
//! has a process of its own ([`Isolation::is_personal`]).

use std::io;
use std::process::{Child, Command};

use gantry_config::RunAs;
use gantry_model::{Exit, Lease, MemoryMib, Usage};

use super::cgroup::{Group, WORKER};
use super::child::{self, Steps};
use super::isolation::{Isolation, Pin};

/// What is around a worker's process.
#[derive(Debug)]
pub(crate) struct Walls {
    group: Option<Group>,
    /// Whether the data of its process is limited.
    limited: bool,
}

impl Isolation {
    /// Whether each try has something of its own beside its limits.
    pub(crate) fn is_personal(&self) -> bool {
        self.takes_time() || self.pin == Pin::Cores || self.run_as == RunAs::Submitter
    }

    /// Starts a worker within the limits of a lease. The number tells it from others.
    pub(crate) fn start_worker(
        &self,
        number: u64,
        lease: &Lease,
        mut command: Command,
    ) -> io::Result<(Child, Walls)> {
        command.env("RAYON_NUM_THREADS", lease.resources.cores.max(1).to_string());
        // Operations that have GPUs are processes of their own: a worker may see none.
        command.env("CUDA_VISIBLE_DEVICES", "");
        let limits = self.process_limits(lease);
        let limited = !limits.is_empty();
        if limited {
            // To print where memory ran out takes memory: a process that is out of it would wait for
            // itself for ever.
            command.env("RUST_BACKTRACE", "0");
        }
        let mut steps = Steps { limits, ..Steps::default() };
        let group = match &self.place {
            Ok(place) => {
                let group = Group::make(place, &format!("{WORKER}{number}"), &self.limits(lease))?;
                steps.door = Some(group.door()?);
                Some(group)
            }
            Err(_) => None,
        };
        let walls = Walls { group, limited };
        match child::spawn(command, steps) {
            Ok(child) => Ok((child, walls)),
            Err((step, error)) => {
                walls.end(Exit::NodeLost, &Lease::default(), None);
                let step = step.unwrap_or("starting it");
                Err(io::Error::other(format!("{step} failed on this node: {error}")))
            }
        }
    }

    /// Removes the groups that the workers of an earlier agent have left.
    pub(crate) fn clear_workers(&self) {
        if let Ok(place) = &self.place {
            place.clear(WORKER);
        }
    }
}

impl Walls {
    /// Takes them down once the process has ended, and says how it has. `needs` is the most memory that
    /// its operation was to take, where that is known.
    pub(crate) fn end(self, exit: Exit, lease: &Lease, needs: Option<MemoryMib>) -> Exit {
        let exit = match self.group {
            Some(group) => group.end(exit, Usage::default()).0,
            None => exit,
        };
        match exit {
            // What Rust's allocator does where there is no more memory.
            Exit::Signal(signal) if self.limited && i32::from(signal) == libc::SIGABRT => {
                let needs = needs.map_or(String::new(), |needs| {
                    format!(" and its plan says that it takes up to {needs}")
                });
                Exit::Failed(format!(
                    "its worker gave up, most likely as {} of memory are not enough{needs}; ask for more",
                    lease.resources.memory
                ))
            }
            other => other,
        }
    }
}
