//! The simulation as others see it: run to its end, or step by step beside a screen.

use std::collections::BTreeMap;

use gantry_cluster::{Answer, Cluster, Event};
use gantry_model::{At, JobId, Machine, Millis, NodeRow, Note, Reject, Service};
use gantry_telemetry::Sample;

use crate::report::{Failure, Summary};
use crate::scheduler::Doom;
use crate::settings::SimulationSettings;
use crate::trace::Line;
use crate::world::{OUTSIDE_FIRST, World};

/// Between two looks at whether everything has ended.
const PATIENCE: Millis = Millis::from_seconds(30);
/// Open jobs in one look.
const OPEN_MAX: usize = 100_000;

/// A whole cluster.
#[derive(Clone, Debug)]
pub struct Simulation {
    world: World,
    asked: u64,
}

impl Simulation {
    /// A cluster at its first moment: no agent has started yet.
    #[must_use]
    pub fn new(settings: SimulationSettings) -> Self {
        Self { world: World::new(settings), asked: OUTSIDE_FIRST }
    }

    /// Lets users and faults go on for as long as the settings say, then waits until everything
    /// has ended.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn run(mut self) -> Result<Summary, Box<Failure>> {
        let end = self.world.settings.start.after(self.world.settings.length);
        self.advance(end)?;
        self.settle()?;
        Ok(self.summary())
    }

    /// Lets everything happen up to a time.
    ///
    /// # Errors
    /// The first check that fails; nothing happens any more after it.
    pub fn advance(&mut self, to: At) -> Result<(), Box<Failure>> {
        loop {
            if let Some(failure) = &self.world.failure {
                return Err(failure.clone());
            }
            if !self.world.step(to) {
                return Ok(());
            }
        }
    }

    /// Users and faults stop; everything must end.
    fn settle(&mut self) -> Result<(), Box<Failure>> {
        self.world.calm = true;
        self.world.scheduler.doom = Doom::None;
        self.world.trace.write(self.world.now, Line::Calm);
        let begin = self.world.now;
        self.world.reload(self.world.first.clone());
        // Faults that last end by themselves, and so do requests that are on their way.
        self.advance(begin.after(Millis::from_seconds(2400)))?;
        self.farewell();
        let last = begin.after(self.world.settings.settle);
        while !self.is_quiet() {
            if self.world.now >= last {
                self.world.fail(self.unrest());
            }
            let now = self.world.now;
            self.advance(now.after(PATIENCE))?;
            // A node may be quarantined after operators went through.
            if now.since(begin).0 % 3_600_000 < PATIENCE.0 {
                self.farewell();
            }
        }
        self.world.summary.settled_after = self.world.now.since(begin);
        let known = self.world.scheduler.cluster.check();
        self.world.hold(known);
        self.advance(self.world.now)
    }

    fn farewell(&mut self) {
        let (rows, _) = self.world.scheduler.cluster.jobs(None, false, OPEN_MAX);
        let waits = |row: &gantry_model::JobRow| row.held || row.tasks_held > 0;
        let held = rows.into_iter().filter(waits).map(|row| row.job);
        let nodes = self.world.scheduler.cluster.nodes();
        let name = |row: &NodeRow| row.facts.name.clone();
        let shut = |row: &&NodeRow| row.service != Service::Open || !row.ailments.is_empty();
        let closed = nodes.iter().filter(shut).map(name);
        let planned = nodes.iter().filter(|row| !row.windows.is_empty()).map(name);
        for (request, event) in self.world.users.farewell(held, closed, planned) {
            self.world.ask(request, event);
        }
    }

    fn open(&self) -> Vec<JobId> {
        let (rows, _) = self.world.scheduler.cluster.jobs(None, false, OPEN_MAX);
        rows.into_iter().map(|row| row.job).collect()
    }

    /// Whether every job has ended and no server has anything left of it.
    fn is_quiet(&self) -> bool {
        let servers = &self.world.servers;
        servers.iter().all(|server| server.processes.is_empty() && server.spool.is_empty())
            && self.world.ledger.jobs.is_empty()
            && self.world.users.pending.is_empty()
            && self.open().is_empty()
    }

    /// What keeps it from being quiet.
    fn unrest(&self) -> String {
        let waited = self.world.settings.settle;
        if let Some(job) = self.open().first() {
            let row = self.world.scheduler.cluster.job(*job);
            let state = row.map(|row| (row.state, row.tasks, row.reason));
            return format!("{job} has not ended {waited} after faults have stopped: {state:?}");
        }
        if let Some(job) = self.world.ledger.jobs.keys().next() {
            let row = self.world.scheduler.cluster.job(*job);
            let state = row.map(|row| (row.state, row.submitted, row.ended));
            return format!("{job} was never said to have ended: {state:?}");
        }
        let spooled: usize = self.world.servers.iter().map(|server| server.spool.len()).sum();
        let running: usize = self.world.servers.iter().map(|server| server.processes.len()).sum();
        let pending = self.world.users.pending.len();
        format!(
            "{running} processes, {spooled} ends and {pending} requests are left {waited} after \
             faults have stopped"
        )
    }

    /// The time in the simulation.
    #[must_use]
    pub fn now(&self) -> At {
        self.world.now
    }

    /// The cluster as the scheduler has it now.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.world.scheduler.cluster
    }

    /// The numbers so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let world = &self.world;
        let counts = &world.scheduler.books.counts;
        Summary {
            simulated: world.trace.after(world.now),
            events: world.scheduler.events,
            digest: world.trace.digest,
            preempted: counts.preempted,
            reclaimed: counts.reclaimed,
            quarantined: counts.quarantined,
            cleared: counts.cleared,
            reloads: counts.reloads,
            ahead: counts.ahead,
            handed_on: counts.handed_on,
            recalled: counts.recalled,
            sick: counts.sick,
            tests: counts.tests,
            readmitted: counts.readmitted,
            forgotten: counts.forgotten,
            ..world.summary
        }
    }

    /// A reading of every node whose agent is there, by name.
    #[must_use]
    pub fn samples(&self) -> BTreeMap<String, Sample> {
        let servers = self.world.servers.iter().filter(|server| server.agent.is_some());
        servers.map(|server| crate::sample::read(server, self.world.now)).collect()
    }

    /// The lines of the event log since this was asked last.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.world.notes)
    }

    /// Asks the cluster for something, as a person at a console does. Gives the number under which
    /// the answer will be found; `event` makes the request with that number.
    pub fn ask(&mut self, event: impl FnOnce(u64) -> Event) -> u64 {
        let request = self.asked;
        self.asked += 1;
        let event = event(request);
        self.world.users.pending.insert(request, event.clone());
        self.world.ask(request, event);
        request
    }

    /// The answer to a request, once it has come.
    pub fn take_answer(&mut self, request: u64) -> Option<Result<Answer, Reject>> {
        self.world.answers.remove(&request)
    }
}
