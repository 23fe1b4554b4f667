//! Smoothing that stops at edges: anisotropic diffusion.
//!
//! Values flow between neighbours the less, the greater the gradient between them is, after Perona &
//! Malik, "Scale-space and edge detection using anisotropic diffusion", IEEE PAMI 12(7), 1990, in
//! the discretisation of ITK's `GradientAnisotropicDiffusionImageFilter`: the conductance is
//! exp(−|∇|² / (2 · conductance² · mean |∇|²)), the mean taken anew before each step.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::step_clamped;
use crate::error::ImagingError;
use crate::memory;
use crate::volume::Image;

/// The most iterations.
pub const ITERATIONS_MAX: usize = 1000;

/// How far values diffuse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AnisotropicDiffusion {
    /// The step in time; for stability at most the smallest spacing over 2³ in slices or 2⁴ in
    /// volumes. Default: 0.0625.
    pub time_step: f64,
    /// How strong a gradient may be, relative to the mean one, before it is kept. Default: 3, as
    /// `SimpleITK`.
    pub conductance: f64,
    /// The number of steps. Default: 5, as ITK.
    pub iterations: usize,
}

impl Default for AnisotropicDiffusion {
    fn default() -> Self {
        Self { time_step: 0.0625, conductance: 3.0, iterations: 5 }
    }
}

/// Returns the image after diffusion.
pub fn anisotropic_diffusion(
    image: &Image,
    parameters: &AnisotropicDiffusion,
) -> Result<Image, ImagingError> {
    let AnisotropicDiffusion { time_step, conductance, iterations } = *parameters;
    let sound = time_step > 0.0 && conductance > 0.0 && (time_step * conductance).is_finite();
    if !sound || iterations > ITERATIONS_MAX {
        return Err(ImagingError::Parameter {
            operation: "anisotropic_diffusion",
            problem: format!(
                "time_step is {time_step}, conductance {conductance}, iterations {iterations}; the \
                 first two must be positive, the iterations at most {ITERATIONS_MAX}"
            ),
        });
    }
    let mut current = image.clone();
    for _ in 0..iterations {
        let grid = Grid { image: &current };
        let mean = grid.mean_square_gradient();
        let scale = -1.0 / (2.0 * conductance * conductance * mean);
        let next = grid.each(|grid, at| {
            let delta = if mean > 0.0 { grid.flow(at, scale) } else { 0.0 };
            (grid.value(at, [0; 3]) + time_step * delta) as f32
        });
        current.voxels = next;
    }
    Ok(current)
}

/// An image whose nearest voxel stands for what is beyond its border.
struct Grid<'a> {
    image: &'a Image,
}

impl Grid<'_> {
    fn value(&self, at: [usize; 3], step: [isize; 3]) -> f64 {
        let size = self.image.geometry.size;
        let [x, y, z] = [0, 1, 2].map(|axis| step_clamped(at[axis], step[axis], size[axis]));
        f64::from(*self.image.at(x, y, z))
    }

    fn each<T: Send + Default + Copy>(&self, of: impl Fn(&Self, [usize; 3]) -> T + Sync) -> Vec<T> {
        let [width, height, _] = self.image.geometry.size;
        let mut output = memory::zeros::<T>(self.image.voxels.len());
        output.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, output)| {
            for (x, output) in output.iter_mut().enumerate() {
                *output = of(self, [x, row % height, row / height]);
            }
        });
        output
    }

    /// Returns the mean of the squared central differences, per millimetre, of finite voxels.
    fn mean_square_gradient(&self) -> f64 {
        let [width, height, _] = self.image.geometry.size;
        let rows: Vec<(f64, f64)> = (0..self.image.voxels.len() / width.max(1))
            .into_par_iter()
            .map(|row| {
                (0..width).fold((0.0, 0.0), |(sum, count), x| {
                    let at = [x, row % height, row / height];
                    let square: f64 =
                        (0..3).map(|axis| self.central(at, axis, [0; 3]).powi(2)).sum();
                    if square.is_finite() { (sum + square, count + 1.0) } else { (sum, count) }
                })
            })
            .collect();
        let (sum, count) = rows.iter().fold((0.0, 0.0), |all, row| (all.0 + row.0, all.1 + row.1));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// Returns the central difference along an axis, per millimetre, at a voxel beside `at`.
    fn central(&self, at: [usize; 3], axis: usize, beside: [isize; 3]) -> f64 {
        let (mut before, mut after) = (beside, beside);
        before[axis] -= 1;
        after[axis] += 1;
        (self.value(at, after) - self.value(at, before))
            / 2.0
            / self.image.geometry.spacing_mm[axis]
    }

    /// Returns how fast a voxel's value changes.
    fn flow(&self, at: [usize; 3], scale: f64) -> f64 {
        let size = self.image.geometry.size;
        let centre = self.value(at, [0; 3]);
        let mut delta = 0.0;
        for axis in (0..3).filter(|&axis| size[axis] > 1) {
            for sign in [1, -1] {
                let mut beside = [0; 3];
                beside[axis] = sign;
                let step = (self.value(at, beside) - centre) / self.image.geometry.spacing_mm[axis];
                let across: f64 = (0..3)
                    .filter(|&other| other != axis && size[other] > 1)
                    .map(|other| {
                        let sum = self.central(at, other, [0; 3]) + self.central(at, other, beside);
                        0.25 * sum * sum
                    })
                    .sum();
                delta += step * ((step * step + across) * scale).exp();
            }
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn noise_goes_and_the_edge_stays() {
        let geometry = Geometry::unit([32, 32, 1]);
        let voxels = (0..geometry.voxels()).map(|index| {
            let noise = ((index * 7919) % 13) as f32 - 6.0;
            noise + if index % 32 < 16 { 0.0 } else { 200.0 }
        });
        let image = Image::new(geometry, voxels.collect()).unwrap();
        let parameters =
            AnisotropicDiffusion { time_step: 0.125, conductance: 1.0, iterations: 20 };
        let smooth = anisotropic_diffusion(&image, &parameters).unwrap();
        let spread = |image: &Image| {
            let side: Vec<f32> =
                (0..32 * 32).filter(|i| i % 32 < 13).map(|i| image.voxels[i]).collect();
            side.iter().copied().fold(f32::MIN, f32::max)
                - side.iter().copied().fold(f32::MAX, f32::min)
        };
        assert!(spread(&smooth) < spread(&image) / 3.0);
        let step = smooth.at(17, 16, 0) - smooth.at(14, 16, 0);
        assert!(step > 180.0, "{step}");
    }

    #[test]
    fn a_constant_stays_and_nonsense_is_refused() {
        let image = Image::filled(Geometry::new([4, 4, 4], [0.5, 1.0, 2.0]), 7.0);
        let default = AnisotropicDiffusion::default();
        assert_eq!(anisotropic_diffusion(&image, &default).unwrap(), image);
        for time_step in [0.0, f64::NAN, -1.0] {
            let wrong = AnisotropicDiffusion { time_step, ..default };
            assert!(anisotropic_diffusion(&image, &wrong).is_err());
        }
    }
}
