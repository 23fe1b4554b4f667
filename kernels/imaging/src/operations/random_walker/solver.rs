//! The linear systems of the random walker on a grid, and their solution.
//!
//! A system holds, for each voxel, the weights of the edges to its next neighbours along x, y and z
//! and the sum of those to seeds. Conjugate gradients solve it, preconditioned by a cycle over
//! coarser systems. Sums over voxels are made of fixed pieces in a fixed order, so that the number
//! of threads changes nothing.

use rayon::prelude::*;

use super::graph::{self, Graph, Hierarchy, Network};
use crate::volume::{Image, Mask};

/// The most iterations of the conjugate gradients: some tens are usual.
const ITERATIONS_MAX: usize = 500;
/// The share of a Jacobi step that is taken.
pub(super) const DAMPING: f64 = 0.8;
/// Voxels summed at a time.
const PIECE: usize = 1 << 14;

/// A linear system: `diagonal × p − Σ weight × neighbour's p = right side`. Seeds, and voxels
/// without a number, have no edges and diagonal 1.
pub(super) struct System {
    size: [usize; 3],
    /// The weights of the edges to the next voxel along x, y and z; 0 at the border and at seeds.
    weights: [Vec<f32>; 3],
    diagonal: Vec<f64>,
    /// The group of each voxel in the coarser systems.
    group: Vec<u32>,
    coarser: Hierarchy,
}

/// The edges and pulls from which groups are made.
struct Voxels<'a> {
    size: [usize; 3],
    weights: &'a [Vec<f32>; 3],
    diagonal: &'a [f64],
}

impl Network for Voxels<'_> {
    fn nodes(&self) -> usize {
        self.diagonal.len()
    }

    fn pull(&self, node: usize) -> f64 {
        let mut pull = self.diagonal[node];
        self.visit(node, |_, weight| pull -= f64::from(weight));
        // What rounding leaves is no pull: it would hold parts that no seed is near.
        if pull > 1e-13 * self.diagonal[node] { pull } else { 0.0 }
    }

    fn visit(&self, node: usize, mut visit: impl FnMut(usize, f32)) {
        let strides = strides(self.size);
        for axis in [2, 1, 0] {
            if let Some(before) = node.checked_sub(strides[axis]) {
                let weight = self.weights[axis][before];
                if weight > 0.0 {
                    visit(before, weight);
                }
            }
        }
        for axis in 0..3 {
            let weight = self.weights[axis][node];
            if weight > 0.0 {
                visit(node + strides[axis], weight);
            }
        }
    }
}

fn strides(size: [usize; 3]) -> [usize; 3] {
    [1, size[0], size[0] * size[1]]
}

impl System {
    /// Returns the system of all voxels that are not seeds.
    pub(super) fn of_image(image: &Image, seeds: &Mask, beta: f64) -> Self {
        let size = image.geometry.size;
        let edges = Edges::new(image, beta);
        let mut diagonal = vec![0.0; image.voxels.len()];
        let weights = [0, 1, 2].map(|axis| {
            let stride = strides(size)[axis];
            let mut weights = edges.along(axis);
            for index in 0..weights.len() {
                let weight = weights[index];
                if weight == 0.0 {
                    continue;
                }
                diagonal[index] += f64::from(weight);
                diagonal[index + stride] += f64::from(weight);
                if seeds.voxels[index] != 0 || seeds.voxels[index + stride] != 0 {
                    weights[index] = 0.0;
                }
            }
            weights
        });
        for (diagonal, &seed) in diagonal.iter_mut().zip(&seeds.voxels) {
            if seed != 0 || *diagonal == 0.0 {
                *diagonal = 1.0;
            }
        }
        let voxels = Voxels { size, weights: &weights, diagonal: &diagonal };
        let (group, count) = graph::groups(&voxels);
        let coarser = Hierarchy::of(Graph::over(&voxels, &group, count));
        Self { size, weights, diagonal, group, coarser }
    }

    /// Returns the right side for one label: the weights of the edges to its seeds.
    pub(super) fn pull_of(&self, image: &Image, seeds: &Mask, label: u8, beta: f64) -> Vec<f64> {
        let edges = Edges::new(image, beta);
        let mut right = vec![0.0; image.voxels.len()];
        for index in (0..seeds.voxels.len()).filter(|&index| seeds.voxels[index] == label) {
            let at = image.geometry.position(index);
            for axis in 0..3 {
                let stride = strides(self.size)[axis];
                if at[axis] > 0 && seeds.voxels[index - stride] == 0 {
                    right[index - stride] += f64::from(edges.weight(index - stride, axis));
                }
                if at[axis] + 1 < self.size[axis] && seeds.voxels[index + stride] == 0 {
                    right[index + stride] += f64::from(edges.weight(index, axis));
                }
            }
        }
        right
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
                let mut add = |weights: &[f32], others: &[f64], from: usize| {
                    let pairs = weights.iter().zip(others);
                    let sums = sums[from..].iter_mut();
                    sums.zip(pairs).for_each(|(sum, (&w, p))| *sum += f64::from(w) * p);
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

    /// Returns an approximate solution by one cycle over the coarser systems.
    fn cycle(&self, right: &[f64]) -> Vec<f64> {
        let mut p: Vec<f64> =
            right.par_iter().zip(&self.diagonal).map(|(r, d)| DAMPING * r / d).collect();
        let mut other = vec![0.0; right.len()];
        self.multiply(&p, &mut other);
        let mut below = vec![0.0; self.coarser.nodes()];
        graph::gather(right, &other, &self.group, &mut below);
        graph::spread(&self.coarser.solve(&below), &self.group, &mut p);
        self.smooth(&p, right, &mut other);
        other
    }

    /// Returns the solution, found by flexible conjugate gradients. They end once the error's energy
    /// has fallen to `tolerance`² of what it was, as far as the preconditioner can tell. (The plain
    /// residual says nothing where weights differ by orders of magnitude: it is that of the heavy
    /// edges alone.)
    pub(super) fn solve(&self, right: &[f64], tolerance: f64) -> Vec<f64> {
        let count = right.len();
        let mut solution = vec![0.0; count];
        let mut residual = right.to_vec();
        let mut direction = vec![0.0; count];
        let mut product = vec![0.0; count];
        let (mut before, mut target, mut length) = (0.0, 0.0, 0.0);
        for iteration in 0..ITERATIONS_MAX {
            let step = self.cycle(&residual);
            let now = dot(&residual, &step);
            if iteration == 0 {
                target = tolerance * tolerance * now;
            }
            if now.is_nan() || now <= target {
                break;
            }
            // The cycle is no fixed matrix, so the directions are made conjugate by what they are.
            let keep = if iteration == 0 { 0.0 } else { -length * dot(&step, &product) / before };
            before = now;
            direction.par_iter_mut().zip(&step).for_each(|(d, s)| *d = s + keep * *d);
            self.multiply(&direction, &mut product);
            let energy = dot(&direction, &product);
            if energy.is_nan() || energy <= 0.0 {
                break;
            }
            length = dot(&residual, &direction) / energy;
            solution.par_iter_mut().zip(&direction).for_each(|(p, d)| *p += length * d);
            residual.par_iter_mut().zip(&product).for_each(|(r, q)| *r -= length * q);
        }
        solution
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
    fn weight(&self, index: usize, axis: usize) -> f32 {
        let stride = strides(self.image.geometry.size)[axis];
        let [a, b] = [index, index + stride].map(|voxel| f64::from(self.image.voxels[voxel]));
        let weight = ((a - b) * (a - b) * self.scale[axis]).exp() + 1e-10;
        if weight.is_finite() { weight as f32 } else { 0.0 }
    }

    /// Returns the weights of all edges along an axis; 0 for the last voxel of a line.
    fn along(&self, axis: usize) -> Vec<f32> {
        let geometry = &self.image.geometry;
        let last = |index: usize| geometry.position(index)[axis] + 1 == geometry.size[axis];
        (0..self.image.voxels.len())
            .into_par_iter()
            .map(|index| if last(index) { 0.0 } else { self.weight(index, axis) })
            .collect()
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let pieces: Vec<f64> = a
        .par_chunks(PIECE)
        .zip(b.par_chunks(PIECE))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum())
        .collect();
    pieces.iter().sum()
}
