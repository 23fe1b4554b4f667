//! The optimizer: `AdamW` (Loshchilov and Hutter 2019) with nnU-Net's polynomial schedule.
//!
//! Written over plain vectors: its whole state is two sets of arrays and the number of the step,
//! which a checkpoint keeps as they are.

use std::collections::BTreeMap;

use crate::weights::Weights;

/// The share of the first moment that a step keeps.
pub(crate) const FIRST_DECAY: f64 = 0.9;
/// The share of the second moment that a step keeps.
pub(crate) const SECOND_DECAY: f64 = 0.999;
/// What keeps a step finite where a gradient has always been 0.
pub(crate) const EPSILON: f64 = 1e-8;
/// The power by which the rate falls.
const POWER: f64 = 0.9;

/// The moments that the optimizer keeps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moments {
    pub(crate) first: Weights,
    pub(crate) second: Weights,
    /// The average of the weights over the last steps, where one is kept.
    pub(crate) average: Option<Weights>,
}

impl Moments {
    pub(crate) fn new(weights: &Weights) -> Self {
        let zeros = || Weights::zeros_like(weights);
        Self { first: zeros(), second: zeros(), average: None }
    }
}

/// The rate of a step, counted from 0: it falls from `rate` to 0.
pub(crate) fn rate_at(rate: f64, step: u64, steps: u64) -> f64 {
    rate * (1.0 - step as f64 / steps.max(1) as f64).max(0.0).powf(POWER)
}

/// How one step is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Its number, counted from 1.
    pub(crate) number: u64,
    /// Its learning rate.
    pub(crate) rate: f64,
    /// The weight decay.
    pub(crate) decay: f64,
    /// The share of the average of the weights that the step keeps, where one is kept.
    pub(crate) average: f64,
}

/// Moves the weights one step against the gradients.
pub(crate) fn advance(
    weights: &mut Weights,
    moments: &mut Moments,
    gradients: &BTreeMap<String, Vec<f32>>,
    step: Step,
) {
    let count = i32::try_from(step.number).unwrap_or(i32::MAX);
    let first_share = 1.0 - FIRST_DECAY.powi(count);
    let second_share = 1.0 - SECOND_DECAY.powi(count);
    for (name, parameter) in &mut weights.0 {
        let Some(gradient) = gradients.get(name) else { continue };
        let moments = (moments.first.0.get_mut(name), moments.second.0.get_mut(name));
        let (Some(first), Some(second)) = moments else { continue };
        // Scales and shifts are not pulled towards 0, as is usual.
        let keep = if parameter.shape.len() > 1 { 1.0 - step.rate * step.decay } else { 1.0 };
        let moments = first.values.iter_mut().zip(&mut second.values);
        for ((weight, &gradient), (first, second)) in
            parameter.values.iter_mut().zip(gradient).zip(moments)
        {
            let gradient = f64::from(gradient);
            *first = (FIRST_DECAY * f64::from(*first) + (1.0 - FIRST_DECAY) * gradient) as f32;
            *second = (SECOND_DECAY * f64::from(*second)
                + (1.0 - SECOND_DECAY) * gradient * gradient) as f32;
            let spread = (f64::from(*second) / second_share).sqrt() + EPSILON;
            let change = step.rate * f64::from(*first) / first_share / spread;
            *weight = (f64::from(*weight) * keep - change) as f32;
        }
    }
    let Some(average) = &mut moments.average else { return };
    for (name, parameter) in &mut average.0 {
        let Some(weights) = weights.0.get(name) else { continue };
        for (average, weight) in parameter.values.iter_mut().zip(&weights.values) {
            let moved = (1.0 - step.average) * (f64::from(*weight) - f64::from(*average));
            *average = (f64::from(*average) + moved) as f32;
        }
    }
}

/// The share that a step keeps of the average: less at first, so that the weights that the run began
/// with are soon forgotten (Tan and Le 2019, as `TensorFlow` does it).
pub(crate) fn average_at(share: f64, number: u64) -> f64 {
    share.min((1.0 + number as f64) / (10.0 + number as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Parameter;

    #[test]
    fn finds_the_bottom_of_a_bowl() {
        let parameter = Parameter { shape: vec![2], values: vec![3.0, -2.0] };
        let mut weights = Weights(BTreeMap::from([("w".to_owned(), parameter)]));
        let mut moments = Moments::new(&weights);
        for number in 1..=400 {
            let gradient: Vec<f32> =
                weights.0["w"].values.iter().map(|w| 2.0 * (w - 1.0)).collect();
            let gradients = BTreeMap::from([("w".to_owned(), gradient)]);
            let step =
                Step { number, rate: rate_at(0.1, number - 1, 400), decay: 0.01, average: 0.0 };
            advance(&mut weights, &mut moments, &gradients, step);
        }
        assert!(weights.0["w"].values.iter().all(|w| (w - 1.0).abs() < 1e-2), "{weights:?}");
    }

    #[test]
    fn the_average_follows_the_weights() {
        let parameter = Parameter { shape: vec![1], values: vec![0.0] };
        let mut weights = Weights(BTreeMap::from([("w".to_owned(), parameter)]));
        let mut moments = Moments { average: Some(weights.clone()), ..Moments::new(&weights) };
        let mut expected = 0.0;
        for number in 1..=50 {
            let gradients = BTreeMap::from([("w".to_owned(), vec![-1.0])]);
            let average = average_at(0.8, number);
            let step = Step { number, rate: 0.1, decay: 0.0, average };
            advance(&mut weights, &mut moments, &gradients, step);
            expected = average * expected + (1.0 - average) * f64::from(weights.0["w"].values[0]);
        }
        let average = moments.average.unwrap().0["w"].values[0];
        assert!((f64::from(average) - expected).abs() < 1e-4, "{average} {expected}");
        assert!(average < weights.0["w"].values[0] && average > 4.0, "{average}");
        assert!((average_at(0.9999, 1) - 2.0 / 11.0).abs() < 1e-12 && average_at(0.5, 99) == 0.5);
    }

    #[test]
    fn the_first_step_has_the_length_of_the_rate_and_decay_takes_its_share() {
        for (shape, decay, expected) in
            [(vec![1], 0.5, 0.9), (vec![1, 1], 0.0, 0.9), (vec![1, 1], 0.5, 0.85)]
        {
            let parameter = Parameter { shape, values: vec![1.0] };
            let mut weights = Weights(BTreeMap::from([("w".to_owned(), parameter)]));
            let mut moments = Moments::new(&weights);
            let gradients = BTreeMap::from([("w".to_owned(), vec![123.0])]);
            let step = Step { number: 1, rate: 0.1, decay, average: 0.0 };
            advance(&mut weights, &mut moments, &gradients, step);
            assert!((weights.0["w"].values[0] - expected).abs() < 1e-6, "{weights:?}");
        }
        assert_eq!((rate_at(1.0, 0, 10), rate_at(1.0, 10, 10)), (1.0, 0.0));
    }
}
