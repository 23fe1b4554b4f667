//! What a job says of itself, by step: the loss, images per second.
//!
//! A [`Curve`] keeps every point until it is full. Then steps are taken together, two and two and
//! again two and two, and of each group the first and the last point are kept and those with the
//! least and the most value: the curve keeps its ends, its peaks and its shape, and never has more
//! points than its limit. Which points are kept follows from the points and their order alone. A
//! screen gets a view that is thinned further in the same way.
//!
//! Values are the bits of an `f64`, so that points compare. Values that are no number count as more
//! than any, so that a loss that has left all bounds is seen.

use serde::{Deserialize, Serialize};

/// Points of a group.
const GROUP_MAX: usize = 4;

/// One point of a curve. The value is kept as the bits of an `f64`, so that messages compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The step, as the task counts.
    pub step: u64,
    /// The bits of the value.
    pub value_bits: u64,
}

impl Point {
    /// A point with this value.
    #[must_use]
    pub fn new(step: u64, value: f64) -> Self {
        Self { step, value_bits: value.to_bits() }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.value_bits)
    }

    /// The value as a number that sorts as values do, with all that is no number at the top.
    fn rank(&self) -> i64 {
        let value = self.value();
        if value.is_nan() {
            return i64::MAX;
        }
        // The order of the bits is that of the values, backwards where the sign is set.
        let bits = value.to_bits() as i64;
        bits ^ (((bits >> 63) as u64) >> 1) as i64
    }
}

/// A bounded curve, in the order of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curve {
    points: Vec<Point>,
    points_max: usize,
    /// Steps are one group where they are equal without so many low bits; 0 as long as all points
    /// are kept.
    shift: u32,
}

impl Curve {
    /// A curve of at most so many points, and at least eight. Takes no memory yet.
    #[must_use]
    pub fn new(points_max: usize) -> Self {
        Self { points: Vec::new(), points_max: points_max.max(2 * GROUP_MAX), shift: 0 }
    }

    /// Takes a point. It may come late; one of a step that is kept replaces its value.
    pub fn push(&mut self, point: Point) {
        // Nearly always the newest.
        let place = match self.points.last() {
            Some(last) if last.step >= point.step => {
                self.points.binary_search_by_key(&point.step, |kept| kept.step)
            }
            _ => Err(self.points.len()),
        };
        match place {
            Ok(place) => self.points[place] = point,
            Err(place) => self.points.insert(place, point),
        }
        if self.points.len() > self.points_max {
            // Down to half, so that thinning comes seldom.
            (self.points, self.shift) = thin(&self.points, self.shift, self.points_max / 2);
        }
    }

    /// All points that are kept, in the order of their steps.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The point of the last step.
    #[must_use]
    pub fn last(&self) -> Option<Point> {
        self.points.last().copied()
    }

    /// At most so many points that look the same: the ends, and the peaks between them. Never less
    /// than the four that matter.
    #[must_use]
    pub fn thinned(&self, points_max: usize) -> Vec<Point> {
        if self.points.len() <= points_max {
            return self.points.clone();
        }
        thin(&self.points, self.shift, points_max.max(GROUP_MAX)).0
    }
}

/// The points in groups of the first shift from `shift` on by which they are few enough. With the
/// last one all of them are one group.
fn thin(points: &[Point], mut shift: u32, points_max: usize) -> (Vec<Point>, u32) {
    loop {
        let mut kept = Vec::new();
        let is_same = |one: &Point, other: &Point| group(one, shift) == group(other, shift);
        for points in points.chunk_by(is_same) {
            keep(points, &mut kept);
        }
        if kept.len() <= points_max || shift >= u64::BITS {
            return (kept, shift);
        }
        shift += 1;
    }
}

fn group(point: &Point, shift: u32) -> u64 {
    point.step.checked_shr(shift).unwrap_or(0)
}

/// Keeps the first, the last, the least and the most of a group, in the order of their steps. Of
/// equal values the first counts.
fn keep(points: &[Point], kept: &mut Vec<Point>) {
    if points.len() <= 2 {
        kept.extend_from_slice(points);
        return;
    }
    let places = 0..points.len();
    let least = places.clone().min_by_key(|place| points[*place].rank()).unwrap_or(0);
    let most = places.clone().rev().max_by_key(|place| points[*place].rank()).unwrap_or(0);
    let mut wanted = [0, least, most, points.len() - 1];
    wanted.sort_unstable();
    let mut before = None;
    for place in wanted {
        if before != Some(place) {
            kept.push(points[place]);
        }
        before = Some(place);
    }
}
