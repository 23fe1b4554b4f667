//! A training whose shards are in a bucket, against a real S3 server.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, missing_docs)]
#[path = "../../../core/library/tests/support/storage.rs"]
mod storage;
mod support;

use std::sync::atomic::AtomicBool;

use gantry_imaging::phantom::PhantomSettings;
use gantry_learning::{DataRoom, EngineChoice, RunOutcome, Surroundings, TrainSettings, train};
use gantry_library::Library;
use storage::{Server, has_keys};
use support::{Memory, fill, key};

#[test]
fn shards_in_a_bucket_are_read_by_range_and_made_anew() {
    if !has_keys("shards_in_a_bucket_are_read_by_range_and_made_anew") {
        return;
    }
    let Some(server) = Server::start("a training from a bucket") else { return };
    let folder = tempfile::tempdir().unwrap();
    let library = Library::open_in_bucket(folder.path(), &server.place("site/")).unwrap();
    let shape = PhantomSettings {
        size: [32, 32, 6],
        spacing_mm: [10.5, 10.5, 32.0],
        noise_hu: 18.0,
        lesions_max: 2,
    };
    fill(&library, 0..3, &shape);
    let settings = TrainSettings {
        epochs: 2,
        batch_size: 4,
        input_size: 16,
        base_channels: 4,
        engine: EngineChoice::Embedded,
        hold_out: vec![key(&library, 2).to_string()],
        ..TrainSettings::default()
    };
    let run = |name: &str, memory_bytes: u64| {
        let data = DataRoom { memory_bytes: Some(memory_bytes), shard_bytes: 25_000 };
        let around = Surroundings { data, ..Surroundings::default() };
        let folder = library.run_folder(name).unwrap();
        let mut memory = Memory::default();
        let stop = AtomicBool::new(false);
        let outcome = train(&library, &settings, &folder, &around, &mut memory, &stop).unwrap();
        let RunOutcome::Finished { model, .. } = outcome else { panic!("{outcome:?}") };
        let record = library.model(model.as_str()).unwrap();
        (library.read_object(&record.weights).unwrap(), memory)
    };
    let (shards, memory) = run("shards", 0);
    let said = |memory: &Memory, what| memory.notes.iter().any(|note| note.contains(what));
    assert!(said(&memory, "in 2 shards, 2 of them"), "{:?}", memory.notes);
    let (held, memory) = run("memory", 1 << 30);
    assert!(shards == held, "from the bucket and in memory");
    assert!(said(&memory, "0 of them made now"), "{:?}", memory.notes);
    let named = "print(*[o.key for o in scans.objects.filter(Prefix='site/records/shards/')])";
    let records = server.run(named);
    let (first, second) = records.split_once(' ').unwrap();
    let object = |record: &str| {
        let read = format!(
            "import json; print(json.load(scans.Object('{record}').get()['Body'])['record']['object'])"
        );
        let hash = server.run(&read);
        format!("site/{}/{hash}", &hash[..2])
    };
    // One is cut and one is gone.
    server.meddle(&object(first), "put(Body=b'short')");
    server.meddle(&object(second), "delete()");
    let (mended, memory) = run("mended", 0);
    assert!(mended == held, "made anew");
    assert_eq!(memory.warnings.len(), 2, "{:?}", memory.warnings);
    assert_eq!(library.verify().unwrap().damage, []);
}
