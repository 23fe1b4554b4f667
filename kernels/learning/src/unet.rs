//! The network: a small 2-D U-Net (Ronneberger, Fischer and Brox 2015), as nnU-Net would draw it.
//!
//! Four levels; the way down halves the picture by convolutions of stride 2, the way up doubles it by
//! a 1 × 1 convolution and repetition of pixels, and takes in what the way down had seen at that
//! size. Every convolution is followed by group normalisation (Wu and He 2018), so that what the
//! network says of an image does not depend on the others in its batch, and by a rectifier. The input is
//! one channel, the output one logit per class and pixel; the deepest level's activations, averaged
//! over the picture, are the image's features.
//!
//! The network is a description ([`UNet`]) and numbers with names; tensors exist only while it runs.

use std::collections::BTreeMap;

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, interpolate};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::weights::{Parameter, Weights};

/// How often the picture is halved.
const DEPTH: usize = 3;
/// Channels that are normalised together, where a level has that many.
const GROUP: usize = 8;
/// What keeps a constant picture from being divided by 0.
const EPSILON: f64 = 1e-5;

/// The shape of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UNet {
    /// Channels of the first level; each level down has twice as many.
    pub base_channels: usize,
    /// Classes, the background included.
    pub classes: usize,
}

/// One convolution.
struct Layer {
    name: String,
    inputs: usize,
    outputs: usize,
    /// Pixels along a side of the kernel.
    size: usize,
    stride: usize,
}

impl UNet {
    /// What the input's sides must be multiples of.
    pub const SIDE_MULTIPLE: usize = 1 << DEPTH;

    /// How many features an image has.
    #[must_use]
    pub const fn features(&self) -> usize {
        self.channels(DEPTH)
    }

    const fn channels(&self, level: usize) -> usize {
        self.base_channels << level
    }

    fn layer(&self, name: &str, level: usize) -> Layer {
        let channels = self.channels(level);
        let (inputs, outputs, size, stride) = match name {
            "first" if level == 0 => (1, channels, 3, 1),
            "first" => (self.channels(level - 1), channels, 3, 2),
            "second" => (channels, channels, 3, 1),
            "raise" => (self.channels(level + 1), channels, 1, 1),
            "merge" => (2 * channels, channels, 3, 1),
            _ => (channels, self.classes, 1, 1),
        };
        Layer { name: format!("level{level}.{name}"), inputs, outputs, size, stride }
    }

    fn layers(&self) -> Vec<Layer> {
        let down = (0..=DEPTH).flat_map(|level| ["first", "second"].map(|name| (name, level)));
        let up = (0..DEPTH).flat_map(|level| ["raise", "merge"].map(|name| (name, level)));
        down.chain(up)
            .chain([("classes", 0)])
            .map(|(name, level)| self.layer(name, level))
            .collect()
    }

    /// The weights before training: normal after He et al. 2015, from the seed alone.
    pub(crate) fn initial(&self, seed: u64) -> Weights {
        let mut weights = BTreeMap::new();
        for (number, layer) in self.layers().iter().enumerate() {
            let mut random = Random::new(seed, "weights", number as u64, 0);
            let shape = vec![layer.outputs, layer.inputs, layer.size, layer.size];
            let spread = (2.0 / (layer.inputs * layer.size * layer.size) as f64).sqrt();
            let values = (0..shape.iter().product()).map(|_| (random.normal() * spread) as f32);
            let kernel = Parameter { values: values.collect(), shape };
            let vector = |value| Parameter {
                shape: vec![layer.outputs],
                values: vec![value; layer.outputs],
            };
            weights.insert(format!("{}.kernel", layer.name), kernel);
            weights.insert(format!("{}.scale", layer.name), vector(1.0));
            weights.insert(format!("{}.shift", layer.name), vector(0.0));
        }
        // The last layer is not normalised: it has a shift only.
        weights.remove("level0.classes.scale");
        Weights(weights)
    }
}

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
    /// Batch, classes, rows, columns.
    pub(crate) logits: Tensor<4>,
    /// Batch, features.
    pub(crate) features: Tensor<2>,
}

/// A network with its weights as tensors.
pub(crate) struct Network {
    shape: UNet,
    device: Device,
    leaves: BTreeMap<String, Tensor<1>>,
}

impl Network {
    /// A network with these weights, which have the shapes of [`UNet::initial`].
    pub(crate) fn new(shape: UNet, weights: &Weights, mode: Mode) -> Self {
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
        Self { shape, device, leaves }
    }

    /// A batch of square pictures as a tensor that this network takes.
    pub(crate) fn tensor(&self, values: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
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

    /// What the network says of a batch: batch, 1, rows, columns.
    pub(crate) fn forward(&self, batch: Tensor<4>) -> Output {
        let mut seen = Vec::with_capacity(DEPTH);
        let mut x = batch;
        for level in 0..=DEPTH {
            x = self.block(x, "first", level);
            x = self.block(x, "second", level);
            if level < DEPTH {
                seen.push(x.clone());
            }
        }
        let [images, channels, _, _] = x.dims();
        let features = x.clone().mean_dims(&[2, 3]).reshape([images, channels]);
        for (level, earlier) in seen.into_iter().enumerate().rev() {
            x = self.block(x, "raise", level);
            let [_, _, rows, columns] = earlier.dims();
            let twice =
                InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([rows, columns]);
            x = Tensor::cat(vec![interpolate(x, twice), earlier], 1);
            x = self.block(x, "merge", level);
        }
        let last = self.shape.layer("classes", 0);
        Output { logits: self.convolve(x, &last) + self.per_channel(&last, "shift"), features }
    }

    fn block(&self, x: Tensor<4>, name: &str, level: usize) -> Tensor<4> {
        let layer = self.shape.layer(name, level);
        let x = self.convolve(x, &layer);
        relu(group_norm(x, self.per_channel(&layer, "scale"), self.per_channel(&layer, "shift")))
    }

    fn convolve(&self, x: Tensor<4>, layer: &Layer) -> Tensor<4> {
        let shape = [layer.outputs, layer.inputs, layer.size, layer.size];
        let kernel = self.leaf(layer, "kernel").reshape(shape);
        let around = [layer.size / 2; 2];
        conv2d(x, kernel, None, ConvOptions::new([layer.stride; 2], around, [1; 2], 1))
    }

    fn per_channel(&self, layer: &Layer, part: &str) -> Tensor<4> {
        self.leaf(layer, part).reshape([1, layer.outputs, 1, 1])
    }

    fn leaf(&self, layer: &Layer, part: &str) -> Tensor<1> {
        self.leaves[&format!("{}.{part}", layer.name)].clone()
    }
}

fn group_norm(x: Tensor<4>, scale: Tensor<4>, shift: Tensor<4>) -> Tensor<4> {
    let [images, channels, rows, columns] = x.dims();
    let group = if channels.is_multiple_of(GROUP) { GROUP } else { channels };
    let groups = channels / group;
    let x = x.reshape([images, groups, group * rows * columns]);
    let mean = x.clone().mean_dim(2);
    let centred = x - mean;
    let variance = centred.clone().square().mean_dim(2);
    let factor = (variance + EPSILON).sqrt().recip().expand([images, groups, group]);
    let factor = factor.reshape([images, channels, 1, 1]) * scale;
    centred.reshape([images, channels, rows, columns]) * factor + shift
}

/// The numbers of a tensor, the last axis fastest.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("every tensor of the network is f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: UNet = UNet { base_channels: 4, classes: 2 };

    fn picture(seed: u64, side: usize) -> Vec<f32> {
        let mut random = Random::new(seed, "picture", 0, 0);
        (0..side * side).map(|_| random.normal() as f32).collect()
    }

    #[test]
    fn has_the_shapes_and_sizes_it_says() {
        for (base_channels, count) in [(4, 25_406), (8, 100_826)] {
            let shape = UNet { base_channels, classes: 2 };
            let weights = shape.initial(1);
            assert_eq!(weights.count(), count, "{base_channels}");
            let network = Network::new(shape, &weights, Mode::Use);
            let output = network.forward(network.tensor(picture(1, 32), [1, 1, 32, 32]));
            assert_eq!(output.logits.dims(), [1, 2, 32, 32]);
            assert_eq!(output.features.dims(), [1, shape.features()]);
            assert!(values(output.logits).iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn the_batch_does_not_matter_to_an_image() {
        let network = Network::new(SHAPE, &SHAPE.initial(1), Mode::Use);
        let (a, b) = (picture(1, 16), picture(2, 16));
        let alone = network.forward(network.tensor(a.clone(), [1, 1, 16, 16]));
        let both = network.forward(network.tensor([a, b].concat(), [2, 1, 16, 16]));
        let (alone, both) = (values(alone.logits), values(both.logits));
        for (a, b) in alone.iter().zip(&both) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn every_weight_has_a_gradient_that_agrees_with_a_difference() {
        let weights = SHAPE.initial(3);
        let target = picture(5, 16);
        let loss_of = |weights: &Weights, mode| {
            let network = Network::new(SHAPE, weights, mode);
            let output = network.forward(network.tensor(picture(4, 16), [1, 1, 16, 16]));
            let target = network.tensor([target.clone(), target.clone()].concat(), [1, 2, 16, 16]);
            let loss = (output.logits - target).square().mean();
            (network, loss)
        };
        let (network, loss) = loss_of(&weights, Mode::Learn);
        let gradients = network.gradients(loss.backward());
        assert_eq!(gradients.keys().collect::<Vec<_>>(), weights.0.keys().collect::<Vec<_>>());
        for (name, gradient) in &gradients {
            // The component of the largest gradient, where rounding matters least.
            let (place, &largest) =
                gradient.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
            let moved = |by: f32| {
                let mut weights = weights.clone();
                weights.0.get_mut(name).unwrap().values[place] += by;
                f64::from(values(loss_of(&weights, Mode::Use).1)[0])
            };
            let step = 2e-3;
            let difference = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let error = (difference - f64::from(largest)).abs();
            assert!(error < 2e-3 + 0.05 * difference.abs(), "{name}: {largest} {difference}");
        }
    }
}
