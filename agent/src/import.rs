//! Taking files from a folder, with the same verdicts as the receiver's.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_imaging::dicom::FILE_BYTES_MAX;
use gantry_library::{Library, Source, Stored};
use serde::Serialize;

use crate::error::AgentError;
use crate::ingest::{Deidentifier, Kept, keep};

/// Folders within folders that are followed.
const DEPTH_MAX: usize = 32;

/// A file that was set aside, or could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// Its place within the folder that was imported.
    pub file: PathBuf,
    /// A stable word.
    pub reason: String,
    /// The sentence.
    pub sentence: String,
}

/// What an import did. Every file of the folder is in one of its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Files that were new.
    pub stored: u64,
    /// Files that were known already.
    pub same: u64,
    /// Files that differ from an earlier one of the same UID; both are kept.
    pub conflicts: u64,
    /// Files that were set aside.
    pub quarantined: Vec<Aside>,
    /// Files that could not be read; they stay where they are.
    pub unread: Vec<Aside>,
}

/// Imports a file, or every file below a folder, as they are or without their patients. Links are
/// not followed. `on_each` is told of each file that is kept.
///
/// # Errors
/// Where a folder cannot be read or the library not written; what was kept until then stays.
pub fn import(
    library: &Library,
    path: &Path,
    deidentifier: Option<&Deidentifier>,
    on_each: &mut dyn FnMut(&Kept),
) -> Result<ImportReport, AgentError> {
    let mut report = ImportReport::default();
    for file in files(path, 0)? {
        let within = if path == file { path.parent().unwrap_or(path) } else { path };
        let name = file.strip_prefix(within).unwrap_or(&file).to_owned();
        let bytes = match read(&file) {
            Ok(bytes) => bytes,
            Err((reason, sentence)) => {
                report.unread.push(Aside { file: name, reason: reason.to_owned(), sentence });
                continue;
            }
        };
        let kept = keep(library, &bytes, &Source::Import, deidentifier)?;
        match &kept {
            Kept::Stored(Stored::New) => report.stored += 1,
            Kept::Stored(Stored::Same) => report.same += 1,
            Kept::Stored(Stored::Conflict) => report.conflicts += 1,
            Kept::Quarantined { reason, sentence } => report.quarantined.push(Aside {
                file: name,
                reason: reason.clone(),
                sentence: sentence.clone(),
            }),
        }
        on_each(&kept);
    }
    Ok(report)
}

/// A file's bytes, or why they are not taken: a stable word and a sentence.
fn read(file: &Path) -> Result<Vec<u8>, (&'static str, String)> {
    let unreadable = |error: std::io::Error| ("unreadable", format!("reading it failed: {error}"));
    let length = fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX as u64 {
        let sentence = format!("it has {length} bytes, at most {FILE_BYTES_MAX} are taken");
        return Err(("too-large", sentence));
    }
    fs::read(file).map_err(unreadable)
}

/// Every regular file below a path, in the order of their names.
fn files(path: &Path, depth: usize) -> Result<Vec<PathBuf>, AgentError> {
    let fail = |error: std::io::Error| AgentError::file("reading", path, error);
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if depth > DEPTH_MAX {
        return Err(AgentError::file(
            "reading",
            path,
            format!("it lies more than {DEPTH_MAX} folders deep"),
        ));
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_file() || kind.is_dir() {
            entries.push(entry.path());
        }
    }
    entries.sort();
    let mut all = Vec::new();
    for entry in entries {
        all.extend(files(&entry, depth + 1)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_imaging::dicom::write::{Subject, ct_series};
    use gantry_imaging::phantom::{PhantomSettings, patient};
    use tempfile::TempDir;

    #[test]
    fn every_file_of_a_folder_is_in_the_report() {
        let settings = PhantomSettings {
            size: [24, 24, 3],
            spacing_mm: [14.0, 14.0, 64.0],
            ..PhantomSettings::default()
        };
        let scan = ct_series(&patient(1, &settings).image, &Subject::new("one")).unwrap();
        let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::create_dir(from.path().join("deeper")).unwrap();
        let mut other = scan[0].clone();
        *other.last_mut().unwrap() ^= 1;
        for (name, bytes) in [
            ("0.dcm", &scan[0]),
            ("1.dcm", &scan[1]),
            ("deeper/2.dcm", &scan[2]),
            ("deeper/again.dcm", &scan[1]),
            ("deeper/other.dcm", &other),
            ("read.me", &b"no image".to_vec()),
        ] {
            fs::write(from.path().join(name), bytes).unwrap();
        }
        std::os::unix::fs::symlink("/", from.path().join("loop")).unwrap();
        let huge = fs::File::create(from.path().join("huge.dcm")).unwrap();
        huge.set_len(FILE_BYTES_MAX as u64 + 1).unwrap();
        let library = Library::open_or_create(to.path()).unwrap();
        let mut told = 0;
        let report = import(&library, from.path(), None, &mut |_| told += 1).unwrap();
        assert_eq!((report.stored, report.same, report.conflicts, told), (3, 1, 1, 6));
        let [aside] = &report.quarantined[..] else { panic!("{report:?}") };
        assert_eq!(aside.file, Path::new("read.me"));
        let [unread] = &report.unread[..] else { panic!("{report:?}") };
        assert_eq!(
            (unread.file.as_path(), unread.reason.as_str()),
            (Path::new("huge.dcm"), "too-large")
        );
        assert!(import(&library, &from.path().join("nowhere"), None, &mut |_| {}).is_err());
    }
}
