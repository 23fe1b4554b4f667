//! The event log: one row a line, for questions about times, levels, nodes and jobs.
//!
//! Lines follow from events of the journal, and a few are added by sessions. They are written right
//! after the batch that gave them, without a sync of their own: the next batch's sync covers them,
//! and lines that a power failure takes are made again from the journal, since each row knows the
//! newest block whose lines are all there. Only lines of sessions can be lost that way.
//!
//! Numbers rise by one and times never go back, so a time is a place in the log. The newest lines
//! are kept, up to a number and an age; old ones go in small steps, and the newest always stays:
//! numbers and blocks are counted on from it. One look goes over a bounded number of rows, since
//! the thread that answers is the one that decides.

use gantry_model::{At, JobId, JobRow, Level, Millis, Note, Subject};
use gantry_wire::codec::VALUE_BYTES_MAX;
use gantry_wire::{NotePage, NotePlace, NoteQuery, NoteRow};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, add_column, damaged, history, seal, wrong};
use crate::error::SchedulerError;

/// Rows that one look goes over: three milliseconds at most.
const LOOK_MAX: usize = 4000;
/// Bytes of one page's sentences and names: with everything around them it fits a frame.
const PAGE_BYTES: usize = VALUE_BYTES_MAX / 4 * 3;
/// What a line takes on the wire beside its sentence and name, at most: numbers, lengths, a time.
const ROW_BYTES: usize = 48;
/// Characters of one sentence: what a person reads.
const SENTENCE_CHARACTERS_MAX: usize = 2000;
/// Old rows that go with one batch, beside two for each new one.
const PRUNE_STEP: i64 = 500;

/// The levels by the number that a row has for them.
const LEVELS: [Level; 4] = [Level::Info, Level::Note, Level::Warn, Level::Fail];

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS notes (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    node TEXT,
    job INTEGER,
    task INTEGER,
    sentence TEXT NOT NULL,
    block INTEGER NOT NULL,
    crc INTEGER
);
CREATE INDEX IF NOT EXISTS notes_at ON notes (at);
CREATE INDEX IF NOT EXISTS notes_node ON notes (node) WHERE node IS NOT NULL;
CREATE INDEX IF NOT EXISTS notes_job ON notes (job) WHERE job IS NOT NULL;
";

const INSERT: &str = "INSERT INTO notes (number, at, level, node, job, task, sentence, block, crc)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// How many of a row's columns its checksum covers.
pub(super) const COVERED: usize = 8;

/// Adds to a table of an earlier version the column that it lacks.
pub(super) fn upgrade(database: &Connection) -> rusqlite::Result<()> {
    add_column(database, "notes", "crc", "INTEGER")
}

/// How much of the event log and of the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// So many of the newest lines.
    pub(crate) lines: u32,
    /// Only those younger than this, where it is not zero.
    pub(crate) age: Millis,
    /// Ended jobs, for so long; all where it is zero.
    pub(crate) history: Millis,
}

impl Default for Retention {
    fn default() -> Self {
        Self { lines: 1_000_000, age: Millis(0), history: Millis(0) }
    }
}

/// A row's number and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    number: i64,
    at: At,
}

/// Where the log begins and ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Log {
    oldest: Place,
    newest: Place,
    /// The lines of every block up to this one are there.
    block: i64,
    retention: Retention,
}

impl Log {
    /// Reads where the log stands.
    pub(super) fn open(database: &Connection) -> rusqlite::Result<Self> {
        let newest = "SELECT number, at, block FROM notes ORDER BY number DESC LIMIT 1";
        let newest = database.query_row(newest, [], |row| Ok((place(row)?, row.get(2)?)));
        let (newest, block) = newest.optional()?.unwrap_or_default();
        Ok(Self { oldest: oldest(database)?, newest, block, retention: Retention::default() })
    }

    /// The number up to which rows are too many, and the time before which they are too old.
    fn ends(&self, now: At) -> (i64, At) {
        let Retention { lines, age, .. } = self.retention;
        let old = if age == Millis(0) { At(0) } else { At(now.0.saturating_sub(age.0)) };
        (self.newest.number - i64::from(lines.max(1)), old)
    }

    /// Whether old rows are to go.
    fn is_long(&self, now: At) -> bool {
        let (number, at) = self.ends(now);
        let spare = self.oldest.number < self.newest.number;
        spare && (self.oldest.number <= number || self.oldest.at < at)
    }
}

impl Store {
    /// Says how much of the event log and of the history is kept from now on.
    pub(crate) const fn retain(&mut self, retention: Retention) {
        self.log.retention = retention;
    }

    /// The block up to which the lines of all are in the log.
    pub(crate) const fn noted(&self) -> i64 {
        self.log.block
    }

    /// Keeps what followed from the events up to the newest block: jobs that have ended and lines
    /// of the event log. One transaction without a sync; at its end some old lines and jobs go.
    ///
    /// # Errors
    /// [`SchedulerError::Full`] where the disk is full and nothing was written.
    pub(crate) fn keep_after(
        &mut self,
        ended: &[JobRow],
        notes: &[Note],
        now: At,
    ) -> Result<(), SchedulerError> {
        if ended.is_empty() && notes.is_empty() && !self.log.is_long(now) {
            return Ok(());
        }
        let (mut log, last) = (self.log, self.last);
        self.without_sync(|transaction| {
            history::insert(transaction, ended)?;
            history::prune(transaction, ended.len(), now, log.retention.history)?;
            insert(transaction, &mut log, notes, last).map_err(wrong)?;
            if log.is_long(now) {
                prune(transaction, &mut log, notes.len() as i64, now).map_err(wrong)?;
            }
            Ok(())
        })?;
        self.log = log;
        Ok(())
    }

    /// The newest lines, oldest first.
    pub(crate) fn newest_notes(&self, count: usize) -> Result<Vec<Note>, SchedulerError> {
        let sql = format!("{SELECT} ORDER BY number DESC LIMIT ?1");
        let mut select = self.database.prepare(&sql).map_err(damaged)?;
        let rows = select.query_map([count as i64], |row| Ok(read(row)?.note));
        let mut notes: Vec<Note> = rows.and_then(Iterator::collect).map_err(damaged)?;
        notes.reverse();
        Ok(notes)
    }

    /// One page of the lines that are asked for.
    pub(crate) fn notes(&self, query: &NoteQuery) -> Result<NotePage, SchedulerError> {
        self.look(query).map_err(damaged)
    }

    fn look(&self, query: &NoteQuery) -> rusqlite::Result<NotePage> {
        let newest = self.log.newest.number;
        let (mut low, mut high) = self.numbers(query)?;
        let mut page = NotePage { last: newest as u64, ..NotePage::default() };
        let order = match query.place {
            NotePlace::Newest => "DESC",
            NotePlace::Before(number) => {
                high = high.min(signed(number).saturating_sub(1));
                page.last = number.saturating_sub(1);
                "DESC"
            }
            NotePlace::Behind(number) => {
                low = low.max(signed(number).saturating_add(1));
                "ASC"
            }
        };
        page.first = low as u64;
        let sql = match query.subject {
            Some(Subject::Node(_)) => "AND node = ?4",
            Some(Subject::Job(_) | Subject::Task(_)) => "AND job = ?4",
            _ => "AND ?4 IS NULL",
        };
        let sql = format!(
            "{SELECT} WHERE number BETWEEN ?1 AND ?2 {sql} ORDER BY number {order} LIMIT ?3"
        );
        let mut select = self.database.prepare_cached(&sql)?;
        let limit = LOOK_MAX as i64 + 1;
        let mut rows = select.query(params![low, high, limit, subject(query)])?;
        let (mut edge, mut looked, mut bytes) = (None, 0, 0);
        while let Some(row) = rows.next()? {
            let line = if matches(row, query)? { Some(read(row)?) } else { None };
            bytes += line.as_ref().map_or(0, bytes_of);
            if looked == LOOK_MAX || bytes > PAGE_BYTES {
                page.more = true;
                break;
            }
            looked += 1;
            edge = Some(row.get::<_, i64>(0)? as u64);
            page.rows.extend(line);
        }
        // A look that did not come to its end goes on from the last row that it has seen.
        if order == "ASC" {
            page.last = edge.filter(|_| page.more).unwrap_or(page.last);
        } else {
            page.first = edge.filter(|_| page.more).unwrap_or(page.first);
            page.rows.reverse();
        }
        Ok(page)
    }

    /// Between which numbers the lines of a time lie; none where the first is the greater one.
    fn numbers(&self, query: &NoteQuery) -> rusqlite::Result<(i64, i64)> {
        let find = |sql: &str, at: At| -> rusqlite::Result<Option<i64>> {
            let mut select = self.database.prepare_cached(sql)?;
            select.query_row([signed(at.0)], |row| row.get(0)).optional()
        };
        let first = "SELECT number FROM notes WHERE at >= ?1 ORDER BY at, number LIMIT 1";
        let last = "SELECT number FROM notes WHERE at < ?1 ORDER BY at DESC, number DESC LIMIT 1";
        let (oldest, newest) = (self.log.oldest.number, self.log.newest.number);
        let low = query.from.map_or(Ok(Some(oldest)), |at| find(first, at))?;
        let high = query.until.map_or(Ok(Some(newest)), |at| find(last, at))?;
        Ok((low.unwrap_or(newest + 1), high.unwrap_or(oldest - 1)))
    }
}

/// The columns that a row's checksum covers, and it behind them.
pub(super) const SELECT: &str =
    "SELECT number, at, level, node, job, task, sentence, block, crc FROM notes";

/// Writes lines behind the newest one.
fn insert(
    database: &Connection,
    log: &mut Log,
    notes: &[Note],
    block: i64,
) -> rusqlite::Result<()> {
    let mut insert = database.prepare_cached(INSERT)?;
    for note in notes {
        // Sessions stamp their lines themselves: one may come after a line that is a little younger.
        log.newest = Place { number: log.newest.number + 1, at: note.at.max(log.newest.at) };
        let (node, job, task) = match &note.subject {
            Subject::Cluster => (None, None, None),
            Subject::Node(name) => (Some(name.as_str()), None, None),
            Subject::Job(job) => (None, Some(job.0 as i64), None),
            Subject::Task(task) => (None, Some(task.job.0 as i64), Some(task.index)),
        };
        let level = LEVELS.iter().position(|level| *level == note.level).unwrap_or_default();
        let Place { number, at } = log.newest;
        let sentence = short(&note.sentence);
        let values = params![number, signed(at.0), level as i64, node, job, task, sentence, block];
        seal::insert(&mut insert, values)?;
        if log.oldest.number == 0 {
            log.oldest = log.newest;
        }
        log.block = block;
    }
    Ok(())
}

/// Lets a few of the oldest lines go that are too many or too old.
fn prune(database: &Connection, log: &mut Log, new: i64, now: At) -> rusqlite::Result<()> {
    let (number, at) = log.ends(now);
    let step = (log.oldest.number + PRUNE_STEP + 2 * new).min(log.newest.number);
    database
        .prepare_cached("DELETE FROM notes WHERE number < ?1 AND (number <= ?2 OR at < ?3)")?
        .execute(params![step, number, signed(at.0)])?;
    log.oldest = oldest(database)?;
    Ok(())
}

fn oldest(database: &Connection) -> rusqlite::Result<Place> {
    let sql = "SELECT number, at FROM notes ORDER BY number LIMIT 1";
    let found = database.prepare_cached(sql)?.query_row([], place).optional()?;
    Ok(found.unwrap_or_default())
}

fn place(row: &Row) -> rusqlite::Result<Place> {
    Ok(Place { number: row.get(0)?, at: At(row.get::<_, i64>(1)? as u64) })
}

/// What an index is asked for.
fn subject(query: &NoteQuery) -> rusqlite::types::Value {
    match &query.subject {
        Some(Subject::Node(name)) => name.clone().into(),
        Some(Subject::Job(job)) => signed(job.0).into(),
        Some(Subject::Task(task)) => signed(task.job.0).into(),
        Some(Subject::Cluster) | None => rusqlite::types::Value::Null,
    }
}

/// Whether a row is among those that are asked for, beside its time and what an index has chosen.
fn matches(row: &Row, query: &NoteQuery) -> rusqlite::Result<bool> {
    if let Some(least) = query.least
        && level(row)? < least
    {
        return Ok(false);
    }
    let about = match query.subject {
        Some(Subject::Cluster) => {
            row.get_ref(3)? == rusqlite::types::ValueRef::Null
                && row.get_ref(4)? == rusqlite::types::ValueRef::Null
        }
        Some(Subject::Task(task)) => row.get::<_, Option<u32>>(5)? == Some(task.index),
        _ => true,
    };
    Ok(about
        && match &query.text {
            Some(text) => row.get_ref(6)?.as_str()?.contains(text.as_str()),
            None => true,
        })
}

/// A row; of a damaged one its number and place.
fn read(row: &Row) -> rusqlite::Result<NoteRow> {
    if !seal::is_sound(row, COVERED)? {
        let Place { number, at } = place(row)?;
        let sentence = "this line of the event log is damaged".to_owned();
        let note = Note { at, level: Level::Fail, subject: Subject::Cluster, sentence };
        return Ok(NoteRow { number: number as u64, note });
    }
    let (node, job, task): (Option<String>, Option<i64>, Option<u32>) =
        (row.get(3)?, row.get(4)?, row.get(5)?);
    let job = job.map(|job| JobId(job as u64));
    let subject = match (node, job, task) {
        (Some(name), ..) => Subject::Node(name),
        (None, Some(job), Some(index)) => Subject::Task(job.task(index)),
        (None, Some(job), None) => Subject::Job(job),
        (None, None, _) => Subject::Cluster,
    };
    let Place { number, at } = place(row)?;
    let note = Note { at, level: level(row)?, subject, sentence: row.get(6)? };
    Ok(NoteRow { number: number as u64, note })
}

/// The level of a row; what a newer scheduler wrote is at least as loud as what is known here.
fn level(row: &Row) -> rusqlite::Result<Level> {
    let number: i64 = row.get(2)?;
    Ok(usize::try_from(number).ok().and_then(|n| LEVELS.get(n)).copied().unwrap_or(Level::Fail))
}

/// How much of a page a line takes.
fn bytes_of(row: &NoteRow) -> usize {
    let name = if let Subject::Node(name) = &row.note.subject { name.len() } else { 0 };
    row.note.sentence.len() + name + ROW_BYTES
}

/// The beginning of a sentence that is too long.
fn short(sentence: &str) -> &str {
    let end = sentence.char_indices().nth(SENTENCE_CHARACTERS_MAX).map(|(end, _)| end);
    &sentence[..end.unwrap_or(sentence.len())]
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
