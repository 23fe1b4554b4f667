//! The journal, its snapshots, the history, the event log and the tokens, in one `SQLite` file. The
//! only module that knows the database.
//!
//! - [`journal`]: events in blocks; a batch is one transaction and one sync (WAL,
//!   `synchronous=FULL`), so it is there whole or not at all. Snapshots let old events go.
//! - [`head`]: how far it was acknowledged, so that an end that is lost is missed.
//! - [`history`]: one row per ended job, for questions about users, groups and times.
//! - [`events`]: the event log, a row a line. It and the history follow from the journal and are
//!   written without a sync of their own.
//! - [`alerts`]: which alerts are raised, in the same way.
//! - [`tokens`]: hashes of join tokens; [`access`]: who has access, and with which role. Both are
//!   sealed ([`seal`]), so that no bit of them is another one unnoticed.
//! - [`repair`]: what a damaged file still holds; [`copy`]: a copy of a sound one.

mod access;
mod alerts;
mod copy;
mod events;
mod head;
mod history;
mod journal;
mod repair;
mod seal;
mod tokens;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use gantry_model::At;
use gantry_wire::JournalUse;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction};

use crate::error::SchedulerError;

pub(crate) use copy::{COPY, is_journal};
pub(crate) use events::Retention;
pub(crate) use journal::record;
pub use repair::{JournalReport, check, repair};

/// Statements that are kept prepared: more than there are.
const STATEMENTS: usize = 32;
/// The file in the scheduler's folder.
pub(crate) const FILE: &str = "journal.sqlite";

/// The store of one scheduler.
pub(crate) struct Store {
    database: Connection,
    /// The number of the newest block.
    last: i64,
    /// Up to which block everything was acknowledged.
    head: head::Head,
    /// Events since the newest snapshot.
    since_snapshot: i64,
    /// Where the event log begins and ends.
    log: events::Log,
    counted: Counted,
}

/// What the journal has cost in this life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Events that were appended.
    pub(crate) events: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Syncs that made them durable.
    pub(crate) syncs: u64,
    /// How long those took.
    pub(crate) syncing: Duration,
    /// When the newest snapshot was taken, if one was ever.
    pub(crate) snapshot: Option<At>,
}

impl Counted {
    /// The same as it is told to commands.
    pub(crate) fn told(&self) -> JournalUse {
        JournalUse {
            events: self.events,
            bytes: self.bytes,
            syncs: self.syncs,
            syncing_us: u64::try_from(self.syncing.as_micros()).unwrap_or(u64::MAX),
            snapshot: self.snapshot,
        }
    }
}

impl Store {
    /// Opens the store of a folder, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<Self, SchedulerError> {
        let path = folder.join(FILE);
        private(&path)?;
        let mut database = Connection::open(&path).map_err(wrong)?;
        // Held as long as the process lives: two schedulers would interleave their journals.
        database
            .busy_timeout(std::time::Duration::ZERO)
            .and_then(|()| database.pragma_update(None, "locking_mode", "EXCLUSIVE"))
            .and_then(|()| database.pragma_update(None, "journal_mode", "WAL"))
            .and_then(|()| database.pragma_update(None, "journal_size_limit", WAL_BYTES))
            .and_then(|()| database.pragma_update(None, "synchronous", "FULL"))
            .and_then(|()| database.execute_batch(TABLES))
            .and_then(|()| history::upgrade(&database))
            .and_then(|()| database.execute_batch(events::TABLES))
            .and_then(|()| events::upgrade(&database))
            .and_then(|()| database.execute_batch(alerts::TABLES))
            .and_then(|()| database.execute_batch(access::TABLES))
            .map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    SchedulerError::InUse { folder: folder.to_owned() }
                }
                _ => wrong(error),
            })?;
        seal::open(&mut database)?;
        let last = database
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", [], |row| {
                row.get(0)
            })
            .optional()
            .map_err(wrong)?;
        database.set_prepared_statement_cache_capacity(STATEMENTS);
        let log = events::Log::open(&database).map_err(damaged)?;
        let (last, head) = (last.unwrap_or(0), head::Head::open(folder)?);
        Ok(Self { database, last, head, since_snapshot: 0, log, counted: Counted::default() })
    }

    /// What the journal has cost so far.
    pub(crate) const fn counted(&self) -> Counted {
        self.counted
    }

    /// Writes what follows from the journal as one transaction that no sync waits for. It outlives
    /// the process at once; the next sync of the journal makes it outlive the machine.
    fn without_sync(
        &mut self,
        write: impl FnOnce(&Transaction) -> Result<(), SchedulerError>,
    ) -> Result<(), SchedulerError> {
        let synchronous = |database: &Connection, how| {
            database.pragma_update(None, "synchronous", how).map_err(wrong)
        };
        synchronous(&self.database, "NORMAL")?;
        let written = self.database.transaction().map_err(wrong).and_then(|transaction| {
            write(&transaction)?;
            transaction.commit().map_err(wrong)
        });
        // Before anything else: what is acknowledged is synced.
        synchronous(&self.database, "FULL")?;
        written
    }
}

/// What `SQLite`'s own log keeps of its size: after a thousand pages it is copied and begins again, and
/// what one large transaction took beyond that is given back then.
const WAL_BYTES: u32 = 4 << 20;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    format INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS snapshots (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    format INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS history (
    job INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    grp TEXT NOT NULL,
    kind TEXT NOT NULL,
    ended INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    tasks INTEGER NOT NULL,
    core_ms INTEGER NOT NULL,
    gpu_ms INTEGER NOT NULL,
    cpu_ms INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL,
    read_kib INTEGER NOT NULL,
    written_kib INTEGER NOT NULL,
    row BLOB NOT NULL,
    crc INTEGER
);
CREATE INDEX IF NOT EXISTS history_ended ON history (ended);
CREATE TABLE IF NOT EXISTS tokens (
    hash TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL
);
";

/// Adds a column to a table of an earlier version that lacks it.
fn add_column(
    database: &Connection,
    table: &str,
    column: &str,
    kind: &str,
) -> rusqlite::Result<()> {
    let there = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
    if database.query_row(there, [table, column], |row| row.get::<_, i64>(0))? == 0 {
        database.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
    }
    Ok(())
}

/// Makes a file that nobody else reads, where there is none: jobs carry commands and environments.
fn private(path: &Path) -> Result<(), SchedulerError> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map(|_| ()).map_err(|error| SchedulerError::file("opening", path, &error))
}

fn checksum(seq: i64, at: At, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.to_le_bytes());
    hasher.update(&at.0.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// A failure while writing or opening.
fn wrong(error: rusqlite::Error) -> SchedulerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SchedulerError::Full,
        // A statement that was prepared a thousand times and names no column any more is no mistake in it.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            damaged(error)
        }
        _ => SchedulerError::Storage(error.to_string()),
    }
}

/// A failure while reading.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn damaged(error: rusqlite::Error) -> SchedulerError {
    SchedulerError::Journal(error.to_string())
}

#[cfg(test)]
mod tests;
