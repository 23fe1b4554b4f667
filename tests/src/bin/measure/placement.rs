//! What one event costs on a large full cluster with a long queue, and that the cost follows kinds
//! of jobs and changed nodes, not jobs.
//!
//! Every node is full of tasks of one array; the queue holds jobs of 100 kinds (cores, memory,
//! GPUs, labels, estimates) of ten users. Then tasks end one at a time, nodes join, and jobs of
//! kinds that nobody has asked for before are submitted. Each is one event with the pass it causes.
//! The same is done with a tenth of the jobs, for the comparison.

use std::collections::BTreeSet;

use anyhow::Result;
use gantry_cluster::ClusterSettings;
use gantry_model::{Array, IndexSet, JobSpec, MemoryMib, Millis, NodeFacts, Resources};

use crate::Size;
use crate::bare::{self, Bare};
use crate::report::{Goal, Row};
use crate::statistics::{median, milliseconds, quantile};

const NODES: u32 = 10_000;
const JOBS: u32 = 100_000;
const KINDS: u32 = 100;
const CORES: u32 = 64;
/// Cores of each of the tasks that fill the nodes.
const FILLER: u32 = 8;
/// Events of each sort in a round.
const EVENTS: u32 = 200;
/// The goal for a pass.
const PASS_MS: f64 = 10.0;

/// The median over rounds of the quantiles of one sort of event, in milliseconds.
#[derive(Default)]
struct Cost {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Cost {
    fn add(&mut self, took: &[f64]) {
        self.p50.push(quantile(took, 500));
        self.p99.push(quantile(took, 990));
    }
}

/// What each sort of event cost, and how many tasks the ends and the new nodes let start.
#[derive(Default)]
struct Costs {
    end: Cost,
    join: Cost,
    submit: Cost,
    placed: usize,
    /// Jobs that were submitted in place of those that started.
    refilled: u32,
}

impl Costs {
    /// Reports the starts of the newest tries, and submits as many jobs as started, so that the
    /// queue stays as long as it is.
    fn go_on(&mut self, bare: &mut Bare, placed: usize) -> Result<()> {
        self.placed += placed;
        bare.start_newest(placed);
        for _ in 0..placed {
            self.refilled += 1;
            let number = self.refilled % KINDS;
            bare.submit(&user(number), kind(number))?;
        }
        Ok(())
    }
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let (nodes, jobs) = (size.nodes.unwrap_or(NODES), size.count.unwrap_or(JOBS));
    let mut rows = Vec::new();
    let few = costs(nodes, jobs.div_ceil(10), size.rounds())?;
    let many = costs(nodes, jobs, size.rounds())?;
    let sorts = [
        ("a task ends", &many.end, &few.end),
        ("a node joins", &many.join, &few.join),
        ("a submit of a new kind", &many.submit, &few.submit),
    ];
    for (sort, many, few) in sorts {
        let what = |quantile: &str| format!("{sort}, {nodes} nodes, {jobs} jobs, {quantile}");
        rows.push(Row::new(what("p50"), "ms", median(&many.p50)));
        rows.push(Row::new(what("p99"), "ms", median(&many.p99)).goal(Goal::AtMost(PASS_MS)));
        let times = median(&many.p50) / median(&few.p50);
        let what = format!("{sort}, cost with {jobs} jobs ÷ with {}", jobs.div_ceil(10));
        rows.push(Row::new(what, "times", times).goal(Goal::AtMost(2.0)));
    }
    rows.push(Row::new("tasks that these events let start", "tasks", many.placed as f64));
    Ok(rows)
}

fn costs(nodes: u32, jobs: u32, rounds: usize) -> Result<Costs> {
    let mut bare = full(nodes, jobs)?;
    let (mut costs, mut joined, mut kinds) = (Costs::default(), nodes, KINDS);
    for _ in 0..rounds {
        let mut took = Vec::new();
        for step in 0..EVENTS {
            // Somewhere else each time: 7,919 is prime, so that the ends walk over all nodes.
            let place = (step as usize * 7919) % bare.running.len();
            let Some(running) = bare.running.swap_remove_back(place) else { continue };
            let (time, placed) = bare.ended(running);
            took.push(milliseconds(time));
            costs.go_on(&mut bare, placed)?;
        }
        costs.end.add(&took);
        took.clear();
        for _ in 0..EVENTS / 4 {
            let (time, placed) = bare.node(node(joined));
            joined += 1;
            took.push(milliseconds(time));
            costs.go_on(&mut bare, placed)?;
        }
        costs.join.add(&took);
        took.clear();
        for _ in 0..EVENTS / 4 {
            kinds += 1;
            let (_, time) = bare.submit(&user(kinds), kind(kinds))?;
            took.push(milliseconds(time));
        }
        costs.submit.add(&took);
    }
    Ok(costs)
}

/// A cluster whose nodes are full, with a queue.
fn full(nodes: u32, jobs: u32) -> Result<Bare> {
    let mut bare = Bare::new(ClusterSettings::default());
    for number in 0..nodes {
        bare.node(node(number));
    }
    let tasks = nodes * (CORES / FILLER);
    let indices = IndexSet::first(tasks);
    let filler = JobSpec {
        array: Some(Array { indices, at_once_max: None }),
        estimate: Some(Millis::from_seconds(4 * 3600)),
        ..bare::job(Resources { cores: FILLER, ..Resources::default() })
    };
    bare.submit("filler", filler)?;
    anyhow::ensure!(bare.running.len() == tasks as usize, "the nodes are not full");
    bare.start_newest(tasks as usize);
    for number in 0..jobs {
        bare.submit(&user(number % KINDS), kind(number % KINDS))?;
    }
    Ok(bare)
}

/// Each fifth node has GPUs, each third fast local disks.
fn node(number: u32) -> NodeFacts {
    let gpus = if number.is_multiple_of(5) { 8 } else { 0 };
    let facts = bare::facts(format!("node-{number:05}"), CORES, gpus);
    let labels = if number.is_multiple_of(3) { labels("nvme") } else { BTreeSet::new() };
    NodeFacts { labels, ..facts }
}

fn labels(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

fn user(kind: u32) -> String {
    format!("user-{}", kind % 10)
}

/// A job of a kind of its own: no two numbers ask for the same memory.
fn kind(number: u32) -> JobSpec {
    let resources = Resources {
        cores: 1 + number % 10,
        memory: MemoryMib(512 + u64::from(number)),
        gpus: if number.is_multiple_of(4) { 1 + number % 3 } else { 0 },
        ..Resources::default()
    };
    JobSpec {
        labels: if number.is_multiple_of(7) { labels("nvme") } else { BTreeSet::new() },
        estimate: Some(Millis::from_seconds(600 * u64::from(1 + number % 6))),
        ..bare::job(resources)
    }
}
