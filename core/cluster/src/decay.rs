//! Use that fades: what an account has taken, halved over each half-life, in integers only.
//!
//! Between two looks an account uses at a constant rate. Over a time `t` with half-life `h` what
//! was there fades by `f = 2^(-t/h)`, and the rate adds `rate · h / ln 2 · (1 − f)`, which is the
//! integral of the same fading. `f` is a fraction of 2^62, built from repeated square roots of one
//! half; the error stays below a part in a million (a test holds it against `f64`).

use gantry_model::{At, Millis};
use serde::{Deserialize, Serialize};

/// One, as a fraction.
const ONE: u128 = 1 << 62;
/// Steps of the exponent: t/h is known to 2^-40.
const STEPS: usize = 40;
/// `2^(-1/2)`, `2^(-1/4)`, ... as fractions of [`ONE`].
const ROOTS: [u128; STEPS] = roots();
/// 1 / ln 2, in 2^-32.
const INVERSE_LN2: u128 = 6_196_328_019;

const fn roots() -> [u128; STEPS] {
    let mut roots = [0; STEPS];
    let mut last = ONE / 2;
    let mut step = 0;
    while step < STEPS {
        last = (last * ONE).isqrt();
        roots[step] = last;
        step += 1;
    }
    roots
}

/// `2^(-elapsed/half_life)` as a fraction of [`ONE`].
fn fade(elapsed: Millis, half_life: Millis) -> u128 {
    let half_life = u128::from(half_life.0.max(1));
    let exponent = (u128::from(elapsed.0) << STEPS) / half_life;
    let whole = exponent >> STEPS;
    if whole >= 62 {
        return 0;
    }
    let mut fraction = ONE >> whole;
    for (step, root) in ROOTS.iter().enumerate() {
        if exponent >> (STEPS - 1 - step) & 1 == 1 {
            fraction = (fraction * root) >> 62;
        }
    }
    fraction
}

/// Use in thousandths of a core × milliseconds, as of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decayed {
    used: u64,
    rate: u64,
    at: At,
}

impl Decayed {
    /// What is left of all use at a time.
    pub(crate) fn used(&self, at: At, half_life: Millis) -> u64 {
        let elapsed = at.since(self.at);
        if elapsed == Millis(0) {
            return self.used;
        }
        let fraction = fade(elapsed, half_life);
        let left = (u128::from(self.used) * fraction) >> 62;
        let full = (u128::from(self.rate) * u128::from(half_life.0) * INVERSE_LN2) >> 32;
        let gone = ONE - fraction;
        // For the rate of a large cluster the product would leave 128 bits.
        let added =
            if full >> 64 == 0 { (full * gone) >> 62 } else { ((full >> 16) * (gone >> 15)) >> 31 };
        u64::try_from(left + added).unwrap_or(u64::MAX)
    }

    /// Changes the rate from a time on.
    pub(crate) fn change(&mut self, at: At, half_life: Millis, change: impl FnOnce(u64) -> u64) {
        *self =
            Self { used: self.used(at, half_life), rate: change(self.rate), at: self.at.max(at) };
    }

    pub(crate) const fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same with floats.
    #[derive(Default)]
    struct Model {
        used: f64,
        rate: f64,
    }

    impl Model {
        fn pass(&mut self, elapsed: f64, half_life: f64) {
            let fraction = (-elapsed / half_life).exp2();
            let added = self.rate * half_life / std::f64::consts::LN_2 * (1.0 - fraction);
            self.used = self.used * fraction + added;
        }
    }

    proptest! {
        #[test]
        fn integers_follow_a_float_model(
            half_life in 60_000_u64..40 * 86_400_000,
            steps in prop::collection::vec((1_u64..400_000_000, 0_u64..10_000_000), 1..40),
        ) {
            let (mut ours, mut model) = (Decayed::default(), Model::default());
            let mut at = 0;
            for (elapsed, rate) in steps {
                at += elapsed;
                model.pass(elapsed as f64, half_life as f64);
                model.rate = rate as f64;
                ours.change(At(at), Millis(half_life), |_| rate);
                let error = (ours.used as f64 - model.used).abs();
                prop_assert!(error <= model.used * 1e-5 + 200_000.0, "{} and {}", ours.used, model.used);
            }
        }
    }

    #[test]
    fn half_is_left_after_a_half_life() {
        let used = Decayed { used: 1 << 40, rate: 0, at: At(0) };
        assert_eq!(used.used(At(1000), Millis(1000)), 1 << 39);
        assert_eq!(used.used(At(3000), Millis(1000)), 1 << 37);
        assert_eq!(used.used(At(100_000), Millis(1000)), 0);
        assert_eq!(used.used(At(0), Millis(1000)), 1 << 40);
    }
}
