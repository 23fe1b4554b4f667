//! Cropping: cutting a box out of a volume, and putting a frame around one.

use serde::{Deserialize, Serialize};

use super::components::keep_largest;
use super::neighbourhood::Connectivity;
use super::threshold::threshold;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask, Volume};

/// A box of voxels: from `from` up to but not including `to` along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The first voxel along x, y and z.
    pub from: [usize; 3],
    /// The voxel after the last along x, y and z.
    pub to: [usize; 3],
}

impl Bounds {
    /// Returns the box widened on all sides by at least `margin_mm`, as far as the grid goes.
    #[must_use]
    pub fn widened(&self, margin_mm: f64, geometry: &Geometry) -> Self {
        let steps = geometry.spacing_mm.map(|spacing| (margin_mm / spacing).ceil() as usize);
        Self {
            from: [0, 1, 2].map(|k| self.from[k].saturating_sub(steps[k])),
            to: [0, 1, 2].map(|k| self.to[k].saturating_add(steps[k]).min(geometry.size[k])),
        }
    }
}

/// Returns the least box that holds all voxels whose label is not 0, or nothing where there are
/// none.
#[must_use]
pub fn bounds(mask: &Mask) -> Option<Bounds> {
    let mut found: Option<Bounds> = None;
    for (index, _) in mask.voxels.iter().enumerate().filter(|&(_, &label)| label != 0) {
        let at = mask.geometry.position(index);
        let bounds = found.get_or_insert(Bounds { from: at, to: at.map(|k| k + 1) });
        for axis in 0..3 {
            bounds.from[axis] = bounds.from[axis].min(at[axis]);
            bounds.to[axis] = bounds.to[axis].max(at[axis] + 1);
        }
    }
    found
}

/// Returns the least box that holds the patient: the largest face-connected component of at least
/// `at_least`, −400 Hounsfield units for CT. Nothing where no voxel is that bright.
#[must_use]
pub fn body_bounds(image: &Image, at_least: f32) -> Option<Bounds> {
    bounds(&keep_largest(&threshold(image, at_least, f32::INFINITY), Connectivity::Face))
}

/// Returns the part of a volume within the box; it keeps its place in the patient.
pub fn crop<T: Copy>(volume: &Volume<T>, bounds: &Bounds) -> Result<Volume<T>, ImagingError> {
    let Bounds { from, to } = *bounds;
    let source = volume.geometry;
    if !(0..3).all(|axis| from[axis] <= to[axis] && to[axis] <= source.size[axis]) {
        return Err(ImagingError::Parameter {
            operation: "crop",
            problem: format!(
                "the box from {from:?} to {to:?} does not lie in the image of {:?} voxels",
                source.size
            ),
        });
    }
    let geometry = Geometry {
        size: [0, 1, 2].map(|k| to[k] - from[k]),
        origin_mm: source.to_patient_mm(from.map(|k| k as f64)),
        ..source
    };
    let mut voxels = Vec::with_capacity(geometry.voxels());
    for z in from[2]..to[2] {
        for y in from[1]..to[1] {
            let start = source.index(from[0], y, z);
            voxels.extend_from_slice(&volume.voxels[start..start + geometry.size[0]]);
        }
    }
    Volume::new(geometry, voxels)
}

/// Returns the volume with `margin` voxels of `value` added on both sides of each axis; what was
/// there keeps its place in the patient.
pub fn pad<T: Copy>(
    volume: &Volume<T>,
    margin: [usize; 3],
    value: T,
) -> Result<Volume<T>, ImagingError> {
    let source = volume.geometry;
    let geometry = Geometry {
        size: [0, 1, 2].map(|k| source.size[k].saturating_add(margin[k].saturating_mul(2))),
        origin_mm: source.to_patient_mm(margin.map(|k| -(k as f64))),
        ..source
    };
    geometry.check()?;
    let mut padded = Volume::filled(geometry, value);
    for (row, voxels) in volume.voxels.chunks(source.size[0].max(1)).enumerate() {
        let (y, z) = (row % source.size[1], row / source.size[1]);
        let start = geometry.index(margin[0], y + margin[1], z + margin[2]);
        padded.voxels[start..start + source.size[0]].copy_from_slice(voxels);
    }
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_to_a_mask_with_a_margin() {
        let geometry = Geometry::new([8, 7, 6], [1.0, 2.0, 5.0]);
        let mut mask = Mask::filled(geometry, 0);
        assert_eq!(bounds(&mask), None);
        for [x, y, z] in [[3, 3, 3], [5, 4, 3]] {
            mask.voxels[geometry.index(x, y, z)] = 1;
        }
        let tight = bounds(&mask).unwrap();
        assert_eq!(tight, Bounds { from: [3, 3, 3], to: [6, 5, 4] });
        let cropped = crop(&mask, &tight.widened(2.0, &geometry)).unwrap();
        assert_eq!(cropped.geometry.size, [7, 4, 3]);
        assert_eq!(cropped.geometry.origin_mm, [1.0, 4.0, 10.0]);
        assert_eq!(cropped.count(), 2);
        assert!(crop(&mask, &Bounds { from: [0; 3], to: [9, 1, 1] }).is_err());
    }

    #[test]
    fn the_body_is_the_largest_thing_and_not_the_table() {
        let geometry = Geometry::unit([20, 20, 2]);
        let mut image = Image::filled(geometry, -1000.0);
        for index in 0..geometry.voxels() {
            let [x, y, _] = geometry.position(index);
            if (4..12).contains(&x) && (3..10).contains(&y) || y == 18 {
                image.voxels[index] = 20.0;
            }
        }
        let found = body_bounds(&image, -400.0).unwrap();
        assert_eq!(found, Bounds { from: [4, 3, 0], to: [12, 10, 2] });
        assert_eq!(body_bounds(&image, 500.0), None);
    }

    #[test]
    fn cropping_undoes_padding() {
        let geometry = Geometry::new([3, 2, 2], [1.0, 2.0, 5.0]);
        let volume = Volume::new(geometry, (0u8..12).collect()).unwrap();
        let padded = pad(&volume, [1, 2, 0], 99).unwrap();
        assert_eq!((padded.geometry.size, padded.voxels[0]), ([5, 6, 2], 99));
        let bounds = Bounds { from: [1, 2, 0], to: [4, 4, 2] };
        assert_eq!(crop(&padded, &bounds).unwrap(), volume);
        assert!(pad(&volume, [usize::MAX / 2, 0, 0], 0).is_err());
    }
}
