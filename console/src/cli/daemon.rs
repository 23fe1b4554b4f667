//! A daemon as a process: its threads, its log, its end, and what a service manager hears of it.
//!
//! Under systemd (`Type=notify`, `WatchdogSec=`) it says that it is ready, and every few seconds that it
//! still does its work: the scheduler once its deciding thread has answered, the agent from the one
//! thread that it has. A manager that hears nothing starts it anew. Without a manager nothing is said.

use std::io::IsTerminal;
use std::pin::Pin;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Failure, Outcome};

/// Threads that serve a scheduler's connections, however many cores there are.
const SERVERS_MAX: usize = 8;

/// How many threads carry a daemon's connections.
#[derive(Clone, Copy, Debug)]
pub(super) enum Threads {
    /// One: an agent keeps its session and its supervisor on threads of their own, and what passes
    /// between threads costs more than what it is about.
    One,
    /// Some: a scheduler serves ten thousand agents. Its machine has a thread of its own.
    Some,
}

/// Says that the daemon is ready and does its work.
pub(super) fn alive() {
    tell(&[NotifyState::Ready, NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that does not listen any more starts the daemon anew by itself.
    let _ = sd_notify::notify(states);
}

/// Runs a daemon until it ends by itself or SIGTERM or SIGINT arrives.
pub(super) fn run<F, D>(threads: Threads, start: F) -> Outcome
where
    F: FnOnce(Pin<Box<dyn Future<Output = ()> + Send>>) -> D,
    D: Future<Output = Result<(), Failure>>,
{
    log()?;
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Some => tokio::runtime::Builder::new_multi_thread(),
    };
    if matches!(threads, Threads::Some) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads((cores / 2).clamp(1, SERVERS_MAX));
    }
    let runtime = builder.enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = Box::pin(async move {
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
            tell(&[NotifyState::Stopping]);
        });
        start(stop).await
    })?;
    Ok(0)
}

/// Sends the log to standard error: to the journal under systemd, to the screen by hand. `GANTRY_LOG` says
/// how much, `GANTRY_LOG_FORMAT` whether for people or for programs.
fn log() -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GANTRY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // A second daemon in one process, as in a test, keeps the first one's log.
    let _ = match std::env::var("GANTRY_LOG_FORMAT").as_deref() {
        Err(_) | Ok("" | "text") => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Ok("json") => log.json().flatten_event(true).try_init(),
        Ok(other) => {
            let sentence =
                format!("GANTRY_LOG_FORMAT is {other:?}; set it to text or json, or leave it out");
            return Err(Failure::usage(sentence));
        }
    };
    Ok(())
}
