//! The embedded engine: burn's flex backend on the CPU, within this process.

use std::collections::VecDeque;

use super::{Engine, Seen, Stepped};
use crate::checkpoint::Checkpoint;
use crate::data::{Batch, target_of, thinned};
use crate::error::LearningError;
use crate::loss::{cross_entropy, dice_cross_entropy, weight_of};
use crate::network::{LoadedNetwork, Mode, Network, Patch, Task, values};
use crate::optimizer::{Moments, Step, advance};
use crate::weights::Weights;

/// A network with the moments of its optimizer.
pub(super) struct Embedded {
    network: Network,
    patch: Patch,
    weights: Weights,
    moments: Moments,
    /// What is shown instead of the weights that learn.
    shown: Option<Weights>,
    offered: VecDeque<Batch>,
}

impl Embedded {
    pub(super) fn new(checkpoint: &Checkpoint, network: Network) -> Self {
        Self {
            network,
            patch: checkpoint.state.settings.patch(),
            weights: checkpoint.weights.clone(),
            moments: checkpoint.moments.clone(),
            shown: None,
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
        let loaded = LoadedNetwork::new(self.network, &self.weights, Mode::Learn);
        let classes = self.network.classes;
        let patches = batch.images.len() / self.patch.voxels();
        let labels = self.network.labels(self.patch);
        let target = loaded.tensor(batch.target(labels, classes), [patches, classes, labels]);
        let output = loaded.forward(batch.images, self.patch);
        let mut loss = match self.network.kind.task() {
            Task::Segmentation => dice_cross_entropy(output.logits, target),
            Task::Classification => cross_entropy(output.logits, target),
        };
        if !output.aids.is_empty() {
            let mut weights = 1.0;
            for (halved, logits) in output.aids {
                let labels = thinned(&batch.labels, self.patch, self.network.kind.axes(), halved);
                let target = target_of(&labels, labels.len() / patches, classes);
                let target = loaded.tensor(target, logits.dims());
                loss = loss + dice_cross_entropy(logits, target) * weight_of(halved);
                weights += weight_of(halved);
            }
            loss = loss / weights;
        }
        let gradients = loaded.gradients(loss.backward());
        let loss = values(loss)[0];
        advance(&mut self.weights, &mut self.moments, &gradients, step);
        let finite = loss.is_finite() && self.weights.is_finite();
        Ok(Stepped { loss, finite, waited_s: None, memory_mib: 0 })
    }

    fn show(&mut self, weights: &Weights) -> Result<(), LearningError> {
        self.shown = Some(weights.clone());
        Ok(())
    }

    fn see(&mut self, images: Vec<f32>) -> Result<Seen, LearningError> {
        let weights =
            self.shown.as_ref().or(self.moments.average.as_ref()).unwrap_or(&self.weights);
        let loaded = LoadedNetwork::new(self.network, weights, Mode::Use);
        let output = loaded.forward(images, self.patch);
        Ok(Seen { logits: values(output.logits), features: values(output.features) })
    }

    fn arrays(&mut self) -> Result<(Weights, Moments), LearningError> {
        Ok((self.weights.clone(), self.moments.clone()))
    }
}
