//! Built-in operations: the processes that carry them out, and the agent's side of those.
//!
//! Warm workers carry out one after the other, so that an operation costs no process of its own and
//! a crash costs one operation; [`pool`] is the agent's side. A worker may have several operations, of
//! which it carries out the first, and gives those that have not begun back when it is asked. They
//! are limited as commands are (cgroup or rlimits, threads by cores), by the lease that all
//! operations of a worker have in common, and end with their agent: their tasks are queued again
//! without counting. A training, and whatever is given more than limits by its node, is a process of
//! its own under the supervisor instead ([`alone`]) and outlives the agent.
//!
//! `gantry worker` is both processes: its first message says which. The operations themselves are
//! calls into `kernels/` with what the library holds.

pub(crate) mod alone;
pub(crate) mod operations;
pub(crate) mod pool;
mod protocol;
mod told;
mod usage;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use gantry_model::{Builtin, Exit, TaskId, TryId};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use crate::output;
use crate::pipe;
use operations::Around;
use protocol::{FromWorker, ToWorker};
use told::{Stopped, Told};
use usage::Meter;

/// The process: reads operations from standard input until it closes.
#[must_use]
pub fn run() -> ExitCode {
    let first = pipe::read::<ToWorker>(&mut io::stdin().lock());
    let done = match first {
        Ok(Some(ToWorker::Alone { task, builtin, warning })) => alone::run(task, &builtin, warning),
        Ok(Some(first)) => serve(first),
        Ok(None) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| {
        // Of a warm worker this is the agent's log, of an operation alone its output.
        eprintln!("{}it could not be begun: {error}", alone::FAILED);
        ExitCode::from(125)
    })
}

/// A warm worker.
fn serve(first: ToWorker) -> io::Result<ExitCode> {
    // The agent's end of the pipe closes when it dies, and the reader below ends the process; this
    // is for an agent that is killed while the worker is deep in a computation.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // As a supervisor has it for what it starts.
    rustix::thread::set_no_new_privs(true)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Threads have stacks, for which there may be no room once an operation has filled the memory.
    gantry_imaging::start_threads();
    let queue = Arc::new(Queue::default());
    take(first, &queue);
    let heard = queue.clone();
    std::thread::spawn(move || listen(&heard));
    let mut meter = Meter::new();
    loop {
        let Operation { task, builtin, output, .. } = queue.next();
        meter.begin();
        let mut log = Log { path: output.into(), file: None };
        let exit = carry_out(builtin.name(), &mut log, |log| {
            // An agent that is gone is noticed by the reader.
            let needs = &mut |memory| drop(say(&FromWorker::Needs(memory)));
            operations::run(&builtin, Around { log, told: &queue.told, needs })
        });
        let last = last_line(task, &exit);
        say(&FromWorker::Done { exit, usage: meter.end(), last })?;
    }
}

/// The last line of an operation's output.
fn last_line(task: TaskId, exit: &Exit) -> String {
    match exit {
        // The sentence stands in the exit as well.
        Exit::Failed(sentence) => format!("{}{sentence}\n", alone::FAILED),
        Exit::Code(0) => format!("{task} done\n"),
        other => format!("{task}: {other}\n"),
    }
}

/// Tells the agent. Two threads do.
fn say(message: &FromWorker) -> io::Result<()> {
    pipe::write(&mut io::stdout().lock(), message)
}

/// An operation that has not begun.
struct Operation {
    try_id: TryId,
    task: TaskId,
    builtin: Builtin,
    output: String,
    /// Whether it is told to end soon before it begins.
    stopped: bool,
}

/// What a worker has to do.
#[derive(Default)]
struct Queue {
    waiting: Mutex<(Option<TryId>, VecDeque<Operation>)>,
    bell: Condvar,
    /// What the operation that is carried out is told.
    told: Told,
}

impl Queue {
    /// The operation that is carried out, and those that wait.
    fn lock(&self) -> MutexGuard<'_, (Option<TryId>, VecDeque<Operation>)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next operation.
    fn next(&self) -> Operation {
        let mut guard = self.lock();
        loop {
            if let Some(next) = guard.1.pop_front() {
                guard.0 = Some(next.try_id);
                self.told.begin(next.stopped);
                return next;
            }
            guard.0 = None;
            guard = self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self, operation: Operation) {
        self.lock().1.push_back(operation);
        self.bell.notify_one();
    }

    /// Lets an operation end soon; one that is not there has ended.
    fn stop(&self, try_id: TryId) {
        let mut guard = self.lock();
        if guard.0 == Some(try_id) {
            self.told.tell_to_stop();
        }
        if let Some(waiting) = guard.1.iter_mut().find(|waiting| waiting.try_id == try_id) {
            waiting.stopped = true;
        }
    }

    /// Tells an operation that its time limit is near. Time does not run for one that waits.
    fn warn(&self, try_id: TryId) {
        if self.lock().0 == Some(try_id) {
            self.told.warn();
        }
    }

    fn give_back(&self) -> Vec<TryId> {
        self.lock().1.drain(..).map(|waiting| waiting.try_id).collect()
    }
}

/// Reads what the agent says, on a thread of its own, so that a stop is heard within an operation.
fn listen(queue: &Queue) {
    // Standard input is buffered already.
    let mut input = io::stdin().lock();
    loop {
        match pipe::read::<ToWorker>(&mut input) {
            Ok(Some(message)) => take(message, queue),
            // The agent is gone: so is everybody who could use the result.
            Ok(None) | Err(_) => std::process::exit(0),
        }
    }
}

fn take(message: ToWorker, queue: &Queue) {
    match message {
        ToWorker::Run { try_id, task, builtin, output } => {
            queue.add(Operation { try_id, task, builtin, output, stopped: false });
        }
        ToWorker::Stop { try_id } => queue.stop(try_id),
        ToWorker::Warn { try_id } => queue.warn(try_id),
        // An error is the end of the agent, which the next read finds.
        ToWorker::Return => drop(say(&FromWorker::Returned(queue.give_back()))),
        // The first message or none.
        ToWorker::Alone { .. } => {}
    }
}

/// Carries out one operation. A panic ends it and not the process; what it says has gone to
/// standard error, which is the agent's log. One that was told to stop ends as a command does by
/// TERM, where it has nothing else to say.
fn carry_out(
    name: &str,
    log: &mut dyn Write,
    operation: impl FnOnce(&mut dyn Write) -> Result<(), String>,
) -> Exit {
    match catch_unwind(AssertUnwindSafe(|| operation(log))) {
        Ok(Ok(())) => Exit::Code(0),
        Ok(Err(sentence)) => Exit::Failed(sentence),
        Err(left) if left.is::<Stopped>() => Exit::Signal(libc::SIGTERM as u8),
        Err(_) => {
            Exit::Failed(format!("{name} panicked; this is a fault of gantry, please report it"))
        }
    }
}

/// The output file of an operation, which is made with the first line.
struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(output::append_to(&self.path)?),
        };
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
