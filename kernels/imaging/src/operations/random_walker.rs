//! The random walker after Grady, "Random walks for image segmentation", IEEE PAMI 28(11), 2006.
//!
//! Each voxel gets the label of the seeds that a walker starting there most probably meets first,
//! if it crosses differences of intensity unwillingly: an edge between neighbours weighs
//! exp(−beta × difference² / (10 × standard deviation × spacing²)) + 10⁻¹⁰, as
//! `skimage.segmentation.random_walker` has it. The probabilities solve one sparse linear system a
//! label; conjugate gradients solve it, preconditioned by a multigrid cycle over groups of voxels that
//! hang together.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbourhood::{Connectivity, Space};
use super::reach::Region;
use crate::error::ImagingError;
use crate::volume::{Image, Mask};

mod graph;
mod solver;

use solver::System;

/// How unwillingly walkers cross edges, and how exactly they are followed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RandomWalker {
    /// The greater, the more an edge holds a walker back. Default: 130, as scikit-image.
    pub beta: f64,
    /// How much of the error of the linear systems may remain, as a share of their solution, in the
    /// norm of the system's own energy. Default: 0.001.
    pub tolerance: f64,
}

impl Default for RandomWalker {
    fn default() -> Self {
        Self { beta: 130.0, tolerance: 1e-3 }
    }
}

/// Returns for each voxel the label whose seeds a random walker most probably meets first (of
/// equals, the lowest), or 0 where no path of finite values leads to a seed.
pub fn random_walker(
    image: &Image,
    seeds: &Mask,
    parameters: &RandomWalker,
) -> Result<Mask, ImagingError> {
    image.require_same_grid(seeds)?;
    let RandomWalker { beta, tolerance } = *parameters;
    if !(beta >= 0.0 && beta.is_finite() && tolerance > 0.0 && tolerance < 1.0) {
        return Err(ImagingError::Parameter {
            operation: "random_walker",
            problem: format!(
                "beta is {beta} and tolerance {tolerance}; beta must be 0 or more, the tolerance \
                 lie between 0 and 1"
            ),
        });
    }
    let mut known = [false; 256];
    seeds.voxels.iter().for_each(|&label| known[usize::from(label)] = true);
    let labels: Vec<u8> = (1..=u8::MAX).filter(|&label| known[usize::from(label)]).collect();
    let reached = reachable(image, seeds);
    let Some((&last, others)) = labels.split_last() else { return Ok(reached) };
    if others.is_empty() {
        return Ok(reached.map(|&inside| inside * last));
    }
    let system = System::of_image(image, seeds, beta);
    let mut best: Vec<(f32, u8)> = vec![(0.0, 0); image.voxels.len()];
    let mut left = vec![1.0f64; image.voxels.len()];
    for &label in others {
        let right = system.pull_of(image, seeds, label, beta);
        let probability = system.solve(&right, tolerance);
        best.par_iter_mut().zip(&mut left).zip(&probability).for_each(|((best, left), &p)| {
            *left -= p;
            if p as f32 > best.0 {
                *best = (p as f32, label);
            }
        });
    }
    let mut voxels = seeds.voxels.clone();
    for (index, voxel) in voxels.iter_mut().enumerate() {
        let (p, label) = best[index];
        if *voxel == 0 && reached.voxels[index] != 0 {
            *voxel = if left[index] as f32 > p { last } else { label };
        }
    }
    Ok(Mask { geometry: image.geometry, voxels })
}

/// Returns the voxels with finite values that a path of finite values joins to a seed; seeds
/// themselves always count.
fn reachable(image: &Image, seeds: &Mask) -> Mask {
    let size = image.geometry.size;
    let starts = (0..seeds.voxels.len()).filter(|&index| seeds.voxels[index] != 0);
    let region = Region::grow(size, starts, Connectivity::Face, Space::Volume, |row, flags| {
        let from = row * size[0];
        let values = image.voxels[from..].iter().zip(&seeds.voxels[from..]);
        for (flag, (value, &seed)) in flags.voxels().iter_mut().zip(values) {
            *flag = u8::from(value.is_finite() || seed != 0);
        }
    });
    Mask { geometry: image.geometry, voxels: region.paint() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn without_contrast_the_nearest_seed_wins() {
        let image = Image::filled(Geometry::unit([9, 1, 1]), 5.0);
        let mut seeds = Mask::filled(image.geometry, 0);
        (seeds.voxels[0], seeds.voxels[7]) = (3, 9);
        let parameters = RandomWalker { tolerance: 1e-8, ..RandomWalker::default() };
        let found = random_walker(&image, &seeds, &parameters).unwrap();
        assert_eq!(found.voxels, [3, 3, 3, 3, 9, 9, 9, 9, 9]);
    }

    #[test]
    fn an_edge_stops_walkers_and_a_gap_in_the_data_does_too() {
        let geometry = Geometry::unit([16, 16, 4]);
        let mut image = Image::filled(geometry, 0.0);
        for (index, value) in image.voxels.iter_mut().enumerate() {
            let [x, y, _] = geometry.position(index);
            *value = if x >= 4 { 100.0 } else { 0.0 } + ((x * 7 + y * 3) % 5) as f32;
            if x == 14 {
                *value = f32::NAN;
            }
        }
        let mut seeds = Mask::filled(geometry, 0);
        seeds.voxels[geometry.index(1, 8, 2)] = 1;
        seeds.voxels[geometry.index(12, 2, 1)] = 2;
        let found = random_walker(&image, &seeds, &RandomWalker::default()).unwrap();
        for (index, &label) in found.voxels.iter().enumerate() {
            let [x, ..] = geometry.position(index);
            let expected = match x {
                0..4 => 1,
                4..14 => 2,
                _ => 0,
            };
            assert_eq!(label, expected, "{:?}", geometry.position(index));
        }
    }

    #[test]
    fn one_label_takes_all_and_none_takes_nothing() {
        let image = Image::filled(Geometry::unit([4, 4, 4]), 1.0);
        let mut seeds = Mask::filled(image.geometry, 0);
        let all = RandomWalker::default();
        assert_eq!(random_walker(&image, &seeds, &all).unwrap().count(), 0);
        seeds.voxels[5] = 7;
        assert_eq!(random_walker(&image, &seeds, &all).unwrap().count_of(7), 64);
        assert!(random_walker(&image, &seeds, &RandomWalker { beta: -1.0, ..all }).is_err());
    }
}
