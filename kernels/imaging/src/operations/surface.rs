//! Distances between the surfaces of two masks: HD95, the Hausdorff distance, ASSD.
//!
//! A surface is the voxels of a mask with a face neighbour outside it; what lies beyond the grid
//! counts as outside. Distances are between voxel centres in millimetres. The definitions are those
//! of Taha & Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging
//! 15:29, 2015; HD95 is the greater of the two directed 95th percentiles, as MONAI has it
//! (percentiles interpolated linearly, as `NumPy` does).

use super::distance::{Side, distance};
use super::neighbourhood::{Connectivity, Neighbours, Space};
use crate::error::ImagingError;
use crate::volume::Mask;

/// The distances from each surface voxel of one mask to the other's surface, sorted, both ways.
#[derive(Debug, Clone, PartialEq)]
pub struct SurfaceDistances {
    first_to_second: Vec<f32>,
    second_to_first: Vec<f32>,
}

impl SurfaceDistances {
    /// Returns the distances of one label in two masks on the same grid, or nothing where the label
    /// is missing in one of them: no distance would be right.
    pub fn of(first: &Mask, second: &Mask, label: u8) -> Result<Option<Self>, ImagingError> {
        first.require_same_grid(second)?;
        let [a, b] = [first, second].map(|mask| surface(&mask.map(|&l| u8::from(l == label))));
        if a.count() == 0 || b.count() == 0 {
            return Ok(None);
        }
        Ok(Some(Self { first_to_second: directed(&a, &b), second_to_first: directed(&b, &a) }))
    }

    /// Returns the Hausdorff distance: the greatest of all, in millimetres.
    #[must_use]
    pub fn hausdorff_mm(&self) -> f64 {
        self.percentile_mm(1.0)
    }

    /// Returns HD95, in millimetres.
    #[must_use]
    pub fn hd95_mm(&self) -> f64 {
        self.percentile_mm(0.95)
    }

    /// Returns the average symmetric surface distance: the mean over both surfaces, in millimetres.
    #[must_use]
    pub fn assd_mm(&self) -> f64 {
        let all = || self.first_to_second.iter().chain(&self.second_to_first);
        all().map(|&d| f64::from(d)).sum::<f64>() / all().count() as f64
    }

    fn percentile_mm(&self, share: f64) -> f64 {
        [&self.first_to_second, &self.second_to_first]
            .map(|sorted| {
                let at = share * (sorted.len() - 1) as f64;
                let low = at as usize;
                let [below, above] =
                    [low, (low + 1).min(sorted.len() - 1)].map(|k| f64::from(sorted[k]));
                below + (at - low as f64) * (above - below)
            })
            .into_iter()
            .fold(0.0, f64::max)
    }
}

/// Returns the voxels of a mask with a face neighbour outside it.
#[must_use]
pub fn surface(mask: &Mask) -> Mask {
    let size = mask.geometry.size;
    let neighbours = Neighbours::new(size, Connectivity::Face, Space::Volume);
    let all = (0..3).map(|axis| if size[axis] > 1 { 2 } else { 0 }).sum::<usize>();
    let voxels = (0..mask.voxels.len()).map(|index| {
        let mut inside = 0;
        neighbours.visit(index, |other| inside += usize::from(mask.voxels[other] != 0));
        u8::from(mask.voxels[index] != 0 && inside < all.max(1))
    });
    Mask { geometry: mask.geometry, voxels: voxels.collect() }
}

/// Returns the sorted distances from the voxels of one set to the nearest of the other.
fn directed(from: &Mask, to: &Mask) -> Vec<f32> {
    let distances = distance(to, Side::Outside, Space::Volume);
    let members = from.voxels.iter().zip(&distances.voxels).filter(|&(&member, _)| member != 0);
    let mut found: Vec<f32> = members.map(|(_, &distance)| distance).collect();
    found.sort_by(f32::total_cmp);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    fn cube(from: [usize; 3], edge: usize) -> Mask {
        let geometry = Geometry::new([16, 16, 16], [1.0, 1.0, 2.0]);
        let mut mask = Mask::filled(geometry, 0);
        for index in 0..geometry.voxels() {
            let at = geometry.position(index);
            let inside = (0..3).all(|k| (from[k]..from[k] + edge).contains(&at[k]));
            mask.voxels[index] = u8::from(inside);
        }
        mask
    }

    #[test]
    fn a_moved_cube_is_as_far_as_it_was_moved() {
        let still = cube([4, 4, 4], 5);
        assert_eq!(surface(&still).count(), 125 - 27);
        for (moved, greatest) in [([4, 4, 4], 0.0), ([6, 4, 4], 2.0), ([4, 4, 6], 4.0)] {
            let found = SurfaceDistances::of(&still, &cube(moved, 5), 1).unwrap().unwrap();
            assert_eq!(found.hausdorff_mm(), greatest);
            assert!(found.hd95_mm() <= greatest && found.assd_mm() <= found.hd95_mm());
            assert_eq!(found.assd_mm() > 0.0, greatest > 0.0);
        }
    }

    #[test]
    fn a_missing_label_has_no_distance() {
        let still = cube([4, 4, 4], 5);
        assert_eq!(SurfaceDistances::of(&still, &still, 2).unwrap(), None);
        let other = Mask::filled(Geometry::unit([3, 3, 3]), 1);
        assert!(SurfaceDistances::of(&still, &other, 1).is_err());
        // A mask that fills the grid has the grid's border as its surface.
        assert_eq!(surface(&other).count(), 26);
    }
}
