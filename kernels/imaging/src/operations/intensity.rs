//! Intensities: windows for people, normalisation for networks.

use serde::{Deserialize, Serialize};

use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// A window on the intensities, as DICOM has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// The window centre, in the image's units.
    pub centre: f64,
    /// The window width, at least 1.
    pub width: f64,
}

impl Window {
    /// For lungs in CT.
    pub const LUNG: Self = Self { centre: -600.0, width: 1500.0 };
    /// For soft tissue in CT.
    pub const SOFT_TISSUE: Self = Self { centre: 40.0, width: 400.0 };
    /// For bone in CT.
    pub const BONE: Self = Self { centre: 300.0, width: 1500.0 };
    /// For the mediastinum in CT.
    pub const MEDIASTINUM: Self = Self { centre: 50.0, width: 350.0 };
    /// For the liver in CT.
    pub const LIVER: Self = Self { centre: 60.0, width: 160.0 };
    /// For the brain in CT.
    pub const BRAIN: Self = Self { centre: 40.0, width: 80.0 };
    /// For early signs of stroke in CT.
    pub const STROKE: Self = Self { centre: 32.0, width: 8.0 };
    /// For vessels in CT with contrast.
    pub const ANGIOGRAPHY: Self = Self { centre: 300.0, width: 600.0 };

    /// The presets by their names in files and on the command line.
    pub const PRESETS: [(&'static str, Self); 8] = [
        ("lung", Self::LUNG),
        ("soft_tissue", Self::SOFT_TISSUE),
        ("bone", Self::BONE),
        ("mediastinum", Self::MEDIASTINUM),
        ("liver", Self::LIVER),
        ("brain", Self::BRAIN),
        ("stroke", Self::STROKE),
        ("angiography", Self::ANGIOGRAPHY),
    ];

    /// Returns the displayed share, 0 to 1, of one value: the LINEAR function of PS3.3
    /// C.11.2.1.2.1.
    #[must_use]
    #[inline]
    pub fn apply(&self, value: f32) -> f32 {
        let (centre, width) = (self.centre - 0.5, self.width - 1.0);
        let value = f64::from(value);
        // All of it for every value, then a choice: that vectors can do.
        let share = ((value - centre) / width + 0.5) as f32;
        let share = if value > centre + width / 2.0 { 1.0 } else { share };
        if value <= centre - width / 2.0 { 0.0 } else { share }
    }
}

/// Returns the image seen through a window: 0 below, 1 above, linear between.
pub fn window(image: &Image, window: &Window) -> Result<Image, ImagingError> {
    if !(window.width >= 1.0 && window.width.is_finite() && window.centre.is_finite()) {
        return Err(problem(
            "window",
            format!(
                "width is {} and centre {}; a width of at least 1 is needed",
                window.width, window.centre
            ),
        ));
    }
    let window = *window;
    Ok(image.each(move |value| window.apply(value)))
}

/// Returns the image with every value times `slope` plus `intercept`: the modality transformation of
/// PS3.3 C.11.1.1.2, from stored values to Hounsfield units, or any other change of unit.
pub fn rescale(image: &Image, slope: f64, intercept: f64) -> Result<Image, ImagingError> {
    if !(slope.is_finite() && intercept.is_finite()) {
        let problem = format!("slope is {slope} and intercept {intercept}; both must be numbers");
        return Err(self::problem("rescale", problem));
    }
    Ok(image.each(move |value| (f64::from(value) * slope + intercept) as f32))
}

/// Returns 1 / (1 + exp(−(value − `centre`) / `width`)): 0 far below the centre, 1 far above; the
/// other way round where the width is negative. ITK's `SigmoidImageFilter`, which turns a gradient
/// into a speed for fast marching.
pub fn sigmoid(image: &Image, centre: f64, width: f64) -> Result<Image, ImagingError> {
    if !(centre.is_finite() && width.is_finite() && width != 0.0) {
        let problem = format!("centre is {centre} and width {width}; a width but 0 is needed");
        return Err(self::problem("sigmoid", problem));
    }
    Ok(image.each(|value| (1.0 / (1.0 + (-(f64::from(value) - centre) / width).exp())) as f32))
}

/// Returns the image with every value moved into `low` ..= `high`; values that are not numbers stay.
pub fn clip(image: &Image, low: f32, high: f32) -> Result<Image, ImagingError> {
    if low.is_nan() || high.is_nan() || low > high {
        return Err(problem(
            "clip",
            format!("low is {low} and high {high}; low <= high is needed"),
        ));
    }
    Ok(image.each(move |value| value.clamp(low, high)))
}

/// Returns the image less its mean, divided by its standard deviation: nnU-Net's rule for MR.
///
/// Mean and deviation are those of the finite values, within the mask where one is given. A
/// deviation below 10⁻⁸ counts as 10⁻⁸, so that a constant image becomes 0.
pub fn z_score(image: &Image, within: Option<&Mask>) -> Result<Image, ImagingError> {
    if let Some(mask) = within {
        image.require_same_grid(mask)?;
    }
    let inside = |index: usize| within.is_none_or(|mask| mask.voxels[index] != 0);
    let values: Vec<f32> = image
        .voxels
        .iter()
        .enumerate()
        .filter(|&(index, value)| value.is_finite() && inside(index))
        .map(|(_, &value)| value)
        .collect();
    let Some((mean, deviation)) = mean_and_deviation(&values) else { return Ok(image.clone()) };
    Ok(normalise(image, mean, deviation))
}

/// The statistics of the foreground of a whole training set, from which nnU-Net's rule for CT
/// normalises every image alike: Hounsfield units mean the same in each of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CtNormalisation {
    /// The half-percent quantile; lower values are raised to it.
    pub low: f64,
    /// The 99.5-percent quantile; higher values are lowered to it.
    pub high: f64,
    /// The mean, subtracted after.
    pub mean: f64,
    /// The standard deviation, divided by at the end.
    pub deviation: f64,
}

impl CtNormalisation {
    /// Returns the statistics of the foreground of images, or nothing where no image has any. At
    /// most about `samples_max` voxels are looked at, evenly spread.
    #[must_use]
    pub fn of(images: &[(&Image, &Mask)], samples_max: usize) -> Option<Self> {
        let voxels = images.iter().map(|(_, mask)| mask.count()).sum();
        let mut foreground = Foreground::new(voxels, samples_max);
        for (image, mask) in images {
            foreground.add(&image.voxels, &mask.voxels);
        }
        foreground.normalisation()
    }
}

/// The foreground of a training set whose images are looked at one after the other, or piece by piece:
/// the same numbers as of all at once.
#[derive(Debug)]
pub struct Foreground {
    /// Every so-many-th voxel is looked at.
    step: usize,
    seen: usize,
    values: Vec<f32>,
}

impl Foreground {
    /// A foreground of so many voxels in all, of which at most about `samples_max` are looked at.
    #[must_use]
    pub fn new(voxels: usize, samples_max: usize) -> Self {
        Self { step: voxels.div_ceil(samples_max.max(1)).max(1), seen: 0, values: Vec::new() }
    }

    /// Looks at the next voxels, those whose label is not 0.
    pub fn add(&mut self, voxels: &[f32], labels: &[u8]) {
        let marked = |&(value, &label): &(&f32, &u8)| label != 0 && value.is_finite();
        for (value, _) in voxels.iter().zip(labels).filter(marked) {
            if self.seen.is_multiple_of(self.step) {
                self.values.push(*value);
            }
            self.seen += 1;
        }
    }

    /// The statistics; nothing where nothing was marked.
    #[must_use]
    pub fn normalisation(mut self) -> Option<CtNormalisation> {
        let values = &mut self.values;
        values.sort_by(f32::total_cmp);
        let (mean, deviation) = mean_and_deviation(values)?;
        let quantile = |share: f64| f64::from(values[(share * (values.len() - 1) as f64) as usize]);
        let (low, high) = (quantile(0.005), quantile(0.995));
        Some(CtNormalisation { low, high, mean, deviation })
    }
}

/// Returns the image normalised by nnU-Net's rule for CT: clipped to the quantiles, less the mean,
/// divided by the deviation.
pub fn normalise_ct(image: &Image, by: &CtNormalisation) -> Result<Image, ImagingError> {
    let clipped = clip(image, by.low as f32, by.high as f32)?;
    Ok(normalise(&clipped, by.mean, by.deviation))
}

fn normalise(image: &Image, mean: f64, deviation: f64) -> Image {
    let deviation = deviation.max(1e-8);
    image.each(move |value| ((f64::from(value) - mean) / deviation) as f32)
}

fn mean_and_deviation(values: &[f32]) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance =
        values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    Some((mean, variance.sqrt()))
}

fn problem(operation: &'static str, problem: String) -> ImagingError {
    ImagingError::Parameter { operation, problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    fn image(values: &[f32]) -> Image {
        Image::new(Geometry::unit([values.len(), 1, 1]), values.to_vec()).unwrap()
    }

    #[test]
    fn windows_as_the_standard_has_them() {
        // The examples of PS3.3 C.11.2.1.2.1 with output 0 to 255: centre 2048, width 4096.
        let wide = Window { centre: 2048.0, width: 4096.0 };
        for (value, shown) in [(0.0, 0.0), (4095.0, 1.0), (2047.5, 0.5), (-5.0, 0.0), (5000.0, 1.0)]
        {
            assert!((wide.apply(value) - shown).abs() < 1e-6, "{value}");
        }
        // Centre 0, width 1 is a step: 0 up to -0.5, 1 above.
        let step = Window { centre: 0.0, width: 1.0 };
        assert_eq!((step.apply(-0.5), step.apply(0.0)), (0.0, 1.0));
        assert!(window(&image(&[1.0]), &Window { centre: 0.0, width: 0.5 }).is_err());
    }

    #[test]
    fn rescales_and_bends() {
        assert_eq!(rescale(&image(&[0.0, 1024.0]), 1.0, -1024.0).unwrap().voxels, [-1024.0, 0.0]);
        let bent = sigmoid(&image(&[-90.0, 10.0, 110.0]), 10.0, -2.0).unwrap().voxels;
        assert!(bent[0] > 0.999 && (bent[1] - 0.5).abs() < 1e-6 && bent[2] < 0.001, "{bent:?}");
        assert!(rescale(&image(&[1.0]), f64::NAN, 0.0).is_err());
        assert!(sigmoid(&image(&[1.0]), 0.0, 0.0).is_err());
    }

    #[test]
    fn normalises_to_mean_zero_and_deviation_one() {
        let scored = z_score(&image(&[1.0, 2.0, 3.0, 4.0, f32::NAN]), None).unwrap();
        let (mean, deviation) = mean_and_deviation(&scored.voxels[..4]).unwrap();
        assert!(mean.abs() < 1e-6 && (deviation - 1.0).abs() < 1e-6);
        assert_eq!(z_score(&image(&[7.0; 3]), None).unwrap().voxels, [0.0; 3]);
        let masked = image(&[0.0, 2.0, 4.0]);
        let mask = masked.map(|&value| u8::from(value > 0.0));
        assert_eq!(z_score(&masked, Some(&mask)).unwrap().voxels, [-3.0, -1.0, 1.0]);
    }

    #[test]
    fn the_ct_rule_takes_its_numbers_from_the_foreground() {
        let values: Vec<f32> = (0..=1000).map(|k| k as f32).collect();
        let image = image(&values);
        let mask = image.map(|_| 1);
        let by = CtNormalisation::of(&[(&image, &mask)], usize::MAX).unwrap();
        assert_eq!((by.low, by.high, by.mean), (5.0, 995.0, 500.0));
        let mut pieces = Foreground::new(1001, 100);
        for (voxels, labels) in values.chunks(7).zip(mask.voxels.chunks(7)) {
            pieces.add(voxels, labels);
        }
        assert_eq!(pieces.normalisation(), CtNormalisation::of(&[(&image, &mask)], 100));
        let normalised = normalise_ct(&image, &by).unwrap();
        assert_eq!(normalised.voxels[0], normalised.voxels[5]);
        assert_eq!(normalised.voxels[500], 0.0);
        assert_eq!(CtNormalisation::of(&[(&image, &mask.map(|_| 0))], 10), None);
    }
}
