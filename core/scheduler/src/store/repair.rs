//! What a journal holds, and what a damaged one still does.
//!
//! [`check`] changes nothing. [`repair`] keeps the damaged file beside the journal and writes a new
//! one with everything up to the first block that is lost; what came after cannot be applied without
//! it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::journal::Stored;
use super::{FILE, Store, damaged, events, history, seal, wrong};
use crate::error::SchedulerError;

/// What a look at a journal has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalReport {
    /// Events that can be used.
    pub events: u64,
    /// The block after which the newest sound snapshot was taken.
    pub snapshot: Option<u64>,
    /// The first damage, in a sentence.
    pub damage: Option<String>,
    /// Blocks that a repair has given up.
    pub cut: u64,
}

/// Reads the whole journal of a folder and says what it holds. The scheduler must not run.
///
/// # Errors
/// Where there is no journal, or a scheduler is using it.
pub fn check(folder: &Path) -> Result<JournalReport, SchedulerError> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(SchedulerError::NoCluster {
            folder: folder.to_owned(),
            reason: format!("there is no {FILE}"),
        });
    }
    match Store::open(folder) {
        Ok(store) => Ok(look(&store)),
        Err(SchedulerError::Journal(damage)) => {
            Ok(JournalReport { damage: Some(damage), ..JournalReport::default() })
        }
        Err(error) => Err(error),
    }
}

/// Reads every row, one by one.
fn look(store: &Store) -> JournalReport {
    let (database, last) = (&store.database, store.last);
    let mut report = JournalReport::default();
    let integrity: rusqlite::Result<String> =
        database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    match integrity {
        Ok(word) if word == "ok" => {}
        Ok(sentence) => report.damage = Some(sentence),
        Err(error) => report.damage = Some(error.to_string()),
    }
    if let Err(what) = rows(database) {
        report.damage.get_or_insert(what);
    }
    let snapshots = "SELECT seq FROM snapshots ORDER BY seq DESC";
    for seq in numbers(database, snapshots) {
        let sql = "SELECT seq, at, format, crc, payload FROM snapshots WHERE seq = ?1";
        let stored = database.query_row(sql, [seq], Stored::read);
        if stored.is_ok_and(|stored| stored.sound().is_ok()) {
            report.snapshot = Some(seq as u64);
            break;
        }
        report.damage.get_or_insert(format!("the snapshot after block {seq} is damaged"));
    }
    let first = report.snapshot.map_or(0, |seq| seq as i64) + 1;
    for seq in first..=last {
        match block(database, seq) {
            Ok(events) => report.events += events,
            Err(what) => {
                report.damage.get_or_insert(format!("block {seq} {what}"));
                return report;
            }
        }
    }
    if let Some(missed) = store.missed() {
        report.damage.get_or_insert(missed);
    }
    report
}

/// Reads every row of the tables whose rows have checksums of their own.
fn rows(database: &Connection) -> Result<(), String> {
    let history = format!("SELECT {} FROM history", history::COLUMNS);
    let tables = [
        ("history", history.as_str(), history::COVERED),
        ("event log", events::SELECT, events::COVERED),
    ];
    for (name, select, covered) in tables {
        let count = || -> rusqlite::Result<u64> {
            let mut select = database.prepare(select)?;
            let (mut rows, mut damaged) = (select.query([])?, 0);
            while let Some(row) = rows.next()? {
                damaged += u64::from(!seal::is_sound(row, covered)?);
            }
            Ok(damaged)
        };
        match count() {
            Ok(0) => {}
            Ok(count) => return Err(format!("{count} rows of the {name} have a wrong checksum")),
            Err(error) => return Err(format!("the {name} cannot be read: {error}")),
        }
    }
    Ok(())
}

fn numbers(database: &Connection, sql: &str) -> Vec<i64> {
    let read = || -> rusqlite::Result<Vec<i64>> {
        database.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    read().unwrap_or_default()
}

/// How many events a sound block holds.
fn block(database: &Connection, seq: i64) -> Result<u64, String> {
    let sql = "SELECT seq, at, format, crc, payload FROM events WHERE seq = ?1";
    let stored = database
        .query_row(sql, [seq], Stored::read)
        .optional()
        .map_err(|error| format!("cannot be read: {error}"))?
        .ok_or("is missing")?;
    Ok(stored.events()?.len() as u64)
}

/// Makes a damaged journal usable, and says what was given up. The old file is kept beside it.
///
/// # Errors
/// Where the files cannot be read or written.
pub fn repair(folder: &Path) -> Result<JournalReport, SchedulerError> {
    let before = check(folder)?;
    if before.damage.is_none() {
        return Ok(before);
    }
    let (path, kept) = (folder.join(FILE), folder.join("journal.damaged.sqlite"));
    for ending in ["", "-wal", "-shm"] {
        let (from, to) = (with(&path, ending), with(&kept, ending));
        if from.exists() {
            std::fs::rename(&from, &to)
                .map_err(|error| SchedulerError::file("setting aside", &from, &error))?;
        }
    }
    let old =
        Connection::open_with_flags(&kept, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(damaged)?;
    let mut new = Store::open(folder)?;
    let last: i64 = old
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", [], |row| row.get(0))
        .unwrap_or(0);
    let transaction = new.database.transaction().map_err(wrong)?;
    for table in ["tokens", "user_tokens", "access", "history", "notes"] {
        copy(&old, &transaction, table);
    }
    seal::SEALED.iter().try_for_each(|table| seal::renew(&transaction, table))?;
    let mut start = 0;
    for seq in numbers(&old, "SELECT seq FROM snapshots ORDER BY seq DESC") {
        if copy_row(&old, &transaction, "snapshots", seq) {
            start = seq;
            break;
        }
    }
    let (mut end, mut events) = (start, 0);
    while end < last && copy_row(&old, &transaction, "events", end + 1) {
        events += block(&old, end + 1).unwrap_or(0);
        end += 1;
    }
    let insert = "INSERT OR REPLACE INTO sqlite_sequence (name, seq) VALUES ('events', ?1)";
    transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'events'", []).map_err(wrong)?;
    transaction.execute(insert, [end]).map_err(wrong)?;
    transaction.commit().map_err(wrong)?;
    let last = new.head.known().map_or(last, |head| last.max(head));
    new.head.keep(end);
    Ok(JournalReport {
        events,
        snapshot: (start > 0).then_some(start as u64),
        damage: before.damage,
        cut: (last - end) as u64,
    })
}

/// Copies one sound row; says whether it was one.
fn copy_row(from: &Connection, to: &Connection, table: &str, seq: i64) -> bool {
    let sql = format!("SELECT seq, at, format, crc, payload FROM {table} WHERE seq = ?1");
    let Ok(stored) = from.query_row(&sql, [seq], Stored::read) else { return false };
    if stored.sound().is_err() {
        return false;
    }
    let sql =
        format!("INSERT INTO {table} (seq, at, format, crc, payload) VALUES (?1, ?2, ?3, ?4, ?5)");
    let (at, format, crc, payload) = stored.parts();
    to.execute(&sql, params![seq, at, format, crc, payload]).is_ok()
}

/// Copies what can be read of a table that only serves people.
fn copy(from: &Connection, to: &Connection, table: &str) {
    let read = || -> rusqlite::Result<()> {
        let mut select = from.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = select.column_count();
        let marks = vec!["?"; columns].join(", ");
        let mut insert = to.prepare(&format!("INSERT OR IGNORE INTO {table} VALUES ({marks})"))?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..columns)
                .map(|column| row.get::<_, rusqlite::types::Value>(column))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            insert.execute(rusqlite::params_from_iter(values))?;
        }
        Ok(())
    };
    if let Err(error) = read() {
        tracing::warn!(table, "not all of a table could be read: {error}");
    }
}

fn with(path: &Path, ending: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
