//! What was received: instances by series, kept as they came.
//!
//! Nothing is ever replaced. The same bytes that come twice are kept once; what disagrees with what
//! came earlier is kept beside it, flagged, and stays out of the series.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::LibraryError;
use crate::files::Made;
use crate::ids::{ObjectHash, PatientKey, SeriesId};
use crate::objects::NewObject;
use crate::record;
use crate::records::{Child, NewRecord};
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
    /// Other bytes were there under its UID, or its series is another patient's; all are kept.
    Conflict,
}

/// Why an instance is kept beside its series and not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// Other bytes came earlier under its UID.
    OtherBytes {
        /// The bytes that came first.
        first: ObjectHash,
        /// The bytes that came later.
        later: ObjectHash,
    },
    /// It names another patient than the series' first instance. Trained on under the wrong
    /// patient, it could be on both sides of a split.
    OtherPatient {
        /// Its bytes.
        later: ObjectHash,
    },
}

/// An instance on its way into the library.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    key: Cow<'a, InstanceKey>,
    source: Cow<'a, Source>,
    bytes: Cow<'a, [u8]>,
    object: ObjectHash,
}

impl<'a> Arrival<'a> {
    /// What an instance says of itself, where it comes from, and its bytes, which are hashed here:
    /// several threads may prepare what one of them stores for all.
    #[must_use]
    pub fn new(
        key: impl Into<Cow<'a, InstanceKey>>,
        source: impl Into<Cow<'a, Source>>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        let bytes = bytes.into();
        let object = ObjectHash::of(&[&bytes]);
        Self { key: key.into(), source: source.into(), bytes, object }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

macro_rules! cow {
    ($type:ty) => {
        impl From<$type> for Cow<'_, $type> {
            fn from(owned: $type) -> Self {
                Self::Owned(owned)
            }
        }

        impl<'a> From<&'a $type> for Cow<'a, $type> {
            fn from(borrowed: &'a $type) -> Self {
                Self::Borrowed(borrowed)
            }
        }
    };
}

cow!(InstanceKey);
cow!(Source);

#[derive(Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    key: InstanceKey,
    pub(crate) object: ObjectHash,
    source: Source,
    received_ms: u64,
    pub(crate) conflict: Option<Conflict>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SeriesHead {
    pub(crate) patient: PatientKey,
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
    /// Those that conflict with an earlier one.
    pub conflicts: u64,
    /// When the last instance came, by the clock of the storage.
    pub last_received_ms: u64,
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
        let stored = self.store_batch(&[Arrival::new(key, source, bytes)])?;
        Ok(stored[0])
    }

    /// Keeps several instances as they came, in their order. Once this returns, all are on disk;
    /// they share their syncs, so that a batch costs little more than one.
    ///
    /// # Errors
    /// Where the storage is full or fails; some may be kept then, none by halves.
    pub fn store_batch(&self, arrivals: &[Arrival<'_>]) -> Result<Vec<Stored>, LibraryError> {
        let bytes = arrivals.iter().map(Arrival::len).sum();
        self.check_free(self.objects().bytes_here(bytes))?;
        let mut objects = Vec::with_capacity(arrivals.len());
        let mut records = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            objects.push(NewObject { hash: arrival.object.clone(), bytes: &arrival.bytes });
            records.push(self.record_of(arrival)?);
        }
        let encoded = |record: &InstanceRecord| {
            let (name, bytes) = (self.instance_record(record), record::encode(record)?);
            Ok(NewRecord { name, bytes })
        };
        let new: Vec<NewRecord> =
            records.iter().map(encoded).collect::<Result<_, LibraryError>>()?;
        let made = self.keep(&objects, &new)?;
        made.into_iter().zip(records).map(|(made, record)| self.settle(made, record)).collect()
    }

    /// The record of an instance. It belongs to its series where both are of one patient.
    fn record_of(&self, arrival: &Arrival<'_>) -> Result<InstanceRecord, LibraryError> {
        let (key, object) = (arrival.key.as_ref(), arrival.object.clone());
        let name = head_of(&self.series_id(&key.series_uid));
        let head = SeriesHead {
            patient: self.patient_key(&key.patient_id, &key.study_uid),
            modality: key.modality.clone(),
            series_uid: key.series_uid.clone(),
        };
        let first: SeriesHead = if let Some(first) = self.records().find(&name)? {
            first
        } else {
            self.records().create(&name, &head)?;
            self.records().read(&name)?
        };
        let conflict = (first.patient != head.patient)
            .then(|| Conflict::OtherPatient { later: object.clone() });
        let (key, source) = (key.clone(), arrival.source.clone().into_owned());
        Ok(InstanceRecord { key, object, source, received_ms: now_ms(), conflict })
    }

    /// Says what became of an instance, and keeps it beside the one that was there before.
    fn settle(&self, made: Made, mut record: InstanceRecord) -> Result<Stored, LibraryError> {
        match (made, &record.conflict) {
            (Made::New, None) => return Ok(Stored::New),
            (Made::New, Some(_)) => return Ok(Stored::Conflict),
            (Made::Known, Some(_)) => return Ok(Stored::Same),
            (Made::Known, None) => {}
        }
        let first: InstanceRecord = self.records().read(&self.instance_record(&record))?;
        if first.object == record.object {
            return Ok(Stored::Same);
        }
        let later = record.object.clone();
        record.conflict = Some(Conflict::OtherBytes { first: first.object, later });
        match self.records().create(&self.instance_record(&record), &record)? {
            Made::New => Ok(Stored::Conflict),
            Made::Known => Ok(Stored::Same),
        }
    }

    /// The name of an instance's record.
    fn instance_record(&self, record: &InstanceRecord) -> String {
        let id = self.instance_name(&record.key.sop_instance_uid);
        let name = match record.conflict {
            None => format!("{id}.json"),
            Some(_) => format!("{id}-{}.json", &record.object.as_str()[..16]),
        };
        format!("{}/{name}", instances_of(&self.series_id(&record.key.series_uid)))
    }

    fn instance_name(&self, sop_instance_uid: &str) -> String {
        self.salted(&[b"instance", sop_instance_uid.trim().as_bytes()])
    }

    /// Every series, in the order of their ids. Reads one record a series and lists its folder.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn series(&self) -> Result<Vec<SeriesRecord>, LibraryError> {
        // A child without records: its first is being written, or its writer was killed before.
        let children = self.records().children("series", "instances")?.into_iter();
        children
            .filter(|child| !child.records.is_empty())
            .map(|child| self.series_of(&child.name.parse()?, &child))
            .collect()
    }

    /// One series.
    ///
    /// # Errors
    /// Where there is none of this id.
    pub fn series_record(&self, id: &SeriesId) -> Result<SeriesRecord, LibraryError> {
        let child = self.records().child("series", id.as_str(), "instances")?;
        if child.records.is_empty() {
            return Err(LibraryError::Unknown { kind: "series", name: id.to_string() });
        }
        self.series_of(id, &child)
    }

    fn series_of(&self, id: &SeriesId, child: &Child) -> Result<SeriesRecord, LibraryError> {
        let head: SeriesHead = self.records().read(&head_of(id))?;
        Ok(SeriesRecord {
            id: id.clone(),
            patient: head.patient,
            modality: head.modality,
            instances: child.records.len() as u64,
            conflicts: child.records.iter().filter(|name| name.contains('-')).count() as u64,
            last_received_ms: child.changed_ms,
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
        let mut objects: Vec<ObjectHash> = self
            .instances(id)?
            .into_iter()
            .filter(|instance| instance.conflict.is_none())
            .map(|instance| instance.object)
            .collect();
        objects.sort();
        Ok(objects)
    }

    /// Whether an instance is kept for good: its record is whole, and its bytes are there with the
    /// hash that it claims. None where no instance has this UID; otherwise its SOP class. The
    /// series `near` is looked into first, and becomes the one that holds the instance.
    ///
    /// # Errors
    /// Where its record or its bytes are damaged, or a folder cannot be read.
    pub fn find_kept(
        &self,
        sop_instance_uid: &str,
        near: &mut Option<SeriesId>,
    ) -> Result<Option<String>, LibraryError> {
        let name = format!("{}.json", self.instance_name(sop_instance_uid));
        let place = |series: &SeriesId| format!("{}/{name}", instances_of(series));
        let mut found = None;
        if let Some(series) = near {
            found = self.records().find::<InstanceRecord>(&place(series))?;
        }
        if found.is_none() {
            let holds = self.records().child_with("series", "instances", &name)?;
            let Some(series) = holds.map(|child| child.parse()).transpose()? else {
                return Ok(None);
            };
            found = self.records().find(&place(&series))?;
            *near = Some(series);
        }
        let Some(record) = found else { return Ok(None) };
        self.read_object(&record.object)?;
        Ok(Some(record.key.sop_class_uid))
    }

    /// What was kept beside a series, and why.
    ///
    /// # Errors
    /// Where there is no such series or a record is damaged.
    pub fn conflicts(&self, id: &SeriesId) -> Result<Vec<Conflict>, LibraryError> {
        Ok(self.instances(id)?.into_iter().filter_map(|instance| instance.conflict).collect())
    }

    fn instances(&self, id: &SeriesId) -> Result<Vec<InstanceRecord>, LibraryError> {
        self.series_record(id)?;
        self.records().read_all(&instances_of(id))
    }
}

/// The name of a series' own record.
fn head_of(id: &SeriesId) -> String {
    format!("series/{id}/series.json")
}

/// The folder of a series' instances.
fn instances_of(id: &SeriesId) -> String {
    format!("series/{id}/instances")
}
