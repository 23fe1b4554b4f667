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
use super::queue::{RisingQueue, Shore};
use super::seeds::labelled;
use super::threshold::finite_range;
use super::walled::{Dry, Labels, Steps, Values, Walled, set};
use crate::error::ImagingError;
use crate::volume::{Image, Mask};

/// Returns for each voxel the label of the marker whose basin it lies in, or 0 where no path of
/// finite values leads from a marker.
pub fn watershed(
    image: &Image,
    markers: &Mask,
    connectivity: Connectivity,
) -> Result<Mask, ImagingError> {
    let mut walled = Walled::new(image, markers, 0)?;
    let lowest = LazyCell::new(|| finite_range(image).unwrap_or_default().0 as f32);
    let mut queue = RisingQueue::new();
    for (index, _) in labelled(markers) {
        let value = image.voxels[index];
        queue.push(if value.is_finite() { value } else { *lowest }, walled.place(index));
    }
    match connectivity {
        Connectivity::Face => flood::<6, 4>(&mut walled, connectivity, queue),
        Connectivity::Edge => flood::<18, 7>(&mut walled, connectivity, queue),
        Connectivity::Full => flood::<26, 8>(&mut walled, connectivity, queue),
    }
    Ok(walled.into_mask())
}

/// Floods from the markers that wait in the queue, with `N` neighbours of each voxel.
fn flood<const N: usize, const B: usize>(
    walled: &mut Walled<'_>,
    connectivity: Connectivity,
    mut queue: RisingQueue,
) {
    let steps = walled.steps::<N, B>(connectivity);
    let dry = &mut walled.dry();
    let Walled { values, labels, .. } = walled;
    while let Some(from) = queue.pop(&Water { values, labels, dry, steps: &steps }) {
        let around = steps.dry(dry, from);
        if around == 0 {
            continue;
        }
        let label = labels.at(from);
        let (places, number) = (steps.from(from), steps.number(from));
        for k in set(around) {
            labels.set(places[k], label);
            dry.remove(places[k]);
        }
        for k in set(around) {
            // What has no dry neighbour has its label and wets nothing more: it need not wait.
            if steps.any_dry(dry, places[k]) {
                queue.push(values.at(steps.kth_number(number, k)), places[k]);
            }
        }
    }
}

/// What a flood sees of the voxels that wait.
struct Water<'a, const N: usize, const B: usize> {
    values: &'a Values<'a>,
    labels: &'a Labels,
    dry: &'a Dry,
    steps: &'a Steps<N, B>,
}

impl<const N: usize, const B: usize> Shore for Water<'_, N, B> {
    fn matters(&self, voxel: u32) -> bool {
        self.steps.any_dry(self.dry, voxel)
    }

    fn soon(&self, voxel: u32) {
        let around = self.steps.dry(self.dry, voxel);
        if around == 0 {
            return;
        }
        self.labels.fetch(voxel);
        let (places, number) = (self.steps.from(voxel), self.steps.number(voxel));
        for k in set(around) {
            self.labels.fetch(places[k]);
            self.values.fetch(self.steps.kth_number(number, k));
        }
    }
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
