//! Seeded region growing after Adams & Bischof, "Seeded region growing", IEEE PAMI 16(6), 1994.
//!
//! All regions grow at once. The voxel next in line is always the one, of all that touch a region,
//! whose value differed least from that region's mean when it came in line; of differences that are
//! equal in single precision, the one that has waited longest (first in, first out). It joins the
//! region and the region's mean moves. Every voxel that a path of finite values joins to a seed ends in
//! some region, so the result is a partition: there is no threshold to choose, only seeds.
//!
//! Seeds are labels in a mask, placed by hand ([`seeds_at`]) or found ([`seeds_in_ranges`],
//! [`seeds_by_otsu`]). The process is sequential by nature, and therefore deterministic.

use serde::{Deserialize, Serialize};

use super::morphology::{self, Ball};
use super::neighbourhood::Connectivity;
use super::queue::{FloodQueue, Shore};
use super::region::{self, Voxel};
use super::seeds::labelled;
use super::threshold::{self, Otsu};
use super::walled::{Steps, Walled, set};
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask};

/// The largest label of a seed; 255 marks waiting voxels.
pub const LABEL_MAX: u8 = 254;

const WAITING: u8 = u8::MAX;

/// Returns for each voxel the label of the region it joined, or 0 where no path of finite values
/// leads from a seed.
///
/// A voxel that touches several regions when its turn comes joins the one with the nearest mean
/// (of equals, the lowest label); the paper's alternative, to leave such voxels as a boundary, would
/// cut the regions apart by one voxel.
pub fn seeded_growing(
    image: &Image,
    seeds: &Mask,
    connectivity: Connectivity,
) -> Result<Mask, ImagingError> {
    let regions = regions(image, seeds)?;
    let walled = Walled::new(image, seeds, WAITING)?;
    Ok(match connectivity {
        Connectivity::Face => Growth::<6, 4>::new(walled, regions, connectivity).run(seeds),
        Connectivity::Edge => Growth::<18, 7>::new(walled, regions, connectivity).run(seeds),
        Connectivity::Full => Growth::<26, 8>::new(walled, regions, connectivity).run(seeds),
    })
}

/// The state of all regions while they grow, over `N` neighbours of each voxel.
struct Growth<'a, const N: usize, const B: usize> {
    walled: Walled<'a>,
    steps: Steps<N, B>,
    regions: Vec<Region>,
}

/// The values of one region.
#[derive(Clone, Copy)]
struct Region {
    sum: f64,
    count: f64,
    /// Not a number where there are none.
    mean: f64,
}

impl Region {
    fn add(&mut self, value: f32) {
        self.sum += f64::from(value);
        self.count += 1.0;
        self.mean = self.sum / self.count;
    }
}

/// Returns the values of the seeds of each label.
fn regions(image: &Image, seeds: &Mask) -> Result<Vec<Region>, ImagingError> {
    image.require_same_grid(seeds)?;
    let none = Region { sum: 0.0, count: 0.0, mean: f64::NAN };
    let mut regions = vec![none; usize::from(LABEL_MAX) + 1];
    for (index, label) in labelled(seeds) {
        if label > LABEL_MAX {
            return Err(ImagingError::Parameter {
                operation: "seeded_growing",
                problem: format!("a seed has label {label}; at most {LABEL_MAX} is possible"),
            });
        }
        let value = image.voxels[index];
        if value.is_finite() {
            regions[usize::from(label)].add(value);
        }
    }
    Ok(regions)
}

impl<'a, const N: usize, const B: usize> Growth<'a, N, B> {
    fn new(walled: Walled<'a>, regions: Vec<Region>, connectivity: Connectivity) -> Self {
        let steps = walled.steps(connectivity);
        Self { walled, steps, regions }
    }

    /// Lets the regions grow from their seeds until nothing is left that they touch.
    fn run(mut self, seeds: &Mask) -> Mask {
        // Waiting voxels by their difference from the nearest region when they came in line.
        let mut queue = FloodQueue::new();
        for (index, _) in labelled(seeds) {
            let at = self.walled.place(index);
            for k in set(self.around(at).unlabelled) {
                let to = self.steps.kth(at, k);
                // Seeds of which none is a number give a region no mean to differ from.
                let value = self.walled.values.at(self.steps.number(to));
                if let Some((difference, _)) = self.nearest_region(to, value, &self.around(to)) {
                    self.wait(to, difference, &mut queue);
                }
            }
        }
        while let Some((_, at)) = queue.pop(&self) {
            let (around, number) = (self.around(at), self.steps.number(at));
            let value = self.walled.values.at(number);
            // What waits has been touched by a region, and no region shrinks.
            let Some((_, label)) = self.nearest_region(at, value, &around) else { continue };
            self.walled.labels.set(at, label);
            let region = &mut self.regions[usize::from(label)];
            region.add(value);
            let mean = region.mean;
            for k in set(around.unlabelled) {
                // No other region touches it: it would wait since.
                let to = self.steps.kth(at, k);
                let value = self.walled.values.at(self.steps.kth_number(number, k));
                let difference = (f64::from(value) - mean).abs();
                self.wait(to, difference, &mut queue);
            }
        }
        self.walled.into_mask()
    }

    /// Returns what a voxel's neighbours are: without a branch for any, since most look random.
    #[inline]
    fn around(&self, at: u32) -> Around {
        let mut around = Around { below_least: u8::MAX, above_most: 0, unlabelled: 0 };
        for (k, to) in self.steps.from(at).into_iter().enumerate() {
            let label = self.walled.labels.at(to);
            around.below_least = around.below_least.min(label.wrapping_sub(1));
            around.above_most = around.above_most.max(label.wrapping_add(1));
            around.unlabelled |= u32::from(label == 0) << k;
        }
        around
    }

    /// Returns the region whose mean is nearest to the value of a voxel, of those that are around it,
    /// and the difference; of equals, the lowest label.
    #[inline]
    fn nearest_region(&self, at: u32, value: f32, around: &Around) -> Option<(f64, u8)> {
        if around.above_most <= 1 {
            return None;
        }
        let value = f64::from(value);
        let most = around.above_most - 1;
        // Most voxels touch one region only.
        if around.below_least + 1 == most {
            let difference = (value - self.regions[usize::from(most)].mean).abs();
            return (difference < f64::INFINITY).then_some((difference, most));
        }
        self.nearest_of_several(at, value)
    }

    #[inline(never)]
    fn nearest_of_several(&self, at: u32, value: f64) -> Option<(f64, u8)> {
        let mut nearest = (f64::INFINITY, 0);
        for to in self.steps.from(at) {
            let label = self.walled.labels.at(to);
            if label == 0 || label == WAITING || label == nearest.1 {
                continue;
            }
            let difference = (value - self.regions[usize::from(label)].mean).abs();
            if difference < nearest.0 || (difference <= nearest.0 && label < nearest.1) {
                nearest = (difference, label);
            }
        }
        (nearest.1 != 0).then_some(nearest)
    }

    /// Puts a voxel in line.
    #[inline]
    fn wait(&mut self, at: u32, difference: f64, queue: &mut FloodQueue) {
        self.walled.labels.set(at, WAITING);
        if queue.push(difference as f32, at) {
            self.soon(at);
        }
    }
}

/// What a voxel's neighbours are.
struct Around {
    /// The least label of a region less 1; at least [`LABEL_MAX`] where there is none.
    below_least: u8,
    /// The greatest label of a region plus 1; at most 1 where there is none.
    above_most: u8,
    /// A bit for each neighbour without a label.
    unlabelled: u32,
}

impl<const N: usize, const B: usize> Shore for Growth<'_, N, B> {
    fn far_off(&self, voxel: u32) {
        self.walled.values.fetch(self.steps.number(voxel));
        self.steps.bricks(voxel).for_each(|place| self.walled.labels.fetch(place));
    }

    fn soon(&self, voxel: u32) {
        let number = self.steps.number(voxel);
        for k in set(self.around(voxel).unlabelled) {
            self.walled.values.fetch(self.steps.kth_number(number, k));
        }
    }
}

/// A seed placed by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The voxel: x, y, z, counted from 0.
    pub voxel: Voxel,
    /// The label of its region, 1 to [`LABEL_MAX`].
    pub label: u8,
}

/// Returns a mask of seeds placed by hand.
pub fn seeds_at(geometry: &Geometry, seeds: &[Seed]) -> Result<Mask, ImagingError> {
    let voxels: Vec<Voxel> = seeds.iter().map(|seed| seed.voxel).collect();
    let indices = region::indices(geometry, &voxels, "seeded_growing")?;
    let mut mask = Mask::filled(*geometry, 0);
    for (index, seed) in indices.into_iter().zip(seeds) {
        mask.voxels[index] = seed.label;
    }
    Ok(mask)
}

/// A range of values that are surely of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The least value.
    pub from: f32,
    /// What the values stay below.
    pub below: f32,
}

/// Returns seeds for one region per range: label 1 for the first, and so on. Seeds are the voxels
/// within the range, less those within the ball's radius of others; that keeps them off borders,
/// where values of two kinds mix.
pub fn seeds_in_ranges(image: &Image, ranges: &[Range], core: &Ball) -> Result<Mask, ImagingError> {
    if ranges.len() > usize::from(LABEL_MAX) {
        return Err(ImagingError::Parameter {
            operation: "seeded_growing",
            problem: format!("{} ranges given; at most {LABEL_MAX} are possible", ranges.len()),
        });
    }
    let mut seeds = Mask::filled(image.geometry, 0);
    for (label, range) in (1u8..).zip(ranges) {
        let all = threshold::threshold(image, range.from, range.below);
        let cores = morphology::erode(&all, core)?;
        for (seed, &inside) in seeds.voxels.iter_mut().zip(&cores.voxels) {
            if inside != 0 {
                *seed = label;
            }
        }
    }
    Ok(seeds)
}

/// Returns seeds for two regions: label 1 for the cores of what lies below Otsu's threshold, label
/// 2 for those of what lies above.
pub fn seeds_by_otsu(image: &Image, otsu: &Otsu, core: &Ball) -> Result<Mask, ImagingError> {
    let split = threshold::otsu(image, otsu)? as f32;
    let dark = Range { from: f32::NEG_INFINITY, below: split };
    let bright = Range { from: split, below: f32::INFINITY };
    seeds_in_ranges(image, &[dark, bright], core)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(size: [usize; 3], values: &[f32]) -> Image {
        Image::new(Geometry::unit(size), values.to_vec()).unwrap()
    }

    #[test]
    fn voxels_join_in_the_order_of_their_difference() {
        // By hand, seeds 0 (label 1) and 10 (label 2) at the ends: 2 joins 1 (mean 1), 9 joins 2
        // (mean 9.5), 3 joins 1 (mean 5/3), 8 joins 2 (mean 9); 5 waits at |5 - 5/3| on the left
        // and joins there, for the right sees it only at |5 - 9|.
        for (values, labels) in [
            ([0.0, 2.0, 3.0, 5.0, 8.0, 9.0, 10.0], [1, 1, 1, 1, 2, 2, 2]),
            ([0.0, 1.0, 9.0, 8.0, 7.0, 6.0, 10.0], [1, 1, 2, 2, 2, 2, 2]),
            // A tie is won by the lower label, a missing value parts the line.
            ([0.0, 0.0, 0.0, 5.0, 10.0, 10.0, 10.0], [1, 1, 1, 1, 2, 2, 2]),
            ([0.0, 2.0, f32::NAN, 2.0, 2.0, 9.0, 10.0], [1, 1, 0, 2, 2, 2, 2]),
        ] {
            let image = image([7, 1, 1], &values);
            let ends = [Seed { voxel: [0; 3], label: 1 }, Seed { voxel: [6, 0, 0], label: 2 }];
            let seeds = seeds_at(&image.geometry, &ends).unwrap();
            let grown = seeded_growing(&image, &seeds, Connectivity::Face).unwrap();
            assert_eq!(grown.voxels, labels, "{values:?}");
        }
    }

    #[test]
    fn automatic_seeds_find_two_kinds() {
        let mut values = vec![0.0; 144];
        for y in 3..9 {
            for x in 3..9 {
                values[y * 12 + x] = 100.0;
            }
        }
        values[6 * 12 + 2] = 80.0;
        let image = image([12, 12, 1], &values);
        let seeds = seeds_by_otsu(&image, &Otsu::default(), &Ball::default()).unwrap();
        assert!(seeds.voxels.contains(&1) && seeds.voxels.contains(&2));
        let grown = seeded_growing(&image, &seeds, Connectivity::Face).unwrap();
        assert_eq!(grown.count_of(2), 37);
        assert_eq!(grown.count_of(1), 107);
    }

    #[test]
    fn refuses_seeds_it_cannot_use() {
        let image = image([2, 2, 1], &[0.0; 4]);
        let elsewhere = Mask::filled(Geometry::unit([3, 3, 1]), 0);
        assert!(seeded_growing(&image, &elsewhere, Connectivity::Face).is_err());
        let marked = Mask::filled(image.geometry, WAITING);
        assert!(seeded_growing(&image, &marked, Connectivity::Face).is_err());
        let outside = [Seed { voxel: [2, 0, 0], label: 1 }];
        assert!(seeds_at(&image.geometry, &outside).is_err());
    }
}
