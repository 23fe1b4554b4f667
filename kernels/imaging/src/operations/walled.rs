//! An image and its labels as floods want them that go voxel by voxel.
//!
//! Around the grid there is a wall of voxels with a label of their own, so no step has to be checked.
//! And labels lie in bricks of 4 × 4 × 4: a flood jumps about, and six neighbours are
//! then in two or three lines of the cache instead of five. Which voxels of a brick are still dry, that
//! is to be flooded, is a word of bits: those of a whole volume stay in the cache, so that most voxels
//! whose neighbours are all wet cost no look at memory.

use std::ops::Range;

use rayon::prelude::*;

use super::neighbourhood::{Connectivity, Space, offsets};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Geometry, Image, Mask};

/// The length of a brick's edge.
const EDGE: usize = 4;
/// The voxels of a brick.
const BRICK: usize = EDGE * EDGE * EDGE;

/// Labels by their places; those of a brick are just one line of the cache.
pub(super) struct Labels {
    bytes: Vec<u8>,
    /// Where the first line begins.
    start: usize,
}

impl Labels {
    /// Returns so many bricks with one label.
    fn filled(bricks: usize, label: u8) -> Self {
        let bytes = memory::filled((bricks + 1) * BRICK, label);
        // Where an address cannot be aligned, a brick is two lines.
        let start = bytes.as_ptr().align_offset(BRICK).min(BRICK);
        Self { bytes, start }
    }

    /// Returns the labels of each brick.
    fn bricks_mut(&mut self) -> &mut [[u8; BRICK]] {
        self.bytes[self.start..].as_chunks_mut().0
    }

    #[inline]
    pub(super) fn at(&self, place: u32) -> u8 {
        self.bytes[self.start + place as usize]
    }

    /// Returns the labels from a place on.
    fn from(&self, place: usize) -> &[u8] {
        &self.bytes[self.start + place..]
    }

    #[inline]
    pub(super) fn set(&mut self, place: u32, label: u8) {
        self.bytes[self.start + place as usize] = label;
    }

    /// Fetches a label.
    #[inline]
    pub(super) fn fetch(&self, place: u32) {
        memory::fetch(&self.bytes, self.start + place as usize);
    }
}

/// The values of an image, by the numbers of its voxels in raster order.
#[derive(Clone, Copy)]
pub(super) struct Values<'a>(&'a [f32]);

impl Values<'_> {
    /// Returns the value of a voxel that does not lie in the wall.
    #[inline]
    pub(super) fn at(&self, number: u32) -> f32 {
        self.0[number as usize]
    }

    /// Fetches a value.
    #[inline]
    pub(super) fn fetch(&self, number: u32) {
        memory::fetch(self.0, number as usize);
    }
}

/// An image and labels of its voxels, which have places of their own here.
pub(super) struct Walled<'a> {
    pub(super) values: Values<'a>,
    pub(super) labels: Labels,
    /// The label of the wall, and of what is not a number and has no other.
    blank: u8,
    grid: Grid,
}

/// Where voxels lie.
#[derive(Clone, Copy)]
struct Grid {
    geometry: Geometry,
    /// The number of bricks along each axis.
    bricks: [usize; 3],
}

/// Numbers of voxels in raster order from their places.
struct Raster {
    /// Multipliers that divide by how many bricks there are along the first two axes.
    bricks: [Divisor; 2],
    /// How much greater a number is for a brick along each axis.
    steps: [u32; 3],
    /// The numbers of the first brick's voxels; some may lie before the image.
    first: [u32; BRICK],
}

/// A number that others are divided by often.
struct Divisor {
    by: u32,
    /// 2⁶³ / by, rounded up.
    inverse: u64,
}

impl Divisor {
    fn new(by: u32) -> Self {
        Self { by, inverse: (1 << 63) / u64::from(by) + 1 }
    }

    /// Returns the quotient and the remainder of a number below 2³¹. The inverse is too great by 1 at
    /// most, so that a product is by less than 2³¹ / 2⁶³, which is less than 1 / by.
    #[inline]
    fn divide(&self, number: u32) -> (u32, u32) {
        let quotient = ((u128::from(number) * u128::from(self.inverse)) >> 63) as u32;
        (quotient, number - quotient * self.by)
    }
}

impl Raster {
    fn new(grid: &Grid) -> Self {
        let [width, height, _] = grid.geometry.size;
        let steps = [1, width, width * height].map(|step| step as u32);
        // The wall before the image is one voxel thick.
        let number = |k: usize| {
            let at = within_brick(k).map(|k| (k as u32).wrapping_sub(1));
            at.iter()
                .zip(steps)
                .fold(0, |sum: u32, (k, step)| sum.wrapping_add(k.wrapping_mul(step)))
        };
        Self {
            bricks: [0, 1].map(|axis| Divisor::new(grid.bricks[axis] as u32)),
            steps: steps.map(|step| step * EDGE as u32),
            first: std::array::from_fn(number),
        }
    }

    /// Returns the number of a voxel that does not lie in the wall.
    #[inline]
    fn number(&self, place: u32) -> u32 {
        let (brick, voxel) = (place / BRICK as u32, place as usize % BRICK);
        let (row, x) = self.bricks[0].divide(brick);
        let (z, y) = self.bricks[1].divide(row);
        let steps = x * self.steps[0] + y * self.steps[1] + z * self.steps[2];
        self.first[voxel].wrapping_add(steps)
    }
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
    /// How much greater each neighbour's number is.
    numbers: [i32; N],
    raster: Raster,
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

    /// Returns the number in raster order of a voxel that does not lie in the wall.
    #[inline]
    pub(super) fn number(&self, place: u32) -> u32 {
        self.raster.number(place)
    }

    /// Returns the number of one of a voxel's neighbours, given the voxel's own.
    #[inline]
    pub(super) fn kth_number(&self, number: u32, k: usize) -> u32 {
        number.wrapping_add_signed(self.numbers[k])
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

impl<'a> Walled<'a> {
    /// Returns an image and labels on its grid, with a label for the wall and for what is not a number
    /// and has no other; or an error where the walls make too much of them.
    pub(super) fn new(image: &'a Image, labels: &Mask, blank: u8) -> Result<Self, ImagingError> {
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
        let mut walled = Labels::filled(bricks.iter().product(), blank);
        grid.fill(walled.bricks_mut(), |brick, place, numbers| {
            let voxels = labels.voxels[numbers.clone()].iter().zip(&image.voxels[numbers]);
            for (to, (&label, value)) in brick[place % BRICK..].iter_mut().zip(voxels) {
                *to = if label == 0 && !value.is_finite() { blank } else { label };
            }
        });
        Ok(Self { values: Values(&image.voxels), labels: walled, blank, grid })
    }

    /// Returns which voxels are numbers without a label.
    pub(super) fn dry(&self) -> Dry {
        let mut dry = memory::zeros(self.grid.bricks.iter().product());
        self.grid.fill(&mut dry, |word: &mut u64, place, numbers| {
            let voxels = self.values.0[numbers].iter().zip(self.labels.from(place));
            for (k, (value, &label)) in (place % BRICK..).zip(voxels) {
                *word |= u64::from(label == 0 && value.is_finite()) << k;
            }
        });
        Dry(dry)
    }

    /// Returns the steps to the `N` neighbours that a connectivity has, in at most `B` bricks.
    pub(super) fn steps<const N: usize, const B: usize>(
        &self,
        connectivity: Connectivity,
    ) -> Steps<N, B> {
        let offsets = offsets(connectivity, Space::Volume);
        assert_eq!(offsets.len(), N, "the neighbours of {connectivity:?}");
        let [width, height, _] = self.grid.geometry.size;
        let along = [1, width, width * height].map(|step| step as isize);
        let number =
            |k: usize| (0..3).map(|axis| offsets[k][axis] * along[axis]).sum::<isize>() as i32;
        let mut steps = Steps {
            of: Vec::new(),
            numbers: std::array::from_fn(number),
            raster: Raster::new(&self.grid),
            bricks: Vec::new(),
        };
        for k in 0..BRICK {
            // The same place in the brick whose neighbours on all sides exist.
            let at = within_brick(k).map(|k| k + EDGE);
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

    /// Returns the labels as a mask; that of blanks is 0 again.
    pub(super) fn into_mask(self) -> Mask {
        let Self { labels, blank, grid, .. } = self;
        let mut mask = Mask::filled(grid.geometry, 0);
        let [width, height, _] = grid.geometry.size;
        let rows = mask.voxels.par_chunks_mut(width.max(1)).with_min_len(64).enumerate();
        rows.for_each(|(row, voxels)| {
            let first = grid.place_of([0, row % height + 1, row / height + 1]);
            for (further, xs) in grid.stretches() {
                let labels = labels.from(first + further);
                for (voxel, &label) in voxels[xs].iter_mut().zip(labels) {
                    *voxel = if label == blank { 0 } else { label };
                }
            }
        });
        mask
    }
}

impl Grid {
    /// Returns the stretches of a row of the image that lie within one brick each: how much further
    /// each begins than the wall before the row, and where its voxels lie in the row.
    fn stretches(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let width = self.geometry.size[0];
        (0..self.bricks[0]).map(move |brick| {
            // The wall is one voxel thick.
            let (from, to) = ((brick * EDGE).max(1), ((brick + 1) * EDGE).min(width + 1));
            (brick * BRICK + from % EDGE, from - 1..to - 1)
        })
    }

    /// Calls `put` for each stretch of the image's rows with what there is for its brick, the place where
    /// it begins, and its voxels' numbers in raster order.
    fn fill<B: Send>(&self, bricks: &mut [B], put: impl Fn(&mut B, usize, Range<usize>) + Sync) {
        let [width, height, depth] = self.geometry.size;
        let layer = self.bricks[0] * self.bricks[1];
        bricks.par_chunks_mut(layer.max(1)).enumerate().for_each(|(k, bricks)| {
            for z in (k * EDGE).max(1)..((k + 1) * EDGE).min(depth + 1) {
                for y in 1..=height {
                    let first = self.place_of([0, y, z]);
                    let row = ((z - 1) * height + y - 1) * width;
                    for (further, xs) in self.stretches() {
                        let place = first + further;
                        let numbers = row + xs.start..row + xs.end;
                        put(&mut bricks[place / BRICK - k * layer], place, numbers);
                    }
                }
            }
        });
    }

    /// Returns the place of a voxel counted from the corner of the wall.
    fn place_of(&self, [x, y, z]: [usize; 3]) -> usize {
        let brick = (z / EDGE * self.bricks[1] + y / EDGE) * self.bricks[0];
        brick * BRICK + (z % EDGE * EDGE + y % EDGE) * EDGE + x / EDGE * BRICK + x % EDGE
    }
}

/// Returns where in its brick a voxel lies.
fn within_brick(k: usize) -> [usize; 3] {
    [k % EDGE, k / EDGE % EDGE, k / (EDGE * EDGE)]
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
            let walled = Walled::new(&image, &labels, 255).unwrap();
            let steps = walled.steps::<26, 8>(Connectivity::Full);
            let dry = walled.dry();
            let bricks: usize = walled.grid.bricks.iter().product();
            let walls = (0..bricks * BRICK).filter(|&place| walled.labels.at(place as u32) == 255);
            assert_eq!(walls.count(), bricks * BRICK - geometry.voxels());
            for index in 0..geometry.voxels() {
                let at = geometry.position(index);
                let place = walled.place(index);
                assert_eq!(walled.labels.at(place), labels.voxels[index]);
                assert_eq!(steps.number(place), index as u32);
                assert_eq!(dry.holds(place), labels.voxels[index] == 0);
                // Steps lead to the neighbours, in raster order, or into the wall.
                let found = steps.from(place).map(|to| walled.labels.at(to));
                let expected = offsets(Connectivity::Full, Space::Volume).into_iter().map(|step| {
                    let to = [0, 1, 2].map(|axis| at[axis].wrapping_add_signed(step[axis]));
                    let inside = (0..3).all(|axis| to[axis] < size[axis]);
                    if inside { *labels.at(to[0], to[1], to[2]) } else { 255 }
                });
                assert!(expected.eq(found), "{at:?} of {size:?}");
                let found = set(steps.dry(&dry, place)).map(|k| steps.from(place)[k]);
                let expected = steps.from(place).into_iter().filter(|&to| dry.holds(to));
                assert!(found.eq(expected), "{at:?} of {size:?}");
            }
            assert_eq!(walled.into_mask(), labels);
        }
    }
}
