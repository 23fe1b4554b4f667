//! An image and its labels as floods want them that go voxel by voxel.
//!
//! Around the grid there is a wall of voxels that are not numbers and have no labels, so no step has
//! to be checked. And voxels lie in bricks of 4 × 4 × 4: a flood jumps about, and six neighbours are
//! then in two or three lines of the cache instead of five. Which voxels of a brick are still dry, that
//! is to be flooded, is a word of bits: those of a whole volume stay in the cache, so that most voxels
//! whose neighbours are all wet cost no look at memory.

use rayon::prelude::*;

use super::neighbourhood::{Connectivity, Space, offsets};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Geometry, Image, Mask};

/// The length of a brick's edge.
const EDGE: usize = 4;
/// The voxels of a brick.
const BRICK: usize = EDGE * EDGE * EDGE;

/// A brick's voxels: those of labels are just one line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Brick<T>([T; BRICK]);

/// Values by their places.
pub(super) struct Bricks<T>(Vec<Brick<T>>);

impl<T: Copy> Bricks<T> {
    #[inline]
    pub(super) fn at(&self, place: u32) -> T {
        self.0[place as usize / BRICK].0[place as usize % BRICK]
    }

    #[inline]
    pub(super) fn set(&mut self, place: u32, value: T) {
        self.0[place as usize / BRICK].0[place as usize % BRICK] = value;
    }

    /// Fetches a value.
    #[inline]
    pub(super) fn fetch(&self, place: u32) {
        if let Some(brick) = self.0.get(place as usize / BRICK) {
            memory::fetch(&brick.0, place as usize % BRICK);
        }
    }
}

/// An image and labels of its voxels, which have places of their own here.
pub(super) struct Walled {
    pub(super) values: Bricks<f32>,
    pub(super) labels: Bricks<u8>,
    grid: Grid,
}

/// Where voxels lie.
#[derive(Clone, Copy)]
struct Grid {
    geometry: Geometry,
    /// The number of bricks along each axis.
    bricks: [usize; 3],
}

/// The voxels that are numbers and have no label yet: a bit for each place, a word for each brick.
pub(super) struct Dry(Vec<u64>);

impl Dry {
    /// Returns whether a voxel is dry.
    #[inline]
    pub(super) fn holds(&self, place: u32) -> bool {
        self.0[place as usize / BRICK] >> (place as usize % BRICK) & 1 != 0
    }

    /// Makes a voxel wet.
    #[inline]
    pub(super) fn remove(&mut self, place: u32) {
        self.0[place as usize / BRICK] &= !(1 << (place as usize % BRICK));
    }
}

/// The ways from a voxel to its `N` neighbours, which lie in `B` bricks at most.
pub(super) struct Steps<const N: usize, const B: usize> {
    /// For each place in a brick, how much further each neighbour lies, in raster order.
    of: Vec<[i32; N]>,
    /// For each place in a brick, how much further the bricks of its neighbours lie, and which voxels
    /// of them those are.
    bricks: Vec<[(i32, u64); B]>,
}

impl<const N: usize, const B: usize> Steps<N, B> {
    /// Returns the places of a voxel's neighbours.
    #[inline]
    pub(super) fn from(&self, place: u32) -> [u32; N] {
        let steps = &self.of[place as usize % BRICK];
        let mut places = [0; N];
        for k in 0..N {
            places[k] = place.wrapping_add_signed(steps[k]);
        }
        places
    }

    /// Returns the place of one of a voxel's neighbours.
    #[inline]
    pub(super) fn kth(&self, place: u32, k: usize) -> u32 {
        place.wrapping_add_signed(self.of[place as usize % BRICK][k])
    }

    /// Returns a bit for each neighbour of a voxel that is dry.
    #[inline]
    pub(super) fn dry(&self, dry: &Dry, place: u32) -> u32 {
        if !self.any_dry(dry, place) {
            return 0;
        }
        let mut bits = 0;
        for (k, &to) in self.from(place).iter().enumerate() {
            bits |= u32::from(dry.holds(to)) << k;
        }
        bits
    }

    /// Returns whether any neighbour of a voxel is dry.
    #[inline]
    pub(super) fn any_dry(&self, dry: &Dry, place: u32) -> bool {
        let brick = place as usize / BRICK;
        let bricks = &self.bricks[place as usize % BRICK];
        let mut any = 0;
        for &(step, voxels) in bricks {
            any |= dry.0[brick.wrapping_add_signed(step as isize)] & voxels;
        }
        any != 0
    }

    /// Returns a place in each brick in which neighbours of a voxel lie; some may come twice.
    #[inline]
    pub(super) fn bricks(&self, place: u32) -> impl Iterator<Item = u32> {
        let bricks = self.bricks[place as usize % BRICK].iter();
        bricks.map(move |&(step, _)| place.wrapping_add_signed(step * BRICK as i32))
    }
}

/// Returns the positions of the bits that are set, the lowest first.
pub(super) fn set(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if bits == 0 {
            return None;
        }
        let next = bits.trailing_zeros() as usize;
        bits &= bits - 1;
        Some(next)
    })
}

impl Walled {
    /// Returns an image and labels on its grid, or an error where the walls make too much of them.
    pub(super) fn new(image: &Image, labels: &Mask) -> Result<Self, ImagingError> {
        image.require_same_grid(labels)?;
        let geometry = image.geometry;
        let bricks = geometry.size.map(|length| (length + 2).div_ceil(EDGE));
        let voxels = (Geometry::unit(bricks).voxels() as u64).saturating_mul(BRICK as u64);
        // Steps are as far as two slices of bricks at most.
        let limit = u64::from(u32::MAX) / 2;
        if voxels > limit {
            return Err(ImagingError::TooLarge { what: "volume with walls", found: voxels, limit });
        }
        let grid = Grid { geometry, bricks };
        let values = grid.surround(&image.voxels, f32::NAN);
        let labels = grid.surround(&labels.voxels, 0);
        Ok(Self { values, labels, grid })
    }

    /// Returns which voxels are numbers without a label.
    pub(super) fn dry(&self) -> Dry {
        let mut dry = memory::zeros(self.values.0.len());
        let bricks = self.values.0.par_iter().zip(&self.labels.0).with_min_len(1 << 10);
        bricks.zip(&mut dry).for_each(|((values, labels), dry)| {
            let voxels = values.0.iter().zip(&labels.0).enumerate();
            *dry = voxels.fold(0, |word, (k, (value, &label))| {
                word | (u64::from(value.is_finite()) & u64::from(label == 0)) << k
            });
        });
        Dry(dry)
    }

    /// Gives a label to what is not a number and has none, the wall too.
    pub(super) fn label_blanks(&mut self, label: u8) {
        let bricks = self.values.0.par_iter().zip(&mut self.labels.0).with_min_len(1 << 10);
        bricks.for_each(|(values, labels)| {
            for (known, value) in labels.0.iter_mut().zip(&values.0) {
                if !value.is_finite() && *known == 0 {
                    *known = label;
                }
            }
        });
    }

    /// Returns the steps to the `N` neighbours that a connectivity has, in at most `B` bricks.
    pub(super) fn steps<const N: usize, const B: usize>(
        &self,
        connectivity: Connectivity,
    ) -> Steps<N, B> {
        let offsets = offsets(connectivity, Space::Volume);
        assert_eq!(offsets.len(), N, "the neighbours of {connectivity:?}");
        let mut steps = Steps { of: Vec::new(), bricks: Vec::new() };
        for k in 0..BRICK {
            // The same place in the brick whose neighbours on all sides exist.
            let at = [k % EDGE, k / EDGE % EDGE, k / (EDGE * EDGE)].map(|k| k + EDGE);
            let here = self.grid.place_of(at);
            let mut bricks: Vec<(i32, u64)> = Vec::new();
            let of = std::array::from_fn(|step| {
                let to = [0, 1, 2].map(|axis| at[axis].wrapping_add_signed(offsets[step][axis]));
                let to = self.grid.place_of(to);
                let (brick, voxel) = ((to / BRICK) as i32 - (here / BRICK) as i32, to % BRICK);
                match bricks.iter_mut().find(|(known, _)| *known == brick) {
                    Some((_, voxels)) => *voxels |= 1 << voxel,
                    None => bricks.push((brick, 1 << voxel)),
                }
                to as i32 - here as i32
            });
            steps.of.push(of);
            bricks.resize(B, (0, 0));
            steps.bricks.push(std::array::from_fn(|k| bricks[k]));
        }
        steps
    }

    /// Returns the place of a voxel of the grid, given by its number in raster order.
    pub(super) fn place(&self, index: usize) -> u32 {
        self.grid.place_of(self.grid.geometry.position(index).map(|k| k + 1)) as u32
    }

    /// Returns the labels as a mask; the one that blanks were given is 0 again.
    pub(super) fn into_mask(self, blank: u8) -> Mask {
        let Self { labels, grid, .. } = self;
        let mut mask = Mask::filled(grid.geometry, 0);
        let [width, height, _] = grid.geometry.size;
        let rows = mask.voxels.par_chunks_mut(width.max(1)).with_min_len(64).enumerate();
        rows.for_each(|(row, voxels)| {
            let first = grid.place_of([0, row % height + 1, row / height + 1]);
            for (x, voxel) in (1..).zip(voxels) {
                let label = labels.at((first + along_x(x)) as u32);
                *voxel = if label == blank { 0 } else { label };
            }
        });
        mask
    }
}

impl Grid {
    fn surround<T: Copy + Send + Sync>(&self, voxels: &[T], beyond: T) -> Bricks<T> {
        let mut walled = memory::filled(self.bricks.iter().product(), Brick([beyond; BRICK]));
        let [width, height, depth] = self.geometry.size;
        let layer = self.bricks[0] * self.bricks[1];
        walled.par_chunks_mut(layer).enumerate().for_each(|(k, walled)| {
            for z in (k * EDGE).max(1)..((k + 1) * EDGE).min(depth + 1) {
                for y in 1..=height {
                    let first = self.place_of([0, y, z]) - k * layer * BRICK;
                    let row = &voxels[((z - 1) * height + y - 1) * width..][..width];
                    for (x, &value) in (1..).zip(row) {
                        let place = first + along_x(x);
                        walled[place / BRICK].0[place % BRICK] = value;
                    }
                }
            }
        });
        Bricks(walled)
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
            let labels = (0..geometry.voxels()).map(|k| (k * 3 % 200) as u8).collect();
            let labels = Mask::new(geometry, labels).unwrap();
            let image = labels.map(|&label| f32::from(label));
            let walled = Walled::new(&image, &labels).unwrap();
            let steps = walled.steps::<26, 8>(Connectivity::Full);
            let dry = walled.dry();
            let inside =
                walled.values.0.iter().flat_map(|brick| brick.0).filter(|v| !v.is_nan()).count();
            assert_eq!(inside, geometry.voxels(), "{size:?}");
            for index in 0..geometry.voxels() {
                let at = geometry.position(index);
                let place = walled.place(index);
                assert_eq!(walled.labels.at(place), labels.voxels[index]);
                assert_eq!(dry.holds(place), labels.voxels[index] == 0);
                // Steps lead to the neighbours, in raster order, or into the wall.
                let found = steps.from(place).map(|to| walled.labels.at(to));
                let expected = offsets(Connectivity::Full, Space::Volume).into_iter().map(|step| {
                    let to = [0, 1, 2].map(|axis| at[axis].wrapping_add_signed(step[axis]));
                    let inside = (0..3).all(|axis| to[axis] < size[axis]);
                    if inside { *labels.at(to[0], to[1], to[2]) } else { 0 }
                });
                assert!(expected.eq(found), "{at:?} of {size:?}");
                let found = set(steps.dry(&dry, place)).map(|k| steps.from(place)[k]);
                let expected = steps.from(place).into_iter().filter(|&to| dry.holds(to));
                assert!(found.eq(expected), "{at:?} of {size:?}");
            }
            assert_eq!(walled.into_mask(0), labels);
        }
    }
}
