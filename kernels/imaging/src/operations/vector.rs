//! Running a loop with the widest vectors that the processor has.
//!
//! The program is compiled for every x86-64 or ARM processor; a loop that is handed to
//! [`vectorised`] is compiled for AVX2 and AVX-512 too and the right one chosen when it runs. The
//! compiler never fuses or reorders floating-point additions by itself, so the results are the same
//! bits on all of them.

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{NullaryFnOnce, Simd, WithSimd};

/// Runs `work` compiled for this processor. Its method must be `#[inline(always)]`, as must be what
/// that calls in turn. (A closure, or a function as a value, would be compiled once for every
/// processor, and called.)
pub(super) fn vectorised<W: NullaryFnOnce>(work: W) -> W::Output {
    with_vectors(Plain(work))
}

/// Runs `work`, which is written in vectors of any length, with those of this processor.
pub(super) fn with_vectors<W: WithSimd>(work: W) -> W::Output {
    #[cfg(test)]
    if tests::BASELINE.load(std::sync::atomic::Ordering::Relaxed) {
        return work.with_simd(pulp::Scalar);
    }
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(processor) = V4::try_new() {
            return processor.vectorize(On(processor, work));
        }
        // pulp's own choice knows these vectors only with a feature that changes other crates too.
        if let Some(processor) = V3::try_new() {
            return processor.vectorize(On(processor, work));
        }
    }
    pulp::Arch::new().dispatch(work)
}

/// Work that is left to the compiler.
struct Plain<W>(W);

impl<W: NullaryFnOnce> WithSimd for Plain<W> {
    type Output = W::Output;

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> W::Output {
        self.0.call()
    }
}

/// Work with the vectors of a processor.
#[cfg(target_arch = "x86_64")]
struct On<S, W>(S, W);

#[cfg(target_arch = "x86_64")]
impl<S: Simd, W: WithSimd> NullaryFnOnce for On<S, W> {
    type Output = W::Output;

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn call(self) -> W::Output {
        self.1.with_simd(self.0)
    }
}

/// Declares a type whose value is a call of a function with its arguments, for [`vectorised`].
macro_rules! call {
    ($(#[$document:meta])* $visibility:vis $name:ident($arguments:ty) => $function:path) => {
        $(#[$document])*
        $visibility struct $name<'a>($visibility $arguments);

        impl ::pulp::NullaryFnOnce for $name<'_> {
            type Output = ();

            #[allow(clippy::inline_always, reason = "that is what this is for")]
            #[inline(always)]
            fn call(self) {
                $function(self.0);
            }
        }
    };
}

pub(super) use call;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::canny::{Canny, canny};
    use super::super::components::label;
    use super::super::distance::{Side, distance};
    use super::super::gaussian::{Gaussian, gaussian};
    use super::super::gradient::{self, Operator};
    use super::super::laplacian::laplacian_of_gaussian;
    use super::super::median::{Median, median};
    use super::super::neighbourhood::{Connectivity, Space};
    use super::super::region::{
        ConnectedThreshold, NeighbourhoodConnected, connected_threshold, neighbourhood_connected,
    };
    use crate::volume::{Geometry, Image};

    /// Whether loops run as compiled for every processor. Other tests run at the same time and give
    /// the same results either way: that is what the test below is about.
    pub(super) static BASELINE: AtomicBool = AtomicBool::new(false);

    /// Returns the bits of every operation that has loops of its own.
    fn all(image: &Image) -> Vec<(&'static str, Vec<u32>)> {
        let bits = |image: Image| image.voxels.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        let wide = |voxels: Vec<u8>| voxels.into_iter().map(u32::from).collect::<Vec<u32>>();
        let mask = image.map(|&value| u8::from(value > 40.0));
        let seed = [[1, 1, 1]];
        let limits =
            ConnectedThreshold { lower: -20.0, upper: 90.0, connectivity: Connectivity::Edge };
        let boxes = NeighbourhoodConnected { lower: -80.0, upper: 99.0, radius_voxels: 1 };
        let mut results = vec![
            ("components", label(&mask, Connectivity::Full).labels.voxels),
            ("threshold", wide(connected_threshold(image, &seed, &limits).unwrap().voxels)),
            ("boxes", wide(neighbourhood_connected(image, &seed, &boxes).unwrap().voxels)),
        ];
        for space in [Space::Slice, Space::Volume] {
            let smooth = Gaussian { sigma_mm: 1.3, space };
            let edges = Canny { sigma_mm: 0.9, low: 15.0, high: 40.0, space };
            let boxed = |radius_voxels| Median { radius_voxels, space };
            results.extend([
                ("gaussian", bits(gaussian(image, &smooth).unwrap())),
                ("laplacian", bits(laplacian_of_gaussian(image, &smooth).unwrap())),
                ("sobel", bits(gradient::magnitude(image, Operator::Sobel, space))),
                ("canny", wide(canny(image, &edges).unwrap().voxels)),
                ("median", bits(median(image, &boxed(1)).unwrap())),
                ("median of radius 2", bits(median(image, &boxed(2)).unwrap())),
                ("distance", bits(distance(&mask, Side::Signed, space))),
            ]);
        }
        results
    }

    #[test]
    fn every_kind_of_vector_and_any_number_of_threads_give_the_same_bits() {
        let geometry = Geometry::new([83, 45, 21], [0.7, 1.0, 2.5]);
        let mut state = 5u32;
        let values = (0..geometry.voxels()).map(|index| {
            let [x, y, z] = geometry.position(index).map(|k| k as f32);
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            60.0 * (x / 9.0).sin() * (y / 7.0).cos() + 3.0 * z + (state >> 26) as f32
        });
        let image = Image::new(geometry, values.collect()).unwrap();
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all(&image))
        };
        let expected = with(1);
        for (name, bits) in &expected {
            assert!(bits.iter().any(|&b| b != bits[0]), "{name} does nothing here");
        }
        for threads in [2, 5] {
            assert_eq!(with(threads), expected, "{threads} threads");
        }
        BASELINE.store(true, Ordering::Relaxed);
        let plain = with(2);
        BASELINE.store(false, Ordering::Relaxed);
        assert_eq!(plain, expected, "without wide vectors");
    }
}
