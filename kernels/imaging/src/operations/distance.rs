//! The exact Euclidean distance to the nearest voxel of a set, in millimetres.
//!
//! Squared distances are made one axis at a time, as in Saito & Toriwaki, "New algorithms for
//! Euclidean distance transformation", Pattern Recognition 27(11), 1994: along x from one change of
//! the mask to the next, then along y and z from each voxel outwards as far as a nearer one can
//! lie. 16 neighbouring columns go together, and where that is far, blocks of voxels that hold
//! nothing near enough are passed over. Both sides of a mask are made at once: a voxel inside holds
//! its square with the other sign.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::Space;
use super::runs::{RowFlags, Run};
use super::vector::{call, vectorised};
use crate::memory;
use crate::volume::{Image, Mask};

/// From which voxels the distance is taken, and to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// For each voxel of the mask, the distance to the nearest voxel outside it; 0 outside.
    #[default]
    Inside,
    /// For each voxel outside, the distance to the nearest voxel of the mask; 0 inside.
    Outside,
    /// Outside less inside: negative in the mask.
    Signed,
}

/// Returns distances between voxel centres, in millimetres; infinite where there is nothing to
/// reach. In slices, only the own slice counts.
#[must_use]
pub fn distance(mask: &Mask, side: Side, space: Space) -> Image {
    let [width, height, depth] = mask.geometry.size;
    let mut voxels = memory::zeros::<f32>(mask.voxels.len());
    if voxels.is_empty() {
        return Image { geometry: mask.geometry, voxels };
    }
    let spacing = mask.geometry.spacing_mm.map(|spacing| spacing as f32);
    let along_z = depth > 1 && space == Space::Volume;
    let area = width * height;
    voxels.par_chunks_mut(area).zip(mask.voxels.par_chunks(area)).for_each_init(
        || {
            let columns = Columns::new(height, spacing[1], !along_z);
            (RowFlags::new(width), Vec::new(), columns)
        },
        |(flags, runs, columns), (slice, labels)| {
            for (row, labels) in slice.chunks_mut(width).zip(labels.chunks(width)) {
                runs.clear();
                flags.set(labels, |label| label != 0);
                flags.push_runs(runs);
                along_row(row, runs, side, spacing[0]);
            }
            columns.run(&mut slice.chunks_mut(width).collect::<Vec<_>>());
        },
    );
    if along_z {
        // One thread takes a stretch of every slice.
        let stretch = area.div_ceil(rayon::current_num_threads() * 4).next_multiple_of(WIDE);
        let mut stretches: Vec<Vec<&mut [f32]>> = Vec::new();
        stretches.resize_with(area.div_ceil(stretch), || Vec::with_capacity(depth));
        for slice in voxels.chunks_mut(area) {
            stretches.iter_mut().zip(slice.chunks_mut(stretch)).for_each(|(all, part)| {
                all.push(part);
            });
        }
        stretches.par_iter_mut().for_each_init(
            || Columns::new(depth, spacing[2], true),
            |columns, slices| columns.run(slices),
        );
    }
    Image { geometry: mask.geometry, voxels }
}

/// Writes the squared distances within one row, given the runs of the mask.
fn along_row(squares: &mut [f32], runs: &[Run], side: Side, spacing: f32) {
    // The signs of the squares outside and inside; 0 where none are asked for.
    let (outside, inside) = match side {
        Side::Inside => (0.0, 1.0),
        Side::Outside => (1.0, 0.0),
        Side::Signed => (1.0, -1.0),
    };
    let width = squares.len();
    let mut from = 0;
    for &Run { start, end } in runs {
        let (start, end) = (start as usize, end as usize);
        between_changes(squares, from..start, spacing, outside);
        between_changes(squares, start..end, spacing, inside);
        from = end;
    }
    between_changes(squares, from..width, spacing, outside);
}

/// Writes the squared distances of voxels of one kind: to the nearer of the two beside them.
fn between_changes(squares: &mut [f32], range: Range<usize>, spacing: f32, sign: f32) {
    if sign == 0.0 {
        return;
    }
    // Beyond the border there is nothing.
    let left = if range.start > 0 { 1.0 } else { f32::INFINITY };
    let right = if range.end < squares.len() { range.len() as f32 } else { f32::INFINITY };
    for (k, square) in squares[range].iter_mut().enumerate() {
        let steps = f32::min(left + k as f32, right - k as f32);
        let distance = steps * spacing;
        *square = sign * (distance * distance);
    }
}

/// Columns that are worked on together.
const LANES: usize = 16;
/// Columns that are fetched together: lines of the cache that lie together, since the next row may be a
/// slice away.
const WIDE: usize = 4 * LANES;
/// The steps in both directions that are taken one by one.
const NEAR: usize = 4;
/// The voxels of a column that are passed over together, and those where even more are.
const BLOCK: usize = 8;
const SPAN: usize = 32;

type Lanes = [f32; LANES];

/// Neighbouring columns and what is needed to work on them.
struct Columns {
    spacing: f32,
    length: usize,
    /// Whether this is the last axis, so that distances are wanted and not their squares.
    last: bool,
    /// The columns that were fetched, [`LANES`] after the other; they are worked on in place.
    fetched: Vec<Lanes>,
    work: Work,
}

/// What is needed to work on columns.
struct Work {
    before: Vec<Lanes>,
    /// For each block, the least square that a voxel outside sees in it, and one inside.
    least: Vec<[Lanes; 2]>,
    /// The same for each span of blocks.
    of_spans: Vec<[Lanes; 2]>,
}

call!(Transform((f32, bool, &'a mut [Lanes], &'a mut Work)) => transform);

impl Columns {
    fn new(length: usize, spacing: f32, last: bool) -> Self {
        let work = Work {
            before: vec![[0.0; LANES]; length],
            least: vec![[[0.0; LANES]; 2]; length.div_ceil(BLOCK)],
            of_spans: vec![[[0.0; LANES]; 2]; length.div_ceil(SPAN)],
        };
        let fetched = vec![[0.0; LANES]; length * (WIDE / LANES)];
        Self { spacing, length, last, fetched, work }
    }

    /// Transforms all columns of some rows, which lie one below the other.
    fn run(&mut self, rows: &mut [&mut [f32]]) {
        let width = rows[0].len();
        for from in (0..width).step_by(WIDE) {
            let to = (from + WIDE).min(width);
            for (k, row) in rows.iter().enumerate() {
                for (group, squares) in row[from..to].chunks(LANES).enumerate() {
                    self.fetched[group * self.length + k][..squares.len()].copy_from_slice(squares);
                }
            }
            let groups = (to - from).div_ceil(LANES);
            for columns in self.fetched.chunks_mut(self.length).take(groups) {
                vectorised(Transform((self.spacing, self.last, columns, &mut self.work)));
            }
            for (k, row) in rows.iter_mut().enumerate() {
                for (group, squares) in row[from..to].chunks_mut(LANES).enumerate() {
                    let made = &self.fetched[group * self.length + k][..squares.len()];
                    squares.copy_from_slice(made);
                }
            }
        }
    }
}

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn transform((spacing, last, columns, work): (f32, bool, &mut [Lanes], &mut Work)) {
    let Work { before, least, of_spans } = work;
    before.copy_from_slice(columns);
    for (least, block) in least.iter_mut().zip(before.chunks(BLOCK)) {
        let [mut outside, mut inside] = [[f32::INFINITY; LANES]; 2];
        for squares in block {
            for lane in 0..LANES {
                outside[lane] = lesser(outside[lane], greater(squares[lane], 0.0));
                inside[lane] = lesser(inside[lane], greater(-squares[lane], 0.0));
            }
        }
        *least = [outside, inside];
    }
    for (of_span, blocks) in of_spans.iter_mut().zip(least.chunks(SPAN / BLOCK)) {
        *of_span = blocks[0];
        for block in &blocks[1..] {
            for side in 0..2 {
                for lane in 0..LANES {
                    of_span[side][lane] = lesser(of_span[side][lane], block[side][lane]);
                }
            }
        }
    }
    let mut last_best = [f32::INFINITY; LANES];
    let mut last_sign = [0.0; LANES];
    for (at, made) in columns.iter_mut().enumerate() {
        let mut search = Search::new(at, spacing, &before[at]);
        if search.near(before) {
            search.limit(&last_best, &last_sign);
            search.far(before, least, of_spans);
        }
        (last_best, last_sign) = (search.best, search.sign);
        for lane in 0..LANES {
            let square = search.best[lane];
            let distance = if last { square.sqrt() } else { square };
            made[lane] = distance * search.sign[lane];
        }
    }
}

/// The search for the least square from one row of lanes.
struct Search {
    at: usize,
    spacing: f32,
    /// The side that each lane is on: 1, or -1 inside.
    sign: Lanes,
    best: Lanes,
    /// What is surely more than the least square.
    limit: Lanes,
}

impl Search {
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn new(at: usize, spacing: f32, own: &Lanes) -> Self {
        let (mut sign, mut best) = ([1.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            sign[lane] = if own[lane] < 0.0 { -1.0 } else { 1.0 };
            best[lane] = own[lane].abs();
        }
        Self { at, spacing, sign, best, limit: [f32::INFINITY; LANES] }
    }

    /// Takes a limit from the row before: a step further, a distance grows by a step at most.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn limit(&mut self, last_best: &Lanes, last_sign: &Lanes) {
        for lane in 0..LANES {
            // More than rounding can make of it.
            let distance = (last_best[lane].sqrt() + self.spacing) * 1.0001;
            let same = (last_sign[lane] < 0.0) == (self.sign[lane] < 0.0);
            self.limit[lane] = if same { distance * distance } else { f32::INFINITY };
        }
    }

    /// Looks at the nearest rows on both sides; returns whether others may be nearer still.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn near(&mut self, rows: &[Lanes]) -> bool {
        for step in 1..=NEAR {
            if !self.hopes_beyond(step) {
                return false;
            }
            if step <= self.at {
                self.take(rows, self.at - step);
            }
            if self.at + step < rows.len() {
                self.take(rows, self.at + step);
            }
        }
        self.hopes_beyond(NEAR + 1)
    }

    /// Looks at the rows further away, span by span and block by block.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn far(&mut self, rows: &[Lanes], least: &[[Lanes; 2]], of_spans: &[[Lanes; 2]]) {
        let (at, after) = (self.at, self.at + NEAR + 1);
        for (span, of_span) in of_spans.iter().enumerate().skip(after / SPAN) {
            let nearest = (span * SPAN).max(after);
            if !self.hopes_beyond(nearest - at) {
                break;
            }
            if !self.hopes_for(of_span, nearest - at) {
                continue;
            }
            let end = ((span + 1) * SPAN).min(rows.len());
            for block in nearest / BLOCK..end.div_ceil(BLOCK) {
                let nearest = (block * BLOCK).max(after);
                if self.hopes_for(&least[block], nearest - at) {
                    for row in nearest..((block + 1) * BLOCK).min(end) {
                        self.take(rows, row);
                    }
                }
            }
        }
        let Some(before) = at.checked_sub(NEAR + 1) else { return };
        for (span, of_span) in of_spans.iter().enumerate().take(before / SPAN + 1).rev() {
            let nearest = (span * SPAN + SPAN - 1).min(before);
            if !self.hopes_beyond(at - nearest) {
                break;
            }
            if !self.hopes_for(of_span, at - nearest) {
                continue;
            }
            for block in (span * (SPAN / BLOCK)..=nearest / BLOCK).rev() {
                let nearest = (block * BLOCK + BLOCK - 1).min(before);
                if self.hopes_for(&least[block], at - nearest) {
                    for row in (block * BLOCK..=nearest).rev() {
                        self.take(rows, row);
                    }
                }
            }
        }
    }

    /// Returns whether something at least so many rows away can be nearer than what was found.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn hopes_beyond(&self, rows: usize) -> bool {
        let away = rows as f32 * self.spacing;
        let square = away * away;
        let mut any = false;
        for lane in 0..LANES {
            any |= lesser(self.best[lane], self.limit[lane]) > square;
        }
        any
    }

    /// Returns whether a block at least so many rows away can hold something nearer.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn hopes_for(&self, [outside, inside]: &[Lanes; 2], rows: usize) -> bool {
        let away = rows as f32 * self.spacing;
        let square = away * away;
        let mut any = false;
        for lane in 0..LANES {
            let least = if self.sign[lane] < 0.0 { inside[lane] } else { outside[lane] };
            any |= lesser(self.best[lane], self.limit[lane]) > least + square;
        }
        any
    }

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn take(&mut self, rows: &[Lanes], row: usize) {
        let away = self.at.abs_diff(row) as f32 * self.spacing;
        let square = away * away;
        let other = &rows[row];
        for lane in 0..LANES {
            // What lies on the other side is reached itself.
            let through = greater(self.sign[lane] * other[lane], 0.0) + square;
            self.best[lane] = lesser(through, self.best[lane]);
        }
    }
}

/// Returns the lesser of two numbers by the one instruction that vectors have for it.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Returns the greater of two numbers by the one instruction that vectors have for it.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    fn dots(size: [usize; 3], spacing: [f64; 3], at: &[[usize; 3]]) -> Mask {
        let mut mask = Mask::filled(Geometry::new(size, spacing), 0);
        for &[x, y, z] in at {
            let index = mask.geometry.index(x, y, z);
            mask.voxels[index] = 1;
        }
        mask
    }

    #[test]
    fn equals_the_least_of_all_distances() {
        // Short and long ways, so that both ways of working are taken.
        for (size, spacing, at) in [
            ([17, 9, 5], [1.0, 1.0, 1.0], vec![[3, 3, 2], [16, 0, 4], [0, 8, 0]]),
            ([20, 90, 3], [0.7, 1.3, 5.0], vec![[3, 80, 2]]),
            ([3, 4, 100], [1.0, 2.0, 0.9], vec![[0, 0, 99], [2, 3, 2]]),
            ([5, 1, 1], [1.0; 3], vec![[2, 0, 0]]),
        ] {
            let mask = dots(size, spacing, &at);
            let found = distance(&mask, Side::Outside, Space::Volume);
            for (index, &value) in found.voxels.iter().enumerate() {
                let here = mask.geometry.position(index);
                let to = |there: &[usize; 3]| -> f64 {
                    (0..3).map(|k| (here[k].abs_diff(there[k]) as f64 * spacing[k]).powi(2)).sum()
                };
                let expected = at.iter().map(to).fold(f64::INFINITY, f64::min).sqrt();
                assert!((f64::from(value) - expected).abs() < 1e-4, "{here:?}: {value}");
            }
        }
    }

    #[test]
    fn sides_slices_and_nothing_to_reach() {
        let mask = dots([5, 1, 2], [2.0, 1.0, 1.0], &[[1, 0, 0], [2, 0, 0]]);
        let row = |side, space| distance(&mask, side, space).voxels;
        assert_eq!(row(Side::Outside, Space::Volume)[..5], [2.0, 0.0, 0.0, 2.0, 4.0]);
        assert_eq!(row(Side::Inside, Space::Slice)[..5], [0.0, 2.0, 2.0, 0.0, 0.0]);
        assert_eq!(row(Side::Inside, Space::Volume)[..5], [0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(row(Side::Signed, Space::Volume)[..5], [2.0, -1.0, -1.0, 2.0, 4.0]);
        assert!(row(Side::Outside, Space::Slice)[5..].iter().all(|d| d.is_infinite()));
        assert!(distance(&mask.map(|_| 1), Side::Inside, Space::Volume).voxels[0].is_infinite());
    }
}
