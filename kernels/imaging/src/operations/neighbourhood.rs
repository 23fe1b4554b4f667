//! Which voxels are neighbours: the two choices that many operations share.

use serde::{Deserialize, Serialize};

/// Which of the voxels around a voxel are connected to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connectivity {
    /// Voxels that share a face: 6 in a volume, 4 in a slice.
    #[default]
    Face,
    /// Voxels that share a face or an edge: 18 in a volume, 8 in a slice.
    Edge,
    /// Voxels that share a face, an edge or a corner: 26 in a volume, 8 in a slice.
    Full,
}

/// Whether an operation works on a volume as a whole or on each of its slices by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// In three dimensions. A volume of depth 1 is a 2-D image either way.
    #[default]
    Volume,
    /// In two dimensions, slice by slice.
    Slice,
}

/// A row of voxels next to another: how far away in y and z, and by how many voxels a run in it may
/// miss the other's range in x and still be connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowStep {
    pub(super) dy: isize,
    pub(super) dz: isize,
    pub(super) reach: usize,
}

/// Returns the steps to the rows that come before a row in raster order and touch it.
pub(super) fn rows_before(connectivity: Connectivity, space: Space) -> Vec<RowStep> {
    let candidates = [(-1, 0), (-1, -1), (0, -1), (1, -1)];
    candidates
        .into_iter()
        .filter(|&(_, dz)| dz == 0 || space == Space::Volume)
        .filter_map(|(dy, dz): (isize, isize)| {
            let diagonal = dy != 0 && dz != 0;
            let reach = match connectivity {
                Connectivity::Face if diagonal => return None,
                Connectivity::Face => 0,
                Connectivity::Edge => usize::from(!diagonal),
                Connectivity::Full => 1,
            };
            Some(RowStep { dy, dz, reach })
        })
        .collect()
}

/// Returns the steps to all rows that touch a row.
pub(super) fn rows_around(connectivity: Connectivity, space: Space) -> Vec<RowStep> {
    let before = rows_before(connectivity, space);
    let after = before.iter().map(|step| RowStep { dy: -step.dy, dz: -step.dz, ..*step });
    before.iter().copied().chain(after).collect()
}

/// Returns the voxel offsets (dx, dy, dz) of a connectivity's neighbours in raster order.
pub(super) fn offsets(connectivity: Connectivity, space: Space) -> Vec<[isize; 3]> {
    let steps_max = match connectivity {
        Connectivity::Face => 1,
        Connectivity::Edge => 2,
        Connectivity::Full => 3,
    };
    let depth = if space == Space::Volume { -1..=1 } else { 0..=0 };
    let mut offsets = Vec::new();
    for dz in depth {
        for dy in -1..=1isize {
            for dx in -1..=1isize {
                let steps = dx.abs() + dy.abs() + isize::abs(dz);
                if steps > 0 && steps <= steps_max {
                    offsets.push([dx, dy, dz]);
                }
            }
        }
    }
    offsets
}

/// The neighbours of voxels by position, without a division per neighbour.
pub(super) struct Neighbours {
    size: [usize; 3],
    steps: Vec<([isize; 3], isize)>,
}

impl Neighbours {
    pub(super) fn new(size: [usize; 3], connectivity: Connectivity, space: Space) -> Self {
        let [width, height, _] = size.map(|length| length as isize);
        let flat = |[dx, dy, dz]: [isize; 3]| dx + width * (dy + height * dz);
        let fits = |step: &[isize; 3]| (0..3).all(|axis| step[axis] == 0 || size[axis] > 1);
        let steps = offsets(connectivity, space).into_iter().filter(fits);
        Self { size, steps: steps.map(|step| (step, flat(step))).collect() }
    }

    /// Visits the neighbours of a voxel in raster order.
    pub(super) fn visit(&self, index: usize, mut visit: impl FnMut(usize)) {
        let [width, height, depth] = self.size;
        let (row, x) = (index / width, index % width);
        let (z, y) = (row / height, row % height);
        let inner = |at: usize, length: usize| length < 2 || (at > 0 && at + 1 < length);
        if inner(x, width) && inner(y, height) && inner(z, depth) {
            for &(_, step) in &self.steps {
                visit(index.wrapping_add_signed(step));
            }
            return;
        }
        for &([dx, dy, dz], step) in &self.steps {
            let inside = step_within(x, dx, width).is_some()
                && step_within(y, dy, height).is_some()
                && step_within(z, dz, depth).is_some();
            if inside {
                visit(index.wrapping_add_signed(step));
            }
        }
    }
}

/// Returns `at + step`, or nothing where that leaves `0..length`.
pub(super) fn step_within(at: usize, step: isize, length: usize) -> Option<usize> {
    at.checked_add_signed(step).filter(|&to| to < length)
}

/// Returns `at + step`, or the nearest place in `0..length`, which must not be empty.
pub(super) fn step_clamped(at: usize, step: isize, length: usize) -> usize {
    at.saturating_add_signed(step).min(length - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_stay_in_the_grid() {
        for size in [[3, 3, 3], [4, 1, 2], [1, 1, 1], [1, 5, 1]] {
            let neighbours = Neighbours::new(size, Connectivity::Full, Space::Volume);
            let geometry = crate::volume::Geometry::unit(size);
            for index in 0..geometry.voxels() {
                let at = geometry.position(index);
                let mut seen = 0;
                neighbours.visit(index, |other| {
                    let to = geometry.position(other);
                    assert!((0..3).all(|k| at[k].abs_diff(to[k]) <= 1) && other != index);
                    seen += 1;
                });
                let span = |k: usize| (at[k] + 1).min(size[k] - 1) - at[k].saturating_sub(1) + 1;
                assert_eq!(seen + 1, span(0) * span(1) * span(2), "{at:?} in {size:?}");
            }
        }
    }

    #[test]
    fn neighbours_are_as_many_as_their_names_say() {
        for (connectivity, space, count) in [
            (Connectivity::Face, Space::Volume, 6),
            (Connectivity::Edge, Space::Volume, 18),
            (Connectivity::Full, Space::Volume, 26),
            (Connectivity::Face, Space::Slice, 4),
            (Connectivity::Full, Space::Slice, 8),
        ] {
            assert_eq!(offsets(connectivity, space).len(), count);
            // A voxel of a run touches 1 + 2 * reach voxels of each row around, and two of its own.
            let touched: usize =
                rows_around(connectivity, space).iter().map(|step| 1 + 2 * step.reach).sum();
            assert_eq!(touched + 2, count);
        }
    }
}
