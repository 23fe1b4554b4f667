//! Which alerts are raised, so that the next scheduler knows. They follow from samples, of which there
//! are new ones every second, and are written without a sync of their own.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{Store, damaged, wrong};
use crate::alerts::{Fate, Kept};
use crate::error::SchedulerError;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS alerts (
    key TEXT NOT NULL,
    node TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (key, node, place)
) WITHOUT ROWID;
";

impl Store {
    /// Keeps what has become of alerts.
    ///
    /// # Errors
    /// [`SchedulerError::Full`] where the disk is full and nothing was written.
    pub(crate) fn keep_alerts(
        &mut self,
        changed: &BTreeMap<Kept, Fate>,
    ) -> Result<(), SchedulerError> {
        if changed.is_empty() {
            return Ok(());
        }
        self.without_sync(|transaction| {
            for (Kept { key, node, place }, fate) in changed {
                let statement = match fate {
                    Fate::Raised => "INSERT OR IGNORE INTO alerts VALUES (?1, ?2, ?3)",
                    Fate::Over => "DELETE FROM alerts WHERE key = ?1 AND node = ?2 AND place = ?3",
                };
                transaction.execute(statement, params![key, node, place]).map_err(wrong)?;
            }
            Ok(())
        })
    }

    /// The alerts that are raised.
    pub(crate) fn alerts(&self) -> Result<Vec<Kept>, SchedulerError> {
        let select = "SELECT key, node, place FROM alerts";
        let mut select = self.database.prepare(select).map_err(damaged)?;
        let rows = select.query_map([], |row| {
            Ok(Kept { key: row.get(0)?, node: row.get(1)?, place: row.get(2)? })
        });
        rows.and_then(Iterator::collect).map_err(damaged)
    }
}
