//! N4 bias field correction: MR images freed of slow changes in brightness.
//!
//! After Tustison et al., "N4ITK: improved N3 bias correction", IEEE TMI 29(6), 2010. The logarithm
//! of the image is sharpened by deconvolving its histogram; what the sharpening changed is
//! approximated by a smooth B-spline, which joins the field; and so on, at ever finer control
//! points. Parameters and defaults are those of ANTs' `N4BiasFieldCorrection`: voxels that are not
//! positive do not count, and the fit looks at every `shrink`-th voxel along each axis.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::ImagingError;
use crate::volume::{Image, Mask};

mod histogram;
mod lattice;

use lattice::Lattice;

/// The most fitting levels: 3 + 2⁹ control points along each axis.
pub const LEVELS_MAX: usize = 10;
/// The most iterations of a level.
pub const ITERATIONS_MAX: usize = 1000;

/// How the field is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BiasCorrection {
    /// How often the distance between control points is halved, less one; the first level has four
    /// along each axis. Default: 4.
    pub levels: usize,
    /// The most iterations of each level. Default: 50.
    pub iterations: usize,
    /// A level ends when the field changes by less than this, as a coefficient of variation.
    /// Default: 0.001.
    pub convergence: f64,
    /// The full width at half maximum of the bias in the logarithm. Default: 0.15.
    pub width: f64,
    /// The noise of the Wiener filter. Default: 0.01.
    pub noise: f64,
    /// The bins of the histogram. Default: 200.
    pub bins: usize,
    /// Every how many voxels along each axis the fit looks at. Default: 4.
    pub shrink: usize,
}

impl Default for BiasCorrection {
    fn default() -> Self {
        Self {
            levels: 4,
            iterations: 50,
            convergence: 1e-3,
            width: 0.15,
            noise: 0.01,
            bins: 200,
            shrink: 4,
        }
    }
}

impl BiasCorrection {
    fn check(&self) -> Result<(), ImagingError> {
        let sound = (1..=LEVELS_MAX).contains(&self.levels)
            && self.iterations <= ITERATIONS_MAX
            && (2..=4096).contains(&self.bins)
            && (1..=64).contains(&self.shrink)
            && [self.convergence, self.width, self.noise].iter().all(|v| v.is_finite() && *v > 0.0);
        if sound {
            return Ok(());
        }
        Err(ImagingError::Parameter {
            operation: "bias_correction",
            problem: format!(
                "{self:?}: levels must be 1 to {LEVELS_MAX}, iterations at most {ITERATIONS_MAX}, \
                 bins 2 to 4096, shrink 1 to 64, the others positive"
            ),
        })
    }
}

/// Returns the image divided by its bias field, which is found from the positive voxels (within the
/// mask where one is given) and reaches over the whole image. An image without two different
/// positive values stays as it is.
pub fn bias_correction(
    image: &Image,
    within: Option<&Mask>,
    parameters: &BiasCorrection,
) -> Result<Image, ImagingError> {
    parameters.check()?;
    if let Some(mask) = within {
        image.require_same_grid(mask)?;
    }
    let points = Points::of(image, within, parameters.shrink);
    let Some(lattice) = fit(image, &points, parameters) else { return Ok(image.clone()) };
    let field = lattice.evaluate(image.geometry.size);
    let pairs = image.voxels.par_iter().zip(&field).with_min_len(1 << 14);
    let voxels = pairs.map(|(&v, &bias)| (f64::from(v) / bias.exp()) as f32).collect();
    Ok(Image { geometry: image.geometry, voxels })
}

/// The voxels that the fit looks at, row by row.
struct Points {
    /// For each row that has any: y, z, and the range of its points.
    rows: Vec<(usize, usize, std::ops::Range<usize>)>,
    /// For each point, its x.
    x: Vec<usize>,
    /// For each point, the logarithm of the image.
    log: Vec<f64>,
}

impl Points {
    fn of(image: &Image, within: Option<&Mask>, shrink: usize) -> Self {
        let [width, height, depth] = image.geometry.size;
        let mut points = Self { rows: Vec::new(), x: Vec::new(), log: Vec::new() };
        // The middle voxel of each block stands for it, as in ITK's shrinking.
        let along = |length: usize| {
            let step = shrink.min(length.max(1));
            ((step - 1) / 2..length).step_by(step)
        };
        for z in along(depth) {
            for y in along(height) {
                let first = points.x.len();
                for x in along(width) {
                    let index = image.geometry.index(x, y, z);
                    let value = image.voxels[index];
                    let counts = within.is_none_or(|mask| mask.voxels[index] != 0);
                    if counts && value > 0.0 && value.is_finite() {
                        points.x.push(x);
                        points.log.push(f64::from(value).ln());
                    }
                }
                if points.x.len() > first {
                    points.rows.push((y, z, first..points.x.len()));
                }
            }
        }
        points
    }
}

/// Returns the control points of the logarithm of the field, if the points have any contrast.
fn fit(image: &Image, points: &Points, parameters: &BiasCorrection) -> Option<Lattice> {
    let low = points.log.iter().copied().reduce(f64::min)?;
    let high = points.log.iter().copied().reduce(f64::max)?;
    if low >= high {
        return None;
    }
    let size = image.geometry.size;
    let mut lattice = Lattice::flat(size);
    let mut field = vec![0.0; points.log.len()];
    let mut residual = vec![0.0; points.log.len()];
    for level in 0..parameters.levels {
        for _ in 0..parameters.iterations {
            let uncorrected: Vec<f64> =
                points.log.iter().zip(&field).map(|(log, field)| log - field).collect();
            let sharpen = histogram::Sharpening::of(&uncorrected, parameters)?;
            for (residual, &value) in residual.iter_mut().zip(&uncorrected) {
                *residual = value - sharpen.apply(value);
            }
            lattice.add(&Lattice::approximate(&lattice, size, points, &residual));
            let next = lattice.at_points(size, points);
            let change = variation(field.iter().zip(&next).map(|(old, new)| (old - new).exp()));
            field = next;
            if change <= parameters.convergence {
                break;
            }
        }
        if level + 1 < parameters.levels {
            lattice = lattice.refined();
        }
    }
    Some(lattice)
}

/// Returns the coefficient of variation.
fn variation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    if count < 2.0 { 0.0 } else { (squares / (count - 1.0)).sqrt() / mean }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn two_tissues_under_a_slow_field_become_two_values() {
        let geometry = Geometry::unit([48, 40, 24]);
        let tissue = |at: [usize; 3]| {
            let round = |k: usize, middle: f64| (at[k] as f64 - middle).powi(2);
            if round(0, 24.0) + round(1, 20.0) + round(2, 12.0) < 100.0 { 220.0 } else { 100.0 }
        };
        let voxels = (0..geometry.voxels()).map(|index| {
            let at = geometry.position(index);
            let bias = (0.35 * (at[0] as f64 / 20.0).sin() + 0.01 * at[1] as f64).exp();
            let noise = 1.0 + 0.02 * (((index * 7919) % 101) as f64 / 50.0 - 1.0);
            (tissue(at) * bias * noise) as f32
        });
        let image = Image::new(geometry, voxels.collect()).unwrap();
        let parameters = BiasCorrection { shrink: 2, ..BiasCorrection::default() };
        let corrected = bias_correction(&image, None, &parameters).unwrap();
        let spread = |image: &Image| {
            let of = (0..geometry.voxels()).filter(|&i| tissue(geometry.position(i)) < 200.0);
            variation(of.map(|i| f64::from(image.voxels[i])))
        };
        let (before, after) = (spread(&image), spread(&corrected));
        assert!(after < before / 4.0, "{before} to {after}");
    }

    #[test]
    fn without_contrast_or_positive_values_nothing_changes() {
        for value in [5.0, 0.0, -3.0, f32::NAN] {
            let image = Image::filled(Geometry::unit([8, 8, 1]), value);
            let same = bias_correction(&image, None, &BiasCorrection::default()).unwrap();
            assert!(same.voxels.iter().all(|v| v.to_bits() == value.to_bits()));
        }
        let image = Image::filled(Geometry::unit([8, 8, 1]), 1.0);
        let wrong = BiasCorrection { levels: 0, ..BiasCorrection::default() };
        assert!(bias_correction(&image, None, &wrong).is_err());
    }
}
