//! Memory as the operations want it: large pages for volumes, and lines of the cache ahead of their use.
//!
//! Both are hints: an operation gives the same without them. A volume's memory is new to the process, so
//! its every page costs a fault, and each jump about it a walk through the tables of pages; with pages of
//! 2 MiB there are 512 times fewer of both. `NumPy` asks for them too, from the same size on.

#![expect(unsafe_code, reason = "hints to the system and the processor are calls outside of Rust")]

/// The least that large pages are asked for.
const LARGE_BYTES_MIN: usize = 4 << 20;
/// A large page of most systems; where it is another, the hint is taken for what fits.
const LARGE_PAGE: usize = 2 << 20;

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
            fetch(&filled, length);
            fetch(&filled, length / 2);
        }
    }
}
