//! Chance from one seed.
//!
//! Each part of a simulation draws from a stream of its own, so that a change in one part does not
//! shift what the others draw. The generator is splitmix64 (Steele, Lea and Flood, 2014), written
//! here because the seeds in `seeds.txt` must mean the same for ever: the generators of libraries
//! change with their versions.

use gantry_model::Millis;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The stream of this number from a seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self { state: seed };
        let first = mixed.next();
        let mut random = Self { state: first ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
        random.next();
        random
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to `end`, which it never is. Zero where `end` is.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The high half of a product: no bias that a simulation could notice, and no division.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `first` to `last`, both of which it may be.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// Whether something happens that happens so often in a thousand times.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A duration of which each order of magnitude is as likely as the others.
    pub(crate) fn duration(&mut self, least: Millis, most: Millis) -> Millis {
        let (low, high) = (least.0.max(1).ilog2(), most.0.max(1).ilog2());
        let size = 1_u64 << self.between(u64::from(low), u64::from(high));
        Millis(self.between(size, size * 2).clamp(least.0, most.0))
    }

    /// A wait whose mean is `mean`: anything up to twice of it.
    pub(crate) fn wait(&mut self, mean: Millis) -> Millis {
        Millis(self.between(1, mean.0.max(1) * 2))
    }

    /// One of some, evenly.
    ///
    /// # Panics
    /// Where there is none.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut random = Random::new(7, 1);
        let drawn: Vec<u64> = (0..4).map(|_| random.below(1000)).collect();
        let mut again = Random::new(7, 1);
        assert_eq!(drawn, (0..4).map(|_| again.below(1000)).collect::<Vec<_>>());
        let mut other = Random::new(7, 2);
        assert_ne!(drawn, (0..4).map(|_| other.below(1000)).collect::<Vec<_>>());
    }

    #[test]
    fn draws_stay_inside_and_spread() {
        let mut random = Random::new(1, 1);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
            let duration = random.duration(Millis(100), Millis(5000));
            assert!((100..=5000).contains(&duration.0), "{duration:?}");
            assert!((3..=5).contains(&random.between(3, 5)));
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        let often = (0..10_000).filter(|_| random.chance(50)).count();
        assert!((400..600).contains(&often), "{often}");
    }
}
