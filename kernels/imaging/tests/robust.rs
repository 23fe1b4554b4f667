//! Every operation on volumes that nobody expects, and from one thread and many.

#![allow(clippy::unwrap_used)]

use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_imaging::{Geometry, Image, ImagingError};

mod steps;

use steps::{STEPS, pipeline};

#[test]
fn odd_volumes_give_a_result_or_an_error_but_never_a_panic() {
    let odd = |size: [usize; 3], spacing_mm: [f64; 3], value: &dyn Fn(usize) -> f32| {
        let geometry = Geometry::new(size, spacing_mm);
        Image::new(geometry, (0..geometry.voxels()).map(value).collect()).unwrap()
    };
    let unit = [1.0; 3];
    let mixed = |index: usize| [f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY, -1e30][index % 5];
    let images = [
        ("one voxel", odd([1, 1, 1], unit, &|_| 3.0)),
        ("empty", odd([0, 0, 0], unit, &|_| 0.0)),
        ("no rows", odd([5, 0, 3], unit, &|_| 0.0)),
        ("no columns", odd([0, 5, 3], unit, &|_| 0.0)),
        ("no slices", odd([5, 3, 0], unit, &|_| 0.0)),
        ("a row", odd([9, 1, 1], unit, &|index| index as f32)),
        ("a column", odd([1, 9, 1], unit, &|index| index as f32)),
        ("a line through", odd([1, 1, 9], unit, &|index| index as f32)),
        ("constant", odd([8, 8, 4], unit, &|_| 7.0)),
        ("not a number", odd([8, 8, 4], unit, &|_| f32::NAN)),
        ("some not numbers", odd([8, 8, 4], unit, &mixed)),
        ("flat voxels", odd([8, 8, 4], [0.1, 30.0, 5.0], &|index| (index % 7) as f32 * 99.0)),
        ("huge voxels", odd([4, 4, 4], [100.0; 3], &|index| (index % 3) as f32 * 500.0)),
    ];
    let mut results = 0;
    for step in STEPS {
        let pipeline = pipeline(step);
        for (what, image) in &images {
            match pipeline.run(image, &mut |_| {}) {
                Ok(labelled) => {
                    results += 1;
                    assert!(labelled.image.geometry.same_grid(&labelled.mask.geometry));
                    assert_eq!(labelled.mask.voxels.len(), labelled.mask.geometry.voxels());
                }
                Err(ImagingError::Step { step, source }) => {
                    assert_eq!(step, "second", "{what}");
                    assert!(
                        matches!(
                            *source,
                            ImagingError::Parameter { .. } | ImagingError::Geometry { .. }
                        ),
                        "{what}: {source}"
                    );
                }
                Err(error) => panic!("{what}, {pipeline:?}: {error}"),
            }
        }
    }
    // Most of it works: what fails lacks contrast, a seed in the grid, or voxels.
    assert!(results > STEPS.len() * images.len() * 3 / 4, "{results}");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let settings = PhantomSettings { size: [64, 64, 12], ..PhantomSettings::default() };
    let image = patient(5, &settings).image;
    let pool =
        |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (one, seven) = (pool(1), pool(7));
    for step in STEPS {
        let pipeline = pipeline(step);
        let run = || pipeline.run(&image, &mut |_| {}).unwrap();
        let (alone, together) = (one.install(run), seven.install(run));
        assert_eq!(alone.image, together.image, "{step}");
        assert_eq!(alone.mask, together.mask, "{step}");
    }
}
