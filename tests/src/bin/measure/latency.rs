//! How long a user waits on an idle cluster: until a submit is durable, and until the task runs.
//!
//! The task is `date` and prints the time at which it runs, so the start of its process and its
//! loading are part of the number; beside it stands the same `date` started by this process. The
//! limit of an acknowledgement is one appended and synced block of 4 KiB in the same file system; it
//! has two of them, the journal's and the audit log's. What a question costs, which is nothing but the
//! way there and back, and the processor time of each part say where the rest goes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use gantry_model::JobId;
use gantry_wire::{Reply, Request};

use crate::Size;
use crate::peers;
use crate::report::{Goal, Row};
use crate::served::{self, PARTS, Served};
use crate::statistics::{median, milliseconds, quantile};

/// Submits in a round.
const SUBMITS: u32 = 200;
const BLOCK_BYTES: usize = 4096;
/// A timer's resolution: who waits for one on the way of every request does not reach this.
const QUESTION_MS: f64 = 1.0;
const DATE: [&str; 2] = ["date", "+%s%N"];

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(SUBMITS);
    let mut served = Served::start()?;
    served.cluster.join("cpu-1", "cores = 2\nmemory = \"1G\"\nworkers = 1")?;
    let mut sorts: [Vec<Vec<f64>>; 5] = Default::default();
    let before = served.parts()?;
    for round in 0..size.rounds() {
        let mut took: [Vec<f64>; 5] = Default::default();
        for _ in 0..count {
            let (durable, running) = submit(&mut served)?;
            took[0].push(durable);
            took[1].push(running);
            took[2].push(bare_date()?);
            let asked = Instant::now();
            served.nodes()?;
            took[4].push(milliseconds(asked.elapsed()));
        }
        took[3] = synced(&served.cluster.folder().join(format!("round-{round}")), count)?;
        for (sort, round) in sorts.iter_mut().zip(took) {
            sort.push(round);
        }
    }
    let middle = |sort: &[Vec<f64>], permille: usize| {
        let rounds: Vec<f64> = sort.iter().map(|round| quantile(round, permille)).collect();
        median(&rounds)
    };
    let row = |what: &str, ours: usize, limit: usize, permille: usize, goal: Option<f64>| {
        let row = Row::new(what, "ms", middle(&sorts[ours], permille))
            .limit(middle(&sorts[limit], permille));
        match goal {
            Some(goal) => row.goal(Goal::AtMost(goal)),
            None => row,
        }
    };
    let all = f64::from(count) * size.rounds() as f64;
    let after = served.parts()?;
    let parts = PARTS.iter().zip(after.iter().zip(&before)).map(|((part, _), (after, before))| {
        Row::new(format!("submit, processor time of the {part}"), "ms", (after - before) / all)
    });
    let command = by_command(&served, count.min(50))?;
    let rows = [
        row("submit → durable acknowledgement, p50", 0, 3, 500, None),
        row("submit → durable acknowledgement, p99", 0, 3, 990, Some(5.0)),
        row("submit → running, p50", 1, 2, 500, Some(3.0)),
        row("submit → running, p99", 1, 2, 990, Some(10.0)),
        Row::new("a command submits true and sees its end, p50", "ms", command)
            .peer(peers::round_trip(size, count.min(50))?),
        Row::new("a question and its answer, p50", "ms", middle(&sorts[4], 500))
            .goal(Goal::AtMost(QUESTION_MS)),
    ];
    Ok(rows.into_iter().chain(parts).collect())
}

/// Milliseconds until the submit was durable, and until its task ran.
fn submit(served: &mut Served) -> Result<(f64, f64)> {
    let (begun, instant) = (nanoseconds()?, Instant::now());
    let job = served.submit(served::command(&DATE))?;
    let durable = milliseconds(instant.elapsed());
    served.wait_done(job)?;
    let ran = output(served, job)?;
    ensure!(ran >= begun, "the task ran before it was submitted: the clock was set back");
    Ok((durable, (ran - begun) as f64 / 1e6))
}

/// The time that a task printed.
fn output(served: &Served, job: JobId) -> Result<u128> {
    let task = job.task(0);
    match served.ask(&Request::Output { task, offset: 0 })? {
        Reply::Output(output) => read(&output.bytes),
        other => bail!("asked for the output of {task}, got {other:?}"),
    }
}

fn read(printed: &[u8]) -> Result<u128> {
    let text = String::from_utf8_lossy(printed);
    text.trim().parse().with_context(|| format!("{text:?} is not what date prints"))
}

fn nanoseconds() -> Result<u128> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())
}

/// The same process without gantry: milliseconds from its start until it ran.
fn bare_date() -> Result<f64> {
    let begun = nanoseconds()?;
    let output = Command::new(DATE[0]).args(&DATE[1..]).output()?;
    Ok(read(&output.stdout)?.saturating_sub(begun) as f64 / 1e6)
}

/// Milliseconds of each of so many appended blocks with their sync.
fn synced(path: &Path, count: u32) -> Result<Vec<f64>> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let block = vec![0x5a; BLOCK_BYTES];
    (0..count)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            Ok(milliseconds(start.elapsed()))
        })
        .collect()
}

/// Milliseconds of `gantry submit --wait -- true`, the start of the command with it.
fn by_command(served: &Served, count: u32) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let output = served.cluster.gantry.run(&["submit", "--wait", "--", "true"])?;
        took.push(milliseconds(start.elapsed()));
        ensure!(output.status.success(), "gantry submit --wait -- true failed");
    }
    Ok(median(&took))
}
