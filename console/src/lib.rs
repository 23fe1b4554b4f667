//! gantry, the one binary: the full-screen console, every subcommand and the entry points of the
//! daemons.
//!
//! A subcommand is a role: `gantry` opens the console, `gantry submit` and its kin are for people
//! and scripts, `gantry scheduler`, `gantry agent` and `gantry worker` are the daemons, and
//! `gantry demo` runs all of them on one machine. This crate holds what a person sees; what is
//! decided is decided in the machines of `core/`.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod cli;
pub mod demo;
pub mod error;
pub mod librarian;
pub mod live;
pub mod output;
pub mod pictures;
pub mod recording;
pub mod term;
pub mod ui;
mod watched;

pub use cli::main;

/// Messages are made by one thread and dropped by another, which the C library's allocator does
/// under a lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
