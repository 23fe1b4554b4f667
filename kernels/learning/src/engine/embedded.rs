//! The embedded engine: the network's own passes on the CPU, within this process. The loss and its
//! slopes are burn's.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::{Engine, Seen, Stepped};
use crate::checkpoint::Checkpoint;
use crate::data::{Batch, target_of, thinned};
use crate::error::LearningError;
use crate::loss::{Told, loss_and_slopes, weight_of};
use crate::network::{Aid, DirectNetwork, Kept, Network, Patch, Slopes};
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

    /// What was said at a size, and what should have been.
    fn told(&self, aid: Aid, kept: &[Kept], labels: &[u8]) -> Told {
        let Network { kind, classes, .. } = self.network;
        let logits: Vec<f32> = kept.iter().flat_map(|kept| kept.logits(aid.op)).copied().collect();
        let each = logits.len() / kept.len() / classes;
        let target = if aid.halved == 0 {
            target_of(labels, each, classes)
        } else {
            target_of(&thinned(labels, self.patch, kind.axes(), aid.halved), each, classes)
        };
        let shape = [kept.len(), classes, each];
        Told { shape, logits, target, weight: weight_of(aid.halved) }
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
        let direct = DirectNetwork::learning(self.network, &self.weights);
        let patches = batch.images.par_chunks_exact(self.patch.voxels());
        let kept: Vec<Kept> = patches.map(|patch| direct.keep(patch, self.patch)).collect();
        let said = direct.said();
        let told = said.iter().map(|aid| self.told(*aid, &kept, &batch.labels)).collect();
        let (loss, of_logits) = loss_and_slopes(told, self.network.kind.task());
        let slopes = |(number, kept): (usize, &Kept)| {
            let own = said.iter().zip(&of_logits).map(|(aid, slopes)| {
                let count = kept.logits(aid.op).len();
                (aid.op, &slopes[number * count..(number + 1) * count])
            });
            direct.slopes(kept, &own.collect::<Vec<_>>())
        };
        let all: Vec<Slopes> = kept.par_iter().enumerate().map(slopes).collect();
        advance(&mut self.weights, &mut self.moments, &summed(all), step);
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
        let answer = DirectNetwork::new(self.network, weights).answer(&images, self.patch);
        Ok(Seen { logits: answer.logits, features: answer.features })
    }

    fn arrays(&mut self) -> Result<(Weights, Moments), LearningError> {
        Ok((self.weights.clone(), self.moments.clone()))
    }
}

/// The slopes over all patches, summed in their order.
fn summed(all: Vec<Slopes>) -> Slopes {
    let mut all = all.into_iter();
    let mut sum = all.next().unwrap_or_default();
    for one in all {
        for (name, slopes) in one {
            let Some(sum) = sum.get_mut(&name) else { continue };
            sum.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += slope);
        }
    }
    sum
}
