//! Outputs that are old enough go.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gantry_model::JobId;

use super::Outputs;

/// How the folders are called whose outputs are being removed. They are called so where they are: a disk
/// that is full may have no room for another folder.
const REMOVED: &str = "removed";
/// The file that names the newest job of which outputs were removed.
const REMOVED_TO: &str = "removed-to";

impl Outputs {
    /// Puts aside the outputs of jobs of which nothing was written for so long, but not of those that
    /// live, and returns which they are: `remove` removes them. A file that a job has named itself stays
    /// where it is; only the link to it goes.
    pub(crate) fn put_aside(
        &self,
        age: Duration,
        now: SystemTime,
        live: &BTreeSet<JobId>,
    ) -> io::Result<Vec<JobId>> {
        let mut old = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(job) = name.to_str().and_then(|name| name.parse::<JobId>().ok()) else {
                continue;
            };
            let since = now.duration_since(written(&entry.path())?).unwrap_or_default();
            if live.contains(&job) || since <= age {
                continue;
            }
            // Held, so that nobody reads half of it, or packs more into it.
            let mut packers = self.lock();
            packers.remove(&job);
            fs::rename(entry.path(), entry.path().with_extension(REMOVED))?;
            old.push(job);
        }
        if let Some(newest) = old.iter().max().filter(|newest| self.removed_to() < Some(**newest)) {
            // Without it what is gone reads as empty, which is no reason to keep the rest.
            if let Err(error) = fs::write(self.folder.join(REMOVED_TO), newest.to_string()) {
                tracing::warn!("what was removed could not be noted: {error}");
            }
        }
        Ok(old)
    }

    /// The newest job of which outputs were removed, if there is one that is known.
    fn removed_to(&self) -> Option<JobId> {
        fs::read_to_string(self.folder.join(REMOVED_TO)).ok()?.parse().ok()
    }

    /// Whether a job has no output that was not removed, and may have had one.
    pub(super) fn may_be_removed(&self, job: JobId) -> bool {
        self.removed_to() >= Some(job) && !self.job(job).exists()
    }

    /// Removes what was put aside.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == REMOVED) {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }
}

/// When something in a folder was written last.
fn written(folder: &Path) -> io::Result<SystemTime> {
    let mut last = fs::symlink_metadata(folder)?.modified()?;
    for entry in fs::read_dir(folder)? {
        last = last.max(entry?.metadata()?.modified()?);
    }
    Ok(last)
}
