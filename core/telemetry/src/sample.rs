//! One reading of a node.

use gantry_model::{At, TaskId};
use serde::{Deserialize, Serialize};

/// What an agent reads of its node once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was read, by the agent's clock.
    pub at: At,
    /// Processor use of all cores together, in thousandths.
    pub cpu_permille: u32,
    /// Use of each core, in thousandths.
    pub cores_permille: Vec<u32>,
    /// Load average over one minute, in hundredths.
    pub load_centi: u32,
    /// Memory in use, in MiB.
    pub memory_used_mib: u64,
    /// Memory of the node, in MiB.
    pub memory_total_mib: u64,
    /// Swap in use, in MiB.
    pub swap_used_mib: u64,
    /// What the kernel says of work that waits; absent where it does not say.
    pub pressure: Option<Pressure>,
    /// Free space of the disk that holds the agent's folder, in MiB.
    pub disk_free_mib: u64,
    /// Size of that disk, in MiB.
    pub disk_total_mib: u64,
    /// Every disk that is mounted from a device.
    pub disks: Vec<DiskSample>,
    /// Received on all networks, in KiB per second.
    pub network_received_kib: u64,
    /// Sent on all networks, in KiB per second.
    pub network_sent_kib: u64,
    /// Every network but the loopback.
    pub networks: Vec<NetworkSample>,
    /// The shared storage, where this node has a library.
    pub storage: Option<StorageSample>,
    /// Tries with a live process or worker.
    pub tasks: u32,
    /// What the commands among them use, those that use most first.
    pub running: Vec<TaskSample>,
    /// Seconds since the GPU driver last answered; absent where there is none.
    pub driver_silent_s: Option<u32>,
    /// One reading per GPU, by index.
    pub gpus: Vec<GpuSample>,
    /// The library on the shared storage, where this node sees one.
    pub library: Option<LibraryCounts>,
    /// The DICOM receiver, where this node has one.
    pub ingest: Option<IngestCounts>,
}

/// The share of the last ten seconds in which some work waited for a thing, in thousandths
/// (pressure stall information of the kernel, `some avg10`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// For a core.
    pub cpu_permille: u32,
    /// For memory.
    pub memory_permille: u32,
    /// For a disk.
    pub io_permille: u32,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSample {
    /// Where it is mounted.
    pub name: String,
    /// Its size, in MiB.
    pub total_mib: u64,
    /// Its free space, in MiB.
    pub free_mib: u64,
    /// Read from it, in KiB per second.
    pub read_kib: u64,
    /// Written to it, in KiB per second.
    pub written_kib: u64,
}

/// One network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSample {
    /// Its name.
    pub name: String,
    /// Received, in KiB per second.
    pub received_kib: u64,
    /// Sent, in KiB per second.
    pub sent_kib: u64,
    /// Errors of both directions since the start of the machine.
    pub errors: u64,
}

/// How shared storage answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageSample {
    /// How long it took to look at the library's folder, in milliseconds; absent while it does not
    /// answer.
    pub answer_ms: Option<u32>,
    /// Its free space, in MiB, as it was last told.
    pub free_mib: Option<u64>,
}

/// What the processes of one task use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSample {
    /// The task.
    pub task: TaskId,
    /// Its processes.
    pub processes: u32,
    /// Processor use in thousandths of one core.
    pub cpu_permille: u32,
    /// Memory in use, in MiB.
    pub memory_mib: u64,
    /// Read from disks, in KiB per second.
    pub read_kib: u64,
    /// Written to disks, in KiB per second.
    pub written_kib: u64,
    /// Memory in use on GPUs, in MiB.
    pub gpu_memory_mib: u64,
}

/// What NVML says of one GPU. An absent value is one that NVML did not give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSample {
    /// Whether the device is gone: it fell off the bus, or NVML lists it no more.
    pub lost: bool,
    /// Use of the multiprocessors, in thousandths.
    pub busy_permille: Option<u32>,
    /// Use of the memory's bandwidth, in thousandths.
    pub memory_busy_permille: Option<u32>,
    /// Memory in use, in MiB.
    pub memory_used_mib: Option<u64>,
    /// Temperature of the core, in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Power drawn, in milliwatts.
    pub power_mw: Option<u32>,
    /// Power it may draw, in milliwatts.
    pub power_limit_mw: Option<u32>,
    /// Clock of the multiprocessors, in MHz.
    pub clock_mhz: Option<u32>,
    /// Clock of the memory, in MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Why its clocks are held down, as NVML's bits.
    pub throttle: Option<u64>,
    /// Memory errors that were corrected since the driver was loaded.
    pub ecc_corrected: Option<u64>,
    /// Memory errors that were not.
    pub ecc_uncorrected: Option<u64>,
    /// Rows of memory that were replaced.
    pub rows_remapped: Option<u32>,
    /// Whether a row waits for a reset to be replaced.
    pub remap_pending: Option<bool>,
    /// Whether a row could not be replaced.
    pub remap_failed: Option<bool>,
    /// Sent over `PCIe`, in KiB per second.
    pub pcie_sent_kib: Option<u64>,
    /// Received over `PCIe`, in KiB per second.
    pub pcie_received_kib: Option<u64>,
    /// `PCIe` packets that were sent again, since the driver was loaded.
    pub pcie_replays: Option<u32>,
    /// Errors of all `NVLink` links, since the driver was loaded.
    pub nvlink_errors: Option<u64>,
    /// Use of the video encoder, in thousandths.
    pub encoder_permille: Option<u32>,
    /// Use of the video decoder, in thousandths.
    pub decoder_permille: Option<u32>,
    /// Processes on it, those that use most memory first.
    pub processes: Vec<GpuProcess>,
}

/// A process on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// Its number on the node.
    pub pid: u32,
    /// The task it belongs to; absent where it is not gantry's.
    pub task: Option<TaskId>,
    /// Memory it uses on the GPU, in MiB; absent where NVML does not say.
    pub memory_mib: Option<u64>,
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
    /// Instances kept beside their series since they contradict an earlier one.
    pub conflicts: u64,
    /// Instances refused because storage is short.
    pub refused: u64,
}
