//! A library to look at: a few series, samples, models, predictions and files set aside, and a
//! phantom for every image.

use std::sync::{Arc, OnceLock};

use gantry::app::image::{Marks, runs_of};
use gantry::app::library::{
    AsideLine, Case, Growing, Kind, LabelLine, Listing, ModelLine, Opened, PredictionLine,
    SampleLine, SeriesLine, THUMBNAIL, Thumbnail, Told, WaitingLine, Wish,
};
use gantry_imaging::flood::{Flood, flood};
use gantry_imaging::neighbourhood::Connectivity;
use gantry_imaging::phantom::{PhantomPatient, PhantomSettings, patient};
use gantry_library::LabelState;
use gantry_wire::{Metric, Point};

/// A day before the pictures, at noon.
const MADE: u64 = 19_999 * 86_400_000 + 43_200_000;

fn phantom() -> &'static PhantomPatient {
    static PHANTOM: OnceLock<PhantomPatient> = OnceLock::new();
    PHANTOM.get_or_init(|| patient(3, &PhantomSettings::default()))
}

fn opened(label: &str, modality: &str) -> Arc<Opened> {
    static CT: OnceLock<Arc<Opened>> = OnceLock::new();
    let of = |label: &str| {
        Arc::new(Opened {
            image: phantom().image.clone(),
            series: "5e71e5000001".into(),
            modality: modality.into(),
            label: label.into(),
            range: (-1000.0, 400.0),
        })
    };
    if label == "lungs" { Arc::clone(CT.get_or_init(|| of(label))) } else { of(label) }
}

/// What a librarian would tell.
pub(crate) fn told(wish: &Wish) -> Vec<Told> {
    match wish {
        Wish::Look => vec![Told::Listing(Arc::new(listing()))],
        Wish::Open { subject, number, deidentified: true } if subject.kind == Kind::Series => {
            let why = "series 5e71e5000001 was not de-identified (0012,0062 does not say YES)";
            vec![Told::Failed(*number, why.into())]
        }
        Wish::Open { subject, number, .. } => {
            let coming = Told::Coming(*number, "reading image 1 of 24".into());
            let label = if subject.kind == Kind::Series { "" } else { "lungs" };
            let marks = (subject.kind != Kind::Series)
                .then(|| Box::new(Marks::of(&phantom().lungs.voxels)));
            vec![coming, Told::Open(*number, opened(label, "CT"), marks)]
        }
        Wish::Grow { number, seed, how } => {
            let Growing::Tolerance(by) = how else { return Vec::new() };
            let tolerance = f32::from(*by);
            let parameters = Flood { tolerance, connectivity: Connectivity::Face };
            let mask = flood(&phantom().image, &[*seed], &parameters).unwrap();
            let centre = *phantom().image.at(seed[0], seed[1], seed[2]);
            let limits = (centre - tolerance, centre + tolerance);
            vec![Told::Grown(*number, runs_of(&mask.voxels), limits, 12_345)]
        }
        Wish::Near(id) => vec![Told::Near(id.clone(), cases())],
        Wish::Close | Wish::Do(_) => Vec::new(),
    }
}

fn cases() -> Vec<Case> {
    let thumbnail = |n: usize| Thumbnail {
        size: [THUMBNAIL; 2],
        greys: (0..THUMBNAIL * THUMBNAIL)
            .map(|at| (at % THUMBNAIL * 5 + at / THUMBNAIL * n % 40) as u8)
            .collect(),
    };
    (1..=3)
        .map(|n| Case {
            series: format!("5e71e500000{n}"),
            distance: n as f32 * 0.021,
            findings: format!("lungs, {}00.5 ml", 20 + n),
            thumbnail: if n < 3 { Ok(thumbnail(n)) } else { Err("it has no images".into()) },
        })
        .collect()
}

/// What it holds.
pub(crate) fn listing() -> Listing {
    let series = |n: u64| SeriesLine {
        id: format!("5e71e500000{n}"),
        patient: format!("9a71e4700000{n}"),
        modality: if n == 4 { "MR" } else { "CT" }.into(),
        instances: 60 * n,
        conflicts: u64::from(n == 2),
        samples: u32::from(n < 4),
        at_ms: MADE - n * 3_600_000,
    };
    let sample = |n: u64, author: Option<&str>, confidence: Option<f32>| SampleLine {
        id: format!("5a3b1e00000{n}"),
        series: format!("5e71e500000{n}"),
        label: if n == 3 { "liver" } else { "lungs" }.into(),
        side: ["train", "validation", "train", "-"][n as usize % 4],
        author: author.map(str::to_owned),
        state: match (n, author) {
            (5, _) => LabelState::Rejected,
            (_, Some(_)) => LabelState::Corrected,
            (_, None) => LabelState::Auto,
        },
        rejected: (n == 5).then(|| "the table is marked".into()),
        volume_ml: 3412.5 - n as f64 * 100.0,
        size: [512, 512, 60 * n as usize],
        confidence,
        at_ms: MADE - n * 60_000,
    };
    let curve = |name: &str, low: f64, high: f64| Metric {
        name: name.into(),
        points: (1..=24)
            .map(|epoch| {
                let part = 1.0 - (-(epoch as f64) / 6.0).exp();
                Point::new(epoch, low + (high - low) * part)
            })
            .collect(),
    };
    let model = |n: u64, stage: &'static str, dice: f64| ModelLine {
        id: format!("30de1000000{n}"),
        name: format!("lungs-{n}"),
        run: format!("run-{n}"),
        stage,
        dice: Some(dice),
        curves: vec![curve("loss", 1.2, 0.1 * n as f64), curve("validation_dice", 0.2, dice)],
        predictions: n as u32,
        at_ms: MADE - n * 7_200_000,
    };
    let prediction = |n: u64, confidence: f32| PredictionLine {
        id: format!("94ed1c70000{n}"),
        series: format!("5e71e500000{n}"),
        model: "30de10000001".into(),
        name: "lungs-1".into(),
        stage: "approved",
        volume_ml: 3300.0 + n as f64,
        confidence,
        findings: format!("lungs, 330{n} ml"),
        at_ms: MADE - n * 1000,
    };
    let aside = |n: u64, reason: &str, sentence: &str| AsideLine {
        id: format!("a51de000000{n}"),
        reason: reason.into(),
        sentence: sentence.into(),
        bytes: 1500 * n,
        at_ms: MADE - n * 10_000,
    };
    let waiting = |(series, sample): (u64, Option<u64>)| WaitingLine {
        series: format!("5e71e500000{series}"),
        sample: sample.map(|sample| format!("5a3b1e00000{sample}")),
    };
    let label = |label: &str, counts, sides| LabelLine { label: label.into(), counts, sides };
    Listing {
        series: (1..=4).map(series).collect(),
        samples: vec![
            sample(1, None, Some(0.91)),
            sample(2, Some("ct-lab"), Some(0.62)),
            sample(3, None, None),
            sample(4, None, Some(0.55)),
            sample(5, None, Some(0.40)),
        ],
        labels: vec![
            label("liver", [1, 0, 0, 1], [1, 0, 0]),
            label("lungs", [4, 1, 1, 3], [2, 1, 0]),
        ],
        models: vec![
            model(1, "approved", 0.93),
            model(2, "candidate", 0.89),
            model(3, "retired", 0.71),
        ],
        predictions: vec![prediction(1, 0.91), prediction(2, 0.62), prediction(4, 0.55)],
        asides: vec![
            aside(1, "no-pixels", "the file has no pixel data, so there is nothing to see"),
            aside(2, "not-dicom", "it has no preamble"),
            aside(3, "no-pixels", "the file has no pixel data, so there is nothing to see"),
        ],
        reasons: vec![("no-pixels".into(), 2), ("not-dicom".into(), 1)],
        // The least sure first; 2 was corrected, and of 5 nothing is left but what was rejected.
        waiting: [(4, Some(4)), (5, None), (1, Some(1)), (3, Some(3))].map(waiting).to_vec(),
        waits: 4,
        left_out: 0,
        trouble: None,
    }
}
