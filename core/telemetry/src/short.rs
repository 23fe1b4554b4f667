//! Readings in 16 bits.
//!
//! A reading up to 2,047 is itself, so that every share in thousandths is exact; a larger one is
//! kept to 11 significant bits, half rounded up, and is at most 1/2048 of itself away. Larger
//! readings never become smaller shorts, so that the least and the most of shorts are those of
//! their readings, and a mean stays between them.

/// Readings that are kept exactly.
const EXACT: u32 = 2048;
/// Steps of each further doubling.
const STEPS: u32 = 1024;
/// How many shorts there are: the exact ones and 21 doublings up to 2^32.
pub(crate) const SHORTS: u32 = EXACT + 21 * STEPS;

/// A reading in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Short(pub(crate) u16);

impl Short {
    /// The short that is nearest to a reading.
    pub(crate) fn new(value: u32) -> Self {
        if value < EXACT {
            return Self(value as u16);
        }
        // 1 for readings below 4,096, and so on.
        let shift = value.ilog2() - 10;
        let half = 1_u64 << (shift - 1);
        // At most 2,048, which is the first step of the next doubling.
        let steps = ((u64::from(value) + half) >> shift) as u32 - STEPS;
        Self((EXACT + (shift - 1) * STEPS + steps).min(SHORTS - 1) as u16)
    }

    /// The reading that it stands for.
    pub(crate) fn value(self) -> u32 {
        let short = u32::from(self.0);
        let Some(above) = short.checked_sub(EXACT) else { return short };
        (STEPS + above % STEPS) << (above / STEPS + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_ones_are_exact_and_the_ends_are_kept() {
        for value in 0..2048 {
            assert_eq!(Short::new(value).value(), value);
        }
        let cases = [(2049, 2050), (4095, 4096), (700_123, 699_904), (u32::MAX, 2047 << 21)];
        for (value, kept) in cases {
            assert_eq!(Short::new(value).value(), kept, "of {value}");
        }
    }

    #[test]
    fn every_short_is_its_own() {
        let values: Vec<u32> = (0..SHORTS).map(|short| Short(short as u16).value()).collect();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]));
        for (short, value) in values.iter().enumerate() {
            assert_eq!(usize::from(Short::new(*value).0), short);
        }
    }

    proptest! {
        #[test]
        fn none_is_far_from_its_reading(value in prop::num::u32::ANY, other in prop::num::u32::ANY) {
            let (short, kept) = (Short::new(value), Short::new(value).value());
            prop_assert!(u64::from(kept.abs_diff(value)) * 2048 <= u64::from(value));
            prop_assert_eq!(short.cmp(&Short::new(other)) as i8 * (value.cmp(&other) as i8) >= 0, true);
        }
    }
}
