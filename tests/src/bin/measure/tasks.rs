//! Real `true` processes through one agent, beside a bare loop that starts as many at once.
//!
//! The loop is the machine's limit: the same processes, started and waited for, and nothing else.
//! Ours has the journal synced, the link encrypted and the output kept. The slots go from twice
//! the cores to many; the goal is held against the fewest.

use anyhow::Result;

use crate::Size;
use crate::peers;
use crate::report::{Goal, Row};
use crate::served::{self, PARTS, Served};
use crate::statistics::{cores, over_rounds, seconds};

const TASKS: u32 = 2000;
/// The goals: hundredths of the loop, and times the peer.
const OF_LOOP: f64 = 85.0;
const TIMES_HYPERQUEUE: f64 = 2.5;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(TASKS);
    let few = cores() as u32 * 2;
    let mut rows = Vec::new();
    for slots in [few, few * 4] {
        let mut served = Served::start()?;
        served.cluster.join("cpu-1", &format!("cores = {slots}\nmemory = \"64G\"\nworkers = 1"))?;
        through(&mut served, slots)?;
        // One after the other, so that what the machine does meanwhile meets both.
        let mut limits = Vec::new();
        let before = served.parts()?;
        let took = over_rounds(size.rounds(), || {
            limits.push(peers::bare_loop(count, slots)?);
            through(&mut served, count)
        })?;
        let (ours, limit) = (f64::from(count) / took, crate::statistics::median(&limits));
        let what = format!("{count} × true, {slots} slots");
        rows.push(
            Row::new(format!("{what}, beside a bare loop"), "tasks/s", ours)
                .limit(limit)
                .goal(Goal::OfLimit(OF_LOOP)),
        );
        // Where the time goes: what is missing to the time a task takes is waiting, most of it for
        // the disk.
        let all = f64::from(count) * size.rounds() as f64;
        for ((part, _), (after, before)) in PARTS.iter().zip(served.parts()?.iter().zip(&before)) {
            let what = format!("{what}, processor time of the {part}");
            rows.push(Row::new(what, "ms/task", (after - before) / all));
        }
        let what_all = format!("{what}, time for each");
        rows.push(Row::new(what_all, "ms/task", 1000.0 / ours));
        if slots == few {
            drop(served);
            let (hyperqueue, slurm) = peers::tasks(size, count, slots)?;
            let goal = Goal::TimesPeer(TIMES_HYPERQUEUE);
            let what = |peer: &str| format!("{what}, beside {peer}");
            let row = |peer| Row::new(what(peer), "tasks/s", ours);
            rows.push(row("HyperQueue").peer(hyperqueue).goal(goal));
            rows.push(row("Slurm").peer(slurm).goal(Goal::TimesPeer(1.0)));
        }
    }
    Ok(rows)
}

/// Seconds from the submit of an array to its last end.
fn through(served: &mut Served, count: u32) -> Result<f64> {
    let took = seconds(|| {
        let job = served.submit(served::array(count, served::command(&["true"])))?;
        served.wait_done(job)
    })?;
    Ok(took)
}
