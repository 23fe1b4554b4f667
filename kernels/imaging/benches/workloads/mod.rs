//! What the operations are timed on: a chest-like phantom, and each operation as a call on it.
//!
//! `cargo bench -p gantry-imaging` times them alone; `measure kernels` includes this file and times
//! them beside their peers.

use std::hint::black_box;

use gantry_imaging::bias::{BiasCorrection, bias_correction};
use gantry_imaging::canny::{Canny, canny};
use gantry_imaging::components::label;
use gantry_imaging::diffusion::{AnisotropicDiffusion, anisotropic_diffusion};
use gantry_imaging::distance::{Side, distance};
use gantry_imaging::fast_marching::{FastMarching, arrival};
use gantry_imaging::gaussian::{Gaussian, gaussian};
use gantry_imaging::gradient::{self, Operator};
use gantry_imaging::intensity::{self, Window};
use gantry_imaging::laplacian::laplacian_of_gaussian;
use gantry_imaging::median::{Median, median};
use gantry_imaging::morphology::{Ball, dilate, erode, fill_holes};
use gantry_imaging::neighbourhood::{Connectivity, Space};
use gantry_imaging::random_walker::{RandomWalker, random_walker};
use gantry_imaging::region::{
    ConfidenceConnected, ConnectedThreshold, NeighbourhoodConnected, confidence_connected,
    connected_threshold, neighbourhood_connected,
};
use gantry_imaging::resample;
use gantry_imaging::seeded::seeded_growing;
use gantry_imaging::smooth::{CurvatureFlow, curvature_flow};
use gantry_imaging::threshold::{Otsu, otsu, threshold};
use gantry_imaging::watershed::watershed;
use gantry_imaging::{Geometry, Image, ImagingError, Mask, Volume};

/// Images to work on.
pub(crate) struct Data {
    /// The phantom: whole Hounsfield units with noise of 20.
    pub(crate) volume: Image,
    /// Its middle slice.
    pub(crate) slice: Image,
    /// A 64th of it, for what takes its peers minutes otherwise: a quarter of each axis, within which
    /// the seed lies.
    pub(crate) part: Image,
    /// A voxel in the liver, outside its lesion.
    pub(crate) seed: [usize; 3],
    /// The same voxel in the part.
    part_seed: [usize; 3],
    part_markers: Mask,
    speed: Image,
    smooth: Image,
    slope: Image,
    noisy: Mask,
    markers: Mask,
    slice_markers: Mask,
}

/// An operation to time.
pub(crate) struct Workload {
    /// Its name, the same for its peers.
    pub(crate) name: &'static str,
    /// What it works on.
    pub(crate) on: On,
    /// The bytes of its result for each voxel that it is given.
    #[allow(dead_code, reason = "only one of the two programs that include this asks for memory")]
    pub(crate) result_bytes: usize,
    /// Calls it once.
    pub(crate) run: fn(&Data),
}

/// Which of the images an operation is timed on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// The slice.
    Slice,
    /// The part of the volume.
    Part,
    /// The volume.
    Volume,
}

impl Data {
    /// Returns the image that is one of these.
    pub(crate) fn image(&self, on: On) -> &Image {
        match on {
            On::Slice => &self.slice,
            On::Part => &self.part,
            On::Volume => &self.volume,
        }
    }

    /// Returns the phantom of a size: air, a body, two lungs, a liver with a lesion, a ring of bone.
    pub(crate) fn new(size: [usize; 3]) -> Self {
        let geometry = Geometry::unit(size);
        let mut state = 7u64;
        let mut noise = || {
            // The sum of twelve evenly spread numbers is near enough to a normal one.
            let sum: f32 = (0..12)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 40) as f32 / (1u64 << 24) as f32
                })
                .sum();
            20.0 * (sum - 6.0)
        };
        let mut volume = Image::filled(geometry, 0.0);
        for (index, voxel) in volume.voxels.iter_mut().enumerate() {
            let at = geometry.position(index);
            let place = [0, 1, 2].map(|k| 2.0 * at[k] as f32 / (size[k].max(2) - 1) as f32 - 1.0);
            *voxel = (tissue(place) + noise()).round().clamp(-1024.0, 3071.0);
        }
        let middle = size[2] / 2;
        let flat = Geometry::unit([size[0], size[1], 1]);
        let slice = Image { geometry: flat, voxels: volume.slice(middle).to_vec() };
        let one = Gaussian { sigma_mm: 1.0, space: Space::Volume };
        let smooth = gaussian(&volume, &one).unwrap_or_else(|error| unreachable!("{error}"));
        let slope = gradient::magnitude(&smooth, Operator::Sobel, Space::Volume);
        let noisy = threshold(&volume, 60.5, f32::INFINITY);
        let place = |shares: [f32; 3]| [0, 1, 2].map(|k| (size[k] as f32 * shares[k]) as usize);
        let seed = place([0.425, 0.7, 0.4]);
        let mut markers = Mask::filled(geometry, 0);
        let mut slice_markers = Mask::filled(flat, 0);
        for (mark, [x, y, z]) in [(1, seed), (2, place([0.5; 3])), (3, [2, 2, 2.min(size[2] - 1)])]
        {
            markers.voxels[geometry.index(x, y, z)] = mark;
            slice_markers.voxels[flat.index(x, y, 0)] = mark;
        }
        let corner = [size[0] / 4, size[1] / 2, size[2] / 4];
        let part_seed = [0, 1, 2].map(|k| seed[k] - corner[k]);
        let part = cut(&volume, corner, size.map(|length| length / 4));
        let part_markers = cut(&markers, corner, part.geometry.size);
        let mut part_markers = part_markers.map(|&label| u8::from(label == 1));
        part_markers.voxels[0] = 2;
        let speed = part.map(|&value| (-(value - 110.0).abs() / 100.0).exp());
        Self {
            volume,
            slice,
            part,
            seed,
            part_seed,
            part_markers,
            speed,
            smooth,
            slope,
            noisy,
            markers,
            slice_markers,
        }
    }
}

/// Returns a part of a volume, from a corner on.
fn cut<T: Copy>(volume: &Volume<T>, corner: [usize; 3], size: [usize; 3]) -> Volume<T> {
    let geometry = Geometry::unit(size);
    let voxels = (0..geometry.voxels()).map(|index| {
        let at = geometry.position(index);
        let [x, y, z] = [0, 1, 2].map(|k| corner[k] + at[k]);
        *volume.at(x, y, z)
    });
    let voxels = voxels.collect();
    Volume { geometry, voxels }
}

/// Returns the value at a place of −1 to 1 along each axis.
fn tissue([x, y, z]: [f32; 3]) -> f32 {
    let within = |centre: [f32; 3], axes: [f32; 3]| {
        let part = |k: usize, at: f32| ((at - centre[k]) / axes[k]).powi(2);
        part(0, x) + part(1, y) + part(2, z) <= 1.0
    };
    let shapes = [
        ([0.0, 0.52, 0.0], [0.06, 0.06, 1.2], 30.0),
        ([0.0, 0.52, 0.0], [0.12, 0.12, 1.2], 700.0),
        ([-0.3, 0.3, -0.2], [0.1, 0.08, 0.15], 170.0),
        ([-0.25, 0.3, -0.2], [0.35, 0.25, 0.5], 110.0),
        ([0.4, -0.1, 0.1], [0.28, 0.4, 0.8], -800.0),
        ([-0.4, -0.1, 0.1], [0.28, 0.4, 0.8], -800.0),
        ([0.0, 0.0, 0.0], [0.9, 0.7, 1.2], 40.0),
    ];
    let found = shapes.into_iter().find(|&(centre, axes, _)| within(centre, axes));
    found.map_or(-1000.0, |(_, _, value)| value)
}

/// Uses a result so that it is computed.
fn done<T, E: std::fmt::Display>(result: Result<T, E>) {
    match result {
        Ok(made) => drop(black_box(made)),
        Err(error) => unreachable!("the parameters are fixed and sound: {error}"),
    }
}

const CANNY: Canny = Canny { sigma_mm: 1.0, low: 160.0, high: 480.0, space: Space::Volume };
const SOFT: Gaussian = Gaussian { sigma_mm: 2.0, space: Space::Volume };

/// As the peer has it, which looks at every voxel.
const BIAS: BiasCorrection = BiasCorrection {
    levels: 4,
    iterations: 50,
    convergence: 1e-3,
    width: 0.15,
    noise: 0.01,
    bins: 200,
    shrink: 1,
};

fn grow(data: &Data, lower: f32, upper: f32) {
    let parameters = ConnectedThreshold { lower, upper, connectivity: Connectivity::Face };
    done(connected_threshold(&data.smooth, &[data.seed], &parameters));
}

fn balls(data: &Data, apply: fn(&Mask, &Ball) -> Result<Mask, ImagingError>) {
    done(apply(&data.noisy, &Ball { radius_voxels: 2, space: Space::Volume }));
}

/// One that works on the slice and gives numbers.
const fn flat(name: &'static str, run: fn(&Data)) -> Workload {
    Workload { name, on: On::Slice, result_bytes: 4, run }
}

/// One that works on the part and gives numbers.
const fn part(name: &'static str, run: fn(&Data)) -> Workload {
    Workload { name, on: On::Part, result_bytes: 4, run }
}

/// One that works on the volume and gives so many bytes a voxel.
const fn deep(name: &'static str, result_bytes: usize, run: fn(&Data)) -> Workload {
    Workload { name, on: On::Volume, result_bytes, run }
}

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    flat("canny 2-D", |d| done(canny(&d.slice, &CANNY))),
    flat("sobel 2-D", |d| {
        drop(black_box(gradient::magnitude(&d.slice, Operator::Sobel, Space::Slice)));
    }),
    flat("gaussian 2-D", |d| done(gaussian(&d.slice, &SOFT))),
    flat("random walker 2-D", |d| {
        done(random_walker(&d.slice, &d.slice_markers, &RandomWalker::default()));
    }),
    flat("bias correction 2-D", |d| {
        done(bias_correction(&d.slice, None, &BIAS));
    }),
    part("bias correction 3-D", |d| done(bias_correction(&d.part, None, &BIAS))),
    part("anisotropic diffusion 3-D, 5 steps", |d| {
        done(anisotropic_diffusion(&d.part, &AnisotropicDiffusion::default()));
    }),
    part("fast marching 3-D", |d| {
        done(arrival(&d.speed, &[d.part_seed], &FastMarching::default()));
    }),
    part("random walker 3-D", |d| {
        done(random_walker(&d.part, &d.part_markers, &RandomWalker::default()));
    }),
    deep("window", 4, |d| done(intensity::window(&d.volume, &Window::SOFT_TISSUE))),
    deep("rescale", 4, |d| done(intensity::rescale(&d.volume, 1.5, -1024.0))),
    deep("clip", 4, |d| done(intensity::clip(&d.volume, -160.0, 240.0))),
    deep("threshold", 1, |d| drop(black_box(threshold(&d.volume, 60.0, 160.0)))),
    deep("otsu", 0, |d| done(otsu(&d.volume, &Otsu::default()))),
    deep("gaussian 3-D", 4, |d| done(gaussian(&d.volume, &SOFT))),
    deep("sobel 3-D", 4, |d| {
        drop(black_box(gradient::magnitude(&d.volume, Operator::Sobel, Space::Volume)));
    }),
    deep("canny 3-D", 1, |d| done(canny(&d.volume, &CANNY))),
    deep("laplacian of gaussian", 4, |d| done(laplacian_of_gaussian(&d.volume, &SOFT))),
    deep("median 3-D", 4, |d| done(median(&d.volume, &Median::default()))),
    deep("curvature flow, 2 steps", 4, |d| {
        done(curvature_flow(&d.volume, &CurvatureFlow { time_step: 0.0625, iterations: 2 }));
    }),
    deep("resample to half the voxels, linear", 2, |d| {
        let [x, y, z] = d.volume.geometry.size;
        let grid = Geometry::new([x, y, z / 2], [1.0, 1.0, 2.0]);
        done(resample::image_onto(&d.volume, &grid, 0.0));
    }),
    deep("connected threshold, small region", 1, |d| grow(d, 60.0, 160.0)),
    deep("connected threshold, large region", 1, |d| grow(d, -200.0, 1000.0)),
    deep("confidence connected", 1, |d| {
        let parameters = ConfidenceConnected { radius_voxels: 2, ..Default::default() };
        done(confidence_connected(&d.smooth, &[d.seed], &parameters));
    }),
    deep("neighbourhood connected", 1, |d| {
        let parameters = NeighbourhoodConnected { lower: 60.0, upper: 160.0, radius_voxels: 1 };
        done(neighbourhood_connected(&d.smooth, &[d.seed], &parameters));
    }),
    deep("components, 6 neighbours", 4, |d| {
        drop(black_box(label(&d.noisy, Connectivity::Face)));
    }),
    deep("components, 26 neighbours", 4, |d| {
        drop(black_box(label(&d.noisy, Connectivity::Full)));
    }),
    deep("dilate by 2 voxels", 1, |d| balls(d, dilate)),
    deep("erode by 2 voxels", 1, |d| balls(d, erode)),
    deep("fill holes", 1, |d| drop(black_box(fill_holes(&d.noisy, Space::Volume)))),
    deep("distance, signed", 4, |d| {
        drop(black_box(distance(&d.noisy, Side::Signed, Space::Volume)));
    }),
    deep("watershed, 3 markers", 1, |d| {
        done(watershed(&d.slope, &d.markers, Connectivity::Face));
    }),
    deep("seeded growing, 3 seeds", 1, |d| {
        done(seeded_growing(&d.smooth, &d.markers, Connectivity::Face));
    }),
];
