//! Thresholds: given by hand, or Otsu's.

use serde::{Deserialize, Serialize};

use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// The most bins of a histogram; the choice of a threshold needs no finer one.
pub const BINS_MAX: usize = 65_536;

/// Returns the voxels with `from` ≤ value < `below`.
#[must_use]
pub fn threshold(image: &Image, from: f32, below: f32) -> Mask {
    // Without a branch between the two, so that vectors can do it.
    image.each(move |value| u8::from(value >= from) & u8::from(value < below))
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
    let histogram = Histogram::of(image, parameters, "otsu")?;
    let best = best_split(&histogram.counts).ok_or_else(|| one_bin("otsu"))?;
    Ok(histogram.upper_edge(best))
}

/// The most bins that [`multi_otsu`] takes; its time grows with their square.
pub const MULTI_BINS_MAX: usize = 2048;
/// The most thresholds of [`multi_otsu`].
pub const MULTI_THRESHOLDS_MAX: usize = 16;

/// Returns `count` thresholds that make the variance between the `count` + 1 classes largest, after
/// Liao, Chen & Chung, "A fast algorithm for multilevel thresholding", J. Inf. Sci. Eng. 17, 2001:
/// the upper edges of bins, as ITK's `OtsuMultipleThresholdsImageFilter` gives them. Of equals, the
/// lowest. No class is empty.
pub fn multi_otsu(
    image: &Image,
    parameters: &Otsu,
    count: usize,
) -> Result<Vec<f64>, ImagingError> {
    const NAME: &str = "multi_otsu";
    let bins = parameters.bins;
    if !(1..=MULTI_THRESHOLDS_MAX).contains(&count) || bins > MULTI_BINS_MAX {
        return Err(ImagingError::Parameter {
            operation: NAME,
            problem: format!(
                "{count} thresholds over {bins} bins; 1 to {MULTI_THRESHOLDS_MAX} thresholds over \
                 at most {MULTI_BINS_MAX} bins are possible"
            ),
        });
    }
    let histogram = Histogram::of(image, parameters, NAME)?;
    let mut sums = vec![(0.0, 0.0)];
    for (bin, &voxels) in histogram.counts.iter().enumerate() {
        let (weight, moment) = sums[bin];
        sums.push((weight + voxels as f64, moment + bin as f64 * voxels as f64));
    }
    // The share of a class of the bins from `from` up to but not including `to`.
    let class = |from: usize, to: usize| {
        let weight = sums[to].0 - sums[from].0;
        let moment = sums[to].1 - sums[from].1;
        if weight > 0.0 { moment * moment / weight } else { f64::NEG_INFINITY }
    };
    // The best that classes from a bin on can reach, with the last class alone at first.
    let mut reach: Vec<f64> = (0..bins).map(|from| class(from, bins)).collect();
    let mut ends: Vec<Vec<usize>> = Vec::new();
    for _ in 0..count {
        let best = |from: usize| {
            let share = |to: usize| class(from, to) + reach[to];
            (from + 1..bins).map(|to| (share(to), to)).fold(
                (f64::NEG_INFINITY, bins),
                |best, next| {
                    if next.0 > best.0 { next } else { best }
                },
            )
        };
        let found: Vec<(f64, usize)> = (0..bins).map(best).collect();
        ends.push(found.iter().map(|&(_, to)| to).collect());
        reach = found.iter().map(|&(share, _)| share).collect();
    }
    let mut from = 0;
    let mut thresholds = Vec::with_capacity(count);
    for ends in ends.iter().rev() {
        from = ends[from];
        if from == bins {
            return Err(one_bin(NAME));
        }
        thresholds.push(histogram.upper_edge(from - 1));
    }
    Ok(thresholds)
}

/// Returns the number of thresholds that each value is not below: labels from dark to bright. What
/// is not a number has label 0.
#[must_use]
pub fn classes(image: &Image, thresholds: &[f64]) -> Mask {
    image.each(|value| {
        thresholds.iter().map(|&threshold| u8::from(f64::from(value) >= threshold)).sum()
    })
}

fn one_bin(operation: &'static str) -> ImagingError {
    let problem = "too few bins hold voxels to part them; ask for more bins".to_owned();
    ImagingError::Parameter { operation, problem }
}

/// The counts of an image's values.
struct Histogram {
    low: f64,
    bin_width: f64,
    counts: Vec<u64>,
}

impl Histogram {
    fn of(image: &Image, parameters: &Otsu, operation: &'static str) -> Result<Self, ImagingError> {
        let problem = |problem: String| ImagingError::Parameter { operation, problem };
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
                "values from {low} to {high} leave nothing to part; a constant image has no \
                 threshold"
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
        Ok(Self { low, bin_width, counts })
    }

    fn upper_edge(&self, bin: usize) -> f64 {
        self.low + (bin + 1) as f64 * self.bin_width
    }
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
    fn three_heaps_are_parted_by_two_thresholds() {
        let mut values = vec![f32::NAN];
        for (heap, count) in [(0.0, 50), (100.0, 20), (300.0, 30)] {
            values.extend((0..count).map(|k| heap + (k % 5) as f32));
        }
        let image = image(&values);
        let found = multi_otsu(&image, &Otsu::default(), 2).unwrap();
        assert!(found[0] > 4.0 && found[0] < 100.0 && found[1] > 104.0 && found[1] < 300.0);
        let labels = classes(&image, &found);
        assert_eq!([0, 1, 2].map(|label| labels.count_of(label)), [51, 20, 30]);
        assert_eq!(
            multi_otsu(&image, &Otsu::default(), 1).unwrap()[0],
            otsu(&image, &Otsu::default()).unwrap()
        );
        assert!(multi_otsu(&image, &Otsu::default(), 0).is_err());
        assert!(multi_otsu(&image, &Otsu { bins: 3, range: None }, 5).is_err());
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
