//! What computes a network within this process: each picture by itself.
//!
//! Engines of tensors make a matrix of every convolution's input, and pass through memory at every step
//! of a normalisation. Here a convolution is summed in place (`convolve.rs`), a normalisation passes
//! three times, and what is no longer taken is changed where it lies. Who learns keeps every result, and
//! goes back through them (`back.rs`).

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::back::Kept;
use super::convolve::{Kernel, Picture};
use super::graph::{Aid, EPSILON, Graph, Op};
use super::slopes::Shape;
use super::{Network, Patch};
use crate::weights::Weights;

/// Numbers that are summed in 32 bits before the sum goes on in 64.
const SUMMED: usize = 1024;
/// Numbers that are summed side by side.
const LANES: usize = 16;

/// What a network says of patches.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Of each patch each class, of that each voxel; of a classifier each class.
    pub logits: Vec<f32>,
    /// Of each patch its features.
    pub features: Vec<f32>,
}

/// A network with its weights as they are taken.
pub(crate) struct DirectNetwork {
    pub(super) graph: Graph,
    done_after: Vec<Vec<usize>>,
    kernels: BTreeMap<usize, Kernel>,
    /// The shapes of convolutions and their ways back, of a network that learns.
    pub(super) backs: BTreeMap<usize, (Shape, Kernel)>,
    weights: Weights,
}

impl DirectNetwork {
    /// A network with these weights, which have the shapes of [`Network::initial`].
    pub(crate) fn new(network: Network, weights: &Weights) -> Self {
        let graph = network.graph();
        let done_after = graph.done_after();
        let (kernels, backs) = (BTreeMap::new(), BTreeMap::new());
        let mut all = Self { graph, done_after, kernels, backs, weights: weights.clone() };
        all.kernels = all.convolutions(|all, shape, name, shift| {
            // What normalises has a shift under the same name.
            let shift = shift.then(|| all.part(name, "shift"));
            let (sides, strides) = (shape.sides, shape.strides);
            let weights = all.part(name, "kernel");
            Kernel::new((shape.outputs, shape.inputs), (sides, strides), weights, shift)
        });
        all
    }

    /// The same, to learn with.
    pub(crate) fn learning(network: Network, weights: &Weights) -> Self {
        let mut all = Self::new(network, weights);
        all.backs =
            all.convolutions(|all, shape, name, _| (shape, shape.back(all.part(name, "kernel"))));
        all
    }

    /// What is made of each convolution: of its shape, its name, and whether it has a shift.
    fn convolutions<T>(&self, make: impl Fn(&Self, Shape, &str, bool) -> T) -> BTreeMap<usize, T> {
        let deep = self.graph.axes == 3;
        let along = |every: usize| [if deep { every } else { 1 }, every, every];
        let one = |(number, op): (usize, &Op)| {
            let Op::Conv { name, inputs, outputs, size, stride, shift, .. } = op else {
                return None;
            };
            let (outputs, inputs) = (*outputs, *inputs);
            let shape = Shape { outputs, inputs, sides: along(*size), strides: along(*stride) };
            Some((number, make(self, shape, name, *shift)))
        };
        self.graph.ops.iter().enumerate().filter_map(one).collect()
    }

    /// What is said of a picture, and at halved sides where the network is supervised deeply.
    pub(crate) fn said(&self) -> Vec<Aid> {
        let top = Aid { op: self.graph.logits, halved: 0 };
        std::iter::once(top).chain(self.graph.aids.iter().copied()).collect()
    }

    /// Computes a patch and keeps every result.
    pub(crate) fn keep(&self, patch: &[f32], Patch { depth, side }: Patch) -> Kept {
        let mut results = Results { all: Vec::with_capacity(self.graph.ops.len()) };
        for (number, op) in self.graph.ops.iter().enumerate() {
            let value = match op {
                Op::Input => {
                    Picture { channels: 1, size: [depth, side, side], values: patch.to_vec() }
                }
                op => self.computed(number, op, &mut results, &[]),
            };
            results.all.push(Some(value));
        }
        Kept { results: results.all.into_iter().flatten().collect() }
    }

    /// What the network says of patches, one after the other.
    pub(crate) fn answer(&self, patches: &[f32], patch: Patch) -> Answer {
        let all: Vec<(Vec<f32>, Vec<f32>)> =
            patches.par_chunks_exact(patch.voxels()).map(|one| self.one(one, patch)).collect();
        let mut answer = Answer { logits: Vec::new(), features: Vec::new() };
        for (logits, features) in all {
            answer.logits.extend(logits);
            answer.features.extend(features);
        }
        answer
    }

    /// The logits and features of one patch.
    fn one(&self, patch: &[f32], Patch { depth, side }: Patch) -> (Vec<f32>, Vec<f32>) {
        let input = Picture { channels: 1, size: [depth, side, side], values: patch.to_vec() };
        let mut input = Some(input);
        let mut results = Results { all: Vec::with_capacity(self.graph.ops.len()) };
        for (number, (op, done)) in self.graph.ops.iter().zip(&self.done_after).enumerate() {
            let value = match op {
                Op::Input => input.take(),
                op => Some(self.computed(number, op, &mut results, done)),
            };
            results.all.push(value);
            for &number in done {
                results.all[number] = None;
            }
        }
        let (logits, features) = (self.graph.logits, self.graph.features);
        (results.see(logits).values.clone(), results.see(features).values.clone())
    }

    fn computed(&self, number: usize, op: &Op, from: &mut Results, done: &[usize]) -> Picture {
        match op {
            Op::Input => unreachable!("the picture is given"),
            Op::Conv { of, .. } => self.kernels[&number].of(from.see(*of)),
            Op::Norm { of, name, groups, .. } => {
                let mut x = from.take(*of, done);
                normalise(&mut x, *groups, self.part(name, "scale"), self.part(name, "shift"));
                x
            }
            Op::Relu { of } => {
                let mut x = from.take(*of, done);
                x.values.iter_mut().for_each(|value| *value = value.max(0.0));
                x
            }
            Op::Add { of, and } => {
                let mut x = from.take(*of, done);
                let and = &from.see(*and).values;
                x.values.iter_mut().zip(and).for_each(|(value, other)| *value += other);
                x
            }
            Op::Concat { of, and } => {
                let (a, b) = (from.see(*of), from.see(*and));
                let values = [&a.values[..], &b.values].concat();
                Picture { channels: a.channels + b.channels, size: a.size, values }
            }
            Op::Twice { of } => twice(from.see(*of), self.graph.axes),
            Op::MaxPool { of } => max_pool(from.see(*of)),
            Op::MeanPool { of } => mean_pool(from.see(*of)),
            Op::Mean { of } => {
                let x = from.see(*of);
                let mean = |channel: &[f32]| (sum(channel, |x| x) / channel.len() as f64) as f32;
                let values = x.values.chunks_exact(x.voxels()).map(mean).collect();
                Picture { channels: x.channels, size: [1; 3], values }
            }
            Op::Linear { of, name, inputs, outputs } => {
                let x = from.see(*of);
                let rows = self.part(name, "kernel").chunks_exact(*inputs);
                let row = |(row, shift): (&[f32], &f32)| {
                    row.iter().zip(&x.values).map(|(weight, value)| weight * value).sum::<f32>()
                        + shift
                };
                let values = rows.zip(self.part(name, "shift")).map(row).collect();
                Picture { channels: *outputs, size: [1; 3], values }
            }
        }
    }

    pub(super) fn part(&self, name: &str, part: &str) -> &[f32] {
        &self.weights.0[&format!("{name}.{part}")].values
    }
}

/// The results of the operations so far; nothing where nobody takes one any more.
struct Results {
    all: Vec<Option<Picture>>,
}

impl Results {
    fn see(&self, number: usize) -> &Picture {
        self.all[number].as_ref().expect("a result is kept until it is taken last")
    }

    /// A result to be changed: itself where nobody takes it after this.
    fn take(&mut self, number: usize, done: &[usize]) -> Picture {
        if done.contains(&number) {
            self.all[number].take().expect("a result is kept until it is taken last")
        } else {
            self.see(number).clone()
        }
    }
}

/// The sum of what becomes of each number.
pub(super) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut all = 0.0;
    for values in values.chunks(SUMMED) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for chunk in chunks {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum += of(*value);
            }
        }
        for (sum, value) in sums.iter_mut().zip(rest) {
            *sum += of(*value);
        }
        all += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
    }
    all
}

/// Group normalisation (Wu and He 2018).
fn normalise(x: &mut Picture, groups: usize, scale: &[f32], shift: &[f32]) {
    let (own, voxels) = (x.channels / groups, x.voxels());
    let count = (own * voxels) as f64;
    let vectors = scale.chunks_exact(own).zip(shift.chunks_exact(own));
    for (group, (scale, shift)) in x.values.chunks_exact_mut(own * voxels).zip(vectors) {
        let mean = (sum(group, |x| x) / count) as f32;
        let variance = sum(group, |x| (x - mean) * (x - mean)) / count;
        let factor = (1.0 / (variance + EPSILON).sqrt()) as f32;
        for ((channel, scale), shift) in group.chunks_exact_mut(voxels).zip(scale).zip(shift) {
            let scale = factor * scale;
            for value in channel {
                *value = (*value - mean) * scale + shift;
            }
        }
    }
}

/// Every voxel repeated along every axis.
fn twice(x: &Picture, axes: usize) -> Picture {
    let [slices, rows, columns] = x.size;
    let deep = if axes == 3 { 2 } else { 1 };
    let mut values = Vec::with_capacity(x.values.len() * 4 * deep);
    for slice in x.values.chunks_exact(rows * columns) {
        let first = values.len();
        for row in slice.chunks_exact(columns) {
            let begin = values.len();
            values.extend(row.iter().flat_map(|&value| [value, value]));
            values.extend_from_within(begin..);
        }
        for _ in 1..deep {
            values.extend_from_within(first..);
        }
    }
    Picture { channels: x.channels, size: [deep * slices, 2 * rows, 2 * columns], values }
}

/// The largest of each 3 × 3 pixels, at every second.
fn max_pool(x: &Picture) -> Picture {
    let [_, rows, columns] = x.size;
    let (high, wide) = (rows.div_ceil(2), columns.div_ceil(2));
    let mut values = Vec::with_capacity(x.channels * high * wide);
    let around = |at: usize, end: usize| (2 * at).saturating_sub(1)..(2 * at + 2).min(end);
    for channel in x.values.chunks_exact(rows * columns) {
        for row in 0..high {
            for column in 0..wide {
                let pixels = around(row, rows).flat_map(|row| {
                    let row = &channel[row * columns..(row + 1) * columns];
                    row[around(column, columns)].iter().copied()
                });
                values.push(pixels.fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }
    Picture { channels: x.channels, size: [1, high, wide], values }
}

/// The mean of each 2 × 2 pixels.
fn mean_pool(x: &Picture) -> Picture {
    let [_, rows, columns] = x.size;
    let (high, wide) = (rows / 2, columns / 2);
    let mut values = Vec::with_capacity(x.channels * high * wide);
    for channel in x.values.chunks_exact(rows * columns) {
        for row in 0..high {
            let [above, below] = [0, 1].map(|one| &channel[(2 * row + one) * columns..][..columns]);
            let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
            values.extend(pairs.map(|([a, b], [c, d])| (a + b + c + d) / 4.0));
        }
    }
    Picture { channels: x.channels, size: [1, high, wide], values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{LoadedNetwork, Mode, NetworkKind, Supervision, values};
    use crate::random::Random;

    fn small(kind: NetworkKind) -> (Network, Patch) {
        let (base_channels, side) = if kind.side_multiple() == 32 { (8, 64) } else { (12, 24) };
        let depth = if kind.axes() == 3 { 8 } else { 1 };
        let network = Network { kind, base_channels, classes: 2, supervision: Supervision::Top };
        (network, Patch { depth, side })
    }

    #[test]
    fn it_says_what_the_engine_that_learns_says() {
        for kind in NetworkKind::ALL {
            let (network, patch) = small(kind);
            let mut weights = network.initial(5);
            let mut random = Random::new(2, "vectors", 0, 0);
            // Scales and shifts begin as ones and zeros, which would hide a mistake.
            for parameter in weights.0.values_mut().filter(|parameter| parameter.shape.len() == 1) {
                parameter.values.iter_mut().for_each(|one| *one += 0.3 * random.normal() as f32);
            }
            let images: Vec<f32> =
                (0..3 * patch.voxels()).map(|_| random.normal() as f32).collect();
            let direct = DirectNetwork::new(network, &weights);
            let answer = direct.answer(&images, patch);
            let output = LoadedNetwork::new(network, &weights, Mode::Use).forward(images, patch);
            for (name, found, wanted) in [
                ("logits", answer.logits, values(output.logits)),
                ("features", answer.features, values(output.features)),
            ] {
                assert_eq!(found.len(), wanted.len(), "{kind:?} {name}");
                let largest = wanted.iter().fold(0.0_f32, |most, one| most.max(one.abs()));
                let apart =
                    found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 1e-4 * largest, "{kind:?}: {name} {apart} of {largest}");
            }
        }
    }

    #[test]
    fn neither_the_batch_nor_the_number_of_threads_changes_a_bit() {
        for kind in [NetworkKind::UNet2d, NetworkKind::ResidualUNet3d, NetworkKind::DenseNet121] {
            let (network, patch) = small(kind);
            let direct = DirectNetwork::new(network, &network.initial(1));
            let mut random = Random::new(3, "picture", 0, 0);
            let images: Vec<f32> =
                (0..3 * patch.voxels()).map(|_| random.normal() as f32).collect();
            let of = |threads: usize, images: &[f32]| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| direct.answer(images, patch))
            };
            let one = of(1, &images);
            assert_eq!(one, of(5, &images), "{kind:?}");
            let last = of(2, &images[2 * patch.voxels()..]);
            assert!(one.logits.ends_with(&last.logits), "{kind:?}");
        }
    }
}
