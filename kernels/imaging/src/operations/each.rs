//! One value of each voxel: the operations that only read a volume and write another.

use pulp::NullaryFnOnce;
use rayon::prelude::*;

use super::vector::vectorised;
use crate::memory;

/// Values that a thread takes at once: enough to pay for handing them over, few enough for its cache.
const CHUNK: usize = 1 << 15;

/// Returns what `f` makes of each value.
pub(crate) fn each<T: Copy + Sync, U: Copy + Default + Send>(
    values: &[T],
    f: impl Fn(T) -> U + Sync,
) -> Vec<U> {
    let mut made = memory::zeros::<U>(values.len());
    made.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(made, values)| {
        vectorised(Each { made, values, f: &f });
    });
    made
}

struct Each<'a, T, U, F> {
    made: &'a mut [U],
    values: &'a [T],
    f: &'a F,
}

impl<T: Copy, U, F: Fn(T) -> U> NullaryFnOnce for Each<'_, T, U, F> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn call(self) {
        for (made, &value) in self.made.iter_mut().zip(self.values) {
            *made = (self.f)(value);
        }
    }
}
