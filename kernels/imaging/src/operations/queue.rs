//! The queue of a flood: the least value first, and of equals the one that came first.
//!
//! Values are spread over many small heaps by their size, so that the heap at hand fits into a
//! cache; a bitmap finds the first that is not empty. The order is exactly that of one large heap
//! over (value, arrival), whatever the spread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The number of heaps: with 2³¹ voxels, a tenth of them waiting at once, still 13,000 in each.
const BUCKETS: usize = 1 << 14;

/// Waiting voxels.
pub(super) struct FloodQueue {
    /// Value (as bits that sort like it), arrival, voxel.
    buckets: Vec<BinaryHeap<Reverse<(u64, u32, u32)>>>,
    /// One bit per heap that is not empty.
    occupied: Vec<u64>,
    /// No word of `occupied` before this one has a bit.
    first_word: usize,
    low: f64,
    scale: f64,
    arrivals: u32,
}

impl FloodQueue {
    /// Returns an empty queue for values that mostly lie between `low` and `high`.
    pub(super) fn new(low: f64, high: f64) -> Self {
        let width = high - low;
        let scale = if width > 0.0 && width.is_finite() { BUCKETS as f64 / width } else { 0.0 };
        Self {
            buckets: (0..BUCKETS).map(|_| BinaryHeap::new()).collect(),
            occupied: vec![0; BUCKETS / 64],
            first_word: BUCKETS / 64,
            low,
            scale,
            arrivals: 0,
        }
    }

    /// Puts a voxel in line. The value must be a number.
    pub(super) fn push(&mut self, value: f64, voxel: usize) {
        let bucket = (((value - self.low) * self.scale) as usize).min(BUCKETS - 1);
        self.buckets[bucket].push(Reverse((sortable(value), self.arrivals, voxel as u32)));
        self.arrivals += 1;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.first_word = self.first_word.min(bucket / 64);
    }

    /// Takes the voxel whose turn it is, and its value.
    pub(super) fn pop(&mut self) -> Option<(f64, usize)> {
        while *self.occupied.get(self.first_word)? == 0 {
            self.first_word += 1;
        }
        let bit = self.occupied[self.first_word].trailing_zeros() as usize;
        let bucket = &mut self.buckets[self.first_word * 64 + bit];
        let Reverse((bits, _, voxel)) = bucket.pop()?;
        if bucket.is_empty() {
            self.occupied[self.first_word] &= !(1 << bit);
        }
        Some((from_sortable(bits), voxel as usize))
    }
}

const SIGN: u64 = 1 << 63;

/// Returns bits that sort as the values do.
fn sortable(value: f64) -> u64 {
    // Adding 0 makes 0 of -0, so that the two are equals.
    let bits = (value + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn from_sortable(bits: u64) -> f64 {
    f64::from_bits(if bits & SIGN == 0 { !bits } else { bits & !SIGN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_by_value_and_then_by_arrival() {
        let values = [3.0, -1.0, 3.0, 0.0, -0.0, 1e30, -1e30, 2.5, f64::NEG_INFINITY];
        for (low, high) in [(-1.0, 3.0), (0.0, 0.0), (-1e30, 1e30), (f64::NEG_INFINITY, 1.0)] {
            let mut queue = FloodQueue::new(low, high);
            values.iter().enumerate().for_each(|(voxel, &value)| queue.push(value, voxel));
            let order: Vec<usize> =
                std::iter::from_fn(|| queue.pop().map(|(_, voxel)| voxel)).collect();
            assert_eq!(order, [8, 6, 1, 3, 4, 7, 0, 2, 5], "{low} to {high}");
        }
    }

    #[test]
    fn lower_values_may_come_later() {
        let mut queue = FloodQueue::new(0.0, 10.0);
        queue.push(5.0, 0);
        assert_eq!(queue.pop(), Some((5.0, 0)));
        queue.push(7.0, 1);
        queue.push(1.0, 2);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some((1.0, 2)), Some((7.0, 1)), None));
    }
}
