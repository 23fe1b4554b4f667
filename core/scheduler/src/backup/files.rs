//! The files of a backup: which there are, and their copies with a hash of each.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audit::hexadecimal;
use crate::error::SchedulerError;
use crate::store::is_journal;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A file of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
}

impl Kept {
    /// Whether what was found is this file.
    pub(super) fn check(&self, found: &Self, backup: &Path) -> Result<(), SchedulerError> {
        if (found.bytes, &found.sha256) == (self.bytes, &self.sha256) {
            return Ok(());
        }
        Err(SchedulerError::Backup(format!(
            "{} of the backup {} is not as it was written; take another backup",
            self.name,
            backup.display()
        )))
    }
}

/// The files that a scheduler needs beside its journal: all of its folder but those that are not whole
/// yet, and the address, which is the host's.
pub(super) fn needed(folder: &Path) -> Result<Vec<String>, SchedulerError> {
    let fail = |error: std::io::Error| SchedulerError::file("reading", folder, &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let part = Path::new(&name).extension().is_some_and(|word| word == "part");
        let wanted = !is_journal(&name) && !part && name != "address";
        // A link may lead to settings that are kept elsewhere.
        if wanted && is_plain(&name) && entry.path().is_file() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether a name is that of a file in a folder, and leads nowhere else.
pub(super) fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = parts.next();
    parts.next().is_none()
        && first == Some(Component::Normal(name.as_ref()))
        && !name.contains(char::is_control)
}

/// Copies a file into a new one that nobody else reads, and syncs it.
pub(super) fn copy_new(from: &Path, to: &Path) -> Result<Kept, SchedulerError> {
    let mut target = create(to)?;
    let write = |bytes: &[u8]| target.write_all(bytes);
    let kept = read(from, write, to)?;
    target.sync_all().map_err(|error| SchedulerError::file("syncing", to, &error))?;
    Ok(kept)
}

/// The length and the hash of a file.
pub(super) fn hash(path: &Path) -> Result<Kept, SchedulerError> {
    read(path, |_| Ok(()), path)
}

/// Writes a new file that nobody else reads, and syncs it.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SchedulerError> {
    let mut file = create(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| SchedulerError::file("writing", path, &error))
}

/// Lets the names of a folder reach the disk.
pub(super) fn sync(folder: &Path) -> Result<(), SchedulerError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| SchedulerError::file("syncing", folder, &error))
}

fn create(path: &Path) -> Result<File, SchedulerError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| SchedulerError::file("making", path, &error))
}

/// Reads a file to its end and hands its pieces on.
fn read(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    to: &Path,
) -> Result<Kept, SchedulerError> {
    let fail = |error: std::io::Error| SchedulerError::file("reading", path, &error);
    let mut file = File::open(path).map_err(fail)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut chunk).map_err(fail)?;
        if count == 0 {
            break;
        }
        hasher.update(&chunk[..count]);
        bytes += count as u64;
        take(&chunk[..count]).map_err(|error| SchedulerError::file("writing", to, &error))?;
    }
    let sha256 = hexadecimal(&hasher.finalize());
    Ok(Kept { name: String::new(), bytes, sha256 })
}
