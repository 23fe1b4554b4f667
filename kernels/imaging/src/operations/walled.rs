//! An image and its labels as floods want them that go voxel by voxel.
//!
//! Around the grid there is a wall of voxels that are not numbers and have no labels, so no step has
//! to be checked. And voxels lie in bricks of 4 × 4 × 4: a flood jumps about, and six neighbours are
//! then in two or three lines of the cache instead of five.

use rayon::prelude::*;

use super::neighbourhood::{Connectivity, Space, offsets};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Geometry, Image, Mask};

/// The length of a brick's edge.
const EDGE: usize = 4;
/// The voxels of a layer of a brick.
pub(super) const LAYER: usize = EDGE * EDGE;
/// The voxels of a brick.
const BRICK: usize = EDGE * EDGE * EDGE;

/// An image and labels of its voxels, which have places of their own here.
pub(super) struct Walled {
    pub(super) values: Vec<f32>,
    pub(super) labels: Vec<u8>,
    pub(super) steps: Steps,
    geometry: Geometry,
    /// The number of bricks along each axis.
    bricks: [usize; 3],
}

/// The ways from a voxel to its neighbours, in raster order of these.
pub(super) struct Steps {
    /// How many neighbours there are.
    count: usize,
    /// For each place in a brick, how much further each neighbour lies.
    of: Vec<i32>,
}

impl Steps {
    /// Returns the number of neighbours.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns the place of one neighbour of a voxel.
    pub(super) fn kth(&self, place: u32, k: usize) -> u32 {
        place.wrapping_add_signed(self.of[place as usize % BRICK * self.count + k])
    }

    /// Returns the places of a voxel's neighbours.
    pub(super) fn from(&self, place: u32) -> impl Iterator<Item = u32> {
        let first = place as usize % BRICK * self.count;
        let steps = &self.of[first..first + self.count];
        steps.iter().map(move |&step| place.wrapping_add_signed(step))
    }
}

impl Walled {
    /// Returns an image and labels on its grid, or an error where the walls make too much of them.
    pub(super) fn new(
        image: &Image,
        labels: &Mask,
        connectivity: Connectivity,
    ) -> Result<Self, ImagingError> {
        image.require_same_grid(labels)?;
        let geometry = image.geometry;
        let bricks = geometry.size.map(|length| (length + 2).div_ceil(EDGE));
        let voxels = (Geometry::unit(bricks).voxels() as u64).saturating_mul(BRICK as u64);
        // Steps are as far as two slices of bricks at most.
        let limit = u64::from(u32::MAX) / 2;
        if voxels > limit {
            return Err(ImagingError::TooLarge { what: "volume with walls", found: voxels, limit });
        }
        let offsets = offsets(connectivity, Space::Volume);
        let steps = Steps { count: offsets.len(), of: Vec::new() };
        let mut walled = Self { values: vec![], labels: vec![], steps, geometry, bricks };
        for k in 0..BRICK {
            // The same place in the brick whose neighbours on all sides exist.
            let at = [k % EDGE, k / EDGE % EDGE, k / (EDGE * EDGE)].map(|k| k + EDGE);
            let here = walled.place_of(at) as i32;
            let to = offsets
                .iter()
                .map(|step| [0, 1, 2].map(|axis| at[axis].wrapping_add_signed(step[axis])));
            let steps: Vec<i32> = to.map(|to| walled.place_of(to) as i32 - here).collect();
            walled.steps.of.extend(steps);
        }
        walled.values = walled.surround(&image.voxels, f32::NAN);
        walled.labels = walled.surround(&labels.voxels, 0);
        Ok(walled)
    }

    /// Returns the place of a voxel of the grid, given by its number in raster order.
    pub(super) fn place(&self, index: usize) -> u32 {
        self.place_of(self.geometry.position(index).map(|k| k + 1)) as u32
    }

    /// Fetches what a flood that comes to a voxel looks at.
    pub(super) fn fetch(&self, place: u32) {
        for to in self.steps.from(place) {
            memory::fetch(&self.labels, to as usize);
            memory::fetch(&self.values, to as usize);
        }
    }

    /// Returns the labels as a mask.
    pub(super) fn into_mask(self) -> Mask {
        let mut mask = Mask::filled(self.geometry, 0);
        let [width, height, _] = self.geometry.size;
        let rows = mask.voxels.par_chunks_mut(width.max(1)).with_min_len(64).enumerate();
        rows.for_each(|(row, voxels)| {
            let first = self.place_of([0, row % height + 1, row / height + 1]);
            for (x, voxel) in (1..).zip(voxels) {
                *voxel = self.labels[first + along_x(x)];
            }
        });
        mask
    }

    fn surround<T: Copy + Send + Sync>(&self, voxels: &[T], beyond: T) -> Vec<T> {
        let places = self.bricks.iter().product::<usize>() * BRICK;
        let mut walled = memory::filled(places, beyond);
        let [width, height, depth] = self.geometry.size;
        let layer = self.bricks[0] * self.bricks[1] * BRICK;
        walled.par_chunks_mut(layer).enumerate().for_each(|(k, walled)| {
            for z in (k * EDGE).max(1)..((k + 1) * EDGE).min(depth + 1) {
                for y in 1..=height {
                    let first = self.place_of([0, y, z]) - k * layer;
                    let row = &voxels[((z - 1) * height + y - 1) * width..][..width];
                    for (x, &value) in (1..).zip(row) {
                        walled[first + along_x(x)] = value;
                    }
                }
            }
        });
        walled
    }

    /// Returns the place of a voxel counted from the corner of the wall.
    fn place_of(&self, [x, y, z]: [usize; 3]) -> usize {
        let brick = (z / EDGE * self.bricks[1] + y / EDGE) * self.bricks[0];
        brick * BRICK + (z % EDGE * EDGE + y % EDGE) * EDGE + along_x(x)
    }
}

/// Returns how much further a voxel lies in its row than the first.
const fn along_x(x: usize) -> usize {
    x / EDGE * BRICK + x % EDGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_go_up_and_come_down() {
        for size in [[3, 4, 2], [5, 1, 3], [1, 1, 1], [9, 2, 1], [0, 3, 3], [3, 0, 1]] {
            let geometry = Geometry::unit(size);
            let labels = (0..geometry.voxels()).map(|k| (k % 200) as u8 + 1).collect();
            let labels = Mask::new(geometry, labels).unwrap();
            let image = labels.map(|&label| f32::from(label));
            let walled = Walled::new(&image, &labels, Connectivity::Full).unwrap();
            let inside = walled.values.iter().filter(|value| !value.is_nan()).count();
            assert_eq!(inside, geometry.voxels(), "{size:?}");
            for index in 0..geometry.voxels() {
                let at = geometry.position(index);
                let place = walled.place(index);
                assert_eq!(walled.labels[place as usize], labels.voxels[index]);
                // Steps lead to the neighbours, in raster order, or into the wall.
                let found: Vec<u8> =
                    walled.steps.from(place).map(|to| walled.labels[to as usize]).collect();
                let expected = offsets(Connectivity::Full, Space::Volume).into_iter().map(|step| {
                    let to = [0, 1, 2].map(|axis| at[axis].wrapping_add_signed(step[axis]));
                    let inside = (0..3).all(|axis| to[axis] < size[axis]);
                    if inside { *labels.at(to[0], to[1], to[2]) } else { 0 }
                });
                assert_eq!(found, expected.collect::<Vec<u8>>(), "{at:?} of {size:?}");
            }
            assert_eq!(walled.into_mask(), labels);
        }
    }
}
