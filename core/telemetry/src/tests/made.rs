//! Samples made from a number: any of them, and those of a node at work.

use gantry_model::{At, JobId, TaskId};

use crate::sample::{
    DiskSample, GpuProcess, GpuSample, IngestCounts, LibraryCounts, NetworkSample, Pressure,
    Sample, StorageSample, TaskSample,
};

/// Numbers that follow from a seed (splitmix64, Steele, Lea and Flood 2014).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One of 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Of any size, small ones as likely as large ones, but never the greatest, which is absence.
    fn large(&mut self) -> u64 {
        let bits = self.below(65) as u32;
        self.next().checked_shr(bits).unwrap_or(0).min(u64::MAX - 1)
    }

    fn small(&mut self) -> u32 {
        self.large() as u32
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(3) > 0).then(|| make(self))
    }

    fn list<T>(&mut self, end: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(end)).map(|_| make(self)).collect()
    }

    fn name(&mut self) -> String {
        ["/", "/scratch", "eth0", "ib0", ""][self.below(5) as usize].to_owned()
    }

    fn task(&mut self) -> TaskId {
        TaskId { job: JobId(self.large()), index: self.small() }
    }
}

/// Any sample. `shape` alone decides its layout.
pub(crate) fn any(shape: u64, seed: u64) -> Sample {
    let mut shape = Numbers(shape);
    let mut n = Numbers(seed);
    Sample {
        at: At(n.large()),
        cpu_permille: n.small(),
        cores_permille: shape.list(5, |_| n.small()),
        load_centi: n.small(),
        memory_used_mib: n.large(),
        memory_total_mib: n.large(),
        swap_used_mib: n.large(),
        pressure: shape.maybe(|_| Pressure {
            cpu_permille: n.small(),
            memory_permille: n.small(),
            io_permille: n.small(),
        }),
        disk_free_mib: n.large(),
        disk_total_mib: n.large(),
        disks: shape.list(3, |shape| DiskSample {
            name: shape.name(),
            total_mib: n.large(),
            free_mib: n.large(),
            read_kib: n.large(),
            written_kib: n.large(),
        }),
        network_received_kib: n.large(),
        network_sent_kib: n.large(),
        networks: shape.list(3, |shape| NetworkSample {
            name: shape.name(),
            received_kib: n.large(),
            sent_kib: n.large(),
            errors: n.large(),
        }),
        storage: shape.maybe(|_| StorageSample {
            answer_ms: n.maybe(Numbers::small),
            free_mib: n.maybe(Numbers::large),
        }),
        tasks: n.small(),
        running: n.list(4, task_sample),
        driver_silent_s: n.maybe(Numbers::small),
        gpus: shape.list(4, |_| gpu(&mut n)),
        library: shape.maybe(|_| LibraryCounts { series: n.large(), ..LibraryCounts::default() }),
        ingest: shape.maybe(|_| IngestCounts { received: n.large(), ..IngestCounts::default() }),
    }
}

fn task_sample(n: &mut Numbers) -> TaskSample {
    TaskSample {
        task: n.task(),
        processes: n.small(),
        cpu_permille: n.small(),
        memory_mib: n.large(),
        read_kib: n.large(),
        written_kib: n.large(),
        gpu_memory_mib: n.large(),
    }
}

fn gpu(n: &mut Numbers) -> GpuSample {
    GpuSample {
        lost: n.below(2) == 1,
        busy_permille: n.maybe(Numbers::small),
        memory_busy_permille: n.maybe(Numbers::small),
        memory_used_mib: n.maybe(Numbers::large),
        temperature_c: n.maybe(Numbers::small),
        power_mw: n.maybe(Numbers::small),
        throttle: n.maybe(Numbers::large),
        remap_pending: n.maybe(|n| n.below(2) == 1),
        remap_failed: n.maybe(|n| n.below(2) == 1),
        pcie_sent_kib: n.maybe(Numbers::large),
        processes: n.list(3, |n| GpuProcess {
            pid: n.small(),
            task: n.maybe(Numbers::task),
            memory_mib: n.maybe(Numbers::large),
        }),
        ..GpuSample::default()
    }
}

/// A second of a node with 64 cores and 8 GPUs in training. All that changes on such a node changes
/// anew each second: a quarter of the cores feeds the GPUs, another works now and then, the rest is
/// hardly used.
pub(crate) fn training(second: u64) -> Sample {
    let mut n = Numbers(second);
    let n = &mut n;
    let task = |index| TaskId { job: JobId(4711), index };
    Sample {
        at: At(1_760_000_000_000 + second * 1000 + n.below(20)),
        cpu_permille: 300 + n.below(400) as u32,
        cores_permille: (0..64).map(|core| core_permille(core, n)).collect(),
        load_centi: 3000 + n.below(2000) as u32,
        memory_used_mib: 300_000 + n.below(100_000),
        memory_total_mib: 1_031_000,
        swap_used_mib: 0,
        pressure: Some(Pressure {
            cpu_permille: n.below(50) as u32,
            memory_permille: 0,
            io_permille: n.below(200) as u32,
        }),
        disk_free_mib: 900_000 - second,
        disk_total_mib: 1_700_000,
        disks: ["/", "/scratch"].map(|name| disk(name, second, n)).to_vec(),
        network_received_kib: n.below(3_000_000),
        network_sent_kib: n.below(400_000),
        networks: ["eno1", "ib0"].map(|name| network(name, n)).to_vec(),
        storage: Some(StorageSample {
            answer_ms: Some(1 + n.below(20) as u32),
            free_mib: Some(800_000_000 - second * 40),
        }),
        tasks: 8,
        running: (0..8).map(|index| training_task(task(index), n)).collect(),
        driver_silent_s: Some(0),
        gpus: (0..8).map(|index| training_gpu(task(index), n)).collect(),
        library: None,
        ingest: None,
    }
}

fn core_permille(core: usize, n: &mut Numbers) -> u32 {
    let (least, range) = [(0, 30), (800, 201), (0, 40), (50, 600)][core % 4];
    least + n.below(range) as u32
}

fn disk(name: &str, second: u64, n: &mut Numbers) -> DiskSample {
    DiskSample {
        name: name.to_owned(),
        total_mib: 1_700_000,
        free_mib: 900_000 - second,
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

fn training_task(task: TaskId, n: &mut Numbers) -> TaskSample {
    TaskSample {
        task,
        processes: 9,
        cpu_permille: 4000 + n.below(4000) as u32,
        memory_mib: 30_000 + n.below(500),
        read_kib: n.below(200_000),
        written_kib: 0,
        gpu_memory_mib: 61_000,
    }
}

fn training_gpu(task: TaskId, n: &mut Numbers) -> GpuSample {
    GpuSample {
        lost: false,
        busy_permille: Some(850 + n.below(15) as u32 * 10),
        memory_busy_permille: Some(300 + n.below(40) as u32 * 10),
        memory_used_mib: Some(61_500),
        temperature_c: Some(55 + n.below(12) as u32),
        power_mw: Some(450_000 + n.below(250_000) as u32),
        power_limit_mw: Some(700_000),
        clock_mhz: Some(1755 + n.below(15) as u32 * 15),
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
        processes: vec![GpuProcess { pid: 812_345, task: Some(task), memory_mib: Some(61_000) }],
    }
}
