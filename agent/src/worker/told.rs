//! What an operation is told while it goes on: to stop, or that its time limit is near.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an operation is told.
#[derive(Debug, Default)]
pub(super) struct Told {
    stop: AtomicBool,
    warned: AtomicBool,
}

/// An operation was left since it was told to stop.
#[derive(Debug)]
pub(super) struct Stopped;

impl Told {
    /// Begins anew, for an operation that was told to stop before it began, or not.
    pub(super) fn begin(&self, stopped: bool) {
        self.stop.store(stopped, Ordering::Relaxed);
        self.warned.store(false, Ordering::Relaxed);
    }

    /// Tells it to stop.
    pub(super) fn tell_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Tells it that its time limit is near.
    pub(super) fn warn(&self) {
        self.warned.store(true, Ordering::Relaxed);
    }

    /// Whether it is to stop, for one that looks itself.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Whether a warning has come since this was asked last.
    pub(super) fn take_warning(&self) -> bool {
        self.warned.swap(false, Ordering::Relaxed)
    }

    /// Leaves an operation that is told to stop, by unwinding with [`Stopped`] to whoever carries
    /// it out: what stands between the two need not know that there is such a thing as a stop.
    pub(super) fn go_on(&self) {
        if self.stop.load(Ordering::Relaxed) {
            resume_unwind(Box::new(Stopped));
        }
    }
}
