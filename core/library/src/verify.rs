//! The integrity check: every record is whole, has the name that its content says and names only
//! what is there; every object has the hash of its name.
//!
//! It may run while others write: an object is there before the record that names it, so what a
//! record names is looked for after the record was read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::LibraryError;
use crate::ids::{ObjectHash, PatientKey, SeriesId};
use crate::instances::{InstanceRecord, SeriesHead};
use crate::models::{ModelRecord, StageRecord};
use crate::predictions::PredictionRecord;
use crate::quarantine::Quarantined;
use crate::records::Child;
use crate::root::Library;
use crate::samples::SampleRecord;
use crate::shards::{SHARDS, ShardRecord};
use crate::states::StateRecord;
use crate::texts::TextRecord;

/// What is said of a damaged shard.
const ANEW: &str = "it holds prepared samples, and the next training that reads it makes it anew";

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
    /// Objects that were read and are whole.
    pub objects: u64,
    /// Objects among them that no record names: their writer was killed before it wrote one, or
    /// is about to.
    pub unnamed: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
}

impl Library {
    /// Reads everything and reports what is damaged or missing.
    ///
    /// # Errors
    /// Where a folder cannot be listed.
    pub fn verify(&self) -> Result<VerifyReport, LibraryError> {
        let mut check = Check::of_records(self)?;
        check.shards()?;
        check.objects()?;
        Ok(check.report)
    }

    /// Reads all records. Returns how many there are, and every object that one of them names.
    ///
    /// # Errors
    /// Where one is damaged, as it may name an object too, or a folder cannot be listed. What a damaged
    /// record of a shard names is made anew.
    pub(crate) fn named_objects(&self) -> Result<(u64, BTreeSet<ObjectHash>), LibraryError> {
        let mut check = Check::of_records(self)?;
        let damage = std::mem::take(&mut check.report.damage);
        check.shards()?;
        check.named.extend(std::mem::take(&mut check.shards).into_keys());
        check.report.damage = damage;
        match check.report.damage.into_iter().next() {
            None => Ok((check.report.records, check.named)),
            Some(Damage { path, reason }) => Err(LibraryError::Damaged { path, reason }),
        }
    }
}

/// What a record must agree with.
trait Claims: DeserializeOwned {
    /// The name that its file must have.
    fn name(&self) -> String;
    /// The objects that must be there.
    fn objects(&self) -> Vec<ObjectHash>;
    /// What else it names wrongly.
    fn problem(&self, _library: &Library) -> Option<String> {
        None
    }
}

impl Claims for Quarantined {
    fn name(&self) -> String {
        self.object.to_string()
    }

    fn objects(&self) -> Vec<ObjectHash> {
        vec![self.object.clone()]
    }
}

impl Claims for SampleRecord {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn objects(&self) -> Vec<ObjectHash> {
        let own = [self.image.clone(), self.mask.clone()];
        self.provenance.sources.iter().cloned().chain(own).collect()
    }

    fn problem(&self, library: &Library) -> Option<String> {
        not_of(library, &self.series, &self.patient)
    }
}

impl Claims for ModelRecord {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn objects(&self) -> Vec<ObjectHash> {
        vec![self.weights.clone()]
    }
}

impl Claims for PredictionRecord {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn objects(&self) -> Vec<ObjectHash> {
        std::iter::once(self.mask.clone()).chain(self.segmentation.clone()).collect()
    }

    fn problem(&self, library: &Library) -> Option<String> {
        let no_model = || format!("it names model {}, which is not there", self.model);
        not_of(library, &self.series, &self.patient)
            .or_else(|| (!library.has_model(&self.model).unwrap_or_default()).then(no_model))
    }
}

impl Claims for TextRecord {
    fn name(&self) -> String {
        self.id.to_string()
    }

    fn objects(&self) -> Vec<ObjectHash> {
        vec![self.object.clone()]
    }

    fn problem(&self, library: &Library) -> Option<String> {
        not_of(library, &self.series, &self.patient)
    }
}

fn not_of(library: &Library, series: &SeriesId, patient: &PatientKey) -> Option<String> {
    match library.series_record(series) {
        Ok(record) if record.patient == *patient => None,
        Ok(_) => Some(format!("it names another patient than its series {series}")),
        Err(_) => Some(format!("it names series {series}, which is not there or damaged")),
    }
}

struct Check<'a> {
    library: &'a Library,
    named: BTreeSet<ObjectHash>,
    /// The objects that are shards, and the records that name them.
    shards: BTreeMap<ObjectHash, String>,
    report: VerifyReport,
}

impl<'a> Check<'a> {
    fn of_records(library: &'a Library) -> Result<Self, LibraryError> {
        let (named, report) = (BTreeSet::new(), VerifyReport::default());
        let mut check = Self { library, named, shards: BTreeMap::new(), report };
        for series in library.records().children("series", "instances")? {
            check.series(&series)?;
        }
        check.records::<Quarantined>("quarantine")?;
        check.records::<SampleRecord>("samples")?;
        check.states()?;
        check.records::<ModelRecord>("models")?;
        for model in library.records().folders("models")? {
            for name in library.records().names(&format!("models/{model}"))? {
                check.read::<StageRecord>(&name);
            }
        }
        check.records::<PredictionRecord>("predictions")?;
        check.records::<TextRecord>("texts")?;
        Ok(check)
    }

    fn series(&mut self, series: &Child) -> Result<(), LibraryError> {
        let head = format!("series/{}/series.json", series.name);
        if series.records.is_empty() && !self.library.records().holds(&head)? {
            // Its writer was killed before the first record, or is about to write it.
            return Ok(());
        }
        self.read::<SeriesHead>(&head);
        for record in &series.records {
            let name = format!("series/{}/instances/{record}", series.name);
            if let Some(instance) = self.read::<InstanceRecord>(&name) {
                self.named.insert(instance.object);
            }
        }
        Ok(())
    }

    fn records<T: Claims>(&mut self, folder: &str) -> Result<(), LibraryError> {
        for name in self.library.records().names(folder)? {
            let Some(record) = self.read::<T>(&name) else { continue };
            if name != format!("{folder}/{}.json", record.name()) {
                self.wrong(&name, format!("it is the record of {}", record.name()));
            }
            if let Some(problem) = record.problem(self.library) {
                self.wrong(&name, problem);
            }
            self.named.extend(record.objects());
        }
        Ok(())
    }

    /// Shards, which may go meanwhile.
    fn shards(&mut self) -> Result<(), LibraryError> {
        for name in self.library.records().names(SHARDS)? {
            match self.library.records().read_anew::<ShardRecord>(&name) {
                Ok(record) => {
                    self.report.records += 1;
                    if record.name() != name {
                        self.wrong(&name, format!("it is the record of shard {}", record.id));
                    }
                    self.shards.insert(record.object, name);
                }
                Err(_) if !self.library.records().holds_now(&name)? => {}
                Err(error) => {
                    self.report.records += 1;
                    self.wrong(&name, format!("{error}; {ANEW}"));
                }
            }
        }
        Ok(())
    }

    /// What people have said of samples.
    fn states(&mut self) -> Result<(), LibraryError> {
        for id in self.library.records().folders("samples")? {
            let sample = id.parse().and_then(|id| self.library.sample(&id)).ok();
            for name in self.library.records().names(&format!("samples/{id}"))? {
                let Some(state) = self.read::<StateRecord>(&name) else { continue };
                // A sample that is damaged has been told already.
                if sample.as_ref().is_some_and(|sample| sample.mask != state.mask) {
                    self.wrong(&name, "it was said of another mask than that of its sample");
                }
            }
        }
        Ok(())
    }

    fn read<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        self.report.records += 1;
        let read = self.library.records().read_anew(name);
        read.map_err(|error| self.wrong(name, error.to_string())).ok()
    }

    fn wrong(&mut self, name: &str, reason: impl Into<String>) {
        let place = self.library.records().place(name);
        self.damaged(&place, reason);
    }

    fn objects(&mut self) -> Result<(), LibraryError> {
        let objects = self.library.objects().clone();
        let mut there = BTreeSet::new();
        for place in objects.places()? {
            match objects.hash_at(&place) {
                Ok(hash) if objects.place(&hash) == place => {
                    self.report.objects += 1;
                    let named = self.named.contains(&hash) || self.shards.contains_key(&hash);
                    self.report.unnamed += u64::from(!named);
                }
                Ok(_) => {
                    let reason = "its bytes do not have the hash of its name";
                    let shard = self.shards.keys().any(|hash| objects.place(hash) == place);
                    let more = if shard { format!("; {ANEW}") } else { String::new() };
                    self.damaged(&place, format!("{reason}{more}"));
                }
                // It was swept since the listing; where a record names it, that is told below.
                Err(_) if objects.is_gone(&place)? => continue,
                Err(error) => self.damaged(&place, error.to_string()),
            }
            there.insert(place);
        }
        for (hash, name) in std::mem::take(&mut self.shards) {
            let place = objects.place(&hash);
            let lacks = !there.contains(&place) && !objects.holds(&hash)?;
            if lacks && self.library.records().holds_now(&name)? {
                self.damaged(&place, format!("shard {name} names it, and it is not there; {ANEW}"));
            }
        }
        for hash in std::mem::take(&mut self.named) {
            let place = objects.place(&hash);
            if !there.contains(&place) && !objects.holds(&hash)? {
                self.damaged(&place, "a record names it, and it is not there");
            }
        }
        Ok(())
    }

    fn damaged(&mut self, path: &Path, reason: impl Into<String>) {
        self.report.damage.push(Damage { path: path.to_owned(), reason: reason.into() });
    }
}
