//! Shards of prepared samples: kept, found, used, swept.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gantry_library::{Library, LibraryError, SampleRecord, ShardRecord, Tally};
use support::{sample, shard, shards, store};

const DAY: Duration = Duration::from_hours(24);

/// A library with a sample.
fn library(folder: &Path) -> (Library, SampleRecord) {
    let library = Library::create(folder).unwrap();
    store(&library, "1.1", 1, b"a");
    library.add_sample(sample(&library, "1.1", b"mask")).unwrap();
    let sample = library.samples().unwrap().remove(0);
    (library, sample)
}

/// The record's file of the only shard.
fn record_of(library: &Library) -> PathBuf {
    let mut all = fs::read_dir(library.root().join("shards")).unwrap();
    let path = all.next().unwrap().unwrap().path();
    assert!(all.next().is_none(), "there is but one");
    path
}

fn age(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - 2 * DAY).unwrap();
}

/// Whether the check of the library finds this and nothing else.
fn verify(library: &Library, reason: Option<&str>) {
    let damage = library.verify().unwrap().damage;
    assert_eq!(damage.len(), usize::from(reason.is_some()), "{damage:?}");
    assert!(damage.iter().all(|one| one.reason.contains(reason.unwrap_or_default())), "{damage:?}");
}

#[test]
fn a_shard_is_found_by_how_it_was_prepared_and_read_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let (library, sample) = library(folder.path());
    let one = shard(&library, "side 16", &sample);
    let other = shard(&library, "side 32", &sample);
    assert_eq!(shard(&library, "side 16", &sample), one, "twice is once");
    assert_eq!(shards(&library, "side 16"), std::slice::from_ref(&one));
    assert_eq!(shards(&library, "side 32"), [other]);
    assert_eq!(shards(&library, "side 64"), []);
    assert_eq!(one.bytes, 3_000_007);
    assert!(library.read_object(&one.object).unwrap().starts_with(b"side 16\x07"));
    let reader = library.object_reader(&one.object);
    let mut bytes = [0; 3];
    reader.read_at(5, &mut bytes).unwrap();
    assert_eq!(&bytes, b"16\x07");
    let error = reader.read_at(3_000_005, &mut bytes).unwrap_err();
    assert!(matches!(error, LibraryError::Damaged { .. }), "{error}");
    let report = library.verify().unwrap();
    assert_eq!((report.damage.len(), report.unnamed), (0, 0), "{report:?}");
}

#[test]
fn what_a_writer_began_is_no_object_and_an_old_one_becomes_young() {
    let folder = tempfile::tempdir().unwrap();
    let (library, sample) = library(folder.path());
    let mut begun = library.object_writer(0).unwrap();
    std::io::Write::write_all(&mut begun, b"half").unwrap();
    let objects = library.verify().unwrap().objects;
    drop(begun);
    assert_eq!(library.verify().unwrap().objects, objects);
    let one = shard(&library, "side 16", &sample);
    let place = library.object_path(&one.object);
    age(&place);
    shard(&library, "side 16", &sample);
    let changed = fs::metadata(&place).unwrap().modified().unwrap();
    assert!(SystemTime::now().duration_since(changed).unwrap_or_default() < DAY);
}

#[test]
fn a_sweep_removes_what_nobody_uses_and_spares_what_somebody_does() {
    let folder = tempfile::tempdir().unwrap();
    let (library, sample) = library(folder.path());
    let one = shard(&library, "side 16", &sample);
    let swept = |library: &Library| library.find_leftovers(DAY).unwrap();
    assert_eq!(swept(&library).shards.len(), 0, "it is young");
    age(&record_of(&library));
    let found = swept(&library);
    assert_eq!((found.shards.len(), found.shards[0].bytes), (1, one.bytes));
    assert_eq!(found.unnamed.len(), 0, "its object is named by it");
    library.use_shard(&one).unwrap();
    assert_eq!(library.remove_leftovers(&found).unwrap().spared, 1, "a training has taken it");
    assert_eq!(swept(&library).shards.len(), 0);
    age(&record_of(&library));
    let removed = library.remove_leftovers(&swept(&library)).unwrap();
    assert_eq!(removed.shards, Tally { count: 1, bytes: one.bytes });
    gone(&library, &one);
}

fn gone(library: &Library, one: &ShardRecord) {
    assert_eq!(shards(library, &one.preparation), []);
    let error = library.object_reader(&one.object).read_at(0, &mut [0]).unwrap_err();
    assert!(matches!(error, LibraryError::Damaged { .. }), "{error}");
    verify(library, None);
    // Whoever used it says so once more, and it does not come back.
    library.use_shard(one).unwrap();
    assert_eq!(shards(library, &one.preparation), []);
}

#[test]
fn a_shard_goes_at_once_where_a_sample_of_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (library, sample) = library(folder.path());
    let one = shard(&library, "side 16", &sample);
    fs::remove_file(library.root().join(format!("samples/{}.json", sample.id))).unwrap();
    verify(&library, None);
    let found = library.find_leftovers(DAY).unwrap();
    assert_eq!(library.remove_leftovers(&found).unwrap().shards.count, 1);
    gone(&library, &one);
}

#[test]
fn damage_is_told_and_stands_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let (library, sample) = library(folder.path());
    let one = shard(&library, "side 16", &sample);
    let place = library.object_path(&one.object);
    let mut bytes = fs::read(&place).unwrap();
    bytes[1000] ^= 1;
    fs::write(&place, &bytes).unwrap();
    verify(&library, Some("the next training that reads it makes it anew"));
    fs::remove_file(&place).unwrap();
    verify(&library, Some("is not there; it holds prepared samples"));
    library.remove_shard(&one).unwrap();
    gone(&library, &one);
    let again = shard(&library, "side 16", &sample);
    assert_eq!((&again.object, &again.id), (&one.object, &one.id));
    let record = record_of(&library);
    fs::write(&record, b"{}").unwrap();
    verify(&library, Some("makes it anew"));
    assert_eq!(library.find_leftovers(DAY).unwrap().shards.len(), 0, "it is young");
    age(&record);
    age(&library.object_path(&again.object));
    let found = library.find_leftovers(DAY).unwrap();
    assert_eq!((found.shards.len(), found.unnamed.len()), (1, 1), "{found:?}");
    // A training does not wait for that.
    assert_eq!(shards(&library, "side 16"), []);
    assert!(!record.exists());
    shard(&library, "side 16", &sample);
    verify(&library, None);
}
