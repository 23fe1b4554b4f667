//! Region growing from seeds: connected threshold, neighbourhood connected, confidence connected.
//!
//! The three follow ITK's filters of these names. A region is what a path over neighbours joins to
//! a seed, all of whose voxels pass a test; the filters differ in the test. A seed that does not
//! pass it grows nothing (but for the neighbourhood's test, which seeds need not pass).

use serde::{Deserialize, Serialize};

use super::neighbourhood::{Connectivity, Space, step_clamped};
use super::runs::Runs;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image, Mask};

/// The position of a voxel: x, y, z.
pub type Voxel = [usize; 3];

/// The largest radius of a seed's neighbourhood, in voxels.
pub const RADIUS_MAX: usize = 10;
/// The most iterations of [`confidence_connected`].
pub const ITERATIONS_MAX: usize = 100;

/// What connected threshold grows through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ConnectedThreshold {
    /// The least value of the region.
    pub lower: f32,
    /// The greatest value of the region.
    pub upper: f32,
    /// Which voxels are connected. Default: those that share a face.
    pub connectivity: Connectivity,
}

/// Returns the voxels with `lower` ≤ value ≤ `upper` that are connected to a seed.
pub fn connected_threshold(
    image: &Image,
    seeds: &[Voxel],
    parameters: &ConnectedThreshold,
) -> Result<Mask, ImagingError> {
    let ConnectedThreshold { lower, upper, connectivity } = *parameters;
    let seeds = indices(&image.geometry, seeds, "connected_threshold")?;
    Ok(grow(&image.geometry, &seeds, connectivity, |index| {
        let value = image.voxels[index];
        value >= lower && value <= upper
    }))
}

/// What neighbourhood connected grows through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NeighbourhoodConnected {
    /// The least value of a neighbourhood.
    pub lower: f32,
    /// The greatest value of a neighbourhood.
    pub upper: f32,
    /// The radius of the box around a voxel, in voxels along each axis longer than one. Default: 1.
    pub radius_voxels: usize,
}

/// Returns the voxels, face-connected to a seed, in whose whole neighbourhood `lower` ≤ value ≤
/// `upper`. Beyond the border the nearest voxel counts. The seeds themselves always belong to the
/// region, whatever lies around them, as in ITK.
pub fn neighbourhood_connected(
    image: &Image,
    seeds: &[Voxel],
    parameters: &NeighbourhoodConnected,
) -> Result<Mask, ImagingError> {
    let NeighbourhoodConnected { lower, upper, radius_voxels } = *parameters;
    check_radius("neighbourhood_connected", radius_voxels)?;
    let seeds = indices(&image.geometry, seeds, "neighbourhood_connected")?;
    // The box is separable: shrink the accepted voxels along one axis at a time.
    let mut accepted: Vec<u8> =
        image.voxels.iter().map(|value| u8::from(*value >= lower && *value <= upper)).collect();
    for axis in 0..3 {
        accepted = shrink_along(&image.geometry, &accepted, axis, radius_voxels);
    }
    for &seed in &seeds {
        accepted[seed] = 1;
    }
    Ok(grow(&image.geometry, &seeds, Connectivity::Face, |index| accepted[index] != 0))
}

/// How exact the limits of confidence connected are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limits {
    /// As computed.
    #[default]
    Exact,
    /// Without their fractions, as ITK does for images of whole numbers: CT as it comes from the
    /// scanner.
    Whole,
}

/// How confidence connected chooses its limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceConnected {
    /// The limits lie this many standard deviations from the mean. Default: 2.5, as ITK.
    /// (`SimpleITK`'s default is 4.5.)
    pub multiplier: f64,
    /// How often the limits are computed anew from the region. Default: 4, as ITK.
    pub iterations: usize,
    /// The radius of the box around each seed from which the first limits come, in voxels along
    /// each axis longer than one. Default: 1, as ITK.
    pub radius_voxels: usize,
    /// How exact the limits are. Default: as computed.
    pub limits: Limits,
}

impl Default for ConfidenceConnected {
    fn default() -> Self {
        Self { multiplier: 2.5, iterations: 4, radius_voxels: 1, limits: Limits::Exact }
    }
}

/// What confidence connected found.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfidenceRegion {
    /// The region.
    pub mask: Mask,
    /// The limits of the last growing; the region's values lie between them, both included.
    pub limits: (f32, f32),
    /// The mean from which the limits were computed.
    pub mean: f64,
    /// The variance from which the limits were computed.
    pub variance: f64,
}

/// Returns the region grown from the seeds within mean ± multiplier × standard deviation: first of
/// the seeds' neighbourhoods, then, `iterations` times, of the region before. The limits always
/// hold the seeds themselves. The algorithm is that of ITK's `ConfidenceConnectedImageFilter`.
pub fn confidence_connected(
    image: &Image,
    seeds: &[Voxel],
    parameters: &ConfidenceConnected,
) -> Result<ConfidenceRegion, ImagingError> {
    const NAME: &str = "confidence_connected";
    let ConfidenceConnected { multiplier, iterations, radius_voxels, .. } = *parameters;
    check_radius(NAME, radius_voxels)?;
    if !(multiplier.is_finite() && multiplier > 0.0 && iterations <= ITERATIONS_MAX) {
        return Err(ImagingError::Parameter {
            operation: NAME,
            problem: format!(
                "multiplier is {multiplier} and iterations {iterations}; the multiplier must be \
                 positive, the iterations at most {ITERATIONS_MAX}"
            ),
        });
    }
    let indices = indices(&image.geometry, seeds, NAME)?;
    let seed_values = || indices.iter().map(|&index| image.voxels[index]);
    let Some(seed_limits) = seed_values().map(|v| (v, v)).reduce(widen) else {
        return Err(ImagingError::Parameter {
            operation: NAME,
            problem: "at least one seed is needed".to_owned(),
        });
    };
    let limits_of = |moments: &Moments| {
        let reach = multiplier * moments.variance().sqrt();
        let limits = [moments.mean() - reach, moments.mean() + reach];
        let [lower, upper] = match parameters.limits {
            Limits::Exact => limits.map(|limit| limit as f32),
            Limits::Whole => limits.map(|limit| limit.trunc() as f32),
        };
        widen((lower, upper), seed_limits)
    };
    let grow_within = |(lower, upper): (f32, f32)| {
        grow(&image.geometry, &indices, Connectivity::Face, |index| {
            let value = image.voxels[index];
            value >= lower && value <= upper
        })
    };
    let mut moments = Moments::default();
    for &seed in seeds {
        box_around(&image.geometry, seed, radius_voxels, |i| moments.add(image.voxels[i]));
    }
    let mut limits = limits_of(&moments);
    let mut mask = grow_within(limits);
    for _ in 0..iterations {
        let mut of_region = Moments::default();
        let members = image.voxels.iter().zip(&mask.voxels).filter(|&(_, &label)| label != 0);
        members.for_each(|(&value, _)| of_region.add(value));
        if of_region.count < 2.0 || of_region.variance() <= 0.0 {
            break;
        }
        moments = of_region;
        let next = limits_of(&moments);
        // The same limits grow the same region, for ever.
        if next == limits {
            break;
        }
        limits = next;
        mask = grow_within(limits);
    }
    Ok(ConfidenceRegion { mask, limits, mean: moments.mean(), variance: moments.variance() })
}

/// The sums from which a mean and a variance come.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl Moments {
    fn add(&mut self, value: f32) {
        let value = f64::from(value);
        self.count += 1.0;
        self.sum += value;
        self.sum_of_squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }

    fn variance(&self) -> f64 {
        if self.count < 2.0 {
            return 0.0;
        }
        ((self.sum_of_squares - self.sum * self.sum / self.count) / (self.count - 1.0)).max(0.0)
    }
}

/// Returns the least range that holds both.
fn widen(a: (f32, f32), b: (f32, f32)) -> (f32, f32) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Returns the accepted voxels connected to a seed.
pub(super) fn grow(
    geometry: &Geometry,
    seeds: &[usize],
    connectivity: Connectivity,
    accept: impl Fn(usize) -> bool + Sync,
) -> Mask {
    let runs = Runs::new(geometry.size, accept);
    let reached = runs.reached_from(seeds.iter().copied(), connectivity, Space::Volume);
    Mask { geometry: *geometry, voxels: runs.paint(|run| u8::from(reached[run])) }
}

/// Returns for each voxel whether all voxels within `radius` along `axis` are set.
fn shrink_along(geometry: &Geometry, voxels: &[u8], axis: usize, radius: usize) -> Vec<u8> {
    let length = geometry.size[axis];
    let stride = [1, geometry.size[0], geometry.size[0] * geometry.size[1]][axis];
    let mut shrunk = voxels.to_vec();
    if length < 2 {
        return shrunk;
    }
    for (index, value) in shrunk.iter_mut().enumerate() {
        let at = index / stride % length;
        let line = index - at * stride;
        let (from, to) = (at.saturating_sub(radius), (at + radius).min(length - 1));
        *value = u8::from((from..=to).all(|k| voxels[line + k * stride] != 0));
    }
    shrunk
}

/// Visits the indices of the box around a voxel, the nearest voxel repeated beyond the border.
/// Axes of one voxel have no extent.
fn box_around(geometry: &Geometry, at: Voxel, radius: usize, mut visit: impl FnMut(usize)) {
    let range = |axis: usize| {
        let reach = if geometry.size[axis] > 1 { radius as isize } else { 0 };
        (-reach..=reach).map(move |step| step_clamped(at[axis], step, geometry.size[axis]))
    };
    for z in range(2) {
        for y in range(1) {
            for x in range(0) {
                visit(geometry.index(x, y, z));
            }
        }
    }
}

/// Returns the indices of the seeds, or an error where one lies outside the grid.
pub(super) fn indices(
    geometry: &Geometry,
    seeds: &[Voxel],
    operation: &'static str,
) -> Result<Vec<usize>, ImagingError> {
    let inside = |seed: &&Voxel| (0..3).all(|axis| seed[axis] < geometry.size[axis]);
    if let Some(outside) = seeds.iter().find(|seed| !inside(seed)) {
        return Err(ImagingError::Parameter {
            operation,
            problem: format!(
                "the seed {outside:?} lies outside the image of {:?} voxels; seeds count from 0",
                geometry.size
            ),
        });
    }
    Ok(seeds.iter().map(|&[x, y, z]| geometry.index(x, y, z)).collect())
}

fn check_radius(operation: &'static str, radius: usize) -> Result<(), ImagingError> {
    if radius <= RADIUS_MAX {
        return Ok(());
    }
    Err(ImagingError::Parameter {
        operation,
        problem: format!("radius_voxels is {radius}; at most {RADIUS_MAX} is possible"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bright bar of 5 × 3 × 3 voxels in the dark, with one voxel of another value at its corner.
    fn bar() -> Image {
        let mut image = Image::filled(Geometry::unit([9, 7, 7]), 0.0);
        for z in 2..5 {
            for y in 2..5 {
                for x in 2..7 {
                    let index = image.geometry.index(x, y, z);
                    image.voxels[index] = 100.0 + (x % 2) as f32;
                }
            }
        }
        let corner = image.geometry.index(7, 5, 5);
        image.voxels[corner] = 100.0;
        image
    }

    #[test]
    fn grows_what_is_connected_and_within_the_limits() {
        for (connectivity, seed, voxels) in [
            (Connectivity::Face, [4, 3, 3], 45),
            (Connectivity::Edge, [4, 3, 3], 45),
            (Connectivity::Full, [4, 3, 3], 46),
            (Connectivity::Face, [7, 5, 5], 1),
            (Connectivity::Face, [0, 0, 0], 0),
        ] {
            let parameters = ConnectedThreshold { lower: 100.0, upper: 101.0, connectivity };
            let mask = connected_threshold(&bar(), &[seed], &parameters).unwrap();
            assert_eq!(mask.count(), voxels, "{connectivity:?} from {seed:?}");
        }
    }

    #[test]
    fn neighbourhoods_shrink_a_region_to_its_core() {
        for (radius_voxels, voxels) in [(0, 45), (1, 3), (2, 1)] {
            let parameters = NeighbourhoodConnected { lower: 100.0, upper: 101.0, radius_voxels };
            let mask = neighbourhood_connected(&bar(), &[[4, 3, 3]], &parameters).unwrap();
            assert_eq!(mask.count(), voxels, "radius {radius_voxels}");
        }
    }

    #[test]
    fn confidence_reports_the_limits_it_used() {
        let found =
            confidence_connected(&bar(), &[[4, 3, 3]], &ConfidenceConnected::default()).unwrap();
        assert_eq!(found.mask.count(), 45);
        assert!(found.limits.0 <= 100.0 && found.limits.1 >= 101.0, "{:?}", found.limits);
        assert!((found.mean - 100.4).abs() < 1e-9, "{}", found.mean);
    }

    #[test]
    fn refuses_seeds_outside_and_parameters_out_of_range() {
        let image = bar();
        let outside = [[9, 0, 0]];
        let confidence = ConfidenceConnected::default();
        assert!(confidence_connected(&image, &outside, &confidence).is_err());
        assert!(confidence_connected(&image, &[], &confidence).is_err());
        let wrong = ConfidenceConnected { multiplier: f64::NAN, ..confidence };
        assert!(confidence_connected(&image, &[[1, 1, 1]], &wrong).is_err());
        let wide = NeighbourhoodConnected { lower: 0.0, upper: 1.0, radius_voxels: 99 };
        assert!(neighbourhood_connected(&image, &[[1, 1, 1]], &wide).is_err());
    }
}
