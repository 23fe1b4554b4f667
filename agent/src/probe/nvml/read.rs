//! What NVML says of one GPU.
//!
//! Each reading that fails is absent. One that the device does not have is not asked for again for
//! ten minutes: on a GPU of a workstation that is half of them. What changes seldom, and what costs
//! NVML a wait of 20 ms (its own measure of `PCIe` traffic), is asked for every few readings, each GPU
//! in a turn of its own; the value stands meanwhile.

use std::time::Instant;

use gantry_telemetry::{GpuProcess, GpuSample};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PcieUtilCounter, TemperatureSensor,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;

use super::MIB;

/// Readings after which what a device does not have is asked for again.
const ASK_AGAIN: u64 = 600;
/// Readings between two of what changes seldom.
const SLOW_EACH: u64 = 8;
/// Processes told of one GPU.
const PROCESSES_MAX: usize = 16;

/// Numbers of NVML's fields (`nvml.h`).
mod field {
    pub(super) const PCIE_SENT: u32 = 197;
    pub(super) const PCIE_RECEIVED: u32 = 198;
    /// Rows replaced after errors that were corrected, and after others; waiting; failed.
    pub(super) const ROWS: [u32; 4] = [142, 143, 144, 145];
    /// Errors of all links: checksums of flits and of data, replays, recoveries.
    pub(super) const LINKS: [u32; 4] = [38, 45, 52, 59];
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Busy,
    Memory,
    Temperature,
    Power,
    PowerLimit,
    Clock,
    MemoryClock,
    Throttle,
    EccCorrected,
    EccUncorrected,
    Rows,
    PcieBytes,
    PcieTraffic,
    PcieReplays,
    Links,
    Encoder,
    Decoder,
    Compute,
    Graphics,
}

/// How many kinds of readings there are.
const READINGS: usize = Reading::Graphics as usize + 1;

/// What is remembered of a device between two readings.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// Readings so far. Those of several GPUs begin at different numbers.
    turn: u64,
    /// Up to which turn a reading is not asked for.
    mute: [u64; READINGS],
    /// Whether the device fell off the bus in this reading.
    lost: bool,
    /// The last values of what is asked for seldom.
    slow: GpuSample,
    /// Bytes sent and received at a time.
    pcie: Option<(Instant, [u64; 2])>,
}

impl Meter {
    /// A meter of the GPU with this index.
    pub(super) fn new(index: usize) -> Self {
        Self {
            turn: index as u64,
            mute: [0; READINGS],
            lost: false,
            slow: GpuSample::default(),
            pcie: None,
        }
    }

    /// Everything of a whole GPU.
    pub(super) fn read(&mut self, gpu: &Device<'_>) -> GpuSample {
        self.lost = false;
        self.turn += 1;
        let rates = self.ask(Reading::Busy, || gpu.utilization_rates());
        let clock = |meter: &mut Self, reading, kind| meter.ask(reading, || gpu.clock_info(kind));
        let mut sample = GpuSample {
            busy_permille: rates.as_ref().map(|rates| rates.gpu * 10),
            memory_busy_permille: rates.as_ref().map(|rates| rates.memory * 10),
            memory_used_mib: self.memory(gpu),
            temperature_c: self
                .ask(Reading::Temperature, || gpu.temperature(TemperatureSensor::Gpu)),
            power_mw: self.ask(Reading::Power, || gpu.power_usage()),
            clock_mhz: clock(self, Reading::Clock, Clock::SM),
            memory_clock_mhz: clock(self, Reading::MemoryClock, Clock::Memory),
            throttle: self
                .ask(Reading::Throttle, || gpu.current_throttle_reasons())
                .map(|reasons| reasons.bits()),
            encoder_permille: self
                .ask(Reading::Encoder, || gpu.encoder_utilization())
                .map(|encoder| encoder.utilization * 10),
            decoder_permille: self
                .ask(Reading::Decoder, || gpu.decoder_utilization())
                .map(|decoder| decoder.utilization * 10),
            processes: self.processes(gpu),
            ..GpuSample::default()
        };
        if self.turn.is_multiple_of(SLOW_EACH) || self.slow == GpuSample::default() {
            self.read_slow(gpu);
        }
        self.traffic(gpu);
        if self.lost {
            self.slow = GpuSample::default();
            self.pcie = None;
            return GpuSample { lost: true, ..GpuSample::default() };
        }
        let slow = &self.slow;
        sample.power_limit_mw = slow.power_limit_mw;
        sample.ecc_corrected = slow.ecc_corrected;
        sample.ecc_uncorrected = slow.ecc_uncorrected;
        sample.rows_remapped = slow.rows_remapped;
        sample.remap_pending = slow.remap_pending;
        sample.remap_failed = slow.remap_failed;
        sample.pcie_sent_kib = slow.pcie_sent_kib;
        sample.pcie_received_kib = slow.pcie_received_kib;
        sample.pcie_replays = slow.pcie_replays;
        sample.nvlink_errors = slow.nvlink_errors;
        sample
    }

    /// What an instance has of its own, beside what it shares with its GPU.
    pub(super) fn read_instance(&mut self, instance: &Device<'_>, whole: &GpuSample) -> GpuSample {
        self.lost = false;
        self.turn += 1;
        let rates = self.ask(Reading::Busy, || instance.utilization_rates());
        let sample = GpuSample {
            busy_permille: rates.as_ref().map(|rates| rates.gpu * 10),
            memory_busy_permille: rates.as_ref().map(|rates| rates.memory * 10),
            memory_used_mib: self.memory(instance),
            processes: self.processes(instance),
            encoder_permille: None,
            decoder_permille: None,
            ..whole.clone()
        };
        if self.lost { GpuSample { lost: true, ..GpuSample::default() } } else { sample }
    }

    fn memory(&mut self, device: &Device<'_>) -> Option<u64> {
        self.ask(Reading::Memory, || device.memory_info()).map(|memory| memory.used / MIB)
    }

    /// What changes seldom.
    fn read_slow(&mut self, gpu: &Device<'_>) {
        let ecc = |kind| gpu.total_ecc_errors(kind, EccCounter::Volatile);
        self.slow.power_limit_mw = self.ask(Reading::PowerLimit, || gpu.enforced_power_limit());
        self.slow.ecc_corrected = self.ask(Reading::EccCorrected, || ecc(MemoryError::Corrected));
        self.slow.ecc_uncorrected =
            self.ask(Reading::EccUncorrected, || ecc(MemoryError::Uncorrected));
        self.slow.pcie_replays = self.ask(Reading::PcieReplays, || gpu.pcie_replay_counter());
        let rows = self.ask(Reading::Rows, || fields(gpu, field::ROWS));
        let [corrected, others, pending, failed] = rows.unwrap_or_default();
        self.slow.rows_remapped = corrected
            .zip(others)
            .map(|(corrected, others)| u32::try_from(corrected + others).unwrap_or(u32::MAX));
        self.slow.remap_pending = pending.map(|pending| pending != 0);
        self.slow.remap_failed = failed.map(|failed| failed != 0);
        let errors = self.ask(Reading::Links, || fields(gpu, field::LINKS));
        // Newer links do not know all four.
        self.slow.nvlink_errors =
            errors.and_then(|errors| errors.into_iter().flatten().reduce(u64::wrapping_add));
    }

    /// `PCIe` traffic: by the counters of the device, or else as NVML measures it, in a turn.
    fn traffic(&mut self, gpu: &Device<'_>) {
        let counters = [field::PCIE_SENT, field::PCIE_RECEIVED];
        let counted = self.ask(Reading::PcieBytes, || match fields(gpu, counters)? {
            [Some(sent), Some(received)] => Ok([sent, received]),
            _ => Err(NvmlError::NotSupported),
        });
        if let Some(bytes) = counted {
            let now = Instant::now();
            let last = self.pcie.replace((now, bytes));
            let rate = |which: usize| {
                let (at, last) = last?;
                let millis = (now.duration_since(at).as_millis() as u64).max(1);
                // A counter that was reset, or has wrapped, says nothing this time.
                Some(bytes[which].checked_sub(last[which])? * 1000 / millis / 1024)
            };
            self.slow.pcie_sent_kib = rate(0);
            self.slow.pcie_received_kib = rate(1);
        } else if self.turn.is_multiple_of(SLOW_EACH) {
            let measure = |meter: &mut Self, what| {
                meter.ask(Reading::PcieTraffic, || gpu.pcie_throughput(what)).map(u64::from)
            };
            self.slow.pcie_sent_kib = measure(self, PcieUtilCounter::Send);
            self.slow.pcie_received_kib = measure(self, PcieUtilCounter::Receive);
        }
    }

    /// Processes, those that use most memory first.
    fn processes(&mut self, device: &Device<'_>) -> Vec<GpuProcess> {
        let mut found = self.ask(Reading::Compute, || device.running_compute_processes());
        if let Some(graphics) = self.ask(Reading::Graphics, || device.running_graphics_processes())
        {
            found.get_or_insert_default().extend(graphics);
        }
        let mut all: Vec<GpuProcess> = found.unwrap_or_default().iter().map(process).collect();
        all.sort_by_key(|one| (one.pid, std::cmp::Reverse(one.memory_mib)));
        all.dedup_by_key(|one| one.pid);
        all.sort_by_key(|one| (std::cmp::Reverse(one.memory_mib), one.pid));
        all.truncate(PROCESSES_MAX);
        all
    }

    /// Asks for one reading, unless the device does not have it or is lost.
    fn ask<T>(
        &mut self,
        reading: Reading,
        ask: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        let mute = &mut self.mute[reading as usize];
        if self.lost || self.turn < *mute {
            return None;
        }
        match ask() {
            Ok(value) => Some(value),
            Err(error) => {
                match error {
                    NvmlError::GpuLost => self.lost = true,
                    NvmlError::NotSupported
                    | NvmlError::NoPermission
                    | NvmlError::FunctionNotFound
                    | NvmlError::FailedToLoadSymbol(_) => *mute = self.turn + ASK_AGAIN,
                    _ => {}
                }
                None
            }
        }
    }
}

/// Several fields in one call; one that the device does not have is absent.
fn fields<const N: usize>(
    gpu: &Device<'_>,
    numbers: [u32; N],
) -> Result<[Option<u64>; N], NvmlError> {
    let said = gpu.field_values_for(&numbers.map(FieldId))?;
    let mut values = [None; N];
    for (value, said) in values.iter_mut().zip(said) {
        *value = match said.and_then(|sample| sample.value) {
            Ok(SampleValue::U32(value)) => Some(u64::from(value)),
            Ok(SampleValue::U64(value)) => Some(value),
            Ok(SampleValue::I64(value)) => u64::try_from(value).ok(),
            Ok(SampleValue::F64(_)) | Err(_) => None,
        };
    }
    if values.iter().any(Option::is_some) { Ok(values) } else { Err(NvmlError::NotSupported) }
}

fn process(one: &ProcessInfo) -> GpuProcess {
    let memory_mib = match one.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes / MIB),
        UsedGpuMemory::Unavailable => None,
    };
    GpuProcess { pid: one.pid, task: None, memory_mib }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_does_not_have_is_asked_for_seldom() {
        for (what, answer, asked) in [
            ("a value", (|| Ok(())) as fn() -> Result<(), NvmlError>, 2 * ASK_AGAIN),
            ("not supported", || Err(NvmlError::NotSupported), 2),
            ("a trouble that passes", || Err(NvmlError::Unknown), 2 * ASK_AGAIN),
        ] {
            let mut meter = Meter::new(0);
            let mut count = 0;
            for _ in 0..2 * ASK_AGAIN {
                meter.ask(Reading::Power, || {
                    count += 1;
                    answer()
                });
                meter.turn += 1;
            }
            assert_eq!(count, asked, "{what}");
        }
    }

    #[test]
    fn a_lost_device_is_not_asked_for_more() {
        let mut meter = Meter::new(0);
        assert_eq!(meter.ask(Reading::Busy, || Err::<(), _>(NvmlError::GpuLost)), None);
        assert!(meter.lost);
        assert_eq!(meter.ask(Reading::Power, || Ok(1)), None);
    }
}
