//! Canny's edge detector, after Canny, "A computational approach to edge detection", IEEE PAMI 8(6),
//! 1986.
//!
//! Slice by slice it follows scikit-image 0.26 (`skimage.feature.canny` with its default border) to
//! the pixel: Gaussian with zeros beyond the border, made up for by the share of the kernel inside;
//! Sobel; non-maximum suppression interpolated along the gradient; hysteresis over 8 neighbours. It
//! computes in `f64`, as scikit-image does for integer images. In a volume the same steps are taken
//! in space: see [`volume`].

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

mod volume;

use super::gaussian::{Outside, check_sigma, convolve, half_kernel};
use super::neighbourhood::{Connectivity, Space, step_clamped};
use super::runs::Runs;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask, Volume};

/// What makes an edge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Canny {
    /// The standard deviation of the Gaussian, in millimetres. Default: 1 mm.
    pub sigma_mm: f64,
    /// The weakest response that continues an edge. Responses are those of the plain Sobel mask,
    /// 8 × the change of intensity per voxel (in a volume, per length of the voxel's shortest
    /// side). Default: 200, right for CT in Hounsfield units.
    pub low: f64,
    /// The weakest response that begins an edge. Default: 400.
    pub high: f64,
    /// Edges in each slice, or surfaces in the volume. Default: in each slice.
    pub space: Space,
}

impl Default for Canny {
    fn default() -> Self {
        Self { sigma_mm: 1.0, low: 200.0, high: 400.0, space: Space::Slice }
    }
}

/// Returns the edges: lines one voxel wide in each slice, or surfaces one voxel thick in the volume.
pub fn canny(image: &Image, parameters: &Canny) -> Result<Mask, ImagingError> {
    let Canny { sigma_mm, low, high, space } = *parameters;
    if !(low >= 0.0 && high >= low) {
        return Err(ImagingError::Parameter {
            operation: "canny",
            problem: format!("low is {low} and high {high}; 0 <= low <= high is needed"),
        });
    }
    let [width, height, depth] = image.geometry.size;
    if space == Space::Volume && depth > 1 {
        return volume::canny(image, parameters);
    }
    let sigmas = [0, 1].map(|axis| sigma_mm / image.geometry.spacing_mm[axis]);
    sigmas.iter().try_for_each(|&sigma| check_sigma("canny", sigma))?;
    if image.voxels.is_empty() {
        return Ok(Mask::filled(image.geometry, 0));
    }
    let plane = Geometry::unit([width, height, 1]);
    let shares = smooth(&Volume::filled(plane, 1.0f64), sigmas);
    let slices: Vec<Vec<u8>> = (0..depth)
        .into_par_iter()
        .map(|z| {
            let voxels = image.slice(z).iter().map(|&value| f64::from(value)).collect();
            let mut smoothed = smooth(&Volume { geometry: plane, voxels }, sigmas);
            for (value, share) in smoothed.voxels.iter_mut().zip(&shares.voxels) {
                *value /= share + f64::EPSILON;
            }
            hysteresis(plane.size, &thin(&smoothed, low), high)
        })
        .collect();
    Ok(Mask { geometry: image.geometry, voxels: slices.concat() })
}

/// Smooths a slice with zeros beyond its border, along y and then along x as SciPy does.
fn smooth(slice: &Volume<f64>, sigmas: [f64; 2]) -> Volume<f64> {
    let mut smoothed = slice.clone();
    for axis in [1, 0] {
        if sigmas[axis] > 0.0 {
            let kernel = half_kernel(sigmas[axis]);
            smoothed.voxels = convolve(&smoothed, axis, &kernel, Outside::Zero);
        }
    }
    smoothed
}

/// Returns the gradient's magnitude where it is at least `low` and no smaller than at the two
/// places one step up and down the gradient, and 0 elsewhere.
fn thin(smoothed: &Volume<f64>, low: f64) -> Vec<f64> {
    let [width, height, _] = smoothed.geometry.size;
    let mut along_x = vec![0.0; width * height];
    let mut along_y = vec![0.0; width * height];
    for y in 0..height {
        let rows = [-1, 0, 1].map(|dy| {
            let at = step_clamped(y, dy, height) * width;
            &smoothed.voxels[at..at + width]
        });
        for x in 0..width {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            let column = |x: usize| rows[0][x] + 2.0 * rows[1][x] + rows[2][x];
            let row = |row: &[f64]| row[left] + 2.0 * row[x] + row[right];
            along_x[y * width + x] = column(right) - column(left);
            along_y[y * width + x] = row(rows[2]) - row(rows[0]);
        }
    }
    let magnitude: Vec<f64> =
        along_x.iter().zip(&along_y).map(|(gx, gy)| (gy * gy + gx * gx).sqrt()).collect();
    let mut thinned = vec![0.0; width * height];
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let here = y * width + x;
            let (gx, gy, strength) = (along_x[here], along_y[here], magnitude[here]);
            // The neighbours up and down the gradient lie between one straight ahead and one on the
            // diagonal. Where a component is 0 the gradient points both ways at once, and the rule
            // for equal signs is the one that counts.
            if strength >= low && (gx != 0.0 || gy != 0.0) {
                let diagonal_dx = if gx * gy >= 0.0 { 1 } else { -1 };
                let steep = gy.abs() > gx.abs();
                let (straight, weight) = if steep {
                    (width as isize, gx.abs() / gy.abs())
                } else {
                    (diagonal_dx, gy.abs() / gx.abs())
                };
                let diagonal = width as isize + diagonal_dx;
                let at = |step: isize| magnitude[here.wrapping_add_signed(step)];
                let between = |straight: isize, diagonal: isize| {
                    at(diagonal) * weight + at(straight) * (1.0 - weight)
                };
                if between(straight, diagonal) <= strength
                    && between(-straight, -diagonal) <= strength
                {
                    thinned[here] = strength;
                }
            }
        }
    }
    thinned
}

/// Returns the pixels joined over 8 neighbours to one with a response of at least `high`.
fn hysteresis(size: [usize; 3], thinned: &[f64], high: f64) -> Vec<u8> {
    let runs = Runs::new(size, |index| thinned[index] > 0.0);
    let strong = (0..thinned.len()).filter(|&i| thinned[i] > 0.0 && thinned[i] >= high);
    let reached = runs.reached_from(strong, Connectivity::Full, Space::Slice);
    runs.paint(|run| u8::from(reached[run]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canny_draws_a_step_one_pixel_wide() {
        let mut image = Image::filled(Geometry::unit([32, 16, 2]), 0.0);
        for (index, value) in image.voxels.iter_mut().enumerate() {
            *value = if index % 32 >= 16 { 100.0 } else { 0.0 };
        }
        let edges = canny(&image, &Canny { low: 50.0, high: 100.0, ..Canny::default() }).unwrap();
        // The step lies between two columns that respond alike but for rounding: one of them is
        // drawn, or both, in every row but the outermost.
        for (row, pixels) in edges.voxels.chunks(32).enumerate() {
            let drawn = pixels[15] + pixels[16];
            assert_eq!(drawn, pixels.iter().sum::<u8>(), "row {row}");
            assert_eq!(drawn > 0, !matches!(row % 16, 0 | 15), "row {row}");
        }
        assert!(canny(&image, &Canny { low: 3.0, high: 2.0, ..Canny::default() }).is_err());
    }
}
