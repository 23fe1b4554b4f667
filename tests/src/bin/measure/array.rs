//! An array of a million elements on a node with 1,024 slots, from the submit to the last end, and
//! what an element takes of memory.
//!
//! Once for the machine alone in this process; once for a scheduler as it is run, with its journal
//! synced and over QUIC, and a node that runs nothing. The snapshot is taken half way, where the
//! state of an array is most ragged.

use anyhow::{Result, ensure};
use gantry_cluster::ClusterSettings;
use gantry_model::Resources;
use gantry_wire::codec;

use crate::Size;
use crate::bare::{self, Bare};
use crate::echo::Echo;
use crate::report::{Goal, Row};
use crate::served::{self, Served, processor_ms_of};
use crate::statistics::{median, memory, over_rounds, seconds};

const ELEMENTS: u32 = 1_000_000;
const SLOTS: u32 = 1024;
/// The goal for the whole array, which is of a million.
const ARRAY_S: f64 = 4.0;
/// The goal for one element.
const ELEMENT_BYTES: f64 = 200.0;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let elements = size.count.unwrap_or(ELEMENTS);
    let all = f64::from(elements);
    let share = all / f64::from(ELEMENTS);
    let (mut took, mut snapshot) = (Vec::new(), 0.0);
    for _ in 0..size.rounds() {
        let (bytes, time) = alone(elements)?;
        took.push(time);
        snapshot = bytes as f64 / all;
    }
    let (mut peaks, mut theirs, mut mine) = (Vec::new(), Vec::new(), Vec::new());
    let with_journal = over_rounds(size.rounds(), || {
        let course = with_journal(elements)?;
        peaks.push(course.grown as f64 / all);
        theirs.push(course.scheduler_s);
        mine.push(course.node_s);
        Ok(course.took_s)
    })?;
    let what = |of: &str| format!("{elements} elements, {SLOTS} slots, {of}");
    Ok(vec![
        Row::new(what("the machine alone"), "s", median(&took)),
        Row::new(what("the machine alone"), "tasks/s", all / median(&took)),
        Row::new(what("journal and encryption on, no process"), "s", with_journal)
            .goal(Goal::AtMost(ARRAY_S * share)),
        Row::new(what("journal and encryption on, no process"), "tasks/s", all / with_journal),
        // Where the time goes: both ends of the link stand on this machine and share its cores.
        Row::new(what("of that, processor time of the scheduler"), "s", median(&theirs)),
        Row::new(what("of that, processor time of the node"), "s", median(&mine)),
        Row::new(what("the scheduler's memory, most"), "bytes/element", median(&peaks))
            .goal(Goal::AtMost(ELEMENT_BYTES)),
        Row::new(what("snapshot half way"), "bytes/element", snapshot)
            .goal(Goal::AtMost(ELEMENT_BYTES)),
    ])
}

/// The machine alone: bytes of the snapshot half way, and the seconds it took without that.
fn alone(elements: u32) -> Result<(usize, f64)> {
    let mut bare = Bare::new(ClusterSettings::default());
    bare.node(bare::facts("node".into(), SLOTS, 0));
    let one = bare::job(Resources { cores: 1, ..Resources::default() });
    let submit = seconds(|| bare.submit("ada", served::array(elements, one)))?;
    let first = seconds(|| end(&mut bare, elements / 2))?;
    let bytes = codec::encode_snapshot(&bare.cluster)?.len();
    let second = seconds(|| end(&mut bare, elements - elements / 2))?;
    ensure!(bare.running.is_empty(), "tasks run on after the last end");
    Ok((bytes, submit + first + second))
}

/// Starts and ends so many tries, oldest first.
fn end(bare: &mut Bare, count: u32) -> Result<()> {
    for _ in 0..count {
        let running = bare.running.pop_front();
        let Some(running) = running else { anyhow::bail!("nothing runs before the last end") };
        bare.started(&running);
        bare.ended(running);
    }
    Ok(())
}

/// An array through a scheduler as it is run.
pub(crate) struct Course {
    /// Seconds from the submit to the last end.
    pub(crate) took_s: f64,
    /// How many bytes the scheduler's process grew by at most.
    grown: u64,
    /// Processor time of the scheduler, in seconds.
    pub(crate) scheduler_s: f64,
    /// Processor time of the node that runs nothing, which is this process.
    pub(crate) node_s: f64,
}

/// A scheduler as it is run, with its journal and a node that runs nothing.
pub(crate) fn with_journal(elements: u32) -> Result<Course> {
    let mut served = Served::start()?;
    let facts = bare::facts("echo".into(), SLOTS, 0);
    let identity = served.identity("echo")?;
    let _echo = Echo::start(served.access()?.address, identity, facts, None)?;
    let process = served.processes(&["scheduler", "--exit-with-parent"])?;
    ensure!(process.len() == 1, "the scheduler's process was not found");
    let process = process[0].as_raw_nonzero().to_string();
    let before = memory(&process, "VmRSS")?;
    let busy = || Ok::<_, anyhow::Error>((processor_ms_of(&process)?, processor_ms_of("self")?));
    let started = busy()?;
    let took_s = seconds(|| {
        let job = served.submit(served::array(elements, served::command(&["true"])))?;
        served.wait_done(job)
    })?;
    let ended = busy()?;
    Ok(Course {
        took_s,
        grown: memory(&process, "VmHWM")?.saturating_sub(before),
        scheduler_s: (ended.0 - started.0) / 1000.0,
        node_s: (ended.1 - started.1) / 1000.0,
    })
}
