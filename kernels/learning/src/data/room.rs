//! How much of a training's samples may be in memory: samples that are held, and batches on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::set::{BYTES_OF_VOXEL, READS_AT_ONCE};
use crate::network::Patch;

/// Bytes of samples in memory where nothing says how much there is.
const BYTES_USUAL: u64 = 4 << 30;
/// Bytes of a shard: as much as `WebDataset` recommends.
const SHARD_BYTES: u64 = 1_000_000_000;
/// Threads that make batches: what the engine does with a batch takes longer than to make one, but where
/// each read is a way over a network.
const THREADS_MAX: usize = 4;
/// Batches of a thread: one that waits and one that is made.
const BATCHES_OF_THREAD: usize = 2;

/// Bytes of a MiB.
const MIB: f64 = (1 << 20) as f64;

/// What a training may take for its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRoom {
    /// Bytes of memory for samples and batches of a process; where absent 4 GiB. One batch is made
    /// however little there is.
    pub memory_bytes: Option<u64>,
    /// Bytes of a shard of prepared samples. One sample is in one shard however large it is.
    pub shard_bytes: u64,
}

impl Default for DataRoom {
    fn default() -> Self {
        Self { memory_bytes: None, shard_bytes: SHARD_BYTES }
    }
}

/// What is taken of the memory, and what is left.
pub(crate) struct Room {
    gauge: Gauge,
    left: AtomicUsize,
    /// Bytes for which there was no room.
    refused: AtomicUsize,
    /// Threads that make batches.
    pub(super) threads: usize,
    batch_bytes: usize,
}

impl Room {
    /// Room for samples beside batches of so many patches.
    pub(crate) fn new(bytes: Option<u64>, patch: Patch, batch_size: usize) -> Self {
        let bytes = usize::try_from(bytes.unwrap_or(BYTES_USUAL)).unwrap_or(usize::MAX);
        // Beside the batch those patches that are read for it.
        let batch_bytes = (batch_size + READS_AT_ONCE) * patch.voxels() * BYTES_OF_VOXEL;
        let each = BATCHES_OF_THREAD * batch_bytes;
        // Half of the memory for what is on its way is plenty.
        let threads = (bytes / 2 / each.max(1)).clamp(1, THREADS_MAX);
        // And one that is handed over while its thread begins the next.
        let left = bytes.saturating_sub(threads * each + batch_bytes);
        let (left, refused) = (left.into(), AtomicUsize::new(0));
        Self { gauge: Gauge::default(), left, refused, threads, batch_bytes }
    }

    /// Takes so many bytes, where they are left.
    pub(super) fn take(&self, bytes: usize) -> Option<Hold> {
        let order = Ordering::Relaxed;
        let taken = self.left.fetch_update(order, order, |left| left.checked_sub(bytes)).is_ok();
        if !taken {
            self.refused.fetch_add(bytes, order);
        }
        taken.then(|| self.gauge.hold(bytes))
    }

    /// Takes what a batch was promised.
    pub(super) fn batch(&self) -> Hold {
        self.gauge.hold(self.batch_bytes)
    }

    /// Bytes that are taken now.
    fn taken(&self) -> usize {
        self.gauge.0.now.load(Ordering::Relaxed)
    }

    /// The most that was taken at once, in MiB.
    pub(crate) fn most_mib(&self) -> f64 {
        self.gauge.0.most.load(Ordering::Relaxed) as f64 / MIB
    }

    /// What is held, in words.
    pub(crate) fn words(&self) -> String {
        let mib = |bytes: usize| bytes as f64 / MIB;
        let (taken, others) = (mib(self.taken()), mib(self.refused.load(Ordering::Relaxed)));
        format!("{taken:.0} MiB of them are held in memory, {others:.0} MiB are read when needed")
    }
}

/// Counts bytes.
#[derive(Clone, Debug, Default)]
struct Gauge(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn hold(&self, bytes: usize) -> Hold {
        let now = self.0.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.0.most.fetch_max(now, Ordering::Relaxed);
        Hold { gauge: self.clone(), bytes }
    }
}

/// Bytes that are taken until this value is dropped.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    gauge: Gauge,
    bytes: usize,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gauge.0.now.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_given_once_and_one_batch_is_made_however_little_there_is() {
        let patch = Patch { depth: 1, side: 16 };
        // A batch of 8, and 8 that are read, of 1280 bytes.
        let batch = 16 * 1280;
        let left_of = |room: &Room| room.left.load(Ordering::Relaxed);
        let room = |bytes: usize| Room::new(Some(bytes as u64), patch, 8);
        for (bytes, threads, left) in [
            (0, 1, 0),
            (4 * batch, 1, batch),
            (8 * batch, 2, 3 * batch),
            (100 * batch, 4, 91 * batch),
        ] {
            let room = room(bytes);
            assert_eq!((room.threads, left_of(&room)), (threads, left), "{bytes}");
        }
        let room = room(4 * batch);
        let some = room.take(batch - 1).unwrap();
        assert!(room.take(2).is_none() && room.take(1).is_some());
        drop(room.batch());
        assert_eq!((room.taken(), room.most_mib()), (batch - 1, (2 * batch - 1) as f64 / MIB));
        drop(some);
        assert_eq!((room.taken(), left_of(&room)), (0, 0), "what was given is not given again");
        assert!(left_of(&Room::new(None, patch, 8)) > 1 << 31);
    }
}
