//! Watershed from markers.
//!
//! The image, mostly a gradient's magnitude, is a landscape that is flooded from the markers: the
//! lowest voxel that touches water is flooded next, by the marker whose water it touches, but never
//! below the level of the water itself; of equals, the one that has waited longest. Water rises from
//! a marker once it stands at the marker's own height. After Beucher &
//! Meyer, "The morphological approach to segmentation: the watershed transformation" (1993), with
//! the order of `skimage.segmentation.watershed` (compactness 0, no line between basins).

use super::neighbourhood::{Connectivity, Neighbours, Space};
use super::queue::FloodQueue;
use super::threshold::finite_range;
use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// Returns for each voxel the label of the marker whose basin it lies in, or 0 where no path of
/// finite values leads from a marker.
pub fn watershed(
    image: &Image,
    markers: &Mask,
    connectivity: Connectivity,
) -> Result<Mask, ImagingError> {
    image.require_same_grid(markers)?;
    let neighbours = Neighbours::new(image.geometry.size, connectivity, Space::Volume);
    let (low, high) = finite_range(image).unwrap_or_default();
    let mut queue = FloodQueue::new(low, high);
    let mut labels = markers.voxels.clone();
    let mut flood = |queue: &mut FloodQueue, from: usize, level: f64| {
        let label = labels[from];
        neighbours.visit(from, |to| {
            let value = image.voxels[to];
            if labels[to] == 0 && value.is_finite() {
                labels[to] = label;
                queue.push(f64::from(value).max(level), to);
            }
        });
    };
    for (index, _) in markers.voxels.iter().enumerate().filter(|&(_, &label)| label != 0) {
        let value = f64::from(image.voxels[index]);
        queue.push(if value.is_finite() { value } else { low }, index);
    }
    while let Some((level, index)) = queue.pop() {
        flood(&mut queue, index, level);
    }
    Ok(Mask { geometry: image.geometry, voxels: labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn basins_meet_on_the_ridge() {
        for (heights, expected) in [
            ([0.0, 1.0, 2.0, 9.0, 2.0, 1.0, 0.0], [1, 1, 1, 1, 2, 2, 2]),
            // The lower pass is taken first, and what lies beyond it belongs to who passed it; the
            // ridge itself belongs to who touched it first.
            ([0.0, 3.0, 1.0, 0.0, 1.0, 8.0, 0.0], [1, 1, 1, 1, 1, 2, 2]),
            ([0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0], [1, 1, 0, 2, 2, 2, 2]),
        ] {
            let image = Image::new(Geometry::unit([7, 1, 1]), heights.to_vec()).unwrap();
            let mut markers = Mask::filled(image.geometry, 0);
            (markers.voxels[0], markers.voxels[6]) = (1, 2);
            let basins = watershed(&image, &markers, Connectivity::Face).unwrap();
            assert_eq!(basins.voxels, expected, "{heights:?}");
        }
    }

    #[test]
    fn no_marker_floods_nothing() {
        let image = Image::filled(Geometry::unit([3, 3, 3]), 1.0);
        let none = Mask::filled(image.geometry, 0);
        assert_eq!(watershed(&image, &none, Connectivity::Full).unwrap().count(), 0);
        let other = Mask::filled(Geometry::unit([2, 2, 2]), 1);
        assert!(watershed(&image, &other, Connectivity::Full).is_err());
    }
}
