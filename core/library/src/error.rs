//! What can go wrong with a library.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the library or its storage. Paths are the library's own; none names a patient.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is a library in the folder, and another was to be made.
    #[error("there is a library in {path} already; open it, or choose an empty folder", path = path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// There is no library in the folder.
    #[error("there is no library in {path}; gantry import makes one, or check the path and the mount", path = path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// The library, or one of its records, was made by a newer program.
    #[error("{path} has format {found}, this program knows {known}; upgrade gantry", path = path.display())]
    Newer {
        /// The folder, or the record.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The storage is full, or below the free space that must remain. Nothing was stored.
    #[error("the storage of the library is full: {reason}; nothing was stored, free some space")]
    StorageFull {
        /// How it was noticed.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{what} {path} failed: {source}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file of the library.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A storage that is reached over a network could not read or write.
    #[error("{what} {place} failed: {reason}")]
    Remote {
        /// What was tried.
        what: &'static str,
        /// Which object of the library.
        place: String,
        /// Why.
        reason: String,
    },
    /// Bytes are not what their name or record says.
    #[error("{path} is damaged: {reason}; restore it from a backup", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How it was noticed.
        reason: String,
    },
    /// Something that was named is not there.
    #[error("the library has no {kind} {name}; gantry data {kind}s lists what it has")]
    Unknown {
        /// `series`, `sample`, `model`, `prediction`, `text`.
        kind: &'static str,
        /// Its id.
        name: String,
    },
    /// A value that cannot be kept.
    #[error("{0}")]
    Invalid(String),
}

impl LibraryError {
    pub(crate) fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull => {
                Self::StorageFull { reason: "no space is left".to_owned() }
            }
            io::ErrorKind::QuotaExceeded => {
                Self::StorageFull { reason: "the quota is used up".to_owned() }
            }
            _ => Self::File { what, path: path.to_owned(), source },
        }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
