//! The operations that a pipeline can name, and their parameters.

use serde::Serialize;

use crate::augment::Augmentation;
use crate::bias::BiasCorrection;
use crate::canny::Canny;
use crate::components::Filter;
use crate::diffusion::AnisotropicDiffusion;
use crate::distance::Side;
use crate::edge_segmentation::EdgeSegmentation;
use crate::fast_marching::FastMarching;
use crate::flood::{Flood, Isolated};
use crate::gaussian::Gaussian;
use crate::gradient::Operator;
use crate::intensity::{CtNormalisation, Window};
use crate::laplacian::ZeroCrossings;
use crate::median::Median;
use crate::neighbourhood::{Connectivity, Space};
use crate::random_walker::RandomWalker;
use crate::region::{ConfidenceConnected, ConnectedThreshold, NeighbourhoodConnected, Voxel};
use crate::reorient::Orientation;
use crate::resample::Target;
use crate::seeded::{Range, Seed};
use crate::seeds::Extremum;
use crate::smooth::CurvatureFlow;
use crate::threshold::Otsu;

/// An operation with its parameters.
///
/// | in a file | works on | parameters (default) |
/// |---|---|---|
/// | `gaussian` | image | `sigma_mm` (1), `space` ("volume", or "slice") |
/// | `median` | image | `radius_voxels` (1), `space` |
/// | `curvature_flow` | image | `time_step` (0.0625), `iterations` (5) |
/// | `anisotropic_diffusion` | image | `time_step` (0.0625), `conductance` (3), `iterations` (5) |
/// | `bias_correction` | image, within the mask `with` if given | `levels` (4), `iterations` (50), `shrink` (4) |
/// | `sobel`, `scharr`, `prewitt` | image | `space` ("volume") |
/// | `laplacian` | image | `sigma_mm` (1), `space` ("volume") |
/// | `resample` | image; the current mask follows | `spacing_mm = [x, y, z]` or `size = [x, y, z]`, `interpolation` ("linear", or "spline") |
/// | `reorient` | image; the current mask follows | `to` ("LPS") |
/// | `crop` | image; cut to the mask `with`, or the current one | `margin_mm` (0) |
/// | `crop_to_body` | image; the current mask follows | `at_least` (−400), `margin_mm` (0) |
/// | `augment` | image; the current mask follows | `seed`, and the greatest `rotate_degrees` (15), `scale` (0.2), `mirror` (0.5), `noise` (0.05), `blur_mm` (1), `brightness` (0.2), `gamma` (0.3) |
/// | `window` | image | `centre`, `width`, in the image's units; or `preset`: "lung", `soft_tissue`, "bone", "mediastinum", "liver", "brain", "stroke", "angiography" |
/// | `rescale` | image | `slope` (1), `intercept` (0) |
/// | `sigmoid` | image | `centre`, `width`, in the image's units |
/// | `clip` | image | `low`, `high` |
/// | `z_score` | image, within the mask `with` if given | |
/// | `normalise_ct` | image | `low`, `high`, `mean`, `deviation` |
/// | `threshold` | image | `at_least` (−∞) ≤ value < `below` (∞); at least one of them |
/// | `otsu` | image | `bins` (128), `keep` ("above", or "below") |
/// | `multi_otsu` | image | `thresholds` (2), `bins` (128): labels 0, 1, 2 from dark to bright |
/// | `canny` | image | `sigma_mm` (1), `low` (200), `high` (400), `space` ("slice") |
/// | `laplacian_edges` | image | `sigma_mm` (1), `contrast` (0), `space` ("volume") |
/// | `edge_segmentation` | image | those of `canny` and of `components`, `gap_mm` (2), `outside` |
/// | `connected_threshold` | image | `lower`, `upper`, `connectivity` ("face"), seeds |
/// | `neighbourhood_connected` | image | `lower`, `upper`, `radius_voxels` (1), seeds |
/// | `confidence_connected` | image | `multiplier` (2.5), `iterations` (4), `radius_voxels` (1), `limits` ("exact", or "whole"), seeds |
/// | `flood` | image | `tolerance`, `connectivity` ("face"), seeds |
/// | `isolated_connected` | image | `lower`, `upper`, `tolerance` (1), `search` ("upper", or "lower"), seeds, `others = [[x, y, z], ...]` to keep out |
/// | `fast_marching` | image: the speed in mm per unit of time | `stop`, seeds |
/// | `seeded_growing`, `watershed` | image | `connectivity` ("face"); labels as below |
/// | `random_walker` | image | `beta` (130), `tolerance` (0.001); labels as below |
/// | `local_extrema` | image | `which` ("minima", or "maxima"), `connectivity` ("face") |
/// | `grid_seeds` | image | `every_mm` |
/// | `components` | mask | `connectivity` ("face", "edge", "full"), `space`, `border` ("keep", "drop", `drop_sides`), `min_ml` (0), `max_ml`, `largest` (all) |
/// | `keep_largest` | mask | `connectivity` ("face") |
/// | `dilate`, `erode`, `open`, `close` | mask | `radius_voxels` (1) or `radius_mm`, `space` ("volume") |
/// | `fill_holes` | mask | `space` ("volume") |
/// | `distance` | mask; makes an image, in mm | `side` ("inside", "outside", "signed"), `space` ("volume") |
/// | `surface` | mask | |
/// | `numbered` | mask: its components become labels 1, 2, ... | `connectivity` ("face") |
/// | `select` | mask | `label`: the mask of this label alone |
/// | `combine` | mask and the mask `with` | `how`: "union", "intersection" or "difference" |
///
/// Seeds are `seeds = [[x, y, z], ...]`, voxels counted from 0, or all voxels of the mask `with`.
/// The labels that `seeded_growing`, `watershed` and `random_walker` start from are one of: `seeds = [[x, y, z, label], ...]`; the
/// mask `with`; `ranges = [[from, below], ...]`, which makes label 1 of the first range and so on;
/// or `otsu = true`, which makes label 1 of what is dark and 2 of what is bright. Ranges and Otsu
/// start from cores: what lies `core_voxels` (1) inside.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the table above says what each does")]
pub enum Operation {
    Gaussian(Gaussian),
    Median(Median),
    CurvatureFlow(CurvatureFlow),
    AnisotropicDiffusion(AnisotropicDiffusion),
    BiasCorrection(BiasCorrection),
    Gradient { operator: Operator, space: Space },
    Laplacian(Gaussian),
    Resample { target: Target, interpolation: Interpolation },
    Reorient(Orientation),
    Crop { margin_mm: f64 },
    CropToBody { at_least: f32, margin_mm: f64 },
    Augment { seed: u64, parameters: Augmentation },
    Window(Window),
    Rescale { slope: f64, intercept: f64 },
    Sigmoid { centre: f64, width: f64 },
    Clip { low: f32, high: f32 },
    ZScore,
    NormaliseCt(CtNormalisation),
    Threshold(Range),
    Otsu { otsu: Otsu, keep: Keep },
    MultiOtsu { otsu: Otsu, thresholds: usize },
    Canny(Canny),
    LaplacianEdges(ZeroCrossings),
    EdgeSegmentation(EdgeSegmentation),
    ConnectedThreshold { seeds: Vec<Voxel>, parameters: ConnectedThreshold },
    NeighbourhoodConnected { seeds: Vec<Voxel>, parameters: NeighbourhoodConnected },
    ConfidenceConnected { seeds: Vec<Voxel>, parameters: ConfidenceConnected },
    Flood { seeds: Vec<Voxel>, parameters: Flood },
    IsolatedConnected { seeds: Vec<Voxel>, others: Vec<Voxel>, parameters: Isolated },
    FastMarching { seeds: Vec<Voxel>, parameters: FastMarching },
    Watershed { start: Start, connectivity: Connectivity },
    RandomWalker { start: Start, parameters: RandomWalker },
    LocalExtrema { which: Extremum, connectivity: Connectivity },
    GridSeeds { every_mm: f64 },
    SeededGrowing { start: Start, connectivity: Connectivity },
    Components(Filter),
    Dilate { radius: Radius, space: Space },
    Erode { radius: Radius, space: Space },
    Open { radius: Radius, space: Space },
    Close { radius: Radius, space: Space },
    FillHoles(Space),
    Distance { side: Side, space: Space },
    Surface,
    Numbered(Connectivity),
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

/// How values between voxels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Linearly.
    Linear,
    /// By cubic B-splines.
    Spline,
}
