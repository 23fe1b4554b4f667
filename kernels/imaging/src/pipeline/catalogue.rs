//! The table of operations: what each is called, what it reads and makes, and how its parameters
//! are read.

use super::operation::{How, Keep, Operation};
use super::parameters::{
    canny, components, connectivity, interpolation, limits, radius, seeds, sharp_gaussian, space,
    start, voxels,
};
use super::parse::Fields;
use crate::augment::Augmentation;
use crate::bias::BiasCorrection;
use crate::canny::Canny;
use crate::components::Filter;
use crate::diffusion::AnisotropicDiffusion;
use crate::distance::Side;
use crate::edge_segmentation::EdgeSegmentation;
use crate::error::ImagingError;
use crate::fast_marching::FastMarching;
use crate::flood::{Flood, Isolated, Search};
use crate::gaussian::Gaussian;
use crate::gradient::Operator;
use crate::intensity::{CtNormalisation, Window};
use crate::laplacian::ZeroCrossings;
use crate::median::Median;
use crate::neighbourhood::Space;
use crate::random_walker::RandomWalker;
use crate::region::{ConfidenceConnected, ConnectedThreshold, Limits, NeighbourhoodConnected};
use crate::reorient::Orientation;
use crate::resample::Target;
use crate::seeded::Range;
use crate::seeds::Extremum;
use crate::smooth::CurvatureFlow;
use crate::threshold::Otsu;

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
    filter("median", |f| {
        let radius_voxels = f.count("radius_voxels", Some(1), 0..=3);
        Operation::Median(Median { radius_voxels, space: space(f) })
    }),
    filter("curvature_flow", |f| {
        let default = CurvatureFlow::default();
        Operation::CurvatureFlow(CurvatureFlow {
            time_step: f.number("time_step", Some(default.time_step), 1e-9..=1000.0),
            iterations: f.count("iterations", Some(default.iterations), 0..=1000),
        })
    }),
    filter("anisotropic_diffusion", |f| {
        let default = AnisotropicDiffusion::default();
        Operation::AnisotropicDiffusion(AnisotropicDiffusion {
            time_step: f.number("time_step", Some(default.time_step), 1e-9..=1000.0),
            conductance: f.number("conductance", Some(default.conductance), 1e-6..=1e6),
            iterations: f.count("iterations", Some(default.iterations), 0..=1000),
        })
    }),
    filter("bias_correction", |f| {
        let default = BiasCorrection::default();
        Operation::BiasCorrection(BiasCorrection {
            levels: f.count("levels", Some(default.levels), 1..=10),
            iterations: f.count("iterations", Some(default.iterations), 0..=1000),
            shrink: f.count("shrink", Some(default.shrink), 1..=64),
            ..default
        })
    })
    .and_mask(),
    filter("sobel", |f| Operation::Gradient { operator: Operator::Sobel, space: space(f) }),
    filter("scharr", |f| Operation::Gradient { operator: Operator::Scharr, space: space(f) }),
    filter("prewitt", |f| Operation::Gradient { operator: Operator::Prewitt, space: space(f) }),
    filter("laplacian", |f| Operation::Laplacian(sharp_gaussian(f))),
    filter("resample", |f| {
        if f.has("size") {
            f.exclude("spacing_mm", "size");
            let size = f.triple("size").map(|voxels| voxels.max(0.0) as usize);
            return Operation::Resample {
                target: Target::Size(size),
                interpolation: interpolation(f),
            };
        }
        let target = Target::SpacingMm(f.triple("spacing_mm"));
        Operation::Resample { target, interpolation: interpolation(f) }
    }),
    filter("reorient", |f| {
        let to = f.text("to", Some("LPS")).parse().unwrap_or_else(|error: ImagingError| {
            f.fail_at("to", error.to_string());
            Orientation::LPS
        });
        Operation::Reorient(to)
    }),
    filter("crop", |f| Operation::Crop { margin_mm: f.number("margin_mm", Some(0.0), 0.0..=1e4) })
        .and_mask(),
    filter("crop_to_body", |f| {
        let at_least = f.number("at_least", Some(-400.0), -1e9..=1e9) as f32;
        Operation::CropToBody { at_least, margin_mm: f.number("margin_mm", Some(0.0), 0.0..=1e4) }
    }),
    filter("augment", |f| {
        let default = Augmentation::default();
        Operation::Augment {
            seed: f.count("seed", None, 0..=usize::MAX / 2) as u64,
            parameters: Augmentation {
                rotate_degrees: f.number(
                    "rotate_degrees",
                    Some(default.rotate_degrees),
                    0.0..=180.0,
                ),
                scale: f.number("scale", Some(default.scale), 0.0..=0.9),
                mirror: f.number("mirror", Some(default.mirror), 0.0..=1.0),
                noise: f.number("noise", Some(default.noise), 0.0..=1.0),
                blur_mm: f.number("blur_mm", Some(default.blur_mm), 0.0..=1000.0),
                brightness: f.number("brightness", Some(default.brightness), 0.0..=0.9),
                gamma: f.number("gamma", Some(default.gamma), 0.0..=0.9),
            },
        }
    }),
    filter("rescale", |f| {
        let slope = f.number("slope", Some(1.0), -1e9..=1e9);
        Operation::Rescale { slope, intercept: f.number("intercept", Some(0.0), -1e9..=1e9) }
    }),
    filter("sigmoid", |f| {
        let centre = f.number("centre", None, -1e9..=1e9);
        Operation::Sigmoid { centre, width: f.number("width", None, -1e9..=1e9) }
    }),
    filter("window", |f| {
        if f.has("preset") {
            f.exclude("centre", "preset");
            f.exclude("width", "preset");
            return Operation::Window(f.choice("preset", None, &Window::PRESETS));
        }
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
    segment("multi_otsu", |f| Operation::MultiOtsu {
        otsu: Otsu { bins: f.count("bins", Some(128), 2..=2048), range: None },
        thresholds: f.count("thresholds", Some(2), 1..=16),
    }),
    segment("canny", |f| {
        let spaces = [("volume", Space::Volume), ("slice", Space::Slice)];
        let space = f.choice("space", Some("slice"), &spaces);
        Operation::Canny(Canny { space, ..canny(f) })
    }),
    segment("laplacian_edges", |f| {
        let contrast = f.number("contrast", Some(0.0), 0.0..=1e9) as f32;
        Operation::LaplacianEdges(ZeroCrossings { gaussian: sharp_gaussian(f), contrast })
    }),
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
    segment("flood", |f| {
        let tolerance = f.number("tolerance", None, 0.0..=1e9) as f32;
        let parameters = Flood { tolerance, connectivity: connectivity(f) };
        Operation::Flood { seeds: seeds(f), parameters }
    })
    .and_mask(),
    segment("isolated_connected", |f| {
        let (lower, upper) = limits(f);
        let tolerance = f.number("tolerance", Some(1.0), 1e-9..=1e9) as f32;
        let searches = [("upper", Search::Upper), ("lower", Search::Lower)];
        let search = f.choice("search", Some("upper"), &searches);
        let others = voxels(f, "others");
        let parameters = Isolated { lower, upper, tolerance, search };
        Operation::IsolatedConnected { seeds: seeds(f), others, parameters }
    })
    .and_mask(),
    segment("fast_marching", |f| {
        let parameters = FastMarching { stop: f.number("stop", None, 0.0..=1e12) };
        Operation::FastMarching { seeds: seeds(f), parameters }
    })
    .and_mask(),
    segment("watershed", |f| Operation::Watershed {
        start: start(f),
        connectivity: connectivity(f),
    })
    .and_mask(),
    segment("random_walker", |f| {
        let default = RandomWalker::default();
        let parameters = RandomWalker {
            beta: f.number("beta", Some(default.beta), 0.0..=1e12),
            tolerance: f.number("tolerance", Some(default.tolerance), 1e-12..=0.5),
        };
        Operation::RandomWalker { start: start(f), parameters }
    })
    .and_mask(),
    segment("local_extrema", |f| {
        let extrema = [("minima", Extremum::Minima), ("maxima", Extremum::Maxima)];
        let which = f.choice("which", Some("minima"), &extrema);
        Operation::LocalExtrema { which, connectivity: connectivity(f) }
    }),
    segment("grid_seeds", |f| Operation::GridSeeds {
        every_mm: f.number("every_mm", None, 1e-3..=1e6),
    }),
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
    Signature {
        makes: Image,
        ..refine("distance", |f| {
            let sides =
                [("inside", Side::Inside), ("outside", Side::Outside), ("signed", Side::Signed)];
            let side = f.choice("side", Some("inside"), &sides);
            Operation::Distance { side, space: space(f) }
        })
    },
    refine("surface", |_| Operation::Surface),
    refine("numbered", |f| Operation::Numbered(connectivity(f))),
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
