//! The newest lines of the event log: for screens, and on their way to the store.
//!
//! A session that adds a line waits for nothing: the line stands here at once, and the thread that
//! owns the store takes what it does not have with its next batch. While the disk is full lines
//! wait here; beyond a bound the oldest give way, and the first line that is kept again says how
//! many are lost.

use std::borrow::Cow;
use std::collections::VecDeque;

use gantry_model::{Level, Note, Subject};

use crate::webhook::Outbox;

/// Lines that screens are shown from.
pub(crate) const SHOWN_MAX: usize = 1000;
/// Lines that wait for the store: 20 MB at most, and more than one batch gives.
const UNSAVED_MAX: usize = 100_000;

/// The newest lines.
#[derive(Default)]
pub(crate) struct Notes {
    /// What screens are shown from, newest last.
    shown: VecDeque<Note>,
    /// What the store does not have, newest last.
    unsaved: Unsaved,
    /// Where lines are handed in that a person must hear of.
    pub(crate) outbox: Option<Outbox>,
}

/// Lines that the store does not have.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    lines: VecDeque<Note>,
    /// How many before them gave way.
    lost: u64,
}

impl Notes {
    /// The newest lines of an earlier life, oldest first.
    pub(crate) fn restored(notes: Vec<Note>) -> Self {
        Self { shown: notes.into(), ..Self::default() }
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, note: Note) {
        if let Some(outbox) = &self.outbox {
            outbox.offer(&note);
        }
        if self.shown.len() >= SHOWN_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(note.clone());
        self.unsaved.push(note);
    }

    /// The newest lines, oldest first.
    pub(crate) fn newest(&self, count: usize) -> Vec<Note> {
        self.shown.iter().skip(self.shown.len().saturating_sub(count)).cloned().collect()
    }

    /// Gives up what the store does not have.
    pub(crate) fn take_unsaved(&mut self) -> Unsaved {
        std::mem::take(&mut self.unsaved)
    }

    /// Takes back what the store had no room for.
    pub(crate) fn put_back(&mut self, mut older: Unsaved) {
        let newer = std::mem::take(&mut self.unsaved);
        older.lost += newer.lost;
        for note in newer.lines {
            older.push(note);
        }
        self.unsaved = older;
    }
}

impl Unsaved {
    fn push(&mut self, note: Note) {
        if self.lines.len() >= UNSAVED_MAX {
            self.lines.pop_front();
            self.lost += 1;
        }
        self.lines.push_back(note);
    }

    /// The lines as they are to be kept: where some are lost, one says so.
    pub(crate) fn lines(&mut self) -> Cow<'_, [Note]> {
        let lines = &*self.lines.make_contiguous();
        let Some(next) = lines.first().filter(|_| self.lost > 0) else { return lines.into() };
        let sentence =
            format!("{} earlier lines are lost: the disk had no room for them", self.lost);
        let (at, level, subject) = (next.at, Level::Warn, Subject::Cluster);
        let lost = Note { at, level, subject, sentence };
        std::iter::once(lost).chain(lines.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::At;

    use super::*;

    fn note(n: u64) -> Note {
        Note { at: At(n), level: Level::Info, subject: Subject::Cluster, sentence: n.to_string() }
    }

    fn sentences(notes: &[Note]) -> Vec<&str> {
        notes.iter().map(|note| note.sentence.as_str()).collect()
    }

    #[test]
    fn screens_see_the_newest_and_the_store_gets_each_line_once() {
        let mut notes = Notes::restored(vec![note(1), note(2)]);
        notes.push(note(3));
        notes.push(note(4));
        assert_eq!(sentences(&notes.newest(3)), ["2", "3", "4"]);
        let mut unsaved = notes.take_unsaved();
        assert_eq!(sentences(&unsaved.lines()), ["3", "4"], "the store has the earlier ones");
        notes.push(note(5));
        notes.put_back(unsaved);
        assert_eq!(sentences(&notes.take_unsaved().lines()), ["3", "4", "5"]);
        assert!(notes.take_unsaved().lines().is_empty());
        for n in 6..5000 {
            notes.push(note(n));
        }
        assert_eq!(notes.newest(usize::MAX).len(), SHOWN_MAX);
    }

    #[test]
    fn what_is_lost_while_the_disk_is_full_is_counted_and_said() {
        let mut notes = Notes::default();
        let max = UNSAVED_MAX as u64;
        for n in 0..max + 7 {
            notes.push(note(n));
            if n % (max / 4) == 0 {
                let unsaved = notes.take_unsaved();
                notes.put_back(unsaved);
            }
        }
        let unsaved = notes.take_unsaved();
        notes.push(note(max + 7));
        notes.put_back(unsaved);
        let mut unsaved = notes.take_unsaved();
        let lines = unsaved.lines();
        assert_eq!(lines.len(), UNSAVED_MAX + 1);
        assert!(lines[0].sentence.starts_with("8 earlier lines are lost"), "{}", lines[0].sentence);
        assert_eq!((lines[0].at, lines[0].level), (At(8), Level::Warn));
        assert_eq!(lines.last().unwrap().sentence, (max + 7).to_string());
    }
}
