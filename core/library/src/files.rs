//! Writing files so that they are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::error::LibraryError;

/// What every temporary name begins with.
const PART: &str = ".part-";
/// A temporary file that is older was left by a process that is gone.
const STALE: Duration = Duration::from_hours(1);

/// Whether a file was made, or was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    New,
    Known,
}

/// Creates a file with this content unless one of its name is there. Two writers at once agree:
/// one makes it, the other finds it.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<Made, LibraryError> {
    if path.exists() {
        return Ok(Made::Known);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let part = temporary(folder);
    let written = write_synced(&part, bytes).and_then(|()| match fs::hard_link(&part, path) {
        Ok(()) => Ok(Made::New),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::Known),
        Err(error) => Err(error),
    });
    let _ = fs::remove_file(&part);
    let made = written.map_err(|error| LibraryError::file("writing", path, error))?;
    sync_folder(folder)?;
    Ok(made)
}

/// Makes a folder and the folders above it, durably.
pub(crate) fn make_folder(path: &Path) -> Result<(), LibraryError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_folder(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(LibraryError::file("making", path, error))
        }
        _ => path.parent().map_or(Ok(()), sync_folder),
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LibraryError> {
    fs::read(path).map_err(|error| LibraryError::file("reading", path, error))
}

/// The files of a folder that are not temporary, in the order of their names; none where the
/// folder is not there.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LibraryError::file("listing", folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| LibraryError::file("listing", folder, error))?;
        if !entry.file_name().to_string_lossy().starts_with(PART) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Removes temporary files below a folder that a process left behind. Returns how many.
pub(crate) fn sweep(folder: &Path, now: SystemTime) -> u64 {
    let mut swept = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            swept += sweep(&path, now);
        } else if entry.file_name().to_string_lossy().starts_with(PART) {
            let age = entry.metadata().and_then(|metadata| metadata.modified());
            let stale = age.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > STALE));
            swept += u64::from(stale && fs::remove_file(&path).is_ok());
        }
    }
    swept
}

fn temporary(folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    folder.join(format!("{PART}{}-{count}-{}", std::process::id(), since.as_nanos()))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> Result<(), LibraryError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| LibraryError::file("syncing", folder, error))
}
