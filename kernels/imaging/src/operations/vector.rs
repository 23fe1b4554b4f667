//! Running a loop with the widest vectors that the processor has.
//!
//! The program is compiled for every x86-64 or ARM processor; a loop that is handed to
//! [`vectorised`] is compiled for AVX2 and AVX-512 too and the right one chosen when it runs. The
//! compiler never fuses or reorders floating-point additions by itself, so the results are the same
//! bits on all of them.

/// Runs `work` compiled for this processor. What `work` calls must be inlined into it.
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
