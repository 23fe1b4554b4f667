//! Augmentation: one image and its mask, changed as another patient, scanner or position might have
//! changed them, by nnU-Net's set of changes.
//!
//! What is drawn depends on the seed alone. Turning, scaling and mirroring move image and mask
//! alike, on the same grid; the others change the image.

use serde::{Deserialize, Serialize};

use super::gaussian::{Gaussian, gaussian};
use super::neighbourhood::Space;
use super::resample;
use super::threshold::finite_range;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask};

/// How far each change may go; 0 leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// The greatest turn, around each axis for which the image is no single layer, in degrees.
    /// Default: 15.
    pub rotate_degrees: f64,
    /// The greatest change of scale, as a share. Default: 0.2.
    pub scale: f64,
    /// The probability that each axis is mirrored. Default: 0.5.
    pub mirror: f64,
    /// The greatest standard deviation of added noise, as a share of the image's range. Default:
    /// 0.05.
    pub noise: f64,
    /// The greatest standard deviation of a Gaussian, in millimetres. Default: 1.
    pub blur_mm: f64,
    /// The greatest change of brightness and of contrast, as shares. Default: 0.2.
    pub brightness: f64,
    /// The greatest change of gamma, as a share. Default: 0.3.
    pub gamma: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            rotate_degrees: 15.0,
            scale: 0.2,
            mirror: 0.5,
            noise: 0.05,
            blur_mm: 1.0,
            brightness: 0.2,
            gamma: 0.3,
        }
    }
}

/// Numbers that follow from a seed: `SplitMix64` (Steele, Lea & Flood 2014).
struct Chance(u64);

impl Chance {
    /// Returns a number of 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a number of −`most` to `most`.
    fn within(&mut self, most: f64) -> f64 {
        most * (2.0 * self.share() - 1.0)
    }

    /// Returns a number of the normal distribution (Box & Muller 1958).
    fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.share(), self.share());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// Returns image and mask changed as the seed decides, on the same grid. What comes in from beyond
/// the border has the image's least value and label 0.
pub fn augment(
    image: &Image,
    mask: &Mask,
    parameters: &Augmentation,
    seed: u64,
) -> Result<(Image, Mask), ImagingError> {
    image.require_same_grid(mask)?;
    let limits = [
        (parameters.rotate_degrees, 180.0),
        (parameters.scale, 0.9),
        (parameters.mirror, 1.0),
        (parameters.noise, 1.0),
        (parameters.blur_mm, 1000.0),
        (parameters.brightness, 0.9),
        (parameters.gamma, 0.9),
    ];
    if !limits.iter().all(|(value, most)| (0.0..=*most).contains(value)) {
        let problem = format!("{parameters:?}: a change is negative or larger than it may be");
        return Err(ImagingError::Parameter { operation: "augment", problem });
    }
    let Some((low, high)) = finite_range(image) else { return Ok((image.clone(), mask.clone())) };
    let mut chance = Chance(seed);
    let moved = moved(&image.geometry, parameters, &mut chance);
    let mut changed = resample::image_onto(image, &moved, low as f32)?;
    let mut labels = resample::mask_onto(mask, &moved)?;
    (changed.geometry, labels.geometry) = (image.geometry, image.geometry);
    let sigma_mm = parameters.blur_mm * chance.share();
    if sigma_mm > 0.0 {
        changed = gaussian(&changed, &Gaussian { sigma_mm, space: Space::Volume })?;
    }
    let contrast = 1.0 + chance.within(parameters.brightness);
    let shift = chance.within(parameters.brightness) * (high - low);
    let gamma = 1.0 + chance.within(parameters.gamma);
    let noise = parameters.noise * chance.share() * (high - low);
    let middle = f64::midpoint(low, high);
    for value in &mut changed.voxels {
        let share =
            ((f64::from(*value) - low) / (high - low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        let curved = low + share.powf(gamma) * (high - low);
        *value = ((curved - middle) * contrast + middle + shift + noise * chance.normal()) as f32;
    }
    Ok((changed, labels))
}

/// Returns a grid of the same size, turned, scaled and mirrored about its middle.
fn moved(geometry: &Geometry, parameters: &Augmentation, chance: &mut Chance) -> Geometry {
    let mut direction = geometry.direction;
    let scale = 1.0 + chance.within(parameters.scale);
    for axis in 0..3 {
        let angle = chance.within(parameters.rotate_degrees).to_radians();
        let others = [(axis + 1) % 3, (axis + 2) % 3];
        if others.iter().any(|&other| geometry.size[other] < 2) {
            continue;
        }
        let (sin, cos) = angle.sin_cos();
        let [u, v] = others.map(|other| direction[other]);
        direction[others[0]] = [0, 1, 2].map(|k| cos * u[k] + sin * v[k]);
        direction[others[1]] = [0, 1, 2].map(|k| cos * v[k] - sin * u[k]);
    }
    for unit in &mut direction {
        if chance.share() < parameters.mirror {
            *unit = unit.map(|d| -d);
        }
    }
    let spacing_mm = geometry.spacing_mm.map(|spacing| spacing * scale);
    let turned = Geometry { direction, spacing_mm, origin_mm: [0.0; 3], ..*geometry };
    let middle = geometry.size.map(|voxels| (voxels as f64 - 1.0) / 2.0);
    let (from, to) = (geometry.to_patient_mm(middle), turned.to_patient_mm(middle));
    Geometry { origin_mm: [0, 1, 2].map(|k| from[k] - to[k]), ..turned }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ball() -> (Image, Mask) {
        let geometry = Geometry::new([32, 32, 16], [1.0, 1.0, 2.0]);
        let mut image = Image::filled(geometry, -1000.0);
        for (index, value) in image.voxels.iter_mut().enumerate() {
            let [x, y, z] = geometry.position(index).map(|k| k as f64);
            let square = (x - 15.5).powi(2) + (y - 15.5).powi(2) + (2.0 * z - 15.0).powi(2);
            if square < 64.0 {
                *value = 100.0;
            }
        }
        let mask = image.map(|&value| u8::from(value > 0.0));
        (image, mask)
    }

    #[test]
    fn the_seed_decides_and_the_mask_goes_along() {
        let (image, mask) = ball();
        let default = Augmentation::default();
        let first = augment(&image, &mask, &default, 3).unwrap();
        assert_eq!(first, augment(&image, &mask, &default, 3).unwrap());
        assert_ne!(first, augment(&image, &mask, &default, 4).unwrap());
        for seed in 0..8 {
            let (changed, moved) = augment(&image, &mask, &default, seed).unwrap();
            let mean = |label: u8| {
                let of = changed.voxels.iter().zip(&moved.voxels).filter(|&(_, &l)| l == label);
                let (sum, count) =
                    of.fold((0.0, 0.0), |(s, n), (&v, _)| (s + f64::from(v), n + 1.0));
                sum / count
            };
            assert!(mean(1) > mean(0) + 400.0, "seed {seed}: {} and {}", mean(1), mean(0));
            let ratio = moved.count() as f64 / mask.count() as f64;
            assert!((0.5..2.1).contains(&ratio), "seed {seed}: {ratio}");
        }
    }

    #[test]
    fn no_change_allowed_is_no_change() {
        let (image, mask) = ball();
        let none = Augmentation {
            rotate_degrees: 0.0,
            scale: 0.0,
            mirror: 0.0,
            noise: 0.0,
            blur_mm: 0.0,
            brightness: 0.0,
            gamma: 0.0,
        };
        let (same, labels) = augment(&image, &mask, &none, 1).unwrap();
        assert_eq!(labels, mask);
        assert!(same.voxels.iter().zip(&image.voxels).all(|(a, b)| (a - b).abs() < 1e-3));
        assert!(augment(&image, &mask, &Augmentation { scale: 2.0, ..none }, 1).is_err());
    }
}
