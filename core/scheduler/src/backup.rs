//! Backup and restore of a scheduler: everything that it needs to come back when its disk is lost.
//!
//! A backup is a folder: the journal, the authority and the identities with their keys, the settings,
//! the audit log, and `backup.json`, which has the SHA-256 of each. It is made beside the scheduler
//! by whoever may read its folder, while it runs: keys never pass the network. It has its name once it
//! is whole and on the disk.
//!
//! What is restored is not what was lost: the scheduler went on after the backup. So the journal gets
//! an event that says so ([`gantry_cluster::Event::Restored`]), which keeps ids from being given twice,
//! tokens to join with are forgotten, and the audit log has a line. The authority's key comes last:
//! without it no scheduler starts, so that none starts from half a restore.

mod files;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_cluster::Event;
use gantry_config::SchedulerSettings;
use gantry_link::Authority;
use gantry_model::{At, Millis, Summary};
use serde::{Deserialize, Serialize};

use crate::audit::{self, Entry};
use crate::clock::Clock;
use crate::error::SchedulerError;
use crate::store::{COPY, FILE, Store, record};
use files::{Kept, copy_new, hash, sync, write_new};

/// What says what a backup holds.
const MANIFEST: &str = "backup.json";
/// The form of a backup. A newer one is refused.
const FORMAT: u32 = 1;
/// Bytes of `backup.json` at most: a thousand files.
const MANIFEST_BYTES_MAX: u64 = 256 * 1024;
/// Without it there is no cluster in a folder.
const LAST: &str = "authority.key";

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    cluster: String,
    version: String,
    taken_ms: u64,
    files: Vec<Kept>,
}

/// What was backed up or restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// The cluster's name.
    pub cluster: String,
    /// The version of the program that made the backup.
    pub version: String,
    /// When it was made: everything acknowledged before then is in it.
    pub taken: At,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the journal holds; only after a restore, which reads it.
    pub summary: Option<Summary>,
    /// What was wrong with the audit log in it, where something was.
    pub audit: Option<String>,
}

impl Manifest {
    fn report(&self) -> BackupReport {
        BackupReport {
            cluster: self.cluster.clone(),
            version: self.version.clone(),
            taken: At(self.taken_ms),
            files: self.files.len() as u64,
            bytes: self.files.iter().map(|file| file.bytes).sum(),
            summary: None,
            audit: None,
        }
    }
}

/// Copies the journal of a scheduler that does not run, as a running one does when it is asked to.
///
/// # Errors
/// [`SchedulerError::InUse`] where one runs; that one is to be asked.
pub fn copy_stopped(folder: &Path) -> Result<At, SchedulerError> {
    if !folder.join(FILE).exists() {
        let reason = format!("there is no {FILE}");
        return Err(SchedulerError::NoCluster { folder: folder.to_owned(), reason });
    }
    // A copy of an earlier backup that was not ended must not be taken for this one's.
    let copy = folder.join(COPY);
    match fs::remove_file(&copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(SchedulerError::file("removing", &copy, &error));
        }
        _ => {}
    }
    let store = Store::open(folder)?;
    store.copy(&copy)?;
    Ok(Clock::new(At(0), Millis(0)).now())
}

/// Makes a backup from a scheduler's folder in which the journal was just copied, and removes that
/// copy. `said` is told of each file.
///
/// # Errors
/// Where a file cannot be read or written, or there is something of that name already. Nothing is
/// left then.
pub fn backup(
    folder: &Path,
    to: &Path,
    taken: At,
    said: &mut dyn FnMut(&str),
) -> Result<BackupReport, SchedulerError> {
    let cluster = Authority::load(folder)?.cluster().to_owned();
    let part = beside(to)?;
    for taken in [to, &part] {
        if taken.symlink_metadata().is_ok() {
            let shown = taken.display();
            let sentence = format!("{shown} is there already; name a new folder, or remove it");
            return Err(SchedulerError::Backup(sentence));
        }
    }
    make(&part)?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let filled = fill(folder, &part, said).and_then(|files| {
        let manifest = Manifest { format: FORMAT, cluster, version, taken_ms: taken.0, files };
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| SchedulerError::Backup(error.to_string()))?;
        write_new(&part.join(MANIFEST), text.as_bytes())?;
        sync(&part)?;
        fs::rename(&part, to).map_err(|error| SchedulerError::file("naming", to, &error))?;
        Ok(manifest.report())
    });
    let copy = folder.join(COPY);
    match &filled {
        Ok(_) => {
            sync(&parent(to))?;
            fs::remove_file(&copy)
                .map_err(|error| SchedulerError::file("removing", &copy, &error))?;
        }
        // The first error is the one that is told.
        Err(_) => drop(fs::remove_dir_all(&part)),
    }
    filled
}

/// Copies what a scheduler needs. The journal first and the audit log after it, its head before its
/// lines: what has happened has its line, and no line is missed.
fn fill(
    folder: &Path,
    part: &Path,
    said: &mut dyn FnMut(&str),
) -> Result<Vec<Kept>, SchedulerError> {
    let mut names = files::needed(folder)?;
    names.sort_by_key(|name| (*name != audit::HEAD, name.clone()));
    let mut kept = vec![take(folder, COPY, part, FILE, said)?];
    for name in names {
        match take(folder, &name, part, &name, said) {
            Ok(file) => kept.push(file),
            // The oldest file of the audit log goes when a new one begins.
            Err(_) if name.starts_with("audit-") && !folder.join(&name).exists() => {
                drop(fs::remove_file(part.join(&name)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

fn take(
    from: &Path,
    name: &str,
    to: &Path,
    new: &str,
    said: &mut dyn FnMut(&str),
) -> Result<Kept, SchedulerError> {
    let file = copy_new(&from.join(name), &to.join(new))?;
    said(&format!("{new}: {} KiB", file.bytes.div_ceil(1024)));
    Ok(Kept { name: new.to_owned(), ..file })
}

/// Makes a scheduler's folder of a backup. `said` is told of each file.
///
/// # Errors
/// Where the backup is damaged or newer, or the folder is not empty. Nothing is left then.
pub fn restore(
    from: &Path,
    to: &Path,
    said: &mut dyn FnMut(&str),
) -> Result<BackupReport, SchedulerError> {
    let manifest = read_manifest(from)?;
    for file in &manifest.files {
        file.check(&hash(&from.join(&file.name))?, from)?;
    }
    make_empty(to)?;
    let built = build(&manifest, from, to, said);
    if built.is_err() {
        // It was empty; the first error is the one that is told.
        for entry in fs::read_dir(to).into_iter().flatten().flatten() {
            drop(fs::remove_file(entry.path()));
        }
    }
    built
}

fn build(
    manifest: &Manifest,
    from: &Path,
    to: &Path,
    said: &mut dyn FnMut(&str),
) -> Result<BackupReport, SchedulerError> {
    let mut bring = |file: &Kept| file.check(&take(from, &file.name, to, &file.name, said)?, from);
    let (last, others): (Vec<_>, Vec<_>) =
        manifest.files.iter().partition(|file| file.name == LAST);
    others.into_iter().try_for_each(&mut bring)?;
    let taken = At(manifest.taken_ms);
    let summary = mark(to, taken)?;
    let why = format!("of a backup taken at {} ms since 1970", taken.0);
    let at = Clock::new(taken, Millis(0)).now();
    let line = Entry { from: "this host".into(), why, ..Entry::new(at, "restore") };
    let audit = audit::write_down(to, line)?;
    sync(to)?;
    last.into_iter().try_for_each(&mut bring)?;
    sync(to)?;
    Ok(BackupReport { summary: Some(summary), audit, ..manifest.report() })
}

/// Reads the whole journal of a restored folder, and says in it that it came from a backup.
fn mark(folder: &Path, taken: At) -> Result<Summary, SchedulerError> {
    let settings: SchedulerSettings = gantry_config::load_file(&folder.join("scheduler.toml"))
        .map_err(|error| SchedulerError::Backup(error.to_string()))?;
    let mut store = Store::open(folder)?;
    let restored = crate::core::restore(&mut store, crate::settings::cluster(&settings))?;
    store.forget_all_tokens()?;
    let event = record(&Event::Restored { taken })
        .map_err(|error| SchedulerError::Backup(error.to_string()))?;
    let at = Clock::new(restored.last, Millis(0)).now();
    store.append(&[(at, event)])?;
    Ok(restored.cluster.summary())
}

/// Reads what a backup says of itself.
fn read_manifest(from: &Path) -> Result<Manifest, SchedulerError> {
    let path = from.join(MANIFEST);
    let wrong = |why: String| {
        SchedulerError::Backup(format!("{} is no backup of a scheduler: {why}", from.display()))
    };
    let bytes = fs::metadata(&path)
        .and_then(
            |known| if known.len() > MANIFEST_BYTES_MAX { Ok(Vec::new()) } else { fs::read(&path) },
        )
        .map_err(|error| wrong(format!("reading {MANIFEST} failed: {error}")))?;
    // What a newer one says otherwise cannot be known here.
    let format: Option<u64> = serde_json::from_slice::<serde_json::Value>(&bytes)
        .ok()
        .and_then(|value| value["format"].as_u64());
    if let Some(newer) = format.filter(|format| *format > u64::from(FORMAT)) {
        return Err(wrong(format!(
            "its format {newer} is of a newer gantry; restore with that one"
        )));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("{MANIFEST} cannot be read: {error}")))?;
    for file in &manifest.files {
        if !files::is_plain(&file.name) {
            return Err(wrong(format!("{:?} is no name of a file in it", file.name)));
        }
    }
    for needed in [LAST, FILE] {
        if manifest.files.iter().filter(|file| file.name == needed).count() != 1 {
            return Err(wrong(format!("it has no {needed}, or several")));
        }
    }
    Ok(manifest)
}

fn make(folder: &Path) -> Result<(), SchedulerError> {
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    made.map_err(|error| SchedulerError::file("making", folder, &error))
}

/// Makes the folder for a restore, or takes one in which nothing is.
fn make_empty(to: &Path) -> Result<(), SchedulerError> {
    let fail = |error: std::io::Error| SchedulerError::file("using", to, &error);
    match fs::read_dir(to) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                let sentence = format!(
                    "{} is not empty; a restore overwrites nothing, name a new folder or move away what is there",
                    to.display()
                );
                return Err(SchedulerError::Backup(sentence));
            }
            fs::set_permissions(to, fs::Permissions::from_mode(0o700)).map_err(fail)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(to).map_err(fail)
        }
        Err(error) => Err(fail(error)),
    }
}

/// The name of a backup while it is made.
fn beside(to: &Path) -> Result<PathBuf, SchedulerError> {
    let name = to.file_name().ok_or_else(|| {
        SchedulerError::Backup(format!("{} is no name for a folder", to.display()))
    })?;
    let mut name = name.to_owned();
    name.push(".part");
    Ok(to.with_file_name(name))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
