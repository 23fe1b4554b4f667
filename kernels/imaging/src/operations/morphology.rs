//! Binary morphology with a ball: dilate, erode, open, close; and filling holes.
//!
//! The ball of radius r holds the voxels whose centres lie at most r voxels away (as
//! `skimage.morphology.ball`); in slices it is a disk. What lies outside the grid counts as
//! background for dilation and as foreground for erosion, so the border itself never eats a mask.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::components;
use super::crop::{self, Bounds};
use super::neighbourhood::{Connectivity, Space};
use super::runs::Runs;
use crate::error::ImagingError;
use crate::memory;
use crate::volume::Mask;

/// The largest radius, in voxels: a ball of 33,000 voxels, beyond which a distance map is the tool.
pub const RADIUS_MAX: usize = 20;

/// The ball that dilates or erodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ball {
    /// Its radius in voxels. Default: 1.
    pub radius_voxels: usize,
    /// A ball in the volume or a disk in each slice. Default: a ball.
    pub space: Space,
}

impl Default for Ball {
    fn default() -> Self {
        Self { radius_voxels: 1, space: Space::Volume }
    }
}

/// Returns the voxels that lie within the ball's radius of the mask.
pub fn dilate(mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
    grow(mask, ball, 1)
}

/// Returns the voxels of the mask around which the whole ball lies in the mask.
pub fn erode(mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
    Ok(grow(mask, ball, 0)?.map(|&outside| 1 - outside))
}

/// Returns the mask without what is thinner than the ball: eroded, then dilated.
pub fn open(mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
    dilate(&erode(mask, ball)?, ball)
}

/// Returns the mask with gaps narrower than the ball closed: dilated, then eroded. The mask is
/// dilated beyond the border too, so closing does not glue it there.
pub fn close(mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
    check_radius(ball)?;
    let size = mask.geometry.size;
    let margin = closing_margin(size, ball);
    let closed = erode(&dilate(&crop::pad(mask, margin, 0)?, ball)?, ball)?;
    let to = [0, 1, 2].map(|axis| margin[axis] + size[axis]);
    Ok(Mask { geometry: mask.geometry, ..crop::crop(&closed, &Bounds { from: margin, to })? })
}

/// Returns how far beyond each side of a mask closing dilates it. An axis of one voxel has no extent:
/// beyond it there is nothing to close against.
pub(crate) fn closing_margin(size: [usize; 3], ball: &Ball) -> [usize; 3] {
    [0, 1, 2].map(|axis| {
        let flat = size[axis] < 2 || (axis == 2 && ball.space == Space::Slice);
        if flat { 0 } else { ball.radius_voxels }
    })
}

/// Returns the mask with its holes filled: the background that no face-connected path joins to the
/// border of the grid (or of its slice).
#[must_use]
pub fn fill_holes(mask: &Mask, space: Space) -> Mask {
    let size = mask.geometry.size;
    let background = Runs::new(size, &mask.voxels, |label| label == 0);
    let (numbers, count) = background.components(Connectivity::Face, space);
    let list = components::describe(&background, &numbers, count, size);
    let outside = background.paint(|run| {
        let component = list[numbers[run] as usize];
        let ends = component.touches_ends && space == Space::Volume;
        u8::from(component.touches_sides || ends)
    });
    Mask { geometry: mask.geometry, voxels: outside.iter().map(|&outside| 1 - outside).collect() }
}

/// Returns the voxels within the ball's radius of those that are in the mask (`of` 1) or out of it
/// (`of` 0).
fn grow(mask: &Mask, ball: &Ball, of: u8) -> Result<Mask, ImagingError> {
    check_radius(ball)?;
    let size = mask.geometry.size;
    let runs = Runs::new(size, &mask.voxels, |label| u8::from(label != 0) == of);
    let radius = ball.radius_voxels as isize;
    let rows_deep = if ball.space == Space::Volume { radius } else { 0 };
    let mut rows = Vec::new();
    for dz in -rows_deep..=rows_deep {
        for dy in -radius..=radius {
            let left = radius * radius - dz * dz - dy * dy;
            if left >= 0 {
                rows.push((dy, dz, left.isqrt() as usize));
            }
        }
    }
    let width = size[0];
    let mut voxels = memory::zeros::<u8>(mask.voxels.len());
    voxels.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, voxels)| {
        for &(dy, dz, reach) in &rows {
            let Some(other) = runs.row_at(row, dy, dz) else { continue };
            for run in &runs.list[runs.of_row(other)] {
                let start = (run.start as usize).saturating_sub(reach);
                voxels[start..(run.end as usize + reach).min(width)].fill(1);
            }
        }
    });
    Ok(Mask { geometry: mask.geometry, voxels })
}

pub(crate) fn check_radius(ball: &Ball) -> Result<(), ImagingError> {
    if ball.radius_voxels <= RADIUS_MAX {
        return Ok(());
    }
    Err(ImagingError::Parameter {
        operation: "morphology",
        problem: format!(
            "a radius of {} voxels is more than the limit of {RADIUS_MAX}; resample the mask to \
             larger voxels first",
            ball.radius_voxels
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    fn dot(size: [usize; 3], at: [usize; 3]) -> Mask {
        let mut mask = Mask::filled(Geometry::unit(size), 0);
        let index = mask.geometry.index(at[0], at[1], at[2]);
        mask.voxels[index] = 1;
        mask
    }

    #[test]
    fn balls_have_the_known_number_of_voxels() {
        // Voxels within r of a voxel: the sequences of lattice points in balls and disks.
        for (radius_voxels, space, voxels) in [
            (0, Space::Volume, 1),
            (1, Space::Volume, 7),
            (2, Space::Volume, 33),
            (3, Space::Volume, 123),
            (1, Space::Slice, 5),
            (2, Space::Slice, 13),
            (3, Space::Slice, 29),
        ] {
            let ball = Ball { radius_voxels, space };
            let dilated = dilate(&dot([9, 9, 9], [4, 4, 4]), &ball).unwrap();
            assert_eq!(dilated.count(), voxels, "{ball:?}");
            assert_eq!(erode(&dilated, &ball).unwrap(), dot([9, 9, 9], [4, 4, 4]), "{ball:?}");
        }
    }

    #[test]
    fn the_border_does_not_eat_a_mask() {
        let full = Mask::filled(Geometry::unit([5, 4, 3]), 1);
        assert_eq!(erode(&full, &Ball::default()).unwrap(), full);
        assert_eq!(open(&full, &Ball::default()).unwrap(), full);
    }

    #[test]
    fn closing_bridges_and_opening_cuts() {
        let mut bar = Mask::filled(Geometry::unit([11, 5, 1]), 0);
        for x in (0..11).filter(|&x| x != 5) {
            for y in 1..4 {
                let index = bar.geometry.index(x, y, 0);
                bar.voxels[index] = 1;
            }
        }
        // Of the gap of three pixels, the ball fills the one whose neighbours it covers too.
        assert_eq!(close(&bar, &Ball::default()).unwrap().count(), 31);
        let thin = dot([11, 5, 1], [5, 2, 0]);
        assert_eq!(open(&thin, &Ball::default()).unwrap().count(), 0);
    }

    #[test]
    fn holes_are_what_the_border_cannot_reach() {
        let mut shell = Mask::filled(Geometry::unit([5, 5, 5]), 1);
        for z in 1..5 {
            let index = shell.geometry.index(2, 2, z);
            shell.voxels[index] = 0;
        }
        assert_eq!(fill_holes(&shell, Space::Volume), shell, "a tunnel to the last slice");
        assert_eq!(fill_holes(&shell, Space::Slice).count(), 125);
    }

    #[test]
    fn refuses_a_radius_over_the_limit() {
        let ball = Ball { radius_voxels: RADIUS_MAX + 1, ..Ball::default() };
        assert!(dilate(&dot([3, 3, 1], [1, 1, 0]), &ball).is_err());
    }
}
