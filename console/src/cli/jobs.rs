//! Commands that look at jobs: list, show, wait; and a job as a row and as JSON, as every other
//! command prints it too.

mod columns;

use clap::Args;
use gantry_model::{At, JobRow, JobState, MemoryMib, Millis, Resources, Spent, TaskRow};
use gantry_wire::{Reply, Request};
use serde_json::{Value, json};

use columns::Columns;

use super::chosen::Chosen;
use super::client::{Client, Reach, unexpected};
use super::history::hours;
use super::{completions, logs, time};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// Tasks that `gantry job` lists where none are named.
const TASKS_SHOWN: usize = 200;

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
    /// Lines of this form, as squeue has it: %i %j %T, %.10i for ten characters to the right.
    #[arg(long = "format", short = 'o', value_name = "FORMAT")]
    form: Option<String>,
    /// With --format: no line over the columns.
    #[arg(long, requires = "form")]
    no_header: bool,
}

impl List {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format, ended: Ended) -> Outcome {
        let columns = self.form.as_deref().map(Columns::read).transpose()?;
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
        let people = || match &columns {
            Some(columns) => self.lines(columns, &all),
            None => job_table(&all),
        };
        format.print("jobs", &value, people, || ids(&all))?;
        Ok(0)
    }

    fn lines(&self, columns: &Columns, rows: &[JobRow]) -> String {
        let now = time::now();
        let titles = (!self.no_header).then(|| columns.titles());
        let lines = titles.into_iter().chain(rows.iter().map(|row| columns.row(row, now)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Ids, one per line.
pub(super) fn ids(rows: &[JobRow]) -> String {
    rows.iter().map(|row| row.job.to_string()).collect::<Vec<_>>().join("\n")
}

fn job_table(rows: &[JobRow]) -> String {
    if rows.is_empty() {
        return "no jobs".into();
    }
    let now = time::now();
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
                time_taken(row, now),
                row.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(&["JOB", "NAME", "USER", "KIND", "STATE", "TASKS", "NODE", "TIME", "NOTE"], &rows)
}

/// How long a job ran, or has been running.
pub(super) fn time_taken(row: &JobRow, now: At) -> String {
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
        "scratch_mib": row.resources.scratch.0,
        "nodes": row.nodes,
        "group": row.group,
        "priority": row.priority,
        "held": row.held,
        "tasks_held": row.tasks_held,
        "progress_permille": row.progress_permille,
        "spent": spent_value(&row.spent),
        "time_limit_ms": row.time_limit.map(|limit| limit.0),
        "submitted_ms": row.submitted.0,
        "started_ms": row.started.map(|at| at.0),
        "ended_ms": row.ended.map(|at| at.0),
        "starts": row.starts,
        "reason": row.reason,
        "exit_code": row.exit.as_ref().map(gantry_model::Exit::code),
    })
}

/// What a job took, as JSON.
pub(super) fn spent_value(spent: &Spent) -> Value {
    json!({
        "core_ms": spent.core_ms,
        "gpu_ms": spent.gpu_ms,
        "cpu_ms": spent.cpu_ms,
        "memory_peak_mib": spent.memory_peak.0,
        "disk_read_kib": spent.read_kib,
        "disk_written_kib": spent.written_kib,
    })
}

/// `gantry job`.
#[derive(Debug, Args)]
pub struct Show {
    /// The job; with elements, as j12.0-99, their tasks.
    #[arg(add = completions::jobs())]
    job: Chosen,
}

impl Show {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the job is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let client = Client::connect(cluster)?;
        let reply = client.ask(&Request::Job { job: self.job.job })?;
        let Reply::Job(row) = reply else { return Err(unexpected(&reply)) };
        let (rows, more) = self.tasks(&client)?;
        let mut value = job_value(&row);
        value["first_tasks"] = rows.iter().map(task_value).collect();
        let people = || {
            let more = if more { "\n…" } else { "" };
            let table = job_table(std::slice::from_ref(&row));
            format!("{table}\n\n{}\n\n{}{more}", details(&row), task_table(&rows))
        };
        format.print("job", &value, people, || row.job.to_string())?;
        Ok(0)
    }

    /// The tasks that are shown, and whether there are more.
    fn tasks(&self, client: &Client) -> Result<(Vec<TaskRow>, bool), Failure> {
        if self.job.indices.is_some() {
            return Ok((logs::rows(client, &self.job)?, false));
        }
        let reply = client.ask(&Request::Tasks { job: self.job.job, from: 0 })?;
        let Reply::Tasks { mut rows, more } = reply else { return Err(unexpected(&reply)) };
        let more = more || rows.len() > TASKS_SHOWN;
        rows.truncate(TASKS_SHOWN);
        Ok((rows, more))
    }
}

/// What a task asks for, without what it does not.
pub(super) fn amounts(asked: &Resources) -> String {
    let count = |count: u32, one: &str| {
        (count > 0).then(|| format!("{count} {one}{}", if count == 1 { "" } else { "s" }))
    };
    let size = |size: MemoryMib, of: &str| (size.0 > 0).then(|| format!("{size} {of}"));
    let parts = [
        count(asked.cores, "core"),
        size(asked.memory, "memory"),
        count(asked.gpus, "gpu"),
        size(asked.scratch, "scratch"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What a job's row has no column for.
fn details(row: &JobRow) -> String {
    let mut lines = vec![
        ("group", row.group.clone().unwrap_or_else(|| row.user.clone())),
        ("priority", row.priority.to_string()),
        ("needs", amounts(&row.resources)),
    ];
    if row.held || row.tasks_held > 0 {
        let which = if row.held { String::new() } else { format!("{} tasks ", row.tasks_held) };
        lines.push(("held", format!("{which}until gantry release {}", row.job)));
    }
    if let Some(limit) = row.time_limit {
        lines.push(("limit", limit.to_string()));
    }
    if let Some(permille) = row.progress_permille {
        lines.push(("progress", format!("{} %", permille / 10)));
    }
    if row.spent != Spent::default() {
        let Spent { core_ms, gpu_ms, cpu_ms, memory_peak, read_kib, written_kib } = row.spent;
        lines.push((
            "spent",
            format!(
                "{} core hours, {} gpu hours; {} hours of processor used, {memory_peak} memory at most",
                hours(core_ms),
                hours(gpu_ms),
                hours(cpu_ms)
            ),
        ));
        if read_kib + written_kib > 0 {
            let (read, written) = (read_kib / 1024, written_kib / 1024);
            lines.push(("disks", format!("{read} MiB read, {written} MiB written")));
        }
    }
    let lines = lines.iter().map(|(word, text)| format!("{word:<9} {}", output::clean(text)));
    lines.collect::<Vec<_>>().join("\n")
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

/// `gantry wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// The jobs, or elements as j12.3 or j12.0-99.
    #[arg(required = true, value_name = "JOB", add = completions::jobs())]
    jobs: Vec<Chosen>,
}

impl Wait {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a job is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        end_code(&Client::connect(cluster)?, &self.jobs, format)
    }
}

/// Waits for jobs, prints how they ended, and gives the exit code of the first that failed. A
/// cancelled job counts as ended by TERM.
///
/// # Errors
/// Where a job is unknown or the scheduler goes away.
pub fn end_code(client: &Client, jobs: &[Chosen], format: Format) -> Outcome {
    let wait = |chosen: &Chosen| client.wait(chosen.job, chosen.indices.clone());
    let rows = jobs.iter().map(wait).collect::<Result<Vec<_>, _>>()?;
    let value: Vec<Value> = rows.iter().map(job_value).collect();
    format.print("jobs", &value, || job_table(&rows), || ids(&rows))?;
    let code = |row: &JobRow| match row.state {
        JobState::Cancel => 128 + 15,
        _ => row.exit.as_ref().map_or(0, gantry_model::Exit::code),
    };
    Ok(rows.iter().map(code).find(|code| *code != 0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use gantry_model::JobId;

    use super::*;

    #[test]
    fn details_say_what_matters_of_a_job() {
        let plain = JobRow {
            user: "ada".into(),
            resources: Resources { cores: 4, ..Resources::default() },
            ..JobRow::default()
        };
        let rich = JobRow {
            job: JobId(7),
            group: Some("chest".into()),
            priority: -5,
            held: true,
            progress_permille: Some(425),
            time_limit: Some(Millis::from_seconds(7200)),
            resources: Resources { memory: MemoryMib(2048), gpus: 1, ..plain.resources },
            spent: Spent { core_ms: 5_400_000, memory_peak: MemoryMib(2048), ..Spent::default() },
            ..plain.clone()
        };
        for (row, expected) in [
            (&plain, &["group     ada", "priority  0", "needs     4 cores"][..]),
            (
                &rich,
                &[
                    "group     chest",
                    "priority  -5",
                    "needs     4 cores, 2G memory, 1 gpu",
                    "held      until gantry release j7",
                    "limit     2h",
                    "progress  42 %",
                    "spent     1.5 core hours, 0.0 gpu hours; 0.0 hours of processor used, 2G memory at most",
                ],
            ),
        ] {
            assert_eq!(details(row).lines().collect::<Vec<_>>(), expected);
        }
        let value = job_value(&rich);
        assert_eq!((&value["held"], &value["group"]), (&json!(true), &json!("chest")));
        assert_eq!(value["spent"]["memory_peak_mib"], 2048);
    }
}
