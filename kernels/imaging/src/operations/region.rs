//! Region growing from seeds: connected threshold, neighbourhood connected, confidence connected.
//!
//! The three follow ITK's filters of these names. A region is what a path over neighbours joins to
//! a seed, all of whose voxels pass a test; the filters differ in the test. A seed that does not
//! pass it grows nothing (but for the neighbourhood's test, which seeds need not pass).

use std::iter::Sum;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::neighbourhood::{Connectivity, Space, step_clamped};
use super::reach::Region;
use super::vector::{call, vectorised};
use crate::error::ImagingError;
use crate::memory;
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
    let region = grow(image, &seeds, connectivity, (lower, upper));
    Ok(Mask { geometry: image.geometry, voxels: region.paint() })
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
    let mut seeds = neighbourhood_seeds(&image.geometry, seeds, parameters)?;
    seeds.sort_unstable();
    let size = image.geometry.size;
    let mut rows = Neighbourhoods::new(image, (lower, upper), radius_voxels);
    let starts = seeds.iter().copied();
    let region = Region::grow(size, starts, Connectivity::Face, Space::Volume, |row, flags| {
        rows.accept(row, flags.voxels());
        let first = seeds.partition_point(|&seed| seed < row * size[0]);
        for seed in seeds[first..].iter().take_while(|&seed| seed / size[0] == row) {
            flags.voxels()[seed % size[0]] = 1;
        }
    });
    Ok(Mask { geometry: image.geometry, voxels: region.paint() })
}

/// Returns the indices of the seeds, or an error where they or the parameters cannot be worked with.
pub(crate) fn neighbourhood_seeds(
    geometry: &Geometry,
    seeds: &[Voxel],
    parameters: &NeighbourhoodConnected,
) -> Result<Vec<usize>, ImagingError> {
    check_radius("neighbourhood_connected", parameters.radius_voxels)?;
    indices(geometry, seeds, "neighbourhood_connected")
}

/// Which voxels of an image have a whole box of accepted values around them, row by row. The box is
/// separable: each row that comes near the region is tested and shrunk along x once.
struct Neighbourhoods<'a> {
    image: &'a Image,
    limits: (f32, f32),
    radius: usize,
    /// For each voxel of a row that is `made`, whether all values within the radius along x pass.
    along_x: Vec<u8>,
    made: Vec<bool>,
    /// A row's tests with passes beyond both ends.
    passes: Vec<u8>,
}

impl<'a> Neighbourhoods<'a> {
    fn new(image: &'a Image, limits: (f32, f32), radius: usize) -> Self {
        let [width, height, depth] = image.geometry.size;
        Self {
            image,
            limits,
            radius,
            along_x: memory::zeros(image.voxels.len()),
            made: vec![false; height * depth],
            passes: vec![1; width + 2 * radius],
        }
    }

    /// Writes for each voxel of a row whether its whole box passes. What lies beyond the border
    /// repeats what does not, and so changes nothing.
    fn accept(&mut self, row: usize, output: &mut [u8]) {
        let [width, height, depth] = self.image.geometry.size;
        let radius = self.radius;
        let around =
            |at: usize, length: usize| at.saturating_sub(radius)..(at + radius + 1).min(length);
        output.fill(1);
        for z in around(row / height, depth) {
            for y in around(row % height, height) {
                let other = z * height + y;
                self.make(other);
                let shrunk = &self.along_x[other * width..(other + 1) * width];
                output.iter_mut().zip(shrunk).for_each(|(output, &shrunk)| *output &= shrunk);
            }
        }
    }

    fn make(&mut self, row: usize) {
        if std::mem::replace(&mut self.made[row], true) {
            return;
        }
        let width = self.image.geometry.size[0];
        let values = &self.image.voxels[row * width..(row + 1) * width];
        let output = &mut self.along_x[row * width..(row + 1) * width];
        vectorised(Shrink((values, self.limits, &mut self.passes, output)));
    }
}

type ShrinkArguments<'a> = (&'a [f32], (f32, f32), &'a mut [u8], &'a mut [u8]);

call!(Shrink(ShrinkArguments<'a>) => shrink);

/// Writes for each voxel of a row whether all within the radius pass; `passes` has 1 as many voxels
/// more as the radius at both ends.
#[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
#[inline(always)]
fn shrink((values, (lower, upper), passes, output): ShrinkArguments) {
    let width = values.len();
    let radius = (passes.len() - width) / 2;
    for (pass, &value) in passes[radius..radius + width].iter_mut().zip(values) {
        *pass = u8::from(value >= lower && value <= upper);
    }
    output.fill(1);
    for shift in 0..=2 * radius {
        let shifted = &passes[shift..shift + width];
        output.iter_mut().zip(shifted).for_each(|(output, &pass)| *output &= pass);
    }
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
    confidence(image, seeds, parameters, |seeds| Ok(OnProcessor { image, seeds: seeds.to_vec() }))
}

/// Who grows regions from the same seeds within any limits.
pub(crate) trait Growing {
    /// A set of voxels.
    type Region;

    /// Returns the region within the limits, both included.
    fn grow(&self, limits: (f32, f32)) -> Result<Self::Region, ImagingError>;

    /// Sums up the values of a region: row by row, and then the rows in their order.
    fn moments(&self, region: &Self::Region) -> Result<Moments, ImagingError>;

    /// Returns the region as a mask.
    fn paint(&self, region: Self::Region) -> Result<Mask, ImagingError>;
}

/// Decides on the limits, and leaves the growing from the seeds' indices to another.
pub(crate) fn confidence<G: Growing>(
    image: &Image,
    seeds: &[Voxel],
    parameters: &ConfidenceConnected,
    growing: impl FnOnce(&[usize]) -> Result<G, ImagingError>,
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
    let growing = growing(&indices)?;
    let mut moments = Moments::default();
    for &seed in seeds {
        box_around(&image.geometry, seed, radius_voxels, |i| moments.add(image.voxels[i]));
    }
    let mut limits = limits_of(&moments);
    let mut region = growing.grow(limits)?;
    for _ in 0..iterations {
        let of_region = growing.moments(&region)?;
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
        // Two at once would take the memory of both.
        drop(region);
        region = growing.grow(limits)?;
    }
    let (mean, variance) = (moments.mean(), moments.variance());
    Ok(ConfidenceRegion { mask: growing.paint(region)?, limits, mean, variance })
}

/// Grows regions on the processor.
struct OnProcessor<'a> {
    image: &'a Image,
    seeds: Vec<usize>,
}

impl Growing for OnProcessor<'_> {
    type Region = Region;

    fn grow(&self, limits: (f32, f32)) -> Result<Region, ImagingError> {
        Ok(grow(self.image, &self.seeds, Connectivity::Face, limits))
    }

    fn moments(&self, region: &Region) -> Result<Moments, ImagingError> {
        let of_row = |stretches: &mut dyn Iterator<Item = Range<usize>>| {
            let mut moments = Moments::default();
            for stretch in stretches {
                self.image.voxels[stretch].iter().for_each(|&value| moments.add(value));
            }
            moments
        };
        Ok(region.rows_with(of_row).into_iter().sum())
    }

    fn paint(&self, region: Region) -> Result<Mask, ImagingError> {
        Ok(Mask { geometry: self.image.geometry, voxels: region.paint() })
    }
}

/// The sums from which a mean and a variance come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    pub(crate) count: f64,
    pub(crate) sum: f64,
    pub(crate) sum_of_squares: f64,
}

impl Sum for Moments {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            count: sum.count + one.count,
            sum: sum.sum + one.sum,
            sum_of_squares: sum.sum_of_squares + one.sum_of_squares,
        })
    }
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

/// Returns the voxels with values within the limits, both included, that are connected to a seed.
pub(super) fn grow(
    image: &Image,
    seeds: &[usize],
    connectivity: Connectivity,
    (lower, upper): (f32, f32),
) -> Region {
    let size = image.geometry.size;
    let starts = seeds.iter().copied();
    Region::grow(size, starts, connectivity, Space::Volume, |row, flags| {
        let values = &image.voxels[row * size[0]..(row + 1) * size[0]];
        flags.set(values, |value| value >= lower && value <= upper);
    })
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
pub(crate) fn indices(
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
