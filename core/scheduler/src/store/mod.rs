//! The journal and the tokens, in one `SQLite` file. The only module that knows the database.
//!
//! One row per event: its number, time, format, checksum and bytes. A batch is one transaction and
//! one sync (WAL, `synchronous=FULL`), so it is there whole or not at all. The state of the cluster
//! is what the events give when they are applied again, in order. The checksum covers the number
//! too, and the numbers have no gap up to the last one given: a row that was changed, moved or
//! taken away is noticed.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gantry_cluster::Event;
use gantry_model::{At, Reject, RejectKind};
use gantry_wire::{WireError, codec};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::error::SchedulerError;

/// The format of a row. A newer one is refused, an older one is understood.
const FORMAT: u32 = 1;
/// Tokens that wait to be used.
const TOKENS_MAX: u32 = 10_000;

/// An event as the journal keeps it.
///
/// # Errors
/// Where it is longer than one record may be.
pub(crate) fn record(event: &Event) -> Result<Vec<u8>, WireError> {
    codec::encode(event)
}

/// The store of one scheduler.
pub(crate) struct Store {
    database: Connection,
    /// The number of the newest event.
    last: i64,
}

impl Store {
    /// Opens the store of a folder, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<Self, SchedulerError> {
        let path = folder.join("journal.sqlite");
        // Jobs carry commands and environments: nobody else reads them.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| SchedulerError::file("opening", &path, &error))?;
        let database = Connection::open(&path).map_err(wrong)?;
        // Held as long as the process lives: two schedulers would interleave their journals.
        database
            .busy_timeout(std::time::Duration::ZERO)
            .and_then(|()| database.pragma_update(None, "locking_mode", "EXCLUSIVE"))
            .and_then(|()| database.pragma_update(None, "journal_mode", "WAL"))
            .and_then(|()| database.pragma_update(None, "synchronous", "FULL"))
            .and_then(|()| database.execute_batch(TABLES))
            .map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    SchedulerError::InUse { folder: folder.to_owned() }
                }
                _ => wrong(error),
            })?;
        let last = database
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", [], |row| {
                row.get(0)
            })
            .optional()
            .map_err(wrong)?;
        Ok(Self { database, last: last.unwrap_or(0) })
    }

    /// Appends records, each with its time, as one transaction with one sync.
    ///
    /// # Errors
    /// [`SchedulerError::Full`] where the disk is full and nothing was written; anything else means
    /// that it is not known what is on disk.
    pub(crate) fn append(&mut self, records: &[(At, Vec<u8>)]) -> Result<(), SchedulerError> {
        let mut seq = self.last;
        let transaction = self.database.transaction().map_err(wrong)?;
        {
            let mut insert = transaction.prepare_cached(INSERT).map_err(wrong)?;
            for (at, payload) in records {
                seq += 1;
                let crc = checksum(seq, *at, payload);
                insert.execute(params![seq, at.0 as i64, FORMAT, crc, payload]).map_err(wrong)?;
            }
        }
        transaction.commit().map_err(wrong)?;
        self.last = seq;
        Ok(())
    }

    /// Gives every event in order; returns how many there were.
    ///
    /// # Errors
    /// Names the first event that is damaged, missing or of a newer format.
    pub(crate) fn replay(
        &mut self,
        mut apply: impl FnMut(At, Event),
    ) -> Result<i64, SchedulerError> {
        let mut select = self
            .database
            .prepare("SELECT seq, at, format, crc, payload FROM events ORDER BY seq")
            .map_err(damaged)?;
        let mut rows = select.query([]).map_err(damaged)?;
        let mut expected = 0;
        while let Some(row) = rows.next().map_err(damaged)? {
            expected += 1;
            let read = || -> rusqlite::Result<(i64, i64, u32, u32, Vec<u8>)> {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            let broken = |what: &str| SchedulerError::Journal(format!("event {expected} {what}"));
            let (seq, at, format, crc, payload) =
                read().map_err(|error| broken(&format!("cannot be read: {error}")))?;
            let at = At(at as u64);
            if seq != expected {
                return Err(broken("is missing"));
            }
            if format > FORMAT {
                return Err(broken("was written by a newer scheduler"));
            }
            if checksum(seq, at, &payload) != crc {
                return Err(broken("has a wrong checksum"));
            }
            apply(at, codec::decode(&payload).map_err(|error| broken(&error.to_string()))?);
        }
        if expected == self.last {
            Ok(expected)
        } else {
            Err(SchedulerError::Journal(format!("event {} is missing", expected + 1)))
        }
    }

    /// Keeps the hash of a new token.
    pub(crate) fn add_token(
        &mut self,
        hash: &str,
        node: &str,
        now: At,
        expires: At,
    ) -> Result<(), SchedulerError> {
        let old = params![now.0 as i64];
        self.database.execute("DELETE FROM tokens WHERE expires < ?1", old).map_err(wrong)?;
        let count: u32 = self
            .database
            .query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))
            .map_err(wrong)?;
        if count >= TOKENS_MAX {
            let sentence = format!("{TOKENS_MAX} tokens wait to be used; wait until some expire");
            return Err(SchedulerError::Refused(Reject::new(RejectKind::Busy, sentence)));
        }
        let insert = "INSERT INTO tokens (hash, node, expires, used) VALUES (?1, ?2, ?3, 0)";
        self.database
            .execute(insert, params![hash, node, expires.0 as i64])
            .map(|_| ())
            .map_err(wrong)
    }

    /// Uses a token up, or says why it is worth nothing.
    pub(crate) fn redeem(
        &mut self,
        hash: &str,
        node: &str,
        now: At,
    ) -> Result<Result<(), Reject>, SchedulerError> {
        let found: Option<(String, i64, bool)> = self
            .database
            .query_row("SELECT node, expires, used FROM tokens WHERE hash = ?1", [hash], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(wrong)?;
        let refuse = |why: String| {
            let sentence = format!("{why}; make a new one with gantry scheduler token {node}");
            Ok(Err(Reject::new(RejectKind::Forbidden, sentence)))
        };
        match found {
            None => refuse("the token is not known here, or has expired".into()),
            Some((_, _, true)) => refuse("the token was used already".into()),
            Some((_, expires, _)) if (expires as u64) < now.0 => {
                refuse("the token has expired".into())
            }
            Some((other, ..)) if other != node => {
                refuse(format!("the token was made for another node than {node}"))
            }
            Some(_) => {
                let update = "UPDATE tokens SET used = 1 WHERE hash = ?1 AND used = 0";
                let changed = self.database.execute(update, [hash]).map_err(wrong)?;
                if changed == 1 { Ok(Ok(())) } else { refuse("the token was used already".into()) }
            }
        }
    }
}

const INSERT: &str =
    "INSERT INTO events (seq, at, format, crc, payload) VALUES (?1, ?2, ?3, ?4, ?5)";
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    format INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS tokens (
    hash TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL
);
";

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
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(error),
        _ => SchedulerError::Storage(error.to_string()),
    }
}

/// A failure while reading.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn damaged(error: rusqlite::Error) -> SchedulerError {
    SchedulerError::Journal(error.to_string())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
