//! Measures: how large a region is and how well two agree.

use crate::error::ImagingError;
use crate::volume::Mask;

/// The counts from which measures of agreement come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    /// Voxels of the label in both masks.
    pub both: usize,
    /// Voxels of the label in the first mask.
    pub first: usize,
    /// Voxels of the label in the second mask.
    pub second: usize,
}

impl Overlap {
    /// Returns the counts of one label in two masks on the same grid.
    pub fn of(first: &Mask, second: &Mask, label: u8) -> Result<Self, ImagingError> {
        first.require_same_grid(second)?;
        let mut overlap = Self::default();
        for (&a, &b) in first.voxels.iter().zip(&second.voxels) {
            overlap.both += usize::from(a == label && b == label);
            overlap.first += usize::from(a == label);
            overlap.second += usize::from(b == label);
        }
        Ok(overlap)
    }

    /// Returns the Dice coefficient, 0 to 1; 1 where the label is in neither mask.
    #[must_use]
    pub fn dice(&self) -> f64 {
        share(2 * self.both, self.first + self.second)
    }

    /// Returns the intersection over the union, 0 to 1; 1 where the label is in neither mask.
    #[must_use]
    pub fn iou(&self) -> f64 {
        share(self.both, self.first + self.second - self.both)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Returns the Dice coefficient of label 1 in two masks on the same grid.
pub fn dice(first: &Mask, second: &Mask) -> Result<f64, ImagingError> {
    Ok(Overlap::of(first, second, 1)?.dice())
}

/// Returns the intersection over the union of label 1 in two masks on the same grid.
pub fn iou(first: &Mask, second: &Mask) -> Result<f64, ImagingError> {
    Ok(Overlap::of(first, second, 1)?.iou())
}

/// Returns the volume of one label, in millilitres.
#[must_use]
pub fn volume_ml(mask: &Mask, label: u8) -> f64 {
    mask.count_of(label) as f64 * mask.geometry.voxel_ml()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn agreement_of_known_masks() {
        let mask = |voxels: [u8; 4]| {
            Mask::new(Geometry::new([4, 1, 1], [10.0, 10.0, 5.0]), voxels.to_vec()).unwrap()
        };
        for (first, second, dice_of, iou_of) in [
            ([1, 1, 0, 0], [1, 1, 0, 0], 1.0, 1.0),
            ([1, 1, 0, 0], [0, 1, 1, 0], 0.5, 1.0 / 3.0),
            ([1, 0, 0, 0], [0, 0, 0, 1], 0.0, 0.0),
            ([0, 0, 0, 0], [0, 2, 0, 0], 1.0, 1.0),
        ] {
            assert_eq!(dice(&mask(first), &mask(second)).unwrap(), dice_of);
            assert_eq!(iou(&mask(first), &mask(second)).unwrap(), iou_of);
        }
        assert_eq!(volume_ml(&mask([1, 1, 2, 0]), 1), 1.0);
        let other = Mask::filled(Geometry::unit([4, 1, 1]), 1);
        assert!(dice(&mask([1; 4]), &other).is_err());
    }
}
