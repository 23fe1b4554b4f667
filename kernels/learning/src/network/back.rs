//! The way back through a network: from how the loss changes with what was said to how it changes with
//! each weight.
//!
//! Every result of the way there is kept, and each operation hands back what its own rule gives
//! (reverse mode: Griewank and Walther 2008). Patches go by themselves, so that cores share them and
//! nothing depends on which have come before.

use std::collections::BTreeMap;

use super::convolve::Picture;
use super::direct::{DirectNetwork, sum};
use super::graph::{EPSILON, Op};

/// What was computed of a patch.
pub(crate) struct Kept {
    pub(super) results: Vec<Picture>,
}

impl Kept {
    /// The logits, and those of halved sides.
    pub(crate) fn logits(&self, op: usize) -> &[f32] {
        &self.results[op].values
    }
}

/// The slopes of weights, by name.
pub(crate) type Slopes = BTreeMap<String, Vec<f32>>;

impl DirectNetwork {
    /// The slopes of all weights, by those of what was said: the operation, and the slopes of its result.
    pub(crate) fn slopes(&self, kept: &Kept, said: &[(usize, &[f32])]) -> Slopes {
        let mut of_weights = Slopes::new();
        let mut pending: Vec<Option<Vec<f32>>> = vec![None; kept.results.len()];
        for (op, slopes) in said {
            add(&mut pending[*op], slopes.to_vec());
        }
        for (number, op) in self.graph.ops.iter().enumerate().rev() {
            let Some(slopes) = pending[number].take() else { continue };
            let result = &kept.results[number];
            let of = |number: usize| &kept.results[number];
            match op {
                Op::Input => {}
                Op::Conv { of: from, name, shift, .. } => {
                    let x = of(*from);
                    let slopes =
                        Picture { channels: result.channels, size: result.size, values: slopes };
                    let (shape, back) = &self.backs[&number];
                    of_weights.insert(format!("{name}.kernel"), shape.of_weights(x, &slopes));
                    if *shift {
                        let channels = slopes.values.chunks_exact(slopes.voxels());
                        let sums = channels.map(|channel| sum(channel, |x| x) as f32).collect();
                        of_weights.insert(format!("{name}.shift"), sums);
                    }
                    if *from != 0 {
                        let slopes = shape.of_input(back, &slopes, x.size);
                        add(&mut pending[*from], slopes.values);
                    }
                }
                Op::Norm { of: from, name, groups, .. } => {
                    let scale = self.part(name, "scale");
                    let back = normalised(of(*from), *groups, scale, slopes);
                    of_weights.insert(format!("{name}.scale"), back.scale);
                    of_weights.insert(format!("{name}.shift"), back.shift);
                    add(&mut pending[*from], back.input);
                }
                Op::Relu { of: from } => {
                    let mut slopes = slopes;
                    let open = slopes.iter_mut().zip(&result.values);
                    open.for_each(|(slope, value)| {
                        *slope = if *value > 0.0 { *slope } else { 0.0 }
                    });
                    add(&mut pending[*from], slopes);
                }
                Op::Add { of: from, and } => {
                    add(&mut pending[*and], slopes.clone());
                    add(&mut pending[*from], slopes);
                }
                Op::Concat { of: from, and } => {
                    let (first, second) = slopes.split_at(of(*from).values.len());
                    add(&mut pending[*from], first.to_vec());
                    add(&mut pending[*and], second.to_vec());
                }
                Op::Twice { of: from } => {
                    add(&mut pending[*from], halved(of(*from), &slopes, result.size));
                }
                Op::MaxPool { of: from } => {
                    add(&mut pending[*from], to_largest(of(*from), result, &slopes));
                }
                Op::MeanPool { of: from } => {
                    add(&mut pending[*from], to_four(of(*from), &slopes));
                }
                Op::Mean { of: from } => {
                    let x = of(*from);
                    let (voxels, count) = (x.voxels(), x.voxels() as f32);
                    let each = slopes.iter().flat_map(|slope| vec![slope / count; voxels]);
                    add(&mut pending[*from], each.collect());
                }
                Op::Linear { of: from, name, inputs, .. } => {
                    let x = &of(*from).values;
                    let rows = slopes.iter().flat_map(|slope| x.iter().map(move |x| slope * x));
                    of_weights.insert(format!("{name}.kernel"), rows.collect());
                    let mut back = vec![0.0; *inputs];
                    let kernel = self.part(name, "kernel").chunks_exact(*inputs);
                    for (row, slope) in kernel.zip(&slopes) {
                        back.iter_mut().zip(row).for_each(|(back, weight)| *back += slope * weight);
                    }
                    of_weights.insert(format!("{name}.shift"), slopes);
                    add(&mut pending[*from], back);
                }
            }
        }
        of_weights
    }
}

/// Adds slopes to those that others have handed back.
fn add(pending: &mut Option<Vec<f32>>, slopes: Vec<f32>) {
    match pending {
        Some(all) => all.iter_mut().zip(slopes).for_each(|(all, one)| *all += one),
        None => *pending = Some(slopes),
    }
}

/// The slopes of a normalisation's input, scale and shift.
struct Normalised {
    input: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

fn normalised(x: &Picture, groups: usize, scale: &[f32], mut slopes: Vec<f32>) -> Normalised {
    let (own, voxels) = (x.channels / groups, x.voxels());
    let count = (own * voxels) as f64;
    let (mut of_scale, mut of_shift) = (Vec::new(), Vec::new());
    let all = slopes.chunks_exact_mut(own * voxels).zip(x.values.chunks_exact(own * voxels));
    for ((slopes, x), scale) in all.zip(scale.chunks_exact(own)) {
        let mean = (sum(x, |x| x) / count) as f32;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
        let factor = (1.0 / (variance + EPSILON).sqrt()) as f32;
        // The means of the slopes before the scale, and of their products with what was normal.
        let (mut level, mut tilt) = (0.0, 0.0);
        let channels = slopes.chunks_exact_mut(voxels).zip(x.chunks_exact(voxels));
        for ((slopes, x), &scale) in channels.zip(scale) {
            let shift = sum(slopes, |slope| slope);
            let product = products(slopes, x, mean) * f64::from(factor);
            of_shift.push(shift as f32);
            of_scale.push(product as f32);
            level += f64::from(scale) * shift;
            tilt += f64::from(scale) * product;
        }
        let (level, tilt) = ((level / count) as f32, (tilt / count) as f32 * factor);
        let channels = slopes.chunks_exact_mut(voxels).zip(x.chunks_exact(voxels));
        for ((slopes, x), &scale) in channels.zip(scale) {
            for (slope, x) in slopes.iter_mut().zip(x) {
                *slope = factor * (*slope * scale - level - (x - mean) * tilt);
            }
        }
    }
    Normalised { input: slopes, scale: of_scale, shift: of_shift }
}

/// The sum of slopes times what lies above the mean.
#[allow(clippy::needless_range_loop, reason = "zipped loops are not made into vectors here")]
fn products(slopes: &[f32], x: &[f32], mean: f32) -> f64 {
    const LANES: usize = 16;
    let mut all = 0.0;
    for (slopes, x) in slopes.chunks(1024).zip(x.chunks(1024)) {
        let mut sums = [0.0_f32; LANES];
        let (chunks, rest) = slopes.as_chunks::<LANES>();
        let (x_chunks, x_rest) = x.as_chunks::<LANES>();
        for (slopes, x) in chunks.iter().zip(x_chunks) {
            for lane in 0..LANES {
                sums[lane] += slopes[lane] * (x[lane] - mean);
            }
        }
        for (sum, (slope, x)) in sums.iter_mut().zip(rest.iter().zip(x_rest)) {
            *sum += slope * (x - mean);
        }
        all += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
    }
    all
}

/// The slopes of voxels that were repeated along every axis.
fn halved(x: &Picture, slopes: &[f32], size: [usize; 3]) -> Vec<f32> {
    let [deep, high, wide] = size;
    let mut back = vec![0.0; x.values.len()];
    for (number, row) in slopes.chunks_exact(wide).enumerate() {
        let (channel, z, y) = (number / high / deep, number / high % deep, number % high);
        let (z, y) = (z * x.size[0] / deep, y / 2);
        let to = ((channel * x.size[0] + z) * x.size[1] + y) * x.size[2];
        let pairs = row.as_chunks::<2>().0;
        back[to..to + x.size[2]].iter_mut().zip(pairs).for_each(|(to, [a, b])| *to += a + b);
    }
    back
}

/// The slopes of 3 × 3 pixels at every second, of which the largest was taken: the first of several.
fn to_largest(x: &Picture, result: &Picture, slopes: &[f32]) -> Vec<f32> {
    let [_, rows, columns] = x.size;
    let [_, high, wide] = result.size;
    let mut back = vec![0.0; x.values.len()];
    let around = |at: usize, end: usize| (2 * at).saturating_sub(1)..(2 * at + 2).min(end);
    for (number, (slope, largest)) in slopes.iter().zip(&result.values).enumerate() {
        let (channel, row, column) = (number / wide / high, number / wide % high, number % wide);
        let first = channel * rows * columns;
        let mut pixels = around(row, rows).flat_map(|row| {
            around(column, columns).map(move |column| first + row * columns + column)
        });
        if let Some(place) = pixels.find(|&place| x.values[place] >= *largest) {
            back[place] += slope;
        }
    }
    back
}

/// The slopes of 2 × 2 pixels of which the mean was taken.
fn to_four(x: &Picture, slopes: &[f32]) -> Vec<f32> {
    let [_, rows, columns] = x.size;
    let (high, wide) = (rows / 2, columns / 2);
    let mut back = vec![0.0; x.values.len()];
    for (number, row) in slopes.chunks_exact(wide).enumerate() {
        let (channel, row_place) = (number / high, 2 * (number % high));
        for line in 0..2 {
            let to = (channel * rows + row_place + line) * columns;
            let pairs = back[to..to + 2 * wide].as_chunks_mut::<2>().0;
            pairs.iter_mut().zip(row).for_each(|(pair, slope)| *pair = [slope / 4.0; 2]);
        }
    }
    back
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{LoadedNetwork, Mode, Network, NetworkKind, Patch, Supervision};
    use crate::random::Random;

    #[test]
    fn every_slope_is_that_of_the_engine_that_keeps_what_it_does() {
        for kind in NetworkKind::ALL {
            let whole = kind.side_multiple() == 32;
            let (base_channels, side) = if whole { (8, 64) } else { (12, 24) };
            let depth = if kind.axes() == 3 { 8 } else { 1 };
            let supervision = if whole { Supervision::Top } else { Supervision::Deep };
            let network = Network { kind, base_channels, classes: 2, supervision };
            let patch = Patch { depth, side };
            let mut weights = network.initial(5);
            let mut random = Random::new(2, "vectors", 0, 0);
            for parameter in weights.0.values_mut().filter(|parameter| parameter.shape.len() == 1) {
                parameter.values.iter_mut().for_each(|one| *one += 0.3 * random.normal() as f32);
            }
            let mut draw =
                |count: usize| (0..count).map(|_| random.normal() as f32).collect::<Vec<f32>>();
            let image = draw(patch.voxels());
            let direct = DirectNetwork::learning(network, &weights);
            let kept = direct.keep(&image, patch);
            let said: Vec<(usize, Vec<f32>)> = direct
                .said()
                .into_iter()
                .map(|aid| (aid.op, draw(kept.logits(aid.op).len())))
                .collect();
            let slopes: Vec<(usize, &[f32])> =
                said.iter().map(|(op, slopes)| (*op, &slopes[..])).collect();
            let found = direct.slopes(&kept, &slopes);
            let loaded = LoadedNetwork::new(network, &weights, Mode::Learn);
            let output = loaded.forward(image, patch);
            let along = |logits: burn::tensor::Tensor<3>, slopes: &[f32]| {
                let shape = logits.dims();
                (logits * loaded.tensor(slopes.to_vec(), shape)).sum()
            };
            let mut loss = along(output.logits, slopes[0].1);
            for ((_, logits), (_, slopes)) in output.aids.into_iter().zip(&slopes[1..]) {
                loss = loss + along(logits, slopes);
            }
            let wanted = loaded.gradients(loss.backward());
            assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
            for (name, wanted) in &wanted {
                let largest = wanted.iter().fold(0.0_f32, |most, one| most.max(one.abs()));
                let pairs = found[name].iter().zip(wanted);
                let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert_eq!(found[name].len(), wanted.len(), "{kind:?} {name}");
                assert!(apart < 1e-3 * largest, "{kind:?} {name}: {apart} of {largest}");
            }
        }
    }
}
