//! Grouped syncs: what associations bring while others are being synced shares one sync.
//!
//! A sync takes a disk a millisecond and answers for all that was written before it, so the rate of
//! a receiver is the number of syncs times what each is good for. Whoever finds nobody at it stores
//! what waits, its own and that of others, and tells each what became of it; nobody waits for a
//! batch to fill. One instance that cannot be stored fails alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gantry_library::{Arrival, Library, LibraryError, Stored};

/// Instances that are stored at once: with more, the first would wait longer than it saves.
const BATCH_MAX: usize = 64;
/// Bytes that are stored at once, but for a single instance that is larger.
const BATCH_BYTES_MAX: usize = 256 << 20;

type Outcome = Result<Stored, LibraryError>;

/// What waits, and what became of what waited.
#[derive(Default)]
struct State {
    waiting: VecDeque<(u64, Arrival<'static>)>,
    done: BTreeMap<u64, Outcome>,
    next: u64,
    storing: bool,
}

/// Where associations meet.
pub(super) struct Group {
    library: Library,
    state: Mutex<State>,
    changed: Condvar,
}

impl Group {
    pub(super) fn new(library: Library) -> Self {
        Self { library, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Keeps an instance. Once this returns, it is on disk.
    pub(super) fn store(&self, arrival: Arrival<'static>) -> Outcome {
        let mut state = self.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.push_back((ticket, arrival));
        loop {
            if let Some(outcome) = state.done.remove(&ticket) {
                return outcome;
            }
            if state.storing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.storing = true;
            let batch = next_batch(&mut state.waiting);
            drop(state);
            let turn = Turn { group: self, tickets: batch.iter().map(|one| one.0).collect() };
            let arrivals: Vec<Arrival> = batch.into_iter().map(|one| one.1).collect();
            turn.end(self.store_all(&arrivals));
            state = self.lock();
        }
    }

    fn store_all(&self, arrivals: &[Arrival<'_>]) -> Vec<Outcome> {
        match self.library.store_batch(arrivals) {
            Ok(stored) => stored.into_iter().map(Ok).collect(),
            Err(error) if arrivals.len() == 1 => vec![Err(error)],
            // What is there already is found again, so that none of it is stored twice.
            Err(_) => {
                arrivals.iter().flat_map(|one| self.store_all(std::slice::from_ref(one))).collect()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panics has the lock only while it moves whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many of those that wait as are stored at once.
fn next_batch(waiting: &mut VecDeque<(u64, Arrival<'static>)>) -> Vec<(u64, Arrival<'static>)> {
    let mut bytes = 0;
    let mut count = 0;
    for (_, arrival) in waiting.iter().take(BATCH_MAX) {
        bytes += arrival.len();
        if count > 0 && bytes > BATCH_BYTES_MAX {
            break;
        }
        count += 1;
    }
    waiting.drain(..count).collect()
}

/// The turn of who stores. It ends with this value, so that others go on also after a panic.
struct Turn<'a> {
    group: &'a Group,
    tickets: Vec<u64>,
}

impl Turn<'_> {
    fn end(mut self, outcomes: Vec<Outcome>) {
        let tickets = std::mem::take(&mut self.tickets);
        self.group.lock().done.extend(tickets.into_iter().zip(outcomes));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        state.storing = false;
        let lost = || LibraryError::Invalid("storing it ended in a fault of the program".into());
        state.done.extend(self.tickets.drain(..).map(|ticket| (ticket, Err(lost()))));
        drop(state);
        self.group.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::{key, library};

    #[test]
    fn what_many_bring_at_once_is_stored_once_each_and_one_failure_is_its_own() {
        let (folder, library) = library();
        let group = Group::new(library.clone());
        // A folder in the place of a record's file: that instance cannot be stored, others can.
        let refused = key("9", 9);
        let series = library.series_id(&refused.series_uid);
        std::fs::create_dir_all(folder.path().join("series")).unwrap();
        std::fs::write(folder.path().join("series").join(series.as_str()), b"no folder").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (group, refused) = (&group, &refused);
                scope.spawn(move || {
                    for number in 0..20 {
                        let arrival = |key, bytes: String| {
                            Arrival::new(key, gantry_library::Source::Import, bytes.into_bytes())
                        };
                        let own =
                            arrival(key("1", 100 * thread + number), format!("{thread} {number}"));
                        assert_eq!(group.store(own).unwrap(), Stored::New);
                        let shared = group.store(arrival(key("2", number), number.to_string()));
                        assert!(matches!(shared.unwrap(), Stored::New | Stored::Same));
                        assert!(group.store(arrival(refused.clone(), number.to_string())).is_err());
                    }
                });
            }
        });
        let state = group.lock();
        assert!(state.done.is_empty() && state.waiting.is_empty() && !state.storing);
        std::fs::remove_file(folder.path().join("series").join(series.as_str())).unwrap();
        let counts: Vec<u64> =
            library.series().unwrap().iter().map(|series| series.instances).collect();
        assert_eq!((counts.iter().sum::<u64>(), counts.len()), (180, 2));
    }

    #[test]
    fn a_batch_has_an_end() {
        let (_folder, library) = library();
        let arrival = |number: u64, bytes: usize| {
            Arrival::new(key("1", number), gantry_library::Source::Import, vec![0; bytes])
        };
        let mut waiting: VecDeque<_> = (0..100).map(|n| (n, arrival(n, 1))).collect();
        assert_eq!(next_batch(&mut waiting).len(), BATCH_MAX);
        assert_eq!(next_batch(&mut waiting).len(), 100 - BATCH_MAX);
        let mut waiting: VecDeque<_> =
            [(0, arrival(0, BATCH_BYTES_MAX + 1)), (1, arrival(1, 1))].into();
        assert_eq!(next_batch(&mut waiting).len(), 1, "a large one goes alone");
        drop(library);
    }
}
