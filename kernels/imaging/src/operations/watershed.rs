//! Watershed from markers.
//!
//! The image, mostly a gradient's magnitude, is a landscape that is flooded from the markers: the
//! lowest voxel that touches water is flooded next, by the marker whose water it touches, but never
//! below the level of the water itself; of equals, the one that has waited longest. Water rises from
//! a marker once it stands at the marker's own height. After Beucher &
//! Meyer, "The morphological approach to segmentation: the watershed transformation" (1993), with
//! the order of `skimage.segmentation.watershed` (compactness 0, no line between basins).

use std::cell::LazyCell;

use super::neighbourhood::Connectivity;
use super::queue::RisingQueue;
use super::threshold::finite_range;
use super::walled::{LAYER, Walled};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Image, Mask};

/// Returns for each voxel the label of the marker whose basin it lies in, or 0 where no path of
/// finite values leads from a marker.
pub fn watershed(
    image: &Image,
    markers: &Mask,
    connectivity: Connectivity,
) -> Result<Mask, ImagingError> {
    let mut walled = Walled::new(image, markers, connectivity)?;
    let lowest = LazyCell::new(|| finite_range(image).unwrap_or_default().0 as f32);
    let mut queue = RisingQueue::new();
    for (index, _) in markers.voxels.iter().enumerate().filter(|&(_, &label)| label != 0) {
        let (value, place) = (image.voxels[index], walled.place(index));
        queue.push(if value.is_finite() { value } else { *lowest }, place);
        // What has a label has no value any more: one look says whether a voxel is dry.
        walled.values[place as usize] = f32::NAN;
    }
    let Walled { values, labels, steps, .. } = &mut walled;
    loop {
        let next = queue.pop(|soon| {
            let soon = soon as usize;
            memory::fetch(labels, soon);
            // A layer of a brick is a line; the neighbours above and below are in the next ones.
            for step in [0, LAYER, LAYER.wrapping_neg()] {
                memory::fetch(values, soon.wrapping_add(step));
            }
        });
        let Some(from) = next else { break };
        let label = labels[from as usize];
        for to in steps.from(from) {
            let value = values[to as usize];
            if value.is_finite() {
                values[to as usize] = f32::NAN;
                labels[to as usize] = label;
                queue.push(value, to);
            }
        }
    }
    Ok(walled.into_mask())
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
