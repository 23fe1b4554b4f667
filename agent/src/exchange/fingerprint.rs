//! A data set's fingerprint as nnU-Net takes it (Isensee et al., 2021): shapes after the crop to
//! what is not zero, spacings, and the intensities of what is marked.

use gantry_imaging::Image;
use gantry_library::Library;
use serde::Serialize;

use super::{Choice, Chosen, Outcome, volumes};

/// Marked voxels of one sample whose intensities are looked at, evenly over all of them: nnU-Net
/// draws 10,000 of each case.
const VOXELS_PER_SAMPLE: usize = 10_000;

/// Intensities of marked voxels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Intensities {
    /// The greatest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The 0.5th percentile.
    pub percentile_00_5: f64,
    /// The 99.5th percentile.
    pub percentile_99_5: f64,
    /// The standard deviation.
    pub std: f64,
}

/// The fingerprint, in the names of nnU-Net's `dataset_fingerprint.json`. Axes are z, y, x there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetFingerprint {
    /// By channel, of which samples have one.
    pub foreground_intensity_properties_per_channel: std::collections::BTreeMap<u32, Intensities>,
    /// The median of what the crop leaves, as a part of the whole.
    pub median_relative_size_after_cropping: f64,
    /// Voxels along z, y, x after the crop.
    pub shapes_after_crop: Vec<[usize; 3]>,
    /// Voxel pitch along z, y, x in mm.
    pub spacings: Vec<[f64; 3]>,
}

/// Reads every sample of a label.
///
/// # Errors
/// Where there is none, or one cannot be read.
pub fn dataset_fingerprint(library: &Library, choice: &Choice) -> Outcome<DatasetFingerprint> {
    let chosen = Chosen::of(library, choice)?;
    let (mut shapes, mut spacings, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    let mut marked = Vec::new();
    for sample in &chosen.samples {
        let (image, mask) = volumes(library, sample)?;
        let shape = shape_after_crop(&image);
        let size: usize = shape.iter().product();
        parts.push(size as f64 / image.geometry.voxels().max(1) as f64);
        shapes.push(shape);
        let [x, y, z] = image.geometry.spacing_mm;
        spacings.push([z, y, x]);
        let of_sample: Vec<f64> = image
            .voxels
            .iter()
            .zip(&mask.voxels)
            .filter(|(value, label)| **label != 0 && value.is_finite())
            .map(|(value, _)| f64::from(*value))
            .collect();
        let step = of_sample.len().div_ceil(VOXELS_PER_SAMPLE).max(1);
        marked.extend(of_sample.into_iter().step_by(step));
    }
    Ok(DatasetFingerprint {
        foreground_intensity_properties_per_channel: [(0, intensities(marked))].into(),
        median_relative_size_after_cropping: percentile(&mut parts, 0.5),
        shapes_after_crop: shapes,
        spacings,
    })
}

/// Voxels along z, y, x of the box around what is not zero; of all where all is zero.
fn shape_after_crop(image: &Image) -> [usize; 3] {
    let (mut least, mut most) = (image.geometry.size, [0; 3]);
    for (index, _) in image.voxels.iter().enumerate().filter(|(_, value)| **value != 0.0) {
        let place = image.geometry.position(index);
        for axis in 0..3 {
            least[axis] = least[axis].min(place[axis]);
            most[axis] = most[axis].max(place[axis] + 1);
        }
    }
    let side = |axis: usize| match most[axis].checked_sub(least[axis]) {
        Some(side) if side > 0 => side,
        _ => image.geometry.size[axis],
    };
    [side(2), side(1), side(0)]
}

fn intensities(mut values: Vec<f64>) -> Intensities {
    if values.is_empty() {
        return Intensities::default();
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    Intensities {
        mean,
        std: variance.sqrt(),
        min: percentile(&mut values, 0.0),
        percentile_00_5: percentile(&mut values, 0.005),
        median: percentile(&mut values, 0.5),
        percentile_99_5: percentile(&mut values, 0.995),
        max: percentile(&mut values, 1.0),
    }
}

/// A percentile with linear interpolation, as `NumPy` has it by default.
fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let place = part * last as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use gantry_imaging::Geometry;

    use super::*;

    #[test]
    fn numbers_are_those_of_numpy() {
        let mut values = vec![4.0, 1.0, 3.0, 2.0];
        for (part, expected) in [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.1, 1.3)] {
            assert!((percentile(&mut values, part) - expected).abs() < 1e-12, "{part}");
        }
        let found = intensities(values);
        assert!((found.mean - 2.5).abs() < 1e-12 && (found.std - 1.25_f64.sqrt()).abs() < 1e-12);
        assert_eq!(intensities(Vec::new()), Intensities::default());
    }

    #[test]
    fn the_crop_is_around_what_is_not_zero() {
        let mut image = Image::filled(Geometry::unit([5, 4, 3]), 0.0);
        assert_eq!(shape_after_crop(&image), [3, 4, 5]);
        for place in [[1, 1, 1], [3, 2, 1]] {
            let index = image.geometry.index(place[0], place[1], place[2]);
            image.voxels[index] = -1.0;
        }
        assert_eq!(shape_after_crop(&image), [1, 2, 3]);
    }
}
