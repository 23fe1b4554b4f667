//! Ends of tries that the cluster has not acknowledged, one file each.
//!
//! A file is written aside, synced and renamed, so that it is whole or not there. One that cannot
//! be read is set aside with a warning: the cluster asks the node what it holds and queues the task
//! again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use gantry_model::{Exit, TryId};
use gantry_wire::codec;

use crate::error::AgentError;

/// The folder of unacknowledged ends.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens the spool, and gives what is in it.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<(TryId, Exit)>), AgentError> {
        let fail = |error: std::io::Error| AgentError::file("opening the spool", folder, error);
        fs::create_dir_all(folder).map_err(fail)?;
        let mut ends = Vec::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_none_or(|ending| ending != "end") {
                continue;
            }
            let read = fs::read(&path).ok().and_then(|bytes| codec::decode(&bytes).ok());
            if let Some(end) = read {
                ends.push(end);
            } else {
                tracing::warn!("a damaged file of the spool was set aside: {}", path.display());
                // Where even that fails the warning comes again at the next start.
                let _ = fs::rename(&path, path.with_extension("damaged"));
            }
        }
        ends.sort_by_key(|(try_id, _)| *try_id);
        Ok((Self { folder: folder.to_owned() }, ends))
    }

    fn path(&self, try_id: TryId) -> PathBuf {
        self.folder.join(format!("{try_id}.end"))
    }

    /// Keeps an end durably.
    pub(crate) fn keep(&self, try_id: TryId, exit: &Exit) -> Result<(), AgentError> {
        let path = self.path(try_id);
        let bytes = codec::encode(&(try_id, exit))
            .map_err(|error| AgentError::file("writing", &path, error))?;
        let part = path.with_extension("part");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| AgentError::file("writing", &path, error))
    }

    /// Forgets an end that is acknowledged.
    pub(crate) fn forget(&self, try_id: TryId) {
        // Where this fails the end is told again after a restart, which harms nobody.
        let _ = fs::remove_file(self.path(try_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_damage_is_set_aside() {
        let folder = TempDir::new().unwrap();
        let (spool, ends) = Spool::open(folder.path()).unwrap();
        assert!(ends.is_empty());
        spool.keep(TryId(7), &Exit::Code(3)).unwrap();
        spool.keep(TryId(2), &Exit::NodeLost).unwrap();
        spool.keep(TryId(5), &Exit::Code(0)).unwrap();
        spool.forget(TryId(5));
        fs::write(folder.path().join("t9.end"), b"junk").unwrap();
        let (_, ends) = Spool::open(folder.path()).unwrap();
        assert_eq!(ends, [(TryId(2), Exit::NodeLost), (TryId(7), Exit::Code(3))]);
        assert!(folder.path().join("t9.damaged").exists());
    }
}
