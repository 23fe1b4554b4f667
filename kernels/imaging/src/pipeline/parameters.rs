//! Readers of the parameters that several operations share.

use super::SEEDS_MAX;
use super::operation::{Interpolation, Radius, Start};
use super::parse::Fields;
use crate::canny::Canny;
use crate::components::{Border, Filter};
use crate::gaussian::Gaussian;
use crate::neighbourhood::{Connectivity, Space};
use crate::region::Voxel;
use crate::seeded::{Range, Seed};

pub(super) fn space(f: &mut Fields) -> Space {
    f.choice("space", Some("volume"), &[("volume", Space::Volume), ("slice", Space::Slice)])
}

pub(super) fn interpolation(f: &mut Fields) -> Interpolation {
    let choices = [("linear", Interpolation::Linear), ("spline", Interpolation::Spline)];
    f.choice("interpolation", Some("linear"), &choices)
}

/// Reads a Gaussian that must not be a point.
pub(super) fn sharp_gaussian(f: &mut Fields) -> Gaussian {
    Gaussian { sigma_mm: f.number("sigma_mm", Some(1.0), 1e-3..=1000.0), space: space(f) }
}

pub(super) fn connectivity(f: &mut Fields) -> Connectivity {
    let choices =
        [("face", Connectivity::Face), ("edge", Connectivity::Edge), ("full", Connectivity::Full)];
    f.choice("connectivity", Some("face"), &choices)
}

pub(super) fn canny(f: &mut Fields) -> Canny {
    let default = Canny::default();
    let low = f.number("low", Some(default.low), 0.0..=1e9);
    Canny {
        sigma_mm: f.number("sigma_mm", Some(default.sigma_mm), 0.0..=1000.0),
        low,
        high: f.number("high", Some(default.high.max(low)), low..=1e9),
        space: Space::Slice,
    }
}

pub(super) fn components(f: &mut Fields) -> Filter {
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

pub(super) fn limits(f: &mut Fields) -> (f32, f32) {
    let lower = f.number("lower", None, -1e9..=1e9);
    (lower as f32, f.number("upper", None, lower..=1e9) as f32)
}

pub(super) fn radius(f: &mut Fields) -> Radius {
    if f.has("radius_mm") {
        f.exclude("radius_voxels", "radius_mm");
        return Radius::Mm(f.number("radius_mm", None, 0.0..=1000.0));
    }
    Radius::Voxels(f.count("radius_voxels", Some(1), 0..=20))
}

/// Reads seeds as `[[x, y, z], ...]`; there are none where a mask gives them.
pub(super) fn seeds(f: &mut Fields) -> Vec<Voxel> {
    if f.has_with() {
        f.exclude("seeds", "with");
        return Vec::new();
    }
    voxels(f, "seeds")
}

/// Reads voxels as `[[x, y, z], ...]`.
pub(super) fn voxels(f: &mut Fields, name: &'static str) -> Vec<Voxel> {
    let rows = f.rows(name, 3, SEEDS_MAX);
    rows.iter().map(|row| [0, 1, 2].map(|k| f.voxel(name, row[k]))).collect()
}

pub(super) fn start(f: &mut Fields) -> Start {
    let given = [f.has_with(), f.has("seeds"), f.has("ranges"), f.has("otsu")];
    if given.iter().filter(|&&given| given).count() != 1 {
        f.fail(
            "it starts from one of `seeds`, `ranges`, `otsu = true` and `with`; give \
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
