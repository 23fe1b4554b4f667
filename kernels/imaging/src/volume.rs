//! Volumes: a grid of voxels and where it lies in the patient.
//!
//! Everything this crate reads, computes or writes is a [`Volume`]: an [`Image`] of `f32` values or
//! a [`Mask`] of small labels. A 2-D image is a volume of depth 1. Voxels lie x fastest, then y,
//! then z, so that one slice is one contiguous piece of memory.
//!
//! Positions are millimetres in DICOM's patient space, LPS: x grows to the patient's left, y to the
//! back, z to the head. Readers of formats with other conventions convert on the way in.
//!
//! A volume promises that its voxels fill its grid and that its grid is sound: sizes whose product
//! is below [`VOXELS_MAX`], spacings finite and positive. It does not promise finite voxel values.

use crate::error::ImagingError;
use crate::memory;
use crate::operations;

/// The most voxels a volume may have: 2³¹, a 1024 × 1024 × 2048 scan, 8 GiB as `f32`. Component
/// labels and flood queues are `u32` on the strength of this limit.
pub const VOXELS_MAX: usize = 1 << 31;

/// The grid of a volume: its size, its voxels' size and its place in the patient.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Geometry {
    /// The number of voxels along x, y and z.
    pub size: [usize; 3],
    /// The distance between the centres of neighbouring voxels along x, y and z, in millimetres.
    pub spacing_mm: [f64; 3],
    /// The centre of voxel (0, 0, 0) in LPS patient space, in millimetres.
    pub origin_mm: [f64; 3],
    /// The unit vector of each voxel axis in LPS patient space: `direction[axis]`.
    pub direction: [[f64; 3]; 3],
}

impl Geometry {
    /// The unit directions of a volume that is aligned with the patient's axes.
    pub const IDENTITY: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    /// Returns a grid of the given size and spacing at the origin, aligned with the patient's axes.
    #[must_use]
    pub const fn new(size: [usize; 3], spacing_mm: [f64; 3]) -> Self {
        Self { size, spacing_mm, origin_mm: [0.0; 3], direction: Self::IDENTITY }
    }

    /// Returns a grid of 1 mm voxels, for an image whose physical size is unknown.
    #[must_use]
    pub const fn unit(size: [usize; 3]) -> Self {
        Self::new(size, [1.0; 3])
    }

    /// Returns the number of voxels, or `usize::MAX` where it does not fit.
    #[must_use]
    pub fn voxels(&self) -> usize {
        self.size.iter().fold(1, |product: usize, &n| product.saturating_mul(n))
    }

    /// Returns the position of voxel (x, y, z) in the voxels' vector.
    #[must_use]
    pub const fn index(&self, x: usize, y: usize, z: usize) -> usize {
        (z * self.size[1] + y) * self.size[0] + x
    }

    /// Returns the (x, y, z) of a position in the voxels' vector: the inverse of
    /// [`Geometry::index`]. The grid must not be empty.
    #[must_use]
    pub const fn position(&self, index: usize) -> [usize; 3] {
        let [width, height, _] = self.size;
        [index % width, index / width % height, index / (width * height)]
    }

    /// Returns the volume of one voxel in millilitres. Slices of a tilted gantry are shifted along
    /// their plane, so the axes need not be at right angles.
    #[must_use]
    pub fn voxel_ml(&self) -> f64 {
        let [a, b, c] = self.direction;
        let upright = a[0] * (b[1] * c[2] - b[2] * c[1])
            + a[1] * (b[2] * c[0] - b[0] * c[2])
            + a[2] * (b[0] * c[1] - b[1] * c[0]);
        self.spacing_mm.iter().product::<f64>() * upright.abs() / 1000.0
    }

    /// Returns the point in LPS patient space, in millimetres, of a continuous voxel position.
    #[must_use]
    pub fn to_patient_mm(&self, voxel: [f64; 3]) -> [f64; 3] {
        let mut point = self.origin_mm;
        for axis in 0..3 {
            let along = voxel[axis] * self.spacing_mm[axis];
            for (coordinate, unit) in point.iter_mut().zip(self.direction[axis]) {
                *coordinate += along * unit;
            }
        }
        point
    }

    /// Returns whether both grids have the same size and every voxel of one lies within a
    /// thousandth of a voxel of its peer in the other.
    #[must_use]
    pub fn same_grid(&self, other: &Self) -> bool {
        let near = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-3 * scale;
        self.size == other.size
            && (0..3).all(|axis| {
                let spacing = self.spacing_mm[axis];
                near(spacing, other.spacing_mm[axis], spacing / self.size[axis].max(1) as f64)
                    && near(self.origin_mm[axis], other.origin_mm[axis], spacing)
                    && (0..3).all(|k| near(self.direction[axis][k], other.direction[axis][k], 1.0))
            })
    }

    /// Returns an error unless the grid keeps what [the module](self) promises.
    pub fn check(&self) -> Result<(), ImagingError> {
        if self.voxels() > VOXELS_MAX {
            return Err(ImagingError::TooLarge {
                what: "volume",
                found: self.voxels() as u64,
                limit: VOXELS_MAX as u64,
            });
        }
        let sound = self.spacing_mm.iter().all(|s| s.is_finite() && *s > 0.0)
            && self.origin_mm.iter().all(|o| o.is_finite())
            && self.direction.iter().flatten().all(|d| d.is_finite());
        if !sound {
            return Err(ImagingError::Geometry {
                problem: format!(
                    "spacing {:?} mm, origin {:?} mm; spacings must be positive and all numbers \
                     finite",
                    self.spacing_mm, self.origin_mm
                ),
            });
        }
        Ok(())
    }
}

/// A grid of voxels, x fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume<T> {
    /// Where the voxels lie.
    pub geometry: Geometry,
    /// The voxels' values, x fastest, then y, then z.
    pub voxels: Vec<T>,
}

/// A volume of intensities: Hounsfield units for CT, the scanner's own units for MR.
pub type Image = Volume<f32>;

/// A volume of labels: 0 is background, 1 is inside where a mask tells only inside from outside.
pub type Mask = Volume<u8>;

impl<T> Volume<T> {
    /// Returns the volume, or an error where the voxels do not fill the grid or the grid is not
    /// sound.
    pub fn new(geometry: Geometry, voxels: Vec<T>) -> Result<Self, ImagingError> {
        geometry.check()?;
        if voxels.len() != geometry.voxels() {
            return Err(ImagingError::Geometry {
                problem: format!(
                    "{} voxels given for a grid of {:?}, which has {}",
                    voxels.len(),
                    geometry.size,
                    geometry.voxels()
                ),
            });
        }
        Ok(Self { geometry, voxels })
    }

    /// Returns the value of voxel (x, y, z).
    ///
    /// # Panics
    /// Panics where the voxel lies outside the volume.
    #[must_use]
    pub fn at(&self, x: usize, y: usize, z: usize) -> &T {
        &self.voxels[self.geometry.index(x, y, z)]
    }

    /// Returns the voxels of one slice, x fastest.
    ///
    /// # Panics
    /// Panics where `z` lies outside the volume.
    #[must_use]
    pub fn slice(&self, z: usize) -> &[T] {
        let area = self.geometry.size[0] * self.geometry.size[1];
        &self.voxels[z * area..(z + 1) * area]
    }

    /// Returns a volume on the same grid with the values that `f` gives.
    #[must_use]
    pub fn map<U>(&self, f: impl FnMut(&T) -> U) -> Volume<U> {
        Volume { geometry: self.geometry, voxels: self.voxels.iter().map(f).collect() }
    }

    /// Returns a volume on the same grid with the values that `f` gives, by many threads.
    pub(crate) fn each<U>(&self, f: impl Fn(T) -> U + Sync + Copy) -> Volume<U>
    where
        T: Copy + Sync,
        U: Copy + Send,
    {
        Volume { geometry: self.geometry, voxels: operations::each(&self.voxels, f) }
    }

    /// Returns an error unless `other` lies on the same grid.
    pub fn require_same_grid<U>(&self, other: &Volume<U>) -> Result<(), ImagingError> {
        if self.geometry.same_grid(&other.geometry) {
            return Ok(());
        }
        Err(ImagingError::GridMismatch { left: self.geometry.size, right: other.geometry.size })
    }
}

impl<T: Clone> Volume<T> {
    /// Returns a volume whose every voxel is `value`.
    ///
    /// # Panics
    /// Panics where the grid is larger than [`VOXELS_MAX`].
    #[must_use]
    pub fn filled(geometry: Geometry, value: T) -> Self {
        assert!(geometry.voxels() <= VOXELS_MAX, "grid {:?} is too large", geometry.size);
        Self { geometry, voxels: memory::filled(geometry.voxels(), value) }
    }
}

impl Image {
    /// Returns the values as labels, for an image that was stored as one but holds a mask. Values
    /// that are not whole numbers from 0 to 255 are an error.
    pub fn to_mask(&self) -> Result<Mask, ImagingError> {
        // Adding 0 makes 0 of -0.
        let label = |&value: &f32| {
            let label = value as u8;
            (f32::from(label).to_bits() == (value + 0.0).to_bits()).then_some(label).ok_or_else(
                || ImagingError::Parameter {
                    operation: "reading a mask",
                    problem: format!("the value {value} is no label; labels are 0 to 255"),
                },
            )
        };
        let labels: Result<Vec<u8>, ImagingError> = self.voxels.iter().map(label).collect();
        Ok(Mask { geometry: self.geometry, voxels: labels? })
    }
}

impl Mask {
    /// Returns the number of voxels with this label.
    #[must_use]
    pub fn count_of(&self, label: u8) -> usize {
        self.voxels.iter().map(|&found| usize::from(found == label)).sum()
    }

    /// Returns the number of voxels whose label is not 0.
    #[must_use]
    pub fn count(&self) -> usize {
        self.voxels.iter().filter(|&&label| label != 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_position_are_inverse() {
        let geometry = Geometry::unit([3, 4, 5]);
        for index in 0..geometry.voxels() {
            let [x, y, z] = geometry.position(index);
            assert_eq!(geometry.index(x, y, z), index);
        }
    }

    #[test]
    fn refuses_what_it_promises_not_to_be() {
        let fine = Geometry::unit([2, 2, 1]);
        assert!(Volume::new(fine, vec![0u8; 4]).is_ok());
        assert!(Volume::new(fine, vec![0u8; 5]).is_err());
        for geometry in [
            Geometry::unit([usize::MAX, 2, 2]),
            Geometry::new([2, 2, 1], [0.0, 1.0, 1.0]),
            Geometry::new([2, 2, 1], [1.0, f64::NAN, 1.0]),
            Geometry { origin_mm: [f64::INFINITY, 0.0, 0.0], ..fine },
        ] {
            assert!(Volume::new(geometry, vec![0u8; 4]).is_err(), "{geometry:?}");
        }
    }

    #[test]
    fn places_voxels_in_the_patient() {
        let geometry = Geometry {
            size: [2, 2, 2],
            spacing_mm: [2.0, 3.0, 4.0],
            origin_mm: [10.0, 20.0, 30.0],
            direction: [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]],
        };
        assert_eq!(geometry.to_patient_mm([1.0, 1.0, 1.0]), [14.0, 22.0, 27.0]);
        assert!((geometry.voxel_ml() - 0.024).abs() < 1e-12);
        let moved = Geometry { origin_mm: [10.1, 20.0, 30.0], ..geometry };
        assert!(geometry.same_grid(&geometry) && !geometry.same_grid(&moved));
    }
}
