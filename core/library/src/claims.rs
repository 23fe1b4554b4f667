//! Who may refresh or remove an old object: one process at a time.
//!
//! A claim is a file or an object that is made once, which every storage here does for one of several at
//! a time, and removed afterwards. Nothing young is ever claimed, so that writing costs nothing by it. A
//! holder acts at once or not at all, and a claim whose holder was killed gives way after two minutes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::body::Body;
use crate::bucket::Bucket;
use crate::error::LibraryError;
use crate::files::{self, Made};
use crate::ids::ObjectHash;
use crate::limits::{CLAIM_ACTS_WITHIN, CLAIM_AGE_MAX};
use crate::objects::Objects;

/// What the names of claims begin with in a bucket. No object's name does.
pub(crate) const CLAIMS: &str = "claims/";
/// Before the first further try; it doubles with each, up to the last.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
const AGAIN_LAST: Duration = Duration::from_secs(1);

/// The right to refresh or remove one object, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    place: Place,
    taken: Instant,
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Key(Arc<Bucket>, String),
}

impl Claim {
    /// Claims an object, unless it is claimed.
    pub(crate) fn try_take(
        objects: &Objects,
        hash: &ObjectHash,
    ) -> Result<Option<Self>, LibraryError> {
        let taken = Instant::now();
        let place = match objects {
            Objects::Folder(_) => {
                files::claim(&objects.place(hash), CLAIM_AGE_MAX)?.map(Place::File)
            }
            Objects::Bucket(bucket) => {
                let key = bucket.below(&format!("{CLAIMS}{hash}"));
                claimed(bucket, &key)?.then(|| Place::Key(bucket.clone(), key))
            }
        };
        Ok(place.map(|place| Self { place, taken }))
    }

    /// Claims an object, and waits while it is claimed. A claim that is left over gives way, so that this
    /// ends.
    pub(crate) fn take(objects: &Objects, hash: &ObjectHash) -> Result<Self, LibraryError> {
        let mut again = AGAIN_FIRST;
        let begun = Instant::now();
        loop {
            if let Some(claim) = Self::try_take(objects, hash)? {
                return Ok(claim);
            }
            if begun.elapsed() > 2 * CLAIM_AGE_MAX {
                return Err(LibraryError::Invalid(format!(
                    "object {hash} stays claimed by others; end the sweeps that run, and try again"
                )));
            }
            std::thread::sleep(again);
            again = AGAIN_LAST.min(2 * again);
        }
    }

    /// Whether its holder may still act. Another could hold it soon.
    pub(crate) fn holds(&self) -> bool {
        self.taken.elapsed() < CLAIM_ACTS_WITHIN
    }
}

/// Makes a claim in a bucket, in the place of one that is left over.
fn claimed(bucket: &Bucket, key: &str) -> Result<bool, LibraryError> {
    for _ in 0..2 {
        if bucket.put_new(key, Body::Bytes(b""))? == Made::New {
            return Ok(true);
        }
        match bucket.facts(key)? {
            Some(facts) if facts.age <= CLAIM_AGE_MAX => return Ok(false),
            Some(_) => bucket.remove(key)?,
            None => {}
        }
    }
    Ok(false)
}

impl Drop for Claim {
    fn drop(&mut self) {
        // One that stays gives way by itself.
        match &self.place {
            Place::File(path) => drop(std::fs::remove_file(path)),
            Place::Key(bucket, key) => drop(bucket.remove(key)),
        }
    }
}
