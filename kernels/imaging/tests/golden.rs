//! Operations on real images against numbers from `SimpleITK` 2.5, scikit-image 0.26 and SciPy.
//!
//! The images are fetched by the project's script into the folder that `GANTRY_DATA` names; where
//! it is not set, these tests say so and check nothing.

#![allow(clippy::unwrap_used, clippy::float_cmp, clippy::print_stdout)]

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use gantry_imaging::canny::{self, Canny};
use gantry_imaging::components::{self, Border, Filter};
use gantry_imaging::gaussian::{Gaussian, gaussian};
use gantry_imaging::gradient::{self, Operator};
use gantry_imaging::morphology::{self, Ball};
use gantry_imaging::neighbourhood::{Connectivity, Space};
use gantry_imaging::region::{
    ConfidenceConnected, ConnectedThreshold, Limits, NeighbourhoodConnected, confidence_connected,
    connected_threshold, neighbourhood_connected,
};
use gantry_imaging::resample::{self, Target};
use gantry_imaging::smooth::{CurvatureFlow, curvature_flow};
use gantry_imaging::threshold::{self, Otsu};
use gantry_imaging::{Geometry, Image, Mask, measure, nifti, nrrd};

/// Returns a file of the fetched data, or nothing where there are none.
fn data(path: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("GANTRY_DATA") else {
        println!("skipped: GANTRY_DATA is not set, so there are no real images");
        return None;
    };
    Some(PathBuf::from(root).join(path))
}

/// Returns the first channel of the proton-density slice.
fn brain() -> Option<Image> {
    let path = data(
        "itk/usr/share/doc/insighttoolkit5-examples/examples/Data/BrainProtonDensitySlice.png",
    )?;
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let channels = info.color_type.samples();
    let voxels = bytes[..info.buffer_size()].iter().step_by(channels).map(|&v| f32::from(v));
    let geometry = Geometry::unit([info.width as usize, info.height as usize, 1]);
    Some(Image::new(geometry, voxels.collect()).unwrap())
}

#[test]
fn connected_threshold_as_itk() {
    let Some(image) = brain() else { return };
    for (seed, lower, upper, face, full) in [
        ([60, 116, 0], 150.0, 180.0, 8998, 9078),
        ([81, 112, 0], 210.0, 250.0, 1272, 1273),
        ([107, 69, 0], 180.0, 210.0, 2833, 6497),
    ] {
        for (connectivity, pixels) in [(Connectivity::Face, face), (Connectivity::Full, full)] {
            let parameters = ConnectedThreshold { lower, upper, connectivity };
            let mask = connected_threshold(&image, &[seed], &parameters).unwrap();
            assert_eq!(mask.count(), pixels, "{seed:?} {connectivity:?}");
        }
    }
}

#[test]
fn neighbourhood_connected_as_itk() {
    let Some(image) = brain() else { return };
    for (seed, lower, upper, pixels) in [
        ([60, 116, 0], 150.0, 180.0, 2331),
        ([81, 112, 0], 210.0, 250.0, 466),
        ([107, 69, 0], 180.0, 210.0, 131),
    ] {
        let parameters = NeighbourhoodConnected { lower, upper, radius_voxels: 1 };
        let mask = neighbourhood_connected(&image, &[seed], &parameters).unwrap();
        assert_eq!(mask.count(), pixels, "{seed:?}");
    }
}

#[test]
fn confidence_connected_as_itk() {
    let Some(image) = brain() else { return };
    let flow = CurvatureFlow { time_step: 0.125, iterations: 5 };
    let smooth = curvature_flow(&image, &flow).unwrap();
    for (name, image, limits, multiplier, counts) in [
        ("8 bits", &image, Limits::Whole, 2.5, [15954, 1340, 23638]),
        ("8 bits", &image, Limits::Whole, 4.5, [26754, 26415, 26872]),
        ("floats", &image, Limits::Exact, 2.5, [15736, 1281, 23593]),
        ("floats", &image, Limits::Exact, 4.5, [26624, 26312, 26754]),
        ("curvature flow", &smooth, Limits::Exact, 2.5, [9633, 547, 10526]),
        ("curvature flow", &smooth, Limits::Exact, 4.5, [26438, 24880, 26737]),
    ] {
        let parameters =
            ConfidenceConnected { multiplier, iterations: 5, radius_voxels: 2, limits };
        for (seed, pixels) in [[60, 116, 0], [81, 112, 0], [107, 69, 0]].into_iter().zip(counts) {
            let found = confidence_connected(image, &[seed], &parameters).unwrap();
            assert_eq!(found.mask.count(), pixels, "{name}, {seed:?}, multiplier {multiplier}");
        }
    }
}

#[test]
fn otsu_as_itk() {
    let Some(image) = brain() else { return };
    // ITK gives bin edges; for 8-bit images it then drops the fraction: 97 and 98.
    for (bins, range, expected) in [
        (128, Some((-0.5, 255.5)), 97.5),
        (256, Some((-0.5, 255.5)), 98.5),
        (128, None, 98.054_534_912_109_38),
        (256, None, 98.050_704_956_054_69),
    ] {
        let found = threshold::otsu(&image, &Otsu { bins, range }).unwrap();
        assert!((found - expected).abs() < 1e-4, "{bins} bins in {range:?}: {found}");
    }
}

#[test]
fn canny_as_scikit_image() {
    let Some(image) = brain() else { return };
    for (sigma_mm, pixels) in [(1.0, 5316), (1.4, 4621), (2.0, 3185)] {
        let mask =
            canny::canny(&image, &Canny { sigma_mm, low: 20.0, high: 50.0, ..Canny::default() })
                .unwrap();
        assert_eq!(mask.count(), pixels, "sigma {sigma_mm}");
    }
}

#[test]
fn air_in_a_chest_as_scipy() {
    let Some((image, air, lungs)) = chest() else { return };
    assert_eq!(image.geometry.size, [512, 512, 48]);
    assert_eq!(image.geometry.spacing_mm, [0.570_312_5, 0.570_312_5, 5.0]);
    assert_eq!(air.count(), 7_679_419);
    assert_eq!(lungs.count(), 1_746_259);
    assert!((measure::volume_ml(&lungs, 1) - 2839.9).abs() < 0.1);
    // ITK's limits are part of the region, so this counts the air at -400 too.
    let outside =
        ConnectedThreshold { lower: f32::MIN, upper: -400.0, connectivity: Connectivity::Face };
    let outside = connected_threshold(&image, &[[0, 0, 0]], &outside).unwrap();
    assert_eq!(outside.count(), 5_932_543);
}

/// Returns the chest CT, its air, and the largest component of air inside.
fn chest() -> Option<(Image, Mask, Mask)> {
    let image = nrrd::read_file(&data("pyradiomics-3.0.1/data/lung1_image.nrrd")?).unwrap();
    let air = threshold::threshold(&image, f32::NEG_INFINITY, -400.0);
    let inner = Filter { border: Border::DropSides, largest: 1, ..Filter::default() };
    let lungs = components::filter(&air, &inner);
    Some((image, air, lungs))
}

#[test]
fn masks_in_three_dimensions_as_scipy() {
    let Some((_, air, lungs)) = chest() else { return };
    for (connectivity, count) in
        [(Connectivity::Face, 15), (Connectivity::Edge, 13), (Connectivity::Full, 12)]
    {
        assert_eq!(components::label(&air, connectivity).list.len(), count, "{connectivity:?}");
    }
    let ball = Ball { radius_voxels: 2, space: Space::Volume };
    assert_eq!(morphology::dilate(&lungs, &ball).unwrap().count(), 2_117_239);
    assert_eq!(morphology::erode(&lungs, &ball).unwrap().count(), 1_307_214);
    assert_eq!(morphology::fill_holes(&lungs, Space::Volume).count(), 1_752_756);
    assert_eq!(morphology::fill_holes(&lungs, Space::Slice).count(), 1_766_676);
}

#[test]
fn filters_in_three_dimensions_as_scipy_and_itk() {
    let Some((image, ..)) = chest() else { return };
    let near = |what: &str, found: f64, expected: f64, within: f64| {
        assert!((found - expected).abs() <= within, "{what}: {found}, not {expected}");
    };
    let mean = |image: &Image| {
        image.voxels.iter().map(|&v| f64::from(v)).sum::<f64>() / image.voxels.len() as f64
    };
    let at = |image: &Image, [x, y, z]: [usize; 3]| f64::from(*image.at(x, y, z));

    let smooth = gaussian(&image, &Gaussian { sigma_mm: 2.0, space: Space::Volume }).unwrap();
    near("gaussian", mean(&smooth), -578.007_505, 1e-3);
    for (voxel, value) in [
        ([256, 256, 24], -715.9164),
        ([0, 0, 0], -997.5578),
        ([511, 511, 47], -965.0299),
        ([150, 300, 20], -876.7162),
        ([380, 200, 10], -55.4188),
    ] {
        near("gaussian", at(&smooth, voxel), value, 2e-3);
    }

    let gradient = gradient::magnitude(&image, Operator::Sobel, Space::Volume);
    near("sobel", mean(&gradient), 34.069_774, 1e-3);
    near("sobel", at(&gradient, [256, 256, 24]), 44.866_716, 1e-3);
    near("sobel", at(&gradient, [150, 300, 20]), 19.945_895, 1e-3);

    let flow = CurvatureFlow { time_step: 0.0625 * 0.570_312_5 * 0.570_312_5, iterations: 3 };
    let flown = curvature_flow(&image, &flow).unwrap();
    near("curvature flow", mean(&flown), -578.064_291, 1e-3);
    near("curvature flow", at(&flown, [256, 256, 24]), -837.742_424, 1e-2);
    near("curvature flow", at(&flown, [150, 300, 20]), -925.153_043, 1e-2);

    let coarse = resample::image(&image, &Target::SpacingMm([2.0, 2.0, 8.0])).unwrap();
    assert_eq!(coarse.geometry.size, [146, 146, 30]);
    near("resample", mean(&coarse), -577.869_166, 1e-3);
    near("resample", at(&coarse, [70, 70, 15]), 171.370_74, 1e-2);
    near("resample", at(&coarse, [100, 50, 5]), -738.537, 1e-2);

    let split = threshold::otsu(&image, &Otsu::default()).unwrap();
    near("otsu", split, -480.090_332, 1e-2);
    let edges = canny::canny(&image, &Canny::default()).unwrap();
    for (z, pixels) in [(0, 5334), (24, 6628), (47, 4467)] {
        let found = edges.slice(z).iter().filter(|&&edge| edge != 0).count();
        assert_eq!(found, pixels, "canny in slice {z}");
    }
}

#[test]
fn regions_in_three_dimensions_as_itk() {
    let Some((image, ..)) = chest() else { return };
    for (limits, voxels) in [(Limits::Whole, 589_820), (Limits::Exact, 588_867)] {
        let parameters = ConfidenceConnected { radius_voxels: 2, limits, ..Default::default() };
        let found = confidence_connected(&image, &[[358, 283, 18]], &parameters).unwrap();
        assert_eq!(found.mask.count(), voxels, "{limits:?}");
    }
}

#[test]
fn reads_real_nifti_files() {
    let templates = "mricron/usr/share/mricron/templates";
    let Some(head) = data(&format!("{templates}/ch2.nii.gz")) else { return };
    let head = nifti::read_file(&head).unwrap();
    assert_eq!((head.geometry.size, head.geometry.spacing_mm), ([181, 217, 181], [1.0; 3]));
    let brain = data(&format!("{templates}/ch2bet.nii.gz")).unwrap();
    let brain = nifti::read_file(&brain).unwrap();
    assert!(head.geometry.same_grid(&brain.geometry));
    // Where the brain is cut out, the two images are the same.
    let differ = head.voxels.iter().zip(&brain.voxels).filter(|&(a, b)| *b > 0.0 && a != b).count();
    assert_eq!(differ, 0);
    // The middle of the brain, the anterior commissure, is the origin of the space.
    let [x, y, z] = head.geometry.origin_mm.map(f64::abs);
    assert!((80.0..=100.0).contains(&x) && (80.0..=130.0).contains(&y) && z < 80.0);
}
