//! Runs: a set of voxels as the stretches it takes up in each row.
//!
//! Labelling components, growing regions from seeds, filling holes, dilating: all of them ask which
//! voxels of one row touch those of another. On runs that is a comparison of ranges, not of voxels,
//! so they cost what the shape's surface costs and not its volume.

use rayon::prelude::*;

use super::neighbourhood::{self, Connectivity, RowStep, Space, step_within};

/// A stretch of voxels in a row: from `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Returns the runs of the voxels whose index `inside` accepts.
    pub(super) fn new(size: [usize; 3], inside: impl Fn(usize) -> bool + Sync) -> Self {
        let [width, height, depth] = size;
        let rows = if width == 0 { 0 } else { height * depth };
        let chunks: Vec<(Vec<Run>, Vec<usize>)> = (0..rows.div_ceil(ROWS_PER_CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let mut runs = Vec::new();
                let mut counts = Vec::with_capacity(ROWS_PER_CHUNK);
                for row in chunk * ROWS_PER_CHUNK..((chunk + 1) * ROWS_PER_CHUNK).min(rows) {
                    let before = runs.len();
                    push_runs(width, |x| inside(row * width + x), &mut runs);
                    counts.push(runs.len() - before);
                }
                (runs, counts)
            })
            .collect();
        let mut first = Vec::with_capacity(rows + 1);
        first.push(0);
        let mut total = 0;
        for count in chunks.iter().flat_map(|(_, counts)| counts) {
            total += count;
            first.push(total);
        }
        let mut runs = Vec::with_capacity(total);
        for (chunk, _) in &chunks {
            runs.extend_from_slice(chunk);
        }
        Self { size, list: runs, first }
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> usize {
        self.first.len() - 1
    }

    /// Returns the positions of a row's runs in [`Runs::list`].
    pub(super) fn of_row(&self, row: usize) -> std::ops::Range<usize> {
        self.first[row]..self.first[row + 1]
    }

    /// Returns the row that a step from `row` leads to, if it lies in the grid.
    pub(super) fn row_at(&self, row: usize, dy: isize, dz: isize) -> Option<usize> {
        let [_, height, depth] = self.size;
        let y = step_within(row % height, dy, height)?;
        let z = step_within(row / height, dz, depth)?;
        Some(z * height + y)
    }

    /// Returns the runs of the row at `step` that touch `run`, which lies in `row`.
    fn touching(&self, row: usize, run: Run, step: RowStep) -> std::ops::Range<usize> {
        let Some(other) = self.row_at(row, step.dy, step.dz) else { return 0..0 };
        let range = self.of_row(other);
        let reach = step.reach as u32;
        let candidates = &self.list[range.clone()];
        let from = candidates.partition_point(|other| other.end + reach <= run.start);
        let to = from + candidates[from..].partition_point(|other| other.start < run.end + reach);
        range.start + from..range.start + to
    }

    /// Returns the component that each run belongs to and the number of components. They are
    /// numbered from 0 in the raster order of their first voxels.
    pub(super) fn components(&self, connectivity: Connectivity, space: Space) -> (Vec<u32>, usize) {
        let mut parents: Vec<u32> = (0..self.list.len() as u32).collect();
        let steps = neighbourhood::rows_before(connectivity, space);
        for row in 0..self.rows() {
            for run in self.of_row(row) {
                for &step in &steps {
                    for other in self.touching(row, self.list[run], step) {
                        unite(&mut parents, run as u32, other as u32);
                    }
                }
            }
        }
        let mut count = 0u32;
        let mut numbers = vec![0u32; parents.len()];
        for run in 0..parents.len() as u32 {
            // Roots are the smallest of their tree, so a root's number is known before its tree's.
            let root = find(&mut parents, run);
            if root == run {
                numbers[run as usize] = count;
                count += 1;
            } else {
                numbers[run as usize] = numbers[root as usize];
            }
        }
        (numbers, count as usize)
    }

    /// Returns for each run whether it can be reached from one of the seed voxels. Seeds outside
    /// the set reach nothing.
    pub(super) fn reached_from(
        &self,
        seeds: impl IntoIterator<Item = usize>,
        connectivity: Connectivity,
        space: Space,
    ) -> Vec<bool> {
        let mut reached = vec![false; self.list.len()];
        let mut waiting: Vec<(usize, usize)> = Vec::new();
        for seed in seeds {
            let (row, x) = (seed / self.size[0], (seed % self.size[0]) as u32);
            let range = self.of_row(row);
            let run = range.start
                + self.list[range.clone()].partition_point(|candidate| candidate.end <= x);
            if run < range.end && self.list[run].start <= x && !reached[run] {
                reached[run] = true;
                waiting.push((row, run));
            }
        }
        let steps = neighbourhood::rows_around(connectivity, space);
        while let Some((row, run)) = waiting.pop() {
            for &step in &steps {
                for other in self.touching(row, self.list[run], step) {
                    if !reached[other] {
                        reached[other] = true;
                        let to = self.row_at(row, step.dy, step.dz).unwrap_or(row);
                        waiting.push((to, other));
                    }
                }
            }
        }
        reached
    }

    /// Returns the voxels of the grid, with the value that `value` gives to each run and 0 outside.
    pub(super) fn paint<T: Default + Copy + Send>(
        &self,
        value: impl Fn(usize) -> T + Sync,
    ) -> Vec<T> {
        let [width, height, depth] = self.size;
        let mut voxels = vec![T::default(); width * height * depth];
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

/// Appends the runs of one row.
fn push_runs(width: usize, inside: impl Fn(usize) -> bool, runs: &mut Vec<Run>) {
    let mut x = 0;
    while x < width {
        while x < width && !inside(x) {
            x += 1;
        }
        let start = x;
        while x < width && inside(x) {
            x += 1;
        }
        if x > start {
            runs.push(Run { start: start as u32, end: x as u32 });
        }
    }
}

/// Returns the root of a tree, halving the path to it.
fn find(parents: &mut [u32], mut of: u32) -> u32 {
    while parents[of as usize] != of {
        let grandparent = parents[parents[of as usize] as usize];
        parents[of as usize] = grandparent;
        of = grandparent;
    }
    of
}

/// Joins two trees under the smaller root.
fn unite(parents: &mut [u32], a: u32, b: u32) {
    let (a, b) = (find(parents, a), find(parents, b));
    parents[a.max(b) as usize] = a.min(b);
}
