//! Many GPUs in few bytes: what a screen of thousands needs of each.
//!
//! A node's whole sample has some hundred bytes for each GPU; a row here has about twenty, so that a
//! page of 64 full nodes fits one frame.

use gantry_model::{At, JobId, NodeRow, NodeState};
use gantry_telemetry::Sample;
use serde::{Deserialize, Serialize};

/// Some nodes with GPUs, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuPage {
    /// The nodes.
    pub nodes: Vec<GpuNode>,
    /// Whose the jobs are that hold GPUs of them, each once, in the order of their ids.
    pub holders: Vec<Holder>,
    /// Whether there are further nodes.
    pub more: bool,
}

/// A job that holds a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Its user.
    pub user: String,
}

/// The GPUs of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuNode {
    /// The node's name.
    pub name: String,
    /// Where it stands.
    pub state: NodeState,
    /// When its newest sample came, by the scheduler's clock.
    pub sampled: Option<At>,
    /// Those that are asked for.
    pub gpus: Vec<GpuRow>,
}

/// A GPU now. An absent number is one that NVML did not give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuRow {
    /// Its index on its node.
    pub index: u16,
    /// The job that holds it.
    pub job: Option<JobId>,
    /// Whether it is gone, or gets no work.
    pub unfit: bool,
    /// Its memory, in MiB.
    pub memory_mib: u64,
    /// Use of the multiprocessors, in thousandths.
    pub busy_permille: Option<u32>,
    /// Memory in use, in MiB.
    pub memory_used_mib: Option<u64>,
    /// Temperature, in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Power drawn, in W.
    pub power_w: Option<u32>,
}

impl GpuNode {
    /// What a page says of a node; of the GPUs of one job where one is named.
    #[must_use]
    pub fn new(row: &NodeRow, sample: Option<(&Sample, At)>, of: Option<JobId>) -> Self {
        let gpus = row.facts.gpus.iter().enumerate().filter_map(|(index, gpu)| {
            let job = row.gpu_jobs.get(index).copied().flatten();
            let now = sample.and_then(|(sample, _)| sample.gpus.get(index));
            (of.is_none() || of == job).then(|| GpuRow {
                index: index as u16,
                job,
                unfit: gpu.unfit.is_some() || now.is_some_and(|now| now.lost),
                memory_mib: gpu.memory.0,
                busy_permille: now.and_then(|now| now.busy_permille),
                memory_used_mib: now.and_then(|now| now.memory_used_mib),
                temperature_c: now.and_then(|now| now.temperature_c),
                power_w: now.and_then(|now| now.power_mw).map(|power| power / 1000),
            })
        });
        Self {
            name: row.facts.name.clone(),
            state: row.state,
            sampled: sample.map(|(_, at)| at),
            gpus: gpus.collect(),
        }
    }
}
