//! Smoothing that keeps edges: curvature flow.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::step_clamped;
use crate::error::ImagingError;
use crate::volume::Image;

/// The most iterations of [`curvature_flow`].
pub const ITERATIONS_MAX: usize = 1000;

/// How far curvature flows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvatureFlow {
    /// The step in time; for stability at most 0.125 in slices and 0.0625 in volumes, times the
    /// square of the smallest spacing. Default: 0.0625.
    pub time_step: f64,
    /// The number of steps. Default: 5, as ITK.
    pub iterations: usize,
}

impl Default for CurvatureFlow {
    fn default() -> Self {
        Self { time_step: 0.0625, iterations: 5 }
    }
}

/// Returns the image after its level lines have moved with a speed in proportion to their
/// curvature: noise is smoothed, long edges stay.
///
/// The scheme is that of ITK's `CurvatureFlowImageFilter` (Sethian 1996): explicit steps, central
/// differences in millimetres, the nearest voxel repeated beyond the border.
pub fn curvature_flow(image: &Image, parameters: &CurvatureFlow) -> Result<Image, ImagingError> {
    let CurvatureFlow { time_step, iterations } = *parameters;
    if !(time_step.is_finite() && time_step > 0.0 && iterations <= ITERATIONS_MAX) {
        return Err(ImagingError::Parameter {
            operation: "curvature_flow",
            problem: format!(
                "time_step is {time_step} and iterations {iterations}; the time step must be \
                 positive, the iterations at most {ITERATIONS_MAX}"
            ),
        });
    }
    let mut current = image.clone();
    let mut next = image.voxels.clone();
    let width = image.geometry.size[0].max(1);
    let scale = image.geometry.spacing_mm.map(|spacing| 1.0 / spacing);
    for _ in 0..iterations {
        next.par_chunks_mut(width).with_min_len(16).enumerate().for_each(|(row, output)| {
            let rows = rows_around(&current, row);
            for (x, value) in output.iter_mut().enumerate() {
                let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
                let update = update_at(&rows, columns, scale) as f32;
                *value = rows[4][x] + (f64::from(update) * time_step) as f32;
            }
        });
        std::mem::swap(&mut current.voxels, &mut next);
    }
    Ok(current)
}

/// Returns a row and the eight around it, in raster order, the nearest repeated beyond the border.
fn rows_around(image: &Image, row: usize) -> [&[f32]; 9] {
    let [width, height, depth] = image.geometry.size;
    let (y, z) = (row % height, row / height);
    std::array::from_fn(|around| {
        let y = step_clamped(y, around as isize % 3 - 1, height);
        let z = step_clamped(z, around as isize / 3 - 1, depth);
        &image.voxels[(z * height + y) * width..(z * height + y + 1) * width]
    })
}

/// Returns the curvature of the level set through the voxel in the middle of rows and columns,
/// times the gradient's magnitude. `scale` is voxels per millimetre.
fn update_at(rows: &[&[f32]; 9], columns: [usize; 3], scale: [f64; 3]) -> f64 {
    let value = |[dx, dy, dz]: [isize; 3]| {
        f64::from(rows[(3 * dz + dy + 4) as usize][columns[(dx + 1) as usize]])
    };
    let unit = |axis: usize, step: isize| {
        let mut steps = [0; 3];
        steps[axis] = step;
        steps
    };
    let centre = value([0; 3]);
    let mut first = [0.0; 3];
    let mut second = [0.0; 3];
    for axis in 0..3 {
        let (before, after) = (value(unit(axis, -1)), value(unit(axis, 1)));
        first[axis] = 0.5 * (after - before) * scale[axis];
        second[axis] = (after - 2.0 * centre + before) * scale[axis] * scale[axis];
    }
    let magnitude_squared: f64 = first.iter().map(|d| d * d).sum();
    // Below this, the direction of the gradient is noise of rounding; ITK's constant. A voxel that
    // is not a number has no curvature either.
    if magnitude_squared.is_nan() || magnitude_squared < 1e-9 {
        return 0.0;
    }
    let mut update = 0.0;
    for i in 0..3 {
        let others: f64 = (0..3).filter(|&j| j != i).map(|j| second[j]).sum();
        update += others * first[i] * first[i];
    }
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        let both = |step_i: isize, step_j: isize| {
            let mut steps = [0; 3];
            (steps[i], steps[j]) = (step_i, step_j);
            value(steps)
        };
        let cross = 0.25 * (both(-1, -1) - both(-1, 1) - both(1, -1) + both(1, 1));
        update -= 2.0 * first[i] * first[j] * cross * scale[i] * scale[j];
    }
    update / magnitude_squared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn a_disk_shrinks_and_a_straight_edge_stays() {
        let flow = CurvatureFlow { time_step: 0.125, iterations: 5 };
        let geometry = Geometry::unit([24, 24, 1]);
        let draw = |inside: &dyn Fn(f32, f32) -> f32| {
            let mut image = Image::filled(geometry, 0.0);
            for (index, value) in image.voxels.iter_mut().enumerate() {
                *value = inside((index % 24) as f32 - 11.5, (index / 24) as f32 - 11.5);
            }
            image
        };
        let ramp = draw(&|x, _| (x * 20.0).clamp(-100.0, 100.0));
        assert_eq!(curvature_flow(&ramp, &flow).unwrap(), ramp);
        let cone = draw(&|x, y| (8.0 - x.hypot(y)).max(0.0) * 10.0);
        let total = |image: &Image| image.voxels.iter().map(|&v| f64::from(v)).sum::<f64>();
        assert!(total(&curvature_flow(&cone, &flow).unwrap()) < total(&cone));
    }

    #[test]
    fn refuses_a_step_that_is_none() {
        let image = Image::filled(Geometry::unit([3, 3, 1]), 0.0);
        for time_step in [0.0, -1.0, f64::NAN] {
            let flow = CurvatureFlow { time_step, ..CurvatureFlow::default() };
            assert!(curvature_flow(&image, &flow).is_err());
        }
    }
}
