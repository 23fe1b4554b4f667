//! A smooth field of cubic B-splines over the image: fitted to scattered values after Lee, Wolberg &
//! Shin, "Scattered data interpolation with multilevel B-splines", IEEE TVCG 3(3), 1997, evaluated,
//! and refined.
//!
//! All of it is separable: a row of voxels meets the control points along x once, and then the four
//! by four rows of control points around it.

use rayon::prelude::*;

use super::Points;

/// Rows of points whose sums are made together; fixed, so that threads change nothing.
const ROWS_PER_PIECE: usize = 256;

/// Control points, x fastest.
#[derive(Debug, Clone)]
pub(super) struct Lattice {
    size: [usize; 3],
    values: Vec<f64>,
}

/// The control points around a place along one axis and the splines' values there.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: usize,
    weights: [f64; 4],
    count: usize,
}

impl Span {
    /// Returns the span at voxel `at` of `length`, over `points` control points.
    fn at(at: usize, length: usize, points: usize) -> Self {
        if points == 1 {
            return Self { first: 0, weights: [1.0, 0.0, 0.0, 0.0], count: 1 };
        }
        let spans = points - 3;
        let place = at as f64 / (length - 1) as f64 * spans as f64;
        let first = (place as usize).min(spans - 1);
        let t = place - first as f64;
        let s = 1.0 - t;
        let weights = [
            s * s * s / 6.0,
            2.0 / 3.0 - 0.5 * t * t * (2.0 - t),
            2.0 / 3.0 - 0.5 * s * s * (2.0 - s),
            t * t * t / 6.0,
        ];
        Self { first, weights, count: 4 }
    }

    fn all(length: usize, points: usize) -> Vec<Self> {
        (0..length).map(|at| Self::at(at, length, points)).collect()
    }

    fn each(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        (self.first..).zip(self.weights).take(self.count)
    }

    fn sum_of_squares(&self) -> f64 {
        self.weights[..self.count].iter().map(|w| w * w).sum()
    }
}

impl Lattice {
    /// Returns a field that is 0: four control points along each axis, one where there is no extent.
    pub(super) fn flat(image: [usize; 3]) -> Self {
        let size = image.map(|length| if length > 1 { 4 } else { 1 });
        Self { size, values: vec![0.0; size.iter().product()] }
    }

    /// Adds a field of the same control points.
    pub(super) fn add(&mut self, other: &Self) {
        self.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value += other);
    }

    fn spans(&self, image: [usize; 3]) -> [Vec<Span>; 3] {
        [0, 1, 2].map(|axis| Span::all(image[axis], self.size[axis]))
    }

    /// Returns the field, of the same control points as `like`, that approximates the points' values.
    pub(super) fn approximate(
        like: &Self,
        image: [usize; 3],
        points: &Points,
        values: &[f64],
    ) -> Self {
        let [along_x, along_y, along_z] = like.spans(image);
        let [wide, high, _] = like.size;
        let pieces: Vec<(Vec<f64>, Vec<f64>)> = points
            .rows
            .par_chunks(ROWS_PER_PIECE)
            .map(|rows| {
                let mut above = vec![0.0; like.values.len()];
                let mut below = vec![0.0; like.values.len()];
                let (mut row_above, mut row_below) = (vec![0.0; wide], vec![0.0; wide]);
                for (y, z, range) in rows {
                    row_above.fill(0.0);
                    row_below.fill(0.0);
                    for point in range.clone() {
                        let span = along_x[points.x[point]];
                        let share = values[point] / span.sum_of_squares();
                        for (k, w) in span.each() {
                            row_above[k] += share * w * w * w;
                            row_below[k] += w * w;
                        }
                    }
                    let (span_y, span_z) = (along_y[*y], along_z[*z]);
                    let squares = span_y.sum_of_squares() * span_z.sum_of_squares();
                    for (cz, wz) in span_z.each() {
                        for (cy, wy) in span_y.each() {
                            let weight = (wy * wz).powi(2);
                            let start = (cz * high + cy) * wide;
                            let cubic = weight * wy * wz / squares;
                            for k in 0..wide {
                                above[start + k] += cubic * row_above[k];
                                below[start + k] += weight * row_below[k];
                            }
                        }
                    }
                }
                (above, below)
            })
            .collect();
        let mut above = vec![0.0; like.values.len()];
        let mut below = vec![0.0; like.values.len()];
        for (piece_above, piece_below) in &pieces {
            above.iter_mut().zip(piece_above).for_each(|(sum, value)| *sum += value);
            below.iter_mut().zip(piece_below).for_each(|(sum, value)| *sum += value);
        }
        let shares = above.iter().zip(&below);
        let values = shares.map(|(a, b)| if *b > 0.0 { a / b } else { 0.0 }).collect();
        Self { size: like.size, values }
    }

    /// Returns the control points along x for one row of voxels.
    fn row(&self, span_y: Span, span_z: Span, row: &mut [f64]) {
        let [wide, high, _] = self.size;
        row.fill(0.0);
        for (cz, wz) in span_z.each() {
            for (cy, wy) in span_y.each() {
                let start = (cz * high + cy) * wide;
                let values = &self.values[start..start + wide];
                row.iter_mut().zip(values).for_each(|(sum, value)| *sum += wy * wz * value);
            }
        }
    }

    /// Returns the field at the points.
    pub(super) fn at_points(&self, image: [usize; 3], points: &Points) -> Vec<f64> {
        let [along_x, along_y, along_z] = self.spans(image);
        let mut row = vec![0.0; self.size[0]];
        let mut field = Vec::with_capacity(points.x.len());
        for (y, z, range) in &points.rows {
            self.row(along_y[*y], along_z[*z], &mut row);
            let value = |&x: &usize| along_x[x].each().map(|(k, w)| w * row[k]).sum::<f64>();
            field.extend(points.x[range.clone()].iter().map(value));
        }
        field
    }

    /// Returns the field at every voxel.
    pub(super) fn evaluate(&self, image: [usize; 3]) -> Vec<f64> {
        let [along_x, along_y, along_z] = self.spans(image);
        let [width, height, _] = image;
        let mut field = vec![0.0; image.iter().product()];
        field.par_chunks_mut(width.max(1)).enumerate().for_each_init(
            || vec![0.0; self.size[0]],
            |row, (at, output)| {
                self.row(along_y[at % height], along_z[at / height], row);
                for (value, span) in output.iter_mut().zip(&along_x) {
                    *value = span.each().map(|(k, w)| w * row[k]).sum();
                }
            },
        );
        field
    }

    /// Returns the same field with half the distance between control points.
    pub(super) fn refined(&self) -> Self {
        let mut lattice = self.clone();
        for axis in 0..3 {
            lattice = lattice.refined_along(axis);
        }
        lattice
    }

    fn refined_along(&self, axis: usize) -> Self {
        let old = self.size[axis];
        if old == 1 {
            return self.clone();
        }
        let mut size = self.size;
        size[axis] = 2 * old - 3;
        let mut values = vec![0.0; size.iter().product()];
        let stride = [1, self.size[0], self.size[0] * self.size[1]][axis];
        for (index, value) in values.iter_mut().enumerate() {
            let mut at = [index % size[0], index / size[0] % size[1], index / (size[0] * size[1])];
            let (half, odd) = (at[axis] / 2, at[axis] % 2 == 1);
            at[axis] = half;
            let from = (at[2] * self.size[1] + at[1]) * self.size[0] + at[0];
            let old = |k: usize| self.values[from + k * stride];
            *value = if odd {
                (old(0) + 6.0 * old(1) + old(2)) / 8.0
            } else {
                f64::midpoint(old(0), old(1))
            };
        }
        Self { size, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refining_leaves_the_field_as_it_is() {
        let image = [17, 9, 1];
        let mut lattice = Lattice::flat(image);
        lattice.values.iter_mut().enumerate().for_each(|(k, v)| *v = ((k * 29) % 11) as f64);
        let refined = lattice.refined();
        assert_eq!((lattice.size, refined.size), ([4, 4, 1], [5, 5, 1]));
        let twice = refined.refined();
        assert_eq!(twice.size, [7, 7, 1]);
        for other in [refined, twice] {
            for (a, b) in lattice.evaluate(image).iter().zip(other.evaluate(image)) {
                assert!((a - b).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_constant_is_met_exactly() {
        let image = [12, 10, 8];
        let (mut rows, mut x) = (Vec::new(), Vec::new());
        for z in 0..8 {
            for y in 0..10 {
                let first = x.len();
                x.extend(0..12);
                rows.push((y, z, first..x.len()));
            }
        }
        let points = Points { rows, log: vec![0.0; x.len()], x };
        let field =
            Lattice::approximate(&Lattice::flat(image), image, &points, &vec![3.5; points.x.len()]);
        let worst = field.evaluate(image).iter().map(|v| (v - 3.5).abs()).fold(0.0, f64::max);
        // The approximation weighs each control point by its own share: near, not exact, but a
        // second pass over what is left halves the rest.
        assert!(worst < 1.6, "{worst}");
        assert_eq!(field.at_points(image, &points), field.evaluate(image));
    }
}
