//! Built-in operations on warm workers: how many a second one agent takes, without a process each.
//!
//! The operation is one that ends at once (its library is not there, which costs one look at a
//! folder), so that the number is of the way there and back: order, pipe to the worker, output,
//! spool, report, acknowledgement. The second number has a node that runs nothing: what the
//! scheduler alone takes, with its journal synced.

use std::time::Instant;

use anyhow::{Result, ensure};
use gantry_model::{Builtin, JobSpec, Resources, Work};

use crate::Size;
use crate::array;
use crate::report::{Goal, Row};
use crate::served::{self, PARTS, Served};
use crate::statistics::{cores, over_rounds};

/// As many as one job can name: a message of 64 KiB, where each name counts its length and 8 more.
const OPERATIONS: u32 = 5_000;
const SLOTS_PER_CORE: usize = 8;
const WITH_WORKERS: f64 = 100_000.0;
const WITHOUT_RUNNING: f64 = 250_000.0;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(OPERATIONS).min(OPERATIONS);
    let workers = cores();
    let mut served = Served::start()?;
    // Operations that all fail at once are what a broken node looks like.
    served.set("quarantine_after = 0")?;
    let slots = workers * SLOTS_PER_CORE;
    let settings = format!("cores = {slots}\nmemory = \"64G\"\nworkers = {workers}");
    served.cluster.join("cpu-1", &settings)?;
    through(&mut served, workers as u32)?;
    let before = served.parts()?;
    let took = over_rounds(size.rounds(), || through(&mut served, count))?;
    let all = f64::from(count) * size.rounds() as f64;
    let after = served.parts()?;
    drop(served);
    let elements = count * 40;
    let idle = over_rounds(size.rounds(), || Ok(array::with_journal(elements)?.took_s))?;
    let what = format!("{count} operations that end at once, {workers} workers, {slots} slots");
    let mut rows =
        vec![Row::new(what, "tasks/s", f64::from(count) / took).goal(Goal::AtLeast(WITH_WORKERS))];
    // Where the time goes.
    for ((part, _), (after, before)) in PARTS.iter().zip(after.iter().zip(&before)) {
        let what = format!("of that, processor time of the {part}");
        rows.push(Row::new(what, "ms/task", (after - before) / all));
    }
    rows.push(
        Row::new(
            format!("{elements} tasks, a node that runs nothing"),
            "tasks/s",
            f64::from(elements) / idle,
        )
        .goal(Goal::AtLeast(WITHOUT_RUNNING)),
    );
    Ok(rows)
}

/// Seconds from the submit of an array of operations to its last end.
fn through(served: &mut Served, count: u32) -> Result<f64> {
    let start = Instant::now();
    let job = served.submit(operations(count))?;
    let row = served.client.wait(job).map_err(served::said)?;
    let took = start.elapsed().as_secs_f64();
    ensure!(row.tasks.fail == count, "{} of {count} operations were refused", row.tasks.fail);
    let sentence = row.reason.unwrap_or_default();
    ensure!(sentence.contains("no library"), "an operation ended otherwise: {sentence}");
    Ok(took)
}

fn operations(count: u32) -> JobSpec {
    let work = Work::Builtin(Builtin::Preprocess {
        library: "/nowhere".into(),
        pipeline: String::new(),
        // Never read, since the library is not there; one character keeps the job short.
        series: vec!["s".into(); count as usize],
    });
    let resources = Resources { cores: 1, ..Resources::default() };
    served::array(count, JobSpec { resources, ..JobSpec::new("measured", work) })
}
