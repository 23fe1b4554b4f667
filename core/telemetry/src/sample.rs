//! One reading of a node.

use gantry_model::At;
use serde::{Deserialize, Serialize};

/// What an agent reads of its node once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was read, by the agent's clock.
    pub at: At,
    /// Processor use of all cores together, in thousandths.
    pub cpu_permille: u32,
    /// Memory in use, in MiB.
    pub memory_used_mib: u64,
    /// Memory of the node, in MiB.
    pub memory_total_mib: u64,
    /// Free space of the disk that holds the agent's folder, in MiB.
    pub disk_free_mib: u64,
    /// Size of that disk, in MiB.
    pub disk_total_mib: u64,
    /// Received on all networks, in KiB per second.
    pub network_received_kib: u64,
    /// Sent on all networks, in KiB per second.
    pub network_sent_kib: u64,
    /// Tries with a live process or worker.
    pub tasks: u32,
    /// One reading per GPU, by index.
    pub gpus: Vec<GpuSample>,
    /// The library on the shared storage, where this node sees one.
    pub library: Option<LibraryCounts>,
    /// The DICOM receiver, where this node has one.
    pub ingest: Option<IngestCounts>,
}

/// What NVML says of one GPU. An absent value is one that NVML did not give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSample {
    /// Use of the multiprocessors, in thousandths.
    pub busy_permille: Option<u32>,
    /// Memory in use, in MiB.
    pub memory_used_mib: Option<u64>,
    /// Temperature of the core, in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Power drawn, in milliwatts.
    pub power_mw: Option<u32>,
}

/// How much a library holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryCounts {
    /// Series.
    pub series: u64,
    /// Instances of all series.
    pub instances: u64,
    /// Files set aside with a reason.
    pub quarantined: u64,
    /// Samples.
    pub samples: u64,
    /// Models.
    pub models: u64,
    /// Predictions.
    pub predictions: u64,
}

/// What the DICOM receiver has done since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestCounts {
    /// Associations open now.
    pub associations: u32,
    /// Associations opened so far.
    pub associations_total: u64,
    /// Instances stored and answered with success.
    pub received: u64,
    /// Instances set aside with a reason.
    pub quarantined: u64,
    /// Instances refused because storage is short.
    pub refused: u64,
}
