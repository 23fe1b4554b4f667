//! Which runs touch, and the sets that they make up.
//!
//! Rows are held as bits, 64 voxels to a word. Where a bit of one row meets a bit of another, two runs
//! touch, and counting the bits that begin a run before the place tells which two. So what is paid for is
//! that two runs touch, not that they exist: in a noisy mask that is several times less. Sets are trees
//! towards their smallest run (Tarjan, "Efficiency of a good but not linear set union algorithm",
//! JACM 22(2), 1975), whoever joins first.

use std::ops::Range;

use pulp::NullaryFnOnce;

use super::neighbourhood::RowStep;
use super::runs::{Runs, row_at};

/// Rows of a set of voxels as bits.
#[derive(Debug)]
pub(super) struct Bits {
    /// The words of a row; bits beyond its end are 0.
    wide: usize,
    words: Vec<u64>,
    /// The number of runs of the whole set that begin before each word.
    ranks: Vec<u32>,
}

impl Bits {
    pub(super) fn new(wide: usize, words: Vec<u64>, ranks: Vec<u32>) -> Self {
        Self { wide, words, ranks }
    }

    fn row(&self, row: usize) -> RowBits<'_> {
        let words = row * self.wide..(row + 1) * self.wide;
        RowBits { words: &self.words[words.clone()], ranks: &self.ranks[words] }
    }
}

/// One row.
#[derive(Clone, Copy)]
struct RowBits<'a> {
    words: &'a [u64],
    ranks: &'a [u32],
}

impl RowBits<'_> {
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn word(&self, k: usize) -> Word {
        let bits = self.words[k];
        let before = if k > 0 { self.words[k - 1] >> 63 } else { 0 };
        let after = self.words.get(k + 1).map_or(0, |next| next << 63);
        Word { bits, left: bits << 1 | before, right: bits >> 1 | after, rank: self.ranks[k] }
    }
}

/// 64 voxels of a row.
#[derive(Clone, Copy)]
struct Word {
    bits: u64,
    /// For each voxel, whether the one before it is in the set, and the one after it.
    left: u64,
    right: u64,
    rank: u32,
}

impl Word {
    /// Returns the last run that begins at a voxel of the word or before it. There must be one.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn run(&self, at: u32) -> u32 {
        let begin = self.bits & !self.left & (u64::MAX >> (63 - at));
        (self.rank + begin.count_ones()).wrapping_sub(1)
    }
}

/// Joins the runs of some rows with those that they touch in rows before.
pub(super) struct Join<'a, 'b> {
    pub(super) runs: &'a Runs,
    pub(super) steps: &'a [RowStep],
    /// Whether voxels that share a corner touch.
    pub(super) full: bool,
    pub(super) rows: Range<usize>,
    /// The rows before that count.
    pub(super) with: Range<usize>,
    pub(super) sets: &'a mut Sets<'b>,
}

impl NullaryFnOnce for Join<'_, '_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn call(self) {
        let Self { runs, steps, full, rows, with, sets } = self;
        for row in rows {
            if runs.of_row(row).is_empty() {
                continue;
            }
            let own = runs.bits.row(row);
            let before = |dy: isize, dz: isize| {
                let other = row_at(runs.size, row, dy, dz).filter(|other| with.contains(other));
                other.map(|other| runs.bits.row(other))
            };
            let (above, beside) = (before(0, -1), before(-1, 0));
            for step in steps {
                let Some(other) = before(step.dy, step.dz) else { continue };
                // What touches a voxel from around the one right above it (in the slice before)
                // touches that one too, and so for the one right beside it (in the row before).
                let over = above.filter(|_| full && (step.dy, step.dz) != (0, -1));
                let next = beside.filter(|_| full && (step.dy, step.dz) == (-1, -1));
                for k in 0..own.words.len() {
                    let covered = over.map_or(0, |row| row.words[k]);
                    let covered = covered | next.map_or(0, |row| row.words[k]);
                    let needed = own.words[k] & !covered;
                    if needed != 0 {
                        touch(own.word(k), other.word(k), needed, step.reach, sets);
                    }
                }
            }
        }
    }
}

/// Joins the runs of two words of two rows that touch at voxels that are `needed` of the own one.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn touch(own: Word, other: Word, needed: u64, reach: usize, sets: &mut Sets) {
    // Each pair of runs that overlap does so in one stretch: its first voxel is enough.
    let over = other.bits & needed;
    let mut first = over & !(over << 1);
    while first != 0 {
        let at = first.trailing_zeros();
        first &= first - 1;
        sets.unite(other.run(at), own.run(at));
    }
    if reach == 0 {
        return;
    }
    // Corners: the other run ends before a voxel where the own one begins, or the other way round.
    let apart = needed & !other.bits;
    let mut ends = apart & other.left & !own.left;
    while ends != 0 {
        let at = ends.trailing_zeros();
        ends &= ends - 1;
        sets.unite(other.run(at), own.run(at));
    }
    let mut begins = apart & other.right & !own.right;
    while begins != 0 {
        let at = begins.trailing_zeros();
        begins &= begins - 1;
        sets.unite(other.run(at).wrapping_add(1), own.run(at));
    }
}

/// Disjoint sets of runs, each a tree towards its smallest run.
pub(super) struct Sets<'a> {
    /// The parents of the runs from `first` on; none lies before it.
    pub(super) parents: &'a mut [u32],
    pub(super) first: u32,
}

impl Sets<'_> {
    /// Joins the sets of two runs.
    fn unite(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[(a.max(b) - self.first) as usize] = a.min(b);
    }

    /// Returns the root of a tree, halving the path to it.
    fn find(&mut self, mut of: u32) -> u32 {
        loop {
            let parent = self.parents[(of - self.first) as usize];
            if parent == of {
                return of;
            }
            let grandparent = self.parents[(parent - self.first) as usize];
            self.parents[(of - self.first) as usize] = grandparent;
            of = grandparent;
        }
    }
}
