//! `predict`: how long a model takes to predict, beside `PyTorch` (eager) and ONNX Runtime.
//!
//! All compute the same U-Net with the same weights: ours from the library, the others from the files
//! that `gantry model export` writes. What they are held against each other with is the bare network
//! on the same numbers; that they say the same is looked at, too. Beside it is what a whole prediction
//! of an image takes, with its grid, its scale and its mask. The Pythons are `GANTRY_TORCH_PYTHON`, or
//! python3, and the one of `--python` for ONNX Runtime.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_learning::{
    EngineChoice, Predictor, RunOutcome, RunSink, Surroundings, TrainSettings, export_model, train,
};
use gantry_library::Library;
use gantry_tests::torch;

use crate::Size;
use crate::report::{Goal, Peer, Row};
use crate::shelf;
use crate::statistics::{cores, median, milliseconds, quantile};

const SIDE: usize = 64;
const CHANNELS: usize = 8;
const SLICES: usize = 48;
/// Patches at once: one, as a service that answers at once has them, and as many as a prediction takes.
const BATCHES: [usize; 2] = [1, 8];
/// Predictions of a round, of which the quantiles are taken.
const PREDICTIONS: u32 = 100;
/// How far answers may be apart, in parts of the largest number.
const APART_MAX: f64 = 1e-3;

const NETWORK: &str = include_str!("../../../../kernels/learning/torch/network.py");
/// Each prints its version, the milliseconds of the median and of the hundredth slowest, and how far
/// its logits are from ours.
const TORCH: &str = "
import sys, time, numpy, torch
from network import load
folder, batch, side, threads, count = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
network = load(folder + '/weights.safetensors')
def ask(images):
    with torch.inference_mode():
        return network(torch.from_numpy(images))[0].numpy()
version = 'PyTorch ' + torch.__version__ + ', eager'
";
const ONNX: &str = "
import sys, time, numpy, onnxruntime
folder, batch, side, threads, count = sys.argv[1], *map(int, sys.argv[2:])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(
    folder + '/model.onnx', options, providers=['CPUExecutionProvider'])
def ask(images):
    return session.run(['logits'], {'image': images})[0]
version = 'ONNX Runtime ' + onnxruntime.__version__
";
const REST: &str = "
images = numpy.fromfile(folder + '/images', dtype='<f4').reshape(batch, 1, side, side)
ours = numpy.fromfile(folder + '/logits', dtype='<f4')
for _ in range(5):
    found = ask(images)
apart = numpy.abs(found.reshape(-1) - ours).max() / numpy.abs(ours).max()
times = []
for _ in range(count):
    begun = time.perf_counter()
    ask(images)
    times.append((time.perf_counter() - begun) * 1e3)
times.sort()
print(version, times[count // 2], times[count * 99 // 100], apart, sep='\\t')
";

/// The quantiles of rounds, in milliseconds.
#[derive(Default)]
struct Times {
    name: String,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Times {
    fn take(&mut self, round: &[f64]) {
        self.p50.push(median(round));
        self.p99.push(quantile(round, 990));
    }

    fn peer(&self, of: impl Fn(&Self) -> f64) -> Option<Peer> {
        let there = !self.p50.is_empty();
        there.then(|| Peer { name: self.name.clone(), value: of(self) })
    }

    fn p50(&self) -> f64 {
        median(&self.p50)
    }

    fn p99(&self) -> f64 {
        median(&self.p99)
    }
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let library = Library::open_or_create(&folder.path().join("library"))?;
    let model = model(&library)?;
    let predictor = Predictor::load(&library, &model)?;
    let exported = folder.path().join("exported");
    export_model(&library, &model, &exported)?;
    std::fs::write(exported.join("network.py"), NETWORK)?;
    let count = size.count.unwrap_or(PREDICTIONS).max(1);
    let python = torch("PyTorch beside a prediction").filter(|_| !size.no_peers);
    let mut rows = Vec::new();
    let mut threads: Vec<usize> = vec![1, cores()];
    threads.dedup();
    for threads in threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for batch in BATCHES {
            let images = numbers(batch * SIDE * SIDE);
            let logits = predictor.answer(&images)?.logits;
            put(&exported.join("images"), &images)?;
            put(&exported.join("logits"), &logits)?;
            let (mut ours, mut eager, mut onnx) = <(Times, Times, Times)>::default();
            for _ in 0..size.rounds() {
                ours.take(&times(count, || {
                    pool.install(|| predictor.answer(&images))?;
                    Ok(())
                })?);
                let asked = Asked { folder: &exported, batch, threads, count };
                if let Some(python) = &python {
                    asked.of(python, TORCH, &mut eager)?;
                }
                if let Some(python) = size.python.as_ref().filter(|_| !size.no_peers) {
                    asked.of(python, ONNX, &mut onnx)?;
                }
            }
            let what = format!("U-Net {SIDE} × {SIDE}, batch {batch}, {threads} threads");
            let row = |which: &str, value| Row::new(format!("{what}, {which}"), "ms", value);
            let rate = |times: &Times| batch as f64 * 1e3 / times.p50();
            rows.extend([
                row("p50", ours.p50()).peer(eager.peer(Times::p50)).goal(Goal::AtMostPeer),
                row("p99", ours.p99()).peer(eager.peer(Times::p99)),
                Row::new(what.clone(), "slices/s", rate(&ours)).peer(eager.peer(rate)),
                row("p50", ours.p50()).peer(onnx.peer(Times::p50)),
                row("p99", ours.p99()).peer(onnx.peer(Times::p99)),
            ]);
        }
        rows.push(whole(&predictor, &pool, size.rounds(), count.min(20))?);
    }
    Ok(rows)
}

/// A whole prediction of an image that lies in memory.
fn whole(
    predictor: &Predictor,
    pool: &rayon::ThreadPool,
    rounds: usize,
    count: u32,
) -> Result<Row> {
    let image = patient(77, &settings()).image;
    let mut all = Times::default();
    for _ in 0..rounds {
        all.take(&times(count, || {
            pool.install(|| predictor.predict(&image))?;
            Ok(())
        })?);
    }
    let threads = pool.current_num_threads();
    let what =
        format!("whole prediction of {SLICES} slices, {threads} threads ({:.1} ms)", all.p50());
    Ok(Row::new(what, "slices/s", SLICES as f64 * 1e3 / all.p50()))
}

/// How long something takes each time, after a few that do not count.
fn times(count: u32, mut what: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    for _ in 0..5.min(count) {
        what()?;
    }
    let mut all = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        what()?;
        all.push(milliseconds(start.elapsed()));
    }
    Ok(all)
}

/// What a peer is asked.
struct Asked<'a> {
    folder: &'a Path,
    batch: usize,
    threads: usize,
    count: u32,
}

impl Asked<'_> {
    /// Adds a round of a peer, where its packages are there.
    fn of(&self, python: &Path, begin: &str, to: &mut Times) -> Result<()> {
        let imports = begin.lines().find(|line| line.starts_with("import")).unwrap_or_default();
        let look = Command::new(python).args(["-c", imports]).output();
        if !look.is_ok_and(|look| look.status.success()) {
            return Ok(());
        }
        let program = self.folder.join("peer.py");
        std::fs::write(&program, format!("{begin}{REST}"))?;
        let sizes = [self.batch, SIDE, self.threads, self.count as usize];
        let output = Command::new(python)
            .env("OMP_NUM_THREADS", self.threads.to_string())
            .arg(&program)
            .arg(self.folder)
            .args(sizes.map(|one| one.to_string()))
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said: Vec<&str> = text.trim().split('\t').collect();
        let [name, p50, p99, apart] = said[..] else {
            anyhow::bail!("a peer failed: {}", String::from_utf8_lossy(&output.stderr));
        };
        let number = |text: &str| text.parse::<f64>().context("a number of a peer");
        ensure!(number(apart)? < APART_MAX, "{name} answers {apart} apart from ours");
        name.clone_into(&mut to.name);
        to.p50.push(number(p50)?);
        to.p99.push(number(p99)?);
        Ok(())
    }
}

fn put(path: &Path, numbers: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|one| one.to_le_bytes()).collect();
    Ok(std::fs::write(path, bytes)?)
}

/// Numbers from -2 to 2 that look random.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 3_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn settings() -> PhantomSettings {
    PhantomSettings {
        size: [SIDE, SIDE, SLICES],
        spacing_mm: [5.25, 5.25, 4.0],
        ..PhantomSettings::default()
    }
}

/// Tells nobody.
struct Deaf;

impl RunSink for Deaf {
    fn metric(&mut self, _: &str, _: f64, _: u64) {}
    fn progress(&mut self, _: u64, _: u64) {}
}

/// Trains a model, for an epoch: how well it predicts changes nothing of how long it takes.
fn model(library: &Library) -> Result<String> {
    let one = patient(1, &PhantomSettings { size: [SIDE, SIDE, 8], ..settings() });
    shelf::add(library, 1, ("CT", "lungs"), &one.image, &one.lungs)?;
    let settings = TrainSettings {
        epochs: 1,
        input_size: SIDE,
        base_channels: CHANNELS,
        validation_percent: 0,
        engine: EngineChoice::Embedded,
        ..TrainSettings::default()
    };
    let (run, around) = (library.run_folder("predict")?, Surroundings::default());
    let outcome = train(library, &settings, &run, &around, &mut Deaf, &AtomicBool::new(false))?;
    let RunOutcome::Finished { model, .. } = outcome else {
        anyhow::bail!("the training did not finish");
    };
    Ok(model.to_string())
}
