//! kill -9 of a scheduler that knows a million tasks: how long until it serves again.
//!
//! Twice: with the tasks in one array of which about half has ended, so that the journal holds a
//! snapshot and a tail; and with the tasks in thousands of jobs that all wait.
//! The clock runs from the kill to the first answer that shows the job with every end that was
//! acknowledged before; the start of the process and a new handshake are part of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gantry::cli::client::Access;
use gantry_link::{LinkError, connect};
use gantry_model::{JobId, JobRow};
use gantry_tests::{PATIENCE, until};
use gantry_wire::{Peer, Reply, Request};

use crate::Size;
use crate::bare;
use crate::echo::Echo;
use crate::report::{Goal, Row};
use crate::served::{self, Served};
use crate::statistics::median;

const ELEMENTS: u32 = 1_000_000;
const SLOTS: u32 = 1024;
const SERVING_S: f64 = 2.0;
/// Ends beyond one half: each is two events, a snapshot is taken about every 50,000, and half a
/// million ends would stop right behind one, with nothing left to apply.
const TAIL: u32 = 20_000;
/// Elements of each job where the tasks are spread over jobs.
const JOB_ELEMENTS: u32 = 100;
/// How long the first call waits: a packet to a port that nobody listens on yet is not sent again
/// soon. Each further call waits a tenth longer, so that a slow answer is waited for in the end.
const CALL_TIMEOUT: Duration = Duration::from_millis(20);

/// How the tasks are submitted.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// As one array, of which half has ended.
    Array,
    /// As jobs of a hundred elements, all waiting.
    Jobs,
}

impl Shape {
    const fn words(self) -> &'static str {
        match self {
            Self::Array => "as one array",
            Self::Jobs => "in jobs of 100",
        }
    }
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let elements = size.count.unwrap_or(ELEMENTS);
    let mut rows = killed(size, elements, Shape::Array)?;
    rows.extend(killed(size, elements, Shape::Jobs)?);
    Ok(rows)
}

fn killed(size: &Size, elements: u32, shape: Shape) -> Result<Vec<Row>> {
    let mut served = Served::start()?;
    let access = served.access()?;
    let identity = served.identity("echo")?;
    let facts = bare::facts("echo".into(), SLOTS, 0);
    let ends = match shape {
        Shape::Array => u64::from((elements / 2 + TAIL).min(elements * 3 / 4)),
        Shape::Jobs => 0,
    };
    let echo = Echo::start(access.address, identity, facts, Some(ends))?;
    let each = match shape {
        Shape::Array => elements,
        Shape::Jobs => JOB_ELEMENTS.min(elements),
    };
    let mut last = None;
    for _ in 0..elements / each {
        last = Some(served.submit(served::array(each, served::command(&["true"])))?);
    }
    let job = last.context("there is nothing to submit")?;
    until("the ends", || (u64::from(served.job(job).ok()?.tasks.done) >= ends).then_some(()))?;
    let before = served.job(job)?.tasks;
    let (mut took, mut begun) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds() {
        let (seconds, row) = round(&mut served, &access, job)?;
        took.push(seconds);
        ensure!(
            row.tasks.done == before.done && row.tasks.total() == each,
            "after the restart {:?} of {before:?} tasks are known",
            row.tasks
        );
        begun.extend(served.cluster.log("scheduler").lines().rev().find_map(applied));
    }
    drop(echo);
    let words = shape.words();
    let what = format!("kill -9 → serving again, {elements} tasks known {words}");
    let mut rows = vec![Row::new(what, "s", median(&took)).goal(Goal::AtMost(SERVING_S))];
    if !begun.is_empty() {
        let what = format!("of that, applying the journal {words}");
        rows.push(Row::new(what, "s", median(&begun) / 1000.0));
    }
    Ok(rows)
}

/// Kills the scheduler and starts it again: seconds until it answered, and its answer.
fn round(served: &mut Served, access: &Access, job: JobId) -> Result<(f64, JobRow)> {
    let over = AtomicBool::new(false);
    let start = Instant::now();
    served.cluster.kill_scheduler();
    let (answer, started) = std::thread::scope(|scope| {
        let caller = scope.spawn(|| first_answer(access, job, start, &over));
        let started = served.cluster.start_scheduler();
        over.store(started.is_err(), Ordering::Relaxed);
        (caller.join(), started)
    });
    started?;
    served.reconnect()?;
    answer.unwrap_or_else(|_| bail!("the caller panicked"))
}

/// Calls until somebody answers what is asked.
fn first_answer(
    access: &Access,
    job: JobId,
    start: Instant,
    over: &AtomicBool,
) -> Result<(f64, JobRow)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut patience = CALL_TIMEOUT;
        loop {
            let call = async {
                let session = connect(access.address, &access.identity, Peer::Console).await?;
                let (mut sender, mut receiver) = session.connection.open().await?;
                sender.send(&Request::Job { job }).await?;
                sender.finish();
                receiver.expect::<Reply>().await
            };
            match tokio::time::timeout(patience, call).await {
                Ok(Ok(Reply::Job(row))) => return Ok((start.elapsed().as_secs_f64(), *row)),
                Ok(Ok(other)) => bail!("asked for {job}, got {other:?}"),
                Ok(Err(LinkError::Refused(reject))) => bail!("{reject}"),
                Ok(Err(_)) | Err(_) => {}
            }
            ensure!(
                start.elapsed() < PATIENCE && !over.load(Ordering::Relaxed),
                "the scheduler did not serve again"
            );
            patience = patience * 11 / 10;
        }
    })
}

/// The milliseconds that the scheduler's log says the journal took.
fn applied(line: &str) -> Option<f64> {
    let rest = line.split_once("took_ms=")?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
