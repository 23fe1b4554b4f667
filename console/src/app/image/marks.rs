//! What is marked in a volume: a bit a voxel, changed in stretches, with the changes to undo.
//!
//! A bit instead of a byte: 512 × 512 × 300 voxels take 10 MB. Stretches instead of voxels: growing
//! a lung changes millions of voxels and some ten thousand stretches, which is what undoing keeps.

use gantry_imaging::{Geometry, Mask};

/// Changes that can be undone.
const UNDO_MAX: usize = 64;
/// Stretches that all of them may have: 32 MB.
const UNDO_RUNS_MAX: usize = 4 << 20;

/// A stretch of voxels, in the order of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first voxel.
    pub start: u32,
    /// How many.
    pub length: u32,
}

/// The stretches of what a mask marks.
#[must_use]
pub fn runs_of(mask: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(skip) = mask[at..].iter().position(|voxel| *voxel != 0) {
        let start = at + skip;
        let rest = &mask[start..];
        let length = rest.iter().position(|voxel| *voxel == 0).unwrap_or(rest.len());
        runs.push(Run { start: start as u32, length: length as u32 });
        at = start + length;
    }
    runs
}

/// What is marked.
#[derive(Clone, PartialEq, Eq)]
pub struct Marks {
    bits: Vec<u64>,
    voxels: usize,
    count: u64,
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Marks").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Marks {
    /// Nothing marked among so many voxels.
    #[must_use]
    pub fn none(voxels: usize) -> Self {
        Self { bits: vec![0; voxels.div_ceil(64)], voxels, count: 0 }
    }

    /// What a mask marks.
    #[must_use]
    pub fn of(mask: &[u8]) -> Self {
        let mut marks = Self::none(mask.len());
        marks.fill(&runs_of(mask), true);
        marks
    }

    /// How many voxels are marked.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether a voxel is marked.
    #[must_use]
    pub fn holds(&self, voxel: usize) -> bool {
        self.bits.get(voxel / 64).is_some_and(|word| word >> (voxel % 64) & 1 == 1)
    }

    /// Marks stretches, or unmarks them. Gives those that were not so before.
    pub fn fill(&mut self, runs: &[Run], on: bool) -> Vec<Run> {
        let mut changed: Vec<Run> = Vec::new();
        for run in runs {
            let end = (run.start as usize + run.length as usize).min(self.voxels);
            let mut at = run.start as usize;
            while at < end {
                let (word, from) = (at / 64, at % 64);
                let length = (64 - from).min(end - at);
                let ones = if length == 64 { u64::MAX } else { (1 << length) - 1 };
                let mut flipped =
                    (if on { !self.bits[word] } else { self.bits[word] }) & (ones << from);
                self.bits[word] ^= flipped;
                let bits = u64::from(flipped.count_ones());
                self.count = if on { self.count + bits } else { self.count - bits };
                while flipped != 0 {
                    let first = flipped.trailing_zeros();
                    let many = (flipped >> first).trailing_ones();
                    let start = (word * 64) as u32 + first;
                    match changed.last_mut().filter(|last| last.start + last.length == start) {
                        Some(last) => last.length += many,
                        None => changed.push(Run { start, length: many }),
                    }
                    let low = first + many;
                    flipped = if low == 64 { 0 } else { flipped >> low << low };
                }
                at += length;
            }
        }
        changed
    }

    /// The same as a mask with 1 for what is marked.
    #[must_use]
    pub fn to_mask(&self, geometry: Geometry) -> Mask {
        let voxels = (0..self.voxels).map(|voxel| u8::from(self.holds(voxel))).collect();
        Mask { geometry, voxels }
    }
}

/// What was changed, to be undone.
#[derive(Clone, Debug, Default)]
pub struct Changes(Vec<(Vec<Run>, bool)>);

impl Changes {
    /// Keeps a change; says whether it was one.
    pub fn keep(&mut self, changed: Vec<Run>, on: bool) -> bool {
        if changed.is_empty() {
            return false;
        }
        self.0.push((changed, on));
        let runs = |all: &[(Vec<Run>, bool)]| all.iter().map(|(runs, _)| runs.len()).sum::<usize>();
        while self.0.len() > UNDO_MAX || self.0.len() > 1 && runs(&self.0) > UNDO_RUNS_MAX {
            self.0.remove(0);
        }
        true
    }

    /// Takes the newest change back; says whether there was one.
    pub fn undo(&mut self, marks: &mut Marks) -> bool {
        let Some((runs, on)) = self.0.pop() else { return false };
        marks.fill(&runs, !on);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_marked_unmarked_and_counted_over_words() {
        let mut marks = Marks::none(200);
        let run = |start, length| Run { start, length };
        for (runs, on, changed, count) in [
            (vec![run(60, 70)], true, vec![run(60, 70)], 70),
            (vec![run(50, 20)], true, vec![run(50, 10)], 80),
            (vec![run(0, 200)], true, vec![run(0, 50), run(130, 70)], 200),
            (vec![run(64, 64), run(190, 99)], false, vec![run(64, 64), run(190, 10)], 126),
            (vec![run(64, 64)], false, vec![], 126),
        ] {
            assert_eq!(marks.fill(&runs, on), changed, "{runs:?}");
            assert_eq!(marks.count(), count);
        }
        let mask = marks.to_mask(Geometry::unit([200, 1, 1]));
        assert_eq!(mask.count() as u64, marks.count());
        assert_eq!(Marks::of(&mask.voxels), marks);
        assert!(marks.holds(63) && !marks.holds(64) && !marks.holds(100_000));
    }

    #[test]
    fn changes_are_undone_from_the_newest_and_only_so_many_kept() {
        let mut marks = Marks::none(1000);
        let mut changes = Changes::default();
        for n in 0..100 {
            let changed = marks.fill(&[Run { start: n * 10, length: 5 }], true);
            assert!(changes.keep(changed, true));
        }
        let changed = marks.fill(&[Run { start: 0, length: 1000 }], false);
        assert!(changes.keep(changed, false) && marks.count() == 0);
        assert!(!changes.keep(marks.fill(&[Run { start: 0, length: 9 }], false), false));
        assert!(changes.undo(&mut marks));
        assert_eq!(marks.count(), 500);
        let undone = std::iter::from_fn(|| changes.undo(&mut marks).then_some(())).count();
        assert_eq!((undone, marks.count()), (UNDO_MAX - 1, 5 * (100 - UNDO_MAX as u64 + 1)));
    }
}
