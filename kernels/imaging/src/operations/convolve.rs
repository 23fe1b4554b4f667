//! Convolution with a symmetric kernel along each axis.
//!
//! Everything is one sum over rows: along y and z the rows around a row, along x the same row
//! shifted. A band of a few rows goes through all slices at once: each slice of it is summed along
//! y, then along x, and put into a ring that holds just the slices that the sum along z needs. So
//! the image is read and the result written once, and what lies between stays in a core's own cache.
//! Sums are made in one fixed order, whatever the bands, the threads or the vectors.

use rayon::prelude::*;

use super::neighbourhood::step_clamped;
use super::vector::{call, vectorised};
use crate::memory;
use crate::volume::Image;

/// Voxels of a row that are summed together, and those of a row's end.
const WIDE: usize = 64;
const NARROW: usize = 16;
/// What the ring of a band may take: half of a common second-level cache.
const RING_BYTES: usize = 1 << 18;
/// The fewest and the most rows of a band. Each band reads `radius` rows more on both sides.
const BAND_ROWS: (usize, usize) = (4, 32);

/// Returns the image convolved along each axis with a kernel given from its centre out; an axis
/// with an empty kernel is left alone. Beyond the border the nearest voxel is repeated.
pub(super) fn convolve(image: &Image, kernels: [&[f32]; 3]) -> Vec<f32> {
    let [width, height, depth] = image.geometry.size;
    let mut voxels = memory::zeros::<f32>(image.voxels.len());
    if voxels.is_empty() {
        return voxels;
    }
    let slots = (2 * kernels[2].len()).saturating_sub(1).clamp(1, depth);
    let rows = (RING_BYTES / (4 * width * slots)).clamp(BAND_ROWS.0, BAND_ROWS.1).min(height);
    let mut bands: Vec<Band> = Vec::new();
    for (z, slice) in voxels.chunks_mut(width * height).enumerate() {
        for (k, output) in slice.chunks_mut(width * rows).enumerate() {
            if z == 0 || kernels[2].is_empty() {
                bands.push(Band { first_row: k * rows, first_slice: z, slices: Vec::new() });
            }
            let at = if kernels[2].is_empty() { bands.len() - 1 } else { k };
            bands[at].slices.push(output);
        }
    }
    bands.into_par_iter().for_each_init(
        || Scratch::new(width, rows, slots, kernels[0].len()),
        |scratch, mut band| band.run(image, kernels, scratch),
    );
    voxels
}

/// Some neighbouring rows of one or of all slices, to be written.
struct Band<'a> {
    first_row: usize,
    first_slice: usize,
    slices: Vec<&'a mut [f32]>,
}

/// What a thread keeps while it works on a band.
struct Scratch {
    /// A row with its ends repeated.
    padded: Vec<f32>,
    /// The slices of the band that are summed along y and x.
    ring: Vec<f32>,
    slots: usize,
}

impl Scratch {
    fn new(width: usize, rows: usize, slots: usize, kernel: usize) -> Self {
        let padded = vec![0.0; width + 2 * kernel.saturating_sub(1)];
        Self { padded, ring: vec![0.0; width * rows * slots], slots }
    }
}

impl Band<'_> {
    fn run(&mut self, image: &Image, kernels: [&[f32]; 3], scratch: &mut Scratch) {
        let width = image.geometry.size[0];
        let Some(reach) = kernels[2].len().checked_sub(1) else {
            for (k, output) in self.slices.iter_mut().enumerate() {
                let at = (self.first_row, self.first_slice + k);
                in_slice(image, at, kernels, &mut scratch.padded, output);
            }
            return;
        };
        let Scratch { padded, ring, slots } = scratch;
        let (slots, depth) = (*slots, self.slices.len());
        let length = self.slices[0].len();
        let slot = |z: usize| (z % slots) * length..(z % slots + 1) * length;
        let mut made = 0;
        for z in 0..depth {
            while made < (z + reach + 1).min(depth) {
                let at = (self.first_row, made);
                in_slice(image, at, kernels, padded, &mut ring[slot(made)]);
                made += 1;
            }
            for (k, output) in self.slices[z].chunks_mut(width).enumerate() {
                let rows: Vec<&[f32]> = (-(reach as isize)..=reach as isize)
                    .map(|step| &ring[slot(step_clamped(z, step, depth))][k * width..][..width])
                    .collect();
                vectorised(Weigh((&rows, kernels[2], output)));
            }
        }
    }
}

/// Writes rows of one slice, from `(row, slice)` on, summed along y and then along x.
fn in_slice(
    image: &Image,
    (first_row, z): (usize, usize),
    kernels: [&[f32]; 3],
    padded: &mut [f32],
    output: &mut [f32],
) {
    let [width, height, _] = image.geometry.size;
    let slice = image.slice(z);
    let (reach_x, reach_y) =
        (kernels[0].len().saturating_sub(1), kernels[1].len().saturating_sub(1));
    for (k, output) in output.chunks_mut(width).enumerate() {
        let along_y = if kernels[0].is_empty() {
            &mut *output
        } else {
            &mut padded[reach_x..reach_x + width]
        };
        let row =
            |step: isize| &slice[step_clamped(first_row + k, step, height) * width..][..width];
        if kernels[1].is_empty() {
            along_y.copy_from_slice(row(0));
        } else {
            let reach = reach_y as isize;
            let rows: Vec<&[f32]> = (-reach..=reach).map(row).collect();
            vectorised(Weigh((&rows, kernels[1], along_y)));
        }
        if !kernels[0].is_empty() {
            let (first, last) = (padded[reach_x], padded[reach_x + width - 1]);
            padded[..reach_x].fill(first);
            padded[reach_x + width..].fill(last);
            along_row(padded, kernels[0], output);
        }
    }
}

/// Writes the sums along a row that is given with as many values more at each end as the kernel
/// reaches.
pub(super) fn along_row(padded: &[f32], half_kernel: &[f32], output: &mut [f32]) {
    let width = output.len();
    let rows: Vec<&[f32]> =
        (0..2 * half_kernel.len() - 1).map(|shift| &padded[shift..shift + width]).collect();
    vectorised(Weigh((&rows, half_kernel, output)));
}

call! {
    /// The weighted sums over rows, given with the weights from the middle one out.
    pub(super) Weigh((&'a [&'a [f32]], &'a [f32], &'a mut [f32])) => weigh
}

/// Writes for each place of a row the weighted sum over rows: the middle one times the first
/// weight, then the pairs around it from the inside out.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn weigh((rows, half_kernel, output): (&[&[f32]], &[f32], &mut [f32])) {
    let width = output.len();
    let mut at = 0;
    while at + WIDE <= width {
        block::<WIDE>(rows, half_kernel, at, output);
        at += WIDE;
    }
    while at + NARROW <= width {
        block::<NARROW>(rows, half_kernel, at, output);
        at += NARROW;
    }
    for at in at..width {
        block::<1>(rows, half_kernel, at, output);
    }
}

/// Writes the sums of `N` places from `at` on. As many as the processor's registers hold pay for the
/// slices that are taken for each weight.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn block<const N: usize>(rows: &[&[f32]], half_kernel: &[f32], at: usize, output: &mut [f32]) {
    let reach = half_kernel.len() - 1;
    let middle = &rows[reach][at..at + N];
    let mut sum = [0.0f32; N];
    for i in 0..N {
        sum[i] = middle[i] * half_kernel[0];
    }
    let pairs = rows[..reach].iter().rev().zip(&rows[reach + 1..]);
    for ((left, right), &weight) in pairs.zip(&half_kernel[1..]) {
        let (left, right) = (&left[at..at + N], &right[at..at + N]);
        for i in 0..N {
            sum[i] += (left[i] + right[i]) * weight;
        }
    }
    output[at..at + N].copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    /// The sum at one voxel along one axis after the other, voxel by voxel.
    fn plain(image: &Image, kernels: [&[f32]; 3]) -> Vec<f32> {
        let mut current = image.clone();
        for axis in [1, 0, 2].into_iter().filter(|&axis| !kernels[axis].is_empty()) {
            let before = current.clone();
            for (index, value) in current.voxels.iter_mut().enumerate() {
                let at = before.geometry.position(index);
                let there = |step: isize| {
                    let mut to = at;
                    to[axis] = step_clamped(at[axis], step, before.geometry.size[axis]);
                    *before.at(to[0], to[1], to[2])
                };
                *value = there(0) * kernels[axis][0];
                for (k, weight) in kernels[axis].iter().enumerate().skip(1) {
                    *value += (there(-(k as isize)) + there(k as isize)) * weight;
                }
            }
        }
        current.voxels
    }

    #[test]
    fn bands_and_rings_give_the_bits_of_plain_sums() {
        let long: Vec<f32> = (0..7).map(|k| 0.3 / (k + 1) as f32).collect();
        let short = [0.5f32, 0.25];
        for size in [[37, 11, 9], [16, 70, 3], [5, 4, 20], [1, 1, 1], [40, 1, 6], [1, 9, 1]] {
            let geometry = Geometry::unit(size);
            let values = (0..geometry.voxels()).map(|k| ((k * 7919) % 1009) as f32 * 0.37 - 100.0);
            let image = Image::new(geometry, values.collect()).unwrap();
            for kernels in [
                [&long[..], &short, &long],
                [&short, &long, &short],
                [&[], &long, &long],
                [&long, &[], &[]],
                [&[], &[], &long],
                [&[1.0], &[2.0], &[3.0]],
                [&[], &[], &[]],
            ] {
                assert_eq!(convolve(&image, kernels), plain(&image, kernels), "{size:?}");
            }
        }
    }
}
