//! Fast marching: when a front that starts at the seeds arrives, given its speed everywhere.
//!
//! Solves |∇T| = 1 / speed upwind, in the order of arrival, after Sethian, "A fast marching level
//! set method for monotonically advancing fronts", PNAS 93, 1996; the discretisation is that of
//! ITK's `FastMarchingImageFilter`, spacing included.

use serde::{Deserialize, Serialize};

use super::neighbourhood::{Connectivity, Neighbours, Space};
use super::queue::{FloodQueue, Shore};
use super::region::{Voxel, indices};
use crate::error::ImagingError;
use crate::memory;
use crate::volume::{Image, Mask};

/// How far the front marches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FastMarching {
    /// The time at which it stops, in millimetres over the speed image's units. Default: never.
    pub stop: f64,
}

impl Default for FastMarching {
    fn default() -> Self {
        Self { stop: f64::MAX }
    }
}

/// Returns the time of arrival at each voxel: 0 at the seeds, infinite where the front does not
/// come. A speed that is not positive is a wall.
pub fn arrival(
    speed: &Image,
    seeds: &[Voxel],
    parameters: &FastMarching,
) -> Result<Image, ImagingError> {
    let stop = parameters.stop;
    if stop.is_nan() || stop < 0.0 {
        let problem = format!("stop is {stop}; it must be 0 or more");
        return Err(ImagingError::Parameter { operation: "fast_marching", problem });
    }
    let seeds = indices(&speed.geometry, seeds, "fast_marching")?;
    let mut front = Front {
        speed,
        neighbours: Neighbours::new(speed.geometry.size, Connectivity::Face, Space::Volume),
        times: memory::filled(speed.voxels.len(), f32::INFINITY),
        alive: memory::filled(speed.voxels.len(), false),
    };
    let mut queue = FloodQueue::new();
    for &seed in &seeds {
        front.times[seed] = 0.0;
        queue.push(0.0, seed as u32);
    }
    let mut touched = Vec::new();
    while let Some((time, index)) = queue.pop(&front) {
        let index = index as usize;
        if f64::from(time) > stop {
            break;
        }
        if front.alive[index] || time > front.times[index] {
            continue;
        }
        front.alive[index] = true;
        front.neighbours.visit(index, |to| touched.push(to));
        for to in touched.drain(..) {
            if !front.alive[to]
                && front.times[to] != 0.0
                && let Some(time) = front.solve(to)
            {
                front.times[to] = time;
                queue.push(time, to as u32);
            }
        }
    }
    // What was only reached after the stop has no final time.
    let times = front.times.iter().zip(&front.alive);
    let voxels = times.map(|(&time, &alive)| if alive { time } else { f32::INFINITY }).collect();
    Ok(Image { geometry: speed.geometry, voxels })
}

/// Returns the voxels that the front has reached when it stops.
pub fn fast_marching(
    speed: &Image,
    seeds: &[Voxel],
    parameters: &FastMarching,
) -> Result<Mask, ImagingError> {
    Ok(arrival(speed, seeds, parameters)?.map(|time| u8::from(time.is_finite())))
}

struct Front<'a> {
    speed: &'a Image,
    neighbours: Neighbours,
    times: Vec<f32>,
    /// Whether a voxel's time is final.
    alive: Vec<bool>,
}

impl Shore for Front<'_> {
    fn matters(&self, voxel: u32) -> bool {
        !self.alive[voxel as usize]
    }
}

impl Front<'_> {
    /// Returns the time of arrival that the final neighbours of a voxel give.
    fn solve(&self, index: usize) -> Option<f32> {
        let speed = f64::from(self.speed.voxels[index]);
        if !(speed > 0.0 && speed.is_finite()) {
            return None;
        }
        let geometry = &self.speed.geometry;
        let at = geometry.position(index);
        let strides = [1, geometry.size[0], geometry.size[0] * geometry.size[1]];
        // For each axis, the earlier of the two neighbours, and 1 / spacing².
        let mut upwind = [(f64::INFINITY, 0.0); 3];
        for axis in 0..3 {
            let known = |other: usize| {
                if self.alive[other] { f64::from(self.times[other]) } else { f64::INFINITY }
            };
            let before = if at[axis] > 0 { known(index - strides[axis]) } else { f64::INFINITY };
            let last = at[axis] + 1 == geometry.size[axis];
            let after = if last { f64::INFINITY } else { known(index + strides[axis]) };
            upwind[axis] = (before.min(after), geometry.spacing_mm[axis].powi(-2));
        }
        upwind.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut a, mut b, mut c) = (0.0, 0.0, -1.0 / (speed * speed));
        let mut solution = f64::INFINITY;
        for (time, weight) in upwind {
            if !time.is_finite() || solution < time {
                break;
            }
            a += weight;
            b += time * weight;
            c += time * time * weight;
            solution = ((b * b - a * c).max(0.0).sqrt() + b) / a;
        }
        solution.is_finite().then_some(solution as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    #[test]
    fn a_line_takes_its_length_over_its_speed() {
        let geometry = Geometry::new([5, 1, 1], [2.0, 1.0, 1.0]);
        let speed = Image::new(geometry, vec![1.0, 1.0, 4.0, 0.0, 1.0]).unwrap();
        let times = arrival(&speed, &[[0; 3]], &FastMarching::default()).unwrap();
        assert_eq!(times.voxels, [0.0, 2.0, 2.5, f32::INFINITY, f32::INFINITY]);
        let stopped = fast_marching(&speed, &[[0; 3]], &FastMarching { stop: 2.2 }).unwrap();
        assert_eq!(stopped.voxels, [1, 1, 0, 0, 0]);
    }

    #[test]
    fn in_space_the_front_is_nearly_round_whatever_the_spacing() {
        for spacing in [[1.0, 1.0, 1.0], [0.5, 1.0, 2.0]] {
            let size = spacing.map(|s: f64| (40.0 / s) as usize + 1);
            let speed = Image::filled(Geometry::new(size, spacing), 1.0);
            let seed = size.map(|voxels| voxels / 2);
            let times = arrival(&speed, &[seed], &FastMarching::default()).unwrap();
            for (index, time) in times.voxels.iter().enumerate() {
                let at = speed.geometry.position(index);
                let squares = (0..3).map(|k| (at[k].abs_diff(seed[k]) as f64 * spacing[k]).powi(2));
                let distance = squares.sum::<f64>().sqrt();
                // First-order upwind comes late by up to a voxel's worth or so.
                let late = f64::from(*time) - distance;
                assert!((-1e-4..2.6).contains(&late), "{at:?}: {time} for {distance}");
            }
        }
    }

    #[test]
    fn refuses_seeds_outside_and_a_stop_that_is_none() {
        let speed = Image::filled(Geometry::unit([2, 2, 1]), 1.0);
        assert!(arrival(&speed, &[[2, 0, 0]], &FastMarching::default()).is_err());
        assert!(arrival(&speed, &[[0; 3]], &FastMarching { stop: f64::NAN }).is_err());
    }
}
