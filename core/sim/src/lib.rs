//! A whole cluster in one value, run from one seed.
//!
//! The real machines of the cluster and of every node run here on a simulated network, disks,
//! clocks and GPUs, under users who submit and change their minds and faults that strike when the
//! seed says. After each step checkers hold what really happened (which processes ran, what was
//! acknowledged to whom) against what gantry promises. The same settings always give the same
//! course, so that a failure is one number.
//!
//! What it leaves to others: real sockets, files, processes and time. The shells around the
//! machines are simulated as their rules say; the real ones are tested where they are.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ailing;
mod books;
mod calendar;
mod check;
mod clock;
mod disk;
mod faults;
mod flaw;
mod hardware;
mod ledger;
mod life;
mod load;
mod network;
mod process;
mod random;
mod report;
mod sample;
mod scheduler;
mod server;
mod sessions;
mod settings;
mod simulation;
mod site;
mod spool;
mod strike;
mod timer;
mod trace;
mod users;
mod world;

pub use report::{Failure, Summary};
pub use settings::{Flaw, SimulationSettings, Strength};
pub use simulation::Simulation;
