//! Memory as the operations want it: large pages for volumes, lines of the cache ahead of their use, and
//! results that are written once.
//!
//! The first two are hints: an operation gives the same without them. A volume's memory is new to the process, so
//! its every page costs a fault, and each jump about it a walk through the tables of pages; with pages of
//! 2 MiB there are 512 times fewer of both. `NumPy` asks for them too, from the same size on.

#![expect(
    unsafe_code,
    reason = "hints are calls outside of Rust, and memory may be written only once"
)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// The least that large pages are asked for.
const LARGE_BYTES_MIN: usize = 4 << 20;
/// A large page of most systems; where it is another, the hint is taken for what fits.
const LARGE_PAGE: usize = 2 << 20;

/// Values that are made by one thread at a time; enough work to pay for handing them over.
const PIECE_MIN: usize = 1 << 14;

/// Returns so many zeros.
pub(crate) fn zeros<T: Copy + Default>(length: usize) -> Vec<T> {
    // Zeros come from the system as pages that nobody has touched yet.
    let values = vec![T::default(); length];
    on_large_pages(values.as_ptr().addr(), length * size_of::<T>());
    values
}

/// Returns the same value so many times.
pub(crate) fn filled<T: Clone>(length: usize, value: T) -> Vec<T> {
    let mut values: Vec<T> = Vec::with_capacity(length);
    on_large_pages(values.as_ptr().addr(), length * size_of::<T>());
    values.resize(length, value);
    values
}

/// Returns so many values, made piece by piece into memory that is written once: one that the allocator
/// has used before is not made zero first. `make` is given the number of a piece and its memory, and
/// gives that back as values.
pub(crate) fn made<T: Copy + Send>(
    length: usize,
    piece: usize,
    make: impl for<'a> Fn(usize, Unwritten<'a, T>) -> &'a mut [T] + Sync,
) -> Vec<T> {
    let mut values: Vec<T> = Vec::with_capacity(length);
    on_large_pages(values.as_ptr().addr(), length * size_of::<T>());
    let pieces = values.spare_capacity_mut()[..length].par_chunks_mut(piece.max(1));
    let least = PIECE_MIN.div_ceil(piece.max(1));
    pieces.with_min_len(least).enumerate().for_each(|(number, piece)| {
        let (start, count) = (piece.as_ptr().cast::<T>(), piece.len());
        let written = make(number, Unwritten(piece));
        assert!(
            std::ptr::eq(written.as_ptr(), start) && written.len() == count,
            "a piece is given back as it was given"
        );
    });
    // SAFETY: every one of these values lies in one of the pieces, and all pieces have come back as
    // slices of values, which only `Unwritten` makes of them once it has written all.
    unsafe { values.set_len(length) };
    values
}

/// A piece of memory that holds no values yet.
pub(crate) struct Unwritten<'a, T>(&'a mut [MaybeUninit<T>]);

impl<'a, T: Copy> Unwritten<'a, T> {
    /// Writes one value everywhere.
    pub(crate) fn fill(self, value: T) -> &'a mut [T] {
        self.0.fill(MaybeUninit::new(value));
        // SAFETY: all of it has just been written.
        unsafe { self.0.assume_init_mut() }
    }

    /// Writes what `f` makes of each of as many values.
    #[expect(clippy::inline_always, reason = "it must be compiled for the vectors of its caller")]
    #[inline(always)]
    pub(crate) fn each<U: Copy>(self, values: &[U], f: impl Fn(U) -> T) -> &'a mut [T] {
        assert_eq!(self.0.len(), values.len(), "a value for each place");
        for (place, &value) in self.0.iter_mut().zip(values) {
            place.write(f(value));
        }
        // SAFETY: there are as many values as places, so that all of them have just been written.
        unsafe { self.0.assume_init_mut() }
    }
}

/// Asks for large pages in the whole ones of a range.
fn on_large_pages(start: usize, bytes: usize) {
    let first = start.next_multiple_of(LARGE_PAGE);
    let end = (start + bytes) / LARGE_PAGE * LARGE_PAGE;
    if bytes < LARGE_BYTES_MIN || end <= first {
        return;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: the range lies within memory that the caller has just been given, and the hint changes
    // nothing that it holds. A system that knows no large pages refuses it.
    unsafe {
        libc::madvise(std::ptr::without_provenance_mut(first), end - first, libc::MADV_HUGEPAGE);
    }
}

/// Fetches the line that holds a value into the cache, if there is such a value.
#[inline]
pub(crate) fn fetch<T>(values: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(value) = values.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, which reads nothing and cannot fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_what_it_was_asked_to_hold() {
        for length in [0, 1, 1000, (8 << 20) + 3] {
            let zeros: Vec<u32> = zeros(length);
            assert!(zeros.len() == length && zeros.iter().all(|&value| value == 0));
            let filled = filled(length, 7u8);
            assert!(filled.len() == length && filled.iter().all(|&value| value == 7));
            let doubled = made(length, 1000, |_, piece| piece.fill(14u16));
            assert!(doubled.len() == length && doubled.iter().all(|&value| value == 14));
            let copied = made(length, 777, |number, piece| {
                let values = &filled[number * 777..];
                let count = values.len().min(777);
                piece.each(&values[..count], u16::from)
            });
            assert!(copied.len() == length && copied.iter().all(|&value| value == 7));
            fetch(&filled, length);
            fetch(&filled, length / 2);
        }
    }
}
