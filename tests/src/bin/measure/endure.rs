//! `endure`: an hour of a cluster's life, and what its daemons take of memory and disk meanwhile.
//!
//! A scheduler with five hundred agents that send a sample a second ([`fleet`](crate::fleet)), consoles that
//! watch, and two real agents that run a job of a hundred tasks each second: most are done, some fail and are
//! tried again, some are cancelled, some draw a curve. What is kept is kept for a few minutes only, so
//! that an hour sees what is old go many times over.
//!
//! The first quarter is not looked at: what is kept fills up, the journal behind its snapshots too. What
//! counts is how much more there is in the last quarter than in the second, as medians, and that every
//! task ended as it should. The past of readings fills up for two weeks, to a bound that is tested
//! elsewhere: the scheduler says what it takes, and that is a course of its own.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gantry_model::{JobId, JobSpec};
use gantry_tests::page::MetricsPage;
use gantry_wire::{Reply, Request};

use crate::Size;
use crate::agents;
use crate::fleet::Fleet;
use crate::report::{Goal, Row};
use crate::served::{Served, array, command};
use crate::statistics::{median, memory, milliseconds, quantile};

/// An hour, in seconds.
const SECONDS: u32 = 3600;
const AGENTS: u32 = 500;
const CONSOLES: u32 = 4;
/// Nodes that really run tasks.
const NODES: [&str; 2] = ["cpu-1", "cpu-2"];
/// Tasks of each job, of which there is one a second.
const TASKS: u32 = 100;
/// Jobs that were submitted and not waited for.
const OPEN: usize = 10;
/// Moments at which memory and disk are looked at.
const LOOKS: u32 = 240;
/// How much more may be taken in the last quarter than in the second, in percent.
const MORE_PERCENT: f64 = 5.0;
/// What is kept, and for how long.
const KEPT: &str =
    "ended_kept = 200\nevents_kept = 2000\nevents_age = \"5m\"\nhistory_age = \"5m\"";
const NODE: &str =
    "cores = 4\nmemory = \"1G\"\nworkers = 1\noutput_age = \"5m\"\nlabels = [\"runs\"]";
/// Only the real agents have it: the others are given nothing to run.
const LABEL: &str = "runs";

/// What is looked at.
const COURSES: [&str; 6] = [
    "memory of the past of readings",
    "memory of the scheduler but for that",
    "memory of an agent",
    "memory of a supervisor",
    "disk of the scheduler",
    "disk of an agent",
];
/// It grows on, to a bound.
const FILLS: usize = 0;
const SCHEDULER: &[&str] = &["scheduler", "--exit-with-parent"];
const AGENT: &[&str] = &["agent", "--exit-with-parent"];
const SUPERVISOR: &[&str] = &["supervise"];

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let length = Duration::from_secs(size.count.unwrap_or(SECONDS).max(4).into());
    let mut served = Served::start()?;
    let page = MetricsPage::of(&mut served.cluster)?;
    served.reconnect()?;
    served.set(KEPT)?;
    let access = served.access()?;
    let mut fleet = Fleet::new(access.address);
    fleet.watch(CONSOLES, &access.identity)?;
    fleet.join(agents::members(&served, size.nodes.unwrap_or(AGENTS))?)?;
    for node in NODES {
        served.cluster.join(node, NODE)?;
    }
    let mut course = Course::default();
    let mut work = Work::default();
    let start = Instant::now();
    let look_each = length / LOOKS;
    while start.elapsed() < length || work.must_go_on() {
        work.second(&mut served)?;
        let due = look_each * course.at.len() as u32;
        if start.elapsed() >= due {
            course.look(&served, &page, start.elapsed())?;
        }
        let next = Duration::from_secs(1) * work.jobs as u32;
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
    work.finish(&served)?;
    if let Some(path) = &size.picture {
        let picture = course.picture(length);
        fs::write(path, picture).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(work.rows().into_iter().chain(course.rows()).collect())
}

/// What users do.
#[derive(Default)]
struct Work {
    jobs: u64,
    open: VecDeque<(JobId, Kind)>,
    submits_ms: Vec<f64>,
    /// Tasks that ended otherwise than they should.
    wrong: u64,
}

/// What a job is like.
#[derive(Clone, Copy)]
enum Kind {
    Done,
    Failed,
    Cancelled,
    Drawn,
}

impl Kind {
    fn of(number: u64) -> Self {
        match number % 10 {
            3 => Self::Failed,
            6 => Self::Cancelled,
            9 => Self::Drawn,
            _ => Self::Done,
        }
    }

    fn spec(self) -> JobSpec {
        let line = match self {
            Self::Done => "echo done",
            Self::Failed => "echo failing; exit 3",
            Self::Cancelled => "exec sleep 600",
            Self::Drawn => "for step in 1 2 3 4 5; do echo ::metric loss 0.$step $step; done",
        };
        let retries = matches!(self, Self::Failed).into();
        let labels = [LABEL.to_owned()].into();
        JobSpec { retries, labels, ..array(TASKS, command(&["sh", "-c", line])) }
    }
}

impl Work {
    /// Submits a job, cancels the one before if it is of those, and waits for one of some time ago.
    fn second(&mut self, served: &mut Served) -> Result<()> {
        if let Some((job, Kind::Cancelled)) = self.open.back() {
            let reply = served.ask(&Request::Cancel { job: *job, indices: None })?;
            ensure!(matches!(reply, Reply::Cancelled(_)), "a cancel was answered with {reply:?}");
        }
        let kind = Kind::of(self.jobs);
        self.jobs += 1;
        let start = Instant::now();
        let job = served.submit(kind.spec())?;
        self.submits_ms.push(milliseconds(start.elapsed()));
        self.open.push_back((job, kind));
        if self.open.len() > OPEN {
            self.end_one(served)?;
        }
        Ok(())
    }

    /// Whether the newest job is to be cancelled yet.
    fn must_go_on(&self) -> bool {
        matches!(self.open.back(), Some((_, Kind::Cancelled)))
    }

    fn finish(&mut self, served: &Served) -> Result<()> {
        while !self.open.is_empty() {
            self.end_one(served)?;
        }
        Ok(())
    }

    fn end_one(&mut self, served: &Served) -> Result<()> {
        let Some((job, kind)) = self.open.pop_front() else { return Ok(()) };
        let tasks = served.client.wait(job, None).map_err(crate::served::said)?.tasks;
        let right = match kind {
            Kind::Done | Kind::Drawn => tasks.done,
            Kind::Failed => tasks.fail,
            Kind::Cancelled => tasks.cancel,
        };
        self.wrong += u64::from(TASKS.abs_diff(right));
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let wrong =
            format!("ended otherwise than they should, of {}", self.jobs * u64::from(TASKS));
        vec![
            Row::new(wrong, "tasks", self.wrong as f64).goal(Goal::AtMost(0.0)),
            Row::new("a submit, p50", "ms", quantile(&self.submits_ms, 500)),
            Row::new("a submit, p99", "ms", quantile(&self.submits_ms, 990)),
        ]
    }
}

/// What was taken, look by look.
#[derive(Default)]
struct Course {
    at: Vec<Duration>,
    /// Of each of [`COURSES`], in MB.
    taken: [Vec<f64>; COURSES.len()],
}

impl Course {
    fn look(&mut self, served: &Served, page: &MetricsPage, at: Duration) -> Result<()> {
        let memory_of = |words: &[&str]| {
            let found = served.processes(words)?;
            let process = found.first().with_context(|| format!("no process of {words:?}"))?;
            Ok::<_, anyhow::Error>(memory(&process.as_raw_nonzero().to_string(), "VmRSS")? as f64)
        };
        let past = page.number("gantry_series_memory_bytes")?;
        let taken = [
            past,
            memory_of(SCHEDULER)? - past,
            memory_of(AGENT)?,
            memory_of(SUPERVISOR)?,
            bytes_in(&served.scheduler_folder()) as f64,
            bytes_in(&served.cluster.folder().join(NODES[0])) as f64,
        ];
        self.at.push(at);
        for (all, bytes) in self.taken.iter_mut().zip(taken) {
            all.push(bytes / 1e6);
        }
        Ok(())
    }

    /// For each how much there is at most, and how much more in the last quarter than in the second.
    fn rows(&self) -> Vec<Row> {
        let quarter = self.at.len() / 4;
        let mut rows = Vec::new();
        for (number, (name, taken)) in COURSES.iter().zip(&self.taken).enumerate() {
            let second = median(&taken[quarter..(2 * quarter).max(quarter + 1)]);
            let last = median(&taken[3 * quarter..]);
            rows.push(Row::new(format!("{name}, at most"), "MB", quantile(taken, 1000)));
            let more = ((last / second.max(1e-3) - 1.0) * 100.0).max(0.0);
            let what = format!("{name}, more in the last quarter than in the second");
            let row = Row::new(what, "%", more);
            rows.push(if number == FILLS { row } else { row.goal(Goal::AtMost(MORE_PERCENT)) });
        }
        rows
    }

    /// The courses, one below the other, as an SVG.
    fn picture(&self, length: Duration) -> String {
        const WIDTH: f64 = 720.0;
        const HEIGHT: f64 = 96.0;
        const LEFT: f64 = 64.0;
        let minutes = length.as_secs_f64() / 60.0;
        let x = |at: f64| LEFT + at / minutes * (WIDTH - LEFT - 16.0);
        let height = HEIGHT * self.taken.len() as f64 + 24.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        for (number, (name, taken)) in COURSES.iter().zip(&self.taken).enumerate() {
            let top = HEIGHT * number as f64 + 24.0;
            let bottom = top + HEIGHT - 32.0;
            let most = quantile(taken, 1000).max(1e-3);
            let points: Vec<String> = self
                .at
                .iter()
                .zip(taken)
                .map(|(at, taken)| {
                    let y = bottom - taken / most * (bottom - top);
                    format!("{:.1},{y:.1}", x(at.as_secs_f64() / 60.0))
                })
                .collect();
            // Writing to a string cannot fail.
            let _ = write!(
                svg,
                "<text x=\"{LEFT}\" y=\"{:.0}\">{name}, MB</text>\n\
                 <text x=\"{:.0}\" y=\"{top:.0}\" dy=\"4\" text-anchor=\"end\" fill=\"#555555\">{most:.1}</text>\n\
                 <text x=\"{:.0}\" y=\"{bottom:.0}\" text-anchor=\"end\" fill=\"#555555\">0</text>\n\
                 <path d=\"M{LEFT} {top:.0}V{bottom:.0}H{:.0}\" fill=\"none\" stroke=\"#bbbbbb\"/>\n\
                 <polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"1.5\"/>\n",
                top - 8.0,
                LEFT - 6.0,
                LEFT - 6.0,
                x(minutes),
                points.join(" "),
            );
        }
        for tenths in 0..=6 {
            let minute = minutes * f64::from(tenths) / 6.0;
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555555\">{minute:.0} min</text>",
                x(minute).min(WIDTH - 24.0),
                height - 4.0,
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// What the files of a folder take on its disk, but for the audit log, which keeps a line for each request
/// for good. What goes meanwhile is not counted.
fn bytes_in(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if !entry.file_name().to_string_lossy().starts_with("audit-") {
                bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
            }
        }
    }
    bytes
}
