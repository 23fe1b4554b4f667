//! Runs: a set of voxels as the stretches it takes up in each row.
//!
//! Labelling components, filling holes, dilating: all of them ask which voxels of one row touch
//! those of another. On runs that costs what the shape's surface costs and not its volume (see
//! [`super::touching`]). Rows become runs 64 voxels at a time: as a word of bits
//! whose changes are counted out. (Regions grow from seeds over runs too: see [`super::reach`].)

use std::ops::Range;

use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::neighbourhood::{self, Connectivity, Space, step_within};
use super::touching::{Bits, Join, Sets};
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
    pub(super) size: [usize; 3],
    /// The runs of all rows in raster order.
    pub(super) list: Vec<Run>,
    /// For each row, the position of its first run; one more entry for the end.
    first: Vec<usize>,
    pub(super) bits: Bits,
}

/// What a thread has found in some rows.
#[derive(Default)]
struct Found {
    runs: Vec<Run>,
    /// The number of runs of each row.
    counts: Vec<usize>,
    words: Vec<u64>,
    /// The number of runs that begin before each word.
    ranks: Vec<u32>,
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
        let wide = width.div_ceil(64);
        let chunks: Vec<Found> = (0..rows.div_ceil(ROWS_PER_CHUNK))
            .into_par_iter()
            .map_init(
                || RowFlags::new(width),
                |flags, chunk| {
                    let mut found = Found::default();
                    for row in chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(rows) {
                        let before = found.runs.len();
                        flags.set(&values[row * width..(row + 1) * width], &inside);
                        flags.push_words(&mut found);
                        found.counts.push(found.runs.len() - before);
                    }
                    found
                },
            )
            .collect();
        let mut first = Vec::with_capacity(rows + 1);
        first.push(0);
        let mut total = 0;
        for count in chunks.iter().flat_map(|found| &found.counts) {
            total += count;
            first.push(total);
        }
        let mut list = vec![Run::default(); total];
        let (mut words, mut ranks) = (vec![0; rows * wide], vec![0; rows * wide]);
        let (mut runs_left, mut rank) = (list.as_mut_slice(), 0);
        let words_of_chunks = words.chunks_mut(ROWS_PER_CHUNK * wide.max(1));
        let ranks_of_chunks = ranks.chunks_mut(ROWS_PER_CHUNK * wide.max(1));
        let mut places = Vec::with_capacity(chunks.len());
        for ((found, words), ranks) in chunks.iter().zip(words_of_chunks).zip(ranks_of_chunks) {
            let (runs, after) = runs_left.split_at_mut(found.runs.len());
            places.push((found, runs, words, ranks, rank));
            runs_left = after;
            rank += found.runs.len() as u32;
        }
        places.into_par_iter().for_each(|(found, runs, words, ranks, before)| {
            runs.copy_from_slice(&found.runs);
            words.copy_from_slice(&found.words);
            ranks.iter_mut().zip(&found.ranks).for_each(|(to, from)| *to = before + from);
        });
        Self { size, list, first, bits: Bits::new(wide, words, ranks) }
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
        let (steps, full) = (steps.as_slice(), connectivity == Connectivity::Full);
        shares.into_par_iter().for_each(|(rows, own)| {
            let sets = &mut Sets { parents: own, first: self.first[rows.start] as u32 };
            let with = rows.clone();
            vectorised(Join { runs: self, steps, full, rows, with, sets });
        });
        let sets = &mut Sets { parents: &mut parents, first: 0 };
        for from in (share..rows).step_by(share) {
            // The last row that a step leads back over the start is one slice and one row further.
            let seam = from..(from + self.size[1] + 1).min(rows);
            vectorised(Join { runs: self, steps, full, rows: seam, with: 0..from, sets });
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

    /// Returns the voxels of the grid, with the value that `value` gives to each run and 0 outside.
    pub(super) fn paint<T: Default + Copy + Send>(
        &self,
        value: impl Fn(usize) -> T + Sync,
    ) -> Vec<T> {
        let [width, height, depth] = self.size;
        memory::made(width * height * depth, width, |row, voxels| {
            let voxels = voxels.fill(T::default());
            for run in self.of_row(row) {
                let Run { start, end } = self.list[run];
                voxels[start as usize..end as usize].fill(value(run));
            }
            voxels
        })
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
        self.push(runs, |_, _| ());
    }

    /// Appends the runs of the row, its words, and their ranks.
    fn push_words(&self, found: &mut Found) {
        let Found { runs, words, ranks, .. } = found;
        self.push(runs, |word, rank| {
            words.push(word);
            ranks.push(rank);
        });
    }

    /// Appends the runs of the row and tells of its words, each with the number of runs so far.
    fn push(&self, runs: &mut Vec<Run>, mut tell: impl FnMut(u64, u32)) {
        let mut start = None;
        let mut last = 0;
        for (k, flags) in self.flags.as_chunks::<64>().0.iter().enumerate() {
            let word = word_of(flags);
            tell(word, runs.len() as u32 + u32::from(start.is_some()));
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
