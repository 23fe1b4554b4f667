//! Random numbers that depend on nothing but what they are for.
//!
//! Every stream is named by the run's seed, a purpose and two counters, so the numbers drawn for an
//! image of an epoch are the same whether or not the run was interrupted before, and no global state
//! is shared between trainings in one process. The generator is `SplitMix64` (Steele, Lea and Flood
//! 2014), good enough for orders, flips and weights.

use std::f64::consts::TAU;

/// A stream of random numbers.
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a purpose.
    pub(crate) fn new(seed: u64, purpose: &str, first: u64, second: u64) -> Self {
        let mut random = Self(seed);
        for part in purpose.bytes().map(u64::from).chain([first, second]) {
            random.0 = random.next() ^ part;
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0, included, to 1, excluded.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `limit`, which is small against 2⁶⁴.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A number of the standard normal distribution (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    /// The numbers below `count` in a random order (Fisher and Yates).
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_and_apart() {
        let draw = |seed, purpose, first, second| Random::new(seed, purpose, first, second).next();
        assert_eq!(draw(1, "order", 2, 3), draw(1, "order", 2, 3));
        let all = [(1, "order", 2, 3), (2, "order", 2, 3), (1, "flip", 2, 3), (1, "order", 3, 2)];
        for (place, a) in all.iter().enumerate() {
            for b in &all[..place] {
                assert_ne!(draw(a.0, a.1, a.2, a.3), draw(b.0, b.1, b.2, b.3), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn normal_numbers_are_normal() {
        let mut random = Random::new(1, "test", 0, 0);
        let values: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn an_order_has_everyone_once() {
        let mut order = Random::new(7, "order", 0, 0).order(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
