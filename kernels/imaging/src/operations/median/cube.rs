//! The median of 3 × 3 × 3 voxels, the size that is used most.
//!
//! What neighbours share is sorted once: the three voxels in line along z for all rows, the nine of
//! a column of the cube (its cut at one x) for the three cubes that it is part of. Of three sorted
//! columns then only those ranks are compared that can be the middle of 27.
//!
//! Sorting is by networks: comparisons of whole rows in a fixed order, without branches.

use rayon::prelude::*;

use super::super::neighbourhood::step_clamped;
use super::super::vector::{call, vectorised};
use super::{from_sortable, sortable};
use crate::memory;
use crate::volume::Image;

/// The rows of a slice that one thread takes at a time.
const BAND_ROWS: usize = 16;
/// Voxels of a row that are sorted together.
const LANES: usize = 16;

type Lanes = [i32; LANES];

/// Returns the median of the cube around each voxel, the nearest repeated beyond the border.
pub(super) fn median(image: &Image) -> Vec<f32> {
    let [width, height, depth] = image.geometry.size;
    let mut voxels = memory::zeros::<f32>(image.voxels.len());
    voxels.par_chunks_mut(width * height).enumerate().for_each(|(z, slice)| {
        let slices = [-1, 0, 1].map(|step| image.slice(step_clamped(z, step, depth)));
        slice.par_chunks_mut(width * BAND_ROWS).enumerate().for_each_init(
            || Band::new(width),
            |band, (k, output)| band.run(slices, [width, height], k * BAND_ROWS, output),
        );
    });
    voxels
}

/// What a thread keeps while it works on some rows.
struct Band {
    /// For each row of the band and one more on both sides, the least, the middle and the greatest
    /// of the three voxels along z.
    lines: Vec<[Vec<i32>; 3]>,
    /// The nine voxels of each column in order, with one column more at both ends and room for a
    /// whole last block.
    columns: [Vec<i32>; 9],
}

impl Band {
    fn new(width: usize) -> Self {
        let wide = width.next_multiple_of(LANES);
        Self {
            lines: (0..BAND_ROWS + 2).map(|_| [0; 3].map(|_| vec![0; wide])).collect(),
            columns: [0; 9].map(|_| vec![0; wide + 2 * LANES]),
        }
    }

    /// Writes the medians of the rows from `first` on.
    fn run(
        &mut self,
        slices: [&[f32]; 3],
        [width, height]: [usize; 2],
        first: usize,
        output: &mut [f32],
    ) {
        for k in 0..output.len() / width + 2 {
            let y = (first + k).saturating_sub(1).min(height - 1);
            let rows = slices.map(|slice| &slice[y * width..(y + 1) * width]);
            let line = &mut self.lines[k];
            vectorised(SortLines((rows, line)));
        }
        for (k, output) in output.chunks_mut(width).enumerate() {
            let lines = [&self.lines[k], &self.lines[k + 1], &self.lines[k + 2]];
            let columns = &mut self.columns;
            vectorised(SortColumns((lines, &mut *columns)));
            for column in &mut *columns {
                column[0] = column[1];
                column[width + 1] = column[width];
            }
            vectorised(Medians((&*columns, output)));
        }
    }
}

call!(SortLines(([&'a [f32]; 3], &'a mut [Vec<i32>; 3])) => sort_lines);
call!(SortColumns(([&'a [Vec<i32>; 3]; 3], &'a mut [Vec<i32>; 9])) => sort_columns);
call!(Medians((&'a [Vec<i32>; 9], &'a mut [f32])) => medians);

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn sort_lines(([a, b, c], [low, middle, high]): ([&[f32]; 3], &mut [Vec<i32>; 3])) {
    let width = a.len();
    let (b, c) = (&b[..width], &c[..width]);
    let (low, middle, high) = (&mut low[..width], &mut middle[..width], &mut high[..width]);
    for x in 0..width {
        let (a, b, c) = (sortable(a[x]), sortable(b[x]), sortable(c[x]));
        let (least, most) = (a.min(b), a.max(b));
        low[x] = least.min(c);
        middle[x] = least.max(most.min(c));
        high[x] = most.max(c);
    }
}

/// The comparisons that sort nine values of which each three are sorted (Floyd's network of 25 less
/// the nine that sort those). After the first nine, each three that are three apart are sorted.
const SORT_NINE: [(usize, usize); 16] = [
    (0, 3),
    (3, 6),
    (0, 3),
    (1, 4),
    (4, 7),
    (1, 4),
    (2, 5),
    (5, 8),
    (2, 5),
    (1, 3),
    (5, 7),
    (2, 6),
    (4, 6),
    (2, 4),
    (2, 3),
    (5, 6),
];

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn sort_columns((lines, columns): ([&[Vec<i32>; 3]; 3], &mut [Vec<i32>; 9])) {
    for from in (0..lines[0][0].len()).step_by(LANES) {
        let mut nine: [Lanes; 9] = [[0; LANES]; 9];
        for (k, lanes) in nine.iter_mut().enumerate() {
            lanes.copy_from_slice(&lines[k / 3][k % 3][from..from + LANES]);
        }
        for (a, b) in SORT_NINE {
            sort_two(&mut nine, a, b);
        }
        for (column, lanes) in columns.iter_mut().zip(&nine) {
            column[from + 1..from + 1 + LANES].copy_from_slice(lanes);
        }
    }
}

/// Writes the medians of 27, given the sorted columns.
///
/// Across three columns, the values of one rank r (from 0) have a least, a middle and a greatest.
/// At least (r + 1) × 1, 2 or 3 of the 27 are no greater than it, and (9 − r) × 3, 2 or 1 no less.
/// Only where both are at most 14 can it be the median: the greatest of ranks 0 to 3, the middle of
/// ranks 2 to 6, the least of ranks 5 to 8. Seven of the 27 are below them and seven above, so the
/// median is the seventh of these 13.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn medians((columns, output): (&[Vec<i32>; 9], &mut [f32])) {
    for (block, output) in output.chunks_mut(LANES).enumerate() {
        let from = block * LANES;
        let three = |rank: usize| {
            [0, 1, 2].map(|shift| {
                let mut lanes = [0; LANES];
                lanes.copy_from_slice(&columns[rank][from + shift..from + shift + LANES]);
                lanes
            })
        };
        let mut ends: [Lanes; 8] = [[0; LANES]; 8];
        for rank in 0..4 {
            let [a, b, c] = three(rank);
            ends[rank] = greater(greater(a, b), c);
            let [a, b, c] = three(rank + 5);
            ends[rank + 4] = lesser(lesser(a, b), c);
        }
        // Both fours are sorted; Batcher's merge sorts the eight.
        for (a, b) in [(0, 4), (1, 5), (2, 6), (3, 7), (2, 4), (3, 5), (1, 2), (3, 4), (5, 6)] {
            sort_two(&mut ends, a, b);
        }
        let mut median = ends[6];
        for (k, rank) in (2..7).enumerate() {
            let [a, b, c] = three(rank);
            let middle = greater(lesser(a, b), lesser(greater(a, b), c));
            // The seventh of both lists lies where one has k + 1 of them and the other the rest.
            median = lesser(median, greater(middle, ends[5 - k]));
        }
        for (value, &bits) in output.iter_mut().zip(&median) {
            *value = from_sortable(bits);
        }
    }
}

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn lesser(mut a: Lanes, b: Lanes) -> Lanes {
    for lane in 0..LANES {
        a[lane] = a[lane].min(b[lane]);
    }
    a
}

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn greater(mut a: Lanes, b: Lanes) -> Lanes {
    for lane in 0..LANES {
        a[lane] = a[lane].max(b[lane]);
    }
    a
}

/// Puts the lesser of two into the first place, lane by lane.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn sort_two(all: &mut [Lanes], a: usize, b: usize) {
    let (low, high) = (all[a], all[b]);
    all[a] = lesser(low, high);
    all[b] = greater(low, high);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_sort_all_zeros_and_ones() {
        // What sorts all rows of zeros and ones sorts everything (Knuth, volume 3, section 5.3.4).
        let all = (0..1u32 << 9).map(|bits| [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|k| bits >> k & 1));
        let sorted_threes = |row: &[u32; 9]| row.chunks(3).all(<[u32]>::is_sorted);
        for mut row in all.filter(sorted_threes) {
            for (a, b) in SORT_NINE {
                (row[a], row[b]) = (row[a].min(row[b]), row[a].max(row[b]));
            }
            assert!(row.is_sorted(), "{row:?}");
        }
    }
}
