//! What was received: instances by series, kept as they came, and what was set aside.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::LibraryError;
use crate::files::{self, Made};
use crate::ids::{ObjectHash, PatientKey, SeriesId};
use crate::record;
use crate::root::{Library, now_ms};

/// Where bytes came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A DICOM association.
    Association {
        /// Who called.
        calling_ae: String,
    },
    /// A folder.
    Import,
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceKey {
    /// Patient ID (0010,0020).
    pub patient_id: String,
    /// Study Instance UID (0020,000D).
    pub study_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_uid: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// Modality (0008,0060).
    pub modality: String,
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax_uid: String,
    /// Rows (0028,0010), 0 where it has no pixels.
    pub rows: u32,
    /// Columns (0028,0011), 0 where it has no pixels.
    pub columns: u32,
    /// Number of Frames (0028,0008).
    pub frames: u32,
}

/// What became of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was new.
    New,
    /// The same bytes were there.
    Same,
    /// Other bytes were there under its UID; both are kept.
    Conflict,
}

/// Two instances of one UID with other bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The bytes that came first.
    pub first: ObjectHash,
    /// The bytes that came later.
    pub later: ObjectHash,
}

#[derive(Serialize, Deserialize)]
struct InstanceRecord {
    key: InstanceKey,
    object: ObjectHash,
    source: Source,
    received_ms: u64,
    conflicts_with: Option<ObjectHash>,
}

#[derive(Serialize, Deserialize)]
struct SeriesHead {
    patient: PatientKey,
    modality: String,
    series_uid: String,
}

/// A series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeriesRecord {
    /// Its id.
    pub id: SeriesId,
    /// Whose it is.
    pub patient: PatientKey,
    /// Its modality, as the first instance said.
    pub modality: String,
    /// Its instances, conflicting ones among them.
    pub instances: u64,
    /// When the last instance came.
    pub last_received_ms: u64,
}

/// A file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its bytes.
    pub object: ObjectHash,
    /// A stable word.
    pub reason: String,
    /// The sentence.
    pub sentence: String,
    /// How many bytes.
    pub bytes: u64,
    /// Where it came from.
    pub source: Source,
    /// When.
    pub at_ms: u64,
}

impl Library {
    /// Keeps an instance as it came. Once this returns, it is on disk.
    ///
    /// # Errors
    /// Where the storage is full or fails; nothing is half there.
    pub fn store_instance(
        &self,
        key: &InstanceKey,
        source: &Source,
        bytes: &[u8],
    ) -> Result<Stored, LibraryError> {
        let object = self.put_object(bytes)?;
        let series = self.series_id(&key.series_uid);
        let folder = self.series_folder(&series);
        files::make_folder(&folder.join("instances"))?;
        let head = SeriesHead {
            patient: self.patient_key(&key.patient_id, &key.study_uid),
            modality: key.modality.clone(),
            series_uid: key.series_uid.clone(),
        };
        record::create(&folder.join("series.json"), &head)?;
        let id = self.salted(&[b"instance", key.sop_instance_uid.trim().as_bytes()]);
        let path = folder.join("instances").join(format!("{id}.json"));
        let mut instance = InstanceRecord {
            key: key.clone(),
            object,
            source: source.clone(),
            received_ms: now_ms(),
            conflicts_with: None,
        };
        if record::create(&path, &instance)? == Made::New {
            return Ok(Stored::New);
        }
        let first: InstanceRecord = record::read(&path)?;
        if first.object == instance.object {
            return Ok(Stored::Same);
        }
        let name = format!("{id}-{}.json", &instance.object.as_str()[..16]);
        instance.conflicts_with = Some(first.object);
        match record::create(&folder.join("instances").join(name), &instance)? {
            Made::New => Ok(Stored::Conflict),
            Made::Known => Ok(Stored::Same),
        }
    }

    /// Sets bytes aside with a reason. They are kept like everything else.
    ///
    /// # Errors
    /// Where the storage is full or fails.
    pub fn quarantine(
        &self,
        bytes: &[u8],
        reason: &str,
        sentence: &str,
        source: &Source,
    ) -> Result<(), LibraryError> {
        let object = self.put_object(bytes)?;
        let folder = self.folder("quarantine");
        files::make_folder(&folder)?;
        let path = folder.join(format!("{object}.json"));
        let record = Quarantined {
            object,
            reason: reason.to_owned(),
            sentence: sentence.to_owned(),
            bytes: bytes.len() as u64,
            source: source.clone(),
            at_ms: now_ms(),
        };
        record::create(&path, &record).map(|_| ())
    }

    /// Everything that was set aside.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, LibraryError> {
        record::read_all(&self.folder("quarantine"))
    }

    /// Every series, in the order of their ids.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn series(&self) -> Result<Vec<SeriesRecord>, LibraryError> {
        let mut all = Vec::new();
        for path in files::list(&self.folder("series"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A series whose first instance is being written has no head yet.
            if path.join("series.json").is_file() {
                all.push(self.series_record(&name.parse()?)?);
            }
        }
        Ok(all)
    }

    /// One series.
    ///
    /// # Errors
    /// Where there is none of this id.
    pub fn series_record(&self, id: &SeriesId) -> Result<SeriesRecord, LibraryError> {
        let folder = self.series_folder(id);
        if !folder.join("series.json").is_file() {
            return Err(LibraryError::Unknown { kind: "series", name: id.to_string() });
        }
        let head: SeriesHead = record::read(&folder.join("series.json"))?;
        let instances = folder.join("instances");
        let changed = std::fs::metadata(&instances)
            .and_then(|metadata| metadata.modified())
            .map_err(|error| LibraryError::file("reading", &instances, error))?;
        let since = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(SeriesRecord {
            id: id.clone(),
            patient: head.patient,
            modality: head.modality,
            instances: files::list(&instances)?.len() as u64,
            last_received_ms: since.as_millis() as u64,
        })
    }

    /// Series for which nothing new has come for a while.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn complete_series(
        &self,
        stable: Duration,
        now_ms: u64,
    ) -> Result<Vec<SeriesRecord>, LibraryError> {
        let stable_ms = stable.as_millis() as u64;
        let mut all = self.series()?;
        all.retain(|series| series.last_received_ms.saturating_add(stable_ms) <= now_ms);
        Ok(all)
    }

    /// The files of a series as they came, without those that conflict with an earlier one; in the
    /// order of their hashes.
    ///
    /// # Errors
    /// Where there is no such series or a record is damaged.
    pub fn series_objects(&self, id: &SeriesId) -> Result<Vec<ObjectHash>, LibraryError> {
        self.series_record(id)?;
        let instances: Vec<InstanceRecord> =
            record::read_all(&self.series_folder(id).join("instances"))?;
        let kept = instances.into_iter().filter(|instance| instance.conflicts_with.is_none());
        let mut objects: Vec<ObjectHash> = kept.map(|instance| instance.object).collect();
        objects.sort();
        Ok(objects)
    }

    /// Pairs of instances of a series that have one UID and other bytes.
    ///
    /// # Errors
    /// Where there is no such series or a record is damaged.
    pub fn conflicts(&self, id: &SeriesId) -> Result<Vec<Conflict>, LibraryError> {
        self.series_record(id)?;
        let instances: Vec<InstanceRecord> =
            record::read_all(&self.series_folder(id).join("instances"))?;
        let pair = |instance: InstanceRecord| {
            Some(Conflict { first: instance.conflicts_with?, later: instance.object })
        };
        Ok(instances.into_iter().filter_map(pair).collect())
    }

    pub(crate) fn series_folder(&self, id: &SeriesId) -> PathBuf {
        self.folder("series").join(id.as_str())
    }

    /// Every object that the records of a series name.
    pub(crate) fn instance_objects(&self, id: &SeriesId) -> Result<Vec<ObjectHash>, LibraryError> {
        let instances: Vec<InstanceRecord> =
            record::read_all(&self.series_folder(id).join("instances"))?;
        Ok(instances.into_iter().map(|instance| instance.object).collect())
    }
}
