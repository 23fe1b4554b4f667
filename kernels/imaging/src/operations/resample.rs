//! Resampling: the same piece of the patient on another grid.
//!
//! Images are interpolated linearly between voxel centres, masks take the nearest label. Nothing is
//! smoothed first: going to much larger voxels, put a Gaussian of about half the new spacing before.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask, VOXELS_MAX};

/// The grid to resample to. The piece of the patient that the voxels cover keeps its middle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Voxels of this many millimetres along x, y and z; as many as cover the same piece best.
    SpacingMm([f64; 3]),
    /// This many voxels along x, y and z; as large as covers the same piece exactly.
    Size([usize; 3]),
}

impl Target {
    /// Returns the grid that `source` becomes.
    pub fn grid(&self, source: &Geometry) -> Result<Geometry, ImagingError> {
        let (mut size, mut spacing_mm) = (source.size, source.spacing_mm);
        for axis in 0..3 {
            let extent_mm = source.size[axis] as f64 * source.spacing_mm[axis];
            match self {
                Self::SpacingMm(spacing) => {
                    let voxels = (extent_mm / spacing[axis]).round();
                    spacing_mm[axis] = spacing[axis];
                    size[axis] = if source.size[axis] == 0 { 0 } else { voxels.max(1.0) as usize };
                }
                Self::Size(voxels) => {
                    size[axis] = voxels[axis];
                    spacing_mm[axis] = extent_mm / voxels[axis].max(1) as f64;
                }
            }
        }
        let middle = |size: [usize; 3]| size.map(|voxels| (voxels as f64 - 1.0) / 2.0);
        let at_origin = Geometry { size, spacing_mm, origin_mm: [0.0; 3], ..*source };
        let from = source.to_patient_mm(middle(source.size));
        let to = at_origin.to_patient_mm(middle(size));
        let grid = Geometry { origin_mm: [0, 1, 2].map(|k| from[k] - to[k]), ..at_origin };
        grid.check()?;
        Ok(grid)
    }
}

/// Returns the image on the grid that `target` asks for.
pub fn image(image: &Image, target: &Target) -> Result<Image, ImagingError> {
    image_onto(image, &target.grid(&image.geometry)?, 0.0)
}

/// Returns the mask on the grid that `target` asks for.
pub fn mask(mask: &Mask, target: &Target) -> Result<Mask, ImagingError> {
    mask_onto(mask, &target.grid(&mask.geometry)?)
}

/// Returns the image on any grid of the same patient; voxels whose centres lie outside the image
/// get the value `outside`.
pub fn image_onto(image: &Image, grid: &Geometry, outside: f32) -> Result<Image, ImagingError> {
    let size = image.geometry.size;
    let voxels = sample(&image.geometry, grid, outside, |position| {
        let mut low = [0usize; 3];
        let mut high = [0usize; 3];
        let mut share = [0.0f64; 3];
        for axis in 0..3 {
            // Within half a voxel of the border, the outermost centre counts.
            let inner = position[axis].clamp(0.0, (size[axis] - 1) as f64);
            low[axis] = inner as usize;
            high[axis] = (low[axis] + 1).min(size[axis] - 1);
            share[axis] = inner - low[axis] as f64;
        }
        let value = |x: usize, y: usize, z: usize| f64::from(*image.at(x, y, z));
        // A neighbour of no weight must not count, for it may not be a number.
        let mix = |a: f64, share: f64, b: &dyn Fn() -> f64| {
            if share == 0.0 { a } else { a + share * (b() - a) }
        };
        let along_x =
            |y: usize, z: usize| mix(value(low[0], y, z), share[0], &|| value(high[0], y, z));
        let along_y = |z: usize| mix(along_x(low[1], z), share[1], &|| along_x(high[1], z));
        mix(along_y(low[2]), share[2], &|| along_y(high[2])) as f32
    })?;
    Image::new(*grid, voxels)
}

/// Returns the mask on any grid of the same patient; voxels whose centres lie outside the mask get
/// label 0.
pub fn mask_onto(mask: &Mask, grid: &Geometry) -> Result<Mask, ImagingError> {
    let size = mask.geometry.size;
    let voxels = sample(&mask.geometry, grid, 0, |position| {
        let nearest = |axis: usize| {
            (position[axis] + 0.5).floor().clamp(0.0, (size[axis] - 1) as f64) as usize
        };
        *mask.at(nearest(0), nearest(1), nearest(2))
    })?;
    Mask::new(*grid, voxels)
}

/// Returns for each voxel of `grid` the value at its continuous position in `source`.
pub(super) fn sample<T: Copy + Send + Sync>(
    source: &Geometry,
    grid: &Geometry,
    outside: T,
    value_at: impl Fn([f64; 3]) -> T + Sync,
) -> Result<Vec<T>, ImagingError> {
    grid.check()?;
    debug_assert!(grid.voxels() <= VOXELS_MAX);
    let inverse = to_voxels(source)?;
    let position = |point_mm: [f64; 3]| {
        let from_origin: [f64; 3] = [0, 1, 2].map(|k| point_mm[k] - source.origin_mm[k]);
        inverse
            .map(|row| row[0] * from_origin[0] + row[1] * from_origin[1] + row[2] * from_origin[2])
    };
    let [width, height, _] = grid.size;
    let mut voxels = vec![outside; grid.voxels()];
    if source.voxels() == 0 {
        return Ok(voxels);
    }
    // Rounding must not push a centre that lies on a centre off the grid.
    let inside = |position: [f64; 3]| {
        (0..3).all(|k| {
            position[k] >= -0.5 - 1e-6 && position[k] <= source.size[k] as f64 - 0.5 + 1e-6
        })
    };
    voxels.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, output)| {
        let (y, z) = ((row % height) as f64, (row / height) as f64);
        for (x, value) in output.iter_mut().enumerate() {
            let position = position(grid.to_patient_mm([x as f64, y, z])).map(snap);
            if inside(position) {
                *value = value_at(position);
            }
        }
    });
    Ok(voxels)
}

/// Rounds a position within a millionth of a voxel's centre to the centre.
fn snap(position: f64) -> f64 {
    let nearest = position.round();
    if (position - nearest).abs() < 1e-6 { nearest } else { position }
}

/// Returns the matrix from millimetres off the origin to voxels.
pub(crate) fn to_voxels(geometry: &Geometry) -> Result<[[f64; 3]; 3], ImagingError> {
    let column = |axis: usize| geometry.direction[axis].map(|d| d * geometry.spacing_mm[axis]);
    let [a, b, c] = [column(0), column(1), column(2)];
    let cross = |u: [f64; 3], v: [f64; 3]| {
        [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
    };
    let rows = [cross(b, c), cross(c, a), cross(a, b)];
    let determinant = a[0] * rows[0][0] + a[1] * rows[0][1] + a[2] * rows[0][2];
    let cell: f64 = geometry.spacing_mm.iter().product();
    if determinant.is_nan() || determinant.abs() < 1e-6 * cell {
        return Err(ImagingError::Geometry {
            problem: format!("the axes {:?} lie in one plane", geometry.direction),
        });
    }
    Ok(rows.map(|row| row.map(|value| value / determinant)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Image {
        let geometry = Geometry {
            origin_mm: [5.0, -3.0, 100.0],
            direction: [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]],
            ..Geometry::new([8, 6, 4], [1.0, 2.0, 3.0])
        };
        let voxels = (0..geometry.voxels())
            .map(|index| {
                let [x, y, z] = geometry.position(index).map(|v| v as f32);
                x + 10.0 * y + 100.0 * z
            })
            .collect();
        Image::new(geometry, voxels).unwrap()
    }

    #[test]
    fn its_own_grid_changes_nothing() {
        let image = ramp();
        assert_eq!(image_onto(&image, &image.geometry, -1.0).unwrap(), image);
        let mask = image.map(|&value| value as u8);
        assert_eq!(mask_onto(&mask, &image.geometry).unwrap(), mask);
    }

    #[test]
    fn a_ramp_stays_a_ramp_at_the_same_places() {
        let source = ramp();
        for target in [Target::SpacingMm([0.5, 1.0, 1.5]), Target::Size([4, 3, 2])] {
            let result = image(&source, &target).unwrap();
            let geometry = result.geometry;
            for axis in 0..3 {
                let extent = |g: &Geometry| g.size[axis] as f64 * g.spacing_mm[axis];
                assert!((extent(&geometry) - extent(&source.geometry)).abs() < 1e-9);
            }
            let middle = result.at(geometry.size[0] / 2, geometry.size[1] / 2, 1);
            let point = geometry.to_patient_mm([
                (geometry.size[0] / 2) as f64,
                (geometry.size[1] / 2) as f64,
                1.0,
            ]);
            // In this orientation, y grows with voxel x, x with voxel y, and z falls.
            let expected =
                (point[1] + 3.0) + 10.0 * (point[0] - 5.0) / 2.0 + 100.0 * (100.0 - point[2]) / 3.0;
            assert!((f64::from(*middle) - expected).abs() < 1e-3, "{target:?}");
        }
    }

    #[test]
    fn outside_gets_the_value_for_outside() {
        let source = ramp();
        let far = Geometry { origin_mm: [1e4; 3], ..source.geometry };
        assert!(image_onto(&source, &far, -7.0).unwrap().voxels.iter().all(|&v| v == -7.0));
    }

    #[test]
    fn refuses_grids_that_are_none() {
        let source = ramp();
        assert!(image(&source, &Target::SpacingMm([0.0, 1.0, 1.0])).is_err());
        assert!(image(&source, &Target::SpacingMm([1e-9, 1.0, 1.0])).is_err());
        assert!(image(&source, &Target::Size([1 << 20, 1 << 20, 1 << 20])).is_err());
        let flat = Geometry { direction: [[1.0, 0.0, 0.0]; 3], ..source.geometry };
        let flat = Image::new(flat, source.voxels.clone()).unwrap();
        assert!(image_onto(&flat, &source.geometry, 0.0).is_err());
    }
}
