//! The agent's side of the workers: as many processes as there is work, up to a limit, and kept
//! warm. A worker that dies ends its operation only, and another takes its place.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use gantry_model::{Builtin, Exit, TaskId, TryId};
use tokio::sync::mpsc;

use super::protocol::{self, FromWorker, ToWorker};
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

/// What a worker's reader tells.
pub(crate) enum Said {
    /// The operation has ended.
    Done(Exit),
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
            let _ = protocol::write(&mut worker.input, &run);
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
                match protocol::read::<FromWorker>(&mut output) {
                    Ok(Some(FromWorker::Ready)) => {}
                    Ok(Some(FromWorker::Done(exit))) => {
                        if inputs.blocking_send(Input::Worker(id, Said::Done(exit))).is_err() {
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
    pub(crate) fn hear(&mut self, id: u64, said: Said) -> (Option<(TryId, Exit)>, Vec<Begun>) {
        let ended = match said {
            Said::Done(exit) => {
                let worker = self.workers.get_mut(&id);
                worker.and_then(|worker| worker.busy.take()).map(|try_id| (try_id, exit))
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
                worker.busy.map(|try_id| (try_id, exit))
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
            let _ = protocol::write(&mut worker.input, &ToWorker::Stop);
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
