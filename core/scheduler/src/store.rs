//! The journal and the tokens, in one `SQLite` file. The only module that knows the database.
//!
//! One row per event: its number, time, format, checksum and bytes. A batch is one transaction and
//! one sync (WAL, `synchronous=FULL`), so it is there whole or not at all. The state of the cluster
//! is what the events give when they are applied again, in order.

use std::path::Path;

use gantry_cluster::Event;
use gantry_model::{At, Reject, RejectKind};
use gantry_wire::codec;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::error::SchedulerError;

/// The format of a row. A newer one is refused, an older one is understood.
const FORMAT: u32 = 1;
/// Tokens that wait to be used.
const TOKENS_MAX: u32 = 10_000;

/// The store of one scheduler.
pub(crate) struct Store {
    database: Connection,
}

impl Store {
    /// Opens the store of a folder, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<Self, SchedulerError> {
        let database = Connection::open(folder.join("journal.sqlite")).map_err(wrong)?;
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
        Ok(Self { database })
    }

    /// Appends events as one transaction with one sync.
    ///
    /// # Errors
    /// [`SchedulerError::Full`] where the disk is full and nothing was written; anything else means
    /// that it is not known what is on disk.
    pub(crate) fn append(&mut self, events: &[(At, Event)]) -> Result<(), SchedulerError> {
        let transaction = self.database.transaction().map_err(wrong)?;
        {
            let mut insert = transaction
                .prepare_cached(
                    "INSERT INTO events (at, format, crc, payload) VALUES (?1, ?2, ?3, ?4)",
                )
                .map_err(wrong)?;
            for (at, event) in events {
                let payload = codec::encode(event)
                    .map_err(|error| SchedulerError::Journal(error.to_string()))?;
                let crc = checksum(*at, &payload);
                insert.execute(params![at.0 as i64, FORMAT, crc, payload]).map_err(wrong)?;
            }
        }
        transaction.commit().map_err(wrong)
    }

    /// Gives every event in order; returns how many there were.
    pub(crate) fn replay(&self, mut apply: impl FnMut(At, Event)) -> Result<u64, SchedulerError> {
        let mut select = self
            .database
            .prepare("SELECT seq, at, format, crc, payload FROM events ORDER BY seq")
            .map_err(wrong)?;
        let mut rows = select.query([]).map_err(wrong)?;
        let mut count = 0;
        while let Some(row) = rows.next().map_err(wrong)? {
            let read = || -> rusqlite::Result<(i64, i64, u32, u32, Vec<u8>)> {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            let (seq, at, format, crc, payload) = read().map_err(wrong)?;
            let at = At(at as u64);
            let broken = |what: &str| SchedulerError::Journal(format!("event {seq} {what}"));
            if format > FORMAT {
                return Err(broken("was written by a newer scheduler"));
            }
            if checksum(at, &payload) != crc {
                return Err(broken("has a wrong checksum"));
            }
            let event = codec::decode(&payload).map_err(|error| broken(&error.to_string()))?;
            apply(at, event);
            count += 1;
        }
        Ok(count)
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

fn checksum(at: At, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&at.0.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn wrong(error: rusqlite::Error) -> SchedulerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SchedulerError::Full,
        _ => SchedulerError::Journal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn event(n: u64) -> Event {
        Event::NodeDown { node: format!("node-{n}") }
    }

    fn all(store: &Store) -> Result<Vec<(At, Event)>, SchedulerError> {
        let mut events = Vec::new();
        store.replay(|at, event| events.push((at, event)))?;
        Ok(events)
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_and_in_order() {
        let folder = TempDir::new().unwrap();
        let expected: Vec<(At, Event)> = (0..50).map(|n| (At(n), event(n))).collect();
        for batch in expected.chunks(7) {
            Store::open(folder.path()).unwrap().append(batch).unwrap();
        }
        assert_eq!(all(&Store::open(folder.path()).unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_second_scheduler_is_refused_and_damage_is_named() {
        let folder = TempDir::new().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.append(&[(At(1), event(1)), (At(2), event(2))]).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(SchedulerError::InUse { .. })));
        store.database.execute("UPDATE events SET at = 9 WHERE seq = 2", []).unwrap();
        let error = all(&store).unwrap_err().to_string();
        assert!(error.contains("event 2 has a wrong checksum"), "{error}");
        store.database.execute("UPDATE events SET format = 99", []).unwrap();
        let error = all(&store).unwrap_err().to_string();
        assert!(error.contains("newer scheduler"), "{error}");
    }

    #[test]
    fn a_token_is_good_once_in_time_and_for_its_node() {
        let folder = TempDir::new().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        for hash in ["a", "b", "c"] {
            store.add_token(hash, "cpu-1", At(0), At(100)).unwrap();
        }
        for (hash, node, now, part) in [
            ("a", "cpu-1", 1, ""),
            ("a", "cpu-1", 2, "used already"),
            ("b", "cpu-2", 1, "another node"),
            ("b", "cpu-1", 101, "expired"),
            ("x", "cpu-1", 1, "not known"),
        ] {
            let found = store.redeem(hash, node, At(now)).unwrap();
            match found {
                Ok(()) => assert_eq!(part, "", "{hash} {node} {now}"),
                Err(reject) => {
                    assert!(!part.is_empty() && reject.sentence.contains(part), "{reject}");
                }
            }
        }
    }
}
