//! What is put into a bucket: bytes at hand, or those of a file that is too large to be held.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::ids::ObjectHash;

/// What is put.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    Bytes(&'a [u8]),
    /// A file of so many bytes, of which this is the hash.
    File(&'a Path, u64, &'a ObjectHash),
}

impl Body<'_> {
    /// How many bytes it has.
    pub(crate) fn len(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, bytes, _) => bytes,
        }
    }

    /// The header by which a storage checks what it got.
    pub(crate) fn sum(self) -> (&'static str, String) {
        let sum = match self {
            Self::Bytes(bytes) => STANDARD.encode(Sha256::digest(bytes)),
            Self::File(_, _, hash) => STANDARD.encode(hash.bytes()),
        };
        ("x-amz-checksum-sha256", sum)
    }
}
