//! The readings that have a past: what series are kept of, alerts watch, and screens draw.
//!
//! One list for all of them, with the word that people write, the unit, and where it stands in a
//! sample. A value that does not fit 32 bits is cut at the most that does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::sample::{GpuSample, Sample};

/// A reading of a node, or of each of its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Processor use of all cores together.
    Cpu,
    /// Memory in use.
    Memory,
    /// Swap in use.
    Swap,
    /// Load average over one minute.
    Load,
    /// Share of time in which work waited for a core.
    PressureCpu,
    /// Share of time in which work waited for memory.
    PressureMemory,
    /// Share of time in which work waited for a disk.
    PressureIo,
    /// Free space of the agent's disk.
    DiskFree,
    /// Received on all networks.
    NetworkReceived,
    /// Sent on all networks.
    NetworkSent,
    /// How long the shared storage took to answer.
    StorageAnswer,
    /// Tries with a live process or worker.
    Tasks,
    /// Use of a GPU's multiprocessors.
    GpuBusy,
    /// Memory of a GPU in use.
    GpuMemory,
    /// Use of the bandwidth of a GPU's memory.
    GpuMemoryBusy,
    /// Temperature of a GPU.
    GpuTemperature,
    /// Power that a GPU draws.
    GpuPower,
    /// Clock of a GPU's multiprocessors.
    GpuClock,
    /// Sent by a GPU over `PCIe`.
    GpuPcieSent,
    /// Received by a GPU over `PCIe`.
    GpuPcieReceived,
}

impl Quantity {
    /// Those of a node, in the order of lists.
    pub const NODE: [Self; 12] = [
        Self::Cpu,
        Self::Memory,
        Self::Swap,
        Self::Load,
        Self::PressureCpu,
        Self::PressureMemory,
        Self::PressureIo,
        Self::DiskFree,
        Self::NetworkReceived,
        Self::NetworkSent,
        Self::StorageAnswer,
        Self::Tasks,
    ];
    /// Those of a GPU, in the order of lists.
    pub const GPU: [Self; 8] = [
        Self::GpuBusy,
        Self::GpuMemory,
        Self::GpuMemoryBusy,
        Self::GpuTemperature,
        Self::GpuPower,
        Self::GpuClock,
        Self::GpuPcieSent,
        Self::GpuPcieReceived,
    ];

    /// Whether each GPU has one of its own.
    #[must_use]
    pub fn is_of_gpu(self) -> bool {
        Self::GPU.contains(&self)
    }

    /// The word for it in settings, commands and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Swap => "swap",
            Self::Load => "load",
            Self::PressureCpu => "pressure-cpu",
            Self::PressureMemory => "pressure-memory",
            Self::PressureIo => "pressure-io",
            Self::DiskFree => "disk-free",
            Self::NetworkReceived => "network-received",
            Self::NetworkSent => "network-sent",
            Self::StorageAnswer => "storage-answer",
            Self::Tasks => "tasks",
            Self::GpuBusy => "gpu-busy",
            Self::GpuMemory => "gpu-memory",
            Self::GpuMemoryBusy => "gpu-memory-busy",
            Self::GpuTemperature => "gpu-temperature",
            Self::GpuPower => "gpu-power",
            Self::GpuClock => "gpu-clock",
            Self::GpuPcieSent => "gpu-pcie-sent",
            Self::GpuPcieReceived => "gpu-pcie-received",
        }
    }

    /// The unit of its values.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Cpu
            | Self::PressureCpu
            | Self::PressureMemory
            | Self::PressureIo
            | Self::GpuBusy
            | Self::GpuMemoryBusy => "permille",
            Self::Memory | Self::Swap | Self::DiskFree | Self::GpuMemory => "MiB",
            Self::Load => "centi",
            Self::NetworkReceived
            | Self::NetworkSent
            | Self::GpuPcieSent
            | Self::GpuPcieReceived => "KiB/s",
            Self::StorageAnswer => "ms",
            Self::Tasks => "tasks",
            Self::GpuTemperature => "C",
            Self::GpuPower => "mW",
            Self::GpuClock => "MHz",
        }
    }

    /// Its value in a sample of a node; `None` where it was not read, or is a GPU's.
    #[must_use]
    pub fn of_node(self, sample: &Sample) -> Option<u32> {
        let pressure = sample.pressure;
        match self {
            Self::Cpu => Some(sample.cpu_permille),
            Self::Memory => Some(cut(sample.memory_used_mib)),
            Self::Swap => Some(cut(sample.swap_used_mib)),
            Self::Load => Some(sample.load_centi),
            Self::PressureCpu => pressure.map(|pressure| pressure.cpu_permille),
            Self::PressureMemory => pressure.map(|pressure| pressure.memory_permille),
            Self::PressureIo => pressure.map(|pressure| pressure.io_permille),
            Self::DiskFree => Some(cut(sample.disk_free_mib)),
            Self::NetworkReceived => Some(cut(sample.network_received_kib)),
            Self::NetworkSent => Some(cut(sample.network_sent_kib)),
            Self::StorageAnswer => sample.storage.and_then(|storage| storage.answer_ms),
            Self::Tasks => Some(sample.tasks),
            _ => None,
        }
    }

    /// Its value in a sample of a GPU; `None` where it was not read, or is the node's.
    #[must_use]
    pub fn of_gpu(self, gpu: &GpuSample) -> Option<u32> {
        match self {
            Self::GpuBusy => gpu.busy_permille,
            Self::GpuMemory => gpu.memory_used_mib.map(cut),
            Self::GpuMemoryBusy => gpu.memory_busy_permille,
            Self::GpuTemperature => gpu.temperature_c,
            Self::GpuPower => gpu.power_mw,
            Self::GpuClock => gpu.clock_mhz,
            Self::GpuPcieSent => gpu.pcie_sent_kib.map(cut),
            Self::GpuPcieReceived => gpu.pcie_received_kib.map(cut),
            _ => None,
        }
    }
}

fn cut(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Self::NODE.into_iter().chain(Self::GPU);
        all().find(|quantity| quantity.word() == text).ok_or_else(|| {
            let known: Vec<&str> = all().map(Self::word).collect();
            format!("{text:?} is nothing that is read; there are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written_and_each_is_read_from_one_place() {
        let gpu = GpuSample {
            busy_permille: Some(1),
            memory_used_mib: Some(2),
            memory_busy_permille: Some(3),
            temperature_c: Some(4),
            power_mw: Some(5),
            clock_mhz: Some(6),
            pcie_sent_kib: Some(7),
            pcie_received_kib: Some(u64::MAX),
            ..GpuSample::default()
        };
        for quantity in Quantity::GPU {
            assert_eq!(quantity.word().parse(), Ok(quantity));
            assert!(quantity.of_gpu(&gpu).is_some(), "{quantity}");
            assert_eq!(quantity.of_node(&Sample::default()), None);
        }
        for quantity in Quantity::NODE {
            assert_eq!(quantity.word().parse(), Ok(quantity));
            assert_eq!(quantity.of_gpu(&gpu), None);
            assert!(!quantity.is_of_gpu());
        }
        assert!("gpu".parse::<Quantity>().unwrap_err().contains("gpu-busy"));
    }
}
