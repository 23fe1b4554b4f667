//! Regions that grow on a device against those of the processor: see [`super::twins_tests`].

use super::twins_tests::{
    CONNECTIVITIES, as_image, assert_same, check_images, devices, geometries, images,
};
use super::{connected, region};
use crate::region::{
    ConfidenceConnected, ConfidenceRegion, ConnectedThreshold, Limits, NeighbourhoodConnected,
};
use crate::volume::{Geometry, Image};

/// Seeds at both ends of an image and in its middle, one of them twice.
fn seeds(image: &Image) -> Vec<[usize; 3]> {
    let last = image.geometry.size.map(|length| length - 1);
    vec![[0; 3], last, last.map(|at| at / 2), [0; 3]]
}

#[test]
fn neighbourhoods_are_the_processors() {
    for radius_voxels in [0, 1, 3] {
        for (lower, upper) in [(-70.0, 10.0), (-70.0, 300.0), (f32::NAN, 1.0)] {
            let parameters = NeighbourhoodConnected { lower, upper, radius_voxels };
            check_images(
                |device, image| {
                    let seeds = seeds(image);
                    let mask = region::neighbourhood_connected(device, image, &seeds, &parameters)?;
                    Ok(as_image(&mask))
                },
                |image| {
                    let seeds = seeds(image);
                    let mask = crate::region::neighbourhood_connected(image, &seeds, &parameters)?;
                    Ok(as_image(&mask))
                },
            );
        }
    }
}

#[test]
fn limits_of_confidence_are_the_processors() {
    let base = ConfidenceConnected::default();
    for parameters in [
        base,
        ConfidenceConnected { multiplier: 0.7, iterations: 9, ..base },
        ConfidenceConnected { radius_voxels: 0, iterations: 0, ..base },
        ConfidenceConnected { limits: Limits::Whole, radius_voxels: 2, ..base },
    ] {
        for geometry in geometries() {
            for (name, image) in images(geometry) {
                let middle = &seeds(&image)[2..3];
                let expected =
                    crate::region::confidence_connected(&image, middle, &parameters).unwrap();
                for device in devices() {
                    let found =
                        region::confidence_connected(&device, &image, middle, &parameters).unwrap();
                    let bits = |region: &ConfidenceRegion| {
                        let (lower, upper) = region.limits;
                        let limits = [lower, upper].map(f32::to_bits);
                        (limits, [region.mean, region.variance].map(f64::to_bits))
                    };
                    // Sums over what is not a number are no number, whichever it is.
                    if !expected.mean.is_nan() {
                        assert_eq!(bits(&found), bits(&expected), "{name} on {:?}", geometry.size);
                    }
                    assert_same(&as_image(&found.mask), &as_image(&expected.mask), name);
                    device.assert_planned(name);
                }
            }
        }
    }
    let (_, noisy) = images(Geometry::unit([19, 14, 11])).swap_remove(0);
    for device in devices() {
        let found = region::confidence_connected(&device, &noisy, &[[9, 7, 5]], &base).unwrap();
        assert!((100..1000).contains(&found.mask.count()), "{}", found.mask.count());
        assert!(region::confidence_connected(&device, &noisy, &[], &base).is_err());
    }
}

#[test]
fn regions_are_the_processors() {
    for connectivity in CONNECTIVITIES {
        for (lower, upper) in [(-70.0, -30.0), (100.0, 240.0), (f32::NAN, 1.0)] {
            let parameters = ConnectedThreshold { lower, upper, connectivity };
            check_images(
                |device, image| {
                    let seeds = seeds(image);
                    connected::connected_threshold(device, image, &seeds, &parameters)
                        .map(|mask| as_image(&mask))
                },
                |image| {
                    let mask =
                        crate::region::connected_threshold(image, &seeds(image), &parameters)?;
                    Ok(as_image(&mask))
                },
            );
        }
    }
}
