//! Connected components: finding them, and keeping those of a size and place.

use serde::{Deserialize, Serialize};

use super::neighbourhood::{Connectivity, Space};
use super::runs::Runs;
use crate::volume::{Geometry, Mask, Volume};

/// A connected set of voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Component {
    /// The number of its voxels.
    pub voxels: usize,
    /// Whether it reaches the left, right, front or back side of the grid (the first or last x or
    /// y).
    pub touches_sides: bool,
    /// Whether it reaches the first or last slice. Never true in a volume of depth 1.
    pub touches_ends: bool,
}

/// The components of a mask.
#[derive(Debug, Clone)]
pub struct Components {
    /// For each voxel, 0 outside the mask, or 1 + the position of its component in `list`.
    pub labels: Volume<u32>,
    /// The components, in the raster order of their first voxels.
    pub list: Vec<Component>,
}

/// What to do with components that touch the border of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Border {
    /// Keep them.
    #[default]
    Keep,
    /// Drop those that touch a side (first or last x or y); what the first or last slice cuts off
    /// stays. Right for organs in a scan that does not cover them whole.
    DropSides,
    /// Drop all that touch the border, the first and last slice included.
    Drop,
}

/// Which components to keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// Which voxels are connected. Default: those that share a face.
    pub connectivity: Connectivity,
    /// Whether components extend over slices. Default: yes.
    pub space: Space,
    /// What to do with components at the border. Default: keep them.
    pub border: Border,
    /// Components smaller than this are dropped, in millilitres. Default: 0.
    pub min_ml: f64,
    /// Components larger than this are dropped, in millilitres. Default: none are.
    pub max_ml: f64,
    /// How many to keep, the largest first; of equals, the first in raster order. Default: all.
    pub largest: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            connectivity: Connectivity::Face,
            space: Space::Volume,
            border: Border::Keep,
            min_ml: 0.0,
            max_ml: f64::MAX,
            largest: usize::MAX,
        }
    }
}

/// Returns the connected components of the voxels whose label is not 0.
#[must_use]
pub fn label(mask: &Mask, connectivity: Connectivity) -> Components {
    let runs = Runs::new(mask.geometry.size, &mask.voxels, |label| label != 0);
    let (numbers, count) = runs.components(connectivity, Space::Volume);
    let (list, labels) = rayon::join(
        || describe(&runs, &numbers, count, mask.geometry.size),
        || runs.paint(|run| numbers[run] + 1),
    );
    Components { labels: Volume { geometry: mask.geometry, voxels: labels }, list }
}

/// Returns the mask without the components that the filter drops. Its labels are 0 and 1.
#[must_use]
pub fn filter(mask: &Mask, filter: &Filter) -> Mask {
    let geometry = mask.geometry;
    let runs = Runs::new(geometry.size, &mask.voxels, |label| label != 0);
    let (numbers, count) = runs.components(filter.connectivity, filter.space);
    let list = describe(&runs, &numbers, count, geometry.size);
    let keep = kept(&list, filter, &geometry);
    Mask { geometry, voxels: runs.paint(|run| keep[numbers[run] as usize]) }
}

/// Returns for each component 1 where the filter keeps it, and 0 where it drops it.
pub(crate) fn kept(list: &[Component], filter: &Filter, geometry: &Geometry) -> Vec<u8> {
    let mut kept: Vec<usize> = (0..list.len())
        .filter(|&number| {
            let Component { voxels, touches_sides, touches_ends } = list[number];
            let size_ml = voxels as f64 * geometry.voxel_ml();
            let dropped = match filter.border {
                Border::Keep => false,
                Border::DropSides => touches_sides,
                Border::Drop => touches_sides || (touches_ends && filter.space == Space::Volume),
            };
            !dropped && size_ml >= filter.min_ml && size_ml <= filter.max_ml
        })
        .collect();
    kept.sort_by_key(|&number| std::cmp::Reverse(list[number].voxels));
    let mut keep = vec![0u8; list.len()];
    kept.iter().take(filter.largest).for_each(|&number| keep[number] = 1);
    keep
}

/// Returns the largest component of a mask; of equals, the first in raster order.
#[must_use]
pub fn keep_largest(mask: &Mask, connectivity: Connectivity) -> Mask {
    filter(mask, &Filter { connectivity, largest: 1, ..Filter::default() })
}

/// Returns the components that do not touch the border of the grid.
#[must_use]
pub fn drop_border(mask: &Mask, connectivity: Connectivity) -> Mask {
    filter(mask, &Filter { connectivity, border: Border::Drop, ..Filter::default() })
}

/// Measures the components that `numbers` gives to the runs.
pub(super) fn describe(
    runs: &Runs,
    numbers: &[u32],
    count: usize,
    [width, height, depth]: [usize; 3],
) -> Vec<Component> {
    let mut list = vec![Component::default(); count];
    for row in 0..runs.rows() {
        let (y, z) = (row % height, row / height);
        // An axis with one voxel has no border.
        let on_side = height > 1 && (y == 0 || y + 1 == height);
        let on_end = depth > 1 && (z == 0 || z + 1 == depth);
        for run in runs.of_row(row) {
            let component = &mut list[numbers[run] as usize];
            let (start, end) = (runs.list[run].start as usize, runs.list[run].end as usize);
            component.voxels += end - start;
            component.touches_sides |= on_side || (width > 1 && (start == 0 || end == width));
            component.touches_ends |= on_end;
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three voxels: two share an edge over slices, the third only a corner with the second.
    fn staircase() -> Mask {
        let mut mask = Mask::filled(Geometry::unit([4, 4, 4]), 0);
        for [x, y, z] in [[1, 0, 0], [1, 1, 1], [2, 2, 2]] {
            let index = mask.geometry.index(x, y, z);
            mask.voxels[index] = 1;
        }
        mask
    }

    #[test]
    fn connectivity_decides_what_is_one_component() {
        for (connectivity, sizes) in [
            (Connectivity::Face, vec![1, 1, 1]),
            (Connectivity::Edge, vec![2, 1]),
            (Connectivity::Full, vec![3]),
        ] {
            let components = label(&staircase(), connectivity);
            let found: Vec<usize> = components.list.iter().map(|c| c.voxels).collect();
            assert_eq!(found, sizes, "{connectivity:?}");
            assert_eq!(*components.labels.at(1, 0, 0), 1);
        }
    }

    #[test]
    fn filters_by_border_size_and_rank() {
        let mask = staircase();
        let ml = mask.geometry.voxel_ml();
        let base = Filter { connectivity: Connectivity::Edge, ..Filter::default() };
        for (what, filter_by, left) in [
            ("all", base, 3),
            ("border", Filter { border: Border::Drop, ..base }, 1),
            ("sides", Filter { border: Border::DropSides, ..base }, 1),
            ("large", Filter { min_ml: 1.5 * ml, ..base }, 2),
            ("small", Filter { max_ml: 1.5 * ml, ..base }, 1),
            ("largest", Filter { largest: 1, ..base }, 2),
            ("slices", Filter { space: Space::Slice, border: Border::Drop, ..base }, 2),
        ] {
            assert_eq!(filter(&mask, &filter_by).count(), left, "{what}");
        }
    }

    #[test]
    fn labels_equal_those_of_a_plain_flood() {
        let mut state = 7u32;
        // Rows of one word and of several; sparse, half full and full of holes.
        for size in [[13, 11, 7], [150, 9, 6], [64, 40, 1], [1, 30, 4]] {
            for full in [1, 2, 3] {
                let mask = Mask::filled(Geometry::unit(size), 0u8).map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    u8::from(state >> 30 < full)
                });
                for connectivity in [Connectivity::Face, Connectivity::Edge, Connectivity::Full] {
                    let labels = label(&mask, connectivity).labels.voxels;
                    let expected = plain_flood(&mask, connectivity);
                    assert!(labels == expected, "{size:?}, {full} of 4, {connectivity:?}");
                }
            }
        }
    }

    fn plain_flood(mask: &Mask, connectivity: Connectivity) -> Vec<u32> {
        use super::super::neighbourhood::{offsets, step_within};
        let size = mask.geometry.size;
        let mut labels = vec![0u32; mask.voxels.len()];
        let mut next = 0;
        for first in 0..labels.len() {
            if mask.voxels[first] == 0 || labels[first] != 0 {
                continue;
            }
            next += 1;
            labels[first] = next;
            let mut waiting = vec![first];
            while let Some(index) = waiting.pop() {
                let at = mask.geometry.position(index);
                for step in offsets(connectivity, Space::Volume) {
                    let to: Option<Vec<usize>> =
                        (0..3).map(|k| step_within(at[k], step[k], size[k])).collect();
                    let Some(to) = to else { continue };
                    let to = mask.geometry.index(to[0], to[1], to[2]);
                    if mask.voxels[to] != 0 && labels[to] == 0 {
                        labels[to] = next;
                        waiting.push(to);
                    }
                }
            }
        }
        labels
    }
}
