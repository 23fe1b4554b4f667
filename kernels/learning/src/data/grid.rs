//! The square grid that samples are laid on, and the scale that their intensities are put on.
//!
//! An image is laid on a grid of square pixels whose side is its longer side, so that shapes keep
//! their proportions; along z the slices stay as they are, but for a network that sees stacks of them:
//! for that they are as far apart as those of the samples that are not held out usually are. Where pixels grow it is smoothed first.
//! CT is put on the scale of the training set's foreground (nnU-Net's rule: the same Hounsfield
//! value is the same number in every image), everything else on the image's own.

use gantry_imaging::gaussian::{Gaussian, SIGMA_VOXELS_MAX, gaussian};
use gantry_imaging::intensity::{CtNormalisation, Foreground};
use gantry_imaging::neighbourhood::Space;
use gantry_imaging::{Geometry, Image, resample};
use gantry_library::SampleRecord;
use serde::{Deserialize, Serialize};

use super::shelf::{SLICES_MAX, Shelf};
use crate::error::LearningError;

/// Foreground pixels that the training set's scale is taken from.
const STATISTICS_MAX: usize = 1 << 20;

/// How intensities become what the network sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// By the foreground of the whole training set, for CT.
    Ct(CtNormalisation),
    /// By the image's own mean and deviation.
    PerImage,
}

/// The scale of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    low: f32,
    high: f32,
    mean: f32,
    deviation: f32,
}

impl Scale {
    pub(crate) fn apply(self, value: f32) -> f32 {
        (value.clamp(self.low, self.high) - self.mean) / self.deviation
    }
}

/// What an image is like as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Statistics {
    /// The lowest value: what is taken to lie around the image.
    pub(crate) lowest: f32,
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Statistics {
    pub(crate) fn of(image: &Image) -> Self {
        let finite = || image.voxels.iter().copied().filter(|value| value.is_finite());
        let count = finite().count().max(1) as f64;
        let mean = finite().map(f64::from).sum::<f64>() / count;
        let variance = finite().map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let lowest = finite().reduce(f32::min).unwrap_or(0.0);
        Self { lowest, mean, deviation: variance.sqrt() }
    }
}

impl Normalisation {
    /// The rule for these samples: CT's where all are CT and the mask marks anything.
    pub(crate) fn of(samples: &[&SampleRecord], shelf: &Shelf<'_>) -> Result<Self, LearningError> {
        if samples.iter().any(|sample| sample.modality != "CT") {
            return Ok(Self::PerImage);
        }
        let places = samples.iter().map(|sample| shelf.place(sample));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let marked = places.iter().map(|place| place.marked).sum();
        let mut foreground = Foreground::new(marked, STATISTICS_MAX);
        for place in places {
            for slices in shelf.pieces(place) {
                foreground.add(&shelf.image(place, slices.clone())?, &shelf.mask(place, slices)?);
            }
        }
        Ok(foreground.normalisation().map_or(Self::PerImage, |found| {
            // Whole thousandths read back from JSON exactly, so that a resumed run sees the same.
            let round = |value: f64| (value * 1000.0).round() / 1000.0;
            Self::Ct(CtNormalisation {
                low: round(found.low),
                high: round(found.high),
                mean: round(found.mean),
                deviation: round(found.deviation),
            })
        }))
    }

    /// The scale for an image.
    pub(crate) fn scale(&self, image: &Statistics) -> Scale {
        let (low, high, mean, deviation) = match self {
            Self::Ct(ct) => (ct.low as f32, ct.high as f32, ct.mean, ct.deviation),
            Self::PerImage => (f32::MIN, f32::MAX, image.mean, image.deviation),
        };
        // Order matters to clamp even where a damaged record gives the bounds.
        let (low, high) = (low.min(high), high.max(low));
        Scale { low, high, mean: mean as f32, deviation: deviation.max(1e-3) as f32 }
    }
}

/// Returns the grid of `side` × `side` square pixels that covers a slice, slices as they are or so far
/// apart.
pub(crate) fn square_grid(source: &Geometry, side: usize, slice_mm: Option<f64>) -> Geometry {
    let extent = |axis: usize| source.size[axis] as f64 * source.spacing_mm[axis];
    let pitch = extent(0).max(extent(1)) / side as f64;
    let (slices, apart) = match slice_mm {
        Some(apart) if source.size[2] > 0 => {
            let slices = (extent(2) / apart).round().clamp(1.0, SLICES_MAX as f64);
            (slices as usize, extent(2) / slices)
        }
        _ => (source.size[2], source.spacing_mm[2]),
    };
    let mut grid =
        Geometry { size: [side, side, slices], spacing_mm: [pitch, pitch, apart], ..*source };
    let middle = |size: [usize; 3]| size.map(|count| (count as f64 - 1.0) / 2.0);
    let (from, to) =
        (source.to_patient_mm(middle(source.size)), grid.to_patient_mm(middle(grid.size)));
    for axis in 0..3 {
        grid.origin_mm[axis] += from[axis] - to[axis];
    }
    grid
}

/// Returns the image on its square grid; what lies outside it has the value `around`.
pub(crate) fn to_square(
    image: &Image,
    side: usize,
    slice_mm: Option<f64>,
    around: f32,
) -> Result<Image, LearningError> {
    let grid = square_grid(&image.geometry, side, slice_mm);
    let finite = image.map(|&value| if value.is_finite() { value } else { around });
    let finest = image.geometry.spacing_mm[0].min(image.geometry.spacing_mm[1]);
    let pitch = grid.spacing_mm[0];
    if pitch < 1.5 * finest {
        return Ok(resample::image_onto(&finite, &grid, around)?);
    }
    // Pixels that are long and thin beyond all reason are smoothed as far as the operation goes.
    let sigma_mm = (pitch / 2.0).min(SIGMA_VOXELS_MAX * finest);
    let smooth = gaussian(&finite, &Gaussian { sigma_mm, space: Space::Slice })?;
    Ok(resample::image_onto(&smooth, &grid, around)?)
}

/// How far slices of these samples usually are apart: the median, in whole thousandths of a millimetre,
/// which read back from JSON exactly.
pub(crate) fn usual_slice_mm(samples: &[&SampleRecord]) -> Option<f64> {
    let mut all: Vec<f64> = samples.iter().map(|sample| sample.spacing_mm[2]).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).map(|apart| (apart * 1000.0).round() / 1000.0)
}

/// Puts an image that lies on its square grid on a scale.
pub(crate) fn on_scale(image: &Image, scale: Scale) -> Vec<f32> {
    image.voxels.iter().map(|&value| scale.apply(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_laid_as_far_apart_as_is_wanted() {
        let source = Geometry::new([8, 8, 10], [1.0, 1.0, 2.0]);
        let grid = square_grid(&source, 8, Some(5.0));
        assert_eq!((grid.size, grid.spacing_mm), ([8, 8, 4], [1.0, 1.0, 5.0]));
        let (a, b) = (source.to_patient_mm([0.0, 0.0, 4.5]), grid.to_patient_mm([0.0, 0.0, 1.5]));
        assert!((a[2] - b[2]).abs() < 1e-9, "{a:?} {b:?}");
        let image = Image::filled(source, 3.0);
        let square = to_square(&image, 8, Some(5.0), 0.0).unwrap();
        assert!(square.voxels.iter().all(|value| (value - 3.0).abs() < 1e-6));
    }

    #[test]
    fn square_grids_keep_proportions_and_place() {
        let source =
            Geometry { origin_mm: [5.0, -7.0, 3.0], ..Geometry::new([40, 20, 6], [0.5, 0.7, 3.0]) };
        let grid = square_grid(&source, 16, None);
        assert_eq!(grid.size, [16, 16, 6]);
        assert!((grid.spacing_mm[0] - 20.0 / 16.0).abs() < 1e-12);
        assert!((grid.spacing_mm[1] - grid.spacing_mm[0]).abs() < 1e-12);
        let (a, b) = (source.to_patient_mm([19.5, 9.5, 2.0]), grid.to_patient_mm([7.5, 7.5, 2.0]));
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9), "{a:?} {b:?}");
        let image = Image::filled(source, 100.0);
        let square = to_square(&image, 16, None, -1000.0).unwrap();
        assert!((square.at(8, 8, 0) - 100.0).abs() < 1e-3 && *square.at(8, 0, 0) == -1000.0);
    }

    #[test]
    fn damaged_values_do_not_spread() {
        let mut image = Image::filled(Geometry::unit([32, 32, 1]), 1.0);
        image.voxels[40] = f32::NAN;
        image.voxels[41] = f32::INFINITY;
        let statistics = Statistics::of(&image);
        let square = to_square(&image, 16, None, statistics.lowest).unwrap();
        let scaled = on_scale(&square, Normalisation::PerImage.scale(&statistics));
        assert!(scaled.iter().all(|value| value.is_finite()));
    }
}
