//! The embedded engine: burn's flex backend on the CPU, within this process.

use std::collections::VecDeque;

use super::{Engine, Seen, Stepped};
use crate::checkpoint::Checkpoint;
use crate::data::Batch;
use crate::error::LearningError;
use crate::loss::dice_cross_entropy;
use crate::optimizer::{Moments, Step, advance};
use crate::unet::{Mode, Network, UNet, values};
use crate::weights::Weights;

/// A network with the moments of its optimizer.
pub(super) struct Embedded {
    shape: UNet,
    side: usize,
    weights: Weights,
    moments: Moments,
    offered: VecDeque<Batch>,
}

impl Embedded {
    pub(super) fn new(checkpoint: &Checkpoint, shape: UNet) -> Self {
        Self {
            shape,
            side: checkpoint.state.settings.input_size,
            weights: checkpoint.weights.clone(),
            moments: checkpoint.moments.clone(),
            offered: VecDeque::new(),
        }
    }
}

impl Engine for Embedded {
    fn offer(&mut self, batch: Batch, _: usize) -> Result<(), LearningError> {
        self.offered.push_back(batch);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<Stepped, LearningError> {
        let Some(batch) = self.offered.pop_front() else {
            return Err(LearningError::Engine("a step has no images".into()));
        };
        let network = Network::new(self.shape, &self.weights, Mode::Learn);
        let images = batch.images.len() / (self.side * self.side);
        let shape = |channels| [images, channels, self.side, self.side];
        let target = batch.target(self.side, self.shape.classes);
        let output = network.forward(network.tensor(batch.images, shape(1)));
        let target = network.tensor(target, shape(self.shape.classes));
        let loss = dice_cross_entropy(output.logits, target);
        let gradients = network.gradients(loss.backward());
        let loss = values(loss)[0];
        advance(&mut self.weights, &mut self.moments, &gradients, step);
        let finite = loss.is_finite() && self.weights.is_finite();
        Ok(Stepped { loss, finite, waited_s: None, memory_mib: 0 })
    }

    fn see(&mut self, images: Vec<f32>) -> Result<Seen, LearningError> {
        let network = Network::new(self.shape, &self.weights, Mode::Use);
        let count = images.len() / (self.side * self.side);
        let output = network.forward(network.tensor(images, [count, 1, self.side, self.side]));
        Ok(Seen { logits: values(output.logits), features: values(output.features) })
    }

    fn arrays(&mut self) -> Result<(Weights, Moments), LearningError> {
        Ok((self.weights.clone(), self.moments.clone()))
    }
}
