//! Readings of a simulated server, made from what runs on it.

use gantry_model::{At, MemoryMib};
use gantry_telemetry::{GpuSample, Sample};

use crate::server::Server;

/// A number from 0 to 999 that changes with the time and differs between readings.
fn waver(at: At, salt: u64) -> u64 {
    let mixed = (at.0 / 1000 + salt * 7919).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) % 1000
}

/// What an agent would read of a server now, and the server's name.
pub(crate) fn read(server: &Server, at: At) -> (String, Sample) {
    let facts = server.hardware();
    let whole = facts.resources;
    let salt = facts.name.bytes().fold(0_u64, |sum, byte| sum * 31 + u64::from(byte));
    let leases = || server.processes.values().map(|process| &process.launch.lease);
    let cores: u64 = leases().map(|lease| u64::from(lease.resources.cores)).sum();
    let memory: u64 = leases().map(|lease| lease.resources.memory.0).sum();
    let busy = cores * (850 + waver(at, salt) / 8) / u64::from(whole.cores.max(1));
    let gpus = facts.gpus.iter().enumerate().map(|(index, gpu)| {
        let users = server.processes.values().filter(|process| process.gpus.contains(&gpu.uuid));
        let permille: u64 = users.map(|p| u64::from(p.launch.lease.gpu_permille)).sum();
        let wave = waver(at, salt + index as u64 + 1);
        let busy = (permille * (800 + wave / 5) / 1000).min(1000);
        let MemoryMib(size) = gpu.memory;
        GpuSample {
            busy_permille: Some(busy as u32),
            memory_used_mib: Some(500 + size * permille * 7 / 10_000),
            temperature_c: Some((34 + busy / 25 + wave / 400) as u32),
            power_mw: Some((70_000 + busy * 580) as u32),
            ..GpuSample::default()
        }
    });
    let sample = Sample {
        at,
        cpu_permille: busy.min(1000) as u32 + 5,
        memory_used_mib: 2048 + memory * 3 / 4,
        memory_total_mib: whole.memory.0 + 4096,
        disk_free_mib: 1_400_000 - waver(at, salt + 50),
        disk_total_mib: 1_900_000,
        network_received_kib: cores * 40 + waver(at, salt + 60),
        network_sent_kib: cores * 12 + waver(at, salt + 70),
        tasks: server.processes.len() as u32,
        gpus: gpus.collect(),
        ..Sample::default()
    };
    (facts.name.clone(), sample)
}
