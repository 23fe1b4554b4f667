//! Seals of the tables that say who may do what: a checksum over all rows of each.
//!
//! `SQLite` keeps no checksum of its pages, so that a bit that another one flips may give somebody
//! a role, make a used token good, or let the row go that took an access away. A seal covers every
//! value of a table, the names of its columns and the number of its rows. It is held against the table at each start and before
//! each change, and is made anew with the change, in its transaction. These tables have some
//! thousand rows at most, and change when a person says so.
//!
//! Blocks and snapshots have checksums of their own, as lines of the event log and rows of the history
//! have. What alerts are raised follows from the next samples, and is not sealed.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Statement, ToSql, params, params_from_iter};

use super::{damaged, wrong};
use crate::error::SchedulerError;

/// The tables that have a seal.
pub(super) const SEALED: [&str; 3] = ["access", "tokens", "user_tokens"];

/// Holds each table against its seal. Where there are none yet, as in a new store and in one from before
/// there were seals, they are made.
///
/// # Errors
/// Where a table is not as it was written.
pub(super) fn open(database: &mut Connection) -> Result<(), SchedulerError> {
    let transaction = database.transaction().map_err(wrong)?;
    let there = "SELECT count(*) FROM sqlite_master WHERE name = 'seals'";
    let there: i64 = transaction.query_row(there, [], |row| row.get(0)).map_err(damaged)?;
    if there == 0 {
        let table =
            "CREATE TABLE seals (name TEXT PRIMARY KEY, crc INTEGER NOT NULL) WITHOUT ROWID";
        transaction.execute_batch(table).map_err(wrong)?;
        SEALED.iter().try_for_each(|table| renew(&transaction, table))?;
    }
    SEALED.iter().try_for_each(|table| check(&transaction, table))?;
    transaction.commit().map_err(wrong)
}

/// Holds a table against its seal.
///
/// # Errors
/// Where it is not as it was written.
pub(super) fn check(database: &Connection, table: &str) -> Result<(), SchedulerError> {
    let seal = database
        .prepare_cached("SELECT crc FROM seals WHERE name = ?1")
        .and_then(|mut select| select.query_row([table], |row| row.get::<_, i64>(0)).optional())
        .map_err(damaged)?;
    if seal == Some(i64::from(checksum(database, table)?)) {
        return Ok(());
    }
    Err(SchedulerError::Journal(format!(
        "the table {table} is not as it was written: its checksum is wrong"
    )))
}

/// Seals a table as it is now.
pub(super) fn renew(database: &Connection, table: &str) -> Result<(), SchedulerError> {
    let crc = checksum(database, table)?;
    database
        .prepare_cached("INSERT OR REPLACE INTO seals (name, crc) VALUES (?1, ?2)")
        .and_then(|mut insert| insert.execute(params![table, crc]))
        .map(drop)
        .map_err(wrong)
}

/// Over every value of every row, in the order of the table's key, which is among the first three columns.
/// The table itself is read, not an index of it.
fn checksum(database: &Connection, table: &str) -> Result<u32, SchedulerError> {
    let select = format!("SELECT * FROM {table} NOT INDEXED ORDER BY 1, 2, 3");
    let mut select = database.prepare_cached(&select).map_err(damaged)?;
    let columns = select.column_count();
    let (mut crc, mut count) = (crc32fast::Hasher::new(), 0_u64);
    select.column_names().for_each(|name| add(&mut crc, ValueRef::Text(name.as_bytes())));
    let mut rows = select.query([]).map_err(damaged)?;
    while let Some(row) = rows.next().map_err(damaged)? {
        for column in 0..columns {
            add(&mut crc, row.get_ref(column).map_err(damaged)?);
        }
        count += 1;
    }
    crc.update(&count.to_le_bytes());
    Ok(crc.finalize())
}

/// Inserts a row with the checksum of its values behind them.
pub(super) fn insert(insert: &mut Statement, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
    let mut crc = crc32fast::Hasher::new();
    for value in values {
        match value.to_sql()? {
            ToSqlOutput::Borrowed(value) => add(&mut crc, value),
            ToSqlOutput::Owned(value) => add(&mut crc, ValueRef::from(&value)),
            // What only `SQLite` can make of it.
            _ => return Err(rusqlite::Error::InvalidQuery),
        }
    }
    let crc = crc.finalize();
    let checksum: &dyn ToSql = &crc;
    insert.execute(params_from_iter(values.iter().chain([&checksum]))).map(drop)
}

/// Whether a row is as it was written: its first columns, so many, by the checksum behind them. Rows from
/// before there were any have none.
pub(super) fn is_sound(row: &Row, covered: usize) -> rusqlite::Result<bool> {
    let Some(expected) = row.get::<_, Option<u32>>(covered)? else { return Ok(true) };
    let mut crc = crc32fast::Hasher::new();
    for column in 0..covered {
        add(&mut crc, row.get_ref(column)?);
    }
    Ok(crc.finalize() == expected)
}

/// Adds a value with its kind, and its length where that is not always the same.
fn add(crc: &mut crc32fast::Hasher, value: ValueRef) {
    let mut long = |kind: u8, bytes: &[u8]| {
        crc.update(&[kind]);
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    };
    match value {
        ValueRef::Null => crc.update(&[0]),
        ValueRef::Integer(number) => long(1, &number.to_le_bytes()),
        ValueRef::Real(number) => long(2, &number.to_le_bytes()),
        ValueRef::Text(text) => long(3, text),
        ValueRef::Blob(bytes) => long(4, bytes),
    }
}
