//! Times each operation alone, on one thread and on two: `cargo bench -p gantry-imaging [-- NAME]`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

mod workloads;

use workloads::{Data, On, WORKLOADS};

fn main() {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let data = Data::new([512, 512, 128]);
    let seed = data.volume.geometry.index(data.seed[0], data.seed[1], data.seed[2]);
    println!("seed value {}", data.volume.voxels[seed]);
    for workload in WORKLOADS {
        if only.as_ref().is_some_and(|only| !workload.name.contains(only.as_str())) {
            continue;
        }
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let rounds = if workload.on == On::Slice { 30 } else { 3 };
            let mut best = f64::MAX;
            for _ in 0..rounds {
                let start = Instant::now();
                pool.install(|| (workload.run)(&data));
                best = best.min(start.elapsed().as_secs_f64() * 1e3);
            }
            let voxels = data.image(workload.on).voxels.len();
            let rate = voxels as f64 / best / 1e3;
            println!("{}, {threads} threads: {best:.2} ms, {rate:.1} Mvoxel/s", workload.name);
        }
    }
}
