//! A library under use, under kill -9, on a full disk and damaged.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_library::{
    Author, Fractions, InstanceKey, Library, LibraryError, ModelDraft, PatientKey, PredictionDraft,
    Provenance, SampleDraft, SampleRecord, SeriesId, Source, Split, SplitPlan, Stage, Stored,
    now_ms,
};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

fn key(series: &str, instance: u64) -> InstanceKey {
    InstanceKey {
        patient_id: format!("patient-of-{series}"),
        study_uid: "1.2".into(),
        series_uid: series.into(),
        sop_instance_uid: format!("{series}.{instance}"),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        modality: "CT".into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        rows: 2,
        columns: 2,
        frames: 1,
    }
}

fn store(library: &Library, series: &str, instance: u64, bytes: &[u8]) -> Stored {
    library.store_instance(&key(series, instance), &Source::Import, bytes).unwrap()
}

fn sample(library: &Library, series: &str, mask: &[u8]) -> SampleDraft {
    SampleDraft {
        series: library.series_id(series),
        label: "lungs".into(),
        image: format!("image of {series}").into_bytes(),
        mask: mask.to_vec(),
        size: [4, 4, 2],
        spacing_mm: [1.0, 1.0, 2.0],
        mask_voxels: 3,
        volume_ml: 0.006,
        provenance: Provenance {
            sources: library.series_objects(&library.series_id(series)).unwrap(),
            pipeline: "chest-ct".into(),
            pipeline_hash: "ab".into(),
            program: "0.1.0".into(),
            author: Author::Auto,
        },
    }
}

#[test]
fn instances_are_kept_once_and_conflicts_twice() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    assert_eq!(store(&library, "1.1", 1, b"a"), Stored::New);
    assert_eq!(store(&library, "1.1", 1, b"a"), Stored::Same);
    assert_eq!(store(&library, "1.1", 1, b"b"), Stored::Conflict);
    assert_eq!(store(&library, "1.1", 1, b"b"), Stored::Same);
    assert_eq!(store(&library, "1.1", 2, b"c"), Stored::New);
    let id = library.series_id("1.1");
    assert_eq!(library.series_objects(&id).unwrap().len(), 2);
    assert_eq!(library.conflicts(&id).unwrap().len(), 1);
    assert_eq!(library.series().unwrap()[0].instances, 3);
    let now = now_ms();
    assert!(library.complete_series(Duration::from_hours(1), now).unwrap().is_empty());
    assert_eq!(library.complete_series(Duration::from_secs(1), now + 5000).unwrap().len(), 1);
    library.quarantine(b"junk", "not-dicom", "no preamble", &Source::Import).unwrap();
    library.quarantine(b"junk", "not-dicom", "no preamble", &Source::Import).unwrap();
    assert_eq!(library.quarantined().unwrap().len(), 1);
    let counts = library.counts().unwrap();
    assert_eq!((counts.series, counts.instances, counts.quarantined), (1, 3, 1));
}

#[test]
fn no_file_name_tells_of_a_patient_or_a_uid() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    store(&library, "1.2.3.4567", 1, b"a");
    library.add_sample(sample(&library, "1.2.3.4567", b"mask")).unwrap();
    let output = Command::new("find").arg(folder.path()).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    assert!(names.lines().count() > 8);
    assert!(!names.contains("4567") && !names.contains("patient-of"), "{names}");
    let other = TempDir::new().unwrap();
    let other = Library::open_or_create(other.path()).unwrap();
    assert_ne!(library.series_id("1.2.3"), other.series_id("1.2.3"), "ids are salted");
}

#[test]
fn what_is_made_twice_is_there_once() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    store(&library, "1.1", 1, b"a");
    let first = library.add_sample(sample(&library, "1.1", b"mask")).unwrap();
    assert_eq!(library.add_sample(sample(&library, "1.1", b"mask")).unwrap(), first);
    assert_ne!(library.add_sample(sample(&library, "1.1", b"other")).unwrap(), first);
    assert_eq!(library.samples().unwrap().len(), 2);
    let model = || ModelDraft {
        name: "lungs".into(),
        run: "r".into(),
        weights: b"weights".to_vec(),
        metadata: json!({"label": "lungs"}),
        metrics: json!({}),
    };
    let id = library.publish_model(model()).unwrap();
    assert_eq!(library.publish_model(model()).unwrap(), id);
    assert_eq!(library.model("run:r").unwrap().id, id);
    assert_eq!(library.model("lungs").unwrap().id, id);
    assert!(matches!(library.model("none"), Err(LibraryError::Unknown { .. })));
    assert_eq!(library.stage(&id).unwrap(), Stage::Candidate);
    library.set_stage(&id, Stage::Approved, "ada").unwrap();
    library.set_stage(&id, Stage::Retired, "ada").unwrap();
    assert_eq!(library.stage(&id).unwrap(), Stage::Retired);
}

#[test]
fn the_nearest_cases_are_of_other_patients_and_the_same_model() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    let model = |name: &str| ModelDraft {
        name: name.into(),
        run: name.into(),
        weights: name.as_bytes().to_vec(),
        metadata: json!({}),
        metrics: json!({}),
    };
    let models = [model("a"), model("b")].map(|draft| library.publish_model(draft).unwrap());
    let predict = |series: &str, model: usize, embedding: [f32; 2]| {
        store(&library, series, 1, series.as_bytes());
        let draft = PredictionDraft {
            series: library.series_id(series),
            model: models[model].clone(),
            mask: series.as_bytes().to_vec(),
            segmentation: Some(b"seg".to_vec()),
            volume_ml: 1.0,
            confidence: 0.9,
            embedding: embedding.to_vec(),
            findings: json!({"series": series}),
        };
        library.add_prediction(draft).unwrap()
    };
    predict("1.1", 0, [1.0, 0.0]);
    predict("1.2", 0, [0.9, 0.1]);
    predict("1.3", 0, [0.0, 1.0]);
    predict("1.4", 1, [1.0, 0.0]);
    let to = library.prediction_of(&library.series_id("1.1")).unwrap();
    let near = library.nearest(&to, 5).unwrap();
    let names: Vec<&str> =
        near.iter().map(|one| one.findings["series"].as_str().unwrap()).collect();
    assert_eq!(names, ["1.2", "1.3"]);
    assert!(near[0].distance < 0.01 && (near[1].distance - 1.0).abs() < 1e-6);
}

#[test]
fn a_flipped_byte_and_a_missing_object_are_found() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    for instance in 0..5 {
        store(&library, "1.1", instance, format!("bytes {instance}").as_bytes());
    }
    library.add_sample(sample(&library, "1.1", b"mask")).unwrap();
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty() && report.objects == 7, "{report:?}");
    let objects = library.series_objects(&library.series_id("1.1")).unwrap();
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&library.object_path(&objects[0]));
    std::fs::remove_file(library.object_path(&objects[1])).unwrap();
    let record = std::fs::read_dir(folder.path().join("samples")).unwrap().next().unwrap().unwrap();
    flip(&record.path());
    assert_eq!(library.verify().unwrap().damage.len(), 3);
    assert!(matches!(library.read_object(&objects[0]), Err(LibraryError::Damaged { .. })));
}

const WRITE: &str = "GANTRY_TEST_WRITE";

/// Not a test of its own: the body of the process that the next test kills.
#[test]
fn write_until_killed() {
    let Ok(folder) = std::env::var(WRITE) else { return };
    let library = Library::open_or_create(Path::new(&folder)).unwrap();
    for instance in 0.. {
        store(&library, "1.1", instance, format!("bytes {instance}").as_bytes());
        println!("\nstored {instance}");
    }
}

#[test]
fn what_was_acknowledged_before_kill_9_is_there_and_the_library_is_whole() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write_until_killed", "--nocapture"])
            .env(WRITE, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for line in lines {
            let Some(instance) = line.strip_prefix("stored ") else { continue };
            acknowledged.push(instance.parse::<u64>().unwrap());
            if acknowledged.len() % 100 == 37 * round % 100 {
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
    }
    let library = Library::open(folder.path()).unwrap();
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    for instance in acknowledged {
        let bytes = format!("bytes {instance}");
        assert_eq!(
            store(&library, "1.1", instance, bytes.as_bytes()),
            Stored::Same,
            "{instance} is lost"
        );
    }
}

#[test]
fn many_writers_at_once_agree() {
    let folder = TempDir::new().unwrap();
    let results: Vec<Stored> = std::thread::scope(|scope| {
        let write = |_| {
            scope.spawn(|| {
                let library = Library::open_or_create(folder.path()).unwrap();
                (0..25).map(|n| store(&library, "1.1", n, &[n as u8])).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..8).map(write).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|stored| **stored == Stored::New).count(), 25);
    assert!(results.iter().all(|stored| *stored != Stored::Conflict));
    let library = Library::open(folder.path()).unwrap();
    assert!(library.verify().unwrap().damage.is_empty());
    assert_eq!(library.counts().unwrap().instances, 25);
}

#[test]
fn a_full_disk_stores_nothing_by_halves() {
    let mount = TempDir::new().unwrap();
    let path = mount.path().display().to_string();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs", &path])
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: a full disk needs the right to mount a small tmpfs");
        return;
    }
    let library = Library::open_or_create(mount.path()).unwrap();
    let mut stored = 0;
    let error = loop {
        match library.store_instance(
            &key("1.1", stored),
            &Source::Import,
            &vec![stored as u8; 100_000],
        ) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the disk was never full");
    };
    assert!(matches!(error, LibraryError::StorageFull { .. }), "{error}");
    assert!(library.verify().unwrap().damage.is_empty());
    assert!(library.counts().unwrap().instances >= stored);
    let guarded = library.clone().with_free_min_mib(100);
    let error = guarded.put_object(b"x").unwrap_err().to_string();
    assert!(error.contains("100 must stay free"), "{error}");
    Command::new("umount").args(["-l", &path]).output().unwrap();
}

#[test]
fn what_is_no_library_is_a_sentence() {
    let folder = TempDir::new().unwrap();
    let error = Library::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("there is no library"), "{error}");
    let library = Library::open_or_create(folder.path()).unwrap();
    let unknown: SeriesId = "0123456789abcdef".parse().unwrap();
    assert!(
        library.series_objects(&unknown).unwrap_err().to_string().contains("gantry data series")
    );
    for run in ["", "../up", ".hidden", "a/b", "a b"] {
        assert!(library.run_folder(run).is_err(), "{run}");
    }
}

fn record(patient: u64, number: u64) -> SampleRecord {
    let hex = |n: u64| format!("{n:016x}");
    serde_json::from_value(json!({
        "id": hex(number), "series": hex(number), "patient": hex(patient), "modality": "CT",
        "label": "lungs", "image": "0".repeat(64), "mask": "0".repeat(64), "size": [1, 1, 1],
        "spacing_mm": [1.0, 1.0, 1.0], "mask_voxels": 1, "volume_ml": 1.0, "created_ms": 0,
        "provenance": {"sources": [], "pipeline": "p", "pipeline_hash": "h", "program": "0", "author": "auto"},
    }))
    .unwrap()
}

proptest! {
    #[test]
    fn a_patient_is_never_on_both_sides(
        patients in prop::collection::vec(0_u64..12, 1..40),
        seed in any::<u64>(),
        validation_percent in 0_u32..60,
        test_percent in 0_u32..60,
    ) {
        let samples: Vec<SampleRecord> =
            patients.iter().enumerate().map(|(n, patient)| record(*patient, n as u64)).collect();
        let fractions = Fractions { validation_percent, test_percent };
        let plan = SplitPlan::new(&samples, seed, fractions, &[]).unwrap();
        let sides: Vec<Vec<&PatientKey>> = [Split::Train, Split::Validation, Split::Test]
            .map(|split| plan.of(split, &samples).into_iter().map(|one| &one.patient).collect())
            .to_vec();
        prop_assert!(!sides[0].is_empty());
        prop_assert_eq!(sides.iter().map(Vec::len).sum::<usize>(), samples.len());
        for (n, side) in sides.iter().enumerate() {
            for other in &sides[n + 1..] {
                prop_assert!(side.iter().all(|patient| !other.contains(patient)));
            }
        }
        let held = samples[0].patient.clone();
        if let Ok(plan) = SplitPlan::new(&samples, seed, fractions, std::slice::from_ref(&held)) {
            prop_assert_eq!(plan.side(&held), Split::Test);
        }
    }
}
