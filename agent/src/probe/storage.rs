//! The shared storage: whether it answers, and what its library holds.
//!
//! Storage on a network may hang for minutes, and whoever asks it hangs with it. So one thread asks
//! for its space, another counts what the library holds, and a sample takes what they have left: a
//! question that is open for long is storage that does not answer. Neither thread is replaced: it
//! goes on once storage answers again.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_library::Library;
use gantry_telemetry::{LibraryCounts, StorageSample};

use super::MIB;

/// Between an answer and the next question.
const ASK_EACH: Duration = Duration::from_secs(3);
/// A question that is open for so long is not answered.
const PATIENCE: Duration = Duration::from_secs(3);
/// The part of the time that may go into counting: a large library is counted less often.
const COUNT_PART: u32 = 20;

/// What the threads leave.
#[derive(Debug, Default)]
struct State {
    /// Since when a question is open.
    asked: Option<Instant>,
    answer: Option<Duration>,
    free_mib: Option<u64>,
    counts: Option<LibraryCounts>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    over: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// The storage that is watched.
pub(super) struct Storage(Arc<Shared>);

impl Storage {
    /// Watches the storage of a library.
    pub(super) fn watch(library: &Path) -> Self {
        let (asked, counted) = (library.to_owned(), library.to_owned());
        let ask = move || {
            let facts = rustix::fs::statvfs(&asked)?;
            Ok(facts.f_bavail.saturating_mul(facts.f_frsize) / MIB)
        };
        Self::watch_with(ask, move || counts(&counted), ASK_EACH)
    }

    /// Watches what these two say of it.
    fn watch_with(
        ask: impl Fn() -> io::Result<u64> + Send + 'static,
        count: impl Fn() -> Option<LibraryCounts> + Send + 'static,
        each: Duration,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let (asking, counting) = (shared.clone(), shared.clone());
        std::thread::spawn(move || {
            while !asking.is_over() {
                let begun = Instant::now();
                asking.lock().asked = Some(begun);
                let said = ask();
                let mut state = asking.lock();
                state.asked = None;
                // Storage that refuses, as one whose export is gone, does not answer either.
                state.answer = said.is_ok().then(|| begun.elapsed());
                state.free_mib = said.ok().or(state.free_mib);
                drop(state);
                std::thread::sleep(each);
            }
        });
        std::thread::spawn(move || {
            while !counting.is_over() {
                let begun = Instant::now();
                let counts = count();
                counting.lock().counts = counts;
                std::thread::sleep(each.max(begun.elapsed() * COUNT_PART));
            }
        });
        Self(shared)
    }

    /// How it answers, and what the library holds as far as it does.
    pub(super) fn read(&self) -> (StorageSample, Option<LibraryCounts>) {
        let state = self.0.lock();
        let is_open = state.asked.is_some_and(|asked| asked.elapsed() >= PATIENCE);
        let answer = state.answer.filter(|_| !is_open);
        let sample = StorageSample {
            answer_ms: answer.map(|took| took.as_millis() as u32),
            free_mib: state.free_mib,
        };
        (sample, state.counts.filter(|_| answer.is_some()))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn counts(root: &Path) -> Option<LibraryCounts> {
    let counts = Library::open(root).and_then(|library| library.counts()).ok()?;
    Some(LibraryCounts {
        series: counts.series,
        instances: counts.instances,
        quarantined: counts.quarantined,
        samples: counts.samples,
        models: counts.models,
        predictions: counts.predictions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tempfile::TempDir;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn until(what: &str, is: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < DEADLINE, "{what} did not come");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Storage that answers once for each value sent; until then it hangs.
    fn bench() -> (Storage, mpsc::Sender<io::Result<u64>>) {
        let (answer, answers) = mpsc::channel();
        let ask = move || {
            answers.recv().unwrap_or_else(|_| Err(io::ErrorKind::StaleNetworkFileHandle.into()))
        };
        let count = || Some(LibraryCounts { series: 7, ..LibraryCounts::default() });
        (Storage::watch_with(ask, count, Duration::from_millis(1)), answer)
    }

    #[test]
    fn storage_that_hangs_holds_nobody_up_and_comes_back() {
        let (storage, answer) = bench();
        let silent = StorageSample::default();
        assert_eq!(storage.read(), (silent, None), "it has not answered yet");
        answer.send(Ok(500)).unwrap();
        until("an answer", || storage.read().0.answer_ms.is_some());
        until("counts", || storage.read().1.is_some_and(|counts| counts.series == 7));
        // The next question stays open.
        let hanging = StorageSample { answer_ms: None, free_mib: Some(500) };
        until("silence", || storage.read() == (hanging, None));
        answer.send(Ok(400)).unwrap();
        until("an answer again", || {
            let (sample, counts) = storage.read();
            sample.answer_ms.is_some() && sample.free_mib == Some(400) && counts.is_some()
        });
        // What it took is said: it was slow.
        assert!(storage.read().0.answer_ms.is_some_and(|took| took >= 3000));
        answer.send(Err(io::ErrorKind::StaleNetworkFileHandle.into())).unwrap();
        until("a refusal", || storage.read().0 == StorageSample { free_mib: Some(400), ..silent });
    }

    #[test]
    fn a_librarys_folder_answers() {
        let folder = TempDir::new().unwrap();
        Library::open_or_create(folder.path()).unwrap();
        let storage = Storage::watch(folder.path());
        until("an answer", || {
            let (sample, counts) = storage.read();
            sample.answer_ms.is_some() && sample.free_mib.is_some() && counts.is_some()
        });
    }
}
