//! Sharpening: the histogram deconvolved by a Gaussian, and the map of values that follows from it.

use super::BiasCorrection;

/// A map from values of the logarithm to the values they most probably had without bias.
pub(super) struct Sharpening {
    low: f64,
    slope: f64,
    map: Vec<f64>,
}

impl Sharpening {
    /// Returns the map that the histogram of the values gives, or nothing where they are all one.
    pub(super) fn of(values: &[f64], parameters: &BiasCorrection) -> Option<Self> {
        let bins = parameters.bins;
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        let slope = (high - low) / (bins - 1) as f64;
        if !(slope > 0.0 && slope.is_finite()) {
            return None;
        }
        // Room on both sides, so that the ends of the circle do not meet.
        let length = 2 * bins.next_power_of_two();
        let offset = (length - bins) / 2;
        let mut histogram = Spectrum::zero(length);
        for value in values {
            let place = (value - low) / slope;
            let bin = (place as usize).min(bins - 1);
            let share = place - bin as f64;
            histogram.real[offset + bin] += 1.0 - share;
            if bin + 1 < bins {
                histogram.real[offset + bin + 1] += share;
            }
        }
        let gaussian = gaussian(length, parameters.width / slope).transformed();
        let mut original = histogram.transformed();
        original.scale(|n| gaussian.real[n] / (gaussian.real[n].powi(2) + parameters.noise));
        let original = original.inverse().real.into_iter().map(|value| value.max(0.0));
        let mut denominator = Spectrum::real(original.collect());
        let mut numerator = Spectrum::real(denominator.real.clone());
        numerator.scale(|n| low + (n as f64 - offset as f64) * slope);
        let blurred = |mut spectrum: Spectrum| {
            spectrum = spectrum.transformed();
            spectrum.scale(|n| gaussian.real[n]);
            spectrum.inverse().real
        };
        denominator = Spectrum::real(blurred(denominator));
        let numerator = blurred(numerator);
        let map = numerator.iter().zip(&denominator.real);
        let map = map.map(|(above, below)| if *below == 0.0 { 0.0 } else { above / below });
        Some(Self { low, slope, map: map.skip(offset).take(bins).collect() })
    }

    /// Returns the sharpened value.
    pub(super) fn apply(&self, value: f64) -> f64 {
        let place = (value - self.low) / self.slope;
        let bin = place as usize;
        match (self.map.get(bin), self.map.get(bin + 1)) {
            (Some(below), Some(above)) => below + (above - below) * (place - bin as f64),
            _ => self.map[self.map.len() - 1],
        }
    }
}

/// Returns a Gaussian around 0 on a circle, of this full width at half maximum in bins.
fn gaussian(length: usize, width: f64) -> Spectrum {
    let factor = 4.0 * std::f64::consts::LN_2 / (width * width);
    let scale = 2.0 * (std::f64::consts::LN_2 / std::f64::consts::PI).sqrt() / width;
    let at = |n: usize| n.min(length - n) as f64;
    Spectrum::real((0..length).map(|n| scale * (-at(n).powi(2) * factor).exp()).collect())
}

/// Complex numbers, a power of two of them.
struct Spectrum {
    real: Vec<f64>,
    imaginary: Vec<f64>,
}

impl Spectrum {
    fn zero(length: usize) -> Self {
        Self::real(vec![0.0; length])
    }

    fn real(real: Vec<f64>) -> Self {
        Self { imaginary: vec![0.0; real.len()], real }
    }

    fn scale(&mut self, by: impl Fn(usize) -> f64) {
        let pairs = self.real.iter_mut().zip(&mut self.imaginary).enumerate();
        pairs.for_each(|(n, (real, imaginary))| {
            *real *= by(n);
            *imaginary *= by(n);
        });
    }

    /// Returns the Fourier transform (Cooley & Tukey 1965, in place over a bit-reversed order).
    fn transformed(mut self) -> Self {
        let length = self.real.len();
        let bits = length.trailing_zeros();
        for n in 0..length {
            let other = n.reverse_bits() >> (usize::BITS - bits);
            if n < other {
                self.real.swap(n, other);
                self.imaginary.swap(n, other);
            }
        }
        let mut half = 1;
        while half < length {
            for start in (0..length).step_by(2 * half) {
                for k in 0..half {
                    let angle = -std::f64::consts::PI * k as f64 / half as f64;
                    let (sin, cos) = angle.sin_cos();
                    let (a, b) = (start + k, start + k + half);
                    let real = self.real[b] * cos - self.imaginary[b] * sin;
                    let imaginary = self.real[b] * sin + self.imaginary[b] * cos;
                    self.real[b] = self.real[a] - real;
                    self.imaginary[b] = self.imaginary[a] - imaginary;
                    self.real[a] += real;
                    self.imaginary[a] += imaginary;
                }
            }
            half *= 2;
        }
        self
    }

    /// Returns the inverse Fourier transform.
    fn inverse(mut self) -> Self {
        self.imaginary.iter_mut().for_each(|value| *value = -*value);
        let length = self.real.len() as f64;
        let mut back = self.transformed();
        back.real.iter_mut().for_each(|value| *value /= length);
        back.imaginary.iter_mut().for_each(|value| *value /= -length);
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_the_sum_it_stands_for() {
        let values: Vec<f64> = (0..16).map(|n| f64::from((n * 5) % 7)).collect();
        let found = Spectrum::real(values.clone()).transformed();
        for frequency in 0..16 {
            let angle = |n: usize| -std::f64::consts::TAU * (frequency * n) as f64 / 16.0;
            let real: f64 = values.iter().enumerate().map(|(n, v)| v * angle(n).cos()).sum();
            let imaginary: f64 = values.iter().enumerate().map(|(n, v)| v * angle(n).sin()).sum();
            assert!((found.real[frequency] - real).abs() < 1e-9);
            assert!((found.imaginary[frequency] - imaginary).abs() < 1e-9);
        }
        let back = found.inverse();
        assert!(values.iter().zip(&back.real).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn blurred_peaks_are_drawn_together() {
        let parameters = BiasCorrection::default();
        // Two heaps around 1 and 2, each as wide as the filter takes for bias.
        let values: Vec<f64> = (0..2000)
            .map(|k| {
                let spread = f64::from(k % 101) / 100.0 - 0.5;
                f64::from(1 + k % 2) + 0.12 * spread
            })
            .collect();
        let sharpen = Sharpening::of(&values, &parameters).unwrap();
        for value in [0.95, 1.0, 1.05] {
            assert!((sharpen.apply(value) - 1.0).abs() < (value - 1.0f64).abs() / 2.0 + 0.01);
        }
        assert!(Sharpening::of(&[1.0; 5], &parameters).is_none());
    }
}
