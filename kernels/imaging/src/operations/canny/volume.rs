//! Canny's detector in space: edges are surfaces.
//!
//! Gaussian over the volume, the nearest voxel repeated beyond the border; Sobel's gradient in
//! intensity per millimetre; a voxel stays where its gradient is no weaker than at the two places
//! where the line along the gradient (in millimetres) leaves the 3 × 3 × 3 voxels around it, linearly
//! interpolated on the face it leaves through; hysteresis over 26 neighbours. Voxels of the outermost
//! layers have no neighbours to compare with and are never edges.
//!
//! Beside the smoothed image only the gradient's magnitude in some slices is kept; its direction is
//! computed again for the few voxels that are strong enough.

use rayon::prelude::*;

use super::super::gaussian::{Gaussian, gaussian};
use super::super::gradient::{self, Operator, Stencil};
use super::super::neighbourhood::{Connectivity, Space};
use super::super::reach::Region;
use super::Canny;
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Geometry, Image, Mask};

/// The most slices that are marked together; the gradient of one more on both sides is taken for them.
const SLAB_MAX: usize = 8;
const WEAK: u8 = 1;
const STRONG: u8 = 2;

/// Returns the surfaces of a volume of more than one slice.
pub(super) fn canny(image: &Image, parameters: &Canny) -> Result<Mask, ImagingError> {
    let geometry = image.geometry;
    let sigma_mm = parameters.sigma_mm;
    let smooth = gaussian(image, &Gaussian { sigma_mm, space: Space::Volume })?;
    let [low, high] = parameters.gradients(geometry.spacing_mm);
    let stencil = Stencil::new(&smooth, Operator::Sobel, Space::Volume);
    let [width, height, depth] = geometry.size;
    let area = width * height;
    let mut marks = memory::zeros::<u8>(image.voxels.len());
    let slab = depth.div_ceil(4 * rayon::current_num_threads()).clamp(1, SLAB_MAX);
    marks.par_chunks_mut((area * slab).max(1)).enumerate().for_each_init(
        || vec![0.0f32; area * (slab + 2)],
        |strength, (k, marks)| {
            let first = k * slab;
            let end = first + marks.len() / area;
            let around = first.saturating_sub(1)..(end + 1).min(depth);
            let strength = &mut strength[..area * around.len()];
            gradient::rows(&stencil, around.start * height, strength);
            let ridge = Ridge { stencil: &stencil, geometry, strength, first: around.start };
            for (row, marks) in marks.chunks_mut(width).enumerate() {
                ridge.mark([row % height, first + row / height], low, high, marks);
            }
        },
    );
    drop(smooth);
    let strong = (0..marks.len()).filter(|&index| marks[index] == STRONG);
    let full = Connectivity::Full;
    let edges = Region::grow(geometry.size, strong, full, Space::Volume, |row, flags| {
        flags.set(&marks[row * width..(row + 1) * width], |mark| mark != 0);
    });
    Ok(Mask { geometry, voxels: edges.paint() })
}

/// The gradient of a smoothed image in some of its slices.
struct Ridge<'a> {
    stencil: &'a Stencil<'a>,
    geometry: Geometry,
    /// Its magnitude in the slices from `first` on.
    strength: &'a [f32],
    first: usize,
}

impl Ridge<'_> {
    /// Marks the tops of row `y` of slice `z`.
    fn mark(&self, [y, z]: [usize; 2], low: f32, high: f32, marks: &mut [u8]) {
        let row = self.place([0, y, z]);
        for (x, mark) in marks.iter_mut().enumerate() {
            let strength = self.strength[row + x];
            if strength >= low && strength > 0.0 && self.is_top([x, y, z]) {
                *mark = if strength >= high { STRONG } else { WEAK };
            }
        }
    }

    /// Returns where the strength of a voxel lies.
    fn place(&self, [x, y, z]: [usize; 3]) -> usize {
        self.geometry.index(x, y, z - self.first)
    }

    /// Returns whether the gradient at a voxel is no weaker than up and down along itself.
    fn is_top(&self, at: [usize; 3]) -> bool {
        let geometry = &self.geometry;
        let outermost = |axis: usize| {
            geometry.size[axis] > 1 && (at[axis] == 0 || at[axis] + 1 == geometry.size[axis])
        };
        if (0..3).any(outermost) {
            return false;
        }
        let gradient = self.stencil.at(at);
        // The direction in voxels; an axis of one voxel has none.
        let along = [0, 1, 2].map(|axis| {
            let flat = geometry.size[axis] < 2;
            if flat { 0.0 } else { gradient[axis] / geometry.spacing_mm[axis] as f32 }
        });
        let main =
            (0..3).fold(0, |main, k| if along[k].abs() > along[main].abs() { k } else { main });
        if along[main] == 0.0 {
            return false;
        }
        let direction = along.map(|component| component / along[main].abs());
        let here = self.strength[self.place(at)];
        [1.0f32, -1.0].into_iter().all(|sign| self.beside(at, main, direction, sign) <= here)
    }

    /// Returns the strength one voxel away along the main axis, interpolated across the other two.
    fn beside(&self, at: [usize; 3], main: usize, direction: [f32; 3], sign: f32) -> f32 {
        let geometry = &self.geometry;
        let strides = [1, geometry.size[0], geometry.size[0] * geometry.size[1]];
        let step = |axis: usize| {
            let towards = (direction[axis] * sign).signum() as isize;
            towards * strides[axis] as isize
        };
        let index = self.place(at);
        let face = index.wrapping_add_signed(step(main));
        let [u, v] = [(main + 1) % 3, (main + 2) % 3];
        let value = |to: usize| self.strength[to];
        // A neighbour of no weight may lie beyond the border and does not count.
        let mix = |from: usize, axis: usize, next: &dyn Fn(usize) -> f32| {
            let share = direction[axis].abs();
            if share == 0.0 {
                return next(from);
            }
            (1.0 - share) * next(from) + share * next(from.wrapping_add_signed(step(axis)))
        };
        mix(face, u, &|from| mix(from, v, &value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ball_gets_a_shell_one_voxel_thick_whatever_the_spacing() {
        for spacing in [[1.0, 1.0, 1.0], [1.0, 1.0, 2.5]] {
            let size = spacing.map(|s: f64| (48.0 / s) as usize);
            let geometry = Geometry::new(size, spacing);
            let mut image = Image::filled(geometry, 0.0);
            let radius = |index: usize| {
                let at = geometry.position(index);
                let squares =
                    (0..3).map(|k| ((at[k] as f64 - size[k] as f64 / 2.0) * spacing[k]).powi(2));
                squares.sum::<f64>().sqrt()
            };
            for index in 0..geometry.voxels() {
                image.voxels[index] = (100.0 * (16.5 - radius(index)).clamp(0.0, 1.0)) as f32;
            }
            let parameters = Canny { sigma_mm: 1.5, low: 50.0, high: 100.0, space: Space::Volume };
            let edges = super::super::canny(&image, &parameters).unwrap();
            let shell: Vec<usize> =
                (0..geometry.voxels()).filter(|&index| edges.voxels[index] != 0).collect();
            assert!(shell.iter().all(|&index| (radius(index) - 16.0).abs() < 1.6 * spacing[2]));
            // The area of the sphere over the area of a voxel's middle cut, and up to twice that
            // where the surface is oblique to the grid.
            let area = 4.0 * std::f64::consts::PI * 256.0;
            let cells = area / (spacing[0] * spacing[1] * spacing[2]).powf(2.0 / 3.0);
            let ratio = shell.len() as f64 / cells;
            assert!((0.7..1.6).contains(&ratio), "{spacing:?}: {ratio}");
            // Nothing leaks: what the shell encloses does not reach the border.
            let filled = crate::morphology::fill_holes(&edges, Space::Volume);
            assert_eq!(*filled.at(size[0] / 2, size[1] / 2, size[2] / 2), 1);
        }
    }
}
