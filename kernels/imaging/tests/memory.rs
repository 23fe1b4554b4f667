//! The predicted peak of every operation against the measured one, by an allocator that counts.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_imaging::phantom::{PhantomSettings, patient};

mod steps;

/// The system's allocator, counting what is held and the most that was.
struct Counting;

static HELD: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

fn take(bytes: usize) {
    let held = HELD.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; the counters own no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps what `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_operation_takes_more_than_was_predicted() {
    let settings = PhantomSettings { size: [160, 160, 40], ..PhantomSettings::default() };
    let image = patient(5, &settings).image;
    for step in steps::STEPS {
        let pipeline = steps::pipeline(step);
        let predicted = pipeline.plan(&image.geometry).unwrap().peak_bytes;
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let result = pipeline.run(&image, &mut |_| {});
        // The caller's image is part of the prediction.
        let measured = PEAK.load(Ordering::Relaxed) - before + 4 * image.voxels.len() as u64;
        let voxels = image.voxels.len() as u64;
        println!(
            "{:30} {:5.1} of {:5.1} bytes a voxel predicted, {}",
            step.lines().next().unwrap(),
            measured as f64 / voxels as f64,
            predicted as f64 / voxels as f64,
            if result.is_ok() { "done" } else { "refused" }
        );
        assert!(measured <= predicted, "{step}: {measured} bytes, {predicted} predicted");
    }
}
