//! Shards: samples as a training prepares them, in tar archives of a common size.
//!
//! A shard is an object, and a record beside it names it and says what it was made of and where each
//! sample lies in it. Its name follows from that, so that whoever needs the same finds it. The object is
//! there before the record: what a killed writer leaves is no shard. Of two writers at once one makes the
//! record, and both use that.
//!
//! A shard can be made anew from its samples at any time. So its record is the one kind that goes: a sweep
//! removes those that nobody used for a while, and those of which a sample is gone; whoever finds one
//! damaged removes it too. Use is told by the record's age, which whoever takes a shard sets to none.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::LibraryError;
use crate::ids::{ObjectHash, SampleId, ShardId, sha256_hex};
use crate::root::{Library, now_ms};
use crate::samples::SampleRecord;

/// The folder of the records.
pub(crate) const SHARDS: &str = "shards";
/// Digits of a preparation's hash in a record's name.
const PREPARATION_DIGITS: usize = 16;

/// A sample in a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardMember {
    /// The sample.
    pub sample: SampleId,
    /// The image that it was made of.
    pub image: ObjectHash,
    /// The mask that it was made of.
    pub mask: ObjectHash,
    /// Where it lies in the shard, as whoever prepared it reads it.
    pub about: Value,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Its id, by how it was prepared and by its samples.
    pub id: ShardId,
    /// How its samples were prepared, in words: the same words give the same numbers.
    pub preparation: String,
    /// The archive.
    pub object: ObjectHash,
    /// Its bytes.
    pub bytes: u64,
    /// Its samples, in their order.
    pub members: Vec<ShardMember>,
    /// When it was kept.
    pub created_ms: u64,
}

impl ShardRecord {
    /// The name of its record.
    pub(crate) fn name(&self) -> String {
        format!("{SHARDS}/{}{}.json", begin_of(&self.preparation), self.id)
    }
}

/// What the names of shards of a preparation begin with.
fn begin_of(preparation: &str) -> String {
    let hash = sha256_hex(&[preparation.as_bytes()]);
    format!("{}-", &hash[..PREPARATION_DIGITS])
}

fn id_of<'a>(
    preparation: &str,
    members: impl Iterator<Item = (&'a SampleId, &'a ObjectHash, &'a ObjectHash)>,
) -> ShardId {
    let mut parts = vec![preparation.as_bytes()];
    for (sample, image, mask) in members {
        parts.extend([sample.as_str(), image.as_str(), mask.as_str()].map(str::as_bytes));
    }
    ShardId::of(&parts)
}

impl Library {
    /// The shards whose samples were prepared in this way, each read when it is asked for. A record that is
    /// damaged is removed: its shard can be made anew.
    ///
    /// # Errors
    /// Where a newer program made one of them, or the storage fails.
    pub fn shards(
        &self,
        preparation: &str,
    ) -> Result<impl Iterator<Item = Result<ShardRecord, LibraryError>>, LibraryError> {
        let begin = format!("{SHARDS}/{}", begin_of(preparation));
        let names = self.records().names(SHARDS)?.into_iter();
        let names = names.filter(move |name| name.starts_with(&begin));
        Ok(names.filter_map(|name| self.shard(&name).transpose()))
    }

    /// The shard of just these samples, prepared in this way, if there is one.
    ///
    /// # Errors
    /// As [`Library::shards`].
    pub fn shard_of(
        &self,
        preparation: &str,
        samples: &[&SampleRecord],
    ) -> Result<Option<ShardRecord>, LibraryError> {
        let id = id_of(preparation, samples.iter().map(|one| (&one.id, &one.image, &one.mask)));
        self.shard(&format!("{SHARDS}/{}{id}.json", begin_of(preparation)))
    }

    fn shard(&self, name: &str) -> Result<Option<ShardRecord>, LibraryError> {
        match self.records().find_now(name) {
            Err(LibraryError::Damaged { .. }) => self.records().remove(name).map(|()| None),
            found => found,
        }
    }

    /// Keeps an object as the shard of these samples. Where another has kept one of the same, that one is
    /// returned.
    ///
    /// # Errors
    /// Where the storage is full or fails.
    pub fn keep_shard(
        &self,
        preparation: &str,
        (object, bytes): (ObjectHash, u64),
        members: Vec<ShardMember>,
    ) -> Result<ShardRecord, LibraryError> {
        let of = members.iter().map(|one| (&one.sample, &one.image, &one.mask));
        let (id, preparation) = (id_of(preparation, of), preparation.to_owned());
        let created_ms = now_ms();
        let record = ShardRecord { id, preparation, object, bytes, members, created_ms };
        self.records().create(&record.name(), &record)?;
        self.records().read_anew(&record.name())
    }

    /// Says that a shard is in use, so that no sweep takes it for left over.
    ///
    /// # Errors
    /// Where the storage fails.
    pub fn use_shard(&self, record: &ShardRecord) -> Result<(), LibraryError> {
        self.records().refresh(&record.name())
    }

    /// Removes a shard. Whoever reads it meanwhile finds that it is gone.
    ///
    /// # Errors
    /// Where the storage fails.
    pub fn remove_shard(&self, record: &ShardRecord) -> Result<(), LibraryError> {
        self.records().remove(&record.name())?;
        self.objects().remove(&record.object)
    }
}
