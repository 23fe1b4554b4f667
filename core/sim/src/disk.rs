//! The scheduler's disk: a journal that is appended and synced, and loses what is not synced.
//!
//! When the power goes, a part of what was not synced may still be there, and the record after it
//! may be torn. A torn tail is cut when the journal is opened: it was never acknowledged. A
//! snapshot replaces the records before it.

use gantry_cluster::{Cluster, Effect, Event};
use gantry_model::{At, JobRow, Machine};

use crate::books::Books;
use crate::random::Random;

/// Records after which a snapshot is made, so that memory and starts stay bounded.
const TAIL_MAX: usize = 4000;

/// One event, and when the scheduler took it by its own clock.
type Record = (At, Event);

/// A journal on a disk.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    snapshot: Cluster,
    /// The books as of the snapshot.
    books: Books,
    /// The time of the newest record that the snapshot holds.
    newest: At,
    tail: Vec<Record>,
    unsynced: Vec<Record>,
    /// The disk is full: what is appended is refused.
    full: bool,
}

/// What a journal leads to.
pub(crate) struct Replayed {
    pub(crate) cluster: Cluster,
    pub(crate) books: Books,
    /// Jobs that ended within its tail, for the history.
    pub(crate) ended: Vec<JobRow>,
    /// Whether what it led to keeps the rules.
    pub(crate) kept: Result<(), String>,
}

/// The disk is full, and nothing of what was to be appended is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Journal {
    pub(crate) fn new(empty: Cluster, books: Books) -> Self {
        let (tail, unsynced) = (Vec::new(), Vec::new());
        Self { snapshot: empty, books, newest: At(0), tail, unsynced, full: false }
    }

    /// Appends records, which are not safe yet.
    pub(crate) fn append(&mut self, records: impl Iterator<Item = Record>) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        self.unsynced.extend(records);
        Ok(())
    }

    /// Makes what was appended safe.
    pub(crate) fn sync(&mut self) {
        self.tail.append(&mut self.unsynced);
    }

    /// Replaces the records by the state that they led to, once they are many. Only what is synced
    /// may be in `cluster`.
    pub(crate) fn compact(&mut self, cluster: &Cluster, books: &Books) {
        if self.tail.len() < TAIL_MAX || !self.unsynced.is_empty() {
            return;
        }
        self.newest = self.last();
        self.snapshot = cluster.clone();
        self.books = books.clone();
        self.tail.clear();
    }

    pub(crate) fn fill(&mut self) {
        self.full = true;
    }

    pub(crate) fn make_room(&mut self) {
        self.full = false;
    }

    /// The power goes. A part of what was not synced stays; says how many records were lost.
    pub(crate) fn crash(&mut self, random: &mut Random) -> usize {
        let before = self.unsynced.len();
        let kept = random.below(before as u64 + 1) as usize;
        // What follows the kept records is torn or gone, and cut alike.
        self.unsynced.truncate(kept);
        self.tail.append(&mut self.unsynced);
        before - kept
    }

    /// The state that the journal holds, as a scheduler that starts finds it.
    pub(crate) fn replay(&self) -> Replayed {
        let (mut cluster, mut books) = (self.snapshot.clone(), self.books.clone());
        let mut ended = Vec::new();
        let mut effects = Vec::new();
        let mut kept = Ok(());
        for (at, event) in &self.tail {
            cluster.apply(*at, event.clone(), &mut effects);
            kept = kept.and_then(|()| books.take(*at, event, &effects, &cluster));
            // What else they asked for was done in an earlier life, or is made up for when the
            // nodes come back and say what they hold.
            for effect in effects.drain(..) {
                if let Effect::JobEnded(row) = effect {
                    ended.push(*row);
                }
            }
        }
        Replayed { cluster, books, ended, kept }
    }

    /// The time of the newest safe record.
    pub(crate) fn last(&self) -> At {
        self.tail.iter().map(|(at, _)| *at).max().unwrap_or_default().max(self.newest)
    }
}
