//! What nodes say of themselves in a benchmark: samples of a large node at work.
//!
//! 64 cores and 8 GPUs in training. All that changes on such a node changes anew each second: a
//! quarter of the cores feeds the GPUs, another works now and then, the rest is hardly used. The
//! same seed and second give the same sample.

use gantry_model::At;
use gantry_telemetry::{DiskSample, GpuSample, NetworkSample, Pressure, Sample, StorageSample};

pub(crate) const CORES: usize = 64;
pub(crate) const GPUS: usize = 8;

/// Numbers that follow from a seed (splitmix64, Steele, Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    /// One of 0 to `end - 1`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }

    fn small(&mut self, end: u64) -> u32 {
        self.below(end) as u32
    }
}

/// The sample of a node, known by a number, in a second of its own.
pub(crate) fn sample(node: u64, second: u64, at: At) -> Sample {
    let n = &mut Numbers(node.wrapping_mul(0x0001_0000_0001) ^ second);
    Sample {
        at,
        cpu_permille: 300 + n.small(400),
        cores_permille: (0..CORES).map(|core| core_permille(core, n)).collect(),
        load_centi: 3000 + n.small(2000),
        memory_used_mib: 300_000 + n.below(100_000),
        memory_total_mib: 1_031_000,
        swap_used_mib: 0,
        pressure: Some(Pressure {
            cpu_permille: n.small(50),
            memory_permille: 0,
            io_permille: n.small(200),
        }),
        disk_free_mib: 900_000 - second % 100_000,
        disk_total_mib: 1_700_000,
        disks: ["/", "/scratch"].map(|name| disk(name, second, n)).to_vec(),
        network_received_kib: n.below(3_000_000),
        network_sent_kib: n.below(400_000),
        networks: ["eno1", "ib0"].map(|name| network(name, n)).to_vec(),
        storage: Some(StorageSample {
            answer_ms: Some(1 + n.small(20)),
            free_mib: Some(800_000_000 - second % 1_000_000 * 40),
        }),
        tasks: 8,
        driver_silent_s: Some(0),
        gpus: (0..GPUS).map(|_| gpu(n)).collect(),
        ..Sample::default()
    }
}

fn core_permille(core: usize, n: &mut Numbers) -> u32 {
    let (least, range) = [(0, 30), (800, 201), (0, 40), (50, 600)][core % 4];
    least + n.small(range)
}

fn disk(name: &str, second: u64, n: &mut Numbers) -> DiskSample {
    DiskSample {
        name: name.to_owned(),
        total_mib: 1_700_000,
        free_mib: 900_000 - second % 100_000,
        read_kib: n.below(2_000_000),
        written_kib: n.below(100_000),
    }
}

fn network(name: &str, n: &mut Numbers) -> NetworkSample {
    NetworkSample {
        name: name.to_owned(),
        received_kib: n.below(3_000_000),
        sent_kib: n.below(400_000),
        errors: 3,
    }
}

fn gpu(n: &mut Numbers) -> GpuSample {
    GpuSample {
        busy_permille: Some(850 + n.small(15) * 10),
        memory_busy_permille: Some(300 + n.small(40) * 10),
        memory_used_mib: Some(61_500),
        temperature_c: Some(55 + n.small(12)),
        power_mw: Some(450_000 + n.small(250_000)),
        power_limit_mw: Some(700_000),
        clock_mhz: Some(1755 + n.small(15) * 15),
        memory_clock_mhz: Some(2619),
        throttle: Some(4 * n.below(2)),
        ecc_corrected: Some(2),
        ecc_uncorrected: Some(0),
        rows_remapped: Some(0),
        remap_pending: Some(false),
        remap_failed: Some(false),
        pcie_sent_kib: Some(n.below(2_000_000)),
        pcie_received_kib: Some(n.below(6_000_000)),
        pcie_replays: Some(0),
        nvlink_errors: Some(0),
        encoder_permille: Some(0),
        decoder_permille: Some(0),
        ..GpuSample::default()
    }
}
