//! How good a network is on samples that it has not learnt from.

use serde::{Deserialize, Serialize};

use crate::data::{DataSet, shows};
use crate::engine::Engine;
use crate::error::LearningError;
use crate::mirror::Mirroring;
use crate::network::{Network, Patch, Task};

/// Slices measured at once.
pub(crate) const MEASURED_AT_ONCE: usize = 16;

/// How good a network is on samples: the one or the other, or neither where there are no samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Merit {
    /// The mean Dice over the samples of a segmentation, on the network's own grid.
    pub dice: Option<f32>,
    /// The area under the receiver's curve over the slices, for a classifier; nothing where all
    /// slices are of one class.
    pub auc: Option<f32>,
}

/// How good a network, which takes such patches and looks at them from these sides, is on samples.
pub(crate) fn measure(
    engine: &mut dyn Engine,
    (network, patch, mirroring): (Network, Patch, Mirroring),
    data: &DataSet<'_>,
) -> Result<Merit, LearningError> {
    let labels = network.labels(patch);
    let lead = &mut |images: Vec<f32>| {
        mirroring.lead(images, patch.side, |images, _| {
            Ok(leads(&engine.see(images)?.logits, labels).collect())
        })
    };
    match network.kind.task() {
        Task::Segmentation => Ok(Merit { dice: dice(lead, patch, data)?, auc: None }),
        Task::Classification => Ok(Merit { dice: None, auc: auc(lead, data)? }),
    }
}

/// By how much the label leads the background, by the logits of patches with so many labels each.
pub(crate) fn leads(logits: &[f32], labels: usize) -> impl Iterator<Item = f32> {
    logits.chunks_exact(2 * labels).flat_map(move |patch| {
        let (no, yes) = patch.split_at(labels);
        yes.iter().zip(no).map(|(yes, no)| yes - no)
    })
}

/// Says by how much the label leads in each voxel of patches, or in each patch.
type Lead<'a> = dyn FnMut(Vec<f32>) -> Result<Vec<f32>, LearningError> + 'a;

/// The mean Dice over samples, or nothing where there are none. A voxel is the label's where the
/// patches that hold it say so in the mean.
fn dice(
    see: &mut Lead<'_>,
    patch: Patch,
    data: &DataSet<'_>,
) -> Result<Option<f32>, LearningError> {
    let (voxels, area) = (patch.voxels(), patch.area());
    let at_once = (MEASURED_AT_ONCE / patch.depth).max(1);
    let mut sum = 0.0;
    for sample in &data.samples {
        let mut lead = vec![0.0; sample.len() * area];
        for firsts in data.of_sample(sample).chunks(at_once) {
            let said = see(data.images(firsts)?)?;
            for (first, said) in firsts.iter().zip(said.chunks_exact(voxels)) {
                let own = &mut lead[(first - sample.start) * area..];
                own.iter_mut().zip(said).for_each(|(lead, said)| *lead += said);
            }
        }
        let (mut both, mut all) = (0_usize, 0_usize);
        for (lead, &label) in lead.iter().zip(&*data.masks(sample.clone())?) {
            let found = *lead > 0.0;
            both += usize::from(found && label != 0);
            all += usize::from(found) + usize::from(label != 0);
        }
        sum += if all == 0 { 1.0 } else { 2.0 * both as f32 / all as f32 };
    }
    Ok((!data.samples.is_empty()).then(|| sum / data.samples.len() as f32))
}

/// The area under the receiver's curve over all slices.
fn auc(see: &mut Lead<'_>, data: &DataSet<'_>) -> Result<Option<f32>, LearningError> {
    let mut leads = Vec::with_capacity(data.len());
    for firsts in data.patches.chunks(MEASURED_AT_ONCE) {
        let said = see(data.images(firsts)?)?.into_iter();
        for (lead, &first) in said.zip(firsts) {
            leads.push((lead, shows(&data.masks(first..first + 1)?)));
        }
    }
    Ok(area_under_curve(&mut leads))
}

/// The chance that a slice of class 1 leads one of class 0, half where both are level (Mann and Whitney
/// 1947); nothing where there is but one class.
fn area_under_curve(leads: &mut [(f32, u8)]) -> Option<f32> {
    leads.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins) = (0.0_f64, 0.0_f64);
    let positives = leads.iter().filter(|(_, class)| *class == 1).count() as f64;
    for level in leads.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let here = level.iter().filter(|(_, class)| *class == 1).count() as f64;
        let others = level.len() as f64 - here;
        wins += here * (below + others / 2.0);
        below += others;
    }
    let pairs = positives * below;
    (pairs > 0.0).then(|| (wins / pairs) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn the_area_under_the_curve_is_that_of_pairs() {
        let mut random = Random::new(1, "leads", 0, 0);
        for count in 0..30 {
            let mut leads: Vec<(f32, u8)> =
                (0..count).map(|_| (random.below(5) as f32, random.below(2) as u8)).collect();
            let of = |class| leads.iter().filter(move |one| one.1 == class).map(|one| one.0);
            let pairs: Vec<f32> = of(1)
                .flat_map(|yes| {
                    of(0).map(move |no| {
                        if yes > no {
                            1.0
                        } else if yes == no {
                            0.5
                        } else {
                            0.0
                        }
                    })
                })
                .collect();
            let expected =
                (!pairs.is_empty()).then(|| pairs.iter().sum::<f32>() / pairs.len() as f32);
            let found = area_under_curve(&mut leads);
            assert_eq!(found.is_some(), expected.is_some());
            assert!((found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-5, "{leads:?}");
        }
    }
}
