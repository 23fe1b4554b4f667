//! What does not change within a scan of JPEG-LS: how large samples and errors are, and which gradients are
//! alike (T.87 annex C.2.4 and A.2).

use super::super::{damaged, short, unsupported};
use crate::dicom::refusal::Refusal;

/// What a stream says of its coding, 0 where it says nothing (T.87 C.2.4.1).
#[derive(Clone, Copy, Default)]
pub(super) struct Preset {
    most: i32,
    thresholds: [i32; 3],
    reset: i32,
}

impl Preset {
    pub(super) fn read(&mut self, data: &[u8]) -> Result<(), Refusal> {
        match data.first() {
            Some(1) if data.len() == 11 => {
                let number = |n: usize| i32::from(short(data, 1 + 2 * n));
                *self = Self {
                    most: number(0),
                    thresholds: [number(1), number(2), number(3)],
                    reset: number(4),
                };
                Ok(())
            }
            Some(2 | 3) => Err(unsupported("JPEG-LS with a table of values")),
            Some(4) => Err(unsupported("JPEG-LS of over 65535 rows or columns")),
            _ => Err(damaged("a segment of presets is none")),
        }
    }
}

/// What does not change within a scan.
pub(super) struct Coding {
    /// The greatest sample.
    pub(super) most: i32,
    /// How far a sample may be off.
    pub(super) near: i32,
    /// The distance of two values that are told apart.
    pub(super) step: i32,
    /// How many errors there are, in steps.
    pub(super) range: i32,
    /// Bits of an error.
    pub(super) error_bits: u32,
    /// The longest code.
    pub(super) limit: u32,
    pub(super) thresholds: [i32; 3],
    pub(super) reset: i32,
}

impl Coding {
    pub(super) fn new(bits: u32, near: i32, preset: &Preset) -> Result<Self, Refusal> {
        let most = if preset.most == 0 { (1 << bits) - 1 } else { preset.most };
        if most >= 1 << bits || near > 255.min(most / 2) {
            return Err(damaged("their greatest value or their tolerance is none"));
        }
        let usual = thresholds(most, near);
        let mut given = preset.thresholds;
        for (given, usual) in given.iter_mut().zip(usual) {
            if *given == 0 {
                *given = usual;
            }
        }
        let ordered = near < given[0] && given[0] <= given[1] && given[1] <= given[2];
        let reset = if preset.reset == 0 { 64 } else { preset.reset };
        if !ordered || given[2] > most.max(usual[2]) || reset < 3 {
            return Err(damaged("their thresholds are none"));
        }
        let step = 2 * near + 1;
        let range = (most + 2 * near) / step + 1;
        let bits_of = |values: i32| 32 - (values - 1).leading_zeros();
        let sample_bits = bits_of(most + 1).max(2);
        Ok(Self {
            most,
            near,
            step,
            range,
            error_bits: bits_of(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
            thresholds: given,
            reset,
        })
    }

    /// A gradient as one of nine (T.87 A.3.3).
    pub(super) fn quantised(&self, gradient: i32) -> i32 {
        let [first, second, third] = self.thresholds;
        let size = match gradient.abs() {
            size if size <= self.near => 0,
            size if size < first => 1,
            size if size < second => 2,
            size if size < third => 3,
            _ => 4,
        };
        if gradient < 0 { -size } else { size }
    }

    /// A prediction and its error, in steps, as a sample (T.87 A.4.4, A.4.5).
    pub(super) fn sample(&self, predicted: i32, error: i32) -> u16 {
        let mut sample = predicted + error * self.step;
        if sample < -self.near {
            sample += self.range * self.step;
        } else if sample > self.most + self.near {
            sample -= self.range * self.step;
        }
        sample.clamp(0, self.most) as u16
    }
}

/// The thresholds of gradients where a stream gives none (T.87 C.2.4.1.1.1).
fn thresholds(most: i32, near: i32) -> [i32; 3] {
    let clamped =
        |value: i32, least: i32| if value > most || value < least { least } else { value };
    let basic = [3, 7, 21];
    let tolerance = [3 * near, 5 * near, 7 * near];
    let mut least = near + 1;
    let mut found = [0; 3];
    for n in 0..3 {
        let value = if most >= 128 {
            let factor = (most.min(4095) + 128) >> 8;
            factor * (basic[n] - 2 - n as i32) + 2 + n as i32 + tolerance[n]
        } else {
            let factor = 256 / (most + 1);
            (2 + n as i32).max(basic[n] / factor + tolerance[n])
        };
        found[n] = clamped(value, least);
        least = found[n];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_thresholds_are_those_of_the_standard() {
        for (bits, near, expected) in [
            (8, 0, [3, 7, 21]),
            (8, 2, [9, 17, 35]),
            (12, 0, [18, 67, 276]),
            (16, 0, [18, 67, 276]),
            (4, 0, [2, 3, 4]),
        ] {
            assert_eq!(thresholds((1 << bits) - 1, near), expected, "{bits} bits, {near}");
        }
    }
}
