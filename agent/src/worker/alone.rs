//! One operation as a process of its own, under the supervisor: a training, which goes on for hours
//! and outlives the agent that started it, and any operation of a node that gives each try more
//! than limits (an account, cores, scratch space, scripts).
//!
//! It is told what to do on its standard input, prints into its output as a command does, and ends
//! with 0, or with 1 and a last line that begins with [`FAILED`]. A warning is the signal that the
//! job asked for, a stop is TERM: that ends every operation at once but a training, which keeps a
//! checkpoint first.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use gantry_model::{Builtin, Exit, Launch, TaskId, TaskWork};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::operations::Around;
use super::protocol::ToWorker;
use super::told::Told;
use super::{carry_out, last_line, operations};
use crate::pipe;

/// What the last line of an operation's output begins with where it has failed.
pub(super) const FAILED: &str = "failed: ";
/// Bytes at the end of an output that are looked at for it.
const LAST_BYTES: u64 = 4096;

/// What the process of a try reads; nothing where the try is of a command.
pub(crate) fn input(launch: &Launch) -> io::Result<Option<Vec<u8>>> {
    let TaskWork::Builtin(builtin) = &launch.work else { return Ok(None) };
    let warning = launch.warning.map(|warning| warning.signal);
    let message = ToWorker::Alone { task: launch.task, builtin: builtin.clone(), warning };
    pipe::frame(&message).map(Some)
}

/// How an operation has ended, by the end of its process and its output.
pub(crate) fn exit_of(exit: Exit, output: &Path) -> Exit {
    match exit {
        Exit::Code(1) => match sentence(output) {
            Ok(Some(sentence)) => Exit::Failed(sentence),
            _ => Exit::Failed("it failed, and its output does not say why".into()),
        },
        Exit::Code(code) if code > 1 => {
            Exit::Failed(format!("its process ended with exit code {code}"))
        }
        other => other,
    }
}

/// What the last line of an output says of a failure.
fn sentence(output: &Path) -> io::Result<Option<String>> {
    let file = File::open(output)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LAST_BYTES);
    let mut bytes = vec![0; (length - start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().next_back().and_then(|line| line.strip_prefix(FAILED)).map(str::to_owned))
}

/// Carries out the operation and ends the process.
pub(super) fn run(task: TaskId, builtin: &Builtin, warning: Option<u8>) -> io::Result<ExitCode> {
    let told = Arc::new(Told::default());
    hear(&told, builtin, warning)?;
    let exit = carry_out(builtin.name(), &mut io::stdout().lock(), |log| {
        // Its output says what it needs.
        operations::run(builtin, Around { log, told: &told, needs: &mut |_| {} })
    });
    // A full disk does not make a failure of what is in the library.
    let _ = io::stdout().write_all(last_line(task, &exit).as_bytes());
    Ok(if exit.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Hears signals from now on, on a thread of its own.
fn hear(told: &Arc<Told>, builtin: &Builtin, warning: Option<u8>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let trains = matches!(builtin, Builtin::Train { .. });
    let mut term = trains.then(|| signal(SignalKind::terminate())).transpose()?;
    // A job that wants TERM as its warning gets what TERM does; of a signal that cannot be caught
    // the same holds.
    let kind = warning.map(|number| SignalKind::from_raw(number.into()));
    let kind = kind.filter(|kind| *kind != SignalKind::terminate());
    let mut warned = kind.and_then(|kind| signal(kind).ok());
    drop(entered);
    let told = told.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    () = next(&mut term) => told.tell_to_stop(),
                    () = next(&mut warned) => told.warn(),
                }
            }
        });
    });
    Ok(())
}

/// Waits for the next signal; for ever where it is not heard.
async fn next(heard: &mut Option<Signal>) {
    let told = match heard {
        Some(heard) => heard.recv().await,
        None => None,
    };
    if told.is_none() {
        std::future::pending::<()>().await;
    }
}
