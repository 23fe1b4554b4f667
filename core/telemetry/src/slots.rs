//! The newest slots of an endless row, in a ring, and the one way from slots to the cells of a
//! screen.
//!
//! A slot has a number that only rises with time. Memory grows as slots come, up to the most that
//! are kept; from then on the newest takes the place of the oldest.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Slots that memory is taken for at first.
const GROWTH_MIN: usize = 30;

/// The newest slots of a row; those without anything hold `T::default()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slots<T> {
    places: Vec<T>,
    kept_max: usize,
    /// The number of the slot in the first place, when it was new.
    first: u64,
    /// The number of the newest slot.
    newest: u64,
}

impl<T: Copy + Default> Slots<T> {
    /// Room for so many slots, at least one. Takes no memory yet.
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { places: Vec::new(), kept_max: kept_max.max(1), first: 0, newest: 0 }
    }

    /// The number of the newest slot; `None` where there is none yet.
    pub(crate) fn newest(&self) -> Option<u64> {
        (!self.places.is_empty()).then_some(self.newest)
    }

    /// The numbers of all slots that are kept.
    pub(crate) fn kept(&self) -> Range<u64> {
        let end = self.newest().map_or(0, |newest| newest + 1);
        end - self.places.len() as u64..end
    }

    /// The slot with this number, if it is kept.
    pub(crate) fn get(&self, number: u64) -> Option<T> {
        self.kept().contains(&number).then(|| self.places[self.place(number)])
    }

    /// The slot with this number, which is made the newest if it lies ahead; `None` where it is
    /// too old to be kept. Slots that are passed over hold nothing.
    pub(crate) fn at(&mut self, number: u64) -> Option<&mut T> {
        let kept_max = self.kept_max as u64;
        if self.places.is_empty() || number.saturating_sub(self.newest) >= kept_max {
            self.places.clear();
            self.grow(1);
            (self.first, self.newest) = (number, number);
        } else if self.newest.saturating_sub(number) >= kept_max {
            return None;
        }
        while self.newest < number {
            self.newest += 1;
            if self.places.len() < self.kept_max {
                self.grow(1);
            } else {
                let place = self.place(self.newest);
                self.places[place] = T::default();
            }
        }
        if let Some(earlier) = self.kept().start.checked_sub(number).filter(|earlier| *earlier > 0)
        {
            // Before the first that came, and young enough: no place was ever used again.
            self.grow(earlier as usize);
            self.places.rotate_right(earlier as usize);
            self.first = number;
        }
        let place = self.place(number);
        self.places.get_mut(place)
    }

    /// Bytes that the slots take.
    pub(crate) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<T>()
    }

    fn place(&self, number: u64) -> usize {
        ((number - self.first) % self.kept_max as u64) as usize
    }

    /// Adds slots that hold nothing. Memory grows by a quarter at a time, and never beyond what is
    /// kept.
    fn grow(&mut self, slots: usize) {
        let needed = self.places.len() + slots;
        if needed > self.places.capacity() {
            let size = needed.max(self.places.len() * 5 / 4).max(GROWTH_MIN).min(self.kept_max);
            self.places.reserve_exact(size - self.places.len());
        }
        self.places.resize(needed, T::default());
    }
}

/// What one cell of a screen stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The least reading.
    pub min: u32,
    /// The mean, rounded down.
    pub mean: u32,
    /// The most.
    pub max: u32,
}

impl Bucket {
    /// The bucket of one reading.
    pub(crate) const fn of(value: u32) -> Self {
        Self { min: value, mean: value, max: value }
    }
}

/// Buckets that become one. Each counts by its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    min: u32,
    max: u32,
    total: u64,
    pub(crate) weight: u64,
}

impl Sum {
    pub(crate) const EMPTY: Self = Self { min: u32::MAX, max: 0, total: 0, weight: 0 };

    pub(crate) fn add(&mut self, bucket: Bucket, weight: u64) {
        self.min = self.min.min(bucket.min);
        self.max = self.max.max(bucket.max);
        self.total += u64::from(bucket.mean) * weight;
        self.weight += weight;
    }

    /// Adds one reading.
    pub(crate) fn add_value(&mut self, value: u32) {
        self.add(Bucket::of(value), 1);
    }

    /// The bucket; `None` where nothing was added.
    pub(crate) fn bucket(self) -> Option<Bucket> {
        let mean = self.total.checked_div(self.weight)? as u32;
        Some(Bucket { min: self.min, mean, max: self.max })
    }
}

/// The slots of `width` seconds each that make up the `span` seconds up to and with `end`.
pub(crate) fn window(end: u64, span: u64, width: u64) -> Range<u64> {
    let slots_end = end / width + 1;
    slots_end.saturating_sub(span.div_ceil(width))..slots_end
}

/// The one resampler: slots in so many equal cells, each slot in one of them. Where there are more
/// cells than slots, cells beside each other show the same slot. Only those that are `kept` are
/// looked at, however many slots there would be.
pub(crate) fn resample(
    slots: Range<u64>,
    cells: usize,
    kept: &Range<u64>,
    slot: impl Fn(u64) -> Option<(Bucket, u64)>,
) -> Vec<Option<Bucket>> {
    let count = u128::from(slots.end.saturating_sub(slots.start));
    let edge = |cell: usize| slots.start + (count * cell as u128 / cells.max(1) as u128) as u64;
    let cell = |cell: usize| {
        let start = edge(cell);
        let end = edge(cell + 1).max(start + 1).min(slots.end);
        let mut sum = Sum::EMPTY;
        for (bucket, weight) in (start.max(kept.start)..end.min(kept.end)).filter_map(&slot) {
            sum.add(bucket, weight);
        }
        sum.bucket()
    };
    (0..cells).map(cell).collect()
}
