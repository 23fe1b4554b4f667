//! What a pass costs where whole gangs wait: 500 nodes of 8 GPUs, 10,000 gangs of 8 to 64 ranks.
//!
//! The GPUs are all taken by gangs; then the ranks of the oldest end one after the other. Each end
//! is one event with a pass, and the last ends of a gang make room for the next one. Both numbers
//! are given: over all passes, and over those that started a gang.

use anyhow::{Result, ensure};
use gantry_cluster::ClusterSettings;
use gantry_model::{Gang, JobSpec, MemoryMib, Millis, Resources};

use crate::Size;
use crate::bare::{self, Bare};
use crate::report::{Goal, Row};
use crate::statistics::{median, milliseconds, quantile};

const NODES: u32 = 500;
const GANGS: u32 = 10_000;
const GPUS: u32 = 8;
/// Ends of ranks in a round.
const EVENTS: usize = 2000;
/// The goal for a pass.
const PASS_MS: f64 = 20.0;

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let (nodes, gangs) = (size.nodes.unwrap_or(NODES), size.count.unwrap_or(GANGS));
    let mut bare = Bare::new(ClusterSettings::default());
    for number in 0..nodes {
        bare.node(bare::facts(format!("gpu-{number:03}"), 64, GPUS));
    }
    for number in 0..gangs + nodes {
        bare.submit(&format!("user-{}", number % 10), gang(number))?;
    }
    let events = EVENTS.min(gangs as usize * 4);
    let (mut p50, mut p99, mut starting, mut started) = (vec![], vec![], vec![], 0);
    for _ in 0..size.rounds() {
        let (mut all, mut starts) = (Vec::new(), Vec::new());
        for _ in 0..events {
            let Some(running) = bare.running.pop_front() else { break };
            let (time, placed) = bare.ended(running);
            all.push(milliseconds(time));
            if placed > 0 {
                starts.push(milliseconds(time));
                bare.start_newest(placed);
            }
        }
        ensure!(!starts.is_empty(), "no gang was started; measure more of them");
        p50.push(quantile(&all, 500));
        p99.push(quantile(&all, 990));
        starting.push(quantile(&starts, 990));
        started += starts.len();
    }
    let what = |of: &str| format!("{of}, {nodes} nodes of {GPUS} gpus, {gangs} gangs");
    let goal = Goal::AtMost(PASS_MS);
    Ok(vec![
        Row::new(what("a rank ends, p50"), "ms", median(&p50)),
        Row::new(what("a rank ends, p99"), "ms", median(&p99)).goal(goal),
        Row::new(what("a pass that starts gangs, p99"), "ms", median(&starting)).goal(goal),
        Row::new("passes that started gangs", "passes", started as f64),
    ])
}

/// 8 to 64 ranks of one GPU each, in eight sizes and two amounts of memory.
fn gang(number: u32) -> JobSpec {
    let ranks = 8 * (1 + number % 8);
    let memory = MemoryMib(8192 * u64::from(1 + number % 2));
    let resources = Resources { cores: 4, memory, gpus: 1, ..Resources::default() };
    JobSpec {
        gang: Some(Gang { ranks, nodes: None }),
        estimate: Some(Millis::from_seconds(600 * u64::from(1 + number % 5))),
        ..bare::job(resources)
    }
}
