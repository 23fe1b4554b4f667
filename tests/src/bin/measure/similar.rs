//! `similar`: the nearest of a million cases, by an exact search, beside `NumPy`'s and a read of the
//! same memory.
//!
//! Embeddings are as wide as those of the usual U-Net, and lie in memory on both sides: `NumPy`
//! multiplies all of them by the one that is looked for and takes the best. The machine's limit is the
//! sum of the same numbers by as many threads as there are cores, which is a read of all of them.
//! The peer needs `--python`, a Python with numpy.
//!
//! A library of fewer predictions is asked as a command asks it, which knows nothing yet: before there is
//! an index, with it, and as often as a service asks that has asked before. Reading every record is what
//! the index saves.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gantry_library::{
    Cases, Library, ModelDraft, ModelId, PatientKey, PredictionDraft, SeriesId, at_once,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Size;
use crate::library::series;
use crate::report::{Goal, Peer, Row};
use crate::statistics::{cores, median, milliseconds, quantile};

const CASES: u32 = 1_000_000;
const WIDTH: usize = 64;
const NEAREST: usize = 10;
/// Predictions of the library: writing them takes longer than all that is measured.
const PREDICTIONS: u32 = 5000;
/// Those that are written at once.
const WRITERS: usize = 8;
/// Searches of a round, of which the quantiles are taken.
const SEARCHES: usize = 200;
/// The goal, for a search of all of them.
const P50_MS: f64 = 20.0;

/// Prints the version and the milliseconds of the median search and of the hundredth slowest.
const NUMPY: &str = "
import sys, time, numpy
count, width, nearest, searches = map(int, sys.argv[1:])
random = numpy.random.default_rng(1)
rows = random.standard_normal((count, width), dtype=numpy.float32)
rows /= numpy.linalg.norm(rows, axis=1, keepdims=True)
times = []
for number in range(searches):
    to = rows[number * 977 % count]
    begun = time.perf_counter()
    product = rows @ to
    best = numpy.argpartition(-product, min(nearest, count - 1))[:nearest]
    best = best[numpy.argsort(-product[best])]
    times.append((time.perf_counter() - begun) * 1e3)
times.sort()
print(numpy.__version__, times[searches // 2], times[searches * 99 // 100])
";

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(CASES) as usize;
    let numbers = numbers(count * WIDTH);
    let mut cases = Cases::new(WIDTH);
    for (number, row) in numbers.chunks_exact(WIDTH).enumerate() {
        let (series, patient) = (id::<SeriesId>(number)?, id::<PatientKey>(number)?);
        ensure!(cases.add(&series, &patient, row), "a case was left out");
    }
    let nobody = id::<PatientKey>(count)?;
    let (mut middle, mut slowest, mut read) = (Vec::new(), Vec::new(), Vec::new());
    let mut peers = (Vec::new(), Vec::new());
    let mut name = String::new();
    for _ in 0..size.rounds() {
        let mut times = Vec::with_capacity(SEARCHES);
        for number in 0..SEARCHES {
            let own = number * 977 % count;
            let start = Instant::now();
            let near = cases.nearest(&numbers[own * WIDTH..][..WIDTH], &nobody, NEAREST);
            times.push(milliseconds(start.elapsed()));
            ensure!(near.first().is_some_and(|one| one.place == own), "a case is not its nearest");
        }
        middle.push(median(&times));
        slowest.push(quantile(&times, 990));
        let times: Vec<f64> = (0..SEARCHES).map(|_| read_ms(&numbers)).collect();
        read.push(median(&times));
        if let Some(python) = size.python.as_ref().filter(|_| !size.no_peers) {
            let arguments = [count, WIDTH, NEAREST, SEARCHES].map(|one| one.to_string());
            let Ok(output) = Command::new(python).args(["-c", NUMPY]).args(arguments).output()
            else {
                continue;
            };
            let text = String::from_utf8_lossy(&output.stdout);
            let said: Vec<&str> = text.split_whitespace().collect();
            let [version, p50, p99] = said[..] else {
                anyhow::bail!("NumPy failed: {}", String::from_utf8_lossy(&output.stderr));
            };
            name = format!("NumPy {version}");
            peers.0.push(p50.parse().context("a number of NumPy")?);
            peers.1.push(p99.parse().context("a number of NumPy")?);
        }
    }
    let what =
        format!("nearest {NEAREST} of {count} cases of {WIDTH} numbers, {} threads", cores());
    let peer =
        |of: &[f64]| (!of.is_empty()).then(|| Peer { name: name.clone(), value: median(of) });
    let row = |which: &str, of: &[f64]| Row::new(format!("{what}, {which}"), "ms", median(of));
    let limit = median(&read);
    let mut rows = vec![
        row("p50", &middle).peer(peer(&peers.0)).limit(limit).goal(Goal::AtMost(P50_MS)),
        row("p99", &slowest).peer(peer(&peers.1)).limit(limit),
    ];
    let predictions = size.count.unwrap_or(PREDICTIONS).clamp(NEAREST as u32, PREDICTIONS);
    rows.extend(of_library(size, predictions, &numbers)?);
    Ok(rows)
}

/// A library of so many predictions, with these numbers as their embeddings.
fn of_library(size: &Size, count: u32, numbers: &[f32]) -> Result<Vec<Row>> {
    let folder = TempDir::new()?;
    let library = Library::create(folder.path())?;
    let all = predict(&library, count, numbers)?;
    let search = |library: &Library, number: usize| -> Result<f64> {
        let start = Instant::now();
        let own = library.prediction_of(&all[number * 977 % all.len()])?;
        let near = library.nearest(&own, NEAREST)?;
        let taken = milliseconds(start.elapsed());
        ensure!(near.len() == NEAREST.min(all.len() - 1), "{} cases were found", near.len());
        Ok(taken)
    };
    let open = || Ok::<_, anyhow::Error>(Library::open(folder.path())?);
    let (mut without, mut with, mut again, mut read) = (vec![], vec![], vec![], vec![]);
    for _ in 0..size.rounds() {
        let index = folder.path().join("index");
        if index.is_dir() {
            std::fs::remove_dir_all(index)?;
        }
        without.push(search(&open()?, 0)?);
        let asked = open()?;
        with.push(search(&asked, 1)?);
        let times = (0..SEARCHES / 10).map(|number| search(&asked, number));
        again.push(median(&times.collect::<Result<Vec<_>>>()?));
        let start = Instant::now();
        ensure!(open()?.predictions()?.len() == all.len(), "predictions are missing");
        read.push(milliseconds(start.elapsed()));
    }
    let what = format!("nearest {NEAREST} of a library of {count} predictions");
    let row = |which: &str, of: &[f64]| Row::new(format!("{what}, {which}"), "ms", median(of));
    Ok(vec![
        row("the index to be made", &without).limit(median(&read)),
        row("the index there", &with),
        row("asked before", &again),
    ])
}

/// Keeps predictions of as many series, each of another patient.
fn predict(library: &Library, count: u32, numbers: &[f32]) -> Result<Vec<SeriesId>> {
    let model: ModelId = library.publish_model(ModelDraft {
        name: "measured".into(),
        run: "measured".into(),
        weights: b"weights".to_vec(),
        metadata: Value::Null,
        metrics: Value::Null,
    })?;
    let keep = |number: &u32| {
        let series = series(library, *number)?;
        let embedding = numbers[*number as usize * WIDTH..][..WIDTH].to_vec();
        library.add_prediction(PredictionDraft {
            series: series.clone(),
            model: model.clone(),
            mask: b"a mask".to_vec(),
            segmentation: None,
            volume_ml: 1.0,
            confidence: 0.5,
            embedding,
            findings: json!({ "label": "measured", "volume_ml": 1.0 }),
        })?;
        Ok(series)
    };
    at_once(&(0..count).collect::<Vec<_>>(), WRITERS, keep)
}

/// The id of a number.
fn id<T: std::str::FromStr<Err = gantry_library::LibraryError>>(number: usize) -> Result<T> {
    Ok(format!("{number:016x}").parse()?)
}

/// Numbers from -1 to 1 that look random.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// How long reading all numbers takes, in milliseconds.
fn read_ms(numbers: &[f32]) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for share in numbers.chunks(numbers.len().div_ceil(cores())) {
            scope.spawn(|| {
                let (chunks, _) = share.as_chunks::<64>();
                let mut sums = [0_u32; 64];
                for chunk in chunks {
                    for (sum, one) in sums.iter_mut().zip(chunk) {
                        *sum = sum.wrapping_add(one.to_bits());
                    }
                }
                std::hint::black_box(sums);
            });
        }
    });
    milliseconds(start.elapsed())
}
