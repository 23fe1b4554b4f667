//! The queues of floods: the least value first, and of equals the one that came first.
//!
//! [`RisingQueue`] is for floods whose level never falls. It sorts no more than it must: values wait
//! in 33 lists by the highest bit in which they differ from the level, and when the level comes to a
//! list, its values move on to lists of lower bits (Ahuja, Mehlhorn, Orlin & Tarjan, "Faster
//! algorithms for the shortest path problem", JACM 37(2), 1990). Lists keep the order of arrival.
//!
//! [`FloodQueue`] takes any value at any time. Only the least values are kept in a heap, which fits
//! into a cache; the others wait in such lists, and move on when the heap has run empty. The order
//! is exactly that of one large heap over (value, arrival).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Waiting voxels that lie together: their memory is used again once they have all been taken.
const BLOCK: usize = 1 << 12;
/// How far ahead of its turn a voxel is told of: the time that memory takes to answer, in turns.
const AHEAD: usize = 8;
/// The voxels of a list that come near all at once and are told of all together.
const AHEAD_MAX: usize = 64;

/// A value (as bits that sort like it), and its voxel.
type Rising = (u32, u32);

/// Waiting voxels of a flood whose level never falls.
pub(super) struct RisingQueue {
    /// The end of each list, by the number of the highest bit, from 1, in which its values differ from
    /// `level`; 0 for those that do not.
    tails: [Vec<Rising>; 33],
    /// What lies before it: blocks that are full.
    blocks: [VecDeque<Vec<Rising>>; 33],
    /// A bit for each list that is not empty.
    filled: u64,
    /// What is taken from, and how much of it was taken.
    front: Vec<Rising>,
    taken: usize,
    /// Blocks that are empty.
    spare: Vec<Vec<Rising>>,
    level: u32,
}

impl RisingQueue {
    /// Returns an empty queue, below all levels.
    pub(super) fn new() -> Self {
        Self {
            tails: [const { Vec::new() }; 33],
            blocks: [const { VecDeque::new() }; 33],
            filled: 0,
            front: Vec::new(),
            taken: 0,
            spare: Vec::new(),
            level: 0,
        }
    }

    /// Puts a voxel in line, at the level that was taken last if its value is lower. The value must
    /// be a number.
    pub(super) fn push(&mut self, value: f32, voxel: u32) {
        self.put((rising(value).max(self.level), voxel));
    }

    fn put(&mut self, waiting: Rising) {
        let differ = 32 - (waiting.0 ^ self.level).leading_zeros();
        self.filled |= 1 << differ;
        let tail = &mut self.tails[differ as usize];
        tail.push(waiting);
        if tail.len() == BLOCK {
            let empty = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
            let full = std::mem::replace(tail, empty);
            self.blocks[differ as usize].push_back(full);
        }
    }

    /// Takes the voxel whose turn it is; `ahead` is told of voxels whose turn comes soon.
    pub(super) fn pop(&mut self, ahead: impl Fn(u32)) -> Option<u32> {
        if self.taken == self.front.len() {
            self.front.clear();
            self.taken = 0;
            if self.filled & 1 == 0 {
                self.draw(&ahead)?;
            }
            match self.blocks[0].pop_front() {
                Some(block) => self.spare.push(std::mem::replace(&mut self.front, block)),
                None => std::mem::swap(&mut self.front, &mut self.tails[0]),
            }
            if self.blocks[0].is_empty() && self.tails[0].is_empty() {
                self.filled &= !1;
            }
        }
        if let Some(&(_, soon)) = self.front.get(self.taken + AHEAD) {
            ahead(soon);
        }
        let (_, voxel) = self.front[self.taken];
        self.taken += 1;
        Some(voxel)
    }

    /// Raises the level to the lowest that waits, and moves its list on to lower bits.
    fn draw(&mut self, ahead: &impl Fn(u32)) -> Option<()> {
        let next = self.filled.trailing_zeros() as usize;
        let mut tail = std::mem::take(self.tails.get_mut(next)?);
        self.filled &= !(1 << next);
        let whole = self.blocks[next].iter().chain(std::iter::once(&tail));
        self.level = whole.flatten().map(|&(value, _)| value).min()?;
        if self.blocks[next].is_empty() && tail.len() <= AHEAD_MAX {
            for &(_, voxel) in &tail {
                ahead(voxel);
            }
        }
        while let Some(mut block) = self.blocks[next].pop_front() {
            for &waiting in &block {
                self.put(waiting);
            }
            block.clear();
            self.spare.push(block);
        }
        for &waiting in &tail {
            self.put(waiting);
        }
        tail.clear();
        self.tails[next] = tail;
        Some(())
    }
}

/// Returns bits that sort as the values do.
fn rising(value: f32) -> u32 {
    // Adding 0 makes 0 of -0, so that the two are equals.
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// A waiting voxel: its value (as bits that sort like it), its arrival, the voxel.
type Waiting = (u64, u32, u32);

/// The waiting voxels that are kept in order: 64 KiB of them.
const NEAR_MAX: usize = 1 << 12;

/// Waiting voxels of a flood.
pub(super) struct FloodQueue {
    /// All that wait with a value of at most `reach`.
    near: BinaryHeap<Reverse<Waiting>>,
    /// How many of them there may be before some are put further off.
    near_max: usize,
    reach: u64,
    /// The others, by the number of the highest bit, from 1, in which they differ from `reach`.
    far: [Vec<Waiting>; 65],
    arrivals: u32,
}

impl FloodQueue {
    /// Returns an empty queue.
    pub(super) fn new() -> Self {
        Self {
            near: BinaryHeap::new(),
            near_max: NEAR_MAX,
            reach: 0,
            far: [const { Vec::new() }; 65],
            arrivals: 0,
        }
    }

    /// Puts a voxel in line. The value must be a number.
    pub(super) fn push(&mut self, value: f64, voxel: u32) {
        self.put((sortable(value), self.arrivals, voxel));
        self.arrivals += 1;
        if self.near.len() > self.near_max {
            self.draw_in();
        }
    }

    /// Takes the voxel whose turn it is, and its value.
    pub(super) fn pop(&mut self) -> Option<(f64, u32)> {
        if self.near.is_empty() {
            self.reach_out();
        }
        let Reverse((bits, _, voxel)) = self.near.pop()?;
        Some((from_sortable(bits), voxel))
    }

    /// Returns some voxels whose turn comes soon, the next one first.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = u32> {
        // Below the top of the heap are its next two, in either order.
        self.near.as_slice().iter().take(3).map(|&Reverse((.., voxel))| voxel)
    }

    fn put(&mut self, waiting: Waiting) {
        if waiting.0 <= self.reach {
            self.near.push(Reverse(waiting));
        } else {
            self.far[highest_bit(waiting.0 ^ self.reach)].push(waiting);
        }
    }

    /// Brings the nearest of the far voxels near: a list that is short enough, or the least of it.
    fn reach_out(&mut self) {
        let Some(next) = self.far.iter().position(|list| !list.is_empty()) else { return };
        let mut list = std::mem::take(&mut self.far[next]);
        let values = list.iter().map(|&(value, ..)| value);
        let reach = if list.len() <= NEAR_MAX / 4 { values.max() } else { values.min() };
        // It lies in the list's range, so that lists further off stay what they are.
        self.reach = reach.unwrap_or(self.reach);
        list.drain(..).for_each(|waiting| self.put(waiting));
        self.far[next] = list;
    }

    /// Puts the greater half of the near voxels further off.
    fn draw_in(&mut self) {
        let mut all: Vec<Waiting> = self.near.drain().map(|Reverse(waiting)| waiting).collect();
        all.sort_unstable();
        let middle = all[all.len() / 2].0;
        let kept = match all.partition_point(|&(value, ..)| value <= middle) {
            // Half of them have the greatest value.
            whole if whole == all.len() => all.partition_point(|&(value, ..)| value < middle),
            kept => kept,
        };
        if kept > 0 {
            let reach = all[kept - 1].0;
            // What differed in a lower bit from the old reach is all above the new one by this bit.
            let above = highest_bit(self.reach ^ reach);
            for lower in 1..above {
                let mut list = std::mem::take(&mut self.far[lower]);
                self.far[above].append(&mut list);
            }
            self.reach = reach;
        }
        for waiting in all {
            self.put(waiting);
        }
        self.near_max = NEAR_MAX.max(2 * self.near.len());
    }
}

/// Returns the number of the highest bit that is set, from 1; 0 where none is.
fn highest_bit(bits: u64) -> usize {
    64 - bits.leading_zeros() as usize
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
        let expected = [8, 6, 1, 3, 4, 7, 0, 2, 5];
        let mut queue = FloodQueue::new();
        values.iter().zip(0..).for_each(|(&value, voxel)| queue.push(value, voxel));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop().map(|(_, voxel)| voxel)).collect();
        assert_eq!(order, expected);
        let mut queue = RisingQueue::new();
        values.iter().zip(0..).for_each(|(&value, voxel)| queue.push(value as f32, voxel));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop(|_| ())).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn lower_values_may_come_later() {
        let mut queue = FloodQueue::new();
        queue.push(5.0, 0);
        assert_eq!(queue.pop(), Some((5.0, 0)));
        queue.push(7.0, 1);
        queue.push(1.0, 2);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some((1.0, 2)), Some((7.0, 1)), None));
    }

    #[test]
    fn both_queues_keep_the_order_of_one_heap_while_they_are_used() {
        let mut state = 1u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        // Many values of their own and few, so that halves can be told apart and cannot.
        for values in [1 << 20, 90, 2] {
            let (mut flood, mut rising) = (FloodQueue::new(), RisingQueue::new());
            let (mut all, mut risen) = (BinaryHeap::new(), BinaryHeap::new());
            let mut level = -100i32;
            for voxel in 0..60_000u32 {
                if random(5) < 3 {
                    let value = random(values) as i32 - 20;
                    flood.push(f64::from(value), voxel);
                    rising.push(value as f32, voxel);
                    all.push(Reverse((value, voxel)));
                    risen.push(Reverse((value.max(level), voxel)));
                } else {
                    let expected = all.pop().map(|Reverse((value, at))| (f64::from(value), at));
                    assert_eq!(flood.pop(), expected);
                    let expected = risen.pop().map(|Reverse((value, at))| {
                        level = value;
                        at
                    });
                    assert_eq!(rising.pop(|_| ()), expected);
                }
            }
        }
    }
}
