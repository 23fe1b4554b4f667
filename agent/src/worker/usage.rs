//! What an operation used, as the kernel counted it for its worker.
//!
//! A worker carries out many operations, so its counters are read before and after each. The peak of
//! its memory is set back before each, where the kernel allows that; otherwise it is the peak of all
//! operations so far.

use std::fs;

use gantry_model::{MemoryMib, Usage};

/// What the kernel had counted when an operation began.
pub(super) struct Meter {
    cpu_ms: u64,
}

impl Meter {
    /// Begins to count.
    pub(super) fn start() -> Self {
        // An error means that the peak is not set back.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self { cpu_ms: cpu_ms() }
    }

    /// What was used since.
    pub(super) fn read(&self) -> Usage {
        Usage { cpu_ms: cpu_ms().saturating_sub(self.cpu_ms), memory_peak: memory_peak() }
    }
}

/// Processor time of all threads of this process so far.
fn cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (time.tv_sec as u64) * 1000 + (time.tv_nsec as u64) / 1_000_000
}

/// The most memory that this process has had at once.
fn memory_peak() -> MemoryMib {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    MemoryMib(kib.map_or(0, |kib| kib.div_ceil(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_are_counted() {
        let meter = Meter::start();
        let mut block = vec![0_u8; 64 << 20];
        while meter.read().cpu_ms < 20 {
            for byte in &mut block {
                *byte = byte.wrapping_mul(7).wrapping_add(1);
            }
        }
        assert!(std::hint::black_box(block)[0] > 0);
        assert!(meter.read().memory_peak >= MemoryMib(64), "{:?}", meter.read());
    }
}
