//! Gaussian smoothing on a device: [`crate::gaussian`], the same bits.

use super::device::{Array, Device, Grid, launch};
use crate::error::ImagingError;
use crate::gaussian::{Gaussian, ORDER, kernels};
use crate::volume::Image;

/// Returns the bytes of device memory that [`gaussian`] takes.
pub(super) fn bytes(voxels: u64) -> u64 {
    // The image, the smoothed one, and a kernel.
    2 * 4 * voxels + 4096
}

/// Returns the image convolved with a Gaussian.
pub(crate) fn gaussian<D: Device>(
    device: &D,
    image: &Image,
    parameters: &Gaussian,
) -> Result<Image, ImagingError> {
    let kernels = kernels(&image.geometry, parameters)?;
    device.require(bytes(image.voxels.len() as u64))?;
    let smoothed =
        smooth(device, device.upload(&image.voxels)?, Grid::of(&image.geometry)?, &kernels)?;
    Image::new(image.geometry, device.download(&smoothed)?)
}

/// Returns an image in the device's memory convolved along each axis with its kernel.
pub(super) fn smooth<D: Device>(
    device: &D,
    mut image: Array<D::Memory, f32>,
    grid: Grid,
    kernels: &[Vec<f32>; 3],
) -> Result<Array<D::Memory, f32>, ImagingError> {
    if kernels.iter().all(Vec::is_empty) {
        return Ok(image);
    }
    let mut next = device.array(grid.voxels())?;
    for axis in ORDER.into_iter().filter(|&axis| !kernels[axis].is_empty()) {
        let kernel = &kernels[axis];
        let (weights, radius) = (device.upload(kernel)?, kernel.len() as u32 - 1);
        launch!(
            device,
            "convolve_nearest",
            grid.voxels(),
            &image,
            &mut next,
            &weights,
            radius,
            axis as u32,
            grid
        )?;
        std::mem::swap(&mut image, &mut next);
    }
    Ok(image)
}
