//! Operations against `SimpleITK`, scikit-image and SciPy, run on the same image in the same test.
//!
//! `GANTRY_PYTHON` names a Python that has them (the gate installs one); where it is not set, this
//! test says so and checks nothing, and the golden numbers remain.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;

use gantry_imaging::bias::{BiasCorrection, bias_correction};
use gantry_imaging::canny::{Canny, canny};
use gantry_imaging::diffusion::{AnisotropicDiffusion, anisotropic_diffusion};
use gantry_imaging::distance::{Side, distance};
use gantry_imaging::fast_marching::{FastMarching, arrival};
use gantry_imaging::flood::{Flood, Isolated, Search, flood, isolated_connected};
use gantry_imaging::gaussian::{Gaussian, gaussian};
use gantry_imaging::gradient::{self, Operator};
use gantry_imaging::laplacian::{laplacian_of_gaussian, zero_crossings};
use gantry_imaging::median::{Median, median};
use gantry_imaging::neighbourhood::{Connectivity, Space};
use gantry_imaging::random_walker::{RandomWalker, random_walker};
use gantry_imaging::reorient::reorient;
use gantry_imaging::resample::{self, Target};
use gantry_imaging::seeds::{Extremum, local_extrema};
use gantry_imaging::spline;
use gantry_imaging::surface::SurfaceDistances;
use gantry_imaging::threshold::{Otsu, classes, multi_otsu};
use gantry_imaging::watershed::watershed;
use gantry_imaging::{Geometry, Image, Mask, Volume};

const SIZE: [usize; 3] = [44, 36, 26];
const SPACING_MM: [f64; 3] = [0.8, 1.0, 2.2];
const SEED: [usize; 3] = [12, 14, 9];
const OTHER: [usize; 3] = [33, 22, 17];

/// What the peers made, and what they made it of.
struct Peers {
    folder: tempfile::TempDir,
    image: Image,
    markers: Mask,
    first: Mask,
    second: Mask,
    /// What differs, found by all comparisons before the test fails.
    wrong: RefCell<Vec<String>>,
}

impl Peers {
    /// Runs the peers, or says why not.
    fn run() -> Option<Self> {
        let Some(python) = std::env::var_os("GANTRY_PYTHON") else {
            println!("skipped: GANTRY_PYTHON names no Python with SimpleITK and scikit-image");
            return None;
        };
        let geometry = Geometry::new(SIZE, SPACING_MM);
        let image = wavy(geometry);
        let mut markers = Mask::filled(geometry, 0);
        for (label, [x, y, z]) in [(1, SEED), (2, OTHER), (5, [2, 2, 2])] {
            markers.voxels[geometry.index(x, y, z)] = label;
        }
        let above = |level: f32| image.map(|&value| u8::from(value > level));
        let (first, second) = (above(20.0), above(35.0));
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: Vec<u8>| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        write("image.raw", image.voxels.iter().flat_map(|v| v.to_le_bytes()).collect());
        write("markers.raw", markers.voxels.clone());
        write("first.raw", first.voxels.clone());
        write("second.raw", second.voxels.clone());
        let grid = serde_json::json!({
            "size": SIZE, "spacing_mm": SPACING_MM, "seed": SEED, "other": OTHER,
        });
        write("grid.json", grid.to_string().into_bytes());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers.py");
        let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the peers failed: {errors}");
        println!("{}", String::from_utf8_lossy(&output.stdout));
        Some(Self { folder, image, markers, first, second, wrong: RefCell::default() })
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        let bytes = std::fs::read(self.folder.path().join(format!("{name}.raw"))).unwrap();
        bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    fn image_of(&self, name: &str) -> Image {
        Image::new(self.image.geometry, self.numbers(name)).unwrap()
    }

    /// Notes unless a mask equals the peers' voxel by voxel.
    fn equal(&self, name: &str, mask: &[u8]) {
        self.equal_but(name, mask, 0.0);
    }

    /// Notes unless a mask equals the peers' but for a share of the voxels.
    fn equal_but(&self, name: &str, mask: &[u8], share: f64) {
        let theirs = std::fs::read(self.folder.path().join(format!("{name}.raw"))).unwrap();
        assert_eq!(mask.len(), theirs.len(), "{name}");
        let differ = mask.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        let inside = mask.iter().filter(|&&label| label != 0).count();
        println!("{name}: {inside} of {} voxels, {differ} differ", mask.len());
        let whole = ["watershed", "watershed_full", "random_walker"].contains(&name);
        let most = share * mask.len() as f64;
        if differ as f64 > most || inside == 0 || (inside == mask.len() && !whole) {
            self.wrong.borrow_mut().push(format!("{name}: {differ} differ, {inside} inside"));
        }
    }

    /// Notes unless values are the peers' within a tolerance.
    fn near(&self, name: &str, values: &[f32], within: f32) {
        let theirs = self.numbers(name);
        assert_eq!(values.len(), theirs.len(), "{name}");
        let pairs = values.iter().zip(&theirs);
        let worst = pairs
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m });
        println!("{name}: at most {worst} apart");
        if worst.is_nan() || worst > within {
            self.wrong.borrow_mut().push(format!("{name}: {worst} apart, more than {within}"));
        }
    }
}

/// An image of hills and noise without two equal values.
fn wavy(geometry: Geometry) -> Image {
    let mut state = 11u32;
    let voxels = (0..geometry.voxels()).map(|index| {
        let [x, y, z] = geometry.position(index).map(|k| k as f32);
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 8) as f32 / 65536.0 - 128.0;
        80.0 * (x / 5.0).sin() * (y / 6.0).cos() + 40.0 * (z / 4.0).sin() + noise
    });
    let image = Image::new(geometry, voxels.collect()).unwrap();
    gaussian(&image, &Gaussian { sigma_mm: 0.9, space: Space::Volume }).unwrap()
}

fn unit<T: Clone>(volume: &Volume<T>) -> Volume<T> {
    Volume { geometry: Geometry::unit(volume.geometry.size), voxels: volume.voxels.clone() }
}

#[test]
fn operations_are_those_of_simpleitk_and_scikit_image() {
    let Some(peers) = Peers::run() else { return };
    edges(&peers);
    smoothing(&peers);
    regions(&peers);
    grids(&peers);
    assert!(peers.wrong.borrow().is_empty(), "{:#?}", peers.wrong.borrow());
}

fn edges(peers: &Peers) {
    let image = unit(&peers.image);
    let z = SIZE[2] / 2;
    for (operator, name) in
        [(Operator::Sobel, "sobel"), (Operator::Scharr, "scharr"), (Operator::Prewitt, "prewitt")]
    {
        peers.near(name, &gradient::magnitude(&image, operator, Space::Volume).voxels, 1e-3);
        let slice = gradient::magnitude(&image, operator, Space::Slice);
        peers.near(&format!("{name}_slice"), slice.slice(z), 1e-3);
    }
    let gaussian = Gaussian { sigma_mm: 1.5, space: Space::Volume };
    peers.near("laplacian", &laplacian_of_gaussian(&image, &gaussian).unwrap().voxels, 1e-2);
    let crossings = zero_crossings(&peers.image_of("laplacian"), 0.0, Space::Volume);
    peers.equal("zero_crossings", &crossings.voxels);
    let found = canny(&image, &Canny { low: 40.0, high: 90.0, ..Canny::default() }).unwrap();
    peers.equal("canny_slice", found.slice(z));
}

fn smoothing(peers: &Peers) {
    let image = &peers.image;
    peers.near("median", &median(image, &Median::default()).unwrap().voxels, 0.0);
    let flat = median(image, &Median { radius_voxels: 2, space: Space::Slice }).unwrap();
    peers.near("median_slice", flat.slice(SIZE[2] / 2), 0.0);
    let diffusion = AnisotropicDiffusion { time_step: 0.05, conductance: 2.0, iterations: 4 };
    peers.near("diffusion", &anisotropic_diffusion(image, &diffusion).unwrap().voxels, 1e-2);
    // Values to 400: a thousandth of that. (The histogram's bins fall differently by rounding.)
    let parameters = BiasCorrection { levels: 3, iterations: 20, shrink: 1, ..Default::default() };
    let corrected = bias_correction(&peers.image_of("bright"), None, &parameters).unwrap();
    let worst = corrected.voxels.iter().fold(0.0f32, |most, &v| most.max(v));
    peers.near("bias", &corrected.voxels, worst * 5e-3);
}

fn regions(peers: &Peers) {
    let image = &peers.image;
    for (name, connectivity) in [("", Connectivity::Face), ("_full", Connectivity::Full)] {
        let parameters = Flood { tolerance: 25.0, connectivity };
        let found = flood(image, &[SEED], &parameters).unwrap();
        peers.equal(&format!("flood{name}"), &found.voxels);
        let basins = watershed(image, &peers.markers, connectivity).unwrap();
        peers.equal(&format!("watershed{name}"), &basins.voxels);
        let whole = peers.image_of("whole");
        for (kind, which) in [("minima", Extremum::Minima), ("maxima", Extremum::Maxima)] {
            let found = local_extrema(&whole, which, connectivity);
            peers.equal(&format!("local_{kind}{name}"), &found.voxels);
        }
    }
    for (name, search, first, second) in
        [("upper", Search::Upper, OTHER, SEED), ("lower", Search::Lower, SEED, OTHER)]
    {
        let parameters = Isolated { lower: -500.0, upper: 500.0, tolerance: 0.5, search };
        let found = isolated_connected(image, &[first], &[second], &parameters).unwrap();
        peers.equal(&format!("isolated_{name}"), &found.mask.voxels);
    }
    // Two iterative solvers: where two labels are almost equally probable they may differ.
    let parameters = RandomWalker { beta: 5.0, tolerance: 1e-6 };
    let found = random_walker(&unit(image), &unit(&peers.markers), &parameters).unwrap();
    peers.equal_but("random_walker", &found.voxels, 0.005);
    let times = arrival(&peers.image_of("speed"), &[SEED], &FastMarching::default()).unwrap();
    peers.near("fast_marching", &times.voxels, 1e-3);
    let otsu = Otsu::default();
    let labels = classes(image, &multi_otsu(image, &otsu, 3).unwrap());
    peers.equal("multi_otsu", &labels.voxels);
}

fn grids(peers: &Peers) {
    let side = |side: Side| distance(&peers.first, side, Space::Volume).voxels;
    peers.near("inside", &side(Side::Inside), 1e-4);
    peers.near("outside", &side(Side::Outside), 1e-4);
    let target = Target::Size([37, 41, 19]);
    let linear = resample::image(&peers.image, &target).unwrap();
    peers.near("resample_linear", &linear.voxels, 1e-2);
    peers.near("resample_spline", &spline::image(&peers.image, &target).unwrap().voxels, 1e-2);
    let turned = reorient(&peers.image, "SAR".parse().unwrap()).unwrap();
    peers.near("reorient", &turned.voxels, 0.0);
    let apart = SurfaceDistances::of(&peers.first, &peers.second, 1).unwrap().unwrap();
    let measures = [apart.hd95_mm(), apart.hausdorff_mm(), apart.assd_mm()].map(|mm| mm as f32);
    peers.near("surfaces", &measures, 1e-4);
}
