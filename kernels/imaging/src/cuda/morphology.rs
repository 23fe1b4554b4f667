//! Binary morphology on a device: [`crate::morphology`], the same masks.

use super::device::{Argument, Array, Device, Grid, launch};
use crate::error::ImagingError;
use crate::morphology::{Ball, check_radius, closing_margin};
use crate::neighbourhood::Space;
use crate::volume::Mask;

/// Returns the voxels that lie within the ball's radius of the mask.
pub(crate) fn dilate<D: Device>(
    device: &D,
    mask: &Mask,
    ball: &Ball,
) -> Result<Mask, ImagingError> {
    apply(device, mask, ball, &[Step::Dilate])
}

/// Returns the voxels of the mask around which the whole ball lies in the mask.
pub(crate) fn erode<D: Device>(device: &D, mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
    apply(device, mask, ball, &[Step::Erode])
}

/// Returns the mask without what is thinner than the ball.
pub(crate) fn open<D: Device>(device: &D, mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
    apply(device, mask, ball, &[Step::Erode, Step::Dilate])
}

/// Returns the mask with gaps narrower than the ball closed.
pub(crate) fn close<D: Device>(device: &D, mask: &Mask, ball: &Ball) -> Result<Mask, ImagingError> {
    check_radius(ball)?;
    let size = mask.geometry.size;
    let margin = closing_margin(size, ball);
    let grid = Grid::of(&mask.geometry)?;
    let wide = Grid::new([0, 1, 2].map(|axis| size[axis] + 2 * margin[axis]))?;
    // The mask, the wider one and its distances.
    device.require((grid.voxels() + 2 * wide.voxels()) as u64)?;
    let input = device.upload(&mask.voxels)?;
    let (here, margin) = (Margin::new([0; 3]), Margin::new(margin));
    let ball = OnDevice { device, ball };
    let mut distances = device.array(wide.voxels())?;
    ball.distances(&input, &mut distances, Step::Dilate, (margin, grid, wide))?;
    let mut dilated = device.array(wide.voxels())?;
    ball.within(&distances, &mut dilated, Step::Dilate, (here, wide, wide))?;
    ball.distances(&dilated, &mut distances, Step::Erode, (here, wide, wide))?;
    drop((input, dilated));
    let mut closed = device.array(grid.voxels())?;
    ball.within(&distances, &mut closed, Step::Erode, (margin, wide, grid))?;
    Mask::new(mask.geometry, device.download(&closed)?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Dilate,
    Erode,
}

/// Dilates and erodes on the mask's own grid.
fn apply<D: Device>(
    device: &D,
    mask: &Mask,
    ball: &Ball,
    steps: &[Step],
) -> Result<Mask, ImagingError> {
    check_radius(ball)?;
    let grid = Grid::of(&mask.geometry)?;
    // The mask and the distances.
    device.require(2 * grid.voxels() as u64)?;
    let mut current = device.upload(&mask.voxels)?;
    let mut distances = device.array(grid.voxels())?;
    let places = (Margin::new([0; 3]), grid, grid);
    let ball = OnDevice { device, ball };
    for &step in steps {
        ball.distances(&current, &mut distances, step, places)?;
        ball.within(&distances, &mut current, step, places)?;
    }
    Mask::new(mask.geometry, device.download(&current)?)
}

/// A ball that is moved over masks in a device's memory. Places are a margin and the grids of what is
/// read and of what is written.
struct OnDevice<'a, D> {
    device: &'a D,
    ball: &'a Ball,
}

impl<D: Device> OnDevice<'_, D> {
    fn distances(
        &self,
        mask: &Array<D::Memory, u8>,
        output: &mut Array<D::Memory, u8>,
        step: Step,
        (margin, from, to): (Margin, Grid, Grid),
    ) -> Result<(), ImagingError> {
        let (of, radius) = (u32::from(step == Step::Dilate), self.ball.radius_voxels as u32);
        let device = self.device;
        launch!(device, "distance_along_x", to.voxels(), mask, output, of, radius, margin, from, to)
    }

    fn within(
        &self,
        distances: &Array<D::Memory, u8>,
        output: &mut Array<D::Memory, u8>,
        step: Step,
        (margin, from, to): (Margin, Grid, Grid),
    ) -> Result<(), ImagingError> {
        let radius = self.ball.radius_voxels as u32;
        let deep = u32::from(self.ball.space == Space::Volume);
        let (inverted, device) = (u32::from(step == Step::Erode), self.device);
        launch!(
            device,
            "within_ball",
            to.voxels(),
            distances,
            output,
            radius,
            deep,
            inverted,
            margin,
            from,
            to
        )
    }
}

/// By how many voxels a grid reaches beyond another on each side, as kernels want it.
#[derive(Debug, Clone, Copy)]
struct Margin([u32; 3]);

impl Margin {
    fn new(voxels: [usize; 3]) -> Self {
        Self(voxels.map(|voxels| voxels as u32))
    }
}

impl<M> From<Margin> for Argument<'_, M> {
    fn from(margin: Margin) -> Self {
        Self::value("Margin", &margin.0)
    }
}
