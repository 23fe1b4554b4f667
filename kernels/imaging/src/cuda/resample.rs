//! Resampling on a device: [`crate::resample`], the same bits.

use super::device::{Argument, Device, Grid, launch};
use crate::error::ImagingError;
use crate::resample::to_voxels;
use crate::volume::{Geometry, Image, Mask};

/// Returns the image on another grid, linearly interpolated; `outside` where there is nothing of it.
pub(crate) fn image_onto<D: Device>(
    device: &D,
    image: &Image,
    grid: &Geometry,
    outside: f32,
) -> Result<Image, ImagingError> {
    let placement = Placement::new(&image.geometry, grid)?;
    let (source, target) = (Grid::of(&image.geometry)?, Grid::of(grid)?);
    if source.voxels() == 0 {
        return Ok(Image::filled(*grid, outside));
    }
    device.require(4 * (source.voxels() + target.voxels()) as u64)?;
    let input = device.upload(&image.voxels)?;
    let mut output = device.array(target.voxels())?;
    launch!(
        device,
        "resample_linear",
        target.voxels(),
        &input,
        &mut output,
        placement,
        outside,
        source,
        target
    )?;
    Image::new(*grid, device.download(&output)?)
}

/// Returns the mask on another grid, each voxel with the nearest label; 0 where there is none.
pub(crate) fn mask_onto<D: Device>(
    device: &D,
    mask: &Mask,
    grid: &Geometry,
) -> Result<Mask, ImagingError> {
    let placement = Placement::new(&mask.geometry, grid)?;
    let (source, target) = (Grid::of(&mask.geometry)?, Grid::of(grid)?);
    if source.voxels() == 0 {
        return Ok(Mask::filled(*grid, 0));
    }
    device.require((source.voxels() + target.voxels()) as u64)?;
    let input = device.upload(&mask.voxels)?;
    let mut output = device.array(target.voxels())?;
    launch!(
        device,
        "resample_nearest",
        target.voxels(),
        &input,
        &mut output,
        placement,
        source,
        target
    )?;
    Mask::new(*grid, device.download(&output)?)
}

/// Where the voxels of one grid lie in another, as kernels want it.
struct Placement([f64; 27]);

impl Placement {
    fn new(source: &Geometry, grid: &Geometry) -> Result<Self, ImagingError> {
        grid.check()?;
        let mut numbers = [0.0; 27];
        let parts = [
            to_voxels(source)?.as_flattened(),
            &source.origin_mm,
            &grid.origin_mm,
            &grid.spacing_mm,
            grid.direction.as_flattened(),
        ]
        .concat();
        numbers.copy_from_slice(&parts);
        Ok(Self(numbers))
    }
}

impl<M> From<Placement> for Argument<'_, M> {
    fn from(placement: Placement) -> Self {
        Self::value("Placement", &placement.0)
    }
}
