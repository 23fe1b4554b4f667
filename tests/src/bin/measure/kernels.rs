//! `kernels`: each image operation on 512 × 512 and 512 × 512 × 128 voxels, on one thread and on two,
//! beside `OpenCV`, `SimpleITK`, scikit-image and cc3d in the same run.
//!
//! Rates are voxels per second of the best round, which is what the machine can do when others leave
//! it alone; goals are ratios to a peer, since a ratio holds on any machine. The machine's limit is a
//! copy of the volume, read and written once. Peers need `--python`, a Python that has them.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::Size;
use crate::report::{Goal, Peer, Row};

#[path = "../../../../kernels/imaging/benches/workloads/mod.rs"]
mod workloads;

use workloads::{Data, WORKLOADS, Workload};

const SCRIPT: &str = include_str!("kernels/peers.py");

/// How many times as fast as which peer an operation is to be.
const GOALS: &[(&str, &str, f64)] = &[
    ("canny 2-D", "OpenCV", 1.0),
    ("sobel 2-D", "OpenCV", 1.0),
    ("gaussian 2-D", "OpenCV", 1.0),
    ("random walker 2-D", "scikit-image", 14.0),
    ("gaussian 3-D", "OpenCV", 1.34),
    ("sobel 3-D", "SimpleITK", 15.0),
    ("canny 3-D", "SimpleITK", 10.0),
    ("median 3-D", "SimpleITK", 10.0),
    ("connected threshold, small region", "SimpleITK", 3.2),
    ("connected threshold, large region", "SimpleITK", 9.0),
    ("confidence connected", "SimpleITK", 5.2),
    ("neighbourhood connected", "SimpleITK", 3.0),
    ("components, 6 neighbours", "cc3d", 1.9),
    ("components, 26 neighbours", "cc3d", 1.9),
    ("distance, signed", "SimpleITK", 5.5),
    ("watershed, 3 markers", "scikit-image", 10.7),
    ("seeded growing, 3 seeds", "scikit-image", 10.7),
];

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let data = Data::new([512, 512, 128]);
    let mut rows = Vec::new();
    // The newest first; what a peer can do on one thread only stands for two as well.
    let mut peers = Vec::new();
    for threads in [1, 2] {
        if let Some(python) = &size.python {
            peers.splice(0..0, run_peers(python, &data, threads)?);
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let limit = copy_rate(&pool, &data);
        for workload in WORKLOADS {
            let (seconds, memory) = time(&pool, workload, &data, size.rounds());
            let voxels = if workload.flat { &data.slice } else { &data.volume }.voxels.len() as f64;
            let rate = |seconds: f64| voxels / seconds / 1e6;
            let what = format!("{}, {threads} threads", workload.name);
            let goal = GOALS.iter().find(|(name, ..)| *name == workload.name);
            let peer = goal.and_then(|(_, library, _)| find(&peers, workload.name, library));
            let peer = peer.map(|(name, ms)| Peer { name, value: rate(ms / 1e3) });
            let row = Row::new(what, "Mvoxel/s", rate(seconds)).peer(peer).limit(limit);
            rows.push(match goal {
                Some((.., times)) => row.goal(Goal::TimesPeer(*times)),
                None => row,
            });
            if !workload.flat && threads == 2 {
                let what = format!("{}: peak memory, its result included", workload.name);
                let volumes = memory / (4.0 * voxels);
                rows.push(Row::new(what, "volumes", volumes).goal(Goal::AtMost(3.0)));
            }
        }
    }
    Ok(rows)
}

/// Returns the best time in seconds, and the most bytes that the call held beyond its input.
fn time(pool: &rayon::ThreadPool, workload: &Workload, data: &Data, rounds: usize) -> (f64, f64) {
    let rounds = if workload.flat { rounds * 10 } else { rounds };
    let before = resident("VmRSS");
    // The kernel forgets the peak so far; where it may not, the peak stays the process's.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        pool.install(|| (workload.run)(data));
        best = best.min(start.elapsed().as_secs_f64());
    }
    (best, (resident("VmHWM") - before).max(0.0))
}

/// Returns a number of bytes that the kernel keeps about this process.
fn resident(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// Returns how many million voxels a second can be copied.
fn copy_rate(pool: &rayon::ThreadPool, data: &Data) -> f64 {
    use rayon::prelude::*;
    let from = &data.volume.voxels;
    let mut to = vec![0.0f32; from.len()];
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        pool.install(|| {
            to.par_chunks_mut(1 << 16)
                .zip(from.par_chunks(1 << 16))
                .for_each(|(to, from)| to.copy_from_slice(from));
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    std::hint::black_box(&to);
    from.len() as f64 / best / 1e6
}

/// Runs the peers on the same phantom; returns what each printed.
fn run_peers(python: &Path, data: &Data, threads: usize) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let mut file =
        std::io::BufWriter::new(std::fs::File::create(folder.path().join("volume.raw"))?);
    for value in &data.volume.voxels {
        file.write_all(&value.to_le_bytes())?;
    }
    file.flush()?;
    let grid = json!({ "size": data.volume.geometry.size, "seed": data.seed });
    std::fs::write(folder.path().join("grid.json"), grid.to_string())?;
    let script = folder.path().join("peers.py");
    std::fs::write(&script, SCRIPT)?;
    let mut command = Command::new(python);
    command.arg(&script).arg(folder.path()).arg(threads.to_string());
    // They know one thread only, and take half a minute.
    if threads == 1 {
        command.arg("--slow");
    }
    let output = command.output().with_context(|| format!("running {}", python.display()))?;
    if !output.status.success() {
        bail!("the peers failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Returns a peer's name and its best time in milliseconds. Seeded growing has no peer but the
/// watershed, which visits every voxel in order of a queue too.
fn find(peers: &[Value], what: &str, library: &str) -> Option<(String, f64)> {
    let what = if what.starts_with("seeded growing") { "watershed, 3 markers" } else { what };
    let found = peers.iter().find(|peer| peer["what"] == what && peer["library"] == library)?;
    Some((library.to_owned(), found["best"].as_f64()?))
}
