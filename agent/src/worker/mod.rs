//! Warm workers: processes that carry out built-in operations one after the other, so that an
//! operation costs no process of its own and a crash costs one operation.
//!
//! `gantry worker` is the process; [`pool`] is the agent's side. The operations themselves are
//! calls into `kernels/` with what the library holds. A worker may have several operations, of which
//! it carries out the first, and gives those that have not begun back when it is asked.

pub(crate) mod operations;
pub(crate) mod pool;
mod protocol;
mod usage;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use gantry_model::{Builtin, Exit, TaskId, TryId};

use crate::output;
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
    let queue = Arc::new(Queue::default());
    let heard = queue.clone();
    say(&FromWorker::Ready)?;
    std::thread::spawn(move || listen(&heard));
    let mut meter = Meter::new();
    loop {
        let Operation { task, builtin, output, .. } = queue.next();
        meter.begin();
        let run = |log: &mut Log| operations::run(&builtin, log, &queue.stop);
        let exit = carry_out(builtin.name(), &output, run);
        let last = match &exit {
            // The sentence stands in the exit as well.
            Exit::Failed(sentence) => format!("failed: {sentence}\n"),
            _ => format!("{task} done\n"),
        };
        say(&FromWorker::Done { exit, usage: meter.end(), last })?;
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
    /// Tells the operation that is carried out to end soon.
    stop: AtomicBool,
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
                self.stop.store(next.stopped, Ordering::Relaxed);
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
            self.stop.store(true, Ordering::Relaxed);
        }
        if let Some(waiting) = guard.1.iter_mut().find(|waiting| waiting.try_id == try_id) {
            waiting.stopped = true;
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
            Ok(Some(ToWorker::Run { try_id, task, builtin, output })) => {
                queue.add(Operation { try_id, task, builtin, output, stopped: false });
            }
            Ok(Some(ToWorker::Stop { try_id })) => queue.stop(try_id),
            // An error is the end of the agent, which the next read finds.
            Ok(Some(ToWorker::Return)) => drop(say(&FromWorker::Returned(queue.give_back()))),
            // The agent is gone: so is everybody who could use the result.
            Ok(None) | Err(_) => std::process::exit(0),
        }
    }
}

/// Carries out one operation. A panic ends it and not the process; what it says has gone to
/// standard error, which is the agent's log.
fn carry_out(
    name: &str,
    output: &str,
    operation: impl FnOnce(&mut Log) -> Result<(), String>,
) -> Exit {
    let mut log = Log { path: output.into(), file: None };
    match catch_unwind(AssertUnwindSafe(|| operation(&mut log))) {
        Ok(Ok(())) => Exit::Code(0),
        Ok(Err(sentence)) => Exit::Failed(sentence),
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
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_stop_reaches_one_operation_and_what_has_not_begun_is_given_back() {
        let queue = Queue::default();
        let operation = |number: u64| {
            let series = Vec::new();
            let builtin = Builtin::Preprocess { library: "l".into(), pipeline: "p".into(), series };
            let (try_id, task) = (TryId(number), gantry_model::JobId(1).task(number as u32));
            Operation { try_id, task, builtin, output: "o".into(), stopped: false }
        };
        (1..=5).for_each(|number| queue.add(operation(number)));
        let begin = || (queue.next().try_id.0, queue.stop.load(Ordering::Relaxed));
        assert_eq!(begin(), (1, false));
        queue.stop(TryId(1));
        assert!(queue.stop.load(Ordering::Relaxed));
        queue.stop(TryId(3));
        assert_eq!(begin(), (2, false), "the stop was for another");
        queue.stop(TryId(1));
        assert_eq!(begin(), (3, true), "it was stopped before it began");
        assert_eq!(queue.give_back(), [TryId(4), TryId(5)]);
        queue.add(operation(6));
        assert_eq!(begin(), (6, false));
    }

    #[test]
    fn an_operation_ends_with_a_sentence_and_never_with_the_process() {
        type Operation = fn(&mut Log) -> Result<(), String>;
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
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "hello\n");
    }
}
