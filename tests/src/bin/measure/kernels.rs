//! `kernels`: each image operation on 512 × 512 and 512 × 512 × 128 voxels, on one thread and on two,
//! beside `OpenCV`, `SimpleITK`, scikit-image and cc3d in the same run.
//!
//! Rates are voxels per second of the best round, which is what the machine can do when others leave
//! it alone; goals are ratios to a peer, since a ratio holds on any machine. The machine's limit is a
//! copy of the volume, read and written once; operations that do no more than that are held against it.
//! Where an operation has several peers, the one that its goal is about is in its first row. Memory is
//! counted in volumes of 32-bit voxels. Peers need `--python`, a Python that has them.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::Size;
use crate::report::{Goal, Peer, Row};

#[path = "../../../../kernels/imaging/benches/workloads/mod.rs"]
mod workloads;

use workloads::{Data, On, WORKLOADS, Workload};

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

/// The operations that read a volume once and write another: at least this part of a copy's speed.
const STREAMING: [&str; 4] = ["window", "rescale", "clip", "threshold"];
const OF_COPY: f64 = 50.0;

/// The most memory beside the volume that is given and what becomes of it, in volumes.
const VOLUMES_MAX: f64 = 2.0;

/// The name under which this program says what memory each operation takes.
pub(crate) const MEMORY: &str = "kernels-memory";

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let data = Data::new([512, 512, 128]);
    let mut rows = Vec::new();
    // The newest first; what a peer can do on one thread only stands for two as well.
    let mut peers = Vec::new();
    for threads in [1, 2] {
        if let Some(python) = &size.python {
            peers.splice(0..0, run_peers(python, &data, threads, size.only.as_deref())?);
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let limit = copy_rate(&pool, &data);
        for workload in asked(size.only.as_deref()) {
            let seconds = time(&pool, workload, &data, size.rounds());
            let voxels = data.image(workload.on).voxels.len() as f64;
            let rate = |seconds: f64| voxels / seconds / 1e6;
            let ms = seconds * 1e3;
            let what = format!("{}, {threads} threads ({ms:.2} ms)", workload.name);
            let wanted = GOALS.iter().find(|(name, ..)| *name == workload.name);
            let mut others = peers_of(&peers, workload.name);
            // The one that the goal is about comes first.
            others.sort_by_key(|(name, _)| wanted.is_none_or(|(_, peer, _)| name != peer));
            let mut others = others.into_iter();
            let peer = |(name, ms): (String, f64)| Peer { name, value: rate(ms / 1e3) };
            let row = Row::new(what, "Mvoxel/s", rate(seconds)).limit(limit);
            let row = row.peer(others.next().map(peer));
            rows.push(match wanted {
                Some((.., times)) => row.goal(Goal::TimesPeer(*times)),
                None if STREAMING.contains(&workload.name) => row.goal(Goal::OfLimit(OF_COPY)),
                None => row,
            });
            for other in others {
                let what = format!("{}, {threads} threads", workload.name);
                rows.push(Row::new(what, "Mvoxel/s", rate(seconds)).peer(Some(peer(other))));
            }
        }
    }
    rows.extend(memory_rows(size)?);
    Ok(rows)
}

/// Returns the operations that were asked for.
fn asked(only: Option<&str>) -> impl Iterator<Item = &'static Workload> {
    let only = only.unwrap_or_default();
    WORKLOADS.iter().filter(move |workload| workload.name.contains(only))
}

/// Returns the best time in seconds.
fn time(pool: &rayon::ThreadPool, workload: &Workload, data: &Data, rounds: usize) -> f64 {
    let rounds = if workload.on == On::Slice { rounds * 10 } else { rounds };
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        pool.install(|| (workload.run)(data));
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// What each operation on the volume takes, measured in a process of its own whose allocator gives all
/// memory back at once: what a process has is then what its operations hold.
fn memory_rows(size: &Size) -> Result<Vec<Row>> {
    let output = Command::new(std::env::current_exe()?)
        .arg0(MEMORY)
        .args(size.only.as_deref())
        .env("MIMALLOC_PURGE_DELAY", "0")
        .output()
        .context("measuring memory")?;
    if !output.status.success() {
        bail!("measuring memory failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout)?;
    let row = |line: &str| {
        let (name, volumes) = line.rsplit_once('\t').context("a line of another kind")?;
        let what = format!("{name}: memory beside input and output, 2 threads");
        Ok(Row::new(what, "volumes", volumes.parse()?).goal(Goal::AtMost(VOLUMES_MAX)))
    };
    lines.lines().map(row).collect()
}

/// Prints for each operation on the volume, on two threads, the most that it held beside the volume that
/// it was given and its result, in volumes.
pub(crate) fn print_memory() -> Result<()> {
    let data = Data::new([512, 512, 128]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let voxels = data.volume.voxels.len() as f64;
    let mut out = std::io::stdout().lock();
    let only = std::env::args().nth(1);
    for workload in asked(only.as_deref()).filter(|workload| workload.on == On::Volume) {
        let before = resident("VmRSS");
        // The kernel forgets the peak so far; without that there is nothing to be told.
        std::fs::write("/proc/self/clear_refs", "5").context("forgetting the peak of memory")?;
        pool.install(|| (workload.run)(&data));
        let result = voxels * workload.result_bytes as f64;
        let beside = (resident("VmHWM") - before - result).max(0.0);
        writeln!(out, "{}\t{}", workload.name, beside / (4.0 * voxels))?;
    }
    Ok(())
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
fn run_peers(python: &Path, data: &Data, threads: usize, only: Option<&str>) -> Result<Vec<Value>> {
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
    // They know one thread only, and take minutes.
    if threads == 1 {
        command.arg("--slow");
    }
    if let Some(only) = only {
        command.args(["--only", only]);
    }
    let output = command.output().with_context(|| format!("running {}", python.display()))?;
    if !output.status.success() {
        bail!("the peers failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Returns the peers that do the same, each with its best time in milliseconds; of two numbers of one
/// peer the newer. Seeded growing has no peer but the watershed, which visits every voxel in order of a
/// queue too.
fn peers_of(peers: &[Value], what: &str) -> Vec<(String, f64)> {
    let what = if what.starts_with("seeded growing") { "watershed, 3 markers" } else { what };
    let mut found: Vec<(String, f64)> = Vec::new();
    for peer in peers.iter().filter(|peer| peer["what"] == what) {
        let (Some(name), Some(ms)) = (peer["library"].as_str(), peer["best"].as_f64()) else {
            continue;
        };
        if found.iter().all(|(known, _)| known != name) {
            found.push((name.to_owned(), ms));
        }
    }
    found
}
