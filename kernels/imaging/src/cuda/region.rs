//! Neighbourhood connected and confidence connected on a device: [`crate::region`], the same masks and
//! limits.

use super::connected::{Connected, accept_mask};
use super::device::{Array, Device, Grid, launch};
use crate::error::ImagingError;
use crate::neighbourhood::{Connectivity, Space};
use crate::region::{
    self, ConfidenceConnected, ConfidenceRegion, Growing, Moments, NeighbourhoodConnected, Voxel,
};
use crate::volume::{Image, Mask};

/// Returns the voxels, face-connected to a seed, whose whole neighbourhood lies within the limits, and
/// the seeds.
pub(crate) fn neighbourhood_connected<D: Device>(
    device: &D,
    image: &Image,
    seeds: &[Voxel],
    parameters: &NeighbourhoodConnected,
) -> Result<Mask, ImagingError> {
    let NeighbourhoodConnected { lower, upper, radius_voxels } = *parameters;
    let seeds = region::neighbourhood_seeds(&image.geometry, seeds, parameters)?;
    let seeds: Vec<u32> = seeds.into_iter().map(|index| index as u32).collect();
    let grid = Grid::of(&image.geometry)?;
    let voxels = grid.voxels();
    // The image and which voxels pass; then that, the trees and the seeds; then these and the mask.
    device.require((5 * voxels + 4 * seeds.len()) as u64)?;
    let mut passes = {
        let (input, mut passes) = (device.upload(&image.voxels)?, device.array(voxels)?);
        launch!(device, "pass_range", voxels, &input, &mut passes, lower, upper, grid)?;
        passes
    };
    {
        let mut next = device.array::<u8>(voxels)?;
        let radius = radius_voxels as u32;
        for axis in 0..3u32 {
            launch!(device, "pass_all_along", voxels, &passes, &mut next, radius, axis, grid)?;
            std::mem::swap(&mut passes, &mut next);
        }
    }
    let (count, seeds) = (seeds.len() as u32, device.upload(&seeds)?);
    launch!(device, "pass_seeds", count as usize, &mut passes, &seeds, count)?;
    let mut parents = accept_mask(device, &passes, grid)?;
    drop(passes);
    let mask = reached(device, &mut parents, (&seeds, count), grid)?;
    Mask::new(image.geometry, device.download(&mask)?)
}

/// Returns the region grown from the seeds within limits that follow from the region before.
pub(crate) fn confidence_connected<D: Device>(
    device: &D,
    image: &Image,
    seeds: &[Voxel],
    parameters: &ConfidenceConnected,
) -> Result<ConfidenceRegion, ImagingError> {
    region::confidence(image, seeds, parameters, |indices| {
        let grid = Grid::of(&image.geometry)?;
        let rows = grid.rows();
        // The image, the trees and the mask; then the image, the mask and what rows hold; the seeds.
        let bytes = 5 * grid.voxels() + (4 * grid.voxels()).max(20 * rows) + 4 * indices.len();
        device.require(bytes as u64)?;
        let seeds: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
        let (count, seeds) = (seeds.len() as u32, device.upload(&seeds)?);
        Ok(OnDevice { device, voxels: device.upload(&image.voxels)?, seeds, count, image, grid })
    })
}

/// An image in a device's memory, and the seeds from which regions grow in it.
struct OnDevice<'a, D: Device> {
    device: &'a D,
    voxels: Array<D::Memory, f32>,
    seeds: Array<D::Memory, u32>,
    count: u32,
    image: &'a Image,
    grid: Grid,
}

impl<D: Device> Growing for OnDevice<'_, D> {
    type Region = Array<D::Memory, u8>;

    fn grow(&self, (lower, upper): (f32, f32)) -> Result<Self::Region, ImagingError> {
        let Self { device, grid, .. } = *self;
        let mut parents = device.array(grid.voxels())?;
        launch!(
            device,
            "accept_range",
            grid.voxels(),
            &self.voxels,
            &mut parents,
            lower,
            upper,
            grid
        )?;
        reached(device, &mut parents, (&self.seeds, self.count), grid)
    }

    fn moments(&self, region: &Self::Region) -> Result<Moments, ImagingError> {
        let Self { device, grid, .. } = *self;
        let rows = grid.rows();
        let (mut counts, mut sums) = (device.array::<u32>(rows)?, device.array::<f64>(2 * rows)?);
        launch!(
            device,
            "moments_of_rows",
            rows,
            &self.voxels,
            region,
            &mut counts,
            &mut sums,
            grid
        )?;
        let (counts, sums) = (device.download(&counts)?, device.download(&sums)?);
        let of_row = |(&count, sums): (&u32, &[f64; 2])| Moments {
            count: f64::from(count),
            sum: sums[0],
            sum_of_squares: sums[1],
        };
        Ok(counts.iter().zip(sums.as_chunks::<2>().0).map(of_row).sum())
    }

    fn paint(&self, region: Self::Region) -> Result<Mask, ImagingError> {
        Mask::new(self.image.geometry, self.device.download(&region)?)
    }
}

/// Returns the accepted voxels that are face-connected to a seed.
fn reached<D: Device>(
    device: &D,
    parents: &mut Array<D::Memory, u32>,
    (seeds, count): (&Array<D::Memory, u32>, u32),
    grid: Grid,
) -> Result<Array<D::Memory, u8>, ImagingError> {
    let connected = Connected { connectivity: Connectivity::Face, space: Space::Volume, grid };
    connected.unite(device, parents)?;
    launch!(device, "mark_seeds", count as usize, &mut *parents, seeds, count)?;
    let mut mask = device.array(grid.voxels())?;
    launch!(device, "paint_marked", grid.voxels(), &*parents, &mut mask, grid)?;
    Ok(mask)
}
