//! The integrity check: every record has its hash, every object that a record names is there and
//! has its own.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::LibraryError;
use crate::files;
use crate::ids::ObjectHash;
use crate::root::Library;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file of the library.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// What an integrity check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Records that were read.
    pub records: u64,
    /// Objects that were read.
    pub objects: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

impl Library {
    /// Reads everything and reports what is damaged or missing.
    ///
    /// # Errors
    /// Where a folder cannot be listed.
    pub fn verify(&self) -> Result<VerifyReport, LibraryError> {
        let mut report = VerifyReport::default();
        let mut named: BTreeSet<ObjectHash> = BTreeSet::new();
        for path in files::list(&self.folder("series"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(id) = name.parse() else { continue };
            match self.instance_objects(&id) {
                Ok(objects) => {
                    report.records += objects.len() as u64;
                    named.extend(objects);
                }
                Err(error) => report.add(path, &error),
            }
        }
        self.note(&mut report, "quarantine", self.quarantined(), |one| named.extend([one.object]));
        self.note(&mut report, "samples", self.samples(), |one| {
            named.extend([one.image, one.mask]);
            named.extend(one.provenance.sources);
        });
        self.note(&mut report, "models", self.models(), |one| named.extend([one.weights]));
        self.note(&mut report, "predictions", self.predictions(), |one| {
            named.insert(one.mask);
            named.extend(one.segmentation);
        });
        for hash in named {
            match self.read_object(&hash) {
                Ok(_) => report.objects += 1,
                Err(error) => report.add(self.object_path(&hash), &error),
            }
        }
        Ok(report)
    }

    fn note<T>(
        &self,
        report: &mut VerifyReport,
        folder: &str,
        records: Result<Vec<T>, LibraryError>,
        each: impl FnMut(T),
    ) {
        match records {
            Ok(records) => {
                report.records += records.len() as u64;
                records.into_iter().for_each(each);
            }
            Err(error) => report.add(self.folder(folder), &error),
        }
    }
}

impl VerifyReport {
    fn add(&mut self, path: PathBuf, error: &LibraryError) {
        self.damage.push(Damage { path, reason: error.to_string() });
    }
}
