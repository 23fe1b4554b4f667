//! What an operation used, as the kernel counted it for its worker.
//!
//! A worker carries out many operations, so its counters are read before and after each. The peak of
//! its memory is set back between them, where the kernel allows that; otherwise it is the peak of
//! all operations so far. Reading it costs more than a short operation takes: one that had the
//! processor for less than [`SHORT_NS`] is said to have used what the worker has at rest, and what it
//! had of the disks is counted with the next long one.

use std::fs;

use gantry_model::{MemoryMib, Usage};

/// Processor time of an operation whose memory is not looked at.
const SHORT_NS: u64 = 1_000_000;

/// What the kernel had counted when an operation began.
pub(super) struct Meter {
    cpu_ns: u64,
    /// KiB that were read from disks and written to them.
    disk_kib: (u64, u64),
    at_rest: MemoryMib,
}

impl Meter {
    /// The meter of a worker.
    pub(super) fn new() -> Self {
        Self { cpu_ns: cpu_ns(), disk_kib: disk_kib(), at_rest: rest() }
    }

    /// An operation begins.
    pub(super) fn begin(&mut self) {
        self.cpu_ns = cpu_ns();
    }

    /// It has ended: what it used.
    pub(super) fn end(&mut self) -> Usage {
        let used_ns = cpu_ns().saturating_sub(self.cpu_ns);
        if used_ns < SHORT_NS {
            return Usage { memory_peak: self.at_rest, ..Usage::default() };
        }
        let memory_peak = memory_peak();
        self.at_rest = rest();
        let before = std::mem::replace(&mut self.disk_kib, disk_kib());
        Usage {
            cpu_ms: used_ns / 1_000_000,
            memory_peak,
            read_kib: self.disk_kib.0.saturating_sub(before.0),
            written_kib: self.disk_kib.1.saturating_sub(before.1),
        }
    }
}

/// Sets the peak back, and gives what is left of it.
fn rest() -> MemoryMib {
    // An error means that the peak is not set back.
    let _ = fs::write("/proc/self/clear_refs", "5");
    memory_peak()
}

/// Processor time of all threads of this process so far.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (time.tv_sec as u64) * 1_000_000_000 + (time.tv_nsec as u64)
}

/// What this process has had read from disks and written to them, in KiB.
fn disk_kib() -> (u64, u64) {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let kib = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(": "));
        line.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    (kib("read_bytes"), kib("write_bytes"))
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

    const TMPFS: i64 = 0x0102_1994;

    #[test]
    fn what_is_written_to_a_disk_is_counted() {
        let before = disk_kib();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &vec![7; 4 << 20]).unwrap();
        file.sync_all().unwrap();
        let after = disk_kib();
        // A file system in memory has no disk.
        let disk = rustix::fs::fstatfs(&file).is_ok_and(|facts| facts.f_type != TMPFS);
        assert!(!disk || after.1 >= before.1 + 4096, "{before:?} {after:?}");
    }

    #[test]
    fn time_and_memory_are_counted() {
        let mut meter = Meter::new();
        meter.begin();
        let mut block = vec![0_u8; 64 << 20];
        while cpu_ns() < meter.cpu_ns + 20_000_000 {
            for byte in &mut block {
                *byte = byte.wrapping_mul(7).wrapping_add(1);
            }
        }
        assert!(std::hint::black_box(block)[0] > 0);
        let used = meter.end();
        assert!(used.cpu_ms >= 20 && used.memory_peak >= MemoryMib(64), "{used:?}");
    }
}
