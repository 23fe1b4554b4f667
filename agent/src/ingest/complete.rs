//! When a series is complete: nothing of it has come for a while, over whichever association.
//!
//! DICOM has no word for the last image of a series. What is said here is what an operator reads in
//! the log, by the library's own id; whatever comes later is kept all the same.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gantry_library::{Library, SeriesId};

/// Series that are waited for at once: one more ends the wait for the one that was quiet longest.
const SERIES_MAX: usize = 10_000;

/// Series to which something came lately.
#[derive(Debug, Default)]
struct Open(BTreeMap<SeriesId, Instant>);

impl Open {
    /// Something came. Gives a series that is no longer waited for, where there are too many.
    fn touch(&mut self, series: SeriesId, now: Instant) -> Option<SeriesId> {
        self.0.insert(series, now);
        if self.0.len() <= SERIES_MAX {
            return None;
        }
        let quiet = self.0.iter().min_by_key(|(_, at)| **at).map(|(series, _)| series.clone())?;
        self.0.remove(&quiet);
        Some(quiet)
    }

    /// Takes the series to which nothing came for so long.
    fn complete(&mut self, stable: Duration, now: Instant) -> Vec<SeriesId> {
        self.0
            .extract_if(.., |_, at| now.saturating_duration_since(*at) >= stable)
            .map(|(series, _)| series)
            .collect()
    }

    /// How long until the next may be complete.
    fn wait(&self, stable: Duration, now: Instant) -> Option<Duration> {
        let oldest = self.0.values().min()?;
        Some(stable.saturating_sub(now.saturating_duration_since(*oldest)))
    }
}

/// The series of a receiver. Its thread ends when it is told to.
pub(super) struct Completion {
    library: Library,
    stable: Duration,
    state: Mutex<(Open, bool)>,
    changed: Condvar,
}

impl Completion {
    pub(super) fn new(library: Library, stable: Duration) -> Self {
        Self { library, stable, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Something of a series came.
    pub(super) fn touch(&self, series_uid: &str) {
        let series = self.library.series_id(series_uid);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread has a time to wait for already, and it is no later than this series'.
        let wakes = state.0.0.is_empty();
        let given_up = state.0.touch(series, Instant::now());
        drop(state);
        if wakes {
            self.changed.notify_one();
        }
        if let Some(series) = given_up {
            tracing::warn!(%series, "too many series at once; this one is no longer waited for");
        }
    }

    /// Tells of series as they become complete, until it is told to stop.
    pub(super) fn run(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.1 {
            for series in state.0.complete(self.stable, Instant::now()) {
                match self.library.series_record(&series) {
                    Ok(record) => {
                        let (instances, conflicts) = (record.instances, record.conflicts);
                        tracing::info!(%series, instances, conflicts, "a series is complete");
                    }
                    Err(error) => tracing::error!(%series, "a series cannot be read: {error}"),
                }
            }
            let wait = state.0.wait(self.stable, Instant::now()).unwrap_or(Duration::MAX);
            // The longest that every clock can count to.
            let wait = wait.min(Duration::from_hours(24));
            state =
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_complete_once_and_again_after_more_came() {
        let (folder, stable) = (tempfile::tempdir().unwrap(), Duration::from_mins(1));
        let library = Library::open_or_create(folder.path()).unwrap();
        let (first, second) = (library.series_id("1"), library.series_id("2"));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut open = Open::default();
        assert_eq!(open.wait(stable, begin), None);
        for (series, seconds) in [(&first, 0), (&second, 10), (&first, 30)] {
            assert_eq!(open.touch(series.clone(), at(seconds)), None);
        }
        assert_eq!(open.wait(stable, at(31)), Some(Duration::from_secs(39)));
        assert_eq!(open.complete(stable, at(69)), []);
        assert_eq!(open.complete(stable, at(70)), [second]);
        assert_eq!(open.complete(stable, at(90)), std::slice::from_ref(&first));
        assert_eq!(open.complete(stable, at(500)), [], "it is told once");
        open.touch(first.clone(), at(600));
        assert_eq!(open.complete(stable, at(660)), [first]);
    }

    #[test]
    fn those_that_are_waited_for_have_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::open_or_create(folder.path()).unwrap();
        let (mut open, now) = (Open::default(), Instant::now());
        let mut given_up = Vec::new();
        for number in 0..=SERIES_MAX {
            let at = now + Duration::from_millis(number as u64);
            given_up.extend(open.touch(library.series_id(&number.to_string()), at));
        }
        assert_eq!((given_up, open.0.len()), (vec![library.series_id("0")], SERIES_MAX));
    }
}
