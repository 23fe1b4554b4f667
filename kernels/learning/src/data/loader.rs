//! Batches, made ahead of the steps that take them by some threads, which read, scale and vary patches.
//!
//! Each thread makes every so-many-th batch and holds at most one beside the one that it makes: so the
//! batches come in their order, whoever is faster, and memory is bounded.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use super::room::{Hold, Room};
use super::set::{Batch, DataSet};
use crate::error::LearningError;
use crate::settings::Augmentation;

/// How an epoch varies its patches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Varied {
    pub(crate) augmentation: Augmentation,
    pub(crate) seed: u64,
    pub(crate) epoch: u32,
}

/// The batches that are coming.
pub(crate) struct Batches {
    lanes: Vec<Receiver<Result<(Batch, Hold), LearningError>>>,
    next: usize,
}

impl Batches {
    /// Waits for the next one.
    pub(crate) fn next(&mut self) -> Result<Batch, LearningError> {
        let lane = self.next % self.lanes.len().max(1);
        self.next += 1;
        let failed = || LearningError::Engine("the loader of images has failed".into());
        let came = self.lanes.get(lane).ok_or_else(failed)?.recv();
        // From here it is the engine's.
        came.map_err(|_| failed())?.map(|(batch, _)| batch)
    }
}

/// Begins to make a batch of each of these shares of patches. The threads end with the last batch, or once
/// nobody waits for them.
pub(crate) fn ahead<'scope>(
    scope: &'scope Scope<'scope, '_>,
    data: &'scope DataSet<'_>,
    shares: &[&'scope [usize]],
    varied: Varied,
    room: &'scope Room,
) -> Batches {
    let lane = |number: usize| {
        let (sender, lane) = sync_channel(1);
        let own: Vec<&[usize]> =
            shares.iter().copied().skip(number).step_by(room.threads).collect();
        scope.spawn(move || {
            let Varied { augmentation, seed, epoch } = varied;
            for share in own {
                let hold = room.batch();
                let batch = data.batch(share, augmentation, seed, epoch);
                let failed = batch.is_err();
                // Whoever takes them has stopped, or failed.
                if sender.send(batch.map(|batch| (batch, hold))).is_err() || failed {
                    return;
                }
            }
        });
        lane
    };
    Batches { lanes: (0..room.threads).map(lane).collect(), next: 0 }
}
