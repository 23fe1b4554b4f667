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
use crate::statistics::{cores, median, over_rounds};

/// As many as one job can name: a message of 64 KiB, where each name counts its length and 8 more.
const OPERATIONS: u32 = 5_000;
/// Jobs of one round.
const JOBS: u32 = 4;
/// A node as it would be set, and one with so many slots that the way there and back is hidden: what
/// is left is what an operation costs.
const SLOTS_PER_CORE: [usize; 2] = [8, 512];
const WITH_WORKERS: f64 = 100_000.0;
const WITHOUT_RUNNING: f64 = 250_000.0;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(OPERATIONS).min(OPERATIONS);
    let mut rows = Vec::new();
    for slots in SLOTS_PER_CORE {
        rows.extend(with_workers(size, count, cores() * slots)?);
    }
    rows.extend(idle(size, count * 40)?);
    Ok(rows)
}

/// A node that runs nothing, and where the time goes.
fn idle(size: &Size, elements: u32) -> Result<Vec<Row>> {
    let (mut scheduler, mut node) = (Vec::new(), Vec::new());
    let took = over_rounds(size.rounds(), || {
        let course = array::with_journal(elements)?;
        scheduler.push(course.scheduler_s);
        node.push(course.node_s);
        Ok(course.took_s)
    })?;
    let what = format!("{elements} tasks, a node that runs nothing");
    let each = |seconds: &[f64]| 1000.0 * median(seconds) / f64::from(elements);
    let of = |part: &str| format!("{what}, processor time of the {part}");
    Ok(vec![
        Row::new(&what, "tasks/s", f64::from(elements) / took).goal(Goal::AtLeast(WITHOUT_RUNNING)),
        Row::new(of("scheduler"), "ms/task", each(&scheduler)),
        Row::new(of("node"), "ms/task", each(&node)),
    ])
}

/// Operations on warm workers, and where the time goes.
fn with_workers(size: &Size, count: u32, slots: usize) -> Result<Vec<Row>> {
    let workers = cores();
    let mut served = Served::start()?;
    // Operations that all fail at once are what a broken node looks like.
    served.set("quarantine_after = 0")?;
    let settings = format!("cores = {slots}\nmemory = \"64G\"\nworkers = {workers}");
    served.cluster.join("cpu-1", &settings)?;
    through(&mut served, workers as u32)?;
    let before = served.parts()?;
    let took = over_rounds(size.rounds(), || through(&mut served, count))?;
    let after = served.parts()?;
    let each = f64::from(count * JOBS);
    let what =
        format!("{JOBS} × {count} operations that end at once, {workers} workers, {slots} slots");
    let rate = Row::new(&what, "tasks/s", each / took).goal(Goal::AtLeast(WITH_WORKERS));
    let parts = PARTS.iter().zip(after.iter().zip(&before)).map(|((part, _), (after, before))| {
        let what = format!("{slots} slots, processor time of the {part}");
        Row::new(what, "ms/task", (after - before) / (each * size.rounds() as f64))
    });
    Ok(std::iter::once(rate).chain(parts).collect())
}

/// Seconds from the submit of some arrays of operations to the last end.
fn through(served: &mut Served, count: u32) -> Result<f64> {
    let start = Instant::now();
    let jobs = (0..JOBS).map(|_| served.submit(operations(count))).collect::<Result<Vec<_>>>()?;
    for job in jobs {
        let row = served.client.wait(job, None).map_err(served::said)?;
        ensure!(row.tasks.fail == count, "{} of {count} operations were refused", row.tasks.fail);
        let sentence = row.reason.unwrap_or_default();
        ensure!(sentence.contains("no library"), "an operation ended otherwise: {sentence}");
    }
    Ok(start.elapsed().as_secs_f64())
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
