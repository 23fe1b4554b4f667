//! The exact Euclidean distance to the nearest voxel of a set, in millimetres.
//!
//! Squared distances are made one axis at a time, as in Felzenszwalb & Huttenlocher, "Distance
//! transforms of sampled functions", Theory of Computing 8, 2012. Along y and z, 16 neighbouring
//! columns go together: where distances are short, each voxel looks so far as a nearer one can lie,
//! all columns at once; where they are long, each column's lower envelope of parabolas is made.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::Space;
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
    let to = |label_is_zero: bool| {
        let mut voxels = squares(mask, label_is_zero, space);
        voxels.par_iter_mut().with_min_len(1 << 14).for_each(|square| *square = square.sqrt());
        Image { geometry: mask.geometry, voxels }
    };
    match side {
        Side::Inside => to(true),
        Side::Outside => to(false),
        Side::Signed => {
            let (mut outside, inside) = (to(false), to(true));
            let pairs = outside.voxels.par_iter_mut().with_min_len(1 << 14).zip(&inside.voxels);
            pairs.for_each(|(outside, &inside)| {
                if inside > 0.0 {
                    *outside = -inside;
                }
            });
            outside
        }
    }
}

/// Columns that are worked on together.
const LANES: usize = 16;
/// The steps that a voxel looks in each direction before parabolas are cheaper.
const STEPS_MAX: f32 = 64.0;

type Lanes = [f32; LANES];

/// Returns the squared distances to the voxels whose label is 0, or is not.
fn squares(mask: &Mask, to_zero: bool, space: Space) -> Vec<f32> {
    let [width, height, depth] = mask.geometry.size;
    let mut squares = vec![0.0f32; mask.voxels.len()];
    if squares.is_empty() {
        return squares;
    }
    let spacing = mask.geometry.spacing_mm.map(|spacing| spacing as f32);
    let rows = squares.par_chunks_mut(width).zip(mask.voxels.par_chunks(width));
    rows.with_min_len(16).for_each(|(squares, labels)| {
        along_row(squares, labels, to_zero, spacing[0]);
    });
    if height > 1 {
        squares.par_chunks_mut(width * height).for_each(|slice| {
            let mut columns = Columns::new(height, spacing[1]);
            for from in (0..width).step_by(LANES) {
                let wide = (width - from).min(LANES);
                columns.run(slice, from, width, wide);
            }
        });
    }
    if depth > 1 && space == Space::Volume {
        along_z(&mut squares, width * height, depth, spacing[2]);
    }
    squares
}

/// Runs the columns along z: one thread takes a stretch of every slice.
fn along_z(squares: &mut [f32], plane: usize, depth: usize, spacing: f32) {
    let stretch = plane.div_ceil(rayon::current_num_threads() * 4).next_multiple_of(LANES);
    let mut stretches: Vec<Vec<&mut [f32]>> = Vec::new();
    for slice in squares.chunks_mut(plane) {
        for (k, part) in slice.chunks_mut(stretch).enumerate() {
            if k == stretches.len() {
                stretches.push(Vec::with_capacity(depth));
            }
            stretches[k].push(part);
        }
    }
    stretches.par_iter_mut().for_each(|slices| {
        let mut columns = Columns::new(depth, spacing);
        let length = slices[0].len();
        for from in (0..length).step_by(LANES) {
            let wide = (length - from).min(LANES);
            columns.load(|z| &slices[z][from..from + wide]);
            columns.transform();
            columns
                .store(|z, values| slices[z][from..from + wide].copy_from_slice(&values[..wide]));
        }
    });
}

/// Writes the squared distances within one row.
fn along_row(squares: &mut [f32], labels: &[u8], to_zero: bool, spacing: f32) {
    let mut steps = f32::INFINITY;
    for (square, &label) in squares.iter_mut().zip(labels) {
        steps = if (label == 0) == to_zero { 0.0 } else { steps + 1.0 };
        *square = steps;
    }
    steps = f32::INFINITY;
    for square in squares.iter_mut().rev() {
        steps = if *square == 0.0 { 0.0 } else { steps + 1.0 };
        let distance = square.min(steps) * spacing;
        *square = distance * distance;
    }
}

/// A block of columns and what is needed to work on it.
struct Columns {
    spacing: f32,
    before: Vec<Lanes>,
    after: Vec<Lanes>,
    /// Where the parabolas of the lower envelope stand, and from where on each is the lowest.
    stands: Vec<usize>,
    begins: Vec<f64>,
}

impl Columns {
    fn new(length: usize, spacing: f32) -> Self {
        let lanes = vec![[f32::INFINITY; LANES]; length];
        Self {
            spacing,
            before: lanes.clone(),
            after: lanes,
            stands: Vec::new(),
            begins: Vec::new(),
        }
    }

    /// Transforms `wide` columns of a slice from column `from` on.
    fn run(&mut self, slice: &mut [f32], from: usize, width: usize, wide: usize) {
        self.load(|y| &slice[y * width + from..y * width + from + wide]);
        self.transform();
        self.store(|y, values| {
            slice[y * width + from..y * width + from + wide].copy_from_slice(&values[..wide]);
        });
    }

    fn load<'a>(&mut self, row: impl Fn(usize) -> &'a [f32]) {
        for (at, lanes) in self.before.iter_mut().enumerate() {
            let values = row(at);
            lanes[..values.len()].copy_from_slice(values);
            lanes[values.len()..].fill(0.0);
        }
    }

    fn store(&self, mut row: impl FnMut(usize, &Lanes)) {
        self.after.iter().enumerate().for_each(|(at, lanes)| row(at, lanes));
    }

    fn transform(&mut self) {
        let greatest = self.before.iter().flatten().copied().fold(0.0, f32::max);
        let reach = STEPS_MAX * self.spacing;
        if greatest <= reach * reach || self.before.len() <= STEPS_MAX as usize {
            self.look_around();
        } else {
            (0..LANES).for_each(|lane| self.envelope(lane));
        }
    }

    /// Looks from each voxel both ways as far as a nearer one can lie.
    fn look_around(&mut self) {
        let length = self.before.len();
        for at in 0..length {
            let mut best = self.before[at];
            for step in 1..length {
                let away = step as f32 * self.spacing;
                let square = away * away;
                if best.iter().all(|&best| best <= square) {
                    break;
                }
                let mut take = |other: &Lanes| {
                    for (best, &other) in best.iter_mut().zip(other) {
                        let through = other + square;
                        *best = if through < *best { through } else { *best };
                    }
                };
                if step <= at {
                    take(&self.before[at - step]);
                }
                if let Some(other) = self.before.get(at + step) {
                    take(other);
                }
            }
            self.after[at] = best;
        }
    }

    /// Makes the lower envelope of the parabolas of one column.
    fn envelope(&mut self, lane: usize) {
        let spacing = f64::from(self.spacing);
        let height = |at: usize| f64::from(self.before[at][lane]);
        self.stands.clear();
        self.begins.clear();
        for at in (0..self.before.len()).filter(|&at| height(at).is_finite()) {
            let mut begin = f64::NEG_INFINITY;
            while let (Some(&last), Some(&last_begin)) = (self.stands.last(), self.begins.last()) {
                let [p, q] = [last, at].map(|k| k as f64 * spacing);
                begin = ((height(at) + q * q) - (height(last) + p * p)) / (2.0 * (q - p));
                if begin > last_begin {
                    break;
                }
                self.stands.pop();
                self.begins.pop();
                begin = f64::NEG_INFINITY;
            }
            self.stands.push(at);
            self.begins.push(begin);
        }
        let mut current = 0;
        for at in 0..self.before.len() {
            let place = at as f64 * spacing;
            while self.begins.get(current + 1).is_some_and(|&begin| begin < place) {
                current += 1;
            }
            self.after[at][lane] = self.stands.get(current).map_or(f32::INFINITY, |&stand| {
                let away = at.abs_diff(stand) as f32 * self.spacing;
                self.before[stand][lane] + away * away
            });
        }
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
