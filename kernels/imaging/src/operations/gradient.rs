//! The gradient by the operators of Sobel, Scharr and Prewitt.
//!
//! Along each axis a central difference is smoothed along the other axes by three weights, which
//! [`Operator`] lists; beyond the border the nearest voxel is repeated. Where voxels are 1 mm wide,
//! `skimage.filters.sobel` and its siblings give twice as much over √(dimensions).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::{Space, step_clamped};
use super::vector::{call, vectorised};
use crate::memory;
use crate::volume::{Geometry, Image};

/// Whose weights smooth the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// (1, 2, 1) / 4.
    #[default]
    Sobel,
    /// (3, 10, 3) / 16: less dependent on the edge's direction.
    Scharr,
    /// (1, 1, 1) / 3.
    Prewitt,
}

impl Operator {
    /// Returns the weights of the outer and the middle voxel.
    const fn weights(self) -> (f32, f32) {
        match self {
            Self::Sobel => (0.25, 0.5),
            Self::Scharr => (0.1875, 0.625),
            Self::Prewitt => (1.0 / 3.0, 1.0 / 3.0),
        }
    }
}

/// Returns the magnitude of the gradient in intensity per millimetre. In slices, the derivative
/// along z is left out.
#[must_use]
pub fn magnitude(image: &Image, operator: Operator, space: Space) -> Image {
    let [width, height, _] = image.geometry.size;
    let mut voxels = memory::zeros::<f32>(image.voxels.len());
    let stencil = Stencil::new(image, operator, space);
    voxels.par_chunks_mut(width.max(1)).with_min_len(16).enumerate().for_each_init(
        || Rows::new(width),
        |rows, (row, output)| {
            let inputs = stencil.rows_around(row % height, row / height);
            vectorised(FillRow((rows, &inputs, &stencil, output)));
        },
    );
    Image { geometry: image.geometry, voxels }
}

/// Writes the magnitudes of neighbouring rows, from the given one (y + height × z) on.
pub(super) fn rows(stencil: &Stencil, first: usize, output: &mut [f32]) {
    let [width, height, _] = stencil.image.geometry.size;
    let mut rows = Rows::new(width);
    for (row, output) in (first..).zip(output.chunks_mut(width)) {
        let inputs = stencil.rows_around(row % height, row / height);
        vectorised(FillRow((&mut rows, &inputs, stencil, output)));
    }
}

/// How the gradient of an image on a grid is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scheme {
    /// The weights of the outer and the middle voxel.
    pub(crate) weights: (f32, f32),
    /// Half of 1 / spacing along each axis.
    pub(crate) scale: [f32; 3],
    /// Whether there is a derivative along z.
    pub(crate) deep: bool,
}

impl Scheme {
    pub(crate) fn new(geometry: &Geometry, operator: Operator, space: Space) -> Self {
        let scale = geometry.spacing_mm.map(|spacing| (0.5 / spacing) as f32);
        let deep = space == Space::Volume && geometry.size[2] > 1;
        Self { weights: operator.weights(), scale, deep }
    }
}

/// An image and how its gradient is taken.
pub(super) struct Stencil<'a> {
    image: &'a Image,
    weights: (f32, f32),
    /// Half of 1 / spacing along each axis.
    scale: [f32; 3],
    deep: bool,
}

impl<'a> Stencil<'a> {
    pub(super) fn new(image: &'a Image, operator: Operator, space: Space) -> Self {
        let Scheme { weights, scale, deep } = Scheme::new(&image.geometry, operator, space);
        Self { image, weights, scale, deep }
    }

    /// Returns the nine rows around a row in raster order; in slices, all are of the own slice.
    fn rows_around(&self, y: usize, z: usize) -> [&'a [f32]; 9] {
        let [width, height, depth] = self.image.geometry.size;
        std::array::from_fn(|k| {
            let dz = if self.deep { k as isize / 3 - 1 } else { 0 };
            let at =
                step_clamped(z, dz, depth) * height + step_clamped(y, k as isize % 3 - 1, height);
            &self.image.voxels[at * width..(at + 1) * width]
        })
    }

    /// Returns the gradient at one voxel, in intensity per millimetre.
    pub(super) fn at(&self, [x, y, z]: [usize; 3]) -> [f32; 3] {
        let rows = self.rows_around(y, z);
        let width = self.image.geometry.size[0];
        let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
        let (side, middle) = self.weights;
        let weight = [side, middle, side];
        let mut gradient = [0.0f32; 3];
        for (k, row) in rows.iter().enumerate() {
            let (dy, dz) = (k % 3, k / 3);
            let across = row[columns[0]] * side + row[columns[1]] * middle + row[columns[2]] * side;
            gradient[0] += (row[columns[2]] - row[columns[0]]) * weight[dy] * weight[dz];
            gradient[1] += across * (dy as f32 - 1.0) * weight[dz];
            gradient[2] += across * weight[dy] * (dz as f32 - 1.0);
        }
        [0, 1, 2].map(|axis| gradient[axis] * self.scale[axis])
    }
}

/// The nine rows combined: smoothed across, and their differences along y and z. Each has one value
/// more at both ends.
struct Rows {
    smooth: Vec<f32>,
    along_y: Vec<f32>,
    along_z: Vec<f32>,
}

type RowArguments<'a> = (&'a mut Rows, &'a [&'a [f32]; 9], &'a Stencil<'a>, &'a mut [f32]);

call!(FillRow(RowArguments<'a>) => Rows::fill);

impl Rows {
    fn new(width: usize) -> Self {
        let row = vec![0.0; width + 2];
        Self { smooth: row.clone(), along_y: row.clone(), along_z: row }
    }

    /// Writes the magnitudes of a row, given the rows around it.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn fill((rows, inputs, stencil, output): RowArguments) {
        rows.combine(inputs, stencil);
        rows.magnitudes(stencil, output);
    }

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn combine(&mut self, inputs: &[&[f32]; 9], stencil: &Stencil) {
        let width = inputs[0].len();
        let (side, middle) = stencil.weights;
        let [a, b, c, d, e, f, g, h, i] = inputs.map(|row| &row[..width]);
        let smooth = &mut self.smooth[1..=width];
        let along_y = &mut self.along_y[1..=width];
        let along_z = &mut self.along_z[1..=width];
        if stencil.deep {
            for x in 0..width {
                let near = (a[x] + c[x]) * side + b[x] * middle;
                let here = (d[x] + f[x]) * side + e[x] * middle;
                let far = (g[x] + i[x]) * side + h[x] * middle;
                smooth[x] = (near + far) * side + here * middle;
                along_y[x] = ((c[x] - a[x]) + (i[x] - g[x])) * side + (f[x] - d[x]) * middle;
                along_z[x] = far - near;
            }
        } else {
            for x in 0..width {
                smooth[x] = (d[x] + f[x]) * side + e[x] * middle;
                along_y[x] = f[x] - d[x];
            }
        }
        for row in [&mut self.smooth, &mut self.along_y, &mut self.along_z] {
            row[0] = row[1];
            row[width + 1] = row[width];
        }
    }

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn magnitudes(&self, stencil: &Stencil, output: &mut [f32]) {
        let width = output.len();
        let (side, middle) = stencil.weights;
        let [scale_x, scale_y, scale_z] = stencil.scale;
        let (smooth, along_y, along_z) =
            (&self.smooth[..width + 2], &self.along_y[..width + 2], &self.along_z[..width + 2]);
        let across = |row: &[f32], x: usize| (row[x] + row[x + 2]) * side + row[x + 1] * middle;
        if stencil.deep {
            for x in 0..width {
                let gx = (smooth[x + 2] - smooth[x]) * scale_x;
                let gy = across(along_y, x) * scale_y;
                let gz = across(along_z, x) * scale_z;
                output[x] = (gx * gx + gy * gy + gz * gz).sqrt();
            }
        } else {
            for x in 0..width {
                let gx = (smooth[x + 2] - smooth[x]) * scale_x;
                let gy = across(along_y, x) * scale_y;
                output[x] = (gx * gx + gy * gy).sqrt();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Operator; 3] = [Operator::Sobel, Operator::Scharr, Operator::Prewitt];

    #[test]
    fn a_slope_is_measured_per_millimetre() {
        let geometry = Geometry::new([8, 8, 8], [0.5, 2.0, 4.0]);
        for operator in ALL {
            for axis in 0..3 {
                let mut image = Image::filled(geometry, 0.0);
                for (index, value) in image.voxels.iter_mut().enumerate() {
                    let at = geometry.position(index)[axis] as f64;
                    *value = 3.0 * (at * geometry.spacing_mm[axis]) as f32;
                }
                let middle = *magnitude(&image, operator, Space::Volume).at(4, 4, 4);
                assert!((middle - 3.0).abs() < 1e-5, "{operator:?} along {axis}: {middle}");
                let in_slice = *magnitude(&image, operator, Space::Slice).at(4, 4, 4);
                let expected = if axis == 2 { 0.0 } else { 3.0 };
                assert!((in_slice - expected).abs() < 1e-5, "{operator:?} along {axis}");
            }
        }
    }

    #[test]
    fn one_voxel_is_as_the_whole() {
        let geometry = Geometry::new([6, 5, 4], [1.0, 2.0, 3.0]);
        let voxels = (0..geometry.voxels()).map(|k| ((k * 31) % 17) as f32).collect();
        let image = Image::new(geometry, voxels).unwrap();
        for (operator, space) in
            ALL.map(|o| (o, Space::Volume)).into_iter().chain([(ALL[0], Space::Slice)])
        {
            let whole = magnitude(&image, operator, space);
            let stencil = Stencil::new(&image, operator, space);
            for index in 0..geometry.voxels() {
                let [gx, gy, gz] = stencil.at(geometry.position(index));
                let one = (gx * gx + gy * gy + gz * gz).sqrt();
                assert!((one - whole.voxels[index]).abs() < 1e-4, "{operator:?} at {index}");
            }
        }
    }
}
