//! The operations that a pipeline can name, their parameters, and what they read and make.

use serde::Serialize;

use super::SEEDS_MAX;
use super::parse::Fields;
use crate::components::{Border, Filter};
use crate::edge_segmentation::EdgeSegmentation;
use crate::edges::Canny;
use crate::gaussian::Gaussian;
use crate::intensity::{CtNormalisation, Window};
use crate::neighbourhood::{Connectivity, Space};
use crate::region::{
    ConfidenceConnected, ConnectedThreshold, Limits, NeighbourhoodConnected, Voxel,
};
use crate::resample::Target;
use crate::seeded::{Range, Seed};
use crate::smooth::CurvatureFlow;
use crate::threshold::Otsu;

/// An operation with its parameters.
///
/// | in a file | works on | parameters (default) |
/// |---|---|---|
/// | `gaussian` | image | `sigma_mm` (1), `space` ("volume", or "slice") |
/// | `curvature_flow` | image | `time_step` (0.0625), `iterations` (5) |
/// | `sobel` | image | `space` ("volume") |
/// | `resample` | image; the current mask follows | `spacing_mm = [x, y, z]` or `size = [x, y, z]` |
/// | `crop` | image; cut to the mask `with`, or the current one | `margin_mm` (0) |
/// | `window` | image | `centre`, `width`, in the image's units |
/// | `clip` | image | `low`, `high` |
/// | `z_score` | image, within the mask `with` if given | |
/// | `normalise_ct` | image | `low`, `high`, `mean`, `deviation` |
/// | `threshold` | image | `at_least` (−∞) ≤ value < `below` (∞); at least one of them |
/// | `otsu` | image | `bins` (128), `keep` ("above", or "below") |
/// | `canny` | image | `sigma_mm` (1), `low` (200), `high` (400) |
/// | `edge_segmentation` | image | those of `canny` and of `components`, `gap_mm` (2), `outside` |
/// | `connected_threshold` | image | `lower`, `upper`, `connectivity` ("face"), seeds |
/// | `neighbourhood_connected` | image | `lower`, `upper`, `radius_voxels` (1), seeds |
/// | `confidence_connected` | image | `multiplier` (2.5), `iterations` (4), `radius_voxels` (1), `limits` ("exact", or "whole"), seeds |
/// | `seeded_growing` | image | `connectivity` ("face"); labels as below |
/// | `components` | mask | `connectivity` ("face", "edge", "full"), `space`, `border` ("keep", "drop", `drop_sides`), `min_ml` (0), `max_ml`, `largest` (all) |
/// | `keep_largest` | mask | `connectivity` ("face") |
/// | `dilate`, `erode`, `open`, `close` | mask | `radius_voxels` (1) or `radius_mm`, `space` ("volume") |
/// | `fill_holes` | mask | `space` ("volume") |
/// | `select` | mask | `label`: the mask of this label alone |
/// | `combine` | mask and the mask `with` | `how`: "union", "intersection" or "difference" |
///
/// Seeds are `seeds = [[x, y, z], ...]`, voxels counted from 0, or all voxels of the mask `with`.
/// The labels that `seeded_growing` starts from are one of: `seeds = [[x, y, z, label], ...]`; the
/// mask `with`; `ranges = [[from, below], ...]`, which makes label 1 of the first range and so on;
/// or `otsu = true`, which makes label 1 of what is dark and 2 of what is bright. Ranges and Otsu
/// start from cores: what lies `core_voxels` (1) inside.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the table above says what each does")]
pub enum Operation {
    Gaussian(Gaussian),
    CurvatureFlow(CurvatureFlow),
    Sobel(Space),
    Resample(Target),
    Crop { margin_mm: f64 },
    Window(Window),
    Clip { low: f32, high: f32 },
    ZScore,
    NormaliseCt(CtNormalisation),
    Threshold(Range),
    Otsu { otsu: Otsu, keep: Keep },
    Canny(Canny),
    EdgeSegmentation(EdgeSegmentation),
    ConnectedThreshold { seeds: Vec<Voxel>, parameters: ConnectedThreshold },
    NeighbourhoodConnected { seeds: Vec<Voxel>, parameters: NeighbourhoodConnected },
    ConfidenceConnected { seeds: Vec<Voxel>, parameters: ConfidenceConnected },
    SeededGrowing { start: Start, connectivity: Connectivity },
    Components(Filter),
    Dilate { radius: Radius, space: Space },
    Erode { radius: Radius, space: Space },
    Open { radius: Radius, space: Space },
    Close { radius: Radius, space: Space },
    FillHoles(Space),
    Select { label: u8 },
    Combine(How),
}

/// Which side of a threshold is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// What is at least the threshold.
    Above,
    /// What is below the threshold.
    Below,
}

/// A radius of a ball.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Radius {
    /// In voxels.
    Voxels(usize),
    /// In millimetres: rounded to voxels of the spacing along x, at least one.
    Mm(f64),
}

/// Where seeded growing starts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// From seeds placed by hand.
    Seeds(Vec<Seed>),
    /// From the labels of a mask.
    Mask,
    /// From the cores of ranges of values.
    Ranges {
        /// The ranges; the first makes label 1.
        ranges: Vec<Range>,
        /// How far inside a core begins, in voxels.
        core_voxels: usize,
    },
    /// From the cores of the two sides of Otsu's threshold.
    Otsu {
        /// How far inside a core begins, in voxels.
        core_voxels: usize,
    },
}

/// How two masks are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// What is in either.
    Union,
    /// What is in both.
    Intersection,
    /// What is in the first but not in the second.
    Difference,
}

/// What a step reads first and what it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Mask,
}

/// What an operation takes and gives.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) name: &'static str,
    pub(super) reads: Kind,
    pub(super) makes: Kind,
    /// Whether it takes a second input, a mask, by `with`.
    pub(super) takes_mask: bool,
    pub(super) build: fn(&mut Fields) -> Operation,
}

use Kind::{Image, Mask};

/// All operations.
pub(super) const SIGNATURES: &[Signature] = &[
    filter("gaussian", |f| {
        Operation::Gaussian(Gaussian {
            sigma_mm: f.number("sigma_mm", Some(1.0), 0.0..=1000.0),
            space: space(f),
        })
    }),
    filter("curvature_flow", |f| {
        let default = CurvatureFlow::default();
        Operation::CurvatureFlow(CurvatureFlow {
            time_step: f.number("time_step", Some(default.time_step), 1e-9..=1000.0),
            iterations: f.count("iterations", Some(default.iterations), 0..=1000),
        })
    }),
    filter("sobel", |f| Operation::Sobel(space(f))),
    filter("resample", |f| {
        if f.has("size") {
            f.exclude("spacing_mm", "size");
            let size = f.triple("size").map(|voxels| voxels.max(0.0) as usize);
            return Operation::Resample(Target::Size(size));
        }
        Operation::Resample(Target::SpacingMm(f.triple("spacing_mm")))
    }),
    filter("crop", |f| Operation::Crop { margin_mm: f.number("margin_mm", Some(0.0), 0.0..=1e4) })
        .and_mask(),
    filter("window", |f| {
        let centre = f.number("centre", None, -1e9..=1e9);
        Operation::Window(Window { centre, width: f.number("width", None, 1.0..=1e9) })
    }),
    filter("clip", |f| {
        let low = f.number("low", None, -1e9..=1e9);
        Operation::Clip { low: low as f32, high: f.number("high", None, low..=1e9) as f32 }
    }),
    filter("z_score", |_| Operation::ZScore).and_mask(),
    filter("normalise_ct", |f| {
        let low = f.number("low", None, -1e9..=1e9);
        Operation::NormaliseCt(CtNormalisation {
            low,
            high: f.number("high", None, low..=1e9),
            mean: f.number("mean", None, -1e9..=1e9),
            deviation: f.number("deviation", None, 1e-9..=1e9),
        })
    }),
    segment("threshold", |f| {
        if !f.has("at_least") && !f.has("below") {
            f.fail("threshold needs `at_least`, `below` or both".to_owned());
        }
        let at_least = f.number("at_least", Some(f64::NEG_INFINITY), -1e9..=1e9);
        let below = f.number("below", Some(f64::INFINITY), -1e9..=1e9);
        Operation::Threshold(Range { from: at_least as f32, below: below as f32 })
    }),
    segment("otsu", |f| Operation::Otsu {
        otsu: Otsu { bins: f.count("bins", Some(128), 2..=65_536), range: None },
        keep: f.choice("keep", Some("above"), &[("above", Keep::Above), ("below", Keep::Below)]),
    }),
    segment("canny", |f| Operation::Canny(canny(f))),
    segment("edge_segmentation", |f| {
        Operation::EdgeSegmentation(EdgeSegmentation {
            canny: canny(f),
            gap_mm: f.number("gap_mm", Some(2.0), 0.0..=1000.0),
            outside: f.optional("outside").then(|| f.number("outside", None, -1e9..=1e9) as f32),
            keep: components(f),
        })
    }),
    segment("connected_threshold", |f| {
        let (lower, upper) = limits(f);
        let parameters = ConnectedThreshold { lower, upper, connectivity: connectivity(f) };
        Operation::ConnectedThreshold { seeds: seeds(f), parameters }
    })
    .and_mask(),
    segment("neighbourhood_connected", |f| {
        let (lower, upper) = limits(f);
        let radius_voxels = f.count("radius_voxels", Some(1), 0..=10);
        let parameters = NeighbourhoodConnected { lower, upper, radius_voxels };
        Operation::NeighbourhoodConnected { seeds: seeds(f), parameters }
    })
    .and_mask(),
    segment("confidence_connected", |f| {
        let default = ConfidenceConnected::default();
        let limits = [("exact", Limits::Exact), ("whole", Limits::Whole)];
        let parameters = ConfidenceConnected {
            multiplier: f.number("multiplier", Some(default.multiplier), 1e-6..=1e6),
            iterations: f.count("iterations", Some(default.iterations), 0..=100),
            radius_voxels: f.count("radius_voxels", Some(default.radius_voxels), 0..=10),
            limits: f.choice("limits", Some("exact"), &limits),
        };
        Operation::ConfidenceConnected { seeds: seeds(f), parameters }
    })
    .and_mask(),
    segment("seeded_growing", |f| Operation::SeededGrowing {
        start: start(f),
        connectivity: connectivity(f),
    })
    .and_mask(),
    refine("components", |f| Operation::Components(components(f))),
    refine("keep_largest", |f| {
        let connectivity = connectivity(f);
        Operation::Components(Filter { connectivity, largest: 1, ..Filter::default() })
    }),
    refine("dilate", |f| Operation::Dilate { radius: radius(f), space: space(f) }),
    refine("erode", |f| Operation::Erode { radius: radius(f), space: space(f) }),
    refine("open", |f| Operation::Open { radius: radius(f), space: space(f) }),
    refine("close", |f| Operation::Close { radius: radius(f), space: space(f) }),
    refine("fill_holes", |f| Operation::FillHoles(space(f))),
    refine("select", |f| Operation::Select { label: f.count("label", None, 1..=255) as u8 }),
    refine("combine", |f| {
        f.require_with("combine needs a second mask");
        let hows = [
            ("union", How::Union),
            ("intersection", How::Intersection),
            ("difference", How::Difference),
        ];
        Operation::Combine(f.choice("how", None, &hows))
    })
    .and_mask(),
];

impl Signature {
    const fn and_mask(mut self) -> Self {
        self.takes_mask = true;
        self
    }
}

type Build = fn(&mut Fields) -> Operation;

const fn filter(name: &'static str, build: Build) -> Signature {
    Signature { name, reads: Image, makes: Image, takes_mask: false, build }
}

const fn segment(name: &'static str, build: Build) -> Signature {
    Signature { name, reads: Image, makes: Mask, takes_mask: false, build }
}

const fn refine(name: &'static str, build: Build) -> Signature {
    Signature { name, reads: Mask, makes: Mask, takes_mask: false, build }
}

fn space(f: &mut Fields) -> Space {
    f.choice("space", Some("volume"), &[("volume", Space::Volume), ("slice", Space::Slice)])
}

fn connectivity(f: &mut Fields) -> Connectivity {
    let choices =
        [("face", Connectivity::Face), ("edge", Connectivity::Edge), ("full", Connectivity::Full)];
    f.choice("connectivity", Some("face"), &choices)
}

fn canny(f: &mut Fields) -> Canny {
    let default = Canny::default();
    let low = f.number("low", Some(default.low), 0.0..=1e9);
    Canny {
        sigma_mm: f.number("sigma_mm", Some(default.sigma_mm), 0.0..=1000.0),
        low,
        high: f.number("high", Some(default.high.max(low)), low..=1e9),
    }
}

fn components(f: &mut Fields) -> Filter {
    let default = Filter::default();
    let borders =
        [("keep", Border::Keep), ("drop_sides", Border::DropSides), ("drop", Border::Drop)];
    Filter {
        connectivity: connectivity(f),
        space: space(f),
        border: f.choice("border", Some("keep"), &borders),
        min_ml: f.number("min_ml", Some(default.min_ml), 0.0..=1e9),
        max_ml: f.number("max_ml", Some(default.max_ml), 0.0..=1e9),
        largest: f.count("largest", Some(default.largest), 1..=1_000_000),
    }
}

fn limits(f: &mut Fields) -> (f32, f32) {
    let lower = f.number("lower", None, -1e9..=1e9);
    (lower as f32, f.number("upper", None, lower..=1e9) as f32)
}

fn radius(f: &mut Fields) -> Radius {
    if f.has("radius_mm") {
        f.exclude("radius_voxels", "radius_mm");
        return Radius::Mm(f.number("radius_mm", None, 0.0..=1000.0));
    }
    Radius::Voxels(f.count("radius_voxels", Some(1), 0..=20))
}

/// Reads seeds as `[[x, y, z], ...]`; there are none where a mask gives them.
fn seeds(f: &mut Fields) -> Vec<Voxel> {
    if f.has_with() {
        f.exclude("seeds", "with");
        return Vec::new();
    }
    let rows = f.rows("seeds", 3, SEEDS_MAX);
    rows.iter().map(|row| [0, 1, 2].map(|k| f.voxel("seeds", row[k]))).collect()
}

fn start(f: &mut Fields) -> Start {
    let given = [f.has_with(), f.has("seeds"), f.has("ranges"), f.has("otsu")];
    if given.iter().filter(|&&given| given).count() != 1 {
        f.fail(
            "seeded_growing starts from one of `seeds`, `ranges`, `otsu = true` and `with`; give \
             exactly one"
                .to_owned(),
        );
        f.accept(&["seeds", "ranges", "otsu", "core_voxels"]);
        return Start::Mask;
    }
    if given[1] {
        let rows = f.rows("seeds", 4, SEEDS_MAX);
        let mut seed = |row: &Vec<f64>| Seed {
            voxel: [0, 1, 2].map(|k| f.voxel("seeds", row[k])),
            label: f.voxel("seeds", row[3]).clamp(1, 254) as u8,
        };
        return Start::Seeds(rows.iter().map(&mut seed).collect());
    }
    if given[2] {
        let rows = f.rows("ranges", 2, 254);
        let ranges = rows.iter().map(|row| Range { from: row[0] as f32, below: row[1] as f32 });
        let ranges = ranges.collect();
        return Start::Ranges { ranges, core_voxels: f.count("core_voxels", Some(1), 0..=20) };
    }
    if given[3] {
        f.choice("otsu", None, &[("true", ())]);
        return Start::Otsu { core_voxels: f.count("core_voxels", Some(1), 0..=20) };
    }
    Start::Mask
}
