//! Convolutions of one picture without a matrix being made of it.
//!
//! A picture is laid out with its border around it, and each number of the result is summed where it
//! stands: some results of several outputs at once stay in the registers while all inputs go by. Rows
//! lie behind each other with their borders, so that what is computed is one run of numbers, of which
//! those at the borders are thrown away. For a stride of 2 the even and the odd rows and columns are
//! laid apart, which makes it the same sum.
//!
//! Sums are in one order whatever the processor, and nothing is fused: results are the same bits with
//! vectors of any width and on any number of threads.

use pulp::NullaryFnOnce;
use rayon::prelude::*;

/// Outputs that are summed at once.
pub(super) const OUTPUTS: usize = 8;
/// Results of each that are summed at once: with eight outputs they fill the registers of 32 bytes that
/// there are. Wider ones gain nothing here, and loops over more are not made into vectors.
pub(super) const LANES: usize = 8;

/// What an operation gives for one picture: channels, slices, rows, columns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) channels: usize,
    pub(super) size: [usize; 3],
    pub(super) values: Vec<f32>,
}

impl Picture {
    /// Voxels of a channel.
    pub(super) fn voxels(&self) -> usize {
        self.size.iter().product()
    }
}

/// The weights of a convolution, laid as they are taken.
pub(super) struct Kernel {
    outputs: usize,
    /// Its side along slices, rows and columns.
    sides: [usize; 3],
    strides: [usize; 3],
    /// For each eight outputs each input, of that each place of the kernel: eight weights.
    blocks: Vec<[f32; OUTPUTS]>,
    shift: Vec<f32>,
}

impl Kernel {
    /// Of weights by output, input and place.
    pub(super) fn new(
        (outputs, inputs): (usize, usize),
        (sides, strides): ([usize; 3], [usize; 3]),
        weights: &[f32],
        shift: Option<&[f32]>,
    ) -> Self {
        let places = inputs * sides.iter().product::<usize>();
        let mut blocks = Vec::new();
        for first in (0..outputs).step_by(OUTPUTS) {
            for place in 0..places {
                let of = |output: usize| weights.get(output * places + place).copied();
                blocks.push(std::array::from_fn(|one| of(first + one).unwrap_or(0.0)));
            }
        }
        let shift = shift.map_or_else(|| vec![0.0; outputs], <[f32]>::to_vec);
        Self { outputs, sides, strides, blocks, shift }
    }

    /// The convolution of a picture, with a border of zeros as wide as half the kernel.
    pub(super) fn of(&self, picture: &Picture) -> Picture {
        let laid = Laid::new(picture, self.sides, self.strides);
        let [slices, rows, columns] = laid.result;
        let voxels = slices * rows * columns;
        let mut values = vec![0.0; self.outputs * voxels];
        let places = self.blocks.len() / self.outputs.div_ceil(OUTPUTS);
        let run = laid.run().next_multiple_of(LANES);
        let shares = values.par_chunks_mut(OUTPUTS * voxels);
        let shares = shares.zip(self.blocks.par_chunks(places)).zip(self.shift.par_chunks(OUTPUTS));
        shares.for_each(|((values, weights), shift)| {
            let mut sums = vec![0.0; OUTPUTS * run];
            vectorised(Sum { laid: &laid, weights, sums: &mut sums });
            let outputs = values.chunks_exact_mut(voxels).zip(sums.chunks_exact(run)).zip(shift);
            for ((values, sums), shift) in outputs {
                for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                    let from = (row / rows * laid.plane[1] + row % rows) * laid.plane[2];
                    let sums = &sums[from..from + columns];
                    values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum + shift);
                }
            }
        });
        Picture { channels: self.outputs, size: laid.result, values }
    }
}

/// A picture laid out for a kernel.
pub(super) struct Laid {
    /// Channel, phase, and the plane of that.
    pub(super) values: Vec<f32>,
    /// Slices, rows and columns of a plane, the border included.
    pub(super) plane: [usize; 3],
    /// Numbers of a channel.
    pub(super) channel: usize,
    /// Where each place of the kernel begins in a channel.
    pub(super) places: Vec<usize>,
    /// Slices, rows and columns of the result.
    pub(super) result: [usize; 3],
}

impl Laid {
    pub(super) fn new(picture: &Picture, sides: [usize; 3], strides: [usize; 3]) -> Self {
        let axes = [0, 1, 2];
        let result = axes.map(|axis| (picture.size[axis] - 1) / strides[axis] + 1);
        let plane = axes.map(|axis| result[axis] + (sides[axis] - 1) / strides[axis]);
        let length: usize = plane.iter().product();
        let phases: usize = strides.iter().product();
        let mut places = Vec::new();
        for z in 0..sides[0] {
            for y in 0..sides[1] {
                for x in 0..sides[2] {
                    let ([pz, py, px], [z, y, x]) = (
                        [z % strides[0], y % strides[1], x % strides[2]],
                        [z / strides[0], y / strides[1], x / strides[2]],
                    );
                    let phase = (pz * strides[1] + py) * strides[2] + px;
                    places.push(phase * length + (z * plane[1] + y) * plane[2] + x);
                }
            }
        }
        let channel = phases * length;
        // Behind the last row the last sums read on.
        let mut values = vec![0.0; picture.channels * channel + LANES];
        let channels = picture.values.chunks_exact(picture.voxels());
        for (from, to) in channels.zip(values.chunks_exact_mut(channel)) {
            for (phase, to) in to.chunks_exact_mut(length).enumerate() {
                let phase = [
                    phase / strides[2] / strides[1],
                    phase / strides[2] % strides[1],
                    phase % strides[2],
                ];
                lay((from, picture.size), (to, plane), (phase, sides, strides));
            }
        }
        Self { values, plane, channel, places, result }
    }

    /// From the first result to the last, with the borders between.
    pub(super) fn run(&self) -> usize {
        let [slices, rows, columns] = self.result;
        ((slices - 1) * self.plane[1] + rows - 1) * self.plane[2] + columns
    }
}

/// Lays one phase of a channel into its plane, which is full of zeros.
fn lay(
    (from, size): (&[f32], [usize; 3]),
    (to, plane): (&mut [f32], [usize; 3]),
    (phase, sides, strides): ([usize; 3], [usize; 3], [usize; 3]),
) {
    // The place in the picture that a place of the plane stands for, if it is in the picture.
    let source = |axis: usize, place: usize| {
        let place = (place * strides[axis] + phase[axis]).checked_sub(sides[axis] / 2)?;
        (place < size[axis]).then_some(place)
    };
    let columns = || (0..plane[2]).filter_map(|column| Some((column, source(2, column)?)));
    let Some((first, first_source)) = columns().next() else { return };
    let count = columns().count();
    for (row, to) in to.chunks_exact_mut(plane[2]).enumerate() {
        let (Some(z), Some(y)) = (source(0, row / plane[1]), source(1, row % plane[1])) else {
            continue;
        };
        let from = &from[(z * size[1] + y) * size[2] + first_source..];
        let to = &mut to[first..first + count];
        if strides[2] == 1 {
            to.copy_from_slice(&from[..count]);
        } else {
            to.iter_mut().zip(from.iter().step_by(strides[2])).for_each(|(to, from)| *to = *from);
        }
    }
}

/// Runs a loop compiled for this processor.
pub(super) fn vectorised<W: NullaryFnOnce>(work: W) -> W::Output {
    // pulp's own choice knows these vectors only with a feature that changes other crates too.
    #[cfg(target_arch = "x86_64")]
    if let Some(processor) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(processor, work);
    }
    pulp::Arch::new().dispatch(work)
}

/// Sums for eight outputs, each in a run of its own.
struct Sum<'a> {
    laid: &'a Laid,
    weights: &'a [[f32; OUTPUTS]],
    sums: &'a mut [f32],
}

impl NullaryFnOnce for Sum<'_> {
    type Output = ();

    #[allow(clippy::inline_always, reason = "it is compiled for each kind of processor")]
    #[allow(clippy::needless_range_loop, reason = "zipped loops are not made into vectors here")]
    #[inline(always)]
    fn call(self) {
        let Self { laid, weights, sums } = self;
        let run = sums.len() / OUTPUTS;
        for first in (0..laid.run()).step_by(LANES) {
            let mut all = [[0.0_f32; LANES]; OUTPUTS];
            let channels = weights.chunks_exact(laid.places.len()).enumerate();
            for (channel, weights) in channels {
                let values = &laid.values[channel * laid.channel + first..];
                for (weights, &place) in weights.iter().zip(&laid.places) {
                    let Some(values) = values[place..].first_chunk() else { return };
                    for output in 0..OUTPUTS {
                        add_times(&mut all[output], &[weights[output]; LANES], values);
                    }
                }
            }
            for (sums, all) in sums.chunks_exact_mut(run).zip(&all) {
                sums[first..first + LANES].copy_from_slice(all);
            }
        }
    }
}

/// Adds products, side by side.
#[allow(clippy::needless_range_loop, reason = "zipped loops are not made into vectors here")]
#[allow(clippy::inline_always, reason = "it is compiled for each kind of processor")]
#[inline(always)]
pub(super) fn add_times(sums: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]) {
    for lane in 0..LANES {
        sums[lane] += a[lane] * b[lane];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut random = Random::new(seed, "numbers", 0, 0);
        (0..count).map(|_| random.normal() as f32).collect()
    }

    /// The convolution as it is written, in 64 bits.
    fn plain(
        picture: &Picture,
        outputs: usize,
        (sides, strides): ([usize; 3], [usize; 3]),
        weights: &[f32],
    ) -> Vec<f64> {
        let out = [0, 1, 2].map(|axis| (picture.size[axis] - 1) / strides[axis] + 1);
        let ranges = |of: [usize; 3]| {
            (0..of[0])
                .flat_map(move |z| (0..of[1]).flat_map(move |y| (0..of[2]).map(move |x| [z, y, x])))
        };
        let mut all = Vec::new();
        for output in 0..outputs {
            for at in ranges(out) {
                let mut sum = 0.0;
                for input in 0..picture.channels {
                    for (place, by) in ranges(sides).enumerate() {
                        let from = [0, 1, 2].map(|axis| {
                            let place = at[axis] * strides[axis] + by[axis];
                            place
                                .checked_sub(sides[axis] / 2)
                                .filter(|&one| one < picture.size[axis])
                        });
                        let [Some(z), Some(y), Some(x)] = from else { continue };
                        let size = picture.size;
                        let value =
                            picture.values[((input * size[0] + z) * size[1] + y) * size[2] + x];
                        let kernel: usize = sides.iter().product();
                        let weight = weights[(output * picture.channels + input) * kernel + place];
                        sum += f64::from(value) * f64::from(weight);
                    }
                }
                all.push(sum);
            }
        }
        all
    }

    #[test]
    fn every_number_is_the_sum_that_it_should_be() {
        let flat = |side: usize, stride: usize| ([1, side, side], [1, stride, stride]);
        for (inputs, outputs, size, (sides, strides)) in [
            (1, 4, [1, 16, 16], flat(3, 1)),
            (3, 9, [1, 7, 13], flat(3, 1)),
            (2, 8, [1, 12, 10], flat(3, 2)),
            (2, 5, [1, 9, 33], flat(7, 2)),
            (5, 2, [1, 8, 8], flat(1, 1)),
            (4, 8, [1, 8, 6], flat(1, 2)),
            (2, 8, [4, 6, 5], ([3; 3], [1; 3])),
            (2, 3, [8, 4, 10], ([3; 3], [2; 3])),
            (3, 8, [4, 4, 4], ([1; 3], [2; 3])),
            (1, 1, [1, 1, 1], flat(3, 1)),
        ] {
            let values = numbers(1, inputs * size.iter().product::<usize>());
            let picture = Picture { channels: inputs, size, values };
            let weights = numbers(2, outputs * inputs * sides.iter().product::<usize>());
            let shift = numbers(3, outputs);
            let kernel = Kernel::new((outputs, inputs), (sides, strides), &weights, Some(&shift));
            let found = kernel.of(&picture);
            let wanted = plain(&picture, outputs, (sides, strides), &weights);
            assert_eq!(found.values.len(), wanted.len(), "{sides:?} {strides:?}");
            let voxels = found.voxels();
            for (place, (found, wanted)) in found.values.iter().zip(&wanted).enumerate() {
                let wanted = wanted + f64::from(shift[place / voxels]);
                assert!((f64::from(*found) - wanted).abs() < 1e-4, "{sides:?} {strides:?} {place}");
            }
        }
    }

    #[test]
    fn the_vectors_of_this_processor_give_the_same_bits_as_none() {
        let picture = Picture { channels: 3, size: [1, 11, 14], values: numbers(1, 3 * 154) };
        let (sides, strides) = ([1, 3, 3], [1, 1, 1]);
        let weights = numbers(2, 8 * 3 * 9);
        let kernel = Kernel::new((8, 3), (sides, strides), &weights, None);
        let laid = Laid::new(&picture, sides, strides);
        let run = laid.run().next_multiple_of(LANES);
        let (mut plain, mut chosen) = (vec![0.0; run * OUTPUTS], vec![0.0; run * OUTPUTS]);
        Sum { laid: &laid, weights: &kernel.blocks, sums: &mut plain }.call();
        vectorised(Sum { laid: &laid, weights: &kernel.blocks, sums: &mut chosen });
        assert!(plain.iter().any(|sum| *sum != 0.0));
        assert_eq!(plain, chosen);
    }
}
