//! `gantry why`: what a job waits for, as placement itself sees it.

use clap::Args;
use gantry_model::{At, Why};
use gantry_wire::{Reply, Request};
use serde_json::{Value, json};

use super::chosen::Chosen;
use super::client::{Client, Reach, unexpected};
use super::{completions, time};
use crate::error::Outcome;
use crate::output::{self, Format};

/// Names in one cell of a table before the rest is counted.
const NAMES_SHOWN: usize = 8;

/// `gantry why`.
#[derive(Debug, Args)]
pub struct WhyJob {
    /// The job, or elements as j12.3 or j12.0-99.
    #[arg(add = completions::jobs())]
    job: Chosen,
}

impl WhyJob {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the job is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let Chosen { job, indices } = self.job.clone();
        let reply = Client::connect(cluster)?.ask(&Request::Why { job, indices })?;
        let Reply::Why(why) = reply else { return Err(unexpected(&reply)) };
        format.print("why", &value(&why), || text(&why, time::now()), || why.sentence.clone())?;
        Ok(0)
    }
}

fn value(why: &Why) -> Value {
    let nodes = why.nodes.iter().map(|(node, rule)| json!({ "node": node, "rule": rule }));
    json!({
        "job": why.job.to_string(),
        "sentence": why.sentence,
        "ahead": why.ahead.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ahead_count": why.ahead_count,
        "nodes": nodes.collect::<Vec<_>>(),
        "start_ms": why.start.map(|at| at.0),
        "reserved": why.reserved,
    })
}

fn text(why: &Why, now: At) -> String {
    let mut lines = vec![output::clean(&why.sentence)];
    if why.ahead_count > 0 {
        let ahead: Vec<String> = why.ahead.iter().map(ToString::to_string).collect();
        let count = why.ahead_count as usize;
        lines.push(format!("ahead     {count}: {}", names(&ahead, count)));
    }
    if !why.reserved.is_empty() {
        lines.push(format!("reserved  {}", names(&why.reserved, why.reserved.len())));
    }
    if let Some(start) = why.start {
        let (clock, distance) = (time::clock(start, now), time::distance(start, now));
        lines.push(format!("start     {clock}, {distance}, as far as limits and estimates tell"));
    }
    if !why.nodes.is_empty() {
        lines.push(String::new());
        lines.push(output::table(&["NODES", "RULE", "WHICH"], &rules(&why.nodes)));
    }
    lines.join("\n")
}

/// The nodes grouped by the rule that they have in common, the most frequent first.
fn rules(nodes: &[(String, String)]) -> Vec<Vec<String>> {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for (node, rule) in nodes {
        match groups.iter_mut().find(|(known, _)| known == rule) {
            Some((_, names)) => names.push(node.clone()),
            None => groups.push((rule, vec![node.clone()])),
        }
    }
    groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let row = |(rule, nodes): &(&str, Vec<String>)| {
        vec![nodes.len().to_string(), (*rule).to_owned(), names(nodes, nodes.len())]
    };
    groups.iter().map(row).collect()
}

/// Names in a line, the rest of `count` as a number.
fn names(all: &[String], count: usize) -> String {
    let shown = all.len().min(NAMES_SHOWN);
    // The nearest ones stand last.
    let text = all[all.len() - shown..].join(" ");
    match count - shown {
        0 => text,
        rest => format!("{text} and {rest} more"),
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::JobId;

    use super::*;

    #[test]
    fn a_wait_is_told_in_order_of_use() {
        let node = |name: &str, rule: &str| (name.to_owned(), rule.to_owned());
        let why = Why {
            job: JobId(9),
            sentence: "waits for 2 gpus; the first are free when j7 ends".into(),
            ahead: (1..=10).map(JobId).collect(),
            ahead_count: 12,
            nodes: vec![node("gpu-1", "drained"), node("cpu-1", "no gpu"), node("cpu-2", "no gpu")],
            start: Some(At(3_600_000)),
            reserved: vec!["gpu-1".into()],
        };
        let shown = text(&why, At(3_300_000));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], why.sentence);
        assert_eq!(lines[1], "ahead     12: j3 j4 j5 j6 j7 j8 j9 j10 and 4 more");
        assert_eq!(lines[2], "reserved  gpu-1");
        assert!(lines[3].starts_with("start     ") && lines[3].contains(", in 5m, "), "{shown}");
        assert_eq!(
            lines[5..],
            ["NODES  RULE     WHICH", "2      no gpu   cpu-1 cpu-2", "1      drained  gpu-1"]
        );
        assert_eq!(value(&why)["start_ms"], 3_600_000);
        let short = Why { sentence: "runs".into(), ..Why::default() };
        assert_eq!(text(&short, At(0)), "runs");
    }
}
