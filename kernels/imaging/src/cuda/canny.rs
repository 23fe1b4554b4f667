//! Canny's edge detector on a device: [`crate::canny`], the same mask, in slices and in space.

use super::connected::Connected;
use super::device::{Argument, Array, Device, Grid, launch};
use super::gradient::{self, Stencil};
use super::{connected, gaussian};
use crate::canny::{Canny, Detector};
use crate::error::ImagingError;
use crate::gaussian::{Gaussian, kernels};
use crate::gradient::Operator;
use crate::neighbourhood::{Connectivity, Space};
use crate::volume::{Geometry, Image, Mask};

/// Returns the edges: lines in each slice, or surfaces in the volume.
pub(crate) fn canny<D: Device>(
    device: &D,
    image: &Image,
    parameters: &Canny,
) -> Result<Mask, ImagingError> {
    parameters.check()?;
    let geometry = &image.geometry;
    let voxels = if parameters.space == Space::Volume && geometry.size[2] > 1 {
        surfaces(device, image, parameters)?
    } else {
        lines(device, image, parameters)?
    };
    Mask::new(*geometry, voxels)
}

/// Returns the lines of each slice.
fn lines<D: Device>(
    device: &D,
    image: &Image,
    parameters: &Canny,
) -> Result<Vec<u8>, ImagingError> {
    let detector = Detector::new(&image.geometry, parameters)?;
    if image.voxels.is_empty() {
        return Ok(Vec::new());
    }
    let grid = Grid::of(&image.geometry)?;
    let voxels = grid.voxels();
    let shares = detector.shares.concat();
    // Smoothing takes two volumes and a kernel; then the smooth one, the strength and the marks.
    device.require((9 * voxels + 4 * shares.len() + 4096) as u64)?;
    let mut smooth = device.upload(&image.voxels)?;
    {
        let mut next = device.array(voxels)?;
        for axis in [1u32, 0] {
            let kernel = &detector.kernels[axis as usize];
            let (weights, radius) = (device.upload(kernel)?, kernel.len() as u32 - 1);
            launch!(
                device,
                "convolve_zeros",
                voxels,
                &smooth,
                &mut next,
                &weights,
                radius,
                axis,
                grid
            )?;
            std::mem::swap(&mut smooth, &mut next);
        }
    }
    let shares = device.upload(&shares)?;
    launch!(device, "make_up", voxels, &mut smooth, &shares, grid)?;
    let mut strength = device.array::<f32>(voxels)?;
    launch!(device, "slope_strength", voxels, &smooth, &mut strength, grid)?;
    let mut marks = device.array(voxels)?;
    let Detector { low, high, .. } = detector;
    launch!(device, "mark_edges", voxels, &smooth, &strength, &mut marks, low, high, grid)?;
    drop((smooth, strength));
    hysteresis(device, marks, grid, Space::Slice)
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
