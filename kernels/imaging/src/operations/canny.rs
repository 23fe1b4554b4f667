//! Canny's edge detector, after Canny, "A computational approach to edge detection", IEEE PAMI 8(6),
//! 1986.
//!
//! Slice by slice it follows scikit-image 0.26 (`skimage.feature.canny` with its default border) to
//! the pixel: Gaussian with zeros beyond the border, made up for by the share of the kernel inside;
//! Sobel; non-maximum suppression interpolated along the gradient; hysteresis over 8 neighbours. It
//! computes in `f32`, as scikit-image does for such images. In a volume the same steps are taken in
//! space: see [`volume`].
//!
//! A slice is worked on in bands of rows that stay in a core's cache: smoothed, their gradient's
//! magnitude taken, and its tops marked. The gradient's direction is taken where strong pixels are
//! alone, for a block of them at once.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

mod volume;

use super::convolve::{Weigh, along_row};
use super::gaussian::{check_sigma, half_kernel};
use super::neighbourhood::Space;
use super::vector::{call, vectorised};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Geometry, Image, Mask};

/// What makes an edge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Canny {
    /// The standard deviation of the Gaussian, in millimetres. Default: 1 mm.
    pub sigma_mm: f64,
    /// The weakest response that continues an edge. Responses are those of the plain Sobel mask,
    /// 8 × the change of intensity per voxel (in a volume, per length of the voxel's shortest
    /// side). Default: 200, right for CT in Hounsfield units.
    pub low: f64,
    /// The weakest response that begins an edge. Default: 400.
    pub high: f64,
    /// Edges in each slice, or surfaces in the volume. Default: in each slice.
    pub space: Space,
}

impl Default for Canny {
    fn default() -> Self {
        Self { sigma_mm: 1.0, low: 200.0, high: 400.0, space: Space::Slice }
    }
}

impl Canny {
    /// Returns an error unless an edge can have these limits.
    pub(crate) fn check(&self) -> Result<(), ImagingError> {
        let Self { low, high, .. } = *self;
        if low >= 0.0 && high >= low {
            return Ok(());
        }
        Err(ImagingError::Parameter {
            operation: "canny",
            problem: format!("low is {low} and high {high}; 0 <= low <= high is needed"),
        })
    }

    /// Returns the limits as gradients in space, in intensity per millimetre.
    pub(crate) fn gradients(&self, spacing_mm: [f64; 3]) -> [f32; 2] {
        // The plain Sobel mask of a slice is 8 × the change per voxel; the same scale in space.
        let shortest = spacing_mm.into_iter().fold(f64::INFINITY, f64::min);
        [self.low, self.high].map(|response| (response / (8.0 * shortest)) as f32)
    }
}

/// Returns the edges: lines one voxel wide in each slice, or surfaces one voxel thick in the volume.
pub fn canny(image: &Image, parameters: &Canny) -> Result<Mask, ImagingError> {
    parameters.check()?;
    let [width, height, depth] = image.geometry.size;
    if parameters.space == Space::Volume && depth > 1 {
        return volume::canny(image, parameters);
    }
    let detector = Detector::new(&image.geometry, parameters)?;
    let mut voxels = memory::zeros::<u8>(image.voxels.len());
    if voxels.is_empty() {
        return Ok(Mask { geometry: image.geometry, voxels });
    }
    voxels.par_chunks_mut(width * height).enumerate().for_each(|(z, marks)| {
        let slice = image.slice(z);
        let bands = marks.par_chunks_mut(width * BAND_ROWS).enumerate();
        bands.for_each_init(
            || Band::new(width, &detector),
            |band, (k, marks)| band.mark(&detector, slice, k * BAND_ROWS, marks),
        );
        join(marks, width);
    });
    Ok(Mask { geometry: image.geometry, voxels })
}

/// The rows of a band.
const BAND_ROWS: usize = 32;
/// The pixels of a row that are looked over together.
const BLOCK: usize = 16;
/// Those with one more at each end.
const WIDE: usize = BLOCK + 2;
/// Marks of pixels: they continue an edge, or they begin one.
const WEAK: u8 = 1;
const STRONG: u8 = 2;

/// What is the same for all slices.
pub(crate) struct Detector {
    size: [usize; 2],
    /// The weights of the Gaussian along x and y, from its centre out.
    pub(crate) kernels: [Vec<f32>; 2],
    /// For each column and each row, 1 over the share of the Gaussian that lies inside.
    pub(crate) shares: [Vec<f32>; 2],
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Detector {
    pub(crate) fn new(geometry: &Geometry, parameters: &Canny) -> Result<Self, ImagingError> {
        let Canny { sigma_mm, low, high, .. } = *parameters;
        let sigmas = [0, 1].map(|axis| sigma_mm / geometry.spacing_mm[axis]);
        sigmas.iter().try_for_each(|&sigma| check_sigma("canny", sigma))?;
        let size = [geometry.size[0], geometry.size[1]];
        let kernels = sigmas.map(|sigma| if sigma > 0.0 { half_kernel(sigma) } else { vec![1.0] });
        let shares = [0, 1].map(|axis| {
            let (kernel, length) = (&kernels[axis], size[axis]);
            let sum = |reach: usize| kernel[1..].iter().take(reach).sum::<f64>();
            let share = |at: usize| kernel[0] + sum(at) + sum(length - 1 - at);
            (0..length).map(|at| (1.0 / share(at)) as f32).collect()
        });
        let kernels = kernels.map(|kernel| kernel.into_iter().map(|w| w as f32).collect());
        Ok(Self { size, kernels, shares, low: low as f32, high: high as f32 })
    }
}

/// What a thread keeps while it works on some rows of a slice.
struct Band {
    /// A row with zeros at both ends.
    padded: Vec<f32>,
    zeros: Vec<f32>,
    /// Smoothed rows with their ends repeated once: `width + 2` values each.
    smooth: Vec<f32>,
    /// The gradient's magnitude.
    strength: Vec<f32>,
}

impl Band {
    fn new(width: usize, detector: &Detector) -> Self {
        Self {
            padded: vec![0.0; width + 2 * (detector.kernels[0].len() - 1)],
            zeros: vec![0.0; width],
            smooth: vec![0.0; (width + 2) * (BAND_ROWS + 4)],
            strength: vec![0.0; width * (BAND_ROWS + 2)],
        }
    }

    /// Marks the tops of the gradient in the rows from `first` on.
    fn mark(&mut self, detector: &Detector, slice: &[f32], first: usize, marks: &mut [u8]) {
        let [width, height] = detector.size;
        let rows = first..first + marks.len() / width;
        let smoothed = first.saturating_sub(2)..(rows.end + 2).min(height);
        for y in smoothed.clone() {
            self.smooth_row(detector, slice, y, (y - smoothed.start) * (width + 2));
        }
        let strengths = first.saturating_sub(1)..(rows.end + 1).min(height);
        for y in strengths.clone() {
            let inputs = around(&self.smooth, &smoothed, y, detector.size);
            let output = &mut self.strength[(y - strengths.start) * width..][..width];
            vectorised(Magnitudes((inputs, output)));
        }
        // The outermost pixels have no neighbours to compare with.
        for y in rows.start.max(1)..rows.end.min(height - 1) {
            let inputs = around(&self.smooth, &smoothed, y, detector.size);
            let middle = (y - strengths.start) * width;
            let strength = |from: usize| &self.strength[from..from + width];
            let strengths = [strength(middle - width), strength(middle), strength(middle + width)];
            let marks = &mut marks[(y - first) * width..][..width];
            let Detector { low, high, .. } = *detector;
            vectorised(MarkRow(Row { low, high, smooth: inputs, strengths, marks }));
        }
    }

    /// Smooths row `y` of a slice into the place `at`, along y and then along x.
    fn smooth_row(&mut self, detector: &Detector, slice: &[f32], y: usize, at: usize) {
        let [width, height] = detector.size;
        let [along_x, along_y] = &detector.kernels;
        let (reach_x, reach_y) = (along_x.len() - 1, along_y.len() - 1);
        let rows: Vec<&[f32]> = (y..=y + 2 * reach_y)
            .map(|below| match below.checked_sub(reach_y).filter(|&row| row < height) {
                Some(row) => &slice[row * width..(row + 1) * width],
                None => &self.zeros,
            })
            .collect();
        vectorised(Weigh((&rows, along_y, &mut self.padded[reach_x..reach_x + width])));
        let output = &mut self.smooth[at..at + width + 2];
        along_row(&self.padded, along_x, &mut output[1..=width]);
        let share = detector.shares[1][y];
        for (value, share_x) in output[1..].iter_mut().zip(&detector.shares[0]) {
            *value *= share * share_x;
        }
        (output[0], output[width + 1]) = (output[1], output[width]);
    }
}

/// Returns the smoothed row `y` and its neighbours, the nearest repeated beyond the border.
/// `smooth` holds the rows that are `made`.
fn around<'a>(
    smooth: &'a [f32],
    made: &Range<usize>,
    y: usize,
    [width, height]: [usize; 2],
) -> [&'a [f32]; 3] {
    [y.saturating_sub(1), y, (y + 1).min(height - 1)]
        .map(|row| &smooth[(row - made.start) * (width + 2)..][..width + 2])
}

/// Returns the gradient by the plain Sobel mask between three rows with one value more at each end.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn sobel([a, b, c]: [&[f32]; 3], x: usize) -> [f32; 2] {
    let along_x = (b[x + 2] - b[x]) * 2.0 + ((a[x + 2] - a[x]) + (c[x + 2] - c[x]));
    let along_y = (c[x + 1] - a[x + 1]) * 2.0 + ((c[x] - a[x]) + (c[x + 2] - a[x + 2]));
    [along_x, along_y]
}

call!(Magnitudes(([&'a [f32]; 3], &'a mut [f32])) => magnitudes);

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn magnitudes((rows, output): ([&[f32]; 3], &mut [f32])) {
    let width = output.len();
    let rows = rows.map(|row| &row[..width + 2]);
    for (x, output) in output.iter_mut().enumerate() {
        let [gx, gy] = sobel(rows, x);
        *output = (gy * gy + gx * gx).sqrt();
    }
}

/// What marks a row of a slice.
struct Row<'a> {
    low: f32,
    high: f32,
    /// The smoothed row and its neighbours, with one value more at each end.
    smooth: [&'a [f32]; 3],
    /// The responses of the row and of its neighbours.
    strengths: [&'a [f32]; 3],
    marks: &'a mut [u8],
}

call!(MarkRow(Row<'a>) => mark_row);

/// Marks the pixels of a row whose response is at least `low` and no smaller than at the two places
/// one step up and down the gradient.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn mark_row(row: Row) {
    let Row { low, high, smooth, strengths, marks } = row;
    let end = marks.len().saturating_sub(1);
    let mut from = 1;
    while from + BLOCK <= end {
        let strengths = strengths.map(|row| row[from - 1..].first_chunk::<WIDE>());
        let smooth = smooth.map(|row| row[from..].first_chunk::<WIDE>());
        let ([Some(a), Some(b), Some(c)], [Some(d), Some(e), Some(f)]) = (strengths, smooth) else {
            break;
        };
        if b[1..=BLOCK].iter().fold(0, |any, &value| any | u8::from(value >= low)) != 0 {
            let mut found = [0; BLOCK];
            for x in 0..BLOCK {
                found[x] = mark_of(low, high, [d, e, f], [a, b, c], x);
            }
            for (mark, found) in marks[from..from + BLOCK].iter_mut().zip(found) {
                *mark = found as u8;
            }
        }
        from += BLOCK;
    }
    for x in from..end {
        let around = |row: &[f32], from: usize| std::array::from_fn(|k| row[from + k]);
        let strengths: [[f32; 3]; 3] = strengths.map(|row| around(row, x - 1));
        let smooth: [[f32; 3]; 3] = smooth.map(|row| around(row, x));
        marks[x] = mark_of(low, high, smooth.each_ref(), strengths.each_ref(), 0) as u8;
    }
}

/// Returns the mark of one pixel, from rows that begin one before it, `x` further on.
///
/// The places up and down the gradient lie between a neighbour straight ahead and one on the
/// diagonal. Where a component is 0 the gradient points both ways at once, and the rule for equal
/// signs is the one that counts. Everything is computed for every pixel, so that vectors can do it;
/// without a gradient the weight is no number, and no comparison with it holds.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn mark_of<const N: usize>(
    low: f32,
    high: f32,
    smooth: [&[f32; N]; 3],
    strengths: [&[f32; N]; 3],
    x: usize,
) -> u32 {
    let [gx, gy] = sobel(smooth.map(<[f32; N]>::as_slice), x);
    let [above, row, below] = strengths;
    let equal = gx * gy >= 0.0;
    let (along_x, along_y) = (gx.abs(), gy.abs());
    let steep = along_y > along_x;
    let weight = if steep { along_x / along_y } else { along_y / along_x };
    let straight = [
        if steep { below[x + 1] } else { choose(equal, row[x + 2], row[x]) },
        if steep { above[x + 1] } else { choose(equal, row[x], row[x + 2]) },
    ];
    let diagonal = [choose(equal, below[x + 2], below[x]), choose(equal, above[x], above[x + 2])];
    let here = row[x + 1];
    let lower = |k: usize| diagonal[k] * weight + straight[k] * (1.0 - weight) <= here;
    let top = u32::from(lower(0)) & u32::from(lower(1)) & u32::from(here >= low);
    top * if here >= high { u32::from(STRONG) } else { u32::from(WEAK) }
}

#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn choose(first: bool, a: f32, b: f32) -> f32 {
    if first { a } else { b }
}

/// Turns the marks of a slice into edges: strong pixels and the weak ones that they reach over 8
/// neighbours. Marks never lie on the border.
fn join(marks: &mut [u8], width: usize) {
    let mut waiting: Vec<usize> = Vec::new();
    let around = [width + 1, width, width - 1, 1];
    for block in 0..marks.len().div_ceil(BLOCK) {
        let range = block * BLOCK..((block + 1) * BLOCK).min(marks.len());
        if marks[range.clone()].iter().fold(0, |any, &mark| any | u8::from(mark == STRONG)) == 0 {
            continue;
        }
        waiting.extend(range.filter(|&at| marks[at] == STRONG));
        while let Some(at) = waiting.pop() {
            for to in around.into_iter().flat_map(|step| [at - step, at + step]) {
                if marks[to] == WEAK {
                    marks[to] = STRONG;
                    waiting.push(to);
                }
            }
        }
    }
    for mark in marks {
        *mark /= STRONG;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canny_draws_a_step_one_pixel_wide() {
        let mut image = Image::filled(Geometry::unit([32, 16, 2]), 0.0);
        for (index, value) in image.voxels.iter_mut().enumerate() {
            *value = if index % 32 >= 16 { 100.0 } else { 0.0 };
        }
        let edges = canny(&image, &Canny { low: 50.0, high: 100.0, ..Canny::default() }).unwrap();
        // The step lies between two columns that respond alike but for rounding: one of them is
        // drawn, or both, in every row but the outermost.
        for (row, pixels) in edges.voxels.chunks(32).enumerate() {
            let drawn = pixels[15] + pixels[16];
            assert_eq!(drawn, pixels.iter().sum::<u8>(), "row {row}");
            assert_eq!(drawn > 0, !matches!(row % 16, 0 | 15), "row {row}");
        }
        assert!(canny(&image, &Canny { low: 3.0, high: 2.0, ..Canny::default() }).is_err());
    }
}
