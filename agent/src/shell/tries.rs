//! What the shell does with single tries: starting and taking over, signals, output, ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gantry_model::{Builtin, Exit, JobId, Launch, TaskId, TaskWork, TryId, Usage};
use gantry_node::{Event, Signal};
use gantry_wire::AgentMessage;

use super::{Carrier, Running, Shell};
use crate::error::AgentError;
use crate::output::{self, Hearing, Said, Tail};
use crate::runner;
use crate::supervise::client::Supervisor;
use crate::supervise::protocol::Held;
use crate::worker::alone;

/// Points of one message: with names of the greatest length it stays below 64 KiB.
const POINTS_MAX: usize = 500;

/// Between two looks for what is old, at least and at most.
const AGE_EACH: [Duration; 2] = [Duration::from_mins(1), Duration::from_hours(1)];

/// The time between two looks for what is old: a quarter of the age at which outputs go.
pub(super) fn age_each(output_age: Duration) -> Duration {
    let [least, most] = AGE_EACH;
    if output_age.is_zero() { most } else { (output_age / 4).clamp(least, most) }
}

impl Shell {
    /// Takes over a try that an earlier agent has started, unless its end is spooled.
    pub(super) fn adopt(
        &mut self,
        held: Held,
        spooled: &BTreeSet<TryId>,
    ) -> Result<(), AgentError> {
        let (try_id, task) = (held.launch.try_id, held.launch.task);
        let checkpoint = self.parts.plan.places.checkpoint_made(&held.launch);
        if spooled.contains(&try_id) {
            self.kept.push(try_id);
            return Ok(());
        }
        let tail = Tail::new(self.outputs.path(task), held.read);
        let hearing = Hearing::Again;
        let carrier = match held.launch.work {
            TaskWork::Command { .. } => Carrier::Command,
            TaskWork::Builtin(_) => Carrier::Operation,
        };
        let running = Running { task, carrier, tail, hearing, checkpoint, over: false };
        self.running.insert(try_id, running);
        match held.end {
            Some((exit, usage)) => self.ended(try_id, exit, usage),
            None => Ok(()),
        }
    }

    pub(super) fn start(&mut self, launch: Launch) -> Result<(), AgentError> {
        let (try_id, task) = (launch.try_id, launch.task);
        let path = self.outputs.path(task);
        let run_as = self.parts.plan.places.run_as;
        let named = launch.output.as_ref().map(|file| {
            self.outputs.send_to(task, Path::new(file), run_as).map_err(|error| {
                format!("its output file {file} cannot be made on this node: {error}")
            })
        });
        // A small output of an earlier start is packed, a long one goes on; a file of the job's own
        // choice may hold anything.
        let goes_on = launch.start > 1 || named.is_some();
        let read = if goes_on { output::length(&path).unwrap_or(0) } else { 0 };
        let carrier = self.carrier(&launch);
        let tail = Tail::new(path.clone(), read);
        let hearing = Hearing::First;
        let checkpoint = self.parts.plan.places.checkpoint_made(&launch);
        let running = Running { task, carrier, tail, hearing, checkpoint, over: false };
        self.running.insert(try_id, running);
        if let Some(Err(sentence)) = named {
            return self.not_started(try_id, sentence);
        }
        match launch.work {
            TaskWork::Builtin(builtin) if carrier == Carrier::Worker => {
                let begun = self.parts.pool.submit(try_id, task, builtin, &launch.lease, &path);
                self.started(begun)
            }
            _ => {
                let (places, gpus) = (&self.parts.plan.places, &self.parts.facts.gpus);
                let start = runner::plan(launch, path, read, places, gpus);
                let told = self.supervisor().and_then(|supervisor| {
                    supervisor.start(start).map_err(|error| {
                        format!("what it does and its environment are too long: {error}")
                    })
                });
                told.or_else(|sentence| self.not_started(try_id, sentence))
            }
        }
    }

    /// What carries out a try. A training goes on for hours and outlives its agent; a warm worker
    /// has no GPUs in its environment, and nothing that belongs to one try alone.
    fn carrier(&self, launch: &Launch) -> Carrier {
        match &launch.work {
            TaskWork::Command { .. } => Carrier::Command,
            TaskWork::Builtin(Builtin::Train { .. }) => Carrier::Operation,
            TaskWork::Builtin(_) => {
                let personal = self.parts.plan.isolation.is_personal();
                let warm = launch.lease.gpus.is_empty() && !personal;
                if warm { Carrier::Worker } else { Carrier::Operation }
            }
        }
    }

    fn not_started(&mut self, try_id: TryId, sentence: String) -> Result<(), AgentError> {
        self.ended(try_id, Exit::NotStarted { code: 126, sentence }, Usage::default())
    }

    /// The supervisor; another one where the last is dead.
    fn supervisor(&mut self) -> Result<&mut Supervisor, String> {
        if self.supervisor.is_none() {
            let (mut supervisor, _) = Supervisor::open(&self.parts.plan, &self.parts.inputs)
                .map_err(|error| error.to_string())?;
            if let Some(at) = self.welcomed {
                supervisor.welcomed(&self.parts.plan, at);
            }
            self.supervisor = Some(supervisor);
        }
        self.supervisor.as_mut().ok_or_else(|| "there is no supervisor".to_owned())
    }

    /// The supervisor is dead, and with it everybody who knows how its commands end: they are ended,
    /// and the cluster queues their tasks again.
    pub(super) fn supervisor_gone(&mut self) -> Result<(), AgentError> {
        self.supervisor = None;
        let left = runner::sweep(&self.parts.plan.places);
        tracing::error!(left, "the supervisor has died, and what ran under it was ended");
        let of_supervisor = |running: &Running| running.carrier != Carrier::Worker;
        let lost: Vec<TryId> = self
            .running
            .iter()
            .filter(|(_, running)| of_supervisor(running))
            .map(|(try_id, _)| *try_id)
            .collect();
        lost.into_iter().try_for_each(|try_id| self.ended(try_id, Exit::NodeLost, Usage::default()))
    }

    pub(super) fn started(
        &mut self,
        started: Vec<(TryId, Result<(), Exit>)>,
    ) -> Result<(), AgentError> {
        for (try_id, result) in started {
            match result {
                Ok(()) => self.apply(Event::Started { try_id })?,
                Err(exit) => self.ended(try_id, exit, Usage::default())?,
            }
        }
        Ok(())
    }

    pub(super) fn signal(&mut self, try_id: TryId, signal: Signal) -> Result<(), AgentError> {
        let carrier = self.running.get(&try_id).map(|running| running.carrier);
        match (carrier, &mut self.supervisor, signal) {
            (Some(Carrier::Command | Carrier::Operation), Some(supervisor), signal) => {
                let number = match signal {
                    Signal::Warn(number) => number,
                    Signal::Term => libc::SIGTERM as u8,
                    Signal::Kill => libc::SIGKILL as u8,
                };
                supervisor.signal(try_id, number);
            }
            (Some(Carrier::Worker), _, Signal::Term) => {
                if let Some(exit) = self.parts.pool.stop(try_id) {
                    self.ended(try_id, exit, Usage::default())?;
                }
            }
            (Some(Carrier::Worker), _, Signal::Kill) => self.parts.pool.kill(try_id),
            (Some(Carrier::Worker), _, Signal::Warn(_)) => self.parts.pool.warn(try_id),
            // What is not known, or has a dead supervisor, has its end on the way.
            (Some(Carrier::Command | Carrier::Operation), None, _) | (None, _, _) => {}
        }
        Ok(())
    }

    pub(super) fn ended(
        &mut self,
        try_id: TryId,
        exit: Exit,
        usage: Usage,
    ) -> Result<(), AgentError> {
        self.ended_saying(try_id, exit, usage, "")
    }

    /// A try has ended with a last line that is in no file yet.
    pub(super) fn ended_saying(
        &mut self,
        try_id: TryId,
        mut exit: Exit,
        usage: Usage,
        last: &str,
    ) -> Result<(), AgentError> {
        let Some(mut running) = self.running.remove(&try_id) else {
            // Told again, and in the spool since the first time.
            self.kept.push(try_id);
            return Ok(());
        };
        let task = running.task;
        let length = running.tail.length();
        let said = running.tail.look_to_the_end(length);
        self.tell(task, &said);
        if running.carrier == Carrier::Operation {
            exit = alone::exit_of(exit, &self.outputs.path(task));
        }
        if running.over {
            exit = Exit::Failed(format!(
                "it wrote more than the {} GiB that the output of a task may have; let it print less",
                output::OUTPUT_BYTES_MAX >> 30
            ));
        }
        if let Err(error) = self.outputs.finish(task, try_id, running.hearing, (length, last)) {
            tracing::warn!("the output of {task} stays a file of its own: {error}");
        }
        if let Some(checkpoint) = running.checkpoint {
            // Only where nothing is in it.
            let _ = std::fs::remove_dir(checkpoint);
        }
        self.apply(Event::Exited { try_id, exit, usage })
    }

    /// Looks at every live output file: what it says, and whether it is too long.
    pub(super) fn look_at_output(&mut self) {
        let mut looks = Vec::new();
        let mut over = Vec::new();
        for (try_id, running) in &mut self.running {
            // What nobody would hear is read once somebody does.
            if self.session.is_some() {
                let said = running.tail.look();
                if !said.is_nothing() {
                    looks.push((*try_id, running.task, running.tail.read(), said));
                }
            }
            if !running.over && running.tail.is_over(output::OUTPUT_BYTES_MAX) {
                running.over = true;
                over.push((*try_id, running.carrier));
            }
        }
        for (try_id, task, read, said) in looks {
            self.tell(task, &said);
            if let Some(supervisor) = &mut self.supervisor {
                supervisor.read(try_id, read);
            }
        }
        for (try_id, carrier) in over {
            match (carrier, &mut self.supervisor) {
                (Carrier::Worker, _) => self.parts.pool.kill(try_id),
                (_, Some(supervisor)) => supervisor.signal(try_id, libc::SIGKILL as u8),
                (_, None) => {}
            }
        }
    }

    /// Lets what was packed reach the disk, beside the loop.
    pub(super) fn sync_output(&self) {
        if self.outputs.is_synced() {
            return;
        }
        let outputs = self.outputs.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = outputs.sync() {
                tracing::warn!("packed output could not be synced: {error}");
            }
        });
    }

    /// Removes what is left of jobs for long enough.
    pub(super) fn remove_old(&self) {
        let live: BTreeSet<JobId> = self.running.values().map(|running| running.task.job).collect();
        self.remove_old_output(&live);
        let places = self.parts.plan.places.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = places.remove_empty_checkpoints(&live, SystemTime::now()) {
                tracing::warn!("empty folders of checkpoints could not be removed: {error}");
            }
        });
    }

    /// Removes the outputs of jobs that are old enough, those beside the loop that are put aside in it: no
    /// start comes between.
    fn remove_old_output(&self, live: &BTreeSet<JobId>) {
        let age = self.parts.output_age;
        if age.is_zero() {
            return;
        }
        match self.outputs.put_aside(age, SystemTime::now(), live) {
            Ok(old) if !old.is_empty() => {
                tracing::info!(jobs = old.len(), "removing outputs that are older than output_age");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("old outputs could not be removed: {error}"),
        }
        let outputs = self.outputs.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = outputs.remove() {
                tracing::warn!("old outputs could not be removed: {error}");
            }
        });
    }

    fn tell(&mut self, task: TaskId, said: &Said) {
        for points in said.points.chunks(POINTS_MAX) {
            self.outgoing.push(AgentMessage::Metrics { task, points: points.to_vec() });
        }
        if let Some(permille) = said.progress_permille {
            self.outgoing.push(AgentMessage::Progress { task, permille });
        }
    }
}
