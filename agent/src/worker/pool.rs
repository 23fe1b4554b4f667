//! The agent's side of the workers: as many processes as there is work, up to a limit, and kept
//! warm. A worker that dies ends its operation only, and another takes its place.
//!
//! A worker whose last operation was short gets some more than the one it carries out: the way
//! there and back then costs many operations together what it would cost each. They begin one after
//! the other. Where one takes long after all while another worker is free, what waits behind it is
//! asked back ([`Pool::spread`]). What is told to workers leaves with [`Pool::send`].
//!
//! A worker lives within the limits of a lease, so that it takes operations of the same lease only; a
//! free one of another lease makes room for one that is needed.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_model::{Builtin, Exit, Lease, MemoryMib, Resources, TaskId, TryId, Usage};
use tokio::sync::mpsc;

use super::protocol::{FromWorker, ToWorker};
use crate::pipe;
use crate::runner::{end_with_parent, exit_of};
use crate::shell::Input;
use crate::supervise::isolation::Isolation;
use crate::supervise::warm::Walls;

/// Operations that a worker has at once, with the one that it carries out: with so many the way
/// there and back is a small part of what they cost.
const AT_ONCE_MAX: usize = 32;
/// An operation that took less was a short one.
const SHORT: Duration = Duration::from_millis(5);

/// The part of a lease that limits a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    cores: u32,
    memory: MemoryMib,
}

impl Share {
    fn of(lease: &Lease) -> Self {
        Self { cores: lease.resources.cores, memory: lease.resources.memory }
    }

    fn lease(self) -> Lease {
        let resources =
            Resources { cores: self.cores, memory: self.memory, ..Resources::default() };
        Lease { resources, ..Lease::default() }
    }
}

/// An operation that has not ended.
struct Operation {
    try_id: TryId,
    share: Share,
    /// What tells it to a worker.
    frame: Vec<u8>,
    /// Whether it shall end soon.
    stopped: bool,
}

/// A worker process and what it has to do.
struct Worker {
    child: Child,
    share: Share,
    walls: Walls,
    input: ChildStdin,
    unsent: Vec<u8>,
    /// The first is carried out, since `since`.
    has: VecDeque<Operation>,
    since: Instant,
    /// How many operations it may have at once.
    at_once: usize,
    asked_back: AskedBack,
    killed: Option<TryId>,
    /// The most memory that the first of them will take, as far as it has said so.
    needs: Option<MemoryMib>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskedBack {
    Nothing,
    WhatWaits,
}

/// A try that was given to a worker, or could not be.
pub(crate) type Begun = (TryId, Result<(), Exit>);

/// A try that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) try_id: TryId,
    pub(crate) exit: Exit,
    pub(crate) usage: Usage,
    /// The last line of its output, which is in no file.
    pub(crate) last: String,
}

impl Ended {
    fn without_usage(try_id: TryId, exit: Exit) -> Self {
        Self { try_id, exit, usage: Usage::default(), last: String::new() }
    }
}

/// What a worker's reader tells.
pub(crate) enum Said {
    /// The worker said something.
    Message(FromWorker),
    /// The process has closed its output: it is dead or dying.
    Gone,
}

/// All workers of an agent.
pub(crate) struct Pool {
    program: Vec<String>,
    isolation: Isolation,
    workers_max: usize,
    workers: BTreeMap<u64, Worker>,
    made: u64,
    waiting: VecDeque<Operation>,
    inputs: mpsc::Sender<Input>,
}

impl Worker {
    fn tell(&mut self, message: &ToWorker) {
        // A message of a number is never too long.
        self.unsent.extend(pipe::frame(message).unwrap_or_default());
    }

    /// The first of what it has begins.
    fn begin(&mut self) -> Option<Begun> {
        let first = self.has.front()?;
        let (try_id, stopped) = (first.try_id, first.stopped);
        self.since = Instant::now();
        self.needs = None;
        if stopped {
            self.tell(&ToWorker::Stop { try_id });
        }
        Some((try_id, Ok(())))
    }

    fn ask_back(&mut self) {
        if self.asked_back == AskedBack::Nothing {
            self.asked_back = AskedBack::WhatWaits;
            self.at_once = 1;
            self.tell(&ToWorker::Return);
        }
    }

    /// How it has died.
    fn end(mut self) -> (Exit, VecDeque<Operation>, Option<TryId>) {
        let _ = self.child.kill();
        let exit = match self.child.wait() {
            Ok(status) => exit_of(status),
            Err(error) => Exit::Failed(format!("its worker's end could not be read: {error}")),
        };
        let exit = match self.walls.end(exit, &self.share.lease(), self.needs) {
            Exit::Code(code) => Exit::Failed(format!("its worker ended with exit code {code}")),
            other => other,
        };
        (exit, self.has, self.killed)
    }
}

impl Pool {
    /// A pool of processes of this command line.
    pub(crate) fn new(
        program: Vec<String>,
        isolation: Isolation,
        workers_max: usize,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        isolation.clear_workers();
        let workers = BTreeMap::new();
        Self {
            program,
            isolation,
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
        lease: &Lease,
        output: &Path,
    ) -> Vec<Begun> {
        let output = output.display().to_string();
        match pipe::frame(&ToWorker::Run { try_id, task, builtin, output }) {
            Ok(frame) => {
                let share = Share::of(lease);
                self.waiting.push_back(Operation { try_id, share, frame, stopped: false });
            }
            Err(error) => {
                let sentence = format!("the operation is too long for a worker: {error}");
                return vec![(try_id, Err(Exit::NotStarted { code: 126, sentence }))];
            }
        }
        self.assign()
    }

    /// Gives waiting operations to workers.
    fn assign(&mut self) -> Vec<Begun> {
        let mut started = Vec::new();
        while let Some(share) = self.waiting.front().map(|next| next.share) {
            let found = match self.worker_for(share) {
                Ok(Some(id)) => Ok(id),
                Ok(None) => break,
                Err(error) => Err(format!("a worker could not be started: {error}")),
            };
            let Some(next) = self.waiting.pop_front() else { break };
            match found.map(|id| self.workers.get_mut(&id)) {
                Ok(Some(worker)) => {
                    worker.unsent.extend_from_slice(&next.frame);
                    worker.has.push_back(next);
                    if worker.has.len() == 1 {
                        started.extend(worker.begin());
                    }
                }
                Ok(None) => self.waiting.push_front(next),
                Err(sentence) => {
                    let exit = Exit::NotStarted { code: 125, sentence };
                    started.push((next.try_id, Err(exit)));
                }
            }
        }
        started
    }

    /// A worker for the next operation: a free one, another one, one in place of a free one of
    /// another lease, or one that is busy with short ones.
    fn worker_for(&mut self, share: Share) -> io::Result<Option<u64>> {
        let same = || self.workers.iter().filter(|(_, worker)| worker.share == share);
        if let Some((id, _)) = same().find(|(_, worker)| worker.has.is_empty()) {
            return Ok(Some(*id));
        }
        if self.workers.len() >= self.workers_max {
            let Some(other) = self.idle() else {
                let room = same().find(|(_, worker)| worker.has.len() < worker.at_once);
                return Ok(room.map(|(id, _)| *id));
            };
            // Its reader tells that it is gone, of which nobody knows any more.
            drop(self.workers.remove(&other).map(Worker::end));
        }
        self.start_worker(share).map(Some)
    }

    /// A worker that has nothing to do.
    fn idle(&self) -> Option<u64> {
        self.workers.iter().find(|(_, worker)| worker.has.is_empty()).map(|(id, _)| *id)
    }

    /// Sends what workers are to be told.
    pub(crate) fn send(&mut self) {
        for worker in self.workers.values_mut().filter(|worker| !worker.unsent.is_empty()) {
            // Where the worker has just died its reader tells, and the operation ends with it.
            let _ = worker.input.write_all(&worker.unsent);
            worker.unsent.clear();
        }
    }

    /// Asks back what waits behind a long operation, where a worker is free for it.
    pub(crate) fn spread(&mut self) {
        if self.idle().is_none() && self.workers.len() >= self.workers_max {
            return;
        }
        for worker in self.workers.values_mut() {
            if worker.has.len() > 1 && worker.since.elapsed() >= SHORT {
                worker.ask_back();
            }
        }
    }

    fn start_worker(&mut self, share: Share) -> io::Result<u64> {
        let (program, arguments) =
            self.program.split_first().ok_or_else(|| io::Error::other("no worker program"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        end_with_parent(&mut command);
        let (mut child, walls) =
            self.isolation.start_worker(self.made + 1, &share.lease(), command)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("its pipes are missing"));
        };
        self.made += 1;
        let id = self.made;
        let inputs = self.inputs.clone();
        std::thread::spawn(move || read(id, output, &inputs));
        let worker = Worker {
            child,
            share,
            walls,
            input,
            unsent: Vec::new(),
            has: VecDeque::new(),
            since: Instant::now(),
            at_once: 1,
            asked_back: AskedBack::Nothing,
            killed: None,
            needs: None,
        };
        self.workers.insert(id, worker);
        Ok(id)
    }

    /// Hears what a worker said. Gives the tries that have ended, and those that have started.
    pub(crate) fn hear(&mut self, id: u64, said: Said) -> (Vec<Ended>, Vec<Begun>) {
        let (mut ended, mut begun) = (Vec::new(), Vec::new());
        match (said, self.workers.get_mut(&id)) {
            (Said::Message(FromWorker::Done { exit, usage, last }), Some(worker)) => {
                let short = worker.since.elapsed() < SHORT;
                worker.at_once = if short { AT_ONCE_MAX } else { 1 };
                let first = worker.has.pop_front().map(|first| first.try_id);
                ended.extend(first.map(|try_id| Ended { try_id, exit, usage, last }));
                begun.extend(worker.begin());
            }
            (Said::Message(FromWorker::Needs(memory)), Some(worker)) => {
                worker.needs = Some(memory);
            }
            (Said::Message(FromWorker::Returned(tries)), Some(worker)) => {
                worker.asked_back = AskedBack::Nothing;
                let had = std::mem::take(&mut worker.has);
                let (back, has) = had.into_iter().partition(|one| tries.contains(&one.try_id));
                worker.has = has;
                ended.extend(self.wait_again(back));
            }
            (Said::Gone, _) => {
                if let Some((exit, mut has, killed)) = self.workers.remove(&id).map(Worker::end) {
                    // One that began when the one before it was to be killed begins again.
                    let own = |first: &mut Operation| killed.is_none_or(|it| it == first.try_id);
                    let first = has.pop_front_if(own);
                    ended.extend(first.map(|first| Ended::without_usage(first.try_id, exit)));
                    ended.extend(self.wait_again(has));
                }
            }
            (Said::Message(_), _) => {}
        }
        begun.extend(self.assign());
        (ended, begun)
    }

    /// Puts operations that have not begun before those that wait. Gives those that were stopped.
    fn wait_again(&mut self, back: VecDeque<Operation>) -> Vec<Ended> {
        let mut ended = Vec::new();
        for one in back.into_iter().rev() {
            if one.stopped {
                ended.push(Ended::without_usage(one.try_id, Exit::Signal(15)));
            } else {
                self.waiting.push_front(one);
            }
        }
        ended
    }

    /// The worker that has an operation, and its place there.
    fn of(&mut self, try_id: TryId) -> Option<(&mut Worker, usize)> {
        self.workers.values_mut().find_map(|worker| {
            let place = worker.has.iter().position(|one| one.try_id == try_id)?;
            Some((worker, place))
        })
    }

    /// Tells an operation to stop. One that still waits is taken away and given back as ended.
    pub(crate) fn stop(&mut self, try_id: TryId) -> Option<Exit> {
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.try_id == try_id) {
            self.waiting.remove(place);
            return Some(Exit::Signal(15));
        }
        let (worker, place) = self.of(try_id)?;
        if place == 0 {
            worker.tell(&ToWorker::Stop { try_id });
        } else {
            worker.has[place].stopped = true;
            worker.ask_back();
        }
        None
    }

    /// Tells an operation that its time limit is near.
    pub(crate) fn warn(&mut self, try_id: TryId) {
        // Time does not run for one that waits.
        if let Some((worker, 0)) = self.of(try_id) {
            worker.tell(&ToWorker::Warn { try_id });
        }
    }

    /// Kills the worker that carries out an operation.
    pub(crate) fn kill(&mut self, try_id: TryId) {
        if let Some((worker, 0)) = self.of(try_id) {
            worker.killed = Some(try_id);
            // Its reader notices and tells.
            let _ = worker.child.kill();
        }
    }
}

/// Hands on what a worker says until it is gone, or the agent: together what has come together.
fn read(id: u64, output: ChildStdout, inputs: &mpsc::Sender<Input>) {
    let mut output = BufReader::new(output);
    let mut gone = false;
    while !gone {
        let mut all = Vec::new();
        loop {
            if let Ok(Some(message)) = pipe::read::<FromWorker>(&mut output) {
                all.push(Said::Message(message));
            } else {
                all.push(Said::Gone);
                gone = true;
            }
            if gone || !pipe::holds_message(output.buffer()) {
                break;
            }
        }
        if !all.is_empty() && inputs.blocking_send(Input::Worker(id, all)).is_err() {
            return;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for worker in std::mem::take(&mut self.workers).into_values() {
            worker.end();
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
