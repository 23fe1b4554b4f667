//! Warm workers: processes that carry out built-in operations one after the other, so that an
//! operation costs no process of its own and a crash costs one operation.
//!
//! `gantry worker` is the process; [`pool`] is the agent's side. The operations themselves are
//! calls into `kernels/` with what the library holds.

mod operations;
pub(crate) mod pool;
mod protocol;

use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use gantry_model::{Builtin, Exit, TaskId};

use protocol::{FromWorker, ToWorker};

/// The process: reads operations from standard input until it closes.
#[must_use]
pub fn run() -> ExitCode {
    // The agent's end of the pipe closes when it dies, and the reader below ends the process; this
    // is for an agent that is killed while the worker is deep in a computation.
    let parent =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if parent.is_err() {
        return ExitCode::from(125);
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(125),
    }
}

fn serve() -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let operations = listen(stop.clone());
    let mut out = io::stdout().lock();
    protocol::write(&mut out, &FromWorker::Ready)?;
    while let Ok((task, builtin, output)) = operations.recv() {
        stop.store(false, Ordering::Relaxed);
        let exit = carry_out(task, &builtin, &output, &stop);
        protocol::write(&mut out, &FromWorker::Done(exit))?;
    }
    Ok(())
}

/// Reads what the agent says on a thread of its own, so that a stop is heard within an operation.
fn listen(stop: Arc<AtomicBool>) -> mpsc::Receiver<(TaskId, Builtin, String)> {
    let (sender, operations) = mpsc::channel();
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            match protocol::read::<ToWorker>(&mut input) {
                Ok(Some(ToWorker::Run { task, builtin, output })) => {
                    if sender.send((task, builtin, output)).is_err() {
                        return;
                    }
                }
                Ok(Some(ToWorker::Stop)) => stop.store(true, Ordering::Relaxed),
                // The agent is gone: so is everybody who could use the result.
                Ok(None) | Err(_) => std::process::exit(0),
            }
        }
    });
    operations
}

/// Carries out one operation. A panic ends it and not the process; what it says has gone to
/// standard error, which is the agent's log.
fn carry_out(task: TaskId, builtin: &Builtin, output: &str, stop: &AtomicBool) -> Exit {
    let mut log = match File::options().create(true).append(true).open(output) {
        Ok(log) => log,
        Err(error) => return Exit::Failed(format!("the output file cannot be written: {error}")),
    };
    let result = catch_unwind(AssertUnwindSafe(|| operations::run(task, builtin, &mut log, stop)));
    let exit = match result {
        Ok(Ok(())) => Exit::Code(0),
        Ok(Err(sentence)) => Exit::Failed(sentence),
        Err(_) => Exit::Failed(format!(
            "{} panicked; this is a fault of gantry, please report it",
            builtin.name()
        )),
    };
    if let Exit::Failed(sentence) = &exit {
        // The sentence stands in the exit as well.
        let _ = writeln!(log, "failed: {sentence}");
    }
    exit
}
