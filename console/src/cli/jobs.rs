//! Commands about jobs: list, show, logs, cancel, wait.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gantry_model::{At, IndexSet, JobId, JobRow, JobState, Millis, TaskId, TaskRow};
use gantry_wire::{Output, Reply, Request};
use serde_json::{Value, json};

use super::client::{Client, unexpected};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// How often a log that is followed is asked for more.
const FOLLOW_EACH: Duration = Duration::from_millis(300);

/// Whether a list holds jobs that have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It does not, unless asked for.
    Hide,
    /// It does.
    Show,
}

/// `gantry queue` and `gantry jobs`.
#[derive(Debug, Args)]
pub struct List {
    /// Ended jobs too.
    #[arg(long, short)]
    all: bool,
    /// At most so many, newest first.
    #[arg(long, short = 'n', default_value_t = 1000)]
    limit: usize,
}

impl List {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the scheduler is not there.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format, ended: Ended) -> Outcome {
        let client = Client::connect(cluster)?;
        let ended = self.all || ended == Ended::Show;
        let mut all = Vec::new();
        let mut before = None;
        while all.len() < self.limit {
            let reply = client.ask(&Request::Jobs { before, ended })?;
            let Reply::Jobs { rows, more } = reply else { return Err(unexpected(&reply)) };
            before = rows.last().map(|row| row.job);
            all.extend(rows);
            if !more || before.is_none() {
                break;
            }
        }
        all.truncate(self.limit);
        let value: Vec<Value> = all.iter().map(job_value).collect();
        format.print("jobs", &value, || job_table(&all), || ids(&all))?;
        Ok(0)
    }
}

fn ids(rows: &[JobRow]) -> String {
    rows.iter().map(|row| row.job.to_string()).collect::<Vec<_>>().join("\n")
}

fn job_table(rows: &[JobRow]) -> String {
    if rows.is_empty() {
        return "no jobs".into();
    }
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.job.to_string(),
                row.name.clone(),
                row.user.clone(),
                row.kind.clone(),
                row.state.word().into(),
                format!("{}/{}", row.tasks.ended(), row.tasks.total()),
                row.nodes.join(","),
                time(row),
                row.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["JOB", "NAME", "USER", "KIND", "STATE", "TASKS", "NODE", "TIME", "NOTE"], &rows)
}

/// How long a job ran, or has been running.
fn time(row: &JobRow) -> String {
    let now = At(std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64));
    let Some(started) = row.started else { return String::new() };
    let seconds = row.ended.unwrap_or(now).since(started).0 / 1000;
    Millis::from_seconds(seconds).to_string()
}

/// A job as JSON: ids as people type them, times in milliseconds since 1970.
#[must_use]
pub fn job_value(row: &JobRow) -> Value {
    json!({
        "job": row.job.to_string(),
        "name": row.name,
        "user": row.user,
        "kind": row.kind,
        "state": row.state.word(),
        "tasks": row.tasks,
        "cores": row.resources.cores,
        "memory_mib": row.resources.memory.0,
        "gpus": row.resources.gpus,
        "nodes": row.nodes,
        "submitted_ms": row.submitted.0,
        "started_ms": row.started.map(|at| at.0),
        "ended_ms": row.ended.map(|at| at.0),
        "starts": row.starts,
        "reason": row.reason,
        "exit_code": row.exit.as_ref().map(gantry_model::Exit::code),
    })
}

/// `gantry job`.
#[derive(Debug, Args)]
pub struct Show {
    /// The job.
    job: JobId,
}

impl Show {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the job is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        let client = Client::connect(cluster)?;
        let reply = client.ask(&Request::Job { job: self.job })?;
        let Reply::Job(row) = reply else { return Err(unexpected(&reply)) };
        let reply = client.ask(&Request::Tasks { job: self.job, from: 0 })?;
        let Reply::Tasks { rows, more } = reply else { return Err(unexpected(&reply)) };
        let mut value = job_value(&row);
        value["first_tasks"] = rows.iter().map(task_value).collect();
        let people = || {
            let more = if more { "\n…" } else { "" };
            format!("{}\n\n{}{more}", job_table(std::slice::from_ref(&row)), task_table(&rows))
        };
        format.print("job", &value, people, || row.job.to_string())?;
        Ok(0)
    }
}

fn task_value(row: &TaskRow) -> Value {
    json!({
        "task": row.task.to_string(),
        "state": row.state,
        "node": row.node,
        "starts": row.starts,
        "exit_code": row.exit.as_ref().map(gantry_model::Exit::code),
        "exit": row.exit.as_ref().map(ToString::to_string),
    })
}

fn task_table(rows: &[TaskRow]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.task.to_string(),
                row.state.clone(),
                row.node.clone().unwrap_or_default(),
                row.starts.to_string(),
                row.exit.as_ref().map(ToString::to_string).unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["TASK", "STATE", "NODE", "STARTS", "EXIT"], &rows)
}

/// `gantry logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The task, as j12.3; j12 is its first.
    task: TaskId,
    /// Print what is added until the task has ended.
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the task is unknown, its node is away, or the scheduler is not there.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        let client = Client::connect(cluster)?;
        let mut offset = 0;
        let mut whole = Vec::new();
        loop {
            let piece = self.piece(&client, offset)?;
            let (empty, live) = (piece.bytes.is_empty(), piece.live);
            offset = piece.next;
            if format == Format::Json && !self.follow {
                whole.extend(piece.bytes);
            } else if format == Format::Json {
                let text = String::from_utf8_lossy(&piece.bytes);
                for line in text.lines() {
                    output::line(
                        &json!({ "task": self.task.to_string(), "line": line }).to_string(),
                    )?;
                }
            } else {
                output::raw(&piece.bytes)?;
            }
            if empty && !(self.follow && live) {
                break;
            }
            if empty {
                std::thread::sleep(FOLLOW_EACH);
            }
        }
        if format == Format::Json && !self.follow {
            let text = String::from_utf8_lossy(&whole).into_owned();
            let value = json!({ "task": self.task.to_string(), "text": text });
            format.print("output", &value, String::new, String::new)?;
        }
        Ok(0)
    }

    fn piece(&self, client: &Client, offset: u64) -> Result<Output, Failure> {
        match client.ask(&Request::Output { task: self.task, offset })? {
            Reply::Output(piece) => Ok(piece),
            other => Err(unexpected(&other)),
        }
    }
}

/// `gantry cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The jobs.
    #[arg(required = true)]
    jobs: Vec<JobId>,
    /// Only these elements, as 0-9.
    #[arg(long)]
    elements: Option<IndexSet>,
}

impl Cancel {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a job is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        let client = Client::connect(cluster)?;
        let mut cancelled = Vec::new();
        for job in &self.jobs {
            let indices = self.elements.clone();
            match client.ask(&Request::Cancel { job: *job, indices })? {
                Reply::Cancelled(tasks) => cancelled.push((*job, tasks)),
                other => return Err(unexpected(&other)),
            }
        }
        let value: Vec<Value> = cancelled
            .iter()
            .map(|(job, tasks)| json!({ "job": job.to_string(), "tasks": tasks }))
            .collect();
        let people = || {
            let line = |(job, tasks): &(JobId, u32)| match tasks {
                0 => format!("{job} had ended already"),
                1 => format!("cancelled {job}"),
                n => format!("cancelled {job}, {n} tasks"),
            };
            cancelled.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        let quiet =
            || cancelled.iter().map(|(job, _)| job.to_string()).collect::<Vec<_>>().join("\n");
        format.print("cancelled", &value, people, quiet)?;
        Ok(0)
    }
}

/// `gantry wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// The jobs.
    #[arg(required = true)]
    jobs: Vec<JobId>,
}

impl Wait {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a job is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Option<PathBuf>, format: Format) -> Outcome {
        end_code(&Client::connect(cluster)?, &self.jobs, format)
    }
}

/// Waits for jobs, prints how they ended, and gives the exit code of the first that failed. A
/// cancelled job counts as ended by TERM.
///
/// # Errors
/// Where a job is unknown or the scheduler goes away.
pub fn end_code(client: &Client, jobs: &[JobId], format: Format) -> Outcome {
    let rows = jobs.iter().map(|job| client.wait(*job)).collect::<Result<Vec<_>, _>>()?;
    let value: Vec<Value> = rows.iter().map(job_value).collect();
    format.print("jobs", &value, || job_table(&rows), || ids(&rows))?;
    let code = |row: &JobRow| match row.state {
        JobState::Cancel => 128 + 15,
        _ => row.exit.as_ref().map_or(0, gantry_model::Exit::code),
    };
    Ok(rows.iter().map(code).find(|code| *code != 0).unwrap_or(0))
}
