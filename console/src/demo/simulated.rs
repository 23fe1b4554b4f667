//! `gantry demo --seed N`: a simulated cluster of fifty nodes on the real console.
//!
//! One thread runs the simulation ([`gantry_sim`]), faster than the clock, and makes of it the same
//! pictures that a scheduler sends. Everything that is seen follows from the seed: a course that
//! went wrong can be shown again by its number. Without a screen a whole day is simulated and
//! checked, and its numbers are printed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gantry_cluster::{Answer, Event};
use gantry_model::{JobId, JobRow, Millis, Note};
use gantry_sim::{Simulation, SimulationSettings, Strength};
use gantry_telemetry::Series;
use gantry_wire::{NodeStatus, Scope, Update};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::app::{Link, Message};
use crate::cli::nodes::Look;
use crate::error::{Failure, Outcome};
use crate::live;
use crate::output::Format;

/// Between two pictures.
const PICTURE_EACH: Duration = Duration::from_millis(250);
/// Rows of a picture, as a scheduler sends them.
const ROWS_MAX: usize = 100;
const NOTES_SHOWN: usize = 20;
const BUSY_SPAN: Millis = Millis::from_seconds(3600);
const BUSY_CELLS: usize = 120;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Everything that chance decides follows from this.
    pub(super) seed: u64,
    /// How many servers.
    pub(super) nodes: u32,
    /// How much faster than the clock.
    pub(super) speed: u32,
    /// How rough the world is.
    pub(super) strength: Strength,
}

impl Course {
    fn settings(self) -> SimulationSettings {
        SimulationSettings {
            seed: self.seed,
            nodes: self.nodes,
            strength: self.strength,
            jobs_per_hour: self.nodes * 4,
            // Each proof looks at every job that is kept.
            check_each: 200,
            ..SimulationSettings::default()
        }
    }
}

/// Simulates a day, checks it, and prints its numbers.
///
/// # Errors
/// The first check that fails, with what happened before it.
pub(super) fn run_quietly(course: Course, format: Format) -> Outcome {
    let begun = Instant::now();
    let result = Simulation::new(course.settings()).run();
    let summary = result.map_err(|failure| Failure::trouble(failure.to_string()))?;
    let took_ms = begun.elapsed().as_millis() as u64;
    let value = json!({
        "seed": course.seed,
        "nodes": course.nodes,
        "strength": course.strength.word(),
        "simulated_ms": summary.simulated.0,
        "took_ms": took_ms,
        "events": summary.events,
        "jobs_done": summary.jobs_done,
        "jobs_failed": summary.jobs_failed,
        "jobs_cancelled": summary.jobs_cancelled,
        "tasks": summary.tasks,
        "launches": summary.launches,
        "faults": summary.faults,
        "scheduler_crashes": summary.scheduler_crashes,
        "nodes_lost": summary.nodes_lost,
        "digest": format!("{:016x}", summary.digest),
    });
    let people = || {
        format!(
            "seed {} held for {} nodes\n{summary}\nsimulated in {}",
            course.seed,
            course.nodes,
            Millis(took_ms)
        )
    };
    format.print("simulation", &value, people, || format!("{:016x}", summary.digest))?;
    Ok(0)
}

/// Shows the simulation on the console until the user leaves it.
///
/// # Errors
/// Where there is no terminal, or a check failed; then the report is printed once the screen is
/// given back.
pub(super) fn run_on_screen(course: Course, look: Look) -> Outcome {
    let (report, failed) = std::sync::mpsc::channel();
    let banner = format!(
        "simulation: seed {}, {} nodes, {} times as fast as the clock; nothing here is real",
        course.seed, course.nodes, course.speed
    );
    let (_said, banner) = watch::channel(banner);
    let options = live::ConsoleOptions { banner: Some(banner), ..look.options() };
    live::run_with(options, move |messages, scopes, asked| {
        std::thread::spawn(move || {
            let mut show = Show::new(course);
            if let Err(failure) = show.run(&messages, &scopes, asked) {
                // The screen says it at once; the report waits for its end.
                let _ = messages.blocking_send(Message::Banner(failure.sentence.clone()));
                let _ = report.send(failure);
            }
        });
    })
    .map_err(|error| Failure::trouble(format!("{error:#}")))?;
    failed.try_recv().map_or(Ok(0), Err)
}

/// The simulation and what a scheduler would keep beside it.
struct Show {
    course: Course,
    simulation: Simulation,
    notes: VecDeque<Note>,
    busy: Series,
}

impl Show {
    fn new(course: Course) -> Self {
        let simulation = Simulation::new(course.settings());
        Self { course, simulation, notes: VecDeque::new(), busy: Series::new() }
    }

    fn run(
        &mut self,
        messages: &mpsc::Sender<Message>,
        scopes: &watch::Receiver<Scope>,
        mut asked: mpsc::Receiver<JobId>,
    ) -> Result<(), Failure> {
        let _ = messages.blocking_send(Message::Link(Link::Live));
        let mut waiting: Vec<(u64, JobId)> = Vec::new();
        loop {
            let next = Instant::now() + PICTURE_EACH;
            let step = PICTURE_EACH.as_millis() as u64 * u64::from(self.course.speed);
            let to = self.simulation.now().after(Millis(step));
            let moved = self.simulation.advance(to);
            moved.map_err(|failure| Failure::trouble(failure.to_string()))?;
            while let Ok(job) = asked.try_recv() {
                let user = "operator".to_owned();
                let ask = |request| Event::Cancel { request, user, job, indices: None };
                waiting.push((self.simulation.ask(ask), job));
            }
            waiting.retain(|(request, job)| {
                let Some(answer) = self.simulation.take_answer(*request) else { return true };
                let sentence = match answer {
                    Ok(Answer::Cancelled(tasks)) => format!("{job} is cancelled, {tasks} tasks"),
                    Ok(_) => format!("{job} is changed"),
                    Err(reject) => reject.sentence,
                };
                let _ = messages.blocking_send(Message::Answer(sentence));
                false
            });
            let scope = *scopes.borrow();
            let update = Box::new(self.picture(scope));
            if messages.blocking_send(Message::Update { scope, update }).is_err() {
                return Ok(());
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// What a scheduler would send for a scope.
    fn picture(&mut self, scope: Scope) -> Update {
        let at = self.simulation.now();
        let samples = self.simulation.samples();
        self.notes.extend(self.simulation.take_notes());
        let old = self.notes.len().saturating_sub(NOTES_SHOWN);
        self.notes.drain(..old);
        let busy: u64 = samples.values().map(|sample| u64::from(sample.cpu_permille)).sum();
        self.busy.push(at, (busy / (samples.len() as u64).max(1)) as u32);
        let cluster = self.simulation.cluster();
        let live = || cluster.jobs(None, false, ROWS_MAX).0;
        let all = || cluster.jobs(None, true, ROWS_MAX).0;
        let jobs = match scope {
            Scope::Job(job) => cluster.job(job).into_iter().collect(),
            Scope::Nodes => live(),
            Scope::Jobs => all(),
            Scope::Overview | Scope::Data => live_first(live(), all()),
        };
        let nodes = cluster.nodes().into_iter().take(ROWS_MAX).map(|row| {
            let sample = samples.get(&row.facts.name).cloned();
            let sampled = sample.as_ref().map(|_| at);
            NodeStatus { row, sample, sampled }
        });
        let cells = self.busy.resample(at, BUSY_SPAN, BUSY_CELLS);
        Update {
            at,
            cluster: format!("seed {}", self.course.seed),
            summary: cluster.summary(),
            nodes: nodes.collect(),
            busy_permille: cells
                .into_iter()
                .map(|cell| cell.map(|cell| cell.mean.min(1000) as u16))
                .collect(),
            jobs,
            metrics: Vec::new(),
            output: None,
            notes: self.notes.iter().cloned().collect(),
        }
    }
}

/// The newest jobs, newest first, but none that lives gives way to one that has ended.
fn live_first(live: Vec<JobRow>, all: Vec<JobRow>) -> Vec<JobRow> {
    let room = ROWS_MAX.saturating_sub(live.len());
    let ended = all.into_iter().filter(|row| row.state.is_ended()).take(room);
    let mut rows: Vec<JobRow> = live.into_iter().chain(ended).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.job));
    rows
}
