//! One value of each voxel: the operations that only read a volume and write another.

use pulp::NullaryFnOnce;

use super::vector::vectorised;
use crate::memory::{self, Unwritten};

/// Values that a thread takes at once: enough to pay for handing them over, few enough for its cache.
const CHUNK: usize = 1 << 15;

/// Returns what `f` makes of each value. It is copied, so that what it holds stays in registers: behind a
/// reference it would have to be read again after each value that is written.
pub(crate) fn each<T: Copy + Sync, U: Copy + Send>(
    values: &[T],
    f: impl Fn(T) -> U + Sync + Copy,
) -> Vec<U> {
    memory::made(values.len(), CHUNK, |number, made| {
        let from = number * CHUNK;
        let values = &values[from..values.len().min(from + CHUNK)];
        vectorised(Each { made, values, f })
    })
}

struct Each<'a, 'b, T, U, F> {
    made: Unwritten<'a, U>,
    values: &'b [T],
    f: F,
}

impl<'a, T: Copy, U: Copy, F: Fn(T) -> U> NullaryFnOnce for Each<'a, '_, T, U, F> {
    type Output = &'a mut [U];

    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    fn call(self) -> &'a mut [U] {
        self.made.each(self.values, self.f)
    }
}
