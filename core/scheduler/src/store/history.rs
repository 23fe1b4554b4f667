//! Ended jobs, kept after the cluster has forgotten them.
//!
//! A row is written when its job ends and again, to the same effect, when a restart applies that
//! end once more: the history is whole up to the newest event, whatever was lost of its last writes. It goes
//! again after as long as an administrator wants it kept.

use gantry_model::{At, JobRow, JobState, MemoryMib, Millis, Spent};
use gantry_wire::{HistoryQuery, UseBy, UseRow, codec};
use rusqlite::{Connection, params};

use super::{Store, add_column, damaged, seal, wrong};
use crate::error::SchedulerError;

/// Jobs that go at once beyond as many as come: some milliseconds.
const PRUNED: usize = 100;
/// Lines of one report.
const USE_ROWS_MAX: usize = 1000;

/// The columns that a row's checksum covers, and it behind them.
pub(super) const COLUMNS: &str = "job, user, grp, kind, ended, failed, tasks, core_ms, gpu_ms, \
     cpu_ms, memory_mib, read_kib, written_kib, row, crc";
/// How many it covers.
pub(super) const COVERED: usize = 14;

/// Adds to a table of an earlier version the columns that it lacks.
pub(super) fn upgrade(database: &Connection) -> rusqlite::Result<()> {
    add_column(database, "history", "read_kib", "INTEGER NOT NULL DEFAULT 0")?;
    add_column(database, "history", "written_kib", "INTEGER NOT NULL DEFAULT 0")?;
    add_column(database, "history", "crc", "INTEGER")
}

/// Keeps ended jobs.
pub(super) fn insert(database: &Connection, rows: &[JobRow]) -> Result<(), SchedulerError> {
    let mut insert = database
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO history ({COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
        ))
        .map_err(wrong)?;
    for row in rows {
        let bytes =
            codec::encode(row).map_err(|error| SchedulerError::Storage(error.to_string()))?;
        let spent = &row.spent;
        let values = params![
            row.job.0 as i64,
            row.user,
            row.group.as_deref().unwrap_or(&row.user),
            row.kind,
            row.ended.unwrap_or_default().0 as i64,
            row.state == JobState::Fail,
            row.tasks.total(),
            spent.core_ms as i64,
            spent.gpu_ms as i64,
            spent.cpu_ms as i64,
            spent.memory_peak.0 as i64,
            spent.read_kib as i64,
            spent.written_kib as i64,
            bytes,
        ];
        seal::insert(&mut insert, values).map_err(wrong)?;
    }
    Ok(())
}

/// Removes some of the jobs that ended longer ago than they are kept; more than come, so that none stays for
/// long.
pub(super) fn prune(
    database: &Connection,
    came: usize,
    now: At,
    kept: Millis,
) -> Result<(), SchedulerError> {
    if kept == Millis(0) {
        return Ok(());
    }
    let old = now.0.saturating_sub(kept.0) as i64;
    let some = (came + PRUNED) as i64;
    database
        .prepare_cached(
            "DELETE FROM history WHERE job IN
             (SELECT job FROM history WHERE ended < ?1 ORDER BY ended LIMIT ?2)",
        )
        .and_then(|mut delete| delete.execute(params![old, some]))
        .map(drop)
        .map_err(wrong)
}

impl Store {
    /// A page of ended jobs, newest first; and whether further ones exist.
    pub(crate) fn history(
        &self,
        query: &HistoryQuery,
        limit: usize,
    ) -> Result<(Vec<JobRow>, bool), SchedulerError> {
        let mut select = self
            .database
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM history
                 WHERE (?1 IS NULL OR user = ?1) AND (?2 IS NULL OR grp = ?2)
                   AND ended >= ?3 AND ended < ?4 AND job < ?5
                 ORDER BY job DESC LIMIT ?6"
            ))
            .map_err(damaged)?;
        let before = query.before.map_or(i64::MAX, |job| job.0 as i64);
        let mut rows = select
            .query(params![
                query.user,
                query.group,
                from(query.from),
                until(query.until),
                before,
                limit as i64 + 1
            ])
            .map_err(damaged)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(damaged)? {
            if !seal::is_sound(row, COVERED).map_err(damaged)? {
                let what = "a row of the history has a wrong checksum";
                return Err(SchedulerError::Journal(what.into()));
            }
            let bytes: Vec<u8> = row.get(COVERED - 1).map_err(damaged)?;
            let row = codec::decode(&bytes).map_err(|error| {
                SchedulerError::Journal(format!("a row of the history: {error}"))
            })?;
            found.push(row);
        }
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// What was used in a time, summed; the greatest first, days in order.
    pub(crate) fn sum_use(
        &self,
        by: UseBy,
        from: At,
        until: At,
    ) -> Result<Vec<UseRow>, SchedulerError> {
        let (name, order) = match by {
            UseBy::User => ("user", "total DESC"),
            UseBy::Group => ("grp", "total DESC"),
            UseBy::Kind => ("kind", "total DESC"),
            UseBy::Day => ("date(ended / 1000, 'unixepoch')", "name"),
        };
        let sql = format!(
            "SELECT {name} AS name, count(*), sum(failed), sum(tasks), sum(core_ms), sum(gpu_ms),
                    sum(cpu_ms), max(memory_mib), sum(read_kib), sum(written_kib),
                    sum(core_ms) + 16 * sum(gpu_ms) AS total
             FROM history WHERE ended >= ?1 AND ended < ?2
             GROUP BY name ORDER BY {order} LIMIT ?3"
        );
        let mut select = self.database.prepare_cached(&sql).map_err(damaged)?;
        let limits = params![self::from(Some(from)), self::until(Some(until)), USE_ROWS_MAX as i64];
        let rows = select.query_map(limits, |row| {
            let number = |column: usize| row.get::<_, i64>(column).map(|value| value as u64);
            Ok(UseRow {
                name: row.get(0)?,
                jobs: number(1)?,
                failed: number(2)?,
                tasks: number(3)?,
                spent: Spent {
                    core_ms: number(4)?,
                    gpu_ms: number(5)?,
                    cpu_ms: number(6)?,
                    memory_peak: MemoryMib(number(7)?),
                    read_kib: number(8)?,
                    written_kib: number(9)?,
                },
            })
        });
        rows.and_then(Iterator::collect).map_err(damaged)
    }
}

fn from(at: Option<At>) -> i64 {
    at.map_or(0, |at| i64::try_from(at.0).unwrap_or(i64::MAX))
}

fn until(at: Option<At>) -> i64 {
    at.map_or(i64::MAX, |at| i64::try_from(at.0).unwrap_or(i64::MAX))
}
