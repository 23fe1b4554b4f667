//! Connected components and region growing on a device: [`crate::components`] and
//! [`crate::region::connected_threshold`], the same numbers and masks.

use super::device::{Array, BLOCK, Device, Grid, launch};
use crate::components::{Component, Components, Filter, kept};
use crate::error::ImagingError;
use crate::neighbourhood::{Connectivity, Space};
use crate::region::{self, ConnectedThreshold, Voxel};
use crate::volume::{Image, Mask, Volume};

/// What is connected to what on a grid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connected {
    pub(super) connectivity: Connectivity,
    pub(super) space: Space,
    pub(super) grid: Grid,
}

impl Connected {
    /// Hangs every accepted voxel below the first voxel of its component.
    pub(super) fn unite<D: Device>(
        self,
        device: &D,
        parents: &mut Array<D::Memory, u32>,
    ) -> Result<(), ImagingError> {
        let Self { connectivity, space, grid } = self;
        let steps_max = match connectivity {
            Connectivity::Face => 1u32,
            Connectivity::Edge => 2,
            Connectivity::Full => 3,
        };
        let deep = u32::from(space == Space::Volume);
        launch!(device, "unite_neighbours", grid.voxels(), &mut *parents, steps_max, deep, grid)?;
        launch!(device, "flatten", grid.voxels(), parents, grid)
    }
}

/// Returns the trees of a mask's voxels, none of them united yet.
pub(super) fn accept_mask<D: Device>(
    device: &D,
    mask: &Array<D::Memory, u8>,
    grid: Grid,
) -> Result<Array<D::Memory, u32>, ImagingError> {
    let mut parents = device.array(grid.voxels())?;
    launch!(device, "accept_mask", grid.voxels(), mask, &mut parents, grid)?;
    Ok(parents)
}

/// Returns the voxels with `lower` ≤ value ≤ `upper` that are connected to a seed.
pub(crate) fn connected_threshold<D: Device>(
    device: &D,
    image: &Image,
    seeds: &[Voxel],
    parameters: &ConnectedThreshold,
) -> Result<Mask, ImagingError> {
    let ConnectedThreshold { lower, upper, connectivity } = *parameters;
    let seeds = region::indices(&image.geometry, seeds, "connected_threshold")?;
    let seeds: Vec<u32> = seeds.into_iter().map(|index| index as u32).collect();
    let grid = Grid::of(&image.geometry)?;
    // The image and the trees; then the trees, the mask and the seeds.
    device.require((8 * grid.voxels() + 4 * seeds.len()) as u64)?;
    let voxels = device.upload(&image.voxels)?;
    let mut parents = device.array(grid.voxels())?;
    launch!(device, "accept_range", grid.voxels(), &voxels, &mut parents, lower, upper, grid)?;
    drop(voxels);
    let connected = Connected { connectivity, space: Space::Volume, grid };
    connected.unite(device, &mut parents)?;
    let (count, seeds) = (seeds.len() as u32, device.upload(&seeds)?);
    launch!(device, "mark_seeds", count as usize, &mut parents, &seeds, count)?;
    let mut mask = device.array(grid.voxels())?;
    launch!(device, "paint_marked", grid.voxels(), &parents, &mut mask, grid)?;
    Mask::new(image.geometry, device.download(&mask)?)
}

/// Returns the connected components of the voxels whose label is not 0.
pub(crate) fn label<D: Device>(
    device: &D,
    mask: &Mask,
    connectivity: Connectivity,
) -> Result<Components, ImagingError> {
    let mut numbered = Numbered::of(device, mask, connectivity, Space::Volume)?;
    let grid = numbered.grid;
    launch!(device, "numbers_to_labels", grid.voxels(), &mut numbered.numbers, grid)?;
    let labels = Volume::new(mask.geometry, device.download(&numbered.numbers)?)?;
    Ok(Components { labels, list: numbered.list })
}

/// Returns the mask without the components that the filter drops.
pub(crate) fn filter<D: Device>(
    device: &D,
    mask: &Mask,
    filter: &Filter,
) -> Result<Mask, ImagingError> {
    let numbered = Numbered::of(device, mask, filter.connectivity, filter.space)?;
    let grid = numbered.grid;
    let kept = device.upload(&kept(&numbered.list, filter, &mask.geometry))?;
    let mut output = device.array(grid.voxels())?;
    launch!(device, "paint_kept", grid.voxels(), &numbered.numbers, &kept, &mut output, grid)?;
    Mask::new(mask.geometry, device.download(&output)?)
}

/// The components of a mask, numbered in the raster order of their first voxels.
struct Numbered<M> {
    numbers: Array<M, u32>,
    list: Vec<Component>,
    grid: Grid,
}

impl<M> Numbered<M> {
    fn of<D: Device<Memory = M>>(
        device: &D,
        mask: &Mask,
        connectivity: Connectivity,
        space: Space,
    ) -> Result<Self, ImagingError> {
        let grid = Grid::of(&mask.geometry)?;
        let voxels = grid.voxels();
        // The numbers, the mask or the result, and of at most every second voxel a component with
        // its two measures and whether it is kept; the sums of blocks.
        let components_max = voxels / 2 + 1;
        let blocks = voxels.div_ceil(BLOCK as usize);
        device.require((5 * voxels + 9 * components_max + 4 * (blocks + 1)) as u64)?;
        let mut parents = accept_mask(device, &device.upload(&mask.voxels)?, grid)?;
        Connected { connectivity, space, grid }.unite(device, &mut parents)?;
        let count = number(device, &mut parents, grid)?;
        let mut counts = device.upload(&vec![0u32; count])?;
        let mut touches = device.upload(&vec![0u32; count])?;
        launch!(device, "measure", voxels, &parents, &mut counts, &mut touches, grid)?;
        let measures = device.download(&counts)?.into_iter().zip(device.download(&touches)?);
        let list = measures.map(|(voxels, touches)| Component {
            voxels: voxels as usize,
            touches_sides: touches & 1 != 0,
            touches_ends: touches & 2 != 0,
        });
        Ok(Self { numbers: parents, list: list.collect(), grid })
    }
}

/// Replaces each voxel's root by its component's number; returns how many there are.
fn number<D: Device>(
    device: &D,
    parents: &mut Array<D::Memory, u32>,
    grid: Grid,
) -> Result<usize, ImagingError> {
    let voxels = grid.voxels();
    let blocks = voxels.div_ceil(BLOCK as usize);
    let mut counts = device.array::<u32>(blocks + 1)?;
    launch!(device, "count_roots", voxels, &*parents, &mut counts, grid)?;
    launch!(device, "sum_counts", 1, &mut counts, blocks as u32)?;
    launch!(device, "number_roots", voxels, &mut *parents, &counts, grid)?;
    launch!(device, "number_voxels", voxels, parents, grid)?;
    let sums = device.download(&counts)?;
    Ok(sums[blocks] as usize)
}
