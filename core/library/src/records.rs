//! Where records are kept: in the library's own folder, or in the bucket that holds its objects.
//!
//! A record has a name, as `samples/ID.json`, under which it is made once; it never changes. In a folder
//! that is a file; in a bucket an object below `records/`, put only where none of its name is there.
//! What was read of a bucket is therefore kept, within a limit, and asked for once. The records of shards
//! alone may go ([`super::shards`]), and are read anew each time.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::at_once::at_once;
use crate::body::Body;
use crate::bucket::{Bucket, Entry};
use crate::error::LibraryError;
use crate::files::{self, Made, NewFile};
use crate::limits::{GETS_MAX, RECORD_BYTES_MAX, RECORDS_BYTES_MAX, REFRESH_AGE};
use crate::record;

/// What the names of records begin with in a bucket. No object's name does.
pub(crate) const BELOW: &str = "records/";

/// Where records are kept. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) enum Records {
    /// In files below this folder.
    Folder(PathBuf),
    /// In a bucket.
    Bucket(Arc<Bucket>, Arc<Kept>),
}

/// A record that is to be there.
pub(crate) struct NewRecord {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// A folder of records within another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) name: String,
    /// The names of its records, without those of the folders.
    pub(crate) records: Vec<String>,
    /// When the newest of them came, in milliseconds since 1970, by the storage's clock.
    pub(crate) changed_ms: u64,
}

/// Records of a bucket that were read.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    records: HashMap<String, Arc<[u8]>>,
    /// Of all of them.
    bytes: usize,
}

impl Kept {
    fn get(&self, name: &str) -> Option<Arc<[u8]>> {
        // Nothing is half done where another thread panicked: every change is one call.
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.records.get(name).cloned()
    }

    fn put(&self, name: &str, bytes: &Arc<[u8]>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.bytes + bytes.len() > RECORDS_BYTES_MAX {
            *held = Held::default();
        }
        if held.records.insert(name.to_owned(), bytes.clone()).is_none() {
            held.bytes += bytes.len();
        }
    }
}

impl Records {
    /// Where a record is, or would be, for people.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(root) => root.join(name),
            Self::Bucket(bucket, _) => bucket.shown(&key(bucket, name)).into(),
        }
    }

    /// Creates a record unless one of its name is there.
    pub(crate) fn create<T>(&self, name: &str, record: &T) -> Result<Made, LibraryError>
    where
        T: Serialize + DeserializeOwned,
    {
        let bytes = record::encode(record)?;
        let made = self.create_all(&[NewRecord { name: name.to_owned(), bytes }])?;
        Ok(made[0])
    }

    /// Creates records, each unless one of its name is there; they are durable when this returns.
    pub(crate) fn create_all(&self, records: &[NewRecord]) -> Result<Vec<Made>, LibraryError> {
        match self {
            Self::Folder(_) => {
                let files = self.files(records)?;
                Ok(files::create_in_order(&[&files])?.pop().unwrap_or_default())
            }
            Self::Bucket(bucket, _) => at_once(records, GETS_MAX, |record| {
                bucket.put_new(&key(bucket, &record.name), Body::Bytes(&record.bytes))
            }),
        }
    }

    /// The files that will hold records; their folders are made. None where they are no files.
    pub(crate) fn files<'a>(
        &self,
        records: &'a [NewRecord],
    ) -> Result<Vec<NewFile<'a>>, LibraryError> {
        let Self::Folder(root) = self else { return Ok(Vec::new()) };
        let file = |record: &'a NewRecord| {
            let path = root.join(&record.name);
            if let Some(folder) = path.parent() {
                files::make_folder(folder)?;
            }
            Ok(NewFile { path, bytes: &record.bytes })
        };
        records.iter().map(file).collect()
    }

    /// Reads a record and checks it.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, LibraryError> {
        self.find(name)?.ok_or_else(|| self.missing(name))
    }

    /// Reads a record and checks it, if there is one of this name.
    pub(crate) fn find<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LibraryError> {
        match self {
            Self::Folder(root) => {
                let path = root.join(name);
                if path.is_file() { record::read(&path).map(Some) } else { Ok(None) }
            }
            Self::Bucket(_, kept) => {
                if let Some(bytes) = kept.get(name) {
                    return record::decode(&self.place(name), &bytes).map(Some);
                }
                let Some(bytes) = self.fetch(name)? else { return Ok(None) };
                let record = record::decode(&self.place(name), &bytes)?;
                kept.put(name, &bytes);
                Ok(Some(record))
            }
        }
    }

    /// Reads a record as it is on the storage now.
    pub(crate) fn read_anew<T: DeserializeOwned>(&self, name: &str) -> Result<T, LibraryError> {
        match self {
            Self::Folder(root) => record::read(&root.join(name)),
            Self::Bucket(..) => {
                let bytes = self.fetch(name)?.ok_or_else(|| self.missing(name))?;
                record::decode(&self.place(name), &bytes)
            }
        }
    }

    /// Makes a record young that is there and old, which is what tells the use of one that a sweep may
    /// remove.
    pub(crate) fn refresh(&self, name: &str) -> Result<(), LibraryError> {
        match self {
            Self::Folder(root) => {
                let path = root.join(name);
                let old = files::is_old(&path)? == Some(true);
                if old { files::refresh(&path, &files::read(&path)?) } else { Ok(()) }
            }
            Self::Bucket(bucket, _) => {
                let key = key(bucket, name);
                let old = bucket.facts(&key)?.is_some_and(|facts| facts.age > REFRESH_AGE);
                // What is not there any more must not come back.
                let Some(bytes) = old.then(|| self.fetch(name)).transpose()?.flatten() else {
                    return Ok(());
                };
                bucket.put_again(&key, Body::Bytes(&bytes))
            }
        }
    }

    /// Reads a record as it is on the storage now, if there is one of this name.
    pub(crate) fn find_now<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, LibraryError> {
        match self {
            Self::Folder(_) => self.find(name),
            Self::Bucket(..) => {
                let found = self.fetch(name)?;
                found.map(|bytes| record::decode(&self.place(name), &bytes)).transpose()
            }
        }
    }

    /// Removes a record, one of those that may be made again; one that is not there is none either.
    pub(crate) fn remove(&self, name: &str) -> Result<(), LibraryError> {
        match self {
            Self::Folder(root) => files::remove(&root.join(name)),
            Self::Bucket(bucket, _) => bucket.remove(&key(bucket, name)),
        }
    }

    fn fetch(&self, name: &str) -> Result<Option<Arc<[u8]>>, LibraryError> {
        let Self::Bucket(bucket, _) = self else { return Ok(None) };
        let mut bytes = Vec::new();
        // One byte more than a record may have, so that a longer one is none.
        let some = 0..RECORD_BYTES_MAX as u64 + 1;
        let found = bucket.read(&key(bucket, name), some, |piece| bytes.extend(piece))?;
        Ok(found.then(|| bytes.into()))
    }

    fn missing(&self, name: &str) -> LibraryError {
        LibraryError::damaged(&self.place(name), "it is not there")
    }

    /// Reads every record of a folder, in the order of their names.
    pub(crate) fn read_all<T>(&self, folder: &str) -> Result<Vec<T>, LibraryError>
    where
        T: DeserializeOwned + Send,
    {
        let names = self.names(folder)?;
        match self {
            Self::Folder(_) => names.iter().map(|name| self.read(name)).collect(),
            Self::Bucket(..) => at_once(&names, GETS_MAX, |name| self.read(name)),
        }
    }

    /// Whether there is a record of this name.
    pub(crate) fn holds(&self, name: &str) -> Result<bool, LibraryError> {
        match self {
            Self::Folder(root) => Ok(root.join(name).is_file()),
            Self::Bucket(bucket, kept) => {
                Ok(kept.get(name).is_some() || bucket.length(&key(bucket, name))?.is_some())
            }
        }
    }

    /// Whether there is one of this name on the storage now.
    pub(crate) fn holds_now(&self, name: &str) -> Result<bool, LibraryError> {
        match self {
            Self::Folder(_) => self.holds(name),
            Self::Bucket(bucket, _) => Ok(bucket.length(&key(bucket, name))?.is_some()),
        }
    }

    /// The names of the records of a folder, in their order.
    pub(crate) fn names(&self, folder: &str) -> Result<Vec<String>, LibraryError> {
        let mut names = match self {
            Self::Folder(root) => files::record_names(&root.join(folder))?,
            Self::Bucket(bucket, _) => {
                let below = key(bucket, &format!("{folder}/"));
                let listed = bucket.list(&below, Some('/'))?.keys.into_iter();
                let mut names: Vec<String> =
                    listed.map(|entry| entry.key[below.len()..].to_owned()).collect();
                names.retain(|name| is_record(name));
                names
            }
        };
        names.sort();
        Ok(names.into_iter().map(|name| format!("{folder}/{name}")).collect())
    }

    /// The names of the folders within a folder, in their order.
    pub(crate) fn folders(&self, folder: &str) -> Result<Vec<String>, LibraryError> {
        match self {
            Self::Folder(root) => {
                let all = files::list(&root.join(folder))?.into_iter().filter(|path| path.is_dir());
                Ok(all.map(|path| name_of(&path)).collect())
            }
            Self::Bucket(bucket, _) => {
                let below = key(bucket, &format!("{folder}/"));
                let listed = bucket.list(&below, Some('/'))?.prefixes.into_iter();
                Ok(listed.map(|key| key[below.len()..].trim_end_matches('/').to_owned()).collect())
            }
        }
    }

    /// The folders within a folder, each with the records of its own folder `of`, in their order.
    pub(crate) fn children(&self, folder: &str, of: &str) -> Result<Vec<Child>, LibraryError> {
        match self {
            Self::Folder(_) => {
                let names = self.folders(folder)?.into_iter();
                names.map(|name| self.child(folder, &name, of)).collect()
            }
            // One listing of all: a question for each of them would take as long as the storage is far.
            Self::Bucket(bucket, _) => listed(bucket, &format!("{folder}/"), of),
        }
    }

    /// The first folder within a folder whose own folder `of` holds a record of this name.
    pub(crate) fn child_with(
        &self,
        folder: &str,
        of: &str,
        record: &str,
    ) -> Result<Option<String>, LibraryError> {
        if let Self::Folder(root) = self {
            let mut names = self.folders(folder)?.into_iter();
            return Ok(
                names.find(|name| root.join(folder).join(name).join(of).join(record).is_file())
            );
        }
        let mut children = self.children(folder, of)?.into_iter();
        let holds = |child: &Child| child.records.iter().any(|name| name == record);
        Ok(children.find(holds).map(|child| child.name))
    }

    /// One folder within a folder, with the records of its own folder `of`; without any where there is
    /// none.
    pub(crate) fn child(&self, folder: &str, name: &str, of: &str) -> Result<Child, LibraryError> {
        match self {
            Self::Folder(root) => {
                let path = root.join(folder).join(name).join(of);
                let records = files::record_names(&path)?;
                // Each new name in a folder changes its time: no need to look at ten thousand files.
                let changed_ms = if records.is_empty() { 0 } else { changed_ms(&path)? };
                Ok(Child { name: name.to_owned(), records, changed_ms })
            }
            Self::Bucket(bucket, _) => {
                let found = listed(bucket, &format!("{folder}/{name}/"), of)?;
                let none = Child { name: name.to_owned(), records: Vec::new(), changed_ms: 0 };
                Ok(found
                    .into_iter()
                    .next()
                    .map_or(none, |child| Child { name: name.to_owned(), ..child }))
            }
        }
    }
}

/// Lists everything below a folder, by the folders that hold a folder `of` with records.
fn listed(bucket: &Bucket, folder: &str, of: &str) -> Result<Vec<Child>, LibraryError> {
    let below = key(bucket, folder);
    let mut children: BTreeMap<String, Child> = BTreeMap::new();
    for Entry { key, changed_ms, .. } in bucket.list(&below, None)?.keys {
        let rest = &key[below.len()..];
        // The folder itself may be the one that was asked for.
        let (name, rest) = match rest.strip_prefix(of).filter(|rest| rest.starts_with('/')) {
            Some(rest) => ("", rest),
            None => match rest.split_once('/') {
                Some((name, rest)) => (name, rest.strip_prefix(of).unwrap_or_default()),
                None => continue,
            },
        };
        let child = children.entry(name.to_owned()).or_insert_with(|| Child {
            name: name.to_owned(),
            records: Vec::new(),
            changed_ms: 0,
        });
        let record = rest.strip_prefix('/').filter(|name| !name.contains('/') && is_record(name));
        if let Some(record) = record {
            child.records.push(record.to_owned());
            child.changed_ms = child.changed_ms.max(changed_ms);
        }
    }
    Ok(children.into_values().collect())
}

fn key(bucket: &Bucket, name: &str) -> String {
    bucket.below(&format!("{BELOW}{name}"))
}

fn is_record(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "json")
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn changed_ms(folder: &Path) -> Result<u64, LibraryError> {
    let changed = std::fs::metadata(folder)
        .and_then(|metadata| metadata.modified())
        .map_err(|error| LibraryError::file("reading", folder, error))?;
    Ok(changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}
