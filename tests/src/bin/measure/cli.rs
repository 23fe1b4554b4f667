//! What a command costs: its start, and the queue with ten thousand jobs in it.
//!
//! Everything is measured from outside, as a shell has it: from the start of the process until it has
//! ended and all it printed is read. Beside the queue stands `squeue` of the Slurm that this host has,
//! with as many jobs of its own, which are cancelled afterwards. The limit is a process that does
//! nothing.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gantry_model::JobSpec;

use crate::Size;
use crate::peers;
use crate::report::{Goal, Row};
use crate::served::{self, Served};
use crate::statistics::{median, milliseconds};

/// Jobs in the queue.
const JOBS: u32 = 10_000;
/// A person does not notice less.
const START_MS: f64 = 50.0;
const QUEUE_MS: f64 = 500.0;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(JOBS);
    let mut served = Served::start()?;
    for _ in 0..count {
        served.submit(JobSpec { held: true, ..served::command(&["true"]) })?;
    }
    let rows = count.to_string();
    let took = |arguments: &[&str], lines: u32| -> Result<f64> {
        let mut rounds = Vec::new();
        for _ in 0..size.rounds() {
            let command = served.cluster.gantry.command(arguments);
            rounds.push(printed(command, lines)?);
        }
        Ok(median(&rounds))
    };
    let mut nothing = Vec::new();
    for _ in 0..size.rounds() {
        nothing.push(printed(Command::new("true"), 0)?);
    }
    let nothing = median(&nothing);
    let row = |what: String, ours| Row::new(what, "ms", ours).limit(nothing);
    Ok(vec![
        row("gantry --version".into(), took(&["--version"], 1)?).goal(Goal::AtMost(START_MS)),
        row("gantry nodes, over QUIC".into(), took(&["nodes"], 1)?),
        row(
            format!("gantry queue of {count} jobs"),
            took(&["queue", "--limit", &rows], count + 1)?,
        )
        .goal(Goal::AtMost(QUEUE_MS))
        .peer(peers::queue(size, count)?),
        row(
            format!("gantry queue --json of {count} jobs"),
            took(&["queue", "--json", "--limit", &rows], 1)?,
        ),
    ])
}

/// Milliseconds of a command that prints so many lines.
pub(crate) fn printed(mut command: Command, lines: u32) -> Result<f64> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let took = milliseconds(start.elapsed());
    let output = output.with_context(|| format!("running {command:?}"))?;
    let count = output.stdout.split(|byte| *byte == b'\n').count() - 1;
    ensure!(
        output.status.success() && count == lines as usize,
        "{command:?} printed {count} lines instead of {lines}"
    );
    Ok(took)
}
