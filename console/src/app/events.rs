//! The event log on the screen: its newest lines, or those around another time.
//!
//! Pages come from the scheduler's store; the filter is the console's own and looks at what has come.
//! One hour back and on are questions for other pages, so that a night can be walked through.

use std::collections::VecDeque;

use gantry_model::{At, Millis};
use gantry_wire::{NotePage, NotePlace, NoteQuery, NoteRow};

use super::filter::Filter;

/// Between two questions for new lines.
pub const NOTES_EACH_MS: u64 = 2000;
/// Lines that are kept.
const ROWS_MAX: usize = 5000;
/// How far a step in time goes.
pub const STEP: Millis = Millis::from_seconds(3600);

/// The lines of the event log that are looked at.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Oldest first.
    rows: VecDeque<NoteRow>,
    /// The end of what is looked at; the present where absent.
    until: Option<At>,
    /// Whether lines before the first exist.
    more: bool,
    /// Whether lines before the first are wanted.
    wants_older: bool,
    known: bool,
}

impl Events {
    /// The end of what is looked at; nothing where it is the present.
    #[must_use]
    pub fn until(&self) -> Option<At> {
        self.until
    }

    /// Whether anything has come.
    #[must_use]
    pub fn known(&self) -> bool {
        self.known
    }

    /// How many lines have come.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are lines before the first.
    #[must_use]
    pub fn more(&self) -> bool {
        self.more
    }

    /// The lines that fit a filter, newest first.
    #[must_use]
    pub fn shown(&self, filter: &str) -> Vec<&NoteRow> {
        let filter = Filter::parse(filter);
        let fits = |row: &&NoteRow| {
            let note = &row.note;
            filter.holds(|field| {
                let (subject, level) = (note.subject.to_string(), note.level.word().to_owned());
                Some(match field {
                    "" => format!("{level} {subject} {}", note.sentence),
                    "level" => level,
                    "subject" | "node" | "job" => subject,
                    _ => return None,
                })
            })
        };
        self.rows.iter().rev().filter(fits).collect()
    }

    /// Lines per minute in the hour before a time, oldest first.
    #[must_use]
    pub fn per_minute(&self, end: At) -> Vec<u32> {
        let mut counts = vec![0; 60];
        for row in &self.rows {
            let minutes = end.since(row.note.at).0 / 60_000;
            if row.note.at <= end && minutes < 60 {
                counts[59 - minutes as usize] += 1;
            }
        }
        counts
    }

    /// What is asked for next; nothing where all is known.
    #[must_use]
    pub fn query(&self) -> Option<NoteQuery> {
        let query = NoteQuery { until: self.until, ..NoteQuery::default() };
        let place = match (self.rows.front(), self.rows.back()) {
            (Some(first), _) if self.wants_older && self.more => NotePlace::Before(first.number),
            (_, Some(last)) if self.until.is_none() => NotePlace::Behind(last.number),
            (_, Some(_)) => return None,
            _ if self.known && self.until.is_some() => return None,
            _ => NotePlace::Newest,
        };
        Some(NoteQuery { place, ..query })
    }

    /// Takes a page to its place.
    pub fn take(&mut self, page: NotePage) {
        self.known = true;
        let (first, last) = (self.rows.front(), self.rows.back());
        let (first, last) = (first.map(|row| row.number), last.map(|row| row.number));
        if let (Some(first), Some(last)) = (first, last) {
            let newer = page.first > last || page.rows.first().is_some_and(|row| row.number > last);
            for row in page.rows.iter().filter(|row| row.number > last) {
                self.rows.push_back(row.clone());
            }
            for row in page.rows.iter().rev().filter(|row| row.number < first) {
                self.rows.push_front(row.clone());
            }
            if !newer && page.first <= first && self.wants_older {
                (self.more, self.wants_older) = (page.more, false);
            }
        } else {
            self.more = page.more;
            self.rows = page.rows.into();
        }
        while self.rows.len() > ROWS_MAX {
            self.rows.pop_front();
            self.more = true;
        }
    }

    /// Asks for lines before the first with the next look.
    pub fn want_older(&mut self) {
        self.wants_older = self.more && self.rows.len() < ROWS_MAX;
    }

    /// Looks at another time; at the present where it is absent or in the future.
    pub fn look_at(&mut self, until: Option<At>, now: At) {
        *self = Self { until: until.filter(|until| *until < now), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{Level, Note, Subject};

    use super::*;

    fn page(numbers: std::ops::Range<u64>, more: bool) -> NotePage {
        let row = |number| NoteRow {
            number,
            note: Note {
                at: At(number * 60_000),
                level: if number % 2 == 0 { Level::Info } else { Level::Warn },
                subject: Subject::Node("a".into()),
                sentence: format!("line {number}"),
            },
        };
        let (first, last) = (numbers.start, numbers.end - 1);
        NotePage { rows: numbers.map(row).collect(), first, last, more }
    }

    #[test]
    fn pages_join_at_both_ends() {
        let mut events = Events::default();
        assert_eq!(events.query().unwrap().place, NotePlace::Newest);
        events.take(page(50..60, true));
        assert_eq!(events.query().unwrap().place, NotePlace::Behind(59));
        events.take(page(60..62, false));
        events.want_older();
        assert_eq!(events.query().unwrap().place, NotePlace::Before(50));
        events.take(page(40..50, false));
        assert_eq!((events.count(), events.more()), (22, false));
        let shown = events.shown("level:warn+ !line:x");
        assert_eq!((shown.len(), shown[0].number), (11, 61));
        assert_eq!(events.per_minute(At(61 * 60_000)).iter().sum::<u32>(), 22);
    }

    #[test]
    fn another_time_is_asked_for_once() {
        let mut events = Events::default();
        events.look_at(Some(At(100)), At(200));
        assert_eq!(events.query().unwrap().until, Some(At(100)));
        events.take(page(1..3, false));
        assert_eq!(events.query(), None);
        events.look_at(Some(At(300)), At(200));
        assert_eq!(events.until(), None, "the future is the present");
    }
}
