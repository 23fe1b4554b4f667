//! Gaussian smoothing.
//!
//! Separable convolution with a sampled Gaussian that ends at four standard deviations, as SciPy's
//! `gaussian_filter`; beyond the border the nearest voxel is repeated. An axis of one voxel is left
//! alone.

use serde::{Deserialize, Serialize};

use super::convolve::convolve;
use super::neighbourhood::Space;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image};

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
    let kernels = kernels(&image.geometry, parameters)?;
    let voxels = convolve(image, kernels.each_ref().map(Vec::as_slice));
    Ok(Image { geometry: image.geometry, voxels })
}

/// The axes in the order in which they are smoothed along: results differ in their last bits by it.
pub(crate) const ORDER: [usize; 3] = [1, 0, 2];

/// Returns for each axis the kernel to convolve with, from its centre out; an empty one where the
/// axis is left alone.
pub(crate) fn kernels(
    geometry: &Geometry,
    parameters: &Gaussian,
) -> Result<[Vec<f32>; 3], ImagingError> {
    let mut kernels = [const { Vec::new() }; 3];
    for axis in 0..3 {
        let sigma = parameters.sigma_mm / geometry.spacing_mm[axis];
        check_sigma("gaussian", sigma)?;
        let skip = axis == 2 && parameters.space == Space::Slice;
        if !skip && sigma > 0.0 && geometry.size[axis] > 1 {
            kernels[axis] = half_kernel(sigma).into_iter().map(|weight| weight as f32).collect();
        }
    }
    Ok(kernels)
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

/// Returns the weights of a normalised Gaussian from its centre outwards.
pub(super) fn half_kernel(sigma_voxels: f64) -> Vec<f64> {
    let radius = (TRUNCATE * sigma_voxels + 0.5) as usize;
    let weight = |k: usize| (-0.5 * (k as f64 / sigma_voxels).powi(2)).exp();
    let total: f64 = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
    (0..=radius).map(|k| weight(k) / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
