//! Thresholds: given by hand, or Otsu's.

use serde::{Deserialize, Serialize};

use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// The most bins of a histogram; the choice of a threshold needs no finer one.
pub const BINS_MAX: usize = 65_536;

/// Returns the voxels with `from` ≤ value < `below`.
#[must_use]
pub fn threshold(image: &Image, from: f32, below: f32) -> Mask {
    image.map(|&value| u8::from(value >= from && value < below))
}

/// How to find Otsu's threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Otsu {
    /// The number of bins of the histogram. Default: 128, as ITK.
    pub bins: usize,
    /// The range of the histogram. Default: from the least to the greatest finite value, widened
    /// at the top by a hundredth of a bin, as ITK does for every pixel type wider than 8 bits. (For
    /// 8 bits ITK takes −0.5 to 255.5.)
    pub range: Option<(f64, f64)>,
}

impl Default for Otsu {
    fn default() -> Self {
        Self { bins: 128, range: None }
    }
}

/// Returns the threshold after Otsu (1979): the upper edge of the bin that, taken with all bins
/// below, makes the variance between the two classes largest. Of equals, the lowest.
///
/// An image without two different finite values has no threshold; that is an error.
pub fn otsu(image: &Image, parameters: &Otsu) -> Result<f64, ImagingError> {
    let problem = |problem: String| ImagingError::Parameter { operation: "otsu", problem };
    let bins = parameters.bins;
    if !(2..=BINS_MAX).contains(&bins) {
        return Err(problem(format!("bins is {bins}; it must lie between 2 and {BINS_MAX}")));
    }
    let whole = || finite_range(image).map(|(l, h)| (l, h + (h - l) / bins as f64 / 100.0));
    let (low, high) = parameters.range.or_else(whole).ok_or_else(|| {
        problem("the image has no finite voxel, so no threshold parts it".to_owned())
    })?;
    if !(low < high && low.is_finite() && high.is_finite()) {
        return Err(problem(format!(
            "values from {low} to {high} leave nothing to part; a constant image has no threshold"
        )));
    }
    let bin_width = (high - low) / bins as f64;
    let mut counts = vec![0u64; bins];
    for &value in &image.voxels {
        let value = f64::from(value);
        if value >= low && value <= high {
            counts[(((value - low) / bin_width) as usize).min(bins - 1)] += 1;
        }
    }
    let best = best_split(&counts)
        .ok_or_else(|| problem("all voxels lie in one bin; ask for more bins".to_owned()))?;
    Ok(low + (best + 1) as f64 * bin_width)
}

/// Returns the bin that ends the lower class.
fn best_split(counts: &[u64]) -> Option<usize> {
    let total: u64 = counts.iter().sum();
    let moment: f64 = counts.iter().enumerate().map(|(bin, &n)| bin as f64 * n as f64).sum();
    let (mut below, mut moment_below) = (0u64, 0.0);
    let mut best: Option<(usize, f64)> = None;
    for (bin, &count) in counts.iter().enumerate().take(counts.len() - 1) {
        below += count;
        moment_below += bin as f64 * count as f64;
        let above = total - below;
        if below == 0 || above == 0 {
            continue;
        }
        let difference = moment_below / below as f64 - (moment - moment_below) / above as f64;
        let variance = below as f64 * above as f64 * difference * difference;
        if best.is_none_or(|(_, most)| variance > most) {
            best = Some((bin, variance));
        }
    }
    best.map(|(bin, _)| bin)
}

/// Returns the least and the greatest finite value of an image, if it has one.
pub(super) fn finite_range(image: &Image) -> Option<(f64, f64)> {
    let finite = || image.voxels.iter().copied().filter(|value| value.is_finite());
    let low = finite().reduce(f32::min)?;
    let high = finite().reduce(f32::max)?;
    Some((f64::from(low), f64::from(high)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    fn image(values: &[f32]) -> Image {
        Image::new(Geometry::unit([values.len(), 1, 1]), values.to_vec()).unwrap()
    }

    #[test]
    fn parts_two_heaps_between_them() {
        let mut values = vec![f32::NAN];
        values.extend((0..50).map(|k| (k % 5) as f32));
        values.extend((0..20).map(|k| 100.0 + (k % 3) as f32));
        let found = otsu(&image(&values), &Otsu::default()).unwrap();
        assert!(found > 4.0 && found < 100.0, "{found}");
    }

    #[test]
    fn an_image_without_contrast_is_an_error() {
        for values in [&[][..], &[f32::NAN; 4], &[7.0; 4], &[f32::INFINITY, 1.0]] {
            assert!(otsu(&image(values), &Otsu::default()).is_err(), "{values:?}");
        }
        let wrong = Otsu { bins: 1, range: None };
        assert!(otsu(&image(&[1.0, 2.0]), &wrong).is_err());
    }

    #[test]
    fn thresholds_are_half_open_and_false_for_nan() {
        let mask = threshold(&image(&[1.0, 2.0, 3.0, f32::NAN]), 2.0, 3.0);
        assert_eq!(mask.voxels, [0, 1, 0, 0]);
    }
}
