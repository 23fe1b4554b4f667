//! The operations of this module against those of the processor, on the device of [`super::host`] and
//! on a GPU where the machine has one.
//!
//! Results must be the same bits: the sources take the same sums in the same order, and neither
//! compiler may fuse a multiplication with an addition.

use std::process::Command;
use std::sync::LazyLock;

use super::device::{Argument, Device, Grid, VOXELS_MAX};
use super::driver::{self, Cuda};
use super::host::Host;
use super::{canny, connected, gaussian, gradient, morphology, resample};
use crate::canny::Canny;
use crate::components::{Border, Filter};
use crate::error::ImagingError;
use crate::gaussian::Gaussian;
use crate::gradient::Operator;
use crate::morphology::Ball;
use crate::neighbourhood::{Connectivity, Space};
use crate::volume::{Geometry, Image, Mask};

const SPACES: [Space; 2] = [Space::Volume, Space::Slice];
pub(super) const CONNECTIVITIES: [Connectivity; 3] =
    [Connectivity::Face, Connectivity::Edge, Connectivity::Full];

/// Numbers that look random and are the same in every run.
pub(super) struct Chance(pub(super) u32);

impl Chance {
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.0) * u64::from(end)) >> 32) as u32
    }
}

/// Volumes of shapes that borders, blocks and axes of one voxel make difficult.
pub(super) fn geometries() -> Vec<Geometry> {
    let sizes = [[1, 1, 1], [7, 1, 1], [1, 9, 1], [1, 1, 5], [2, 2, 2], [37, 29, 1], [17, 1, 13]];
    let flat = sizes.map(Geometry::unit);
    let spacings = [[1.0, 1.0, 1.0], [0.7, 1.1, 2.5], [3.0, 0.4, 0.9]];
    let deep = spacings.map(|spacing| Geometry::new([19, 14, 11], spacing));
    flat.into_iter().chain(deep).collect()
}

/// Images on a grid: noise over shapes, one value, and voxels that are no finite numbers.
pub(super) fn images(geometry: Geometry) -> Vec<(&'static str, Image)> {
    let mut chance = Chance(geometry.voxels() as u32);
    let centre = geometry.size.map(|length| length as f32 / 2.0);
    let voxels = (0..geometry.voxels()).map(|index| {
        let at = geometry.position(index);
        let far: f32 = (0..3).map(|k| (at[k] as f32 - centre[k]).powi(2)).sum();
        let shape = if far.sqrt() < 4.5 { 180.0 } else { -60.0 };
        shape + chance.below(4000) as f32 / 64.0
    });
    let noisy = Image::new(geometry, voxels.collect()).unwrap();
    let mut broken = noisy.clone();
    for (index, value) in broken.voxels.iter_mut().enumerate() {
        *value = match index % 23 {
            5 => f32::NAN,
            11 => f32::INFINITY,
            17 => f32::NEG_INFINITY,
            20 => -0.0,
            _ => *value,
        };
    }
    vec![("noisy", noisy), ("constant", Image::filled(geometry, 40.0)), ("broken", broken)]
}

/// Runs one operation on both sides, on every image of every grid.
pub(super) fn check_images(
    on_device: impl Fn(&Any, &Image) -> Result<Image, ImagingError>,
    on_processor: impl Fn(&Image) -> Result<Image, ImagingError>,
) {
    for geometry in geometries() {
        for (name, image) in images(geometry) {
            let expected = on_processor(&image).unwrap();
            for device in devices() {
                let found = on_device(&device, &image).unwrap();
                assert_same(&found, &expected, name);
                device.assert_planned(name);
            }
        }
    }
}

/// Masks on a grid: sparse and dense noise, a checkerboard, one long winding wall, all and nothing.
fn masks(geometry: Geometry) -> Vec<(&'static str, Mask)> {
    let mut chance = Chance(geometry.voxels() as u32 + 1);
    let mut noise =
        |percent: u32| Mask::filled(geometry, 0).map(|_| u8::from(chance.below(100) < percent) * 3);
    let (sparse, dense) = (noise(20), noise(60));
    let drawn = |inside: &dyn Fn([usize; 3]) -> bool| {
        let voxels = (0..geometry.voxels()).map(|k| u8::from(inside(geometry.position(k))));
        Mask::new(geometry, voxels.collect()).unwrap()
    };
    let winding = |[x, y, z]: [usize; 3]| {
        let turn = |at: usize, along: usize, length: usize| {
            at.is_multiple_of(2) || along == if at % 4 == 1 { length - 1 } else { 0 }
        };
        turn(y, x, geometry.size[0]) && turn(z, y, geometry.size[1])
    };
    vec![
        ("sparse", sparse),
        ("dense", dense),
        ("checkerboard", drawn(&|at| at.iter().sum::<usize>().is_multiple_of(2))),
        ("winding", drawn(&winding)),
        ("all", drawn(&|_| true)),
        ("nothing", drawn(&|_| false)),
    ]
}

/// Runs one operation on both sides, on every mask of every grid.
fn check_masks<T: PartialEq + std::fmt::Debug>(
    on_device: impl Fn(&Any, &Mask) -> Result<T, ImagingError>,
    on_processor: impl Fn(&Mask) -> Result<T, ImagingError>,
) {
    for geometry in geometries() {
        for (name, mask) in masks(geometry) {
            let expected = on_processor(&mask).unwrap();
            for device in devices() {
                let found = on_device(&device, &mask).unwrap();
                assert!(found == expected, "{name} on {:?}", geometry.size);
                device.assert_planned(name);
            }
        }
    }
}

/// Fails unless all voxels are the same bits; one number that is none is as good as another.
pub(super) fn assert_same(found: &Image, expected: &Image, name: &str) {
    assert_eq!(found.geometry, expected.geometry, "{name}");
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let differ = found.voxels.iter().zip(&expected.voxels).position(|(&a, &b)| !same(a, b));
    if let Some(index) = differ {
        let at = expected.geometry.position(index);
        let (found, expected) = (found.voxels[index], expected.voxels[index]);
        panic!("{name}: {found} at {at:?} instead of {expected}");
    }
}

/// A device under test.
pub(super) enum Any {
    Host(Host),
    Gpu(&'static Cuda),
}

/// A piece of its memory.
pub(super) enum Memory {
    Host(HostMemory),
    Gpu(GpuMemory),
}

type HostMemory = <Host as Device>::Memory;
type GpuMemory = <Cuda as Device>::Memory;

impl Memory {
    fn host(&self) -> &HostMemory {
        let Self::Host(memory) = self else { panic!("memory of another device") };
        memory
    }

    fn host_mut(&mut self) -> &mut HostMemory {
        let Self::Host(memory) = self else { panic!("memory of another device") };
        memory
    }

    fn gpu(&self) -> &GpuMemory {
        let Self::Gpu(memory) = self else { panic!("memory of another device") };
        memory
    }

    fn gpu_mut(&mut self) -> &mut GpuMemory {
        let Self::Gpu(memory) = self else { panic!("memory of another device") };
        memory
    }
}

/// Returns the devices that this machine has. Where `nvidia-smi` lists a GPU, it must work.
pub(super) fn devices() -> Vec<Any> {
    static GPU: LazyLock<Option<&'static Cuda>> = LazyLock::new(|| {
        let listed = Command::new("nvidia-smi").arg("-L").output();
        if listed.is_ok_and(|output| output.status.success() && !output.stdout.is_empty()) {
            return Some(driver::gpu().unwrap());
        }
        eprintln!("skipped: there is no GPU here; the sources run on the processor alone");
        None
    });
    Host::new().map(Any::Host).into_iter().chain(GPU.map(Any::Gpu)).collect()
}

impl Any {
    /// Fails where more memory was taken than was asked for, or asked for without need.
    pub(super) fn assert_planned(&self, name: &str) {
        let Self::Host(host) = self else { return };
        let (peak, planned) = (host.peak.take(), host.required.take());
        assert!(peak <= planned, "{name}: {peak} bytes were taken, {planned} planned");
        assert!(planned <= 2 * peak + 20_000, "{name}: {planned} planned, {peak} bytes taken");
    }
}

impl Device for Any {
    type Memory = Memory;

    fn require(&self, bytes: u64) -> Result<(), ImagingError> {
        match self {
            Self::Host(host) => host.require(bytes),
            Self::Gpu(gpu) => gpu.require(bytes),
        }
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, ImagingError> {
        match self {
            Self::Host(host) => host.allocate(bytes).map(Memory::Host),
            Self::Gpu(gpu) => gpu.allocate(bytes).map(Memory::Gpu),
        }
    }

    fn write(&self, to: &mut Memory, bytes: &[u8]) -> Result<(), ImagingError> {
        match self {
            Self::Host(host) => host.write(to.host_mut(), bytes),
            Self::Gpu(gpu) => gpu.write(to.gpu_mut(), bytes),
        }
    }

    fn read(&self, from: &Memory, bytes: &mut [u8]) -> Result<(), ImagingError> {
        match self {
            Self::Host(host) => host.read(from.host(), bytes),
            Self::Gpu(gpu) => gpu.read(from.gpu(), bytes),
        }
    }

    fn start(
        &self,
        kernel: &'static str,
        blocks: u32,
        arguments: &mut [Argument<'_, Memory>],
    ) -> Result<(), ImagingError> {
        match self {
            Self::Host(host) => {
                host.start(kernel, blocks, &mut of(arguments, Memory::host, Memory::host_mut))
            }
            Self::Gpu(gpu) => {
                gpu.start(kernel, blocks, &mut of(arguments, Memory::gpu, Memory::gpu_mut))
            }
        }
    }
}

/// Returns the arguments with one device's own memory.
fn of<'a, M>(
    arguments: &'a mut [Argument<'_, Memory>],
    input: impl Fn(&'a Memory) -> &'a M,
    output: impl Fn(&'a mut Memory) -> &'a mut M,
) -> Vec<Argument<'a, M>> {
    let own = |argument: &'a mut Argument<'_, Memory>| match argument {
        Argument::Input(memory, name) => Argument::Input(input(memory), name),
        Argument::Output(memory, name) => Argument::Output(output(memory), name),
        Argument::Value(value, name) => Argument::Value(value.clone(), name),
    };
    arguments.iter_mut().map(own).collect()
}

#[test]
fn gaussian_is_the_processors() {
    for space in SPACES {
        for sigma_mm in [0.0, 0.8, 3.0] {
            let parameters = Gaussian { sigma_mm, space };
            check_images(
                |device, image| gaussian::gaussian(device, image, &parameters),
                |image| crate::gaussian::gaussian(image, &parameters),
            );
        }
    }
}

#[test]
fn the_gradient_is_the_processors() {
    for space in SPACES {
        for operator in [Operator::Sobel, Operator::Scharr, Operator::Prewitt] {
            check_images(
                |device, image| gradient::magnitude(device, image, operator, space),
                |image| Ok(crate::gradient::magnitude(image, operator, space)),
            );
        }
    }
}

#[test]
fn edges_are_the_processors() {
    for space in SPACES {
        for (sigma_mm, low, high) in
            [(0.0, 0.0, 0.0), (1.0, 20.0, 90.0), (0.6, 150.0, 600.0), (2.0, 0.0, 1e30)]
        {
            let parameters = Canny { sigma_mm, low, high, space };
            check_images(
                |device, image| Ok(as_image(&canny::canny(device, image, &parameters)?)),
                |image| Ok(as_image(&crate::canny::canny(image, &parameters)?)),
            );
        }
    }
}

/// A mask as an image, so that a difference is told with its place.
pub(super) fn as_image(mask: &Mask) -> Image {
    mask.map(|&label| f32::from(label))
}

#[test]
fn edges_are_found_at_all() {
    // What is compared above must not be empty everywhere.
    let geometry = Geometry::new([19, 14, 11], [0.7, 1.1, 2.5]);
    let (_, noisy) = images(geometry).swap_remove(0);
    for device in devices() {
        for space in SPACES {
            let parameters = Canny { sigma_mm: 1.0, low: 20.0, high: 90.0, space };
            let edges = canny::canny(&device, &noisy, &parameters).unwrap();
            assert!((50..1000).contains(&edges.count()), "{space:?}: {}", edges.count());
        }
    }
}

#[test]
fn resampled_images_and_masks_are_the_processors() {
    let (sin, cos) = 0.3f64.sin_cos();
    let turned = [[0.0, cos, sin], [1.0, 0.0, 0.0], [0.0, -sin, cos]];
    let grids: Vec<Geometry> = [[1, 1, 1], [9, 13, 4], [23, 5, 17]]
        .into_iter()
        .flat_map(|size| {
            let plain = Geometry::new(size, [0.9, 1.3, 1.7]);
            let oblique = Geometry { direction: turned, origin_mm: [3.0, -2.0, 1.5], ..plain };
            [plain, oblique, Geometry { spacing_mm: [0.5; 3], ..plain }]
        })
        .collect();
    for grid in &grids {
        check_images(
            |device, image| resample::image_onto(device, image, grid, -7.0),
            |image| crate::resample::image_onto(image, grid, -7.0),
        );
        check_masks(
            |device, mask| resample::mask_onto(device, mask, grid),
            |mask| crate::resample::mask_onto(mask, grid),
        );
    }
}

#[test]
fn components_have_the_processors_numbers_and_measures() {
    for connectivity in CONNECTIVITIES {
        check_masks(
            |device, mask| {
                let found = connected::label(device, mask, connectivity)?;
                Ok((found.labels, found.list))
            },
            |mask| {
                let found = crate::components::label(mask, connectivity);
                Ok((found.labels, found.list))
            },
        );
    }
}

#[test]
fn components_of_many_blocks_have_the_processors_numbers() {
    // More blocks than one block sums at once.
    for (name, mask) in masks(Geometry::unit([61, 53, 21])).into_iter().take(2) {
        for connectivity in [Connectivity::Face, Connectivity::Full] {
            let expected = crate::components::label(&mask, connectivity);
            for device in devices() {
                let found = connected::label(&device, &mask, connectivity).unwrap();
                assert!(found.labels == expected.labels, "labels of {name}, {connectivity:?}");
                assert!(found.list == expected.list, "measures of {name}, {connectivity:?}");
            }
        }
    }
}

#[test]
fn kept_components_are_the_processors() {
    let base = Filter::default();
    for filter in [
        base,
        Filter { space: Space::Slice, connectivity: Connectivity::Full, ..base },
        Filter { border: Border::Drop, ..base },
        Filter { border: Border::DropSides, connectivity: Connectivity::Edge, ..base },
        Filter { largest: 3, min_ml: 0.002, ..base },
        Filter { largest: 1, max_ml: 0.01, space: Space::Slice, ..base },
    ] {
        check_masks(
            |device, mask| connected::filter(device, mask, &filter),
            |mask| Ok(crate::components::filter(mask, &filter)),
        );
    }
}

#[test]
fn balls_are_the_processors() {
    type OnDevice = fn(&Any, &Mask, &Ball) -> Result<Mask, ImagingError>;
    type OnProcessor = fn(&Mask, &Ball) -> Result<Mask, ImagingError>;
    let pairs: [(OnDevice, OnProcessor); 4] = [
        (morphology::dilate, crate::morphology::dilate),
        (morphology::erode, crate::morphology::erode),
        (morphology::open, crate::morphology::open),
        (morphology::close, crate::morphology::close),
    ];
    for (on_device, on_processor) in pairs {
        for space in SPACES {
            for radius_voxels in [0, 1, 2, 5] {
                let ball = Ball { radius_voxels, space };
                check_masks(
                    |device, mask| on_device(device, mask, &ball),
                    |mask| on_processor(mask, &ball),
                );
            }
        }
    }
    let wide = Ball { radius_voxels: 99, ..Ball::default() };
    let mask = Mask::filled(Geometry::unit([2, 2, 2]), 1);
    for device in devices() {
        let refused = morphology::close(&device, &mask, &wide);
        assert!(matches!(refused, Err(ImagingError::Parameter { .. })));
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_taken() {
    let Some(mut device) = Host::new() else { return };
    device.limit = 100;
    let image = Image::filled(Geometry::unit([5, 5, 1]), 1.0);
    let refused = gaussian::gaussian(&device, &image, &Gaussian::default()).unwrap_err();
    assert!(matches!(refused, ImagingError::Device { .. }), "{refused}");
    assert_eq!(device.peak.get(), 0);
    assert!(Grid::new([VOXELS_MAX, 1, 1]).is_ok());
    for size in [[1 << 20, 1 << 11, 1], [usize::MAX, 2, 2]] {
        let refused = Grid::new(size).unwrap_err().to_string();
        assert!(refused.contains("more than its limit of 2147483647"), "{refused}");
    }
}

#[test]
fn nothing_comes_of_nothing() {
    for size in [[0, 3, 2], [4, 0, 2], [4, 3, 0]] {
        let geometry = Geometry::unit(size);
        let (image, mask) = (Image::filled(geometry, 1.0), Mask::filled(geometry, 1));
        for device in devices() {
            assert_eq!(gaussian::gaussian(&device, &image, &Gaussian::default()).unwrap(), image);
            for space in SPACES {
                let parameters = Canny { space, ..Canny::default() };
                let edges = canny::canny(&device, &image, &parameters).unwrap();
                assert!(edges.voxels.is_empty());
            }
            let found = connected::label(&device, &mask, Connectivity::Face).unwrap();
            assert!(found.list.is_empty());
            assert_eq!(morphology::close(&device, &mask, &Ball::default()).unwrap(), mask);
            let grid = Geometry::unit([2, 1, 1]);
            let placed = resample::image_onto(&device, &image, &grid, 5.0).unwrap();
            assert_eq!(placed.voxels, [5.0, 5.0]);
        }
    }
}
