//! A copy of the journal for a backup: one file without gaps, as the journal is between two batches.
//!
//! `SQLite` writes it (`VACUUM INTO`), so that each page is read and a damaged one is found while the
//! good copies of earlier days are still there. Meanwhile nothing else is decided.

use std::fs::File;
use std::path::Path;

use super::{Store, private, wrong};
use crate::error::SchedulerError;

/// The copy in the scheduler's folder.
pub(crate) const COPY: &str = "journal.copy";

/// Whether a file of the scheduler's folder is the journal, a part of it, or made of it.
pub(crate) fn is_journal(name: &str) -> bool {
    name.starts_with("journal.")
}

impl Store {
    /// Writes everything there is into a new file, in the place of one that was there, and syncs it.
    /// Gives its bytes.
    ///
    /// # Errors
    /// Where a page is damaged or the file cannot be written; nothing is left of it then.
    pub(crate) fn copy(&self, to: &Path) -> Result<u64, SchedulerError> {
        let written = self.write_copy(to);
        if written.is_err() {
            // What cannot be removed is overwritten by the next copy.
            let _ = std::fs::remove_file(to);
        }
        written
    }

    fn write_copy(&self, to: &Path) -> Result<u64, SchedulerError> {
        let fail =
            |error: std::io::Error| SchedulerError::file("copying the journal to", to, &error);
        match std::fs::remove_file(to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        private(to)?;
        let name = to.to_str().ok_or_else(|| {
            SchedulerError::Backup(format!("{} is no name that SQLite can use", to.display()))
        })?;
        self.database.execute("VACUUM INTO ?1", [name]).map_err(wrong)?;
        let file = File::open(to).map_err(fail)?;
        file.sync_all().map_err(fail)?;
        Ok(file.metadata().map_err(fail)?.len())
    }
}
