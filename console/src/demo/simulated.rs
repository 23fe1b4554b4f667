//! `gantry demo --seed N`: a simulated cluster of fifty nodes on the real console.
//!
//! One thread runs the simulation ([`gantry_sim`]), faster than the clock, and makes of it the same
//! pictures that a scheduler sends. Everything that is seen follows from the seed: a course that
//! went wrong can be shown again by its number. Without a screen a whole day is simulated and
//! checked, and its numbers are printed.

use std::time::{Duration, Instant};

use gantry_cluster::{Answer, Event};
use gantry_model::{JobRow, Millis, Reject};
use gantry_sim::{Simulation, SimulationSettings, Strength};
use gantry_wire::{Output, Reply, Request, Scope, Update};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::kept::Kept;
use crate::app::{About, Ask, Link, Message};
use crate::cli::nodes::Look;
use crate::error::{Failure, Outcome};
use crate::live;
use crate::output::Format;

/// Between two pictures.
const PICTURE_EACH: Duration = Duration::from_millis(250);
/// Rows of a picture, as a scheduler sends them.
const ROWS_MAX: usize = 100;
const NOTES_SHOWN: usize = 20;
const OWNERS_MAX: usize = 20;
/// Simulated time between two readings of all nodes.
const READING_EACH: Millis = Millis::from_seconds(5);
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

/// A simulated cluster that stands still.
pub(super) struct Moment(Show);

impl Moment {
    /// The cluster once the simulation has gone so far.
    ///
    /// # Errors
    /// The first check that fails.
    pub(super) fn after(course: Course, length: Millis) -> Result<Self, Failure> {
        let mut show = Show::new(course);
        show.advance(length)?;
        Ok(Self(show))
    }

    /// What a scheduler would send for a scope.
    pub(super) fn picture(&self, scope: Scope) -> Update {
        self.0.picture(scope)
    }

    /// Answers a question as a scheduler would.
    pub(super) fn answer(&self, request: Request) -> Reply {
        self.0.shown(request).unwrap_or_else(Reply::Refused)
    }
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
    let options = live::ConsoleOptions {
        banner: Some(banner),
        reader: crate::librarian::Reader::default(),
        ..look.options()
    };
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
    kept: Kept,
    /// Requests that the cluster has not answered yet.
    waiting: Vec<(u64, About)>,
}

impl Show {
    fn new(course: Course) -> Self {
        let simulation = Simulation::new(course.settings());
        Self { course, simulation, kept: Kept::default(), waiting: Vec::new() }
    }

    fn run(
        &mut self,
        messages: &mpsc::Sender<Message>,
        scopes: &watch::Receiver<Scope>,
        mut asked: mpsc::Receiver<Ask>,
    ) -> Result<(), Failure> {
        let _ = messages.blocking_send(Message::Link(Link::Live));
        loop {
            let next = Instant::now() + PICTURE_EACH;
            let step = PICTURE_EACH.as_millis() as u64 * u64::from(self.course.speed);
            self.advance(Millis(step))?;
            while let Ok(Ask { about, request }) = asked.try_recv() {
                if let Some(reply) = self.answer(*request, &about) {
                    let reply = Box::new(Ok(reply.unwrap_or_else(Reply::Refused)));
                    let _ = messages.blocking_send(Message::Answer { about, reply });
                }
            }
            for (about, reply) in self.answered() {
                let reply = Box::new(Ok(reply));
                let _ = messages.blocking_send(Message::Answer { about, reply });
            }
            let scope = *scopes.borrow();
            let update = Box::new(self.picture(scope));
            if messages.blocking_send(Message::Update { scope, update }).is_err() {
                return Ok(());
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Lets the simulation go on, a few seconds at a time, so that its past has no gaps.
    fn advance(&mut self, step: Millis) -> Result<(), Failure> {
        let end = self.simulation.now().after(step);
        let mut left = step.0;
        while left > 0 {
            let part = left.min(READING_EACH.0);
            left -= part;
            let to = gantry_model::At(end.0 - left);
            let moved = self.simulation.advance(to);
            moved.map_err(|failure| Failure::trouble(failure.to_string()))?;
            self.kept.read(to, self.simulation.samples());
        }
        let notes = self.simulation.take_notes();
        self.kept.note(notes);
        Ok(())
    }

    /// Answers at once, or hands the request to the cluster.
    fn answer(&mut self, request: Request, about: &About) -> Option<Result<Reply, Reject>> {
        let user = "operator".to_owned();
        let event = match request {
            Request::Cancel { job, indices } => {
                self.simulation.ask(|request| Event::Cancel { request, user, job, indices })
            }
            Request::Act(action) => {
                self.simulation.ask(|request| Event::Act { request, user, action })
            }
            Request::Submit { key, spec } => {
                self.simulation.ask(|request| Event::Submit { request, user, key, spec })
            }
            other => return Some(self.shown(other)),
        };
        self.waiting.push((event, about.clone()));
        None
    }

    /// What the cluster has answered since.
    fn answered(&mut self) -> Vec<(About, Reply)> {
        let mut replies = Vec::new();
        let simulation = &mut self.simulation;
        self.waiting.retain(|(request, about)| {
            let Some(answer) = simulation.take_answer(*request) else { return true };
            let reply = match answer {
                Ok(Answer::Cancelled(tasks)) => Reply::Cancelled(tasks),
                Ok(Answer::Acted(tasks)) => Reply::Acted(tasks),
                Ok(Answer::Submitted(job)) => Reply::Submitted(job),
                Err(reject) => Reply::Refused(reject),
            };
            replies.push((about.clone(), reply));
            false
        });
        replies
    }

    /// Answers a question as a scheduler would.
    fn shown(&self, request: Request) -> Result<Reply, Reject> {
        let (cluster, now) = (self.simulation.cluster(), self.simulation.now());
        match request {
            Request::Why { job, indices } => {
                cluster.why(now, job, indices.as_ref()).map(|why| Reply::Why(Box::new(why)))
            }
            Request::Tasks { job, from } => {
                let page = cluster.tasks(job, from, ROWS_MAX);
                let (rows, more) =
                    page.ok_or_else(|| Reject::not_found(format!("there is no job {job}")))?;
                Ok(Reply::Tasks { rows, more })
            }
            Request::Spec { job } => {
                cluster.spec(job).map(|(_, spec)| Reply::Spec(Box::new(spec.clone())))
            }
            Request::Gpus { after, job } => {
                Ok(Reply::Gpus(self.kept.gpus(cluster, after.as_deref(), job)))
            }
            Request::Series { node, quantities, span, cells } => {
                let rows = self.kept.past(&node, &quantities, now, span, cells.into());
                Ok(Reply::Series { at: now, rows })
            }
            Request::Notes { query } => Ok(Reply::Notes(self.kept.notes(&query))),
            Request::Metrics { .. } => Ok(Reply::Metrics(Vec::new())),
            // What is simulated prints nothing.
            Request::Output { .. } => Ok(Reply::Output(Output::default())),
            _ => Err(Reject::invalid("the simulation does not answer this")),
        }
    }

    /// What a scheduler would send for a scope.
    fn picture(&self, scope: Scope) -> Update {
        let at = self.simulation.now();
        let cluster = self.simulation.cluster();
        let live = || cluster.jobs(None, false, ROWS_MAX).0;
        let all = || cluster.jobs(None, true, ROWS_MAX).0;
        let jobs = match scope {
            Scope::Job(job) => cluster.job(job).into_iter().collect(),
            Scope::Nodes => live(),
            Scope::Jobs => all(),
            Scope::Summary => Vec::new(),
            Scope::Overview | Scope::Data => live_first(live(), all()),
        };
        let shows_nodes = matches!(scope, Scope::Overview | Scope::Nodes | Scope::Data);
        let nodes = if shows_nodes { cluster.some_nodes(None, ROWS_MAX).0 } else { Vec::new() };
        let owners = if scope == Scope::Overview { cluster.owners(OWNERS_MAX) } else { Vec::new() };
        Update {
            at,
            cluster: format!("seed {}", self.course.seed),
            summary: cluster.summary(),
            nodes: nodes.into_iter().map(|row| self.kept.status(row)).collect(),
            owners,
            jobs,
            metrics: Vec::new(),
            output: matches!(scope, Scope::Job(_)).then(Output::default),
            notes: self.kept.newest_notes(NOTES_SHOWN),
            ..self.kept.hour(at, BUSY_SPAN, BUSY_CELLS)
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
