//! Writing files so that they are whole or not there.
//!
//! A file is written under a temporary name in its own folder, synced, linked to its own name and
//! its folder synced. A link never replaces: of two writers of one name, one makes the file and the
//! other finds it, and both return only when it is durable. Several files share their syncs, which
//! is what writing costs.
//!
//! How old an object is says whether a sweep may take it for left over ([`super::sweep`]); its file's
//! time of change is that age.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, RenameFlags, Timespec, Timestamps, UTIME_NOW, renameat_with, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::at_once::at_once;
use crate::error::LibraryError;
use crate::ids::{ObjectHash, hex};
use crate::limits::{REFRESH_AGE, SYNCS_MAX, TEMPORARY_AGE_MAX};

/// What every temporary name begins with.
const PART: &str = ".part-";

/// A file that is to be there.
pub(crate) struct NewFile<'a> {
    pub(crate) path: PathBuf,
    pub(crate) bytes: &'a [u8],
}

/// Whether a file was made, or was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    New,
    Known,
}

/// Creates a file with this content unless one of its name is there. Two writers at once agree:
/// one makes it, the other finds it.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<Made, LibraryError> {
    let made = create_in_order(&[&[NewFile { path: path.to_owned(), bytes }]])?;
    Ok(made[0][0])
}

/// Creates groups of files, each unless one of its name is there. A later group gets its names
/// once the earlier ones have theirs, and file systems keep that order over a power cut; all are
/// durable when this returns. Nothing is seen of a file by halves.
///
/// There are two waits for the storage, however many files there are: one for all contents, one
/// for all names.
pub(crate) fn create_in_order(groups: &[&[NewFile<'_>]]) -> Result<Vec<Vec<Made>>, LibraryError> {
    let files: Vec<&NewFile> = groups.iter().copied().flatten().collect();
    let mut parts = at_once(&files, SYNCS_MAX, |file| Part::write(file))?.into_iter();
    let mut made = Vec::with_capacity(groups.len());
    for group in groups {
        let publish = |file: &NewFile| match parts.next().flatten() {
            Some(part) => part.publish(&file.path),
            None => Ok(Made::Known),
        };
        made.push(group.iter().map(publish).collect::<Result<Vec<Made>, LibraryError>>()?);
    }
    // Also for files that were there: who made them may not have come to this yet.
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.path.parent()).collect();
    let folders: Vec<&Path> = folders.into_iter().collect();
    at_once(&folders, SYNCS_MAX, |folder| sync_folder(folder))?;
    Ok(made)
}

/// A temporary file, which is whole and synced once it gets its name; it is removed with this value.
#[derive(Debug)]
pub(crate) struct Part(PathBuf);

impl Part {
    /// Begins a file in a folder, which is made where it is not there.
    pub(crate) fn begin(folder: &Path) -> Result<(Self, File), LibraryError> {
        make_folder(folder)?;
        let part = Self(temporary(folder));
        let file = OpenOptions::new().write(true).create_new(true).open(&part.0);
        let file = file.map_err(|error| LibraryError::file("writing", &part.0, error))?;
        Ok((part, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it its name, durably; says whether there is a file of that name already.
    pub(crate) fn name(&self, path: &Path) -> Result<Made, LibraryError> {
        let made = self.publish(path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))?;
        Ok(made)
    }

    /// Puts it in the place of a file of the same bytes, durably.
    pub(crate) fn replace(&self, path: &Path) -> Result<(), LibraryError> {
        fs::rename(&self.0, path).map_err(|error| LibraryError::file("writing", path, error))?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    }

    /// None where the file is there already.
    fn write(file: &NewFile) -> Result<Option<Self>, LibraryError> {
        if file.path.exists() {
            return Ok(None);
        }
        let part = Self(temporary(file.path.parent().unwrap_or(Path::new("."))));
        let written = write_new(&part.0, file.bytes);
        written.map_err(|error| LibraryError::file("writing", &file.path, error))?;
        Ok(Some(part))
    }

    fn publish(&self, path: &Path) -> Result<Made, LibraryError> {
        let linked = match fs::hard_link(&self.0, path) {
            Err(error) if no_links(error.kind()) => {
                renameat_with(CWD, &self.0, CWD, path, RenameFlags::NOREPLACE)
                    .map_err(io::Error::from)
            }
            linked => linked,
        };
        match linked {
            Ok(()) => Ok(Made::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::Known),
            Err(error) => Err(LibraryError::file("writing", path, error)),
        }
    }
}

/// Writes a file that is not there yet, and waits until its bytes are durable.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).create_new(true).open(path)?;
    target.write_all(bytes)?;
    target.sync_all()
}

/// Some storages have no hard links; most of them rename without replacing.
fn no_links(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
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

/// Removes a file; one that is not there is none either.
pub(crate) fn remove(path: &Path) -> Result<(), LibraryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LibraryError::file("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LibraryError> {
    fs::read(path).map_err(|error| LibraryError::file("reading", path, error))
}

/// Reads at most so many bytes of a file's begin.
pub(crate) fn read_head(path: &Path, bytes: u64) -> Result<Vec<u8>, LibraryError> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes).read_to_end(&mut head))
        .map_err(|error| LibraryError::file("reading", path, error))?;
    Ok(head)
}

/// How many bytes a file has.
pub(crate) fn length(path: &Path) -> Result<u64, LibraryError> {
    let facts = fs::metadata(path).map_err(|error| LibraryError::file("reading", path, error))?;
    Ok(facts.len())
}

/// The hash of a file, however large.
pub(crate) fn hash(path: &Path) -> Result<ObjectHash, LibraryError> {
    let fail = |error| LibraryError::file("reading", path, error);
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => return hex(&hasher.finalize()).parse(),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// The files of a folder that are not temporary, in the order of their names; none where the
/// folder is not there.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    let mut paths: Vec<PathBuf> =
        names(folder)?.into_iter().map(|name| folder.join(name)).collect();
    paths.sort();
    Ok(paths)
}

/// The names of a folder's records, in no order.
pub(crate) fn record_names(folder: &Path) -> Result<Vec<String>, LibraryError> {
    let mut names = names(folder)?;
    names.retain(|name| Path::new(name).extension().is_some_and(|end| end == "json"));
    Ok(names)
}

fn names(folder: &Path) -> Result<Vec<String>, LibraryError> {
    let fail = |error| LibraryError::file("listing", folder, error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PART) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes temporary files below a folder that a process left behind. Returns how many.
pub(crate) fn sweep(folder: &Path, now: SystemTime) -> u64 {
    let mut swept = 0;
    temporaries(folder, &mut |path, facts| {
        let changed = facts.modified();
        let stale =
            changed.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > TEMPORARY_AGE_MAX));
        swept += u64::from(stale && fs::remove_file(path).is_ok());
    });
    swept
}

/// Hands out the temporary files below a folder. What cannot be looked at is passed over.
pub(crate) fn temporaries(folder: &Path, take: &mut dyn FnMut(&Path, &Metadata)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            temporaries(&entry.path(), take);
        } else if kind.is_file()
            && entry.file_name().to_string_lossy().starts_with(PART)
            && let Ok(facts) = entry.metadata()
        {
            take(&entry.path(), &facts);
        }
    }
}

/// What the storage says of a file; none where it is not there.
pub(crate) fn facts(path: &Path) -> Result<Option<Metadata>, LibraryError> {
    match fs::metadata(path) {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LibraryError::file("looking for", path, error)),
    }
}

/// The same, asked of the storage: what a network file system was told a moment ago counts for a while
/// unless a file is opened.
pub(crate) fn facts_now(path: &Path) -> Result<Option<Metadata>, LibraryError> {
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LibraryError::file("looking for", path, error)),
    }
}

/// Whether a file is old enough to be taken for left over soon; none where it is not there.
pub(crate) fn is_old(path: &Path) -> Result<Option<bool>, LibraryError> {
    let Some(facts) = facts(path)? else { return Ok(None) };
    // What is of the future was changed by another clock just now.
    let age = facts.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    Ok(Some(age.is_some_and(|age| age > REFRESH_AGE)))
}

/// Makes a file that is there young: by its time, or by writing it anew where it is another user's.
pub(crate) fn refresh(path: &Path, bytes: &[u8]) -> Result<(), LibraryError> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match utimensat(CWD, path, &times, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => {}
        Err(error) => return Err(LibraryError::file("refreshing", path, error.into())),
    }
    replace(path, bytes)
}

/// Puts a file in the place of one of the same bytes, in one step.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), LibraryError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let part = Part(temporary(folder));
    let written = write_new(&part.0, bytes);
    written.map_err(|error| LibraryError::file("writing", path, error))?;
    part.replace(path)
}

/// Makes an empty file beside another, for whom nobody else has made it. Where there is one that was left
/// by a process that is gone, that one gives way.
pub(crate) fn claim(path: &Path, age_max: Duration) -> Result<Option<PathBuf>, LibraryError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let claim = path.with_file_name(format!("{PART}claim-{name}"));
    for _ in 0..2 {
        match OpenOptions::new().write(true).create_new(true).open(&claim) {
            Ok(_) => return Ok(Some(claim)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LibraryError::file("claiming", path, error)),
        }
        let Some(facts) = facts(&claim)? else { continue };
        let age = facts.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_none_or(|age| age <= age_max) {
            return Ok(None);
        }
        let _ = fs::remove_file(&claim);
    }
    Ok(None)
}

/// The time now by the clock of the storage that holds a folder, which tells the ages of its files; by
/// this machine's where the folder cannot be written.
pub(crate) fn storage_now(folder: &Path) -> SystemTime {
    let probe = Part(temporary(folder));
    let made = OpenOptions::new().write(true).create_new(true).open(&probe.0);
    let told = made.and_then(|file| file.metadata()?.modified());
    told.unwrap_or_else(|_| SystemTime::now())
}

/// A name that no other process or host chooses.
fn temporary(folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    folder.join(format!("{PART}{}-{count}-{}", std::process::id(), since.as_nanos()))
}

fn sync_folder(folder: &Path) -> Result<(), LibraryError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| LibraryError::file("syncing", folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_temporary_files_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a");
        make_folder(&below).unwrap();
        fs::write(below.join(".part-1"), b"half").unwrap();
        fs::write(below.join("whole"), b"whole").unwrap();
        let now = SystemTime::now();
        assert_eq!(sweep(folder.path(), now), 0, "its writer may be at work");
        assert_eq!(list(&below).unwrap().len(), 1, "what is half written is not seen");
        assert_eq!(sweep(folder.path(), now + 2 * TEMPORARY_AGE_MAX), 1);
        assert!(below.join("whole").is_file());
    }

    #[test]
    fn what_is_made_young_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("object");
        refresh(&path, b"bytes").unwrap();
        assert!(!path.exists(), "what is not there is written by whoever names it");
        let age = || {
            let changed = facts(&path).unwrap().unwrap().modified().unwrap();
            storage_now(folder.path()).duration_since(changed).unwrap_or_default()
        };
        // The second is what is done to a file of another user, whose time cannot be set.
        for young in [refresh, replace] {
            fs::write(&path, b"bytes").unwrap();
            let long_ago = SystemTime::now() - Duration::from_hours(48);
            File::open(&path).unwrap().set_modified(long_ago).unwrap();
            assert!(age() > Duration::from_hours(47));
            young(&path, b"bytes").unwrap();
            assert!(age() < Duration::from_hours(1));
            assert_eq!(fs::read(&path).unwrap(), b"bytes");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn groups_are_made_once_and_leave_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| NewFile { path: folder.path().join(name), bytes: b"bytes" };
        let first: Vec<NewFile> = (0..20).map(|n| file(&n.to_string())).collect();
        let made = create_in_order(&[&first, &[file("last"), file("last")]]).unwrap();
        assert_eq!(made, [vec![Made::New; 20], vec![Made::New, Made::Known]]);
        let again = create_in_order(&[&first]).unwrap();
        assert_eq!(again, [vec![Made::Known; 20]]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 21, "no temporary file is left");
        let missing = NewFile { path: folder.path().join("none/a"), bytes: b"bytes" };
        assert!(create_in_order(&[&[file("b")], &[missing]]).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 21, "nor of what failed");
        let no_name = file(&"x".repeat(256));
        assert!(create_in_order(&[&[no_name], &[file("c")]]).is_err());
        assert!(!folder.path().join("c").exists(), "a later group is seen without the earlier");
    }
}
