//! Training: slices a second of both engines, beside a plain loop of `PyTorch` over arrays in memory.
//!
//! All train the same U-Net at the same size, batch and precision on the same threads. Ours reads a
//! library, varies the slices, tells metrics and keeps checkpoints meanwhile; the plain loop does
//! nothing but steps. Ours are also measured where no sample is held in memory and each slice comes from its
//! shard. The Python is `GANTRY_TORCH_PYTHON`, or python3.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_learning::{
    DataRoom, EngineChoice, Precision, Rank, RunOutcome, RunSink, Surroundings, TrainSettings,
    train,
};
use gantry_library::Library;
use gantry_tests::torch;

use crate::Size;
use crate::report::{Goal, Peer, Row};
use crate::shelf;
use crate::statistics::{cores, median};

const PATIENTS: u32 = 8;
const SLICES: usize = 48;
const SIDE: usize = 64;
const BATCH: u32 = 16;
const CHANNELS: usize = 8;
/// The first epoch warms everything up and does not count.
const EPOCHS: u32 = 3;
/// The goals: shares of the plain loop, and the share of time that may be waited for images.
const OF_PLAIN: f64 = 1.0;
const EMBEDDED_OF_PLAIN: f64 = 0.5;
const WAITING_PERCENT: f64 = 5.0;

const NETWORKS: &str = include_str!("../../../peers/networks.py");
/// Steps over random slices; prints slices a second.
const PLAIN: &str = "
import sys, time, torch
from networks import UNet
side, batch, channels, threads, steps = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(1)
network = UNet(2, channels, 2, False)
for layer in network.parameters():
    if layer.dim() > 1:
        torch.nn.init.kaiming_normal_(layer)
optimizer = torch.optim.AdamW(network.parameters(), lr=0.003, weight_decay=0.01)
images = torch.randn(batch * 8, 1, side, side)
labels = (torch.rand(batch * 8, side, side) > 0.8).long()
def step(number):
    first = number % 8 * batch
    logits, _ = network(images[first:first + batch])
    log = torch.log_softmax(logits, 1)
    target = torch.nn.functional.one_hot(labels[first:first + batch], 2).movedim(-1, 1).float()
    entropy = -(log * target).sum() / target[:, 0].numel()
    p, t = log[:, 1].exp(), target[:, 1]
    dice = (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    loss = entropy + 1 - dice
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()
for number in range(8):
    step(number)
begun = time.perf_counter()
for number in range(steps):
    step(number)
print(torch.__version__, steps * batch / (time.perf_counter() - begun))
";

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let library = library(folder.path(), size.count.unwrap_or(PATIENTS))?;
    let python = torch("the engine of PyTorch").map(|python| python.display().to_string());
    let mut rows = Vec::new();
    let mut threads: Vec<usize> = vec![1, cores()];
    threads.dedup();
    for threads in threads {
        let around = |python: &str| Surroundings {
            python: python.into(),
            threads: Some(threads),
            ..Surroundings::default()
        };
        let mut plain = Vec::new();
        let mut version = String::new();
        let (mut embedded, mut ours, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut stored = Stored::default();
        for _ in 0..size.rounds() {
            embedded.push(course(&library, EngineChoice::Embedded, &around(""))?.0);
            stored.embedded.push(course(&library, EngineChoice::Embedded, &nothing(around("")))?);
            let Some(python) = &python else { continue };
            let (rate, waited) = course(&library, EngineChoice::Torch, &around(python))?;
            ours.push(rate);
            waiting.push(waited);
            stored.torch.push(course(&library, EngineChoice::Torch, &nothing(around(python)))?);
            if !size.no_peers {
                let (name, rate) = plain_loop(folder.path(), python, threads)?;
                version = name;
                plain.push(rate);
            }
        }
        let peer = (!plain.is_empty()).then(|| Peer {
            name: format!("PyTorch {version}, plain loop"),
            value: median(&plain),
        });
        let what = |engine: &str| {
            format!("U-Net {SIDE} × {SIDE}, batch {BATCH}, {engine}, {threads} threads")
        };
        rows.push(
            Row::new(what("embedded engine"), "slices/s", median(&embedded))
                .peer(peer.clone())
                .goal(Goal::TimesPeer(EMBEDDED_OF_PLAIN)),
        );
        if !ours.is_empty() {
            rows.push(
                Row::new(what("engine of PyTorch"), "slices/s", median(&ours))
                    .peer(peer)
                    .goal(Goal::TimesPeer(OF_PLAIN)),
            );
            rows.push(
                Row::new(what("engine of PyTorch, waiting for images"), "%", median(&waiting))
                    .goal(Goal::AtMost(WAITING_PERCENT)),
            );
        }
        rows.extend(stored.rows(&what, (median(&embedded), &ours)));
    }
    if let Some(python) = &python {
        let ranks = |count| -> Result<f64> {
            let rounds = (0..size.rounds()).map(|_| gang(&library, python, count));
            Ok(median(&rounds.collect::<Result<Vec<_>>>()?))
        };
        let (one, all) = (ranks(1)?, ranks(cores())?);
        let what = format!("engine of PyTorch, {} ranks of one thread", cores());
        rows.push(Row::new(what, "slices/s", all).limit(one * cores() as f64));
    }
    Ok(rows)
}

/// The same, but that no sample is held in memory.
fn nothing(around: Surroundings) -> Surroundings {
    let data = DataRoom { memory_bytes: Some(0), ..DataRoom::default() };
    Surroundings { data, ..around }
}

/// What trainings from shards tell: slices a second, and the percentage of waiting.
#[derive(Default)]
struct Stored {
    embedded: Vec<(f64, f64)>,
    torch: Vec<(f64, f64)>,
}

impl Stored {
    /// Beside those of the same engines from memory.
    fn rows(&self, what: &dyn Fn(&str) -> String, held: (f64, &[f64])) -> Vec<Row> {
        let of = |all: &[(f64, f64)]| {
            let (rates, waits): (Vec<f64>, Vec<f64>) = all.iter().copied().unzip();
            (median(&rates), median(&waits))
        };
        let mut rows = Vec::new();
        let mut add = |engine: &str, all: &[(f64, f64)], held: f64| {
            let (rate, waited) = of(all);
            let peer = Peer { name: "the same from memory".into(), value: held };
            let name = format!("{engine}, from shards");
            rows.push(Row::new(what(&name), "slices/s", rate).peer(Some(peer)));
            let row = Row::new(format!("{}, waiting for images", what(&name)), "%", waited);
            rows.push(row.goal(Goal::AtMost(WAITING_PERCENT)));
        };
        add("embedded engine", &self.embedded, held.0);
        if !self.torch.is_empty() {
            add("engine of PyTorch", &self.torch, median(held.1));
        }
        rows
    }
}

/// What a training tells of its speed.
#[derive(Default)]
struct Speed {
    rates: Vec<f64>,
    waiting: Vec<f64>,
}

impl RunSink for Speed {
    fn metric(&mut self, name: &str, value: f64, _: u64) {
        match name {
            "images_per_second" => self.rates.push(value),
            "waiting_percent" => self.waiting.push(value),
            _ => {}
        }
    }

    fn progress(&mut self, _: u64, _: u64) {}
}

/// Trains and gives slices a second and the percentage of waiting, of the epochs after the first.
fn course(library: &Library, engine: EngineChoice, around: &Surroundings) -> Result<(f64, f64)> {
    let settings = TrainSettings {
        epochs: EPOCHS,
        batch_size: BATCH,
        input_size: SIDE,
        base_channels: CHANNELS,
        precision: Precision::Fp32,
        validation_percent: 0,
        engine,
        ..TrainSettings::default()
    };
    // Its run is of this call alone; the first rank removes it.
    let run = around.rank.as_ref().map_or("alone".to_owned(), |rank| format!("port-{}", rank.port));
    let run = library.run_folder(&run)?;
    let mut speed = Speed::default();
    // The embedded engine's threads are those of whoever calls it.
    let threads =
        rayon::ThreadPoolBuilder::new().num_threads(around.threads.unwrap_or(0)).build()?;
    let outcome = threads
        .install(|| train(library, &settings, &run, around, &mut speed, &AtomicBool::new(false)))?;
    if matches!(outcome, RunOutcome::Finished { .. }) {
        std::fs::remove_dir_all(&run)?;
    }
    ensure!(speed.rates.len() == EPOCHS as usize, "{} epochs told their speed", speed.rates.len());
    Ok((median(&speed.rates[1..]), median(&speed.waiting[1..])))
}

/// Slices a second of so many ranks together, one thread each.
fn gang(library: &Library, python: &str, count: usize) -> Result<f64> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let one = |number| -> Result<f64> {
        let rank = Rank { number, of: count, address: "127.0.0.1".into(), port };
        let around = Surroundings {
            python: python.into(),
            threads: Some(1),
            rank: Some(rank),
            ..Surroundings::default()
        };
        Ok(course(library, EngineChoice::Torch, &around)?.0)
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..count).map(|number| scope.spawn(move || one(number))).collect();
        ranks
            .into_iter()
            .map(|rank| rank.join().unwrap_or_else(|_| anyhow::bail!("a rank panicked")))
            .sum()
    })
}

fn plain_loop(folder: &Path, python: &str, threads: usize) -> Result<(String, f64)> {
    std::fs::write(folder.join("networks.py"), NETWORKS)?;
    let program = folder.join("plain.py");
    std::fs::write(&program, PLAIN)?;
    let steps = PATIENTS as usize * SLICES / BATCH as usize * (EPOCHS as usize - 1);
    let arguments = [SIDE, BATCH as usize, CHANNELS, threads, steps].map(|one| one.to_string());
    let output = Command::new(python).arg(&program).args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (version, rate) = text.trim().split_once(' ').with_context(|| {
        format!("the plain loop failed: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok((version.to_owned(), rate.parse()?))
}

/// A library with phantoms.
fn library(folder: &Path, patients: u32) -> Result<Library> {
    let library = Library::open_or_create(&folder.join("library"))?;
    let settings = PhantomSettings {
        size: [SIDE, SIDE, SLICES],
        spacing_mm: [5.25, 5.25, 4.0],
        ..PhantomSettings::default()
    };
    for number in 0..patients {
        let one = patient(number + 1, &settings);
        shelf::add(&library, number, ("CT", "lungs"), &one.image, &one.lungs)?;
    }
    Ok(library)
}
