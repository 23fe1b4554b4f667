//! Seeds found by rule: local extrema, and a grid. (Cores of ranges and of Otsu's classes are in
//! [`super::seeded`].)

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::{Connectivity, Neighbours, Space};
use super::runs::Runs;
use super::seeded::LABEL_MAX;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask};

/// Which extrema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extremum {
    /// Minima: basins of a gradient's magnitude, from which a watershed starts.
    #[default]
    Minima,
    /// Maxima.
    Maxima,
}

/// Returns the local extrema: connected voxels of one finite value all of whose other neighbours
/// are greater (or less). As `skimage.morphology.local_minima` and `local_maxima`, a plateau at the
/// border counts, and one that fills the whole image does not.
#[must_use]
pub fn local_extrema(image: &Image, which: Extremum, connectivity: Connectivity) -> Mask {
    let neighbours = Neighbours::new(image.geometry.size, connectivity, Space::Volume);
    let sign = if which == Extremum::Minima { 1.0 } else { -1.0 };
    let value = |index: usize| sign * image.voxels[index];
    // Voxels that no neighbour undercuts; among them are plateaus that an undercut voxel touches.
    let lowest: Vec<u8> = (0..image.voxels.len())
        .into_par_iter()
        .map(|index| {
            let (own, mut lowest) = (value(index), value(index).is_finite());
            neighbours.visit(index, |other| lowest &= value(other) >= own);
            u8::from(lowest)
        })
        .collect();
    let mut mask = Mask { geometry: image.geometry, voxels: lowest };
    // Undercut voxels eat into plateaus of their own value.
    let mut eaten: Vec<usize> = Vec::new();
    for index in 0..mask.voxels.len() {
        if mask.voxels[index] == 0 && value(index).is_finite() {
            eaten.push(index);
            while let Some(from) = eaten.pop() {
                neighbours.visit(from, |to| {
                    // What is lowest around cannot lie below its neighbour.
                    if mask.voxels[to] != 0 && value(to) >= value(from) {
                        mask.voxels[to] = 0;
                        eaten.push(to);
                    }
                });
            }
        }
    }
    if mask.voxels.iter().all(|&inside| inside != 0) {
        mask.voxels.fill(0);
    }
    mask
}

/// Returns a mask whose components have the labels 1, 2, ... in raster order of their first voxels:
/// seeds for algorithms that grow every seed into a region of its own. More components than labels
/// are an error.
pub fn numbered(mask: &Mask, connectivity: Connectivity) -> Result<Mask, ImagingError> {
    let runs = Runs::new(mask.geometry.size, &mask.voxels, |label| label != 0);
    let (numbers, count) = runs.components(connectivity, Space::Volume);
    if count > usize::from(LABEL_MAX) {
        return Err(ImagingError::Parameter {
            operation: "seeds",
            problem: format!(
                "there are {count} seeds, more than the {LABEL_MAX} labels; smooth the image \
                 before, or use a wider grid"
            ),
        });
    }
    let voxels = runs.paint(|run| numbers[run] as u8 + 1);
    Ok(Mask { geometry: mask.geometry, voxels })
}

/// Returns one voxel every so many millimetres along each axis, the whole grid of them in the middle
/// of the image.
pub fn grid(geometry: &Geometry, every_mm: f64) -> Result<Mask, ImagingError> {
    if !(every_mm > 0.0 && every_mm.is_finite()) {
        let problem = format!("every_mm is {every_mm}; a positive distance is needed");
        return Err(ImagingError::Parameter { operation: "seeds", problem });
    }
    let places = [0, 1, 2].map(|axis| {
        let size = geometry.size[axis];
        let step = ((every_mm / geometry.spacing_mm[axis]).round() as usize).max(1);
        let first = size.saturating_sub(1) % step / 2;
        (first..size).step_by(step).collect::<Vec<usize>>()
    });
    let mut seeds = Mask::filled(*geometry, 0);
    for &z in &places[2] {
        for &y in &places[1] {
            for &x in &places[0] {
                seeds.voxels[geometry.index(x, y, z)] = 1;
            }
        }
    }
    Ok(seeds)
}

/// Returns the voxels that have a label, by number, with it.
pub(super) fn labelled(seeds: &Mask) -> impl Iterator<Item = (usize, u8)> {
    // Most have none, and many are asked at once.
    const MANY: usize = 256;
    let many = seeds.voxels.chunks(MANY).enumerate();
    let some = many.filter(|(_, labels)| labels.iter().fold(0, |any, label| any | label) != 0);
    let each = some.flat_map(|(k, labels)| (k * MANY..).zip(labels.iter().copied()));
    each.filter(|&(_, label)| label != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plateaus_count_as_a_whole_or_not_at_all() {
        for (values, minima, maxima) in [
            ([2.0, 1.0, 1.0, 3.0, 3.0, 0.0], [0, 1, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0]),
            ([1.0, 1.0, 0.0, 1.0, 1.0, 1.0], [0, 0, 1, 0, 0, 0], [1, 1, 0, 1, 1, 1]),
            ([4.0; 6], [0; 6], [0; 6]),
        ] {
            let image = Image::new(Geometry::unit([6, 1, 1]), values.to_vec()).unwrap();
            let find = |which| local_extrema(&image, which, Connectivity::Full).voxels;
            assert_eq!(find(Extremum::Minima), minima, "{values:?}");
            assert_eq!(find(Extremum::Maxima), maxima, "{values:?}");
        }
    }

    #[test]
    fn a_grid_lies_in_the_middle_and_gets_numbers() {
        let geometry = Geometry::new([10, 7, 1], [1.0, 2.0, 5.0]);
        let seeds = grid(&geometry, 4.0).unwrap();
        let at: Vec<[usize; 3]> = (0..geometry.voxels())
            .filter(|&index| seeds.voxels[index] != 0)
            .map(|index| geometry.position(index))
            .collect();
        let rows = [0, 2, 4, 6].into_iter().flat_map(|y| [0, 4, 8].map(|x| [x, y, 0]));
        assert_eq!(at, rows.collect::<Vec<_>>());
        let labels = numbered(&seeds, Connectivity::Full).unwrap();
        assert_eq!(labels.voxels.iter().max(), Some(&12));
        assert!(
            numbered(&grid(&Geometry::unit([40, 40, 1]), 2.0).unwrap(), Connectivity::Face)
                .is_err()
        );
        assert!(grid(&geometry, 0.0).is_err());
    }
}
