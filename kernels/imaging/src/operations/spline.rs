//! Cubic B-spline interpolation: smoother than linear, and exact at the voxels.
//!
//! The image is turned into spline coefficients by Unser's recursive filter ("B-spline signal
//! processing: part II", IEEE Trans. Signal Processing 41(2), 1993), mirrored at its outermost
//! voxels, as ITK's `BSplineInterpolateImageFunction` of order 3 and SciPy's `mode="mirror"` do.

use rayon::prelude::*;

use super::resample::{Target, sample};
use crate::error::ImagingError;
use crate::volume::{Geometry, Image};

/// The pole of the cubic spline's filter, √3 − 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Terms of the sum that starts the filter; POLE to this power is below a double's rounding.
const HORIZON: usize = 30;

/// Returns the image on the grid that `target` asks for.
pub fn image(image: &Image, target: &Target) -> Result<Image, ImagingError> {
    image_onto(image, &target.grid(&image.geometry)?, 0.0)
}

/// Returns the image on any grid of the same patient; voxels whose centres lie outside the image
/// get the value `outside`. A voxel that is not a number spoils its whole lines.
pub fn image_onto(image: &Image, grid: &Geometry, outside: f32) -> Result<Image, ImagingError> {
    let size = image.geometry.size;
    let mut coefficients: Vec<f64> = image.voxels.par_iter().map(|&v| f64::from(v)).collect();
    for axis in 0..3 {
        filter_along(&mut coefficients, size, axis);
    }
    let voxels = sample(&image.geometry, grid, outside, |position| {
        let taps = [0, 1, 2].map(|axis| Taps::at(position[axis], size[axis]));
        let mut value = 0.0;
        for (z, weight_z) in taps[2].each() {
            for (y, weight_y) in taps[1].each() {
                let row = (z * size[1] + y) * size[0];
                let along: f64 = taps[0].each().map(|(x, w)| w * coefficients[row + x]).sum();
                value += weight_z * weight_y * along;
            }
        }
        value as f32
    })?;
    Image::new(*grid, voxels)
}

/// The voxels that a place lies between along one axis, with their weights.
struct Taps {
    voxels: [usize; 4],
    weights: [f64; 4],
    count: usize,
}

impl Taps {
    fn at(position: f64, size: usize) -> Self {
        if size == 1 {
            return Self { voxels: [0; 4], weights: [1.0; 4], count: 1 };
        }
        let low = position.floor();
        let t = position - low;
        let s = 1.0 - t;
        let weights = [
            s * s * s / 6.0,
            2.0 / 3.0 - 0.5 * t * t * (2.0 - t),
            2.0 / 3.0 - 0.5 * s * s * (2.0 - s),
            t * t * t / 6.0,
        ];
        let voxels = [-1, 0, 1, 2].map(|step| mirrored(low as isize + step, size));
        Self { voxels, weights, count: 4 }
    }

    fn each(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.voxels.iter().copied().zip(self.weights.iter().copied()).take(self.count)
    }
}

/// Returns the voxel that stands for a place beyond the border, mirrored at the outermost voxel.
fn mirrored(at: isize, size: usize) -> usize {
    let period = 2 * (size as isize - 1);
    let folded = at.rem_euclid(period);
    folded.min(period - folded) as usize
}

/// Turns the values along one axis into spline coefficients.
fn filter_along(values: &mut [f64], size: [usize; 3], axis: usize) {
    let length = size[axis];
    if length < 2 || values.is_empty() {
        return;
    }
    let [width, height, _] = size;
    match axis {
        0 => values.par_chunks_mut(width).for_each(filter_line),
        1 => values.par_chunks_mut(width * height).for_each(|slice| filter_rows(slice, width)),
        _ => filter_rows(values, width * height),
    }
}

/// Filters the columns of rows of `width` values, all columns at once.
fn filter_rows(rows: &mut [f64], width: usize) {
    let count = rows.len() / width;
    // Blocks of columns are copied together, so that each step runs over neighbouring values.
    let blocks: Vec<usize> = (0..width).step_by(64).collect();
    let read: &[f64] = rows;
    let filtered: Vec<Vec<f64>> = blocks
        .par_iter()
        .map(|&from| {
            let wide = (width - from).min(64);
            let mut line = vec![0.0; count];
            let mut block = vec![0.0; count * wide];
            for column in 0..wide {
                for (row, value) in line.iter_mut().enumerate() {
                    *value = read[row * width + from + column];
                }
                filter_line(&mut line);
                for (row, &value) in line.iter().enumerate() {
                    block[row * wide + column] = value;
                }
            }
            block
        })
        .collect();
    for (&from, block) in blocks.iter().zip(&filtered) {
        let wide = (width - from).min(64);
        for (row, values) in block.chunks(wide).enumerate() {
            rows[row * width + from..row * width + from + wide].copy_from_slice(values);
        }
    }
}

fn filter_line(line: &mut [f64]) {
    let count = line.len();
    let gain = (1.0 - POLE) * (1.0 - 1.0 / POLE);
    for value in line.iter_mut() {
        *value *= gain;
    }
    line[0] = first_coefficient(line);
    for k in 1..count {
        line[k] += POLE * line[k - 1];
    }
    line[count - 1] = POLE / (POLE * POLE - 1.0) * (line[count - 1] + POLE * line[count - 2]);
    for k in (0..count - 1).rev() {
        line[k] = POLE * (line[k + 1] - line[k]);
    }
}

/// Returns the sum over the mirrored past of a line, weighted by powers of the pole.
fn first_coefficient(line: &[f64]) -> f64 {
    let count = line.len();
    let mut power = POLE;
    if HORIZON < count {
        let mut sum = line[0];
        for value in &line[1..HORIZON] {
            sum += power * value;
            power *= POLE;
        }
        return sum;
    }
    // The whole period, in closed form.
    let mut mirror = POLE.powi(count as i32 - 1);
    let mut sum = line[0] + mirror * line[count - 1];
    mirror *= mirror / POLE;
    for value in &line[1..count - 1] {
        sum += (power + mirror) * value;
        power *= POLE;
        mirror /= POLE;
    }
    sum / (1.0 - power * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wavy(size: [usize; 3]) -> Image {
        let geometry = Geometry::new(size, [1.0, 2.0, 3.0]);
        let voxels = (0..geometry.voxels()).map(|index| ((index * 37) % 101) as f32).collect();
        Image::new(geometry, voxels).unwrap()
    }

    #[test]
    fn passes_through_the_voxels() {
        for size in [[40, 35, 33], [5, 3, 2], [7, 1, 1], [1, 1, 1]] {
            let image = wavy(size);
            let same = image_onto(&image, &image.geometry, -1.0).unwrap();
            for (a, b) in image.voxels.iter().zip(&same.voxels) {
                assert!((a - b).abs() < 1e-3, "{size:?}: {a} and {b}");
            }
        }
    }

    #[test]
    fn a_smooth_function_is_met_between_the_voxels() {
        let geometry = Geometry::unit([64, 1, 1]);
        let wave = |x: f64| (x / 5.0).sin() as f32;
        let image = Image::new(geometry, (0..64).map(|x| wave(f64::from(x))).collect()).unwrap();
        let fine = Geometry { size: [40, 1, 1], origin_mm: [20.3, 0.0, 0.0], ..geometry };
        let between = image_onto(&image, &Geometry { spacing_mm: [0.5, 1.0, 1.0], ..fine }, 0.0);
        for (k, value) in between.unwrap().voxels.iter().enumerate() {
            assert!((value - wave(20.3 + 0.5 * k as f64)).abs() < 1e-4, "{k}");
        }
        assert!(super::image(&image, &Target::SpacingMm([0.0; 3])).is_err());
    }
}
