//! The Laplacian of a Gaussian and its zero crossings, after Marr & Hildreth, "Theory of edge
//! detection", Proc. R. Soc. London B 207, 1980.
//!
//! The filter is SciPy's `gaussian_laplace`: along each axis in turn the Gaussian's second
//! derivative, the Gaussian along the others, cut at four standard deviations, the nearest voxel
//! repeated beyond the border. The crossings are those of ITK's `ZeroCrossingImageFilter`.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::convolve::convolve;
use super::gaussian::{Gaussian, check_sigma, half_kernel};
use super::neighbourhood::{Space, step_within};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Image, Mask};

/// Which zero crossings are edges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ZeroCrossings {
    /// The Gaussian. Default: 1 mm, over the volume.
    pub gaussian: Gaussian,
    /// The least difference between a voxel and the neighbour on the other side of zero, in
    /// intensity per square millimetre; noise crosses with small ones. Default: 0, as ITK.
    pub contrast: f32,
}

impl Default for ZeroCrossings {
    fn default() -> Self {
        Self { gaussian: Gaussian::default(), contrast: 0.0 }
    }
}

/// Returns the Laplacian of the Gaussian-smoothed image, in intensity per square millimetre. In
/// slices, z is left out.
pub fn laplacian_of_gaussian(image: &Image, parameters: &Gaussian) -> Result<Image, ImagingError> {
    let geometry = image.geometry;
    let used: Vec<usize> = (0..3)
        .filter(|&axis| geometry.size[axis] > 1)
        .filter(|&axis| axis < 2 || parameters.space == Space::Volume)
        .collect();
    let mut kernels = [const { (Vec::new(), Vec::new()) }; 3];
    for &axis in &used {
        let spacing = geometry.spacing_mm[axis];
        let sigma = parameters.sigma_mm / spacing;
        check_sigma("laplacian", sigma)?;
        if sigma <= 0.0 {
            let problem = "sigma_mm is 0; a positive one is needed".to_owned();
            return Err(ImagingError::Parameter { operation: "laplacian", problem });
        }
        let smooth = half_kernel(sigma);
        let curved = smooth.iter().enumerate().map(|(k, &weight)| {
            let per_voxel = (k as f64 / (sigma * sigma)).powi(2) - 1.0 / (sigma * sigma);
            (weight * per_voxel / (spacing * spacing)) as f32
        });
        kernels[axis] = (smooth.iter().map(|&w| w as f32).collect(), curved.collect());
    }
    let mut total = Image::filled(geometry, 0.0);
    for &second in &used {
        let along = [0, 1, 2].map(|axis| {
            let (smooth, curved) = &kernels[axis];
            if axis == second { curved.as_slice() } else { smooth.as_slice() }
        });
        let part = convolve(image, along);
        let pairs = total.voxels.par_iter_mut().zip(&part);
        pairs.with_min_len(1 << 14).for_each(|(total, &part)| *total += part);
    }
    Ok(total)
}

/// Returns the voxels whose value is nearer to zero than that of a face neighbour on the other side
/// of it; of two that are equally near, the one with the lower coordinate.
#[must_use]
pub fn zero_crossings(image: &Image, contrast: f32, space: Space) -> Mask {
    let [width, height, depth] = image.geometry.size;
    let axes = if space == Space::Volume { 3 } else { 2 };
    let strides = [1, width, width * height];
    let crosses = |index: usize, at: [usize; 3]| {
        let here = image.voxels[index];
        let beyond = |axis: usize, step: isize| {
            let length = [width, height, depth][axis];
            if step_within(at[axis], step, length).is_none() {
                return false;
            }
            let there = image.voxels[index.wrapping_add_signed(step * strides[axis] as isize)];
            let opposite = (here < 0.0 && there > 0.0)
                || (here > 0.0 && there < 0.0)
                || (here == 0.0) != (there == 0.0);
            let nearer = here.abs() < there.abs() || (step > 0 && here.abs() <= there.abs());
            opposite && nearer && (there - here).abs() >= contrast
        };
        (0..axes).any(|axis| beyond(axis, -1) || beyond(axis, 1))
    };
    let mut voxels = memory::zeros::<u8>(image.voxels.len());
    voxels.par_chunks_mut(width.max(1)).with_min_len(16).enumerate().for_each(|(row, output)| {
        for (x, output) in output.iter_mut().enumerate() {
            *output = u8::from(crosses(row * width + x, [x, row % height, row / height]));
        }
    });
    Mask { geometry: image.geometry, voxels }
}

/// Returns the edges of the image: the zero crossings of its Laplacian of Gaussian.
pub fn laplacian_edges(image: &Image, parameters: &ZeroCrossings) -> Result<Mask, ImagingError> {
    let filtered = laplacian_of_gaussian(image, &parameters.gaussian)?;
    Ok(zero_crossings(&filtered, parameters.contrast, parameters.gaussian.space))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn a_parabola_has_its_curvature_whatever_the_spacing() {
        let geometry = Geometry::new([48, 24, 16], [0.5, 1.0, 1.5]);
        for (axis, space, expected) in
            [(0, Space::Volume, 6.0), (2, Space::Volume, 6.0), (2, Space::Slice, 0.0)]
        {
            let mut image = Image::filled(geometry, 0.0);
            for (index, value) in image.voxels.iter_mut().enumerate() {
                let at = geometry.position(index)[axis] as f64 - geometry.size[axis] as f64 / 2.0;
                *value = (3.0 * (at * geometry.spacing_mm[axis]).powi(2)) as f32;
            }
            let parameters = Gaussian { sigma_mm: 1.5, space };
            let found = *laplacian_of_gaussian(&image, &parameters).unwrap().at(24, 12, 8);
            assert!((found - expected).abs() < 0.05 * 6.0, "{axis} {space:?}: {found}");
        }
    }

    #[test]
    fn a_step_crosses_zero_once() {
        let mut image = Image::filled(Geometry::unit([20, 5, 5]), 0.0);
        for (index, value) in image.voxels.iter_mut().enumerate() {
            *value = if index % 20 >= 10 { 100.0 } else { 0.0 };
        }
        let parameters = ZeroCrossings { contrast: 1.0, ..ZeroCrossings::default() };
        let edges = laplacian_edges(&image, &parameters).unwrap();
        for row in edges.voxels.chunks(20) {
            assert_eq!(row.iter().sum::<u8>(), 1);
            assert_eq!(row[9] + row[10], 1);
        }
        let none = Gaussian { sigma_mm: 0.0, space: Space::Volume };
        assert!(laplacian_of_gaussian(&image, &none).is_err());
    }
}
