//! Objects that are too large to be held: written piece after piece, and read in parts.
//!
//! What is written goes into a temporary file of the library's folder and becomes an object once it is
//! whole, also of a bucket: only then is its hash known. Of a part that is read nothing says whether it is
//! what was written; whoever wrote it keeps sums of its parts.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use crate::bucket::Bucket;
use crate::error::LibraryError;
use crate::files::Part;
use crate::ids::{ObjectHash, hex};
use crate::limits::{OBJECT_BYTES_MAX, OPEN_MAX, WRITE_BYTES};
use crate::objects::{Objects, missing};
use crate::root::Library;

/// What is wrong with an object that is shorter than it was.
const SHORT: &str = "it ends before its parts do";
/// Files that readers hold open in this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// An object that is being written. Nothing is left of it where this value goes before it is finished.
pub struct ObjectWriter<'a> {
    library: &'a Library,
    part: Part,
    file: BufWriter<File>,
    hasher: Sha256,
    bytes: u64,
}

impl fmt::Debug for ObjectWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Write for ObjectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl ObjectWriter<'_> {
    /// Makes it an object, which is durable when this returns. Returns its hash and how many bytes it has.
    ///
    /// # Errors
    /// Where they are too many, or the storage is full or fails.
    pub fn finish(self) -> Result<(ObjectHash, u64), LibraryError> {
        let Self { library, part, file, hasher, bytes } = self;
        let failed = |error| LibraryError::file("writing", part.path(), error);
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        if bytes > OBJECT_BYTES_MAX as u64 {
            return Err(LibraryError::Invalid(format!(
                "an object of {bytes} bytes is over the limit of {OBJECT_BYTES_MAX}"
            )));
        }
        let hash: ObjectHash = hex(&hasher.finalize()).parse()?;
        library.objects().adopt(&hash, &part, bytes)?;
        Ok((hash, bytes))
    }
}

/// An object of which parts are read, by several threads at once.
#[derive(Debug)]
pub struct ObjectReader(Source);

#[derive(Debug)]
enum Source {
    /// A file, and the same opened once it was read.
    File(PathBuf, OnceLock<File>),
    Bucket(Arc<Bucket>, ObjectHash),
}

impl ObjectReader {
    /// Fills bytes with those that begin at a place.
    ///
    /// # Errors
    /// As damage where the object is not there or is shorter; where the storage fails.
    pub fn read_at(&self, at: u64, bytes: &mut [u8]) -> Result<(), LibraryError> {
        match &self.0 {
            Source::File(path, opened) => {
                let read = match opened.get() {
                    Some(file) => file.read_exact_at(bytes, at),
                    None => File::open(path).and_then(|file| {
                        file.read_exact_at(bytes, at)?;
                        keep_open(file, opened);
                        Ok(())
                    }),
                };
                read.map_err(|error| match error.kind() {
                    ErrorKind::NotFound => LibraryError::damaged(path, "it is not there"),
                    ErrorKind::UnexpectedEof => LibraryError::damaged(path, SHORT),
                    _ => LibraryError::file("reading", path, error),
                })
            }
            Source::Bucket(bucket, hash) => {
                let key = bucket.key(hash);
                let mut filled = 0;
                let range = at..at + bytes.len() as u64;
                let found = bucket.read(&key, range, |piece| {
                    let end = (filled + piece.len()).min(bytes.len());
                    bytes[filled..end].copy_from_slice(&piece[..end - filled]);
                    filled = end;
                })?;
                if !found {
                    return Err(missing(bucket, hash));
                }
                if filled < bytes.len() {
                    let place = PathBuf::from(bucket.shown(&key));
                    return Err(LibraryError::damaged(&place, SHORT));
                }
                Ok(())
            }
        }
    }

    /// Whether each read is a question to a storage over a network, of which several are best asked at
    /// once.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.0, Source::Bucket(..))
    }
}

impl Drop for ObjectReader {
    fn drop(&mut self) {
        if let Source::File(_, opened) = &self.0
            && opened.get().is_some()
        {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Keeps a file open, unless too many are or another thread was faster.
fn keep_open(file: File, opened: &OnceLock<File>) {
    if OPEN.fetch_add(1, Ordering::Relaxed) >= OPEN_MAX || opened.set(file).is_err() {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Library {
    /// Begins an object that will have about so many bytes.
    ///
    /// # Errors
    /// Where the storage is full or fails.
    pub fn object_writer(&self, bytes: u64) -> Result<ObjectWriter<'_>, LibraryError> {
        self.check_free(bytes as usize)?;
        let (part, file) = Part::begin(&self.folder("objects"))?;
        let file = BufWriter::with_capacity(WRITE_BYTES, file);
        Ok(ObjectWriter { library: self, part, file, hasher: Sha256::new(), bytes: 0 })
    }

    /// An object, to read parts of it. Whether it is there is told by the first read.
    #[must_use]
    pub fn object_reader(&self, hash: &ObjectHash) -> ObjectReader {
        ObjectReader(match self.objects() {
            Objects::Folder(_) => Source::File(self.objects().place(hash), OnceLock::new()),
            Objects::Bucket(bucket) => Source::Bucket(bucket.clone(), hash.clone()),
        })
    }
}
