//! The library's folder: opening it, its objects, its counts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, BucketPlace};
use crate::error::LibraryError;
use crate::files::{self, Made};
use crate::ids::{ObjectHash, PatientKey, SeriesId, hex, sha256_hex};
use crate::index::{self, Index};
use crate::limits::{OBJECT_BYTES_MAX, RUN_NAME_MAX};
use crate::objects::{NewObject, Objects};
use crate::record;
use crate::records::{NewRecord, Records};

/// The format of a library whose records are in a bucket too, the newest that is known.
const FORMAT: u32 = 3;
/// The format of a folder whose objects are in a bucket.
const FORMAT_OF_OBJECTS: u32 = 2;
/// The format of a folder that holds everything itself, which older programs know too.
const FORMAT_OF_FOLDER: u32 = 1;
/// The folders in which the library itself writes.
pub(crate) const KEPT: [&str; 9] = [
    "objects",
    "series",
    "quarantine",
    "samples",
    "models",
    "predictions",
    "texts",
    "shards",
    index::FOLDER,
];
/// The record that says what a library is.
const HEADER: &str = "library.json";

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    salt: String,
    created_ms: u64,
    /// Where the objects are, if they are not in the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket: Option<BucketPlace>,
    /// Whether the records are there too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    records_in_bucket: bool,
}

/// A library. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Library {
    root: PathBuf,
    objects: Objects,
    records: Records,
    index: Arc<Mutex<Index>>,
    salt: String,
    free_min_mib: u64,
}

/// How much a library holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Series.
    pub series: u64,
    /// Instances of all series.
    pub instances: u64,
    /// Files set aside.
    pub quarantined: u64,
    /// Samples.
    pub samples: u64,
    /// Models.
    pub models: u64,
    /// Predictions.
    pub predictions: u64,
}

/// The time now, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

/// A salt that keeps ids from being found out by hashing known patient numbers.
fn random_salt() -> Result<String, LibraryError> {
    let mut salt = [0_u8; 32];
    let source = Path::new("/dev/urandom");
    std::fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut salt))
        .map_err(|error| LibraryError::file("reading", source, error))?;
    Ok(hex(&salt))
}

/// The records that are in a bucket.
fn in_bucket(bucket: &Arc<Bucket>) -> Records {
    Records::Bucket(bucket.clone(), Arc::default())
}

impl Library {
    /// Opens the library of a folder.
    ///
    /// # Errors
    /// Where there is none, or a newer program made it.
    pub fn open(root: &Path) -> Result<Self, LibraryError> {
        let path = root.join(HEADER);
        if !path.is_file() {
            return Err(LibraryError::Missing { path: root.to_owned() });
        }
        let header: Header = record::read(&path)?;
        if header.format > FORMAT {
            let path = root.to_owned();
            return Err(LibraryError::Newer { path, found: header.format, known: FORMAT });
        }
        let bucket = header.bucket.as_ref().map(Bucket::open).transpose()?.map(Arc::new);
        let records = match &bucket {
            Some(bucket) if header.records_in_bucket => in_bucket(bucket),
            _ => Records::Folder(root.to_owned()),
        };
        let objects = Objects::open(root, bucket.as_ref());
        let (root, salt, index) = (root.to_owned(), header.salt, Arc::default());
        Ok(Self { root, objects, records, index, salt, free_min_mib: 0 })
    }

    /// Makes an empty library in a folder, and the folder where it is not there.
    ///
    /// # Errors
    /// Where there is a library already, or the folder cannot be written.
    pub fn create(root: &Path) -> Result<Self, LibraryError> {
        Self::create_salted(root, &random_salt()?)
    }

    /// Makes an empty library whose ids follow from a salt that is known: what is stored in two of
    /// the same salt has the same ids, in the same order. For images of nobody, as a demonstration
    /// has them; a known salt lets patient numbers be guessed.
    ///
    /// # Errors
    /// As [`Library::create`].
    pub fn create_salted(root: &Path, salt: &str) -> Result<Self, LibraryError> {
        match Self::make(root, salt, None)? {
            Made::New => Self::open(root),
            Made::Known => Err(LibraryError::Exists { path: root.to_owned() }),
        }
    }

    /// Makes an empty library in a folder whose objects are in a bucket. The keys of the bucket come from
    /// the environment or a file, here and wherever the library is opened, and are kept nowhere.
    ///
    /// # Errors
    /// As [`Library::create`], and where the bucket cannot be used or holds something there already.
    pub fn create_in_bucket(root: &Path, place: &BucketPlace) -> Result<Self, LibraryError> {
        let bucket = Bucket::open(place)?;
        let known = bucket.keys()?.len();
        if known > 0 {
            return Err(LibraryError::Invalid(format!(
                "{} holds {known} objects already; choose another prefix",
                bucket.shown(&place.prefix)
            )));
        }
        match Self::make(root, &random_salt()?, Some(place.clone()))? {
            Made::New => Self::open(root),
            Made::Known => Err(LibraryError::Exists { path: root.to_owned() }),
        }
    }

    /// Opens the library that is whole in a bucket, its records beside its objects, or makes an empty one
    /// there; several may do so at once, each with a folder of its own. The folder keeps where the bucket
    /// is, and what belongs to no library: folders of runs and of services, and the cache.
    ///
    /// # Errors
    /// Where the folder is another library's or cannot be written, or the bucket cannot be used or holds
    /// something else there already.
    pub fn open_in_bucket(root: &Path, place: &BucketPlace) -> Result<Self, LibraryError> {
        let bucket = Arc::new(Bucket::open(place)?);
        let records = in_bucket(&bucket);
        let header = if let Some(header) = records.find::<Header>(HEADER)? {
            header
        } else {
            let known = bucket.keys()?.len();
            // Another may be making it right now.
            if known > 0 && !records.holds(HEADER)? {
                return Err(LibraryError::Invalid(format!(
                    "{} holds {known} objects already, and no library; choose another prefix",
                    bucket.shown(&place.prefix)
                )));
            }
            let bucket = Some(place.clone());
            let (salt, created_ms) = (random_salt()?, now_ms());
            let header =
                Header { format: FORMAT, salt, created_ms, bucket, records_in_bucket: true };
            records.create(HEADER, &header)?;
            records.read::<Header>(HEADER)?
        };
        if header.format > FORMAT {
            let path = records.place(HEADER);
            return Err(LibraryError::Newer { path, found: header.format, known: FORMAT });
        }
        // Hosts may reach the storage by names of their own.
        let header = Header { bucket: Some(place.clone()), ..header };
        files::make_folder(root)?;
        let path = root.join(HEADER);
        if record::create(&path, &header)? == Made::Known {
            let known: Header = record::read(&path)?;
            if known.salt != header.salt || known.bucket != header.bucket {
                return Err(LibraryError::Exists { path: root.to_owned() });
            }
        }
        Self::open(root)
    }

    /// Opens the library of a folder, or makes an empty one. Several may do so at once. On storage
    /// that is mounted, prefer [`Library::open`]: where the mount is missing, this makes a library
    /// on the disk below it.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn open_or_create(root: &Path) -> Result<Self, LibraryError> {
        if !root.join(HEADER).is_file() {
            Self::make(root, &random_salt()?, None)?;
        }
        Self::open(root)
    }

    fn make(root: &Path, salt: &str, bucket: Option<BucketPlace>) -> Result<Made, LibraryError> {
        files::make_folder(root)?;
        let format = if bucket.is_some() { FORMAT_OF_OBJECTS } else { FORMAT_OF_FOLDER };
        let (salt, created_ms) = (salt.to_owned(), now_ms());
        let header = Header { format, salt, created_ms, bucket, records_in_bucket: false };
        record::create(&root.join(HEADER), &header)
    }

    /// Refuses to store once less than this would stay free.
    #[must_use]
    pub fn with_free_min_mib(self, free_min_mib: u64) -> Self {
        Self { free_min_mib, ..self }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Space that is free on the library's storage, in MiB.
    ///
    /// # Errors
    /// Where the storage does not answer.
    pub fn free_mib(&self) -> Result<u64, LibraryError> {
        let facts = rustix::fs::statvfs(&self.root).map_err(|error| {
            LibraryError::file("asking for the free space of", &self.root, error.into())
        })?;
        Ok((u128::from(facts.f_bavail) * u128::from(facts.f_frsize) / (1 << 20)) as u64)
    }

    /// Refuses so many bytes where less than the least would stay free behind them.
    pub(crate) fn check_free(&self, bytes: usize) -> Result<(), LibraryError> {
        if self.free_min_mib == 0 {
            return Ok(());
        }
        let free_mib = self.free_mib()?;
        if free_mib < self.free_min_mib.saturating_add(bytes as u64 >> 20) {
            return Err(LibraryError::StorageFull {
                reason: format!("{free_mib} MiB are free and {} must stay free", self.free_min_mib),
            });
        }
        Ok(())
    }

    /// The library's id of a series with this UID.
    #[must_use]
    pub fn series_id(&self, series_uid: &str) -> SeriesId {
        SeriesId::of(&[self.salt.as_bytes(), b"series", series_uid.trim().as_bytes()])
    }

    /// The library's key of a patient. Images without a patient id belong to their study alone.
    #[must_use]
    pub fn patient_key(&self, patient_id: &str, study_uid: &str) -> PatientKey {
        let (kind, text): (&[u8], &str) = if patient_id.trim().is_empty() {
            (b"study", study_uid)
        } else {
            (b"patient", patient_id)
        };
        PatientKey::of(&[self.salt.as_bytes(), kind, text.trim().as_bytes()])
    }

    /// A secret of the library for a purpose: what is derived from it says nothing without the salt.
    #[must_use]
    pub fn secret(&self, purpose: &str) -> Vec<u8> {
        sha256_hex(&[self.salt.as_bytes(), b"secret", purpose.as_bytes()]).into_bytes()
    }

    /// A name for bytes that says nothing of them to who lacks the salt.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> String {
        self.salted(&[b"digest", bytes])
    }

    pub(crate) fn salted(&self, parts: &[&[u8]]) -> String {
        let mut all = vec![self.salt.as_bytes()];
        all.extend(parts);
        let mut text = sha256_hex(&all);
        text.truncate(16);
        text
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where an object is, or would be: a file, or a name within the bucket.
    #[must_use]
    pub fn object_path(&self, hash: &ObjectHash) -> PathBuf {
        self.objects.place(hash)
    }

    /// Keeps bytes under their hash.
    ///
    /// # Errors
    /// Where they are too many, or the storage is full or fails.
    pub fn put_object(&self, bytes: &[u8]) -> Result<ObjectHash, LibraryError> {
        self.check_free(self.objects.bytes_here(bytes.len()))?;
        let hash = ObjectHash::of(&[bytes]);
        self.keep(&[NewObject { hash: hash.clone(), bytes }], &[])?;
        Ok(hash)
    }

    /// Keeps objects, and records that name them. Says which of the records were made.
    pub(crate) fn keep(
        &self,
        objects: &[NewObject<'_>],
        records: &[NewRecord],
    ) -> Result<Vec<Made>, LibraryError> {
        if let Some(large) = objects.iter().find(|object| object.bytes.len() > OBJECT_BYTES_MAX) {
            return Err(LibraryError::Invalid(format!(
                "an object of {} bytes is over the limit of {OBJECT_BYTES_MAX}",
                large.bytes.len()
            )));
        }
        self.objects.create(objects, records, &self.records)
    }

    pub(crate) const fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(crate) const fn records(&self) -> &Records {
        &self.records
    }

    /// What is known of predictions; it may be behind what the library holds.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an object and checks it against its hash.
    ///
    /// # Errors
    /// Where it is missing or damaged.
    pub fn read_object(&self, hash: &ObjectHash) -> Result<Vec<u8>, LibraryError> {
        let bytes = self.objects.read(hash, None)?;
        if ObjectHash::of(&[&bytes]) != *hash {
            let place = self.objects.place(hash);
            return Err(LibraryError::damaged(
                &place,
                "its bytes do not have the hash of its name",
            ));
        }
        Ok(bytes)
    }

    /// Reads the begin of an object, at most so many bytes. They are not checked against its hash,
    /// which says something of the whole only.
    ///
    /// # Errors
    /// Where it is missing or cannot be read.
    pub fn read_object_head(&self, hash: &ObjectHash, bytes: u64) -> Result<Vec<u8>, LibraryError> {
        self.objects.read(hash, Some(bytes))
    }

    /// How many bytes an object has.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn object_bytes(&self, hash: &ObjectHash) -> Result<u64, LibraryError> {
        self.objects.length(hash)
    }

    /// The folder for results of pipeline steps that are kept to go on from. It is no part of what the
    /// library promises: whoever needs the space may remove it at any time.
    #[must_use]
    pub fn cache_folder(&self) -> PathBuf {
        self.folder("cache")
    }

    /// The folder of a training run, made where it is not there.
    ///
    /// # Errors
    /// Where the name is no plain one, or the folder cannot be made.
    pub fn run_folder(&self, run: &str) -> Result<PathBuf, LibraryError> {
        self.named_folder("runs", "run", run)
    }

    /// The folder in which a prediction service keeps what it owes, made where it is not there.
    ///
    /// # Errors
    /// Where the name is no plain one, or the folder cannot be made.
    pub fn service_folder(&self, service: &str) -> Result<PathBuf, LibraryError> {
        self.named_folder("services", "service", service)
    }

    fn named_folder(&self, of: &str, what: &str, name: &str) -> Result<PathBuf, LibraryError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty()
            || name.len() > RUN_NAME_MAX
            || name.starts_with('.')
            || !name.chars().all(plain)
        {
            return Err(LibraryError::Invalid(format!(
                "{name:?} is not the name of a {what}; use 1 to {RUN_NAME_MAX} letters, digits, - and _"
            )));
        }
        let path = self.root.join(of).join(name);
        files::make_folder(&path)?;
        Ok(path)
    }

    /// How much the library holds. Reads folders only, no records.
    ///
    /// # Errors
    /// Where a folder cannot be listed.
    pub fn counts(&self) -> Result<Counts, LibraryError> {
        let records = |name: &str| -> Result<u64, LibraryError> {
            Ok(self.records.names(name)?.len() as u64)
        };
        let (mut series, mut instances) = (0, 0);
        for one in self.records.children("series", "instances")? {
            let count = one.records.len() as u64;
            series += u64::from(count > 0);
            instances += count;
        }
        Ok(Counts {
            series,
            instances,
            quarantined: records("quarantine")?,
            samples: records("samples")?,
            models: records("models")?,
            predictions: records("predictions")?,
        })
    }

    /// Removes temporary files that processes left behind more than an hour ago, and returns how
    /// many. The folders of runs are left to those who train in them.
    #[must_use]
    pub fn sweep(&self) -> u64 {
        KEPT.iter().map(|name| files::sweep(&self.folder(name), SystemTime::now())).sum()
    }
}
