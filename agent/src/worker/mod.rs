//! Warm workers: processes that carry out built-in operations one after the other, so that an
//! operation costs no process of its own and a crash costs one operation.
//!
//! `gantry worker` is the process; [`pool`] is the agent's side. The operations themselves are
//! calls into `kernels/` with what the library holds.

mod operations;
pub(crate) mod pool;
mod protocol;
mod usage;

use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use gantry_model::{Builtin, Exit, TaskId};

use crate::pipe;
use protocol::{FromWorker, ToWorker};
use usage::Meter;

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
    pipe::write(&mut out, &FromWorker::Ready)?;
    while let Ok((task, builtin, output)) = operations.recv() {
        let meter = Meter::start();
        let exit =
            carry_out(builtin.name(), &output, |log| operations::run(task, &builtin, log, &stop));
        pipe::write(&mut out, &FromWorker::Done(exit, meter.read()))?;
    }
    Ok(())
}

/// Reads what the agent says on a thread of its own, so that a stop is heard within an operation.
fn listen(stop: Arc<AtomicBool>) -> mpsc::Receiver<(TaskId, Builtin, String)> {
    let (sender, operations) = mpsc::channel();
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            match pipe::read::<ToWorker>(&mut input) {
                Ok(Some(ToWorker::Run { task, builtin, output })) => {
                    // Here and not where it begins: a stop that follows at once is not undone.
                    stop.store(false, Ordering::Relaxed);
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
fn carry_out(
    name: &str,
    output: &str,
    operation: impl FnOnce(&mut File) -> Result<(), String>,
) -> Exit {
    let mut log = match File::options().create(true).append(true).open(output) {
        Ok(log) => log,
        Err(error) => return Exit::Failed(format!("the output file cannot be written: {error}")),
    };
    let result = catch_unwind(AssertUnwindSafe(|| operation(&mut log)));
    let exit = match result {
        Ok(Ok(())) => Exit::Code(0),
        Ok(Err(sentence)) => Exit::Failed(sentence),
        Err(_) => {
            Exit::Failed(format!("{name} panicked; this is a fault of gantry, please report it"))
        }
    };
    if let Exit::Failed(sentence) = &exit {
        // The sentence stands in the exit as well.
        let _ = writeln!(log, "failed: {sentence}");
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn an_operation_ends_with_a_sentence_and_never_with_the_process() {
        type Operation = fn(&mut File) -> Result<(), String>;
        let panicked = "broken panicked; this is a fault of gantry, please report it";
        let cases: [(&str, Operation, Exit); 3] = [
            ("fine", |log| writeln!(log, "hello").map_err(|e| e.to_string()), Exit::Code(0)),
            ("wrong", |_| Err("it is wrong".into()), Exit::Failed("it is wrong".into())),
            ("broken", |_| panic!("as the test wants it"), Exit::Failed(panicked.into())),
        ];
        let folder = TempDir::new().unwrap();
        let output = folder.path().join("0.out").display().to_string();
        for (name, operation, expected) in cases {
            assert_eq!(carry_out(name, &output, operation), expected);
        }
        let written = std::fs::read_to_string(&output).unwrap();
        assert_eq!(written, format!("hello\nfailed: it is wrong\nfailed: {panicked}\n"));
    }
}
