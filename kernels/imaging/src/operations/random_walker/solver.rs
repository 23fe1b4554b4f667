//! The linear systems of the random walker on a grid, and their solution.
//!
//! A system holds, for each voxel, the weights of the edges to its next neighbours along x, y and z
//! and the sum of those to seeds. Sums over voxels are made of fixed pieces in a fixed order, so
//! that the number of threads changes nothing.

use rayon::prelude::*;

use crate::volume::{Image, Mask};

/// The most iterations of the conjugate gradients.
const ITERATIONS_MAX: usize = 2000;
/// Systems of at most this many unknowns are not made coarser.
const COARSEST: usize = 64;
/// The share of a Jacobi step that is taken.
const DAMPING: f64 = 0.8;
/// Voxels summed at a time.
const PIECE: usize = 1 << 14;

/// A linear system: `diagonal × p − Σ weight × neighbour's p = right side`.
pub(super) struct Level {
    size: [usize; 3],
    /// The weights of the edges to the next voxel along x, y and z; 0 at the border and at seeds.
    weights: [Vec<f64>; 3],
    diagonal: Vec<f64>,
}

impl Level {
    /// Returns the system of all voxels that are not seeds. Seeds have no edges and diagonal 1.
    pub(super) fn of_image(image: &Image, seeds: &Mask, beta: f64) -> Self {
        let size = image.geometry.size;
        let edges = Edges::new(image, beta);
        let mut level = Self {
            size,
            weights: [vec![], vec![], vec![]],
            diagonal: vec![0.0; image.voxels.len()],
        };
        for axis in 0..3 {
            let stride = level.stride(axis);
            let mut weights = edges.along(axis);
            for index in 0..weights.len() {
                let weight = weights[index];
                if weight == 0.0 {
                    continue;
                }
                let seeded = [index, index + stride].map(|voxel| seeds.voxels[voxel] != 0);
                level.diagonal[index] += weight;
                level.diagonal[index + stride] += weight;
                if seeded[0] || seeded[1] {
                    weights[index] = 0.0;
                }
            }
            level.weights[axis] = weights;
        }
        for (diagonal, &seed) in level.diagonal.iter_mut().zip(&seeds.voxels) {
            if seed != 0 || *diagonal == 0.0 {
                *diagonal = 1.0;
            }
        }
        level
    }

    /// Returns the right side for one label: the weights of the edges to its seeds.
    pub(super) fn pull_of(&self, image: &Image, seeds: &Mask, label: u8, beta: f64) -> Vec<f64> {
        let edges = Edges::new(image, beta);
        let mut right = vec![0.0; image.voxels.len()];
        for index in (0..seeds.voxels.len()).filter(|&index| seeds.voxels[index] == label) {
            let at = image.geometry.position(index);
            for axis in 0..3 {
                let stride = self.stride(axis);
                if at[axis] > 0 && seeds.voxels[index - stride] == 0 {
                    right[index - stride] += edges.weight(index - stride, axis);
                }
                if at[axis] + 1 < self.size[axis] && seeds.voxels[index + stride] == 0 {
                    right[index + stride] += edges.weight(index, axis);
                }
            }
        }
        right
    }

    fn stride(&self, axis: usize) -> usize {
        [1, self.size[0], self.size[0] * self.size[1]][axis]
    }

    /// Returns ever coarser systems, each over blocks of two voxels along every axis: the Galerkin
    /// product with functions that are constant on blocks.
    pub(super) fn hierarchy(&self) -> Vec<Self> {
        let mut levels: Vec<Self> = Vec::new();
        loop {
            let fine = levels.last().unwrap_or(self);
            if fine.diagonal.len() <= COARSEST {
                return levels;
            }
            let coarse = fine.coarser();
            levels.push(coarse);
        }
    }

    fn coarser(&self) -> Self {
        let size = self.size.map(|voxels| voxels.div_ceil(2));
        let voxels = size.iter().product();
        let mut coarse = Self {
            size,
            weights: [vec![0.0; voxels], vec![0.0; voxels], vec![0.0; voxels]],
            diagonal: vec![0.0; voxels],
        };
        for index in 0..self.diagonal.len() {
            let at = self.position(index);
            let block = coarse.block_of(at);
            coarse.diagonal[block] += self.diagonal[index];
            for axis in 0..3 {
                let weight = self.weights[axis][index];
                if at[axis] % 2 == 1 {
                    coarse.weights[axis][block] += weight;
                } else {
                    // An edge within the block: its two ends move together.
                    coarse.diagonal[block] -= 2.0 * weight;
                }
            }
        }
        for (index, diagonal) in coarse.diagonal.iter_mut().enumerate() {
            // Rounding must not leave a block lighter than its edges.
            let own: f64 = coarse.weights.iter().map(|weights| weights[index]).sum();
            *diagonal = diagonal.max(own).max(f64::MIN_POSITIVE);
        }
        coarse
    }

    fn position(&self, index: usize) -> [usize; 3] {
        let [width, height, _] = self.size;
        [index % width, index / width % height, index / (width * height)]
    }

    fn block_of(&self, fine: [usize; 3]) -> usize {
        (fine[2] / 2 * self.size[1] + fine[1] / 2) * self.size[0] + fine[0] / 2
    }

    /// Calls `with` for each row with its first index, the sums of weight × neighbour over the row,
    /// and the row's place in `output`.
    fn rows(&self, p: &[f64], output: &mut [f64], with: impl Fn(usize, &[f64], &mut [f64]) + Sync) {
        let [width, height, depth] = self.size;
        let plane = width * height;
        let [along_x, along_y, along_z] = &self.weights;
        output.par_chunks_mut(width).with_min_len(8).enumerate().for_each_init(
            || vec![0.0; width],
            |sums, (row, output)| {
                let start = row * width;
                let (y, z) = (row % height, row / height);
                sums.fill(0.0);
                let mut add = |weights: &[f64], others: &[f64], from: usize| {
                    let pairs = weights.iter().zip(others);
                    sums[from..].iter_mut().zip(pairs).for_each(|(sum, (w, p))| *sum += w * p);
                };
                let end = start + width;
                add(&along_x[start..end - 1], &p[start + 1..end], 0);
                add(&along_x[start..end - 1], &p[start..end - 1], 1);
                if y > 0 {
                    add(&along_y[start - width..end - width], &p[start - width..end - width], 0);
                }
                if y + 1 < height {
                    add(&along_y[start..end], &p[start + width..end + width], 0);
                }
                if z > 0 {
                    add(&along_z[start - plane..end - plane], &p[start - plane..end - plane], 0);
                }
                if z + 1 < depth {
                    add(&along_z[start..end], &p[start + plane..end + plane], 0);
                }
                with(start, sums, output);
            },
        );
    }

    /// Writes the product of the matrix with `p`.
    fn multiply(&self, p: &[f64], output: &mut [f64]) {
        self.rows(p, output, |start, sums, output| {
            let own = self.diagonal[start..].iter().zip(&p[start..]);
            for ((output, sum), (diagonal, p)) in output.iter_mut().zip(sums).zip(own) {
                *output = diagonal * p - sum;
            }
        });
    }

    /// Writes one damped Jacobi step from `p` towards the solution.
    fn smooth(&self, p: &[f64], right: &[f64], output: &mut [f64]) {
        self.rows(p, output, |start, sums, output| {
            for (k, (output, sum)) in output.iter_mut().zip(sums).enumerate() {
                let (diagonal, p) = (self.diagonal[start + k], p[start + k]);
                let residual = right[start + k] + sum - diagonal * p;
                *output = p + DAMPING * residual / diagonal;
            }
        });
    }
}

/// The weights of the edges of an image.
struct Edges<'a> {
    image: &'a Image,
    /// The factor of the squared difference along each axis.
    scale: [f64; 3],
}

impl<'a> Edges<'a> {
    fn new(image: &'a Image, beta: f64) -> Self {
        let finite =
            || image.voxels.iter().filter(|value| value.is_finite()).map(|&v| f64::from(v));
        let count = finite().count().max(1) as f64;
        let mean = finite().sum::<f64>() / count;
        let deviation = (finite().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
        // Without contrast there is nothing to hold a walker back.
        let strength = if deviation > 0.0 { -beta / (10.0 * deviation) } else { 0.0 };
        Self {
            image,
            scale: image.geometry.spacing_mm.map(|spacing| strength / (spacing * spacing)),
        }
    }

    /// Returns the weight of the edge from a voxel to the next along an axis, which must exist.
    fn weight(&self, index: usize, axis: usize) -> f64 {
        let size = self.image.geometry.size;
        let stride = [1, size[0], size[0] * size[1]][axis];
        let [a, b] = [index, index + stride].map(|voxel| f64::from(self.image.voxels[voxel]));
        let weight = ((a - b) * (a - b) * self.scale[axis]).exp() + 1e-10;
        if weight.is_finite() { weight } else { 0.0 }
    }

    /// Returns the weights of all edges along an axis; 0 for the last voxel of a line.
    fn along(&self, axis: usize) -> Vec<f64> {
        let geometry = &self.image.geometry;
        let last = |index: usize| geometry.position(index)[axis] + 1 == geometry.size[axis];
        (0..self.image.voxels.len())
            .into_par_iter()
            .map(|index| if last(index) { 0.0 } else { self.weight(index, axis) })
            .collect()
    }
}

/// Returns the solution, found by conjugate gradients up to the tolerance.
pub(super) fn solve(system: &Level, coarser: &[Level], right: &[f64], tolerance: f64) -> Vec<f64> {
    let count = right.len();
    let mut solution = vec![0.0; count];
    let mut residual = right.to_vec();
    let target = tolerance * tolerance * dot(right, right);
    let mut direction = vec![0.0; count];
    let mut product = vec![0.0; count];
    let mut before = 0.0;
    for iteration in 0..ITERATIONS_MAX {
        if dot(&residual, &residual) <= target {
            break;
        }
        let step = cycle(system, coarser, &residual);
        let now = dot(&residual, &step);
        if now.is_nan() || now <= 0.0 {
            break;
        }
        let keep = if iteration == 0 { 0.0 } else { now / before };
        before = now;
        direction.par_iter_mut().zip(&step).for_each(|(d, s)| *d = s + keep * *d);
        system.multiply(&direction, &mut product);
        let length = now / dot(&direction, &product);
        solution.par_iter_mut().zip(&direction).for_each(|(p, d)| *p += length * d);
        residual.par_iter_mut().zip(&product).for_each(|(r, q)| *r -= length * q);
    }
    solution
}

/// Returns an approximate solution: a symmetric multigrid cycle from zero.
fn cycle(system: &Level, coarser: &[Level], right: &[f64]) -> Vec<f64> {
    let mut first: Vec<f64> =
        right.par_iter().zip(&system.diagonal).map(|(r, d)| DAMPING * r / d).collect();
    let mut second = vec![0.0; right.len()];
    let Some((next, rest)) = coarser.split_first() else {
        for _ in 0..COARSEST {
            system.smooth(&first, right, &mut second);
            std::mem::swap(&mut first, &mut second);
        }
        return first;
    };
    system.multiply(&first, &mut second);
    let mut below = vec![0.0; next.diagonal.len()];
    for (index, (right, product)) in right.iter().zip(&second).enumerate() {
        below[next.block_of(system.position(index))] += right - product;
    }
    let correction = cycle(next, rest, &below);
    let [width, height, _] = system.size;
    first.par_chunks_mut(width).with_min_len(8).enumerate().for_each(|(row, voxels)| {
        let start = next.block_of([0, row % height, row / height]);
        voxels.iter_mut().enumerate().for_each(|(x, value)| *value += correction[start + x / 2]);
    });
    system.smooth(&first, right, &mut second);
    second
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let pieces: Vec<f64> = a
        .par_chunks(PIECE)
        .zip(b.par_chunks(PIECE))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum())
        .collect();
    pieces.iter().sum()
}
