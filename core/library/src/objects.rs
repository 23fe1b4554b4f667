//! Objects, bytes by their hash: in the library's own folder, or in a bucket of an S3 storage. They are
//! what is large; records are kept by [`super::records`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::at_once::at_once;
use crate::body::Body;
use crate::bucket::Bucket;
use crate::claims::{CLAIMS, Claim};
use crate::error::LibraryError;
use crate::files::{self, NewFile, Part};
use crate::ids::{ObjectHash, hex};
use crate::limits::{OBJECT_BYTES_MAX, PUTS_MAX, REFRESH_AGE};
use crate::records::{BELOW, NewRecord, Records};

/// Where objects are kept. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) enum Objects {
    /// In files of this folder.
    Folder(PathBuf),
    /// In a bucket.
    Bucket(Arc<Bucket>),
}

/// An object that is to be there.
pub(crate) struct NewObject<'a> {
    pub(crate) hash: ObjectHash,
    pub(crate) bytes: &'a [u8],
}

impl Objects {
    /// The objects of a library in this folder.
    pub(crate) fn open(root: &Path, bucket: Option<&Arc<Bucket>>) -> Self {
        match bucket {
            None => Self::Folder(root.join("objects")),
            Some(bucket) => Self::Bucket(bucket.clone()),
        }
    }

    /// Bytes of these that take space in the library's own folder.
    pub(crate) fn bytes_here(&self, bytes: usize) -> usize {
        match self {
            Self::Folder(_) => bytes,
            Self::Bucket(_) => 0,
        }
    }

    /// Where an object is, or would be.
    pub(crate) fn place(&self, hash: &ObjectHash) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(&hash.as_str()[..2]).join(hash.as_str()),
            Self::Bucket(bucket) => bucket.key(hash).into(),
        }
    }

    /// Makes objects and records: an object is there before a record that names it, and all are durable
    /// when this returns. Says which of the records were made.
    pub(crate) fn create(
        &self,
        objects: &[NewObject<'_>],
        records: &[NewRecord],
        kept: &Records,
    ) -> Result<Vec<files::Made>, LibraryError> {
        if let Self::Bucket(bucket) = self {
            at_once(objects, PUTS_MAX, |object| {
                self.put(bucket, &object.hash, Body::Bytes(object.bytes))
            })?;
            return kept.create_all(records);
        }
        let mut files = Vec::with_capacity(objects.len());
        for object in objects {
            self.keep_young(object)?;
            files.push(self.file(&object.hash, object.bytes)?);
        }
        // Both in one order of one file system, which takes two waits for the storage.
        let made = files::create_in_order(&[&files, &kept.files(records)?])?;
        Ok(made.into_iter().next_back().unwrap_or_default())
    }

    /// Puts an object where none of its name is, and makes it young where there is one that is old.
    fn put(&self, bucket: &Bucket, hash: &ObjectHash, body: Body<'_>) -> Result<(), LibraryError> {
        let key = bucket.key(hash);
        loop {
            if bucket.put(hash, body)? == files::Made::New {
                return Ok(());
            }
            // None: it was there, and has been swept since.
            let Some(facts) = bucket.facts(&key)? else { continue };
            if facts.age > REFRESH_AGE {
                let claim = Claim::take(self, hash)?;
                bucket.put_again(&key, body)?;
                drop(claim);
            }
            return Ok(());
        }
    }

    /// Takes a file of so many bytes, which is whole and synced and has this hash, as an object.
    pub(crate) fn adopt(
        &self,
        hash: &ObjectHash,
        part: &Part,
        bytes: u64,
    ) -> Result<(), LibraryError> {
        if let Self::Bucket(bucket) = self {
            return self.put(bucket, hash, Body::File(part.path(), bytes, hash));
        }
        let place = self.place(hash);
        if let Some(folder) = place.parent() {
            files::make_folder(folder)?;
        }
        loop {
            if part.name(&place)? == files::Made::New {
                return Ok(());
            }
            // None: it was there, and has been swept since.
            let Some(old) = files::is_old(&place)? else { continue };
            if old {
                let claim = Claim::take(self, hash)?;
                part.replace(&place)?;
                drop(claim);
            }
            return Ok(());
        }
    }

    /// Makes an object of a folder young where it is there and old, before a record names it.
    pub(crate) fn keep_young(&self, object: &NewObject<'_>) -> Result<(), LibraryError> {
        let place = self.place(&object.hash);
        if files::is_old(&place)? == Some(true) {
            let claim = Claim::take(self, &object.hash)?;
            files::refresh(&place, object.bytes)?;
            drop(claim);
        }
        Ok(())
    }

    /// Removes an object; one that is not there is none either.
    pub(crate) fn remove(&self, hash: &ObjectHash) -> Result<(), LibraryError> {
        match self {
            Self::Folder(_) => files::remove(&self.place(hash)),
            Self::Bucket(bucket) => bucket.remove(&bucket.key(hash)),
        }
    }

    /// The file that will hold an object; its folder is made.
    fn file<'a>(&self, hash: &ObjectHash, bytes: &'a [u8]) -> Result<NewFile<'a>, LibraryError> {
        let path = self.place(hash);
        if let Some(folder) = path.parent() {
            files::make_folder(folder)?;
        }
        Ok(NewFile { path, bytes })
    }

    /// Reads an object, or so many bytes of its begin, as they are.
    pub(crate) fn read(
        &self,
        hash: &ObjectHash,
        head: Option<u64>,
    ) -> Result<Vec<u8>, LibraryError> {
        let place = self.place(hash);
        match (self, head) {
            (Self::Folder(_), None) => files::read(&place),
            (Self::Folder(_), Some(bytes)) => files::read_head(&place, bytes),
            (Self::Bucket(bucket), _) => {
                let mut bytes = Vec::new();
                // What is larger is no object of ours, and must not fill the memory.
                let some = 0..head.unwrap_or(OBJECT_BYTES_MAX as u64);
                let found = bucket.read(&bucket.key(hash), some, |piece| bytes.extend(piece))?;
                if found { Ok(bytes) } else { Err(missing(bucket, hash)) }
            }
        }
    }

    /// How many bytes an object has.
    pub(crate) fn length(&self, hash: &ObjectHash) -> Result<u64, LibraryError> {
        match self {
            Self::Folder(_) => files::length(&self.place(hash)),
            Self::Bucket(bucket) => {
                bucket.length(&bucket.key(hash))?.ok_or_else(|| missing(bucket, hash))
            }
        }
    }

    /// Whether an object is there.
    pub(crate) fn holds(&self, hash: &ObjectHash) -> Result<bool, LibraryError> {
        match self {
            Self::Folder(_) => Ok(self.place(hash).is_file()),
            Self::Bucket(bucket) => Ok(bucket.length(&bucket.key(hash))?.is_some()),
        }
    }

    /// The places of everything that is kept as an object, whatever its name.
    pub(crate) fn places(&self) -> Result<Vec<PathBuf>, LibraryError> {
        match self {
            Self::Folder(folder) => {
                let mut all = Vec::new();
                for below in files::list(folder)? {
                    all.extend(files::list(&below)?);
                }
                Ok(all)
            }
            Self::Bucket(bucket) => {
                let others = [bucket.below(BELOW), bucket.below(CLAIMS)];
                let object = |key: &String| !others.iter().any(|begin| key.starts_with(begin));
                Ok(bucket.keys()?.into_iter().filter(object).map(PathBuf::from).collect())
            }
        }
    }

    /// Whether nothing is in a place any more that was listed.
    pub(crate) fn is_gone(&self, place: &Path) -> Result<bool, LibraryError> {
        match self {
            Self::Folder(_) => Ok(!place.exists()),
            Self::Bucket(bucket) => Ok(bucket.length(&place.to_string_lossy())?.is_none()),
        }
    }

    /// The hash of the bytes in a place.
    pub(crate) fn hash_at(&self, place: &Path) -> Result<ObjectHash, LibraryError> {
        match self {
            Self::Folder(_) => files::hash(place),
            Self::Bucket(bucket) => {
                let mut hasher = Sha256::new();
                let key = place.to_string_lossy();
                if bucket.read(&key, 0..u64::MAX, |piece| hasher.update(piece))? {
                    hex(&hasher.finalize()).parse()
                } else {
                    Err(LibraryError::damaged(place, "it went away while it was read"))
                }
            }
        }
    }
}

pub(crate) fn missing(bucket: &Bucket, hash: &ObjectHash) -> LibraryError {
    let place = bucket.shown(&bucket.key(hash));
    LibraryError::damaged(Path::new(&place), "it is not in the bucket")
}
