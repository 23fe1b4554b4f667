//! Edges: the Sobel gradient and Canny's detector.
//!
//! [`canny`] follows scikit-image 0.26 (`skimage.feature.canny` with its default border) to the
//! pixel, slice by slice: Gaussian with zeros beyond the border, made up for by the share of the
//! kernel inside; Sobel; non-maximum suppression interpolated along the gradient; hysteresis over
//! 8 neighbours. It computes in `f64`, as scikit-image does for integer images.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::gaussian::{Outside, check_sigma, convolve, half_kernel};
use super::neighbourhood::{Connectivity, Space, step_clamped};
use super::runs::Runs;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask, Volume};

/// Returns the magnitude of the gradient in intensity per millimetre.
///
/// The derivative along each axis is Sobel's: a central difference smoothed by (1, 2, 1) / 4 along
/// the other axes, with the nearest voxel repeated beyond the border. In slices, the derivative
/// along z is left out.
#[must_use]
pub fn sobel(image: &Image, space: Space) -> Image {
    let [width, height, depth] = image.geometry.size;
    let spacing = image.geometry.spacing_mm;
    let deep = space == Space::Volume && depth > 1;
    let mut voxels = vec![0.0f32; image.voxels.len()];
    let scale = |axis: usize| (0.5 / spacing[axis]) as f32;
    voxels.par_chunks_mut(width.max(1)).with_min_len(16).enumerate().for_each(|(row, output)| {
        let (y, z) = (row % height, row / height);
        let input = |dy: isize, dz: isize| {
            let at = step_clamped(z, dz, depth) * height + step_clamped(y, dy, height);
            &image.voxels[at * width..(at + 1) * width]
        };
        // Combinations of the rows around: smoothed along the other axes, and differences.
        let (mut smooth, mut along_y) = (vec![0.0f32; width], vec![0.0f32; width]);
        let mut along_z = vec![0.0f32; if deep { width } else { 0 }];
        let depths: &[(isize, f32)] =
            if deep { &[(-1, 0.25), (0, 0.5), (1, 0.25)] } else { &[(0, 1.0)] };
        for &(dz, weight_z) in depths {
            for (dy, weight_y) in [(-1, 0.25f32), (0, 0.5), (1, 0.25)] {
                let (dy_sign, dz_sign) = (dy as f32, dz as f32);
                for (x, &value) in input(dy, dz).iter().enumerate() {
                    smooth[x] += value * weight_y * weight_z;
                    along_y[x] += value * dy_sign * weight_z;
                    if deep {
                        along_z[x] += value * weight_y * dz_sign;
                    }
                }
            }
        }
        for (x, output) in output.iter_mut().enumerate() {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            let across = |row: &[f32]| 0.25 * row[left] + 0.5 * row[x] + 0.25 * row[right];
            let gx = (smooth[right] - smooth[left]) * scale(0);
            let gy = across(&along_y) * scale(1);
            let gz = if deep { across(&along_z) * scale(2) } else { 0.0 };
            *output = (gx * gx + gy * gy + gz * gz).sqrt();
        }
    });
    Image { geometry: image.geometry, voxels }
}

/// What makes an edge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Canny {
    /// The standard deviation of the Gaussian, in millimetres. Default: 1 mm.
    pub sigma_mm: f64,
    /// The weakest response that continues an edge. Responses are those of the plain Sobel mask,
    /// 8 × the change of intensity per voxel. Default: 200, right for CT in Hounsfield units.
    pub low: f64,
    /// The weakest response that begins an edge. Default: 400.
    pub high: f64,
}

impl Default for Canny {
    fn default() -> Self {
        Self { sigma_mm: 1.0, low: 200.0, high: 400.0 }
    }
}

/// Returns the edges of each slice.
pub fn canny(image: &Image, parameters: &Canny) -> Result<Mask, ImagingError> {
    let Canny { sigma_mm, low, high } = *parameters;
    if !(low >= 0.0 && high >= low) {
        return Err(ImagingError::Parameter {
            operation: "canny",
            problem: format!("low is {low} and high {high}; 0 <= low <= high is needed"),
        });
    }
    let [width, height, depth] = image.geometry.size;
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
    fn sobel_measures_a_slope_per_millimetre() {
        let geometry = Geometry::new([8, 8, 8], [0.5, 2.0, 4.0]);
        for axis in 0..3 {
            let mut image = Image::filled(geometry, 0.0);
            for (index, value) in image.voxels.iter_mut().enumerate() {
                *value = 3.0
                    * (geometry.position(index)[axis] as f64 * geometry.spacing_mm[axis]) as f32;
            }
            let middle = *sobel(&image, Space::Volume).at(4, 4, 4);
            assert!((middle - 3.0).abs() < 1e-5, "axis {axis}: {middle}");
            let in_slice = *sobel(&image, Space::Slice).at(4, 4, 4);
            assert!((in_slice - if axis == 2 { 0.0 } else { 3.0 }).abs() < 1e-5, "axis {axis}");
        }
    }

    #[test]
    fn canny_draws_a_step_one_pixel_wide() {
        let mut image = Image::filled(Geometry::unit([32, 16, 2]), 0.0);
        for (index, value) in image.voxels.iter_mut().enumerate() {
            *value = if index % 32 >= 16 { 100.0 } else { 0.0 };
        }
        let edges = canny(&image, &Canny { sigma_mm: 1.0, low: 50.0, high: 100.0 }).unwrap();
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
