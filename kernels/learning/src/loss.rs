//! The loss: cross-entropy plus soft Dice, as nnU-Net (Isensee et al. 2021) trains with.
//!
//! Cross-entropy makes every pixel right, Dice (Milletari, Navab and Ahmadi 2016) makes a small
//! region count as much as a large one. Dice is taken over the whole batch and over the classes other
//! than the background, so a slice without the organ does not divide by 0.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::network::{Task, values};

/// What keeps Dice defined where neither side has a pixel.
const SMOOTH: f64 = 1.0;

/// What was said of a batch at one size, and what should have been: patch, class, voxel each.
pub(crate) struct Told {
    pub(crate) shape: [usize; 3],
    pub(crate) logits: Vec<f32>,
    /// 1 in the class that is right, 0 elsewhere.
    pub(crate) target: Vec<f32>,
    /// How much it counts beside the other sizes.
    pub(crate) weight: f64,
}

/// The loss over all sizes, each as much as its weight has of all, and its slopes by the logits of each.
pub(crate) fn loss_and_slopes(told: Vec<Told>, task: Task) -> (f32, Vec<Vec<f32>>) {
    let device = Device::flex().autodiff();
    let all: f64 = told.iter().map(|one| one.weight).sum();
    let mut leaves = Vec::with_capacity(told.len());
    let mut sum: Option<Tensor<1>> = None;
    for Told { shape, logits, target, weight } in told {
        let tensor =
            |values: Vec<f32>| Tensor::<3>::from_data(TensorData::new(values, shape), &device);
        let logits = tensor(logits).require_grad();
        let loss = match task {
            Task::Segmentation => dice_cross_entropy(logits.clone(), tensor(target)),
            Task::Classification => cross_entropy(logits.clone(), tensor(target)),
        };
        let loss = loss * (weight / all);
        leaves.push(logits);
        sum = Some(match sum {
            Some(sum) => sum + loss,
            None => loss,
        });
    }
    let Some(sum) = sum else { return (0.0, Vec::new()) };
    let mut slopes = sum.backward();
    let of = |leaf: Tensor<3>| leaf.grad_remove(&mut slopes).map(values).unwrap_or_default();
    let slopes = leaves.into_iter().map(of).collect();
    (values(sum)[0], slopes)
}

/// The loss of logits against targets: batch, classes, voxels each; a target is 1 in the voxel's class
/// and 0 elsewhere. One number, from about 0 up.
fn dice_cross_entropy(logits: Tensor<3>, target: Tensor<3>) -> Tensor<1> {
    let [_, classes, _] = logits.dims();
    let log_probability = log_softmax(logits, 1);
    let foreground = |x: Tensor<3>| x.narrow(1, 1, classes - 1);
    let probability = foreground(log_probability.clone()).exp();
    let entropy = entropy(log_probability, target.clone());
    let target = foreground(target);
    let per_class = |x: Tensor<3>| x.sum_dim(2).sum_dim(0);
    let both = per_class(probability.clone() * target.clone()) * 2.0;
    let all = per_class(probability) + per_class(target);
    let dice = ((both + SMOOTH) / (all + SMOOTH)).mean();
    entropy + (dice.neg() + 1.0)
}

/// The weight of what is said where sides are halved so often, before all weights are made to sum up
/// to 1: half as much for each time.
pub(crate) fn weight_of(halved: u32) -> f64 {
    0.5_f64.powi(halved as i32)
}

/// Cross-entropy alone, where whole slices have a class.
fn cross_entropy(logits: Tensor<3>, target: Tensor<3>) -> Tensor<1> {
    entropy(log_softmax(logits, 1), target)
}

/// The mean over all voxels of what the right class's probability lacks.
fn entropy(log_probability: Tensor<3>, target: Tensor<3>) -> Tensor<1> {
    let [images, _, voxels] = log_probability.dims();
    (log_probability * target).sum().neg() / (images * voxels) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const SHAPE: [usize; 3] = [2, 3, 9];

    fn tensor(values: &[f32], device: &Device) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.to_vec(), SHAPE), device)
    }

    /// Classes drawn at random, as ones and zeros.
    fn target() -> Vec<f32> {
        let mut random = Random::new(1, "target", 0, 0);
        let mut target = vec![0.0; 54];
        for image in 0..2 {
            for pixel in 0..9 {
                target[image * 27 + random.below(3) * 9 + pixel] = 1.0;
            }
        }
        target
    }

    /// The same in plain arithmetic.
    fn plain(logits: &[f32], target: &[f32]) -> f64 {
        let (mut cross_entropy, mut both, mut all) = (0.0, [0.0; 3], [0.0; 3]);
        for image in 0..2 {
            for pixel in 0..9 {
                let at = |class: usize| image * 27 + class * 9 + pixel;
                let sum: f64 = (0..3).map(|class| f64::from(logits[at(class)]).exp()).sum();
                for class in 0..3 {
                    let probability = f64::from(logits[at(class)]).exp() / sum;
                    let wanted = f64::from(target[at(class)]);
                    cross_entropy -= wanted * probability.ln() / 18.0;
                    both[class] += probability * wanted;
                    all[class] += probability + wanted;
                }
            }
        }
        let dice = |class: usize| (2.0 * both[class] + 1.0) / (all[class] + 1.0);
        cross_entropy + 1.0 - f64::midpoint(dice(1), dice(2))
    }

    #[test]
    fn value_and_gradient_agree_with_plain_arithmetic() {
        let mut random = Random::new(2, "logits", 0, 0);
        let logits: Vec<f32> = (0..54).map(|_| random.normal() as f32).collect();
        let target = target();
        let device = Device::flex().autodiff();
        let leaf = tensor(&logits, &device).require_grad();
        let loss = dice_cross_entropy(leaf.clone(), tensor(&target, &device));
        let gradient = values(leaf.grad(&loss.backward()).unwrap());
        let value = f64::from(values(loss)[0]);
        assert!((value - plain(&logits, &target)).abs() < 1e-5, "{value}");
        for place in 0..54 {
            let moved = |by: f32| {
                let mut logits = logits.clone();
                logits[place] += by;
                (f64::from(logits[place]), plain(&logits, &target))
            };
            let ((left, low), (right, high)) = (moved(-1e-2), moved(1e-2));
            let difference = (high - low) / (right - left);
            let error = (difference - f64::from(gradient[place])).abs();
            assert!(error < 1e-5, "{place}: {difference} {}", gradient[place]);
        }
    }

    #[test]
    fn perfect_is_near_0_and_extreme_logits_stay_finite() {
        let device = Device::flex();
        let target = target();
        for (scale, low, high) in [(50.0, 0.0, 1e-3), (1e30, 0.0, 1e-3), (-50.0, 40.0, 120.0)] {
            let logits: Vec<f32> = target.iter().map(|value| value * scale).collect();
            let loss = dice_cross_entropy(tensor(&logits, &device), tensor(&target, &device));
            let loss = f64::from(values(loss)[0]);
            assert!((low..high).contains(&loss), "{scale}: {loss}");
        }
    }
}
