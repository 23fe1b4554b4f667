//! The agent's side of the workers: as many processes as there is work, up to a limit, and kept
//! warm. A worker that dies ends its operation only, and another takes its place.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use gantry_model::{Builtin, Exit, TaskId, TryId, Usage};
use tokio::sync::mpsc;

use super::protocol::{FromWorker, ToWorker};
use crate::pipe;
use crate::runner::{end_with_parent, exit_of};
use crate::shell::Input;

/// An operation that waits for a worker.
struct Waiting {
    try_id: TryId,
    task: TaskId,
    builtin: Builtin,
    output: PathBuf,
}

/// A worker process and what it does.
struct Worker {
    child: Child,
    input: ChildStdin,
    busy: Option<TryId>,
}

/// A try that was given to a worker, or could not be.
pub(crate) type Begun = (TryId, Result<(), Exit>);

/// A try that has ended.
pub(crate) type Ended = (TryId, Exit, Usage);

/// What a worker's reader tells.
pub(crate) enum Said {
    /// The operation has ended.
    Done(Exit, Usage),
    /// The process has closed its output: it is dead or dying.
    Gone,
}

/// All workers of an agent.
pub(crate) struct Pool {
    program: Vec<String>,
    workers_max: usize,
    workers: BTreeMap<u64, Worker>,
    made: u64,
    waiting: VecDeque<Waiting>,
    inputs: mpsc::Sender<Input>,
}

impl Pool {
    /// A pool of processes of this command line.
    pub(crate) fn new(
        program: Vec<String>,
        workers_max: usize,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let workers = BTreeMap::new();
        Self {
            program,
            workers_max: workers_max.max(1),
            workers,
            made: 0,
            waiting: VecDeque::new(),
            inputs,
        }
    }

    /// Takes an operation. Gives the tries that have started by it.
    pub(crate) fn submit(
        &mut self,
        try_id: TryId,
        task: TaskId,
        builtin: Builtin,
        output: PathBuf,
    ) -> Vec<Begun> {
        self.waiting.push_back(Waiting { try_id, task, builtin, output });
        self.assign()
    }

    /// Gives waiting operations to workers that are free.
    fn assign(&mut self) -> Vec<Begun> {
        let mut started = Vec::new();
        while let Some(next) = self.waiting.front() {
            let try_id = next.try_id;
            let free =
                self.workers.iter().find(|(_, worker)| worker.busy.is_none()).map(|(id, _)| *id);
            let id = match free {
                Some(id) => id,
                None if self.workers.len() < self.workers_max => match self.start_worker() {
                    Ok(id) => id,
                    Err(error) => {
                        self.waiting.pop_front();
                        let sentence = format!("a worker could not be started: {error}");
                        started.push((try_id, Err(Exit::NotStarted { code: 126, sentence })));
                        continue;
                    }
                },
                None => break,
            };
            let Some(next) = self.waiting.pop_front() else { break };
            let Some(worker) = self.workers.get_mut(&id) else { break };
            let run = ToWorker::Run {
                task: next.task,
                builtin: next.builtin,
                output: next.output.display().to_string(),
            };
            worker.busy = Some(try_id);
            // Where the worker has just died its reader tells, and the operation ends with it.
            let _ = pipe::write(&mut worker.input, &run);
            started.push((try_id, Ok(())));
        }
        started
    }

    fn start_worker(&mut self) -> io::Result<u64> {
        let (program, arguments) =
            self.program.split_first().ok_or_else(|| io::Error::other("no worker program"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        end_with_parent(&mut command);
        let mut child = command.spawn()?;
        let (Some(input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("its pipes are missing"));
        };
        self.made += 1;
        let id = self.made;
        let inputs = self.inputs.clone();
        std::thread::spawn(move || {
            loop {
                match pipe::read::<FromWorker>(&mut output) {
                    Ok(Some(FromWorker::Ready)) => {}
                    Ok(Some(FromWorker::Done(exit, usage))) => {
                        let done = Input::Worker(id, Said::Done(exit, usage));
                        if inputs.blocking_send(done).is_err() {
                            return;
                        }
                    }
                    Ok(None) | Err(_) => {
                        let _ = inputs.blocking_send(Input::Worker(id, Said::Gone));
                        return;
                    }
                }
            }
        });
        self.workers.insert(id, Worker { child, input, busy: None });
        Ok(id)
    }

    /// Hears what a worker said. Gives the try that has ended, and those that have started.
    pub(crate) fn hear(&mut self, id: u64, said: Said) -> (Option<Ended>, Vec<Begun>) {
        let ended = match said {
            Said::Done(exit, usage) => {
                let worker = self.workers.get_mut(&id);
                worker.and_then(|worker| worker.busy.take()).map(|try_id| (try_id, exit, usage))
            }
            Said::Gone => self.workers.remove(&id).and_then(|mut worker| {
                let _ = worker.child.kill();
                let exit = match worker.child.wait() {
                    Ok(status) => match exit_of(status) {
                        Exit::Code(code) => {
                            Exit::Failed(format!("its worker ended with exit code {code}"))
                        }
                        other => other,
                    },
                    Err(error) => {
                        Exit::Failed(format!("its worker's end could not be read: {error}"))
                    }
                };
                worker.busy.map(|try_id| (try_id, exit, Usage::default()))
            }),
        };
        (ended, self.assign())
    }

    /// Tells an operation to stop. One that still waits is taken away and given back as ended.
    pub(crate) fn stop(&mut self, try_id: TryId) -> Option<Exit> {
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.try_id == try_id) {
            self.waiting.remove(place);
            return Some(Exit::Signal(15));
        }
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.busy == Some(try_id)) {
            let _ = pipe::write(&mut worker.input, &ToWorker::Stop);
        }
        None
    }

    /// Kills the worker that carries out an operation.
    pub(crate) fn kill(&mut self, try_id: TryId) {
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.busy == Some(try_id)) {
            // Its reader notices and tells.
            let _ = worker.child.kill();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for worker in self.workers.values_mut() {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::JobId;

    /// A pool whose worker is a shell: it says that it is ready, waits for an operation, and then
    /// does this.
    fn pool(then: &str) -> (Pool, mpsc::Receiver<Input>) {
        let ready = r"printf '\001\000\000\000\000'; head -c 4 >/dev/null";
        let (inputs, received) = mpsc::channel(16);
        let program = vec!["sh".into(), "-c".into(), format!("{ready}; {then}")];
        (Pool::new(program, 1, inputs), received)
    }

    fn submit(pool: &mut Pool, number: u64) -> Vec<Begun> {
        let builtin =
            Builtin::Preprocess { library: "l".into(), pipeline: "p".into(), series: Vec::new() };
        pool.submit(TryId(number), JobId(number).task(0), builtin, "o".into())
    }

    /// What the next news of a worker ends, and how many operations begin by it.
    fn hear(
        pool: &mut Pool,
        received: &mut mpsc::Receiver<Input>,
    ) -> (Option<(TryId, Exit)>, usize) {
        let Some(Input::Worker(id, said)) = received.blocking_recv() else { panic!() };
        let (ended, begun) = pool.hear(id, said);
        (ended.map(|(try_id, exit, _)| (try_id, exit)), begun.len())
    }

    #[test]
    fn a_worker_that_dies_ends_its_operation_only() {
        for (then, expected) in [
            ("kill -9 $$", Exit::Signal(9)),
            ("exit 3", Exit::Failed("its worker ended with exit code 3".into())),
            ("echo this is no message at all; exec sleep 1000", Exit::Signal(9)),
        ] {
            let (mut pool, mut received) = pool(then);
            assert_eq!(submit(&mut pool, 1), [(TryId(1), Ok(()))]);
            assert_eq!(submit(&mut pool, 2), [], "one worker does one thing");
            // The first ends with its worker, and the second begins on another.
            let first = hear(&mut pool, &mut received);
            assert_eq!(first, (Some((TryId(1), expected.clone())), 1), "{then}");
            let second = hear(&mut pool, &mut received);
            assert_eq!(second, (Some((TryId(2), expected)), 0), "{then}");
        }
    }

    #[test]
    fn an_operation_that_does_not_end_is_killed_and_one_that_waits_is_taken_away() {
        let (mut pool, mut received) = pool("exec sleep 1000");
        submit(&mut pool, 1);
        submit(&mut pool, 2);
        assert_eq!(pool.stop(TryId(2)), Some(Exit::Signal(15)));
        assert_eq!(pool.stop(TryId(1)), None);
        pool.kill(TryId(1));
        let ended = hear(&mut pool, &mut received);
        assert_eq!(ended, (Some((TryId(1), Exit::Signal(9))), 0));
    }

    #[test]
    fn no_worker_program_is_the_end_of_the_operation_with_126() {
        let (inputs, _received) = mpsc::channel(16);
        let mut pool = Pool::new(vec!["gantry-no-such-program".into()], 1, inputs);
        let begun = submit(&mut pool, 1);
        assert!(
            matches!(&begun[..], [(TryId(1), Err(Exit::NotStarted { code: 126, .. }))]),
            "{begun:?}"
        );
    }
}
