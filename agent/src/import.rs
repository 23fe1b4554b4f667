//! Taking files from a folder, with the same verdicts as the receiver's.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_imaging::dicom::FILE_BYTES_MAX;
use gantry_library::{Library, Source, Stored};
use serde::Serialize;

use crate::error::AgentError;
use crate::ingest::{Kept, keep};

/// Folders within folders that are followed.
const DEPTH_MAX: usize = 32;

/// A file that was set aside.
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
}

/// Imports a file, or every file below a folder. Links are not followed. `on_each` is told of each
/// file.
///
/// # Errors
/// Where a file cannot be read or the library not written; what was kept until then stays.
pub fn import(
    library: &Library,
    path: &Path,
    on_each: &mut dyn FnMut(&Kept),
) -> Result<ImportReport, AgentError> {
    let mut report = ImportReport::default();
    for file in files(path, 0)? {
        let length =
            fs::metadata(&file).map_err(|error| AgentError::file("reading", &file, error))?.len();
        if length > FILE_BYTES_MAX as u64 {
            return Err(AgentError::file(
                "importing",
                &file,
                format!("it has {length} bytes, at most {FILE_BYTES_MAX} are taken"),
            ));
        }
        let bytes = fs::read(&file).map_err(|error| AgentError::file("reading", &file, error))?;
        let kept = keep(library, &bytes, &Source::Import)?;
        match &kept {
            Kept::Stored(Stored::New) => report.stored += 1,
            Kept::Stored(Stored::Same) => report.same += 1,
            Kept::Stored(Stored::Conflict) => report.conflicts += 1,
            Kept::Quarantined { reason, sentence } => report.quarantined.push(Aside {
                file: file.strip_prefix(path).unwrap_or(&file).to_owned(),
                reason: reason.clone(),
                sentence: sentence.clone(),
            }),
        }
        on_each(&kept);
    }
    Ok(report)
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
        if !entry.file_type().map_err(fail)?.is_symlink() {
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
        let library = Library::open_or_create(to.path()).unwrap();
        let mut told = 0;
        let report = import(&library, from.path(), &mut |_| told += 1).unwrap();
        assert_eq!((report.stored, report.same, report.conflicts, told), (3, 1, 1, 6));
        let [aside] = &report.quarantined[..] else { panic!("{report:?}") };
        assert_eq!(aside.file, Path::new("read.me"));
        assert!(import(&library, &from.path().join("nowhere"), &mut |_| {}).is_err());
    }
}
