//! The exact Euclidean distance to the nearest voxel of a set, in millimetres.
//!
//! Squared distances are made one axis at a time, as in Saito & Toriwaki, "New algorithms for
//! Euclidean distance transformation", Pattern Recognition 27(11), 1994: along x from one change of
//! the mask to the next, then along y and z from each voxel outwards as far as a nearer one can
//! lie, beginning with what was nearest to the voxel before. Neighbouring columns go together in
//! vectors, and where that is far, blocks of voxels that hold nothing near enough are passed over. Both sides of a mask are made at once: a voxel inside holds
//! its square with the other sign.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::Space;
use super::runs::{RowFlags, Run};
use super::vector::with_vectors;
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
                let (spacing, last) = (self.spacing, self.last);
                with_vectors(Transform { spacing, last, columns, work: &mut self.work });
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

/// The transform of columns that lie together.
struct Transform<'a> {
    spacing: f32,
    last: bool,
    columns: &'a mut [Lanes],
    work: &'a mut Work,
}

impl WithSimd for Transform<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.work.before.copy_from_slice(self.columns);
        for part in 0..LANES / S::F32_LANES {
            self.work.summarise(simd, part);
            transform(simd, part, self.spacing, self.last, self.columns, self.work);
        }
    }
}

/// Returns one vector of some lanes.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn vector<S: Simd>(lanes: &Lanes, part: usize) -> S::f32s {
    S::as_simd_f32s(lanes).0[part]
}

impl Work {
    /// Finds the least squares of blocks and spans.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn summarise<S: Simd>(&mut self, simd: S, part: usize) {
        let (zero, endless) = (simd.splat_f32s(0.0), simd.splat_f32s(f32::INFINITY));
        for (least, block) in self.least.iter_mut().zip(self.before.chunks(BLOCK)) {
            let [mut outside, mut inside] = [endless; 2];
            for squares in block {
                let squares = vector::<S>(squares, part);
                outside = simd.min_f32s(outside, simd.max_f32s(squares, zero));
                inside = simd.min_f32s(inside, simd.max_f32s(simd.neg_f32s(squares), zero));
            }
            S::as_mut_simd_f32s(&mut least[0]).0[part] = outside;
            S::as_mut_simd_f32s(&mut least[1]).0[part] = inside;
        }
        for (of_span, blocks) in self.of_spans.iter_mut().zip(self.least.chunks(SPAN / BLOCK)) {
            for side in 0..2 {
                let least = blocks.iter().fold(endless, |least, block| {
                    simd.min_f32s(least, vector::<S>(&block[side], part))
                });
                S::as_mut_simd_f32s(&mut of_span[side]).0[part] = least;
            }
        }
    }
}

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn transform<S: Simd>(
    simd: S,
    part: usize,
    spacing: f32,
    last: bool,
    columns: &mut [Lanes],
    work: &Work,
) {
    let Work { before, least, of_spans } = work;
    let (zero, endless) = (simd.splat_f32s(0.0), simd.splat_f32s(f32::INFINITY));
    let inside = simd.less_than_f32s(zero, zero);
    let mut nearest = Nearest { inside, best: endless, row: zero, given: endless };
    for (at, made) in columns.iter_mut().enumerate() {
        let own = vector::<S>(&before[at], part);
        let mut search = Search::new(simd, part, (at, spacing), own, nearest);
        if search.near(before) {
            search.far(before, least, of_spans);
        }
        nearest = search.nearest;
        let distance = if last { simd.sqrt_f32s(nearest.best) } else { nearest.best };
        let signed = simd.select_f32s(nearest.inside, simd.neg_f32s(distance), distance);
        S::as_mut_simd_f32s(made).0[part] = signed;
    }
}

/// What gives each lane of a row its least square.
#[derive(Clone, Copy)]
struct Nearest<S: Simd> {
    /// The lanes that are inside.
    inside: S::m32s,
    best: S::f32s,
    /// The row that it comes from, and the square of that row.
    row: S::f32s,
    given: S::f32s,
}

/// The search for the least square from one row of lanes.
struct Search<S: Simd> {
    simd: S,
    part: usize,
    at: usize,
    spacing: f32,
    nearest: Nearest<S>,
    /// 1 outside, -1 inside.
    sign: S::f32s,
    /// The first row that may be nearer to each lane than what was found, and the first of all.
    first_of: S::f32s,
    first: usize,
}

impl<S: Simd> Search<S> {
    /// Begins with what was nearest to the row before where that is on the same side. Nothing before it
    /// can be nearer now: one row further, the square of what is further off grows by more.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn new(
        simd: S,
        part: usize,
        (at, spacing): (usize, f32),
        own: S::f32s,
        last: Nearest<S>,
    ) -> Self {
        let here = simd.splat_f32s(at as f32);
        let (one, minus_one) = (simd.splat_f32s(1.0), simd.splat_f32s(-1.0));
        let inside = simd.less_than_f32s(own, simd.splat_f32s(0.0));
        let other = simd.xor_m32s(inside, last.inside);
        let own = simd.abs_f32s(own);
        let away = simd.mul_f32s(simd.sub_f32s(here, last.row), simd.splat_f32s(spacing));
        let through = simd.add_f32s(last.given, simd.mul_f32s(away, away));
        let through = simd.select_f32s(other, own, through);
        let better = simd.less_than_f32s(through, own);
        // What is on the other side is reached itself.
        let first_of = simd.select_f32s(other, simd.add_f32s(here, minus_one), last.row);
        let nearest = Nearest {
            inside,
            best: simd.select_f32s(better, through, own),
            row: simd.select_f32s(better, last.row, here),
            given: simd.select_f32s(better, last.given, own),
        };
        let sign = simd.select_f32s(inside, minus_one, one);
        let first = simd.reduce_min_f32s(first_of).max(0.0) as usize;
        Self { simd, part, at, spacing, nearest, sign, first_of, first }
    }

    /// Looks at the nearest rows on both sides; returns whether others may be nearer still.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn near(&mut self, rows: &[Lanes]) -> bool {
        for step in 1..=NEAR {
            if !self.hopes_beyond(step) {
                return false;
            }
            if self.first + step <= self.at {
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
        let Some(before) = at.checked_sub(NEAR + 1).filter(|&before| before >= self.first) else {
            return;
        };
        for span in (self.first / SPAN..=before / SPAN).rev() {
            let nearest = (span * SPAN + SPAN - 1).min(before);
            if !self.hopes_beyond(at - nearest) {
                break;
            }
            if !self.hopes_for(&of_spans[span], at - nearest) {
                continue;
            }
            let from = (span * SPAN).max(self.first);
            for block in (from / BLOCK..=nearest / BLOCK).rev() {
                let nearest = (block * BLOCK + BLOCK - 1).min(before);
                if self.hopes_for(&least[block], at - nearest) {
                    for row in (from.max(block * BLOCK)..=nearest).rev() {
                        self.take(rows, row);
                    }
                }
            }
        }
    }

    /// Returns the square of the way to another row.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn square(&self, rows: usize) -> S::f32s {
        let away = rows as f32 * self.spacing;
        self.simd.splat_f32s(away * away)
    }

    /// Returns whether something at least so many rows away can be nearer than what was found.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn hopes_beyond(&self, rows: usize) -> bool {
        let square = self.square(rows);
        self.any(self.simd.less_than_f32s(square, self.nearest.best))
    }

    /// Returns whether a block at least so many rows away can hold something nearer.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn hopes_for(&self, [outside, inside]: &[Lanes; 2], rows: usize) -> bool {
        let (outside, inside) = (vector::<S>(outside, self.part), vector::<S>(inside, self.part));
        let least = self.simd.select_f32s(self.nearest.inside, inside, outside);
        let square = self.simd.add_f32s(least, self.square(rows));
        self.any(self.simd.less_than_f32s(square, self.nearest.best))
    }

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn any(&self, lanes: S::m32s) -> bool {
        self.simd.first_true_m32s(lanes) < S::F32_LANES
    }

    /// Takes what another row gives where that is less.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn take(&mut self, rows: &[Lanes], row: usize) {
        let Self { simd, nearest, .. } = *self;
        let number = simd.splat_f32s(row as f32);
        let there = simd.mul_f32s(self.sign, vector::<S>(&rows[row], self.part));
        // What lies on the other side is reached itself.
        let there = simd.max_f32s(there, simd.splat_f32s(0.0));
        let through = simd.add_f32s(there, self.square(self.at.abs_diff(row)));
        // What a lane need not look at is left out, lest rounding make a result depend on its neighbours.
        let through = simd.select_f32s(
            simd.less_than_f32s(number, self.first_of),
            simd.splat_f32s(f32::INFINITY),
            through,
        );
        let better = simd.less_than_f32s(through, nearest.best);
        self.nearest = Nearest {
            inside: nearest.inside,
            best: simd.select_f32s(better, through, nearest.best),
            row: simd.select_f32s(better, number, nearest.row),
            given: simd.select_f32s(better, there, nearest.given),
        };
    }
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
    fn both_sides_of_any_mask_equal_the_least_of_all_distances() {
        let mut state = 3u32;
        let mut random = move |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        // From noise to a few voxels in the wide, and the same the other way round.
        for (one_of, inverted) in [(2, 0), (9, 1), (200, 0), (900, 1), (3000, 0)] {
            let geometry = Geometry::new([19, 41, 13], [0.9, 0.6, 2.1]);
            let voxels = (0..geometry.voxels()).map(|_| inverted ^ u8::from(random(one_of) == 0));
            let mask = Mask::new(geometry, voxels.collect()).unwrap();
            let signed = distance(&mask, Side::Signed, Space::Volume);
            for _ in 0..400 {
                let index = random(geometry.voxels() as u32) as usize;
                let (label, here) = (mask.voxels[index], geometry.position(index));
                let squares =
                    (0..geometry.voxels()).filter(|&k| mask.voxels[k] != label).map(|k| {
                        let there = geometry.position(k);
                        let along = |axis: usize| {
                            here[axis].abs_diff(there[axis]) as f64 * geometry.spacing_mm[axis]
                        };
                        (0..3).map(|axis| along(axis).powi(2)).sum::<f64>()
                    });
                let nearest = squares.fold(f64::INFINITY, f64::min).sqrt();
                let expected = if label == 0 { nearest } else { -nearest };
                let found = f64::from(signed.voxels[index]);
                assert!((found - expected).abs() < 1e-4, "1 of {one_of}, {here:?}: {found}");
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
