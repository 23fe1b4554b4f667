//! The networks in burn, whose gradients are its own: what the passes of this program are held against.
//!
//! A network is a graph and numbers with names; tensors exist only while it runs.

use std::collections::BTreeMap;

use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv2d, conv3d, interpolate, max_pool2d};
use burn::tensor::ops::{
    AvgPoolOptions, ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions,
};
use burn::tensor::{Device, Gradients, Tensor, TensorData};

use super::graph::{EPSILON, Graph, Op};
use super::{Network, Patch, values};
use crate::weights::{Parameter, Weights};

/// Whether a network learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What is computed is recorded for the gradients.
    Learn,
    /// It is not.
    Use,
}

/// What a network says of a batch.
pub(crate) struct Output {
    /// Batch, classes, voxels; one of these where a whole slice has a class.
    pub(crate) logits: Tensor<3>,
    /// Batch, features.
    pub(crate) features: Tensor<2>,
    /// How often the sides are halved, and the logits of that size.
    pub(crate) aids: Vec<(u32, Tensor<3>)>,
}

/// What an operation gives: numbers, pictures, or stacks of them.
#[derive(Clone)]
enum Value {
    Flat(Tensor<2>),
    Plane(Tensor<4>),
    Space(Tensor<5>),
}

/// Does the same to a value of whichever rank.
macro_rules! each {
    ($value:expr, $x:ident => $done:expr) => {
        match $value {
            Value::Flat($x) => Value::Flat($done),
            Value::Plane($x) => Value::Plane($done),
            Value::Space($x) => Value::Space($done),
        }
    };
}

/// A network with its weights as tensors.
pub(crate) struct LoadedNetwork {
    graph: Graph,
    done_after: Vec<Vec<usize>>,
    device: Device,
    leaves: BTreeMap<String, Tensor<1>>,
}

impl LoadedNetwork {
    /// A network with these weights, which have the shapes of [`Network::initial`].
    pub(crate) fn new(network: Network, weights: &Weights, mode: Mode) -> Self {
        let device = match mode {
            Mode::Learn => Device::flex().autodiff(),
            Mode::Use => Device::flex(),
        };
        let leaf = |parameter: &Parameter| {
            let data = TensorData::new(parameter.values.clone(), [parameter.values.len()]);
            let tensor = Tensor::<1>::from_data(data, &device);
            if mode == Mode::Learn { tensor.require_grad() } else { tensor }
        };
        let leaves = weights.0.iter().map(|(name, one)| (name.clone(), leaf(one))).collect();
        let graph = network.graph();
        let done_after = graph.done_after();
        Self { graph, done_after, device, leaves }
    }

    /// Numbers as a tensor that this network takes.
    pub(crate) fn tensor<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// The gradients after a backward pass, by name.
    pub(crate) fn gradients(&self, mut gradients: Gradients) -> BTreeMap<String, Vec<f32>> {
        let mut all = BTreeMap::new();
        for (name, leaf) in &self.leaves {
            if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                all.insert(name.clone(), values(gradient));
            }
        }
        all
    }

    /// What the network says of patches, one after the other.
    pub(crate) fn forward(&self, patches: Vec<f32>, patch: Patch) -> Output {
        let count = patches.len() / patch.voxels();
        let Patch { depth, side } = patch;
        let input = if self.graph.axes == 2 {
            Value::Plane(self.tensor(patches, [count, 1, side, side]))
        } else {
            Value::Space(self.tensor(patches, [count, 1, depth, side, side]))
        };
        let mut all: Vec<Option<Value>> = Vec::with_capacity(self.graph.ops.len());
        for (op, done) in self.graph.ops.iter().zip(&self.done_after) {
            let value = match op {
                Op::Input => input.clone(),
                op => self.one(op, &all),
            };
            all.push(Some(value));
            for &number in done {
                all[number] = None;
            }
        }
        let logits = |op: usize| match take(&all, op) {
            Value::Flat(x) => spread(x),
            Value::Plane(x) => spread(x),
            Value::Space(x) => spread(x),
        };
        let aids = self.graph.aids.iter().map(|aid| (aid.halved, logits(aid.op))).collect();
        let logits = logits(self.graph.logits);
        let Value::Flat(features) = take(&all, self.graph.features) else {
            unreachable!("features are a mean over the picture")
        };
        Output { logits, features, aids }
    }

    /// The result of one operation on earlier ones.
    fn one(&self, op: &Op, all: &[Option<Value>]) -> Value {
        match op {
            Op::Input => unreachable!("the picture is given"),
            Op::Conv { of, name, inputs, outputs, size, stride, shift } => {
                let shift = shift.then(|| self.leaf(name, "shift"));
                let (kernel, around) = (self.leaf(name, "kernel"), size / 2);
                match take(all, *of) {
                    Value::Plane(x) => {
                        let kernel = kernel.reshape([*outputs, *inputs, *size, *size]);
                        let options = ConvOptions::new([*stride; 2], [around; 2], [1; 2], 1);
                        Value::Plane(conv2d(x, kernel, shift, options))
                    }
                    Value::Space(x) => {
                        let kernel = kernel.reshape([*outputs, *inputs, *size, *size, *size]);
                        let options = ConvOptions::new([*stride; 3], [around; 3], [1; 3], 1);
                        Value::Space(conv3d(x, kernel, shift, options))
                    }
                    Value::Flat(_) => unreachable!("what is convolved is a picture"),
                }
            }
            Op::Norm { of, name, groups, .. } => {
                let (scale, shift) = (self.leaf(name, "scale"), self.leaf(name, "shift"));
                each!(take(all, *of), x => group_norm(x, *groups, scale, shift))
            }
            Op::Relu { of } => each!(take(all, *of), x => relu(x)),
            Op::Add { of, and } => match (take(all, *of), take(all, *and)) {
                (Value::Plane(a), Value::Plane(b)) => Value::Plane(a + b),
                (Value::Space(a), Value::Space(b)) => Value::Space(a + b),
                _ => unreachable!("both are pictures of one rank"),
            },
            Op::Concat { of, and } => match (take(all, *of), take(all, *and)) {
                (Value::Plane(a), Value::Plane(b)) => Value::Plane(Tensor::cat(vec![a, b], 1)),
                (Value::Space(a), Value::Space(b)) => Value::Space(Tensor::cat(vec![a, b], 1)),
                _ => unreachable!("both are pictures of one rank"),
            },
            Op::Twice { of } => match take(all, *of) {
                Value::Plane(x) => Value::Plane(twice_2d(x)),
                Value::Space(x) => Value::Space(twice_3d(x)),
                Value::Flat(_) => unreachable!("what is repeated is a picture"),
            },
            Op::MaxPool { of } => {
                let options = MaxPoolOptions::new([3; 2]).with_stride([2; 2]).with_padding([1; 2]);
                plane(take(all, *of), |x| max_pool2d(x, options))
            }
            Op::MeanPool { of } => {
                plane(take(all, *of), |x| avg_pool2d(x, AvgPoolOptions::new([2; 2])))
            }
            Op::Mean { of } => Value::Flat(match take(all, *of) {
                Value::Flat(x) => x,
                Value::Plane(x) => mean(x),
                Value::Space(x) => mean(x),
            }),
            Op::Linear { of, name, inputs, outputs } => {
                let kernel = self.leaf(name, "kernel").reshape([*outputs, *inputs]);
                let shift = self.leaf(name, "shift").reshape([1, *outputs]);
                let Value::Flat(x) = take(all, *of) else { unreachable!("numbers, no picture") };
                Value::Flat(x.matmul(kernel.transpose()) + shift)
            }
        }
    }

    fn leaf(&self, name: &str, part: &str) -> Tensor<1> {
        self.leaves[&format!("{name}.{part}")].clone()
    }
}

/// The result of an operation that is still taken later.
fn take(all: &[Option<Value>], number: usize) -> Value {
    all[number].clone().expect("a result is kept until it is taken last")
}

fn plane(value: Value, done: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Value {
    let Value::Plane(x) = value else { unreachable!("pools are over rows and columns") };
    Value::Plane(done(x))
}

/// Batch, classes, and everything else in one axis.
fn spread<const D: usize>(x: Tensor<D>) -> Tensor<3> {
    let dims = x.dims();
    x.reshape([dims[0], dims[1], dims[2..].iter().product()])
}

fn mean<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let dims = x.dims();
    spread(x).mean_dim(2).reshape([dims[0], dims[1]])
}

fn twice_2d(x: Tensor<4>) -> Tensor<4> {
    let [_, _, rows, columns] = x.dims();
    let size = [2 * rows, 2 * columns];
    interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size))
}

fn twice_3d(x: Tensor<5>) -> Tensor<5> {
    let [items, channels, slices, rows, columns] = x.dims();
    // Rows and columns first, with the slices as more channels, then the slices.
    let x = twice_2d(x.reshape([items, channels * slices, rows, columns]));
    let area = 4 * rows * columns;
    let x = x.reshape([items, channels * slices, 1, area]).repeat_dim(2, 2);
    x.reshape([items, channels, 2 * slices, 2 * rows, 2 * columns])
}

fn group_norm<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    scale: Tensor<1>,
    shift: Tensor<1>,
) -> Tensor<D> {
    let dims = x.dims();
    let (items, channels) = (dims[0], dims[1]);
    let wide = |x: Tensor<1>| {
        let mut shape = [1; D];
        shape[1] = channels;
        x.reshape(shape)
    };
    let own = channels / groups;
    let area: usize = dims[2..].iter().product();
    let x = x.reshape([items, groups, own * area]);
    let mean = x.clone().mean_dim(2);
    let centred = x - mean;
    let variance = centred.clone().square().mean_dim(2);
    let factor = (variance + EPSILON).sqrt().recip().expand([items, groups, own]);
    let mut shape = [1; D];
    (shape[0], shape[1]) = (items, channels);
    centred.reshape(dims) * (factor.reshape(shape) * wide(scale)) + wide(shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{NetworkKind, Supervision};
    use crate::random::Random;

    fn small(kind: NetworkKind) -> (Network, Patch) {
        let (base_channels, side) = if kind.side_multiple() == 32 { (8, 32) } else { (4, 16) };
        let depth = if kind.axes() == 3 { 8 } else { 1 };
        let supervision = Supervision::Top;
        (Network { kind, base_channels, classes: 2, supervision }, Patch { depth, side })
    }

    fn picture(seed: u64, voxels: usize) -> Vec<f32> {
        let mut random = Random::new(seed, "picture", 0, 0);
        (0..voxels).map(|_| random.normal() as f32).collect()
    }

    #[test]
    fn networks_have_the_shapes_they_say() {
        for kind in NetworkKind::ALL {
            let (network, patch) = small(kind);
            let loaded = LoadedNetwork::new(network, &network.initial(1), Mode::Use);
            let output = loaded.forward(picture(1, 2 * patch.voxels()), patch);
            let voxels = if kind.side_multiple() == 32 { 1 } else { patch.voxels() };
            assert_eq!(output.logits.dims(), [2, 2, voxels], "{kind:?}");
            assert_eq!(output.features.dims(), [2, network.features()], "{kind:?}");
            assert!(values(output.logits).iter().all(|value| value.is_finite()), "{kind:?}");
        }
    }

    #[test]
    fn deep_supervision_adds_logits_of_halved_sides_and_changes_none() {
        for kind in NetworkKind::ALL.into_iter().filter(|kind| kind.side_multiple() == 8) {
            let (network, patch) = small(kind);
            let deep = Network { supervision: Supervision::Deep, ..network };
            let weights = deep.initial(1);
            let of = |network: Network, weights: &Weights| {
                LoadedNetwork::new(network, weights, Mode::Use)
                    .forward(picture(1, 2 * patch.voxels()), patch)
            };
            let (plain, output) = (of(network, &network.initial(1)), of(deep, &weights));
            assert_eq!(values(plain.logits), values(output.logits), "{kind:?}");
            let sizes: Vec<_> = output.aids.iter().map(|(by, x)| (*by, x.dims())).collect();
            let eighth = if kind.axes() == 3 { 8 } else { 4 };
            let voxels = patch.voxels() / eighth;
            assert_eq!(sizes, [(1, [2, 2, voxels]), (2, [2, 2, voxels / eighth])], "{kind:?}");
            assert_eq!(weights.0.len(), network.initial(1).0.len() + 4, "{kind:?}");
        }
    }

    #[test]
    fn the_batch_does_not_matter_to_an_image() {
        for kind in NetworkKind::ALL {
            let (network, patch) = small(kind);
            let loaded = LoadedNetwork::new(network, &network.initial(1), Mode::Use);
            let (a, b) = (picture(1, patch.voxels()), picture(2, patch.voxels()));
            let alone = values(loaded.forward(a.clone(), patch).logits);
            let both = values(loaded.forward([a, b].concat(), patch).logits);
            for (a, b) in alone.iter().zip(&both) {
                assert!((a - b).abs() < 1e-4, "{kind:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for kind in NetworkKind::ALL {
            let (network, patch) = small(kind);
            let weights = network.initial(1);
            let of = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let loaded = LoadedNetwork::new(network, &weights, Mode::Learn);
                    let output = loaded.forward(picture(4, 3 * patch.voxels()), patch);
                    let logits = values(output.logits.clone());
                    (logits, loaded.gradients(output.logits.square().mean().backward()))
                })
            };
            let one = of(1);
            for threads in [1, 2, 5] {
                assert!(one == of(threads), "{kind:?} with {threads} threads");
            }
        }
    }

    #[test]
    fn voxels_are_repeated_along_every_axis() {
        let loaded = |kind| {
            let (network, _) = small(kind);
            LoadedNetwork::new(network, &network.initial(1), Mode::Use)
        };
        let network = loaded(NetworkKind::UNet3d);
        let x = network.tensor((0..16).map(|value| value as f32).collect(), [1, 2, 2, 2, 2]);
        let twice = values(twice_3d(x));
        assert_eq!(twice.len(), 128);
        for (place, value) in twice.into_iter().enumerate() {
            let (column, row, slice) = (place % 4, place / 4 % 4, place / 16 % 4);
            let from = place / 64 * 8 + slice / 2 * 4 + row / 2 * 2 + column / 2;
            assert_eq!(value, from as f32, "{place}");
        }
    }

    #[test]
    fn every_weight_has_a_gradient_that_agrees_with_a_difference() {
        for kind in [NetworkKind::UNet2d, NetworkKind::ResidualUNet3d, NetworkKind::ResNet18] {
            let (network, patch) = small(kind);
            let weights = network.initial(3);
            let loss_of = |weights: &Weights, mode| {
                let loaded = LoadedNetwork::new(network, weights, mode);
                let output = loaded.forward(picture(4, patch.voxels()), patch);
                let shape = output.logits.dims();
                let target = loaded.tensor(picture(5, shape.iter().product()), shape);
                let loss = (output.logits - target).square().mean();
                (loaded, loss)
            };
            let (loaded, loss) = loss_of(&weights, Mode::Learn);
            let gradients = loaded.gradients(loss.backward());
            assert_eq!(gradients.keys().collect::<Vec<_>>(), weights.0.keys().collect::<Vec<_>>());
            for (name, gradient) in &gradients {
                // The component of the largest gradient, where rounding matters least.
                let (place, &largest) = gradient
                    .iter()
                    .enumerate()
                    .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
                    .unwrap();
                let moved = |by: f32| {
                    let mut weights = weights.clone();
                    weights.0.get_mut(name).unwrap().values[place] += by;
                    f64::from(values(loss_of(&weights, Mode::Use).1)[0])
                };
                let step = 2e-3;
                let difference = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                let error = (difference - f64::from(largest)).abs();
                let allowed = 2e-3 + 0.05 * difference.abs();
                assert!(error < allowed, "{kind:?} {name}: {largest} {difference}");
            }
        }
    }
}
