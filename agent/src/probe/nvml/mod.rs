//! The GPUs, by NVML on a thread of its own.
//!
//! What a driver does never holds up the node's samples: [`Gpus`] only looks at what the thread
//! ([`thread`]) has left. A driver that hangs hangs that thread, which cannot be stopped: its last
//! values are given for a while, then none, with the seconds since it answered; it goes on by itself
//! once the driver answers again. A driver that is absent is a reason instead of GPUs, and is asked
//! again now and then.
//!
//! What there is ([`list`]), how a GPU is read ([`read`]) and the errors that a driver calls out
//! ([`events`]) have modules of their own. A GPU that is lost stays listed, at its place.

mod events;
mod list;
mod read;
mod thread;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_model::{At, Gpu};
use gantry_telemetry::GpuSample;
use tokio::sync::{mpsc, watch};

/// How long NVML may take to say what there is before the agent goes on without.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Older readings say nothing: the driver hangs.
const STALE: Duration = Duration::from_secs(5);
/// A driver that is asked for the first time is called silent only after so long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Errors that nobody has taken: a GPU that fails may call out hundreds a second.
const XIDS_MAX: usize = 256;
const MIB: u64 = 1 << 20;

/// What there is, or why there is nothing.
pub(crate) type Found = Result<Vec<Gpu>, String>;

/// An error that the driver has called out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct XidEvent {
    /// The GPU, or each MIG instance of one that is divided.
    pub(crate) uuid: String,
    /// The error's number, as NVIDIA's list of XID errors has it.
    pub(crate) code: u64,
    /// When it was heard of.
    pub(crate) at: At,
}

/// What tells others of GPUs beside the samples.
pub(crate) struct GpuNews {
    /// What there is, each time it changes: a driver that comes late, a GPU that is divided.
    pub(crate) found: watch::Receiver<Found>,
    /// The errors that the driver calls out.
    pub(crate) xids: mpsc::Receiver<XidEvent>,
}

/// How often the thread does what.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two readings.
    read: Duration,
    /// Between two attempts to find a driver.
    retry: Duration,
    /// Between two looks at what there is.
    list: Duration,
    /// How long a wait for errors takes at most.
    event: Duration,
}

const PACE: Pace = Pace {
    read: Duration::from_secs(1),
    retry: Duration::from_secs(30),
    list: Duration::from_mins(1),
    event: Duration::from_secs(2),
};

/// Whether a driver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    /// There is none.
    Absent,
    /// It was asked what there is, at this time, and has not answered.
    Asked(Instant),
    /// It has answered, at this time.
    Answered(Instant),
    /// It was there, and is no more; it last answered at this time.
    Gone(Instant),
}

struct State {
    driver: Driver,
    /// As many as GPUs are found.
    samples: Vec<GpuSample>,
    /// Whether the first answer is there.
    begun: bool,
}

/// What the threads leave.
struct Shared {
    state: Mutex<State>,
    first: Condvar,
    found: watch::Sender<Found>,
    xids: mpsc::Sender<XidEvent>,
    /// Nobody wants GPUs any more.
    over: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The driver is about to be asked what there is.
    fn asked(&self) {
        let mut state = self.lock();
        if state.driver == Driver::Absent {
            state.driver = Driver::Asked(Instant::now());
        }
    }

    /// What there is. Samples follow in the same moment, so that they never stand for other GPUs.
    fn found(&self, found: Found) {
        let mut state = self.lock();
        let count = found.as_ref().map_or(0, Vec::len);
        state.driver = if count == 0 { Driver::Absent } else { Driver::Answered(Instant::now()) };
        state.begun = true;
        self.found.send_if_modified(|old| {
            let is_new = *old != found;
            if is_new {
                state.samples = vec![GpuSample::default(); count];
                *old = found;
            }
            is_new
        });
        drop(state);
        self.first.notify_all();
    }

    /// The driver is gone, and every GPU with it.
    fn gone(&self) {
        let mut state = self.lock();
        if let Driver::Answered(at) = state.driver {
            state.driver = Driver::Gone(at);
        }
        let count = state.samples.len();
        state.samples = vec![GpuSample { lost: true, ..GpuSample::default() }; count];
    }

    /// A whole reading.
    fn read(&self, samples: Vec<GpuSample>) {
        let mut state = self.lock();
        state.driver = Driver::Answered(Instant::now());
        state.samples = samples;
    }
}

/// The GPUs of this node.
pub(crate) struct Gpus(Arc<Shared>);

impl Gpus {
    /// Asks NVML what there is, and begins to read.
    pub(super) fn start(library: Option<&Path>) -> (Self, GpuNews) {
        Self::start_at(library, PACE, START_TIMEOUT)
    }

    fn start_at(library: Option<&Path>, pace: Pace, timeout: Duration) -> (Self, GpuNews) {
        let late = || format!("NVML did not answer within {} s", timeout.as_secs());
        let (found, mut changes) = watch::channel(Err(late()));
        let (xids, errors) = mpsc::channel(XIDS_MAX);
        let state = State { driver: Driver::Absent, samples: Vec::new(), begun: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            first: Condvar::new(),
            found,
            xids,
            over: AtomicBool::new(false),
        });
        let (own, library) = (shared.clone(), library.map(Path::to_owned));
        std::thread::spawn(move || thread::run(&own, library.as_deref(), pace));
        let wait = shared.first.wait_timeout_while(shared.lock(), timeout, |state| !state.begun);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
        // What is known at the start is no news.
        changes.mark_unchanged();
        (Self(shared), GpuNews { found: changes, xids: errors })
    }

    /// What there is, or why there is nothing.
    pub(super) fn found(&self) -> Found {
        self.0.found.borrow().clone()
    }

    /// The newest readings; of a driver that hangs, one without values for each GPU.
    pub(super) fn samples(&self) -> Vec<GpuSample> {
        let state = self.0.lock();
        match state.driver {
            Driver::Answered(at) if at.elapsed() < STALE => state.samples.clone(),
            Driver::Gone(_) => state.samples.clone(),
            Driver::Absent | Driver::Asked(_) | Driver::Answered(_) => {
                vec![GpuSample::default(); state.samples.len()]
            }
        }
    }

    /// Seconds since the driver last answered; nothing where there is none.
    pub(super) fn silent_s(&self) -> Option<u32> {
        let (at, patience) = match self.0.lock().driver {
            Driver::Absent => return None,
            Driver::Asked(at) => (at, PATIENCE),
            Driver::Answered(at) | Driver::Gone(at) => (at, Duration::ZERO),
        };
        let silent = at.elapsed();
        (silent >= patience).then_some(silent.as_secs() as u32)
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}
