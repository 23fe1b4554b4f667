//! What a path over neighbours joins to seeds.
//!
//! A region grows run by run. A row is looked at when the region first comes to it, and only once:
//! a small region in a large volume costs what it and its surroundings cost. Which voxels are
//! reached does not depend on the order.

use std::ops::Range;

use rayon::prelude::*;

use super::neighbourhood::{Connectivity, Space, rows_around};
use super::runs::{RowFlags, Run, row_at};
use crate::memory;

/// A set of voxels that was grown from seeds.
pub(super) struct Region {
    size: [usize; 3],
    /// For each row, the positions of its runs; nothing where the region did not come.
    rows: Vec<Range<u32>>,
    runs: Vec<Run>,
    /// For each run, whether it belongs to the region.
    reached: Vec<bool>,
}

/// A row that was not looked at yet.
const UNSEEN: Range<u32> = u32::MAX..u32::MAX;

impl Region {
    /// Returns the voxels that are connected to a seed. `inside` is given the number of a row, y +
    /// height × z, and sets the flags of those of its voxels that the region may grow through.
    /// Seeds that are not among them reach nothing.
    pub(super) fn grow(
        size: [usize; 3],
        seeds: impl IntoIterator<Item = usize>,
        connectivity: Connectivity,
        space: Space,
        mut inside: impl FnMut(usize, &mut RowFlags),
    ) -> Self {
        let [width, height, depth] = size;
        let rows = if width == 0 { 0 } else { height * depth };
        let mut region =
            Self { size, rows: vec![UNSEEN; rows], runs: Vec::new(), reached: Vec::new() };
        let mut flags = RowFlags::new(width);
        let mut waiting: Vec<(u32, u32)> = Vec::new();
        let steps = rows_around(connectivity, space);
        for seed in seeds {
            let (row, x) = (seed / width, (seed % width) as u32);
            region.look_at(row, &mut flags, &mut inside);
            region.reach(row, Run { start: x, end: x + 1 }, 0, &mut waiting);
            while let Some((row, run)) = waiting.pop() {
                let run = region.runs[run as usize];
                for step in &steps {
                    if let Some(to) = row_at(size, row as usize, step.dy, step.dz) {
                        region.look_at(to, &mut flags, &mut inside);
                        region.reach(to, run, step.reach as u32, &mut waiting);
                    }
                }
            }
        }
        region
    }

    /// Finds the runs of a row that was not looked at yet.
    fn look_at(
        &mut self,
        row: usize,
        flags: &mut RowFlags,
        inside: &mut impl FnMut(usize, &mut RowFlags),
    ) {
        if self.rows[row] == UNSEEN {
            inside(row, flags);
            let first = self.runs.len() as u32;
            flags.push_runs(&mut self.runs);
            self.reached.resize(self.runs.len(), false);
            self.rows[row] = first..self.runs.len() as u32;
        }
    }

    /// Takes in the runs of a row that touch a run of a row beside it.
    fn reach(&mut self, row: usize, from: Run, reach: u32, waiting: &mut Vec<(u32, u32)>) {
        let Range { start, end } = self.rows[row];
        let runs = &self.runs[start as usize..end as usize];
        let first = runs.partition_point(|run| run.end + reach <= from.start);
        for (k, _) in
            runs.iter().enumerate().skip(first).take_while(|(_, run)| run.start < from.end + reach)
        {
            let run = start as usize + k;
            if !self.reached[run] {
                self.reached[run] = true;
                waiting.push((row as u32, run as u32));
            }
        }
    }

    /// Returns the stretches of voxels of the region in raster order.
    pub(super) fn stretches(&self) -> impl Iterator<Item = Range<usize>> {
        self.rows.iter().enumerate().flat_map(move |(row, _)| self.in_row(row))
    }

    /// Returns what is made of the stretches of each row to which the region came, in their order.
    pub(super) fn rows_with<T: Send>(
        &self,
        make: impl Fn(&mut dyn Iterator<Item = Range<usize>>) -> T + Sync,
    ) -> Vec<T> {
        let came = |row: &usize| self.rows[*row] != UNSEEN;
        let rows = (0..self.rows.len()).into_par_iter().with_min_len(64).filter(came);
        rows.map(|row| make(&mut self.in_row(row))).collect()
    }

    fn in_row(&self, row: usize) -> impl Iterator<Item = Range<usize>> {
        let Range { start, end } = self.rows[row];
        let width = self.size[0];
        (start..end).map(|run| run as usize).filter(|&run| self.reached[run]).map(move |run| {
            let Run { start, end } = self.runs[run];
            row * width + start as usize..row * width + end as usize
        })
    }

    /// Returns 1 for each voxel of the region and 0 elsewhere.
    pub(super) fn paint(&self) -> Vec<u8> {
        let width = self.size[0];
        let mut voxels = memory::zeros::<u8>(self.size.iter().product());
        let rows = voxels.par_chunks_mut(width.max(1)).with_min_len(64).enumerate();
        rows.for_each(|(row, voxels)| {
            for stretch in self.in_row(row) {
                voxels[stretch.start - row * width..stretch.end - row * width].fill(1);
            }
        });
        voxels
    }
}
