//! Gaussian smoothing.
//!
//! Separable convolution with a sampled Gaussian that ends at four standard deviations, as SciPy's
//! `gaussian_filter`; beyond the border the nearest voxel is repeated. An axis of one voxel is left
//! alone. Each output row is a sum over input rows (or over shifts of one row), in one fixed order,
//! so that the compiler can vectorise it and the result does not depend on threads.

use std::ops::{Add, Mul};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::{Space, step_clamped, step_within};
use crate::error::ImagingError;
use crate::volume::{Image, Volume};

/// The largest standard deviation in voxels of an axis; beyond it, resample first.
pub const SIGMA_VOXELS_MAX: f64 = 100.0;

/// Where a sampled Gaussian ends, in standard deviations.
const TRUNCATE: f64 = 4.0;

/// How to smooth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gaussian {
    /// The standard deviation in millimetres, along every axis. Default: 1 mm.
    pub sigma_mm: f64,
    /// Over the volume or within each slice. Default: over the volume.
    pub space: Space,
}

impl Default for Gaussian {
    fn default() -> Self {
        Self { sigma_mm: 1.0, space: Space::Volume }
    }
}

/// Returns the image convolved with a Gaussian.
pub fn gaussian(image: &Image, parameters: &Gaussian) -> Result<Image, ImagingError> {
    let spacing_mm = image.geometry.spacing_mm;
    let mut smoothed = image.clone();
    for axis in 0..3 {
        let sigma = parameters.sigma_mm / spacing_mm[axis];
        check_sigma("gaussian", sigma)?;
        let skip = axis == 2 && parameters.space == Space::Slice;
        if skip || sigma == 0.0 || image.geometry.size[axis] < 2 {
            continue;
        }
        let kernel: Vec<f32> = half_kernel(sigma).into_iter().map(|w| w as f32).collect();
        smoothed.voxels = convolve(&smoothed, axis, &kernel, Outside::Nearest);
    }
    Ok(smoothed)
}

/// Returns an error unless a standard deviation, in voxels, is one that can be worked with.
pub(super) fn check_sigma(operation: &'static str, sigma_voxels: f64) -> Result<(), ImagingError> {
    if (0.0..=SIGMA_VOXELS_MAX).contains(&sigma_voxels) {
        return Ok(());
    }
    Err(ImagingError::Parameter {
        operation,
        problem: format!(
            "sigma_mm comes to {sigma_voxels} voxels; it must lie between 0 and {SIGMA_VOXELS_MAX}"
        ),
    })
}

/// What a convolution sees beyond the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    /// The nearest voxel.
    Nearest,
    /// Zero.
    Zero,
}

/// Returns the weights of a normalised Gaussian from its centre outwards.
pub(super) fn half_kernel(sigma_voxels: f64) -> Vec<f64> {
    let radius = (TRUNCATE * sigma_voxels + 0.5) as usize;
    let weight = |k: usize| (-0.5 * (k as f64 / sigma_voxels).powi(2)).exp();
    let total: f64 = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
    (0..=radius).map(|k| weight(k) / total).collect()
}

/// Returns the voxels convolved along one axis with a symmetric kernel, given from its centre out.
pub(super) fn convolve<T>(
    volume: &Volume<T>,
    axis: usize,
    half_kernel: &[T],
    outside: Outside,
) -> Vec<T>
where
    T: Copy + Default + Send + Sync + Add<Output = T> + Mul<Output = T>,
{
    let [width, height, depth] = volume.geometry.size;
    let mut output = vec![T::default(); volume.voxels.len()];
    let rows = output.par_chunks_mut(width.max(1)).with_min_len(16).enumerate();
    let row_at = |row: usize| &volume.voxels[row * width..(row + 1) * width];
    if axis == 0 {
        let radius = half_kernel.len() - 1;
        rows.for_each_init(Vec::new, |padded, (row, output)| {
            pad(row_at(row), radius, outside, padded);
            for (value, &centre) in output.iter_mut().zip(&padded[radius..]) {
                *value = centre * half_kernel[0];
            }
            for (k, &weight) in half_kernel.iter().enumerate().skip(1) {
                add_pair(output, &padded[radius - k..], &padded[radius + k..], weight);
            }
        });
        return output;
    }
    let zeros = vec![T::default(); width];
    rows.for_each(|(row, output)| {
        let (y, z) = (row % height, row / height);
        let at = |step: isize| {
            let (along, length) = if axis == 1 { (y, height) } else { (z, depth) };
            let to = match outside {
                Outside::Nearest => step_clamped(along, step, length),
                Outside::Zero => match step_within(along, step, length) {
                    Some(to) => to,
                    None => return zeros.as_slice(),
                },
            };
            row_at(if axis == 1 { z * height + to } else { to * height + y })
        };
        for (value, &centre) in output.iter_mut().zip(row_at(row)) {
            *value = centre * half_kernel[0];
        }
        for (k, &weight) in half_kernel.iter().enumerate().skip(1) {
            add_pair(output, at(-(k as isize)), at(k as isize), weight);
        }
    });
    output
}

/// Fills `padded` with the row and `radius` values beyond each of its ends.
fn pad<T: Copy + Default>(row: &[T], radius: usize, outside: Outside, padded: &mut Vec<T>) {
    let ends = match outside {
        Outside::Nearest => [row[0], row[row.len() - 1]],
        Outside::Zero => [T::default(); 2],
    };
    padded.clear();
    padded.extend(std::iter::repeat_n(ends[0], radius));
    padded.extend_from_slice(row);
    padded.extend(std::iter::repeat_n(ends[1], radius));
}

/// Adds `(left + right) * weight` to the output, element by element.
fn add_pair<T>(output: &mut [T], left: &[T], right: &[T], weight: T)
where
    T: Copy + Add<Output = T> + Mul<Output = T>,
{
    for ((value, &left), &right) in output.iter_mut().zip(left).zip(right) {
        *value = *value + (left + right) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn an_impulse_becomes_the_kernel_along_every_axis() {
        let geometry = Geometry::new([21, 21, 21], [1.0, 2.0, 4.0]);
        let mut image = Image::filled(geometry, 0.0);
        let centre = geometry.index(10, 10, 10);
        image.voxels[centre] = 1.0;
        let smoothed = gaussian(&image, &Gaussian { sigma_mm: 2.0, space: Space::Volume }).unwrap();
        let total: f32 = smoothed.voxels.iter().sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        // The same distance in millimetres gives the same value, whatever the spacing: compared
        // within the accuracy with which a sampled Gaussian of half a voxel is one.
        let ratio = |index: usize| smoothed.voxels[index] / smoothed.voxels[centre];
        let along_x = ratio(geometry.index(14, 10, 10));
        assert!((along_x - ratio(geometry.index(10, 12, 10))).abs() < 1e-5);
        assert!((along_x - ratio(geometry.index(10, 10, 11))).abs() < 1e-5);
    }

    #[test]
    fn a_constant_stays_and_a_slice_does_not_reach_the_next() {
        let geometry = Geometry::unit([7, 5, 3]);
        let constant = Image::filled(geometry, 40.0);
        let wide = Gaussian { sigma_mm: 3.0, space: Space::Volume };
        for value in gaussian(&constant, &wide).unwrap().voxels {
            assert!((value - 40.0).abs() < 1e-4);
        }
        let mut image = constant;
        image.voxels[geometry.index(3, 2, 1)] = 1e6;
        let smoothed = gaussian(&image, &Gaussian { space: Space::Slice, ..wide }).unwrap();
        assert!(smoothed.slice(0).iter().all(|value| (value - 40.0).abs() < 1e-4));
    }

    #[test]
    fn refuses_a_sigma_out_of_range() {
        let image = Image::filled(Geometry::unit([3, 3, 1]), 0.0);
        for sigma_mm in [-1.0, f64::NAN, 1e9] {
            assert!(gaussian(&image, &Gaussian { sigma_mm, ..Gaussian::default() }).is_err());
        }
    }
}
