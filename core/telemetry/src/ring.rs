//! Integers of one resolution, one slot a second, of which the newest are kept exactly.
//!
//! A slot without a reading is a gap. [`Ring::resample`] gives the cells of a screen: each holds the
//! least, the mean and the most of its slots, so that a short peak is not lost however many seconds
//! a cell stands for. What is kept for more than an hour is a [`Series`](crate::Series).

use gantry_model::At;

use crate::slots::{Bucket, Slots, resample, window};

/// Milliseconds of one slot.
const SLOT_MS: u64 = 1000;

/// The newest readings of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    slots: Slots<Option<u32>>,
}

impl Ring {
    /// A ring of so many seconds.
    #[must_use]
    pub fn new(seconds: usize) -> Self {
        Self { slots: Slots::new(seconds) }
    }

    /// Takes a reading. Seconds that were passed over become gaps; one that comes late is put in
    /// its place if that is still kept; a second one within a second replaces the first.
    pub fn push(&mut self, at: At, value: u32) {
        if let Some(slot) = self.slots.at(at.0 / SLOT_MS) {
            *slot = Some(value);
        }
    }

    /// The reading of a second, if there is one.
    #[must_use]
    pub fn get(&self, second: u64) -> Option<u32> {
        self.slots.get(second).flatten()
    }

    /// The `span_seconds` that end with the second of `at`, in `cells` equal parts, oldest first.
    #[must_use]
    pub fn resample(&self, at: At, span_seconds: u64, cells: usize) -> Vec<Option<Bucket>> {
        let slots = window(at.0 / SLOT_MS, span_seconds, 1);
        resample(slots, cells, &self.slots.kept(), |second| {
            Some((Bucket::of(self.get(second)?), 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(readings: &[(u64, u32)]) -> Ring {
        let mut ring = Ring::new(10);
        for (second, value) in readings {
            ring.push(At(second * SLOT_MS + 1), *value);
        }
        ring
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let ring = ring(&[(100, 1), (103, 4)]);
        let values: Vec<Option<u32>> = (99..105).map(|second| ring.get(second)).collect();
        assert_eq!(values, [None, Some(1), None, None, Some(4), None]);
    }

    #[test]
    fn late_and_double_readings_find_their_place() {
        let ring = ring(&[(100, 1), (102, 3), (101, 2), (102, 9), (80, 7)]);
        let values: Vec<Option<u32>> = (80..103).map(|second| ring.get(second)).collect();
        assert_eq!(values[20..], [Some(1), Some(2), Some(9)]);
        assert!(values[..20].iter().all(Option::is_none));
    }

    #[test]
    fn a_cell_keeps_the_peak() {
        let ring = ring(&[(100, 10), (101, 90), (102, 20), (103, 40)]);
        let cells = ring.resample(At(103 * SLOT_MS), 4, 2);
        let bucket = |min, mean, max| Some(Bucket { min, mean, max });
        assert_eq!(cells, [bucket(10, 50, 90), bucket(20, 30, 40)]);
        assert_eq!(ring.resample(At(103 * SLOT_MS), 8, 2)[0], None);
        assert_eq!(ring.resample(At(0), 4, 0), []);
    }

    proptest! {
        #[test]
        fn the_newest_are_kept_and_never_more(readings in prop::collection::vec((0_u64..60, 0_u32..100), 1..200)) {
            let ring = ring(&readings);
            prop_assert!(ring.slots.kept().count() <= 10);
            let newest = readings.iter().map(|(second, _)| *second).max().unwrap();
            let last = readings.iter().rfind(|(second, _)| *second == newest).unwrap().1;
            prop_assert_eq!(ring.get(newest), Some(last));
            let cells = ring.resample(At(newest * SLOT_MS), 10, 10);
            for (cell, bucket) in cells.iter().enumerate() {
                let value = ring.get((newest + 1).saturating_sub(10) + cell as u64);
                if newest >= 9 {
                    prop_assert_eq!(bucket.map(|bucket| bucket.mean), value);
                }
            }
        }
    }
}
