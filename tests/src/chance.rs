//! Numbers that follow from a seed: the same course for the same seed, on every machine and with every
//! version of every crate.

/// `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The course of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number, below this one.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// A place in something of this length, or right behind it.
    pub const fn place(&mut self, length: usize) -> usize {
        self.below(length as u64 + 1) as usize
    }

    /// One of these.
    ///
    /// # Panics
    /// Where there are none.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_course_of_a_seed_never_changes() {
        // The first numbers of seed 0, as Vigna's splitmix64.c gives them.
        let mut chance = Chance::new(0);
        assert_eq!(
            [chance.number(), chance.number()],
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]
        );
    }
}
