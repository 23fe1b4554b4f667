//! A library whose objects are in a bucket, against a real S3 server (moto, from `PyPI`), and the same
//! with objects in a folder.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use gantry_library::{
    BucketPlace, LabelState, Library, LibraryError, Source, Stage, Stored, Verdict, now_ms,
};
use support::storage::{Server, has_keys};
use support::{key, model, prediction, sample, shard, shards, store};
use tempfile::TempDir;

/// What a library does wherever its objects are.
fn holds_what_it_is_given(library: &Library) {
    assert_eq!(store(library, "1.1", 1, b"a"), Stored::New);
    assert_eq!(store(library, "1.1", 1, b"a"), Stored::Same);
    assert_eq!(store(library, "1.1", 1, b"b"), Stored::Conflict);
    let objects = library.series_objects(&library.series_id("1.1")).unwrap();
    assert_eq!(library.read_object(&objects[0]).unwrap(), b"a");
    assert_eq!(library.put_object(b"").and_then(|hash| library.read_object(&hash)).unwrap(), b"");
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let hash = library.put_object(&large).unwrap();
    assert_eq!(library.put_object(&large).unwrap(), hash);
    assert_eq!(library.read_object(&hash).unwrap(), large);
    assert_eq!(library.read_object_head(&hash, 1000).unwrap(), large[..1000]);
    assert_eq!(library.object_bytes(&hash).unwrap(), large.len() as u64);
    library.add_sample(sample(library, "1.1", b"mask")).unwrap();
    let id = library.publish_model(model("lungs")).unwrap();
    library.add_prediction(prediction(library, "1.1", &id, &[1.0])).unwrap();
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    // The empty one and the large one are named by no record.
    assert_eq!((report.objects, report.unnamed), (9, 2), "{report:?}");
}

#[test]
fn a_folder_holds_objects() {
    let folder = TempDir::new().unwrap();
    holds_what_it_is_given(&Library::create(folder.path()).unwrap());
}

#[test]
fn a_bucket_holds_objects_as_a_folder_does() {
    if !has_keys("a_bucket_holds_objects_as_a_folder_does") {
        return;
    }
    let Some(server) = Server::start("objects in a bucket") else { return };
    server.run("scans.Versioning().enable()");
    let folder = TempDir::new().unwrap();
    let library = Library::create_in_bucket(folder.path(), &server.place("site/")).unwrap();
    holds_what_it_is_given(&library);
    assert!(!folder.path().join("objects").exists(), "no object is in the folder");
    let again = Library::open(folder.path()).unwrap();
    assert_eq!(again.samples().unwrap(), library.samples().unwrap());
    let error = Library::create_in_bucket(&folder.path().join("b"), &server.place("site/"));
    assert!(error.unwrap_err().to_string().contains("another prefix"));

    // Many at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..10_u8 {
                    again.put_object(&[number; 9]).unwrap();
                }
            });
        }
    });
    let report = library.verify().unwrap();
    assert_eq!((report.objects, report.damage.len()), (19, 0));
    let known = library.put_object(&[0; 9]).unwrap();
    let place = library.object_path(&known).display().to_string();
    let versions = format!("print(len(list(scans.object_versions.filter(Prefix='{place}'))))");
    let before = server.run(&versions);
    library.put_object(&[0; 9]).unwrap();
    assert_eq!(server.run(&versions), before, "what is there is not put again");
    pieces_are_put_together(&library);

    let objects = library.series_objects(&library.series_id("1.1")).unwrap();
    let place = library.object_path(&objects[0]).display().to_string();
    server.meddle(&place, "put(Body=b'other bytes')");
    let error = library.read_object(&objects[0]).unwrap_err();
    assert!(matches!(error, LibraryError::Damaged { .. }), "{error}");
    assert_eq!(library.verify().unwrap().damage.len(), 1);
    server.meddle(&place, "delete()");
    let error = library.read_object(&objects[0]).unwrap_err().to_string();
    assert!(error.contains("not in the bucket"), "{error}");
    assert_eq!(library.verify().unwrap().damage.len(), 1);

    server.run("scans.object_versions.delete(); scans.delete()");
    let error = library.put_object(b"it is gone").unwrap_err().to_string();
    assert!(error.contains("s3://scans/site/") && error.contains("no such bucket"), "{error}");
    let error = library.read_object(&objects[0]).unwrap_err().to_string();
    assert!(error.contains("no such bucket") && !error.contains("Signature"), "{error}");
    assert!(library.store_instance(&key("1.2", 1), &gantry_library::Source::Import, b"x").is_err());
    assert!(library.series().unwrap().len() == 1, "nothing is named that was not kept");
}

#[test]
fn a_bucket_holds_a_whole_library() {
    if !has_keys("a_bucket_holds_a_whole_library") {
        return;
    }
    let Some(server) = Server::start("a library in a bucket") else { return };
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let place = server.place("site/");
    let library = Library::open_in_bucket(one.path(), &place).unwrap();
    holds_what_it_is_given(&library);
    let names: Vec<String> = std::fs::read_dir(one.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["library.json"], "nothing else is in the folder");

    // Another host, with a folder of its own, finds all of it, and what it adds is found.
    let again = Library::open_in_bucket(other.path(), &place).unwrap();
    assert_eq!(again.series().unwrap(), library.series().unwrap());
    assert_eq!(again.samples().unwrap(), library.samples().unwrap());
    assert_eq!(again.predictions().unwrap(), library.predictions().unwrap());
    assert_eq!(again.counts().unwrap(), library.counts().unwrap());
    let (mut near, instance) = (None, key("1.1", 1).sop_instance_uid);
    assert!(again.find_kept(&instance, &mut near).unwrap().is_some());
    assert_eq!(near, Some(library.series_id("1.1")));
    assert_eq!(again.find_kept("9.9", &mut near).unwrap(), None);
    let sample = again.samples().unwrap().remove(0);
    let rejected = Verdict::Rejected("it moved".into());
    again.judge_sample(&sample.id, &rejected, "ada").unwrap();
    again.judge_sample(&sample.id, &Verdict::Final, "ada").unwrap();
    assert_eq!(library.sample_state(&sample).unwrap().state, LabelState::Final);
    assert_eq!(library.sample_states(&sample).unwrap().len(), 3);
    let model = library.models().unwrap().remove(0);
    again.set_stage(&model.id, Stage::Approved, "ada").unwrap();
    assert_eq!(library.approved_model("lungs").unwrap(), Some(model));
    again.quarantine(b"no image", "reason", "a sentence", &Source::Import).unwrap();
    assert_eq!(library.quarantined().unwrap().len(), 1);

    // Both at once: what both make is made once.
    let before = now_ms();
    std::thread::scope(|scope| {
        for writer in [&library, &again, &library, &again] {
            scope.spawn(move || {
                for number in 1..=20 {
                    store(writer, "1.7", number, format!("image {number}").as_bytes());
                }
            });
        }
    });
    let series = library.series_record(&library.series_id("1.7")).unwrap();
    assert_eq!((series.instances, series.conflicts), (20, 0));
    // The storage's clock is this machine's, in seconds.
    assert!(series.last_received_ms / 1000 >= before / 1000, "{series:?}");
    assert!(library.complete_series(Duration::ZERO, now_ms() + 1000).unwrap().len() == 2);
    assert!(library.complete_series(Duration::from_hours(1), now_ms()).unwrap().is_empty());
    let report = again.verify().unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!((report.objects, report.unnamed), (30, 2), "{report:?}");

    // Damage is seen, whatever was read before.
    let name = format!("site/records/samples/{}.json", sample.id);
    server.meddle(&name, "put(Body=b'{}')");
    let damage = library.verify().unwrap().damage;
    assert!(damage.len() == 1 && damage[0].path.ends_with(format!("{}.json", sample.id)));
    let fresh = Library::open(one.path()).unwrap();
    assert!(fresh.samples().is_err(), "a damaged record is none");
    server.meddle(&name, "delete()");
    assert!(fresh.samples().unwrap().is_empty());
    let series = format!("site/records/series/{}/series.json", library.series_id("1.7"));
    server.meddle(&series, "delete()");
    let damage = Library::open(one.path()).unwrap().verify().unwrap().damage;
    assert!(damage.len() == 1 && damage[0].reason.contains("not there"), "{damage:?}");

    // A folder is of one library, and a bucket that holds something else is none.
    let error = Library::open_in_bucket(one.path(), &server.place("b/")).unwrap_err();
    assert!(matches!(error, LibraryError::Exists { .. }), "{error}");
    server.run("scans.Object('c/a').put(Body=b'of someone else')");
    let error = Library::open_in_bucket(&one.path().join("c"), &server.place("c/")).unwrap_err();
    assert!(error.to_string().contains("choose another prefix"), "{error}");
    let error = Library::create_in_bucket(&one.path().join("d"), &place).unwrap_err();
    assert!(error.to_string().contains("choose another prefix"), "{error}");
}

#[test]
fn a_sweep_removes_from_a_bucket_what_no_record_names() {
    if !has_keys("a_sweep_removes_from_a_bucket_what_no_record_names") {
        return;
    }
    let Some(server) = Server::start("a sweep of a bucket") else { return };
    let folder = TempDir::new().unwrap();
    let library = Library::open_in_bucket(folder.path(), &server.place("site/")).unwrap();
    let day = Duration::from_hours(24);
    server.ages(true);
    store(&library, "1.1", 1, b"a");
    library.add_sample(sample(&library, "1.1", b"mask")).unwrap();
    let old = library.put_object(b"left by one that was killed").unwrap();
    let kept = library.put_object(b"to be named after all").unwrap();
    let stale = format!("site/claims/{}", "0".repeat(64));
    server.meddle(&stale, "put(Body=b'')");
    server.meddle("site/of someone else", "put(Body=b'a note')");
    server.ages(false);
    library.put_object(b"its writer is at work").unwrap();
    let records = library.verify().unwrap().records;

    let found = library.find_leftovers(day).unwrap();
    let places: Vec<String> =
        found.unnamed.iter().map(|one| one.place.display().to_string()).collect();
    let mut expected = [&old, &kept].map(|hash| library.object_path(hash).display().to_string());
    expected.sort();
    assert_eq!(places, expected);
    assert_eq!((found.records, found.objects, found.young.count), (records, 6, 1));
    assert_eq!(found.temporary.len(), 1, "{:?}", found.temporary);
    assert!(found.unnamed.iter().all(|one| (172_000..180_000).contains(&one.age_s)), "{found:?}");
    // A writer comes back to one of them after the look, and finds it there and old.
    assert_eq!(library.put_object(b"to be named after all").unwrap(), kept);
    let removed = library.remove_leftovers(&found).unwrap();
    assert_eq!((removed.objects.count, removed.temporary.count, removed.spared), (1, 1, 1));
    assert!(library.read_object(&old).is_err() && library.read_object(&kept).is_ok());
    assert_eq!(server.run("print(len(list(scans.objects.filter(Prefix='site/claims/'))))"), "0");
    assert_eq!(server.run("print(len(list(scans.objects.filter(Prefix='site/of'))))"), "1");
    server.meddle("site/of someone else", "delete()");
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!((report.records, report.objects, report.unnamed), (records, 5, 2));
    let none = library.find_leftovers(day).unwrap();
    assert_eq!((none.unnamed.len(), none.temporary.len(), none.young.count), (0, 0, 2));
    assert_eq!(library.remove_leftovers(&found).unwrap().spared, 3, "twice is once");
}

#[test]
fn a_shard_is_kept_in_a_bucket_read_in_parts_and_swept() {
    if !has_keys("a_shard_is_kept_in_a_bucket_read_in_parts_and_swept") {
        return;
    }
    let Some(server) = Server::start("a shard in a bucket") else { return };
    let folder = TempDir::new().unwrap();
    let library = Library::open_in_bucket(folder.path(), &server.place("site/")).unwrap();
    store(&library, "1.1", 1, b"a");
    library.add_sample(sample(&library, "1.1", b"mask")).unwrap();
    let of = library.samples().unwrap().remove(0);
    let day = Duration::from_hours(24);
    server.ages(true);
    let one = shard(&library, "side 16", &of);
    server.ages(false);
    assert_eq!(shard(&library, "side 16", &of), one, "twice is once");
    let reader = library.object_reader(&one.object);
    let mut bytes = [0; 3];
    reader.read_at(5, &mut bytes).unwrap();
    assert!(reader.is_remote() && bytes == *b"16\x07");
    let error = reader.read_at(3_000_005, &mut bytes).unwrap_err().to_string();
    assert!(error.contains("it ends before its parts do"), "{error}");
    let report = library.verify().unwrap();
    assert_eq!((report.damage.len(), report.unnamed), (0, 0), "{report:?}");
    let found = library.find_leftovers(day).unwrap();
    assert_eq!((found.shards.len(), found.shards[0].bytes), (1, one.bytes));
    library.use_shard(&one).unwrap();
    assert_eq!(library.remove_leftovers(&found).unwrap().spared, 1, "a training has taken it");
    assert_eq!(library.find_leftovers(day).unwrap().shards.len(), 0);
    server.ages(true);
    server.meddle(&format!("site/records/samples/{}.json", of.id), "delete()");
    let found = library.find_leftovers(day).unwrap();
    assert_eq!(library.remove_leftovers(&found).unwrap().shards.count, 1, "its sample is gone");
    assert_eq!(shards(&library, "side 16"), []);
    let error = reader.read_at(0, &mut bytes).unwrap_err();
    assert!(matches!(error, LibraryError::Damaged { .. }), "{error}");
    library.use_shard(&one).unwrap();
    assert_eq!(shards(&library, "side 16"), [], "it does not come back");
    assert!(library.verify().unwrap().damage.is_empty());
}

#[test]
fn many_make_a_library_in_a_bucket_and_it_is_one() {
    if !has_keys("many_make_a_library_in_a_bucket_and_it_is_one") {
        return;
    }
    let Some(server) = Server::start("a library that many make") else { return };
    let folder = TempDir::new().unwrap();
    let ids: BTreeSet<_> = std::thread::scope(|scope| {
        let make = |number: u8| {
            let (place, root) = (server.place(""), folder.path().join(number.to_string()));
            move || Library::open_in_bucket(&root, &place).unwrap().series_id("1.1")
        };
        let all: Vec<_> = (0..8).map(|number| scope.spawn(make(number))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1, "one salt");
}

/// An object that is read in two pieces.
fn pieces_are_put_together(library: &Library) {
    let large: Vec<u8> = (0..33_u32 << 20).map(|n| (n % 253) as u8).collect();
    let hash = library.put_object(&large).unwrap();
    assert!(library.read_object(&hash).unwrap() == large);
    assert_eq!(library.verify().unwrap().damage.len(), 0);
}

#[test]
fn a_bucket_that_cannot_be_used_is_refused_with_what_to_do() {
    if !has_keys("a_bucket_that_cannot_be_used_is_refused_with_what_to_do") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let refused = |endpoint: &str, bucket: &str, expected: &str| {
        let place = BucketPlace {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            region: "us-east-1".into(),
            prefix: String::new(),
        };
        let error = Library::create_in_bucket(folder.path(), &place).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("nobody") && !error.contains("ada:"), "{error}");
        assert!(!folder.path().join("library.json").exists());
    };
    refused("ftp://x", "scans", "cannot be used");
    refused("scans.example.org", "scans", "is no address");
    refused("https://ada:pass@s3.example.org", "scans", "keys belong into the environment");
    let Some(server) = Server::start("a bucket that is not there") else { return };
    refused(&server.endpoint, "other", "there is no such bucket");
    server.run("scans.Object('a').put(Body=b'of someone else')");
    refused(&server.endpoint, "scans", "choose another prefix");
}

#[test]
fn a_library_whose_keys_are_missing_says_how_to_give_them() {
    let folder = TempDir::new().unwrap();
    let program = std::env::current_exe().unwrap();
    if std::env::var_os("GANTRY_NO_KEYS").is_none() {
        let status = Command::new(program)
            .args(["a_library_whose_keys_are_missing_says_how_to_give_them", "--exact"])
            .env("GANTRY_NO_KEYS", "1")
            .env("HOME", folder.path())
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SHARED_CREDENTIALS_FILE")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let place = BucketPlace {
        endpoint: "http://127.0.0.1:9".into(),
        bucket: "scans".into(),
        region: "us-east-1".into(),
        prefix: String::new(),
    };
    let error = Library::create_in_bucket(folder.path(), &place).unwrap_err().to_string();
    assert!(error.contains("AWS_SHARED_CREDENTIALS_FILE"), "{error}");
}
