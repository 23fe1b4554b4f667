//! The queues of floods: the least value first, and of equals the one that came first.
//!
//! Most voxels wait long, so nothing is sorted before its time. What is far off lies in lists by the
//! highest digit of 8 bits in which it differs from what is near, and by that digit's value; lists keep
//! the order of arrival. Once the near voxels have all been taken, the nearest list is split over lists
//! of lower digits (Ahuja, Mehlhorn, Orlin & Tarjan, "Faster algorithms for the shortest path problem",
//! JACM 37(2), 1990) until some of them together are short, and these are sorted: that is the run. What
//! comes later and belongs among a run goes into a heap beside it. A run says ahead of time which voxels
//! are next, so that their memory can be fetched.
//!
//! [`FloodQueue`] takes any value at any time, [`RisingQueue`] is for floods whose level never falls:
//! what the level has covered needs no order but that of arrival. The order is exactly that of one large
//! heap over (value, arrival).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The most voxels of a run; longer lists are split first.
const RUN_MAX: usize = 1 << 10;
/// The most voxels of a heap before some are put further off.
const HEAP_MAX: usize = 1 << 12;
/// The most voxels that come while a heap is never empty before some are put further off.
const ARRIVALS_MAX: usize = 1 << 16;
/// Waiting voxels that lie together: their memory is used again once they have all been taken.
const BLOCK: usize = 1 << 9;
/// How far ahead of its turn a voxel is told of: the time that memory takes to answer, in turns.
const AHEAD: usize = 8;
/// The list of what is at the reach itself; those of the digits' values follow, the lowest digit first.
const SAME: usize = 0;
/// The fewest waiting voxels that are looked through for some that may go.
const FAR_MIN: usize = 1 << 18;

/// What a flood knows of the voxels that wait.
pub(super) trait Shore {
    /// Returns whether a voxel's turn would change anything. If not, it may be left out, for good.
    fn matters(&self, _voxel: u32) -> bool {
        true
    }

    /// Is told of a voxel whose turn comes some time after those that come soon.
    fn far_off(&self, _voxel: u32) {}

    /// Is told of a voxel whose turn comes soon.
    fn soon(&self, _voxel: u32) {}
}

/// The bits of a digit. Wider ones would split lists fewer times over more lists than stay in the cache.
const DIGIT: u32 = 8;
/// The number of lists: for each digit of a key, one for each value of it.
const LISTS: usize = 1 + ((u32::BITS.div_ceil(DIGIT) as usize) << DIGIT);

/// Returns the list of a key that is not below the reach.
fn list(key: u32, reach: u32) -> usize {
    (key ^ reach).checked_ilog2().map_or(SAME, |bit| {
        let digit = bit / DIGIT;
        1 + (digit << DIGIT | key >> (DIGIT * digit) & ((1 << DIGIT) - 1)) as usize
    })
}

/// Returns the least and the greatest key of one of the reach's lists.
fn range(reach: u32, list: usize) -> (u32, u32) {
    let Some(list) = list.checked_sub(1) else { return (reach, reach) };
    let shift = DIGIT * (list as u32 >> DIGIT);
    let above = u32::MAX.unbounded_shl(shift + DIGIT);
    let least = reach & above | (list as u32 & ((1 << DIGIT) - 1)) << shift;
    (least, least | !(u32::MAX << shift))
}

/// Bits that sort as values do.
fn key(value: f32) -> u32 {
    // Adding 0 makes 0 of -0, so that the two are equals.
    let bits = (value + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn value(key: u32) -> f32 {
    f32::from_bits(if key & SIGN == 0 { !key } else { key & !SIGN })
}

const SIGN: u32 = 1 << 31;

/// A waiting voxel and its key.
#[derive(Clone, Copy)]
struct Waiting {
    key: u32,
    voxel: u32,
}

impl Waiting {
    fn late_key(Reverse(order): Reverse<u64>) -> u32 {
        (order >> 32) as u32
    }

    fn late(late: Reverse<u64>, voxels: &[u32]) -> Self {
        Self { key: Self::late_key(late), voxel: voxels[late.0 as u32 as usize] }
    }
}

/// Voxels in the order of their arrival.
struct List {
    /// Blocks that are full, and one at the end that is not.
    blocks: VecDeque<Vec<Waiting>>,
    last: Vec<Waiting>,
}

impl List {
    fn new() -> Self {
        Self { blocks: VecDeque::new(), last: Vec::new() }
    }

    fn len(&self) -> usize {
        self.blocks.len() * BLOCK + self.last.len()
    }

    fn push(&mut self, waiting: Waiting, spare: &mut Vec<Vec<Waiting>>) {
        if self.last.len() == BLOCK || self.last.capacity() == 0 {
            let empty = spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
            let full = std::mem::replace(&mut self.last, empty);
            if !full.is_empty() {
                self.blocks.push_back(full);
            }
        }
        self.last.push(waiting);
    }
}

/// Waiting voxels in lists, a run and a heap.
struct Queue {
    lists: Vec<List>,
    /// A bit for each list that is not empty.
    filled: Vec<u64>,
    /// The voxels in lists, and how many there may be until they are looked through.
    far: usize,
    far_max: usize,
    /// What is less is near, what is greater is far, and what is equal is in the list for that.
    reach: u32,
    /// In order; of these, `taken` were taken.
    run: Vec<Waiting>,
    taken: usize,
    /// Keys, and below them the numbers of arrivals; these came later than all of the run.
    heap: BinaryHeap<Reverse<u64>>,
    heap_max: usize,
    /// The voxels that came since the heap was empty.
    arrivals: Vec<u32>,
    /// Blocks that are empty.
    spare: Vec<Vec<Waiting>>,
}

impl Queue {
    fn new() -> Self {
        Self {
            lists: std::iter::repeat_with(List::new).take(LISTS).collect(),
            filled: vec![0; LISTS.div_ceil(64)],
            far: 0,
            far_max: FAR_MIN,
            reach: 0,
            run: Vec::new(),
            taken: 0,
            heap: BinaryHeap::new(),
            heap_max: HEAP_MAX,
            arrivals: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Puts a voxel in line; returns whether it is near.
    fn push(&mut self, waiting: Waiting) -> bool {
        if waiting.key >= self.reach {
            self.put(waiting);
            return false;
        }
        self.heap.push(Reverse(u64::from(waiting.key) << 32 | self.arrivals.len() as u64));
        self.arrivals.push(waiting.voxel);
        if self.heap.len() > self.heap_max || self.arrivals.len() > ARRIVALS_MAX {
            self.draw_in();
        }
        true
    }

    fn put(&mut self, waiting: Waiting) {
        let list = list(waiting.key, self.reach);
        self.put_into(list, waiting);
    }

    fn put_into(&mut self, list: usize, waiting: Waiting) {
        self.filled[list / 64] |= 1 << (list % 64);
        self.lists[list].push(waiting, &mut self.spare);
        self.far += 1;
    }

    /// Returns the least key, unless it is greater than the reach.
    fn next(&self) -> Option<u32> {
        let run = self.run.get(self.taken).map(|waiting| waiting.key);
        let heap = self.heap.peek().copied().map(Waiting::late_key);
        let same = (self.filled[0] & 1 != 0).then_some(self.reach);
        [run, heap, same].into_iter().flatten().min()
    }

    fn pop(&mut self, shore: &impl Shore) -> Option<Waiting> {
        let run = loop {
            let run = self.run.get(self.taken).copied();
            if run.is_some() || !self.heap.is_empty() {
                break run;
            }
            self.draw(shore)?;
        };
        let heap = self.heap.peek().copied().map(Waiting::late_key);
        match run {
            Some(first) if heap.is_none_or(|other| first.key <= other) => {
                self.taken += 1;
                if let Some(waiting) = self.run.get(self.taken + 2 * AHEAD) {
                    shore.far_off(waiting.voxel);
                }
                if let Some(waiting) = self.run.get(self.taken + AHEAD) {
                    shore.soon(waiting.voxel);
                }
                Some(first)
            }
            _ => self.heap.pop().map(|late| Waiting::late(late, &self.arrivals)),
        }
    }

    /// Makes a run of the nearest lists, splitting them where they are too long; nothing where no
    /// voxel is left.
    fn draw(&mut self, shore: &impl Shore) -> Option<()> {
        self.run.clear();
        self.taken = 0;
        self.arrivals.clear();
        while let Some(next) = self.nearest() {
            if next == SAME
                && let Some(mut block) = self.lists[SAME].blocks.pop_front()
            {
                self.far -= block.len();
                std::mem::swap(&mut self.run, &mut block);
                self.keep(block);
                break;
            }
            let (least, greatest) = range(self.reach, next);
            let begin = self.run.len();
            let split = begin + self.lists[next].len() > RUN_MAX;
            if split && begin > 0 {
                break;
            }
            self.reach = if split { least } else { greatest };
            self.empty(next, |queue, waiting| {
                // Whoever has asked for the next key was promised the reach.
                if next != SAME && !shore.matters(waiting.voxel) {
                    return;
                }
                if split { queue.put(waiting) } else { queue.run.push(waiting) }
            });
            // Equals stay in the order of their arrival.
            self.run[begin..].sort_by_key(|waiting| waiting.key);
        }
        self.run.iter().take(2 * AHEAD).for_each(|waiting| shore.far_off(waiting.voxel));
        self.run.iter().take(AHEAD).for_each(|waiting| shore.soon(waiting.voxel));
        (!self.run.is_empty()).then_some(())
    }

    /// Returns the nearest list that is not empty.
    fn nearest(&self) -> Option<usize> {
        let word = self.filled.iter().position(|&word| word != 0)?;
        Some(word * 64 + self.filled[word].trailing_zeros() as usize)
    }

    /// Takes all voxels out of a list, in their order.
    fn empty(&mut self, list: usize, mut take: impl FnMut(&mut Self, Waiting)) {
        self.filled[list / 64] &= !(1 << (list % 64));
        let list = std::mem::replace(&mut self.lists[list], List::new());
        self.far -= list.len();
        let List { mut blocks, mut last } = list;
        while let Some(mut block) = blocks.pop_front() {
            block.drain(..).for_each(|waiting| take(self, waiting));
            self.keep(block);
        }
        last.drain(..).for_each(|waiting| take(self, waiting));
        self.keep(last);
    }

    /// Keeps an empty block to be used again.
    fn keep(&mut self, block: Vec<Waiting>) {
        if block.capacity() >= BLOCK {
            self.spare.push(block);
        }
    }

    /// Leaves out what does not matter, once there are twice as many voxels in lists as were left the
    /// last time.
    fn thin_out(&mut self, shore: &impl Shore) {
        if self.far < self.far_max {
            return;
        }
        for list in 0..LISTS {
            self.empty(list, |queue, waiting| {
                if shore.matters(waiting.voxel) {
                    queue.put_into(list, waiting);
                }
            });
        }
        self.far_max = FAR_MIN.max(2 * self.far);
    }

    /// Puts the greater half of the near voxels further off.
    fn draw_in(&mut self) {
        let mut late: Vec<Reverse<u64>> = self.heap.drain().collect();
        late.sort_unstable_by(|a, b| b.cmp(a));
        let mut all = self.run.split_off(self.taken);
        all.extend(late.into_iter().map(|late| Waiting::late(late, &self.arrivals)));
        self.arrivals.clear();
        all.sort_by_key(|waiting| waiting.key);
        let middle = all[all.len() / 2].key;
        let kept = match all.partition_point(|waiting| waiting.key <= middle) {
            // Half of them have the greatest key.
            whole if whole == all.len() => all.partition_point(|waiting| waiting.key < middle),
            kept => kept,
        };
        let further = all.split_off(kept);
        if let Some(&Waiting { key: reach, .. }) = all.last() {
            // Those of lower digits than the one by which the reach falls are all greater by that one.
            let above = list(self.reach, reach);
            let digit = above.saturating_sub(1) & !((1 << DIGIT) - 1);
            let mut moved = Vec::new();
            for list in 0..=digit {
                self.empty(list, |_, waiting| moved.push(waiting));
            }
            self.reach = reach;
            further.iter().chain(&moved).for_each(|&waiting| self.put(waiting));
        } else {
            all = further;
        }
        self.heap_max = HEAP_MAX.max(2 * all.len());
        (self.run, self.taken) = (all, 0);
    }
}

/// Waiting voxels of a flood.
pub(super) struct FloodQueue(Queue);

impl FloodQueue {
    /// Returns an empty queue.
    pub(super) fn new() -> Self {
        Self(Queue::new())
    }

    /// Puts a voxel in line; returns whether its turn comes soon, so that nobody is told of it any
    /// more. The value must be a number.
    pub(super) fn push(&mut self, value: f32, voxel: u32) -> bool {
        self.0.push(Waiting { key: key(value), voxel })
    }

    /// Takes the voxel whose turn it is, and its value.
    pub(super) fn pop(&mut self, shore: &impl Shore) -> Option<(f32, u32)> {
        let Waiting { key, voxel } = self.0.pop(shore)?;
        Some((value(key), voxel))
    }
}

/// Waiting voxels of a flood whose level never falls.
pub(super) struct RisingQueue {
    level: u32,
    /// Those whose value is above the level, or was when they came.
    above: Queue,
    /// Those that came when the level had covered their value.
    covered: VecDeque<u32>,
}

impl RisingQueue {
    /// Returns an empty queue, below all levels.
    pub(super) fn new() -> Self {
        Self { level: 0, above: Queue::new(), covered: VecDeque::new() }
    }

    /// Puts a voxel in line, at the level that was taken last if its value is lower. The value must
    /// be a number.
    pub(super) fn push(&mut self, value: f32, voxel: u32) {
        let key = key(value);
        if key <= self.level {
            self.covered.push_back(voxel);
        } else {
            self.above.push(Waiting { key, voxel });
        }
    }

    /// Takes the voxel whose turn it is.
    pub(super) fn pop(&mut self, shore: &impl Shore) -> Option<u32> {
        self.above.thin_out(shore);
        // What was there when the level came up to it goes before what came after.
        if !self.covered.is_empty() && self.above.next() != Some(self.level) {
            if let Some(&soon) = self.covered.get(AHEAD) {
                shore.soon(soon);
            }
            return self.covered.pop_front();
        }
        let Waiting { key, voxel } = self.above.pop(shore)?;
        self.level = key;
        Some(voxel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every voxel matters and none is awaited.
    struct Unknown;

    impl Shore for Unknown {}

    #[test]
    fn the_order_is_by_value_and_then_by_arrival() {
        let values = [3.0, -1.0, 3.0, 0.0, -0.0, 1e30, -1e30, 2.5, f32::NEG_INFINITY];
        let expected = [8, 6, 1, 3, 4, 7, 0, 2, 5];
        let mut queue = FloodQueue::new();
        for (&value, voxel) in values.iter().zip(0..) {
            queue.push(value, voxel);
        }
        let order: Vec<u32> =
            std::iter::from_fn(|| queue.pop(&Unknown).map(|(_, voxel)| voxel)).collect();
        assert_eq!(order, expected);
        let mut queue = RisingQueue::new();
        values.iter().zip(0..).for_each(|(&value, voxel)| queue.push(value, voxel));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop(&Unknown)).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn lower_values_may_come_later() {
        let mut queue = FloodQueue::new();
        queue.push(5.0, 0);
        assert_eq!(queue.pop(&Unknown), Some((5.0, 0)));
        queue.push(7.0, 1);
        queue.push(1.0, 2);
        let rest = [0; 3].map(|_| queue.pop(&Unknown));
        assert_eq!(rest, [Some((1.0, 2)), Some((7.0, 1)), None]);
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
                    flood.push(value as f32, voxel);
                    rising.push(value as f32, voxel);
                    all.push(Reverse((value, voxel)));
                    risen.push(Reverse((value.max(level), voxel)));
                } else {
                    let expected = all.pop().map(|Reverse((value, at))| (value as f32, at));
                    assert_eq!(flood.pop(&Unknown), expected);
                    let expected = risen.pop().map(|Reverse((value, at))| {
                        level = value;
                        at
                    });
                    assert_eq!(rising.pop(&Unknown), expected);
                }
            }
        }
    }

    #[test]
    fn a_heap_that_is_never_empty_keeps_the_order_however_many_come() {
        let (mut flood, mut all) = (FloodQueue::new(), BinaryHeap::new());
        // What is far makes the reach, so that all that follows comes into the heap.
        let far = 1 << 20;
        flood.push(far as f32, 0);
        assert_eq!(flood.pop(&Unknown), Some((far as f32, 0)));
        let mut most = 0;
        for voxel in 0..3 * ARRIVALS_MAX as u32 {
            let value = voxel.wrapping_mul(2_654_435_769) >> 25;
            flood.push(value as f32, voxel);
            all.push(Reverse((value, voxel)));
            most = most.max(flood.0.arrivals.len());
            if voxel >= 100 {
                let expected = all.pop().map(|Reverse((value, at))| (value as f32, at));
                assert_eq!(flood.pop(&Unknown), expected);
            }
        }
        assert_eq!(most, ARRIVALS_MAX, "none was put further off for their number");
        while let Some(Reverse((value, voxel))) = all.pop() {
            assert_eq!(flood.pop(&Unknown), Some((value as f32, voxel)));
        }
        assert_eq!(flood.pop(&Unknown), None);
    }

    /// Every other voxel matters.
    struct Odd;

    impl Shore for Odd {
        fn matters(&self, voxel: u32) -> bool {
            voxel % 2 == 1
        }
    }

    #[test]
    fn what_does_not_matter_may_go_and_the_rest_keeps_its_order() {
        // Enough for lists to be thinned out, over many values and over few.
        for values in [1u32 << 20, 3] {
            let mut queue = RisingQueue::new();
            let mut expected = Vec::new();
            for voxel in 0..3 * FAR_MIN as u32 {
                let value = voxel.wrapping_mul(2_654_435_769) >> 12;
                queue.push((value % values) as f32, voxel);
                expected.push((value % values, voxel));
                if voxel % (FAR_MIN as u32) == 0 {
                    queue.above.thin_out(&Odd);
                }
            }
            assert!(queue.above.far <= 2 * FAR_MIN, "{}", queue.above.far);
            expected.sort_unstable();
            let rest = std::iter::from_fn(|| queue.pop(&Odd)).filter(|voxel| voxel % 2 == 1);
            let expected = expected.iter().map(|&(_, voxel)| voxel).filter(|voxel| voxel % 2 == 1);
            assert!(rest.eq(expected), "{values} values");
        }
    }
}
