//! `gantry gpus`: every GPU of the cluster as a row, with who has it and what it does.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use gantry_model::{JobId, NodeState, Service};
use gantry_telemetry::GpuSample;
use gantry_wire::NodeStatus;
use serde_json::{Value, json};

use super::client::{Client, Reach};
use super::{completions, nodes};
use crate::error::Outcome;
use crate::output::{self, Format};

/// `gantry gpus`.
#[derive(Debug, Args)]
pub struct Gpus {
    /// Only those of these nodes.
    #[arg(value_name = "NODE", add = completions::nodes())]
    nodes: Vec<String>,
    /// Only those in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
}

/// What a GPU can be asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    /// No task has it.
    Free,
    /// A task has it.
    Used,
    /// It gets no work: it is marked, or its node is out of service.
    Off,
    /// It is gone, or its node does not answer.
    Lost,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Used => "used",
            Self::Off => "off",
            Self::Lost => "lost",
        }
    }
}

/// One GPU.
struct Row<'a> {
    node: &'a NodeStatus,
    index: usize,
    job: Option<JobId>,
    sample: Option<&'a GpuSample>,
}

impl Gpus {
    /// Carries it out.
    ///
    /// # Errors
    /// Where a node is unknown or the scheduler is not there.
    pub fn run(&self, cluster: Reach, format: Format) -> Outcome {
        let client = Client::connect(cluster)?;
        let nodes = client.nodes()?;
        for name in &self.nodes {
            nodes::find(&nodes, name)?;
        }
        let asked =
            |node: &&NodeStatus| self.nodes.is_empty() || self.nodes.contains(&node.row.facts.name);
        let mut rows: Vec<Row<'_>> = nodes.iter().filter(asked).flat_map(gpus).collect();
        rows.retain(|row| self.state.is_none_or(|state| row.state() == state));
        let value: Vec<Value> = rows.iter().map(Row::value).collect();
        let names = || rows.iter().map(Row::name).collect::<Vec<_>>().join("\n");
        format.print("gpus", &value, || table(&rows), names)?;
        Ok(0)
    }
}

fn gpus(node: &NodeStatus) -> impl Iterator<Item = Row<'_>> {
    (0..node.row.facts.gpus.len()).map(move |index| Row {
        node,
        index,
        job: node.row.gpu_jobs.get(index).copied().flatten(),
        sample: node.sample.as_ref().and_then(|sample| sample.gpus.get(index)),
    })
}

impl Row<'_> {
    fn name(&self) -> String {
        format!("{}:{}", self.node.row.facts.name, self.index)
    }

    fn state(&self) -> State {
        let row = &self.node.row;
        let unfit = row.facts.gpus[self.index].unfit.is_some();
        if row.state == NodeState::Lost || self.sample.is_some_and(|sample| sample.lost) {
            State::Lost
        } else if self.job.is_some() {
            State::Used
        } else if unfit || row.service != Service::Open {
            State::Off
        } else {
            State::Free
        }
    }

    /// Why it gets no work, or what else a person must know.
    fn note(&self) -> String {
        let row = &self.node.row;
        let mut parts: Vec<String> = row.facts.gpus[self.index].unfit.iter().cloned().collect();
        match row.state {
            NodeState::Up => {}
            state => parts.push(format!("{} is {}", row.facts.name, state.word())),
        }
        match &row.service {
            Service::Open => {}
            Service::Drain { reason, .. } | Service::Quarantine { reason } => {
                parts.push(format!("{}: {reason}", row.service.word()));
            }
        }
        parts.join("; ")
    }

    fn value(&self) -> Value {
        let gpu = &self.node.row.facts.gpus[self.index];
        let read = |get: fn(&GpuSample) -> Option<u64>| self.sample.and_then(get);
        json!({
            "gpu": self.name(),
            "node": self.node.row.facts.name,
            "index": self.index,
            "uuid": gpu.uuid,
            "model": gpu.name,
            "mig": gpu.mig,
            "island": gpu.island,
            "numa": gpu.numa,
            "state": self.state().word(),
            "job": self.job.map(|job| job.to_string()),
            "memory_mib": gpu.memory.0,
            "memory_used_mib": read(|gpu| gpu.memory_used_mib),
            "busy_permille": read(|gpu| gpu.busy_permille.map(u64::from)),
            "temperature_c": read(|gpu| gpu.temperature_c.map(u64::from)),
            "power_mw": read(|gpu| gpu.power_mw.map(u64::from)),
            "note": self.note(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let gpu = &self.node.row.facts.gpus[self.index];
        let mut model = gpu.name.clone();
        if let Some(mig) = &gpu.mig {
            // Writing to a string cannot fail.
            let _ = write!(model, " {mig}");
        }
        let sample = self.sample.filter(|sample| !sample.lost);
        let shown = |value: Option<String>| value.unwrap_or_default();
        vec![
            self.name(),
            model,
            self.state().word().into(),
            self.job.map_or_else(String::new, |job| job.to_string()),
            shown(sample.and_then(|gpu| Some(format!("{} %", gpu.busy_permille? / 10)))),
            shown(sample.and_then(|read| {
                let (used, whole) = (read.memory_used_mib? as f64, gpu.memory.0 as f64);
                Some(format!("{:.1}/{:.1}", used / 1024.0, whole / 1024.0))
            })),
            shown(sample.and_then(|gpu| Some(gpu.temperature_c?.to_string()))),
            shown(sample.and_then(|gpu| Some((gpu.power_mw? / 1000).to_string()))),
            self.note(),
        ]
    }
}

fn table(rows: &[Row<'_>]) -> String {
    if rows.is_empty() {
        return "no such gpu; gantry nodes says which nodes have none, and why".into();
    }
    let heading = ["GPU", "MODEL", "STATE", "JOB", "BUSY", "MEMORY GB", "°C", "W", "NOTE"];
    output::aligned(&heading, &rows.iter().map(Row::cells).collect::<Vec<_>>(), 4..8)
}

#[cfg(test)]
mod tests {
    use gantry_model::{Gpu, MemoryMib, NodeFacts, NodeRow};
    use gantry_telemetry::Sample;

    use super::*;

    fn node() -> NodeStatus {
        let gpu = |unfit: Option<&str>| Gpu {
            name: "H100".into(),
            memory: MemoryMib(81_920),
            unfit: unfit.map(str::to_owned),
            ..Gpu::default()
        };
        let read = GpuSample {
            busy_permille: Some(975),
            memory_used_mib: Some(40_960),
            temperature_c: Some(71),
            power_mw: Some(655_900),
            ..GpuSample::default()
        };
        let lost = GpuSample { lost: true, ..GpuSample::default() };
        let facts = NodeFacts {
            name: "dgx-01".into(),
            gpus: vec![gpu(None), gpu(None), gpu(Some("xid 79")), gpu(None)],
            ..NodeFacts::default()
        };
        let gpu_jobs = vec![Some(JobId(12)), None, None, None];
        let row = NodeRow { facts, gpu_jobs, ..NodeRow::default() };
        let gpus = vec![read.clone(), read.clone(), read, lost];
        NodeStatus { row, sample: Some(Sample { gpus, ..Sample::default() }), sampled: None }
    }

    #[test]
    fn each_gpu_says_who_has_it_and_why_not() {
        let mut node = node();
        let words =
            |node: &NodeStatus| gpus(node).map(|row| row.state().word()).collect::<Vec<_>>();
        assert_eq!(words(&node), ["used", "free", "off", "lost"]);
        let text = table(&gpus(&node).collect::<Vec<_>>());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "dgx-01:0  H100   used   j12  97 %  40.0/80.0  71  655");
        assert!(lines[3].ends_with("xid 79") && lines[4].contains("lost"), "{text}");
        assert!(!lines[4].contains('%'), "a gpu that is gone has no readings: {text}");
        node.row.service = Service::Drain { reason: "new fan".into(), deadline: None };
        assert_eq!(words(&node), ["used", "off", "off", "lost"]);
        node.row.state = NodeState::Lost;
        assert_eq!(words(&node), ["lost"; 4]);
        node.sample = None;
        let value = gpus(&node).next().unwrap().value();
        assert_eq!((&value["gpu"], &value["busy_permille"]), (&json!("dgx-01:0"), &Value::Null));
        assert_eq!(value["note"], "dgx-01 is lost; drain: new fan");
    }
}
