//! The way back through convolutions: how the loss changes with what they were given, and with their
//! weights.

use pulp::NullaryFnOnce;

use super::convolve::{Kernel, LANES, Laid, OUTPUTS, Picture, add_times, vectorised};

/// Slopes that are gone through for all inputs and places before the next: they stay in the nearest
/// cache.
const TILES: usize = 64;

/// Slopes of eight outputs where some results lie side by side.
type Tile = [[f32; LANES]; OUTPUTS];

/// The shape of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// The kernel's sides along slices, rows and columns.
    pub(super) sides: [usize; 3],
    pub(super) strides: [usize; 3],
}

impl Shape {
    /// The convolution that leads slopes back from outputs to inputs: the kernel turned round.
    pub(super) fn back(self, weights: &[f32]) -> Kernel {
        let places: usize = self.sides.iter().product();
        let mut turned = Vec::with_capacity(weights.len());
        for input in 0..self.inputs {
            for output in 0..self.outputs {
                let first = (output * self.inputs + input) * places;
                turned.extend(weights[first..first + places].iter().rev());
            }
        }
        Kernel::new((self.inputs, self.outputs), (self.sides, [1; 3]), &turned, None)
    }

    /// The slopes of what was convolved, by those of the result.
    pub(super) fn of_input(self, back: &Kernel, slopes: &Picture, size: [usize; 3]) -> Picture {
        if self.strides == [1; 3] {
            return back.of(slopes);
        }
        // Of a stride of 2 every second place had a result.
        let mut wide = vec![0.0; self.outputs * size.iter().product::<usize>()];
        let rows = slopes.values.chunks_exact(slopes.size[2]).enumerate();
        for (number, row) in rows {
            let (channel, z, y) = (
                number / slopes.size[1] / slopes.size[0],
                number / slopes.size[1] % slopes.size[0] * self.strides[0],
                number % slopes.size[1] * self.strides[1],
            );
            let first = ((channel * size[0] + z) * size[1] + y) * size[2];
            let to = wide[first..first + size[2]].iter_mut().step_by(self.strides[2]);
            to.zip(row).for_each(|(to, from)| *to = *from);
        }
        back.of(&Picture { channels: self.outputs, size, values: wide })
    }

    /// The slopes of the weights: output, input, place.
    pub(super) fn of_weights(self, picture: &Picture, slopes: &Picture) -> Vec<f32> {
        let laid = Laid::new(picture, self.sides, self.strides);
        let places = self.inputs * laid.places.len();
        let [_, rows, columns] = laid.result;
        let mut all = Vec::with_capacity(self.outputs * places);
        for block in slopes.values.chunks(OUTPUTS * slopes.voxels()) {
            let mut tiles: Vec<Tile> = vec![[[0.0; LANES]; OUTPUTS]; laid.run().div_ceil(LANES)];
            for (output, values) in block.chunks_exact(slopes.voxels()).enumerate() {
                for (row, values) in values.chunks_exact(columns).enumerate() {
                    let to = (row / rows * laid.plane[1] + row % rows) * laid.plane[2];
                    for (place, value) in (to..).zip(values) {
                        tiles[place / LANES][output][place % LANES] = *value;
                    }
                }
            }
            let mut sums: Vec<Tile> = vec![[[0.0; LANES]; OUTPUTS]; places];
            vectorised(Slopes { laid: &laid, tiles: &tiles, sums: &mut sums });
            for output in 0..block.len() / slopes.voxels() {
                all.extend(sums.iter().map(|sums| sums[output].iter().sum::<f32>()));
            }
        }
        all
    }
}

/// For each input and place of the kernel the slopes of eight outputs' weights, in lanes.
struct Slopes<'a> {
    laid: &'a Laid,
    /// The slopes of the results in runs as they are laid, 0 at the borders.
    tiles: &'a [Tile],
    sums: &'a mut [Tile],
}

impl NullaryFnOnce for Slopes<'_> {
    type Output = ();

    #[allow(clippy::inline_always, reason = "it is compiled for each kind of processor")]
    #[allow(clippy::needless_range_loop, reason = "zipped loops are not made into vectors here")]
    #[inline(always)]
    fn call(self) {
        let Self { laid, tiles, sums } = self;
        for (number, tiles) in tiles.chunks(TILES).enumerate() {
            for (channel, sums) in sums.chunks_exact_mut(laid.places.len()).enumerate() {
                let values = &laid.values[channel * laid.channel + number * TILES * LANES..];
                for (sums, &place) in sums.iter_mut().zip(&laid.places) {
                    let mut all = *sums;
                    for (values, tile) in values[place..].as_chunks().0.iter().zip(tiles) {
                        for output in 0..OUTPUTS {
                            add_times(&mut all[output], values, &tile[output]);
                        }
                    }
                    *sums = all;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn picture(seed: u64, channels: usize, size: [usize; 3]) -> Picture {
        let mut random = Random::new(seed, "picture", 0, 0);
        let values = (0..channels * size.iter().product::<usize>()).map(|_| random.normal() as f32);
        Picture { channels, size, values: values.collect() }
    }

    /// The sum of the products of two pictures.
    fn product(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn the_way_back_is_the_transpose_of_the_way_there() {
        for (outputs, inputs, size, (sides, strides)) in [
            (9, 3, [1, 7, 13], ([1, 3, 3], [1; 3])),
            (5, 2, [1, 12, 10], ([1, 3, 3], [1, 2, 2])),
            (2, 4, [1, 9, 33], ([1, 7, 7], [1, 2, 2])),
            (8, 8, [1, 8, 6], ([1; 3], [1; 3])),
            (3, 2, [1, 8, 6], ([1; 3], [1, 2, 2])),
            (4, 2, [4, 6, 5], ([3; 3], [1; 3])),
            (9, 1, [8, 4, 10], ([3; 3], [2; 3])),
        ] {
            let shape = Shape { outputs, inputs, sides, strides };
            let x = picture(1, inputs, size);
            let weights = picture(2, outputs * inputs, sides).values;
            let forward = |x: &Picture, weights: &[f32]| {
                Kernel::new((outputs, inputs), (sides, strides), weights, None).of(x)
            };
            let result = forward(&x, &weights);
            let slopes = picture(3, outputs, result.size);
            // Convolution is linear in what is convolved and in its weights: how the product with the
            // slopes changes along any direction is the product of the direction with the way back.
            let along = picture(4, inputs, size);
            let (there, back) = (
                product(&forward(&along, &weights).values, &slopes.values),
                shape.of_input(&shape.back(&weights), &slopes, size),
            );
            assert_eq!(back.size, size);
            let apart = (there - product(&along.values, &back.values)).abs();
            assert!(apart < 1e-3, "{shape:?}: inputs are {apart} apart");
            let along = picture(5, outputs * inputs, sides).values;
            let there = product(&forward(&x, &along).values, &slopes.values);
            let apart = (there - product(&along, &shape.of_weights(&x, &slopes))).abs();
            assert!(apart < 1e-3, "{shape:?}: weights are {apart} apart");
        }
    }
}
