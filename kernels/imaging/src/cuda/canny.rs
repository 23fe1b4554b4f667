//! Canny's edge detector in space on a device: [`crate::canny`], the same mask.

use super::connected::Connected;
use super::device::{Argument, Array, Device, Grid, launch};
use super::gradient::{self, Stencil};
use super::{connected, gaussian};
use crate::canny::Canny;
use crate::error::ImagingError;
use crate::gaussian::{Gaussian, kernels};
use crate::gradient::Operator;
use crate::neighbourhood::{Connectivity, Space};
use crate::volume::{Geometry, Image, Mask};

/// Returns the edges: surfaces in the volume. Lines in slices are left to the processor.
pub(crate) fn canny<D: Device>(
    device: &D,
    image: &Image,
    parameters: &Canny,
) -> Result<Mask, ImagingError> {
    parameters.check()?;
    let geometry = &image.geometry;
    if parameters.space == Space::Slice || geometry.size[2] < 2 {
        let problem = "edges in slices are found on the processor".to_owned();
        return Err(ImagingError::Device { problem });
    }
    let voxels = surfaces(device, image, parameters)?;
    Mask::new(*geometry, voxels)
}

/// Returns the surfaces of a volume of more than one slice.
fn surfaces<D: Device>(
    device: &D,
    image: &Image,
    parameters: &Canny,
) -> Result<Vec<u8>, ImagingError> {
    let (geometry, grid) = (&image.geometry, Grid::of(&image.geometry)?);
    let blur = Gaussian { sigma_mm: parameters.sigma_mm, space: Space::Volume };
    let [low, high] = parameters.gradients(geometry.spacing_mm);
    let kernels = kernels(geometry, &blur)?;
    // Smoothing takes two volumes; then the smooth one, the gradient's strength and the marks.
    device.require(9 * image.voxels.len() as u64 + 4096)?;
    let smooth = gaussian::smooth(device, device.upload(&image.voxels)?, grid, &kernels)?;
    let stencil = Stencil::new(geometry, Operator::Sobel, Space::Volume);
    let strength = gradient::strength(device, &smooth, grid, stencil)?;
    let mut marks = device.array(grid.voxels())?;
    let spacing = Spacing::of(geometry);
    launch!(
        device,
        "mark_surfaces",
        grid.voxels(),
        &smooth,
        &strength,
        &mut marks,
        stencil,
        spacing,
        low,
        high,
        grid
    )?;
    drop((smooth, strength));
    hysteresis(device, marks, grid, Space::Volume)
}

/// Returns the marked voxels joined over all neighbours to one that is marked strong.
fn hysteresis<D: Device>(
    device: &D,
    mut marks: Array<D::Memory, u8>,
    grid: Grid,
    space: Space,
) -> Result<Vec<u8>, ImagingError> {
    let mut parents = connected::accept_mask(device, &marks, grid)?;
    let connected = Connected { connectivity: Connectivity::Full, space, grid };
    connected.unite(device, &mut parents)?;
    launch!(device, "mark_strong", grid.voxels(), &mut parents, &marks, grid)?;
    launch!(device, "paint_marked", grid.voxels(), &parents, &mut marks, grid)?;
    device.download(&marks)
}

/// The spacing of a grid, as kernels want it.
struct Spacing([f32; 3]);

impl Spacing {
    fn of(geometry: &Geometry) -> Self {
        Self(geometry.spacing_mm.map(|spacing| spacing as f32))
    }
}

impl<M> From<Spacing> for Argument<'_, M> {
    fn from(spacing: Spacing) -> Self {
        Self::value("Spacing", &spacing.0)
    }
}
