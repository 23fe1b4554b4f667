//! The gradient's magnitude on a device: [`crate::gradient`], the same bits.

use super::device::{Argument, Array, Device, Grid, launch};
use crate::error::ImagingError;
use crate::gradient::{Operator, Scheme};
use crate::neighbourhood::Space;
use crate::volume::{Geometry, Image};

/// Returns the bytes of device memory that [`magnitude`] takes.
pub(super) fn bytes(voxels: u64) -> u64 {
    // The image and the magnitude.
    2 * 4 * voxels
}

/// Returns the magnitude of the gradient in intensity per millimetre.
pub(crate) fn magnitude<D: Device>(
    device: &D,
    image: &Image,
    operator: Operator,
    space: Space,
) -> Result<Image, ImagingError> {
    device.require(bytes(image.voxels.len() as u64))?;
    let stencil = Stencil::new(&image.geometry, operator, space);
    let input = device.upload(&image.voxels)?;
    let output = strength(device, &input, Grid::of(&image.geometry)?, stencil)?;
    Image::new(image.geometry, device.download(&output)?)
}

/// Returns the magnitude of the gradient of an image in the device's memory.
pub(super) fn strength<D: Device>(
    device: &D,
    image: &Array<D::Memory, f32>,
    grid: Grid,
    stencil: Stencil,
) -> Result<Array<D::Memory, f32>, ImagingError> {
    let mut output = device.array(grid.voxels())?;
    let deep = stencil.deep;
    launch!(device, "gradient_magnitude", grid.voxels(), image, &mut output, stencil, deep, grid)?;
    Ok(output)
}

/// How a gradient is taken, as kernels want it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stencil {
    numbers: [f32; 5],
    pub(super) deep: u32,
}

impl Stencil {
    pub(super) fn new(geometry: &Geometry, operator: Operator, space: Space) -> Self {
        let Scheme { weights: (side, middle), scale: [x, y, z], deep } =
            Scheme::new(geometry, operator, space);
        Self { numbers: [side, middle, x, y, z], deep: u32::from(deep) }
    }
}

impl<M> From<Stencil> for Argument<'_, M> {
    fn from(stencil: Stencil) -> Self {
        Self::value("Stencil", &stencil.numbers)
    }
}
