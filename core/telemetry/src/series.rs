//! The past of one reading, in four resolutions.
//!
//! A [`Series`] keeps the last ten minutes second by second, two hours in tens of seconds, a day in
//! minutes and two weeks in tens of minutes. A coarse slot holds the least, the mean and the most
//! of its seconds and how many of them have a reading, worked out from the seconds and not from
//! slots in between. A second without a reading is a gap on every level.
//!
//! Readings may come late and twice: as long as their second is kept they take their place. While
//! all seconds of a slot are kept it is the same whatever their order was; in an older slot a late
//! reading moves the mean by about its share. A full series takes 26 KB; it grows as time passes.
//! Readings above 2,047 are kept to 1/2048 of themselves (`short.rs`).

use std::ops::Range;

use gantry_model::{At, Millis};

use crate::short::{SHORTS, Short};
use crate::slots::{Bucket, Slots, Sum, resample, window};

/// Milliseconds of the finest slot.
const SECOND_MS: u64 = 1000;
/// Seconds that are kept one by one: ten minutes, so that the newest slot of every coarser level
/// can be worked out from them.
const SECONDS: usize = 600;
/// Seconds of one slot, and slots, of the coarser levels: two hours, a day and two weeks.
const COARSE: [(u64, usize); 3] = [(10, 720), (60, 1440), (600, 2016)];
/// The seconds of a slot that have a reading are kept in so many parts of all: as many as fit into
/// 48 bits beside three shorts.
const PARTS: u64 = 20;

/// The past of one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    seconds: Slots<Second>,
    coarse: [Level; 3],
    /// When the newest reading was taken.
    newest: Option<At>,
}

/// The short of a second, one more than itself; 0 is a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Second(u16);

/// Slots of several seconds each.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    slots: Slots<Coarse>,
    /// The newest slot, exact and cheap to add to.
    open: Sum,
}

/// Least, mean, most and weight of a slot in 48 bits; 0 is a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Coarse([u16; 3]);

impl Second {
    fn new(short: Short) -> Self {
        Self(short.0 + 1)
    }

    fn value(self) -> Option<u32> {
        self.0.checked_sub(1).map(|short| Short(short).value())
    }
}

impl Coarse {
    /// What was added up, of a slot of so many seconds.
    fn new(sum: Sum, seconds: u64) -> Self {
        let Some(bucket) = sum.bucket() else { return Self::default() };
        let parts = (sum.weight * PARTS).div_ceil(seconds);
        let packed =
            [bucket.min, bucket.mean, bucket.max].into_iter().fold(parts, |packed, value| {
                packed * u64::from(SHORTS) + u64::from(Short::new(value).0)
            });
        Self([packed as u16, (packed >> 16) as u16, (packed >> 32) as u16])
    }

    /// The bucket and how many of its seconds have a reading.
    fn read(self, seconds: u64) -> Option<(Bucket, u64)> {
        let [low, middle, high] = self.0.map(u64::from);
        let mut packed = low | middle << 16 | high << 32;
        let mut next = || {
            let short = packed % u64::from(SHORTS);
            packed /= u64::from(SHORTS);
            Short(short as u16).value()
        };
        let (max, mean, min) = (next(), next(), next());
        let weight = (packed * seconds / PARTS).max(1);
        (packed > 0).then_some((Bucket { min, mean, max }, weight))
    }
}

impl Default for Series {
    fn default() -> Self {
        Self::new()
    }
}

impl Series {
    /// A series without a reading.
    #[must_use]
    pub fn new() -> Self {
        let level = |(_, slots)| Level { slots: Slots::new(slots), open: Sum::EMPTY };
        Self { seconds: Slots::new(SECONDS), coarse: COARSE.map(level), newest: None }
    }

    /// Takes a reading. A second one within a second replaces the first; one that is older than
    /// the seconds that are kept is dropped.
    pub fn push(&mut self, at: At, value: u32) {
        let second = at.0 / SECOND_MS;
        let short = Short::new(value);
        let Some(place) = self.seconds.at(second) else { return };
        let is_first = *place == Second::default();
        *place = Second::new(short);
        self.newest = self.newest.max(Some(at));
        let oldest = (self.seconds.newest().unwrap_or(second) + 1).saturating_sub(SECONDS as u64);
        for (level, (width, _)) in self.coarse.iter_mut().zip(COARSE) {
            let number = second / width;
            if level.slots.newest().is_none_or(|newest| number > newest) {
                level.open = Sum::EMPTY;
            }
            let is_open = level.slots.newest().is_none_or(|newest| number >= newest);
            let Some(slot) = level.slots.at(number) else { continue };
            if is_open && is_first {
                level.open.add_value(short.value());
                *slot = Coarse::new(level.open, width);
                continue;
            }
            let seconds = number * width..(number + 1) * width;
            if seconds.start >= oldest {
                let sum = sum(&self.seconds, seconds);
                *slot = Coarse::new(sum, width);
                if is_open {
                    level.open = sum;
                }
            } else {
                *slot = Coarse::new(with_late(*slot, width, short.value()), width);
            }
        }
    }

    /// The reading of a second, if it is kept.
    #[must_use]
    pub fn get(&self, second: u64) -> Option<u32> {
        self.seconds.get(second).and_then(Second::value)
    }

    /// The `span` that ends with `at`, in `cells` equal parts, oldest first, of the finest level
    /// that reaches back so far; of the coarsest where none does.
    #[must_use]
    pub fn resample(&self, at: At, span: Millis, cells: usize) -> Vec<Option<Bucket>> {
        let end = at.0 / SECOND_MS;
        let span = span.0.div_ceil(SECOND_MS).max(1);
        let newest = self.seconds.newest().unwrap_or(0).max(end);
        let reach = newest.saturating_sub(end).saturating_add(span);
        if reach <= SECONDS as u64 {
            let second = |number| Some((Bucket::of(self.get(number)?), 1));
            return resample(window(end, span, 1), cells, &self.seconds.kept(), second);
        }
        // The newest slot of a level may have only just begun.
        let reaches = |(width, slots): &(u64, usize)| reach.div_ceil(*width) < *slots as u64;
        let index = COARSE.iter().position(reaches).unwrap_or(COARSE.len() - 1);
        let (width, _) = COARSE[index];
        let slots = &self.coarse[index].slots;
        let slot = |number| slots.get(number).and_then(|slot| slot.read(width));
        resample(window(end, span, width), cells, &slots.kept(), slot)
    }

    /// When the newest reading was taken.
    #[must_use]
    pub fn newest(&self) -> Option<At> {
        self.newest
    }

    /// How old the newest reading is; `None` where there never was one.
    #[must_use]
    pub fn age(&self, at: At) -> Option<Millis> {
        self.newest.map(|newest| at.since(newest))
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let coarse: usize = self.coarse.iter().map(|level| level.slots.bytes()).sum();
        size_of::<Self>() + self.seconds.bytes() + coarse
    }
}

/// What the readings of some seconds add up to.
fn sum(seconds: &Slots<Second>, range: Range<u64>) -> Sum {
    let mut sum = Sum::EMPTY;
    let values = range.filter_map(|second| seconds.get(second).and_then(Second::value));
    values.for_each(|value| sum.add_value(value));
    sum
}

/// A slot of which not all seconds are kept any more, with one more reading: as exact as it can be.
fn with_late(slot: Coarse, width: u64, value: u32) -> Sum {
    let mut sum = Sum::EMPTY;
    if let Some((bucket, weight)) = slot.read(width) {
        sum.add(bucket, weight.min(width - 1));
    }
    sum.add_value(value);
    sum
}
