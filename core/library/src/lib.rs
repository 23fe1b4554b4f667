//! Studies, series, samples, models and predictions on shared storage.
//!
//! A library is a folder (Lustre, `BeeGFS`, NFS or a local disk) that many tasks on many hosts write
//! at once. It is whole after kill -9 at any moment: a file is written under a temporary name,
//! synced, and then given its own name in one step; records are created once and never changed, so
//! no lock is needed. What two tasks do twice leaves one result, since ids are hashes of content.
//!
//! | in the folder | what |
//! |---|---|
//! | `library.json` | the format, the salt of the ids, and the S3 bucket where there is one |
//! | `objects/ab/SHA256` | bytes, by their hash; in the bucket where there is one |
//! | `series/ID/series.json` | a series, by its UID |
//! | `series/ID/instances/ID.json` | what was received of it, by instance UID |
//! | `series/ID/instances/ID-SHA256.json` | what conflicts with an earlier one |
//! | `quarantine/SHA256.json` | what was set aside, with the reason |
//! | `samples/ID.json`, `samples/ID/N.json` | image, mask and provenance, and what people said of them |
//! | `runs/NAME/` | a training's own folder |
//! | `models/ID.json`, `models/ID/N.json` | models, and the stages they went through |
//! | `predictions/ID.json` | what a model said of a series |
//! | `texts/ID.json` | what a person has written of a series |
//! | `shards/PREPARATION-ID.json` | samples as a training prepares them: what a sweep may remove |
//! | `cache/` | results of pipeline steps, which may be removed at any time |
//! | `index/` | what searches need of predictions, which may be removed too |
//!
//! What a killed writer left and no record names takes space until a sweep removes it ([`mod@sweep`]).
//!
//! All that is JSON may be in the bucket too, below `records/`: then the folder is each host's own, and
//! what is put where nothing of its name is takes the place of names that are made once.
//!
//! No name in the folder comes from a patient or a DICOM UID: ids are salted hashes, and the
//! originals stand only inside the records of `series/`. Each record carries a version and the hash
//! of its content. This crate knows nothing of DICOM or of images: it keeps bytes and records.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod at_once;
mod body;
mod bucket;
mod cases;
mod choice;
mod claims;
mod error;
mod files;
mod ids;
mod index;
mod instances;
mod keys;
mod limits;
mod models;
mod objects;
mod pieces;
mod predictions;
mod quarantine;
mod ranking;
mod record;
mod records;
mod root;
mod samples;
mod shards;
mod split;
mod states;
mod storage_time;
mod sweep;
mod texts;
mod verify;

pub use at_once::at_once;
pub use bucket::BucketPlace;
pub use cases::{Cases, Near};
pub use choice::{Case, Known, NextCase, Rule};
pub use error::LibraryError;
pub use ids::{ModelId, ObjectHash, PatientKey, PredictionId, SampleId, SeriesId, ShardId, TextId};
pub use instances::{Arrival, Conflict, InstanceKey, SeriesRecord, Source, Stored};
pub use models::{ModelDraft, ModelRecord, Stage};
pub use pieces::{ObjectReader, ObjectWriter};
pub use predictions::{Neighbour, PredictionDraft, PredictionRecord};
pub use quarantine::Quarantined;
pub use root::{Counts, Library, now_ms};
pub use samples::{Author, Fingerprint, Provenance, SampleDraft, SampleRecord};
pub use shards::{ShardMember, ShardRecord};
pub use split::{Fractions, Split, SplitPlan};
pub use states::{LabelState, StateRecord, Verdict};
pub use sweep::{Leftover, Leftovers, Removed, Tally};
pub use texts::{TextMatch, TextRecord};
pub use verify::{Damage, VerifyReport};
