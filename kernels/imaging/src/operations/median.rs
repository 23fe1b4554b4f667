//! The median over a box of voxels.
//!
//! Beyond the border the nearest voxel is repeated, as ITK's `MedianImageFilter` does. Voxels are
//! compared as whole numbers that sort as the values do (with what is not a number greatest), many
//! of a row at once: from half of the box and two voxels more, least and greatest cannot be the
//! median and go; another voxel comes; and so on until one is left. The cube of 27 voxels has a way
//! of its own: see [`cube`].

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::{Space, step_clamped};
use super::vector::{call, vectorised};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::Image;

mod cube;

/// The largest radius: a box of 343 voxels.
pub const RADIUS_MAX: usize = 3;

/// The box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Median {
    /// How far the box reaches from its middle, in voxels. Default: 1.
    pub radius_voxels: usize,
    /// A cube in the volume or a square in each slice. Default: a cube.
    pub space: Space,
}

impl Default for Median {
    fn default() -> Self {
        Self { radius_voxels: 1, space: Space::Volume }
    }
}

/// Voxels of a row that are worked on together.
const LANES: usize = 16;

type Lanes = [i32; LANES];

/// Returns the median of the box around each voxel.
pub fn median(image: &Image, parameters: &Median) -> Result<Image, ImagingError> {
    let radius = parameters.radius_voxels;
    if radius > RADIUS_MAX {
        let problem = format!("radius_voxels is {radius}; at most {RADIUS_MAX} is possible");
        return Err(ImagingError::Parameter { operation: "median", problem });
    }
    let [width, height, depth] = image.geometry.size;
    let deep = parameters.space == Space::Volume && image.geometry.size.iter().all(|&n| n > 1);
    if radius == 1 && deep {
        return Ok(Image { geometry: image.geometry, voxels: cube::median(image) });
    }
    let reach = radius as isize;
    // An axis of one voxel would only count every voxel several times, but evenly: skip it.
    let along = |axis: usize, used: bool| {
        if used && image.geometry.size[axis] > 1 { -reach..=reach } else { 0..=0 }
    };
    let steps: Vec<(isize, isize)> = along(2, parameters.space == Space::Volume)
        .flat_map(|dz| along(1, true).map(move |dy| (dy, dz)))
        .collect();
    let across: Vec<isize> = along(0, true).collect();
    let mut voxels = memory::zeros::<f32>(image.voxels.len());
    let rows = voxels.par_chunks_mut(width.max(1)).with_min_len(4).enumerate();
    rows.for_each_init(
        || (Vec::new(), Vec::new()),
        |(padded, kept), (row, output)| {
            let (y, z) = (row % height, row / height);
            padded.resize_with(steps.len(), Vec::new);
            for (padded, &(dy, dz)) in padded.iter_mut().zip(&steps) {
                let other = step_clamped(z, dz, depth) * height + step_clamped(y, dy, height);
                pad(&image.voxels[other * width..(other + 1) * width], radius, padded);
            }
            vectorised(MedianOfRow((padded, &across, radius, kept, output)));
        },
    );
    Ok(Image { geometry: image.geometry, voxels })
}

/// Writes the row as sortable numbers with its ends repeated, and room for a whole last block.
fn pad(row: &[f32], radius: usize, padded: &mut Vec<i32>) {
    padded.clear();
    padded.extend(std::iter::repeat_n(sortable(row[0]), radius));
    padded.extend(row.iter().map(|&value| sortable(value)));
    padded.extend(std::iter::repeat_n(sortable(row[row.len() - 1]), radius + LANES));
}

type RowArguments<'a> = (&'a [Vec<i32>], &'a [isize], usize, &'a mut Vec<Lanes>, &'a mut [f32]);

call!(MedianOfRow(RowArguments<'a>) => median_of_row);

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn median_of_row((rows, across, radius, kept, output): RowArguments) {
    let count = rows.len() * across.len();
    let first = count / 2 + 2;
    for (block, output) in output.chunks_mut(LANES).enumerate() {
        let from = block * LANES + radius;
        let mut all = rows.iter().flat_map(|row| {
            across.iter().map(move |&dx| {
                let at = from.wrapping_add_signed(dx);
                let mut lanes = [0; LANES];
                lanes.copy_from_slice(&row[at..at + LANES]);
                lanes
            })
        });
        kept.clear();
        kept.extend(all.by_ref().take(first.min(count)));
        for next in all {
            drop_ends(kept);
            kept.push(next);
        }
        while kept.len() > 2 {
            drop_ends(kept);
        }
        let median = kept[0];
        for (value, &bits) in output.iter_mut().zip(&median) {
            *value = from_sortable(bits);
        }
    }
}

/// Takes the least and the greatest out.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn drop_ends(kept: &mut Vec<Lanes>) {
    let count = kept.len();
    // Pairs first: the least is among the lower ones, the greatest among the higher.
    for k in 0..count / 2 {
        sort_two(kept, k, count - 1 - k);
    }
    for k in 1..count.div_ceil(2) {
        sort_two(kept, 0, k);
    }
    for k in count / 2..count - 1 {
        sort_two(kept, k, count - 1);
    }
    kept.pop();
    kept.swap_remove(0);
}

/// Puts the lesser of two into the first place, lane by lane.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn sort_two(kept: &mut [Lanes], a: usize, b: usize) {
    let (low, high) = (kept[a], kept[b]);
    for lane in 0..LANES {
        kept[a][lane] = low[lane].min(high[lane]);
        kept[b][lane] = low[lane].max(high[lane]);
    }
}

/// Returns a number that sorts as the value does; what is not a number sorts last.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn sortable(value: f32) -> i32 {
    let value = if value.is_nan() { f32::NAN } else { value };
    let bits = value.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn from_sortable(bits: i32) -> f32 {
    f32::from_bits((bits ^ (((bits >> 31) as u32) >> 1) as i32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn equals_the_middle_of_the_sorted_box() {
        for size in [[37, 6, 5], [4, 4, 1], [1, 9, 1], [1, 1, 1]] {
            let geometry = Geometry::unit(size);
            let mut state = 9u32;
            let values = (0..geometry.voxels()).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 22) as f32 - 512.0
            });
            let image = Image::new(geometry, values.collect()).unwrap();
            for (radius_voxels, space) in
                [(0, Space::Volume), (1, Space::Volume), (2, Space::Volume), (3, Space::Slice)]
            {
                let found = median(&image, &Median { radius_voxels, space }).unwrap();
                for (index, &value) in found.voxels.iter().enumerate() {
                    let at = geometry.position(index);
                    let reach = radius_voxels as isize;
                    let deep = if space == Space::Volume { reach } else { 0 };
                    let mut all = Vec::new();
                    for dz in -deep..=deep {
                        for dy in -reach..=reach {
                            for dx in -reach..=reach {
                                let [x, y, z] = [(0, dx), (1, dy), (2, dz)]
                                    .map(|(axis, d)| step_clamped(at[axis], d, size[axis]));
                                all.push(*image.at(x, y, z));
                            }
                        }
                    }
                    all.sort_by(f32::total_cmp);
                    assert_eq!(value, all[all.len() / 2], "{at:?} of {size:?}, {radius_voxels}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_counts_as_the_greatest() {
        let image = Image::new(Geometry::unit([3, 1, 1]), vec![-f32::NAN, 1.0, 2.0]).unwrap();
        let found = median(&image, &Median::default()).unwrap();
        assert!(found.voxels[0].is_nan());
        assert_eq!(found.voxels[1..], [2.0, 2.0]);
        assert!(median(&image, &Median { radius_voxels: 9, ..Median::default() }).is_err());
    }
}
