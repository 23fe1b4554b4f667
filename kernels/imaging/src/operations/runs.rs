//! Runs: a set of voxels as the stretches it takes up in each row.
//!
//! Labelling components, filling holes, dilating: all of them ask which voxels of one row touch
//! those of another. On runs that is a comparison of ranges, not of voxels, so they cost what the
//! shape's surface costs and not its volume. Rows become runs 64 voxels at a time: as a word of bits
//! whose changes are counted out. (Regions grow from seeds over runs too: see [`super::reach`].)

use std::ops::Range;

use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::neighbourhood::{self, Connectivity, RowStep, Space, step_within};
use super::vector::vectorised;
use crate::memory;

/// A stretch of voxels in a row: from `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A set of voxels of a grid.
#[derive(Debug)]
pub(super) struct Runs {
    size: [usize; 3],
    /// The runs of all rows in raster order.
    pub(super) list: Vec<Run>,
    /// For each row, the position of its first run; one more entry for the end.
    first: Vec<usize>,
}

/// Rows handled by one thread at a time; enough work to pay for handing it over.
const ROWS_PER_CHUNK: usize = 64;

impl Runs {
    /// Returns the runs of the voxels whose values `inside` accepts.
    pub(super) fn new<T: Copy + Sync>(
        size: [usize; 3],
        values: &[T],
        inside: impl Fn(T) -> bool + Sync,
    ) -> Self {
        let [width, height, depth] = size;
        let rows = if width == 0 { 0 } else { height * depth };
        let chunks: Vec<(Vec<Run>, Vec<usize>)> = (0..rows.div_ceil(ROWS_PER_CHUNK))
            .into_par_iter()
            .map_init(
                || RowFlags::new(width),
                |flags, chunk| {
                    let mut runs = Vec::new();
                    let mut counts = Vec::with_capacity(ROWS_PER_CHUNK);
                    for row in chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(rows) {
                        let before = runs.len();
                        flags.set(&values[row * width..(row + 1) * width], &inside);
                        flags.push_runs(&mut runs);
                        counts.push(runs.len() - before);
                    }
                    (runs, counts)
                },
            )
            .collect();
        let mut first = Vec::with_capacity(rows + 1);
        first.push(0);
        let mut total = 0;
        for count in chunks.iter().flat_map(|(_, counts)| counts) {
            total += count;
            first.push(total);
        }
        let mut list = vec![Run::default(); total];
        let mut rest = list.as_mut_slice();
        let mut places = Vec::with_capacity(chunks.len());
        for (runs, _) in &chunks {
            let (place, after) = rest.split_at_mut(runs.len());
            places.push((place, runs));
            rest = after;
        }
        places.into_par_iter().for_each(|(place, runs)| place.copy_from_slice(runs));
        Self { size, list, first }
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> usize {
        self.first.len() - 1
    }

    /// Returns the positions of a row's runs in [`Runs::list`].
    pub(super) fn of_row(&self, row: usize) -> Range<usize> {
        self.first[row]..self.first[row + 1]
    }

    /// Returns the row that a step from `row` leads to, if it lies in the grid.
    pub(super) fn row_at(&self, row: usize, dy: isize, dz: isize) -> Option<usize> {
        row_at(self.size, row, dy, dz)
    }

    /// Returns the component that each run belongs to and the number of components. They are
    /// numbered from 0 in the raster order of their first voxels.
    pub(super) fn components(&self, connectivity: Connectivity, space: Space) -> (Vec<u32>, usize) {
        let steps = neighbourhood::rows_before(connectivity, space);
        let mut parents: Vec<u32> = (0..self.list.len() as u32).into_par_iter().collect();
        // Each thread joins what lies in its own rows; what crosses into the rows before comes
        // after. The smallest run of a set is its root whoever joins first.
        let rows = self.rows();
        let share = rows.div_ceil(2 * rayon::current_num_threads()).max(self.size[1]).max(1);
        let mut rest = parents.as_mut_slice();
        let mut shares = Vec::new();
        for from in (0..rows).step_by(share) {
            let to = (from + share).min(rows);
            let (own, after) = rest.split_at_mut(self.first[to] - self.first[from]);
            shares.push((from..to, own));
            rest = after;
        }
        shares.into_par_iter().for_each(|(rows, own)| {
            let mut sets = Sets { parents: own, first: self.first[rows.start] as u32 };
            for row in rows.clone() {
                self.unite_with_rows_before(row, &steps, |before| before >= rows.start, &mut sets);
            }
        });
        let mut sets = Sets { parents: &mut parents, first: 0 };
        for from in (share..rows).step_by(share) {
            // The last row that a step leads back over the start is one slice and one row further.
            for row in from..(from + self.size[1] + 1).min(rows) {
                self.unite_with_rows_before(row, &steps, |before| before < from, &mut sets);
            }
        }
        let mut count = 0u32;
        for run in 0..parents.len() {
            // A parent comes before its run, so it has its number already.
            let parent = parents[run] as usize;
            if parent == run {
                parents[run] = count;
                count += 1;
            } else {
                parents[run] = parents[parent];
            }
        }
        (parents, count as usize)
    }

    /// Joins the runs of a row with those that they touch in rows before it.
    fn unite_with_rows_before(
        &self,
        row: usize,
        steps: &[RowStep],
        counts: impl Fn(usize) -> bool,
        sets: &mut Sets,
    ) {
        let own = self.of_row(row);
        if own.is_empty() {
            return;
        }
        for step in steps {
            let Some(before) = self.row_at(row, step.dy, step.dz).filter(|&row| counts(row)) else {
                continue;
            };
            let reach = step.reach as u32;
            let (mut a, mut b) = (self.of_row(before), own.clone());
            while a.start < a.end && b.start < b.end {
                let (left, right) = (self.list[a.start], self.list[b.start]);
                if left.start < right.end + reach && right.start < left.end + reach {
                    sets.unite(a.start as u32, b.start as u32);
                }
                // What ends first touches nothing more: a gap follows each run.
                if left.end < right.end { a.start += 1 } else { b.start += 1 }
            }
        }
    }

    /// Returns the voxels of the grid, with the value that `value` gives to each run and 0 outside.
    pub(super) fn paint<T: Default + Copy + Send>(
        &self,
        value: impl Fn(usize) -> T + Sync,
    ) -> Vec<T> {
        let [width, height, depth] = self.size;
        let mut voxels = memory::zeros::<T>(width * height * depth);
        voxels.par_chunks_mut(width.max(1)).with_min_len(ROWS_PER_CHUNK).enumerate().for_each(
            |(row, voxels)| {
                for run in self.of_row(row) {
                    let Run { start, end } = self.list[run];
                    voxels[start as usize..end as usize].fill(value(run));
                }
            },
        );
        voxels
    }
}

/// Returns the row that a step from `row` leads to, if it lies in a grid of this size.
pub(super) fn row_at(
    [_, height, depth]: [usize; 3],
    row: usize,
    dy: isize,
    dz: isize,
) -> Option<usize> {
    let y = step_within(row % height, dy, height)?;
    let z = step_within(row / height, dz, depth)?;
    Some(z * height + y)
}

/// For each voxel of a row, 1 where it is inside and 0 elsewhere.
pub(super) struct RowFlags {
    /// Zeros follow up to a whole word.
    flags: Vec<u8>,
    width: usize,
}

impl RowFlags {
    pub(super) fn new(width: usize) -> Self {
        Self { flags: vec![0; width.next_multiple_of(64)], width }
    }

    /// Returns the flags of the row's voxels.
    pub(super) fn voxels(&mut self) -> &mut [u8] {
        &mut self.flags[..self.width]
    }

    /// Sets the flags of the values that `inside` accepts.
    pub(super) fn set<T: Copy>(&mut self, values: &[T], inside: impl Fn(T) -> bool) {
        let flags = &mut self.flags[..self.width];
        vectorised(SetFlags { flags, values, inside });
    }

    /// Appends the runs of the row.
    pub(super) fn push_runs(&self, runs: &mut Vec<Run>) {
        let mut start = None;
        let mut last = 0;
        for (k, flags) in self.flags.as_chunks::<64>().0.iter().enumerate() {
            let word = word_of(flags);
            // A bit wherever a run begins or the voxel before was its last.
            let mut changes = word ^ (word << 1 | last);
            last = word >> 63;
            while changes != 0 {
                let at = (k * 64) as u32 + changes.trailing_zeros();
                changes &= changes - 1;
                start = match start {
                    None => Some(at),
                    Some(start) => {
                        runs.push(Run { start, end: at });
                        None
                    }
                };
            }
        }
        if let Some(start) = start {
            runs.push(Run { start, end: self.width as u32 });
        }
    }
}

struct SetFlags<'a, T, F> {
    flags: &'a mut [u8],
    values: &'a [T],
    inside: F,
}

impl<T: Copy, F: Fn(T) -> bool> NullaryFnOnce for SetFlags<'_, T, F> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn call(self) {
        for (flag, &value) in self.flags.iter_mut().zip(self.values) {
            *flag = u8::from((self.inside)(value));
        }
    }
}

/// Returns 64 flags of 0 or 1 as bits, the first one lowest.
fn word_of(flags: &[u8; 64]) -> u64 {
    flags.as_chunks::<8>().0.iter().enumerate().fold(0, |word, (k, &eight)| {
        // The product brings the lowest bit of byte i to bit 56 + i, and no two bits together.
        let bits = u64::from_le_bytes(eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word | bits << (8 * k)
    })
}

/// Disjoint sets of runs, each a tree towards its smallest run.
struct Sets<'a> {
    /// The parents of the runs from `first` on; none lies before it.
    parents: &'a mut [u32],
    first: u32,
}

impl Sets<'_> {
    /// Joins the sets of two runs.
    fn unite(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[(a.max(b) - self.first) as usize] = a.min(b);
    }

    /// Returns the root of a tree, halving the path to it.
    fn find(&mut self, mut of: u32) -> u32 {
        loop {
            let parent = self.parents[(of - self.first) as usize];
            if parent == of {
                return of;
            }
            let grandparent = self.parents[(parent - self.first) as usize];
            self.parents[(of - self.first) as usize] = grandparent;
            of = grandparent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_a_plain_walk() {
        let mut state = 3u32;
        for width in [1, 7, 63, 64, 65, 128, 200] {
            for sparse in [1u32, 2, 5, 40] {
                let values: Vec<u32> = (0..width * 3)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 16) % sparse
                    })
                    .collect();
                let runs = Runs::new([width, 3, 1], &values, |value| value == 0);
                let painted = runs.paint(|_| 1u32);
                assert!(painted.iter().zip(&values).all(|(&p, &v)| (p == 1) == (v == 0)));
                for row in 0..3 {
                    let of_row = &runs.list[runs.of_row(row)];
                    assert!(of_row.windows(2).all(|two| two[0].end < two[1].start));
                    assert!(of_row.iter().all(|run| run.start < run.end));
                }
            }
        }
    }
}
