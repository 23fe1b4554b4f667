//! A library under use: what is kept, what is found damaged, how patients are split.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gantry_library::{
    Arrival, Author, Conflict, Fractions, InstanceKey, LabelState, Library, LibraryError, ModelId,
    PatientKey, Rule, SampleRecord, SeriesId, Source, Split, SplitPlan, Stage, Stored, Verdict,
    now_ms,
};
use proptest::prelude::*;
use serde_json::json;
use support::{key, model, prediction, sample, store};
use tempfile::TempDir;

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
    assert!(matches!(library.conflicts(&id).unwrap()[..], [Conflict::OtherBytes { .. }]));
    let series = &library.series().unwrap()[0];
    assert_eq!((series.instances, series.conflicts), (3, 1));
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
fn an_instance_of_another_patient_stays_out_of_the_series() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    store(&library, "1.1", 1, b"a");
    let stray = InstanceKey { patient_id: "another".into(), ..key("1.1", 2) };
    for expected in [Stored::Conflict, Stored::Same] {
        assert_eq!(library.store_instance(&stray, &Source::Import, b"b").unwrap(), expected);
    }
    let id = library.series_id("1.1");
    assert_eq!(library.series_objects(&id).unwrap().len(), 1);
    assert!(matches!(library.conflicts(&id).unwrap()[..], [Conflict::OtherPatient { .. }]));
    assert_eq!(store(&library, "1.1", 2, b"c"), Stored::New, "its UID is still free");
}

#[test]
fn a_batch_is_as_one_after_another() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    store(&library, "1.1", 0, b"0");
    let of = |series: &str, instance: u64, bytes: &'static [u8]| (key(series, instance), bytes);
    let all = [
        (of("1.1", 0, b"0"), Stored::Same),
        (of("1.1", 1, b"1"), Stored::New),
        (of("1.2", 0, b"1"), Stored::New),
        (of("1.1", 1, b"1"), Stored::Same),
        (of("1.1", 1, b"other"), Stored::Conflict),
        (of("1.1", 2, b"2"), Stored::New),
    ];
    let arrivals: Vec<Arrival> =
        all.iter().map(|((key, bytes), _)| Arrival::new(key, &Source::Import, *bytes)).collect();
    let expected: Vec<Stored> = all.iter().map(|(_, stored)| *stored).collect();
    assert_eq!(library.store_batch(&arrivals).unwrap(), expected);
    assert!(library.store_batch(&[]).unwrap().is_empty());
    assert_eq!(library.series_objects(&library.series_id("1.1")).unwrap().len(), 3);
    assert!(library.verify().unwrap().damage.is_empty());
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
    let id = library.publish_model(model("lungs")).unwrap();
    assert_eq!(library.publish_model(model("lungs")).unwrap(), id);
    assert_eq!(library.model("run:run-of-lungs").unwrap().id, id);
    assert_eq!(library.model("lungs").unwrap().id, id);
    assert!(matches!(library.model("none"), Err(LibraryError::Unknown { .. })));
    assert_eq!(library.stage(&id).unwrap(), Stage::Candidate);
    library.set_stage(&id, Stage::Approved, "ada").unwrap();
    library.set_stage(&id, Stage::Retired, "ada").unwrap();
    assert_eq!(library.stage(&id).unwrap(), Stage::Retired);
}

#[test]
fn a_verdict_on_a_sample_is_kept_with_its_author_and_can_be_taken_back() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    store(&library, "1.1", 1, b"a");
    let id = library.add_sample(sample(&library, "1.1", b"mask")).unwrap();
    let judge = |verdict, by: &str| library.judge_sample(&id, &verdict, by);
    let rejected = |reason: &str| Verdict::Rejected(reason.to_owned());
    let first = library.sample_state(&library.sample(&id).unwrap()).unwrap();
    assert_eq!((first.state, first.by.as_str()), (LabelState::Auto, "chest-ct"));
    assert!(judge(Verdict::Undone, "ada").unwrap_err().to_string().contains("is auto"));
    for (verdict, by) in
        [(rejected(" "), "ada"), (rejected("bad"), ""), (rejected(&"x".repeat(501)), "ada")]
    {
        assert!(judge(verdict, by).is_err());
    }
    // Each verdict with the state after it.
    for (verdict, state, usable) in [
        (Verdict::Final, LabelState::Final, 1),
        (rejected("half of the lung"), LabelState::Rejected, 0),
        (rejected("half of the lung"), LabelState::Rejected, 0),
        (Verdict::Undone, LabelState::Final, 1),
        (Verdict::Undone, LabelState::Auto, 1),
        (rejected("a"), LabelState::Rejected, 0),
        (rejected("b"), LabelState::Rejected, 0),
        (Verdict::Undone, LabelState::Rejected, 0),
        (Verdict::Undone, LabelState::Auto, 1),
    ] {
        let said = judge(verdict.clone(), "ada").unwrap();
        assert_eq!((said.state, said.by.as_str()), (state, "ada"), "{verdict:?}");
        assert_eq!(library.usable_samples().unwrap().len(), usable, "{verdict:?}");
        assert_eq!(library.samples().unwrap().len(), 1, "nothing is lost");
    }
    assert!(judge(Verdict::Undone, "ada").is_err(), "all is taken back");
    let record = library.sample(&id).unwrap();
    let states = library.sample_states(&record).unwrap();
    assert_eq!(states.len(), 9, "the same said twice is one state");
    assert!(states.iter().all(|state| state.mask == record.mask));
    assert_eq!(states[2].reason.as_deref(), Some("half of the lung"));
    assert!(library.verify().unwrap().damage.is_empty());
    let path = folder.path().join(format!("samples/{id}/0001.json"));
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(library.verify().unwrap().damage.len(), 1);
}

#[test]
fn the_next_case_is_the_one_that_the_approved_model_is_least_sure_of() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    for series in ["1.1", "1.2", "1.3"] {
        store(&library, series, 1, series.as_bytes());
    }
    let next = |label| library.next_case(label).unwrap().unwrap();
    assert_eq!((next(None).rule, next(None).model), (Rule::Oldest, None));
    let mut draft = model("lungs");
    draft.metadata = json!({ "labels": ["background", "lungs"] });
    let model = library.publish_model(draft).unwrap();
    for (series, confidence) in [("1.1", 0.9), ("1.2", 0.4), ("1.3", 0.7)] {
        let draft = prediction(&library, series, &model, &[1.0]);
        library.add_prediction(gantry_library::PredictionDraft { confidence, ..draft }).unwrap();
    }
    assert_eq!(next(Some("lungs")).rule, Rule::Oldest, "a candidate is not asked");
    library.set_stage(&model, Stage::Approved, "ada").unwrap();
    let case = next(Some("lungs"));
    assert_eq!((&case.series, case.rule), (&library.series_id("1.2"), Rule::LeastSure));
    assert_eq!((case.uncertainty, case.unlabelled), (Some(0.6), 3));
    assert_eq!(next(Some("liver")).rule, Rule::Oldest, "it marks something else");
    // What a pipeline made is no label of a person; what a person made is.
    library.add_sample(sample(&library, "1.2", b"auto")).unwrap();
    assert_eq!(next(Some("lungs")).series, library.series_id("1.2"));
    let mut by_hand = sample(&library, "1.2", b"drawn");
    by_hand.provenance.author = Author::Person("ada".into());
    let drawn = library.add_sample(by_hand).unwrap();
    assert_eq!(next(Some("lungs")).series, library.series_id("1.3"));
    library.judge_sample(&drawn, &Verdict::Rejected("wrong".into()), "bob").unwrap();
    assert_eq!(next(Some("lungs")).series, library.series_id("1.2"), "it needs a label again");
}

#[test]
fn the_nearest_cases_are_of_other_patients_and_the_same_model() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    let models = ["a", "b"].map(|name| library.publish_model(model(name)).unwrap());
    let predict = |series: &str, model: usize, embedding: [f32; 2]| {
        store(&library, series, 1, series.as_bytes());
        let draft = prediction(&library, series, &models[model], &embedding);
        library.add_prediction(draft).unwrap()
    };
    predict("1.1", 0, [1.0, 0.0]);
    predict("1.2", 0, [0.9, 0.1]);
    predict("1.3", 0, [0.0, 1.0]);
    predict("1.4", 1, [1.0, 0.0]);
    let mut again = prediction(&library, "1.2", &models[0], &[-1.0, 0.0]);
    again.mask = b"another mask".to_vec();
    library.add_prediction(again).unwrap();
    let to = library.prediction_of(&library.series_id("1.1")).unwrap();
    let near = library.nearest(&to, 5).unwrap();
    let names: Vec<&str> =
        near.iter().map(|one| one.findings["series"].as_str().unwrap()).collect();
    assert_eq!(names, ["1.2", "1.3"]);
    assert!(near[0].distance < 0.01 && (near[1].distance - 1.0).abs() < 1e-6);
}

#[test]
fn texts_are_found_by_their_words_and_kept_once() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    for series in ["1.1", "1.2", "1.3"] {
        store(&library, series, 1, series.as_bytes());
    }
    let id = |series: &str| library.series_id(series);
    let add = |series: &str, text: &str| library.add_text(&id(series), text, "ada").unwrap();
    let first = add("1.1", "Small nodule, right lung.");
    assert_eq!(add("1.1", "Small nodule, right lung."), first);
    let better = add("1.1", "Nodule, nodule, nodule.");
    add("1.2", "A nodule on the left, and an effusion on the left.");
    add("1.3", "Both lungs are clear.");
    assert_eq!(library.texts().unwrap().len(), 4);
    let found = library.texts_like("NODULE", 5).unwrap();
    let series: Vec<_> = found.iter().map(|one| one.series.clone()).collect();
    assert_eq!(series, [id("1.1"), id("1.2")], "each once, and none without the word");
    assert_eq!((&found[0].text, found[0].score > found[1].score), (&better, true));
    assert_eq!(library.texts_like("nodule", 1).unwrap(), found[..1]);
    assert_eq!(library.texts_like("effusion", 5).unwrap()[0].series, id("1.2"));
    let record = &library.texts().unwrap()[0];
    assert!(library.text(record).unwrap().contains(' '));
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty() && report.unnamed == 0, "{report:?}");
    // What it tells of a patient stands in an object alone.
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path().join("texts")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("nodule") && !text.contains("Both"), "{text}");
        names.push(path);
    }
    assert_eq!(names.len(), 4);
    std::fs::write(&names[0], b"{}").unwrap();
    assert_eq!(library.verify().unwrap().damage.len(), 1);
}

#[test]
fn a_text_that_says_nothing_of_a_series_is_refused() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    store(&library, "1.1", 1, b"a");
    let series = library.series_id("1.1");
    let refused = |series: &gantry_library::SeriesId, text: &str, by: &str, part: &str| {
        let sentence = library.add_text(series, text, by).unwrap_err().to_string();
        assert!(sentence.contains(part), "{sentence}");
    };
    refused(&library.series_id("1.2"), "clear", "ada", "no series");
    refused(&series, " .\n", "ada", "no words");
    refused(&series, &"word ".repeat(300_000), "ada", "over the limit");
    refused(&series, "clear", "", "name who has written it");
    assert!(library.texts().unwrap().is_empty());
    let nothing = library.texts_like("?", 3).unwrap_err().to_string();
    assert!(nothing.contains("no words to look for"), "{nothing}");
    assert!(library.texts_like("clear", 3).unwrap().is_empty());
}

#[test]
fn a_prediction_that_could_not_be_read_is_refused() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    store(&library, "1.1", 1, b"a");
    let model = library.publish_model(model("a")).unwrap();
    let mut draft = prediction(&library, "1.1", &model, &[1.0]);
    draft.confidence = f32::NAN;
    assert!(matches!(library.add_prediction(draft), Err(LibraryError::Invalid(_))));
    let none: ModelId = "0123456789abcdef".parse().unwrap();
    let draft = prediction(&library, "1.1", &none, &[1.0]);
    assert!(matches!(library.add_prediction(draft), Err(LibraryError::Unknown { .. })));
    assert!(library.predictions().unwrap().is_empty());
}

#[test]
fn a_flipped_byte_and_a_missing_object_are_found() {
    let folder = TempDir::new().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    for instance in 0..5 {
        store(&library, "1.1", instance, format!("bytes {instance}").as_bytes());
    }
    for mask in [b"mask", b"more"] {
        library.add_sample(sample(&library, "1.1", mask)).unwrap();
    }
    library.put_object(b"a writer was killed before its record").unwrap();
    let report = library.verify().unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!((report.records, report.objects, report.unnamed), (8, 9, 1));
    let objects = library.series_objects(&library.series_id("1.1")).unwrap();
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&library.object_path(&objects[0]));
    std::fs::remove_file(library.object_path(&objects[1])).unwrap();
    for record in std::fs::read_dir(folder.path().join("samples")).unwrap() {
        flip(&record.unwrap().path());
    }
    let report = library.verify().unwrap();
    assert_eq!(report.damage.len(), 4, "each is found, not only the first: {report:?}");
    assert!(matches!(library.read_object(&objects[0]), Err(LibraryError::Damaged { .. })));
}

#[test]
fn what_a_record_names_must_be_there_under_its_name() {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    store(&library, "1.1", 1, b"a");
    let id = library.add_sample(sample(&library, "1.1", b"mask")).unwrap();
    let model = library.publish_model(model("a")).unwrap();
    library.add_prediction(prediction(&library, "1.1", &model, &[1.0])).unwrap();
    let of = |folder_name: &str, id: &str| folder.path().join(folder_name).join(id);
    std::fs::rename(of("samples", &format!("{id}.json")), of("samples", "0123456789abcdef.json"))
        .unwrap();
    std::fs::remove_file(of("models", &format!("{model}.json"))).unwrap();
    let damage = library.verify().unwrap().damage;
    let reasons: Vec<&str> = damage.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].contains("is the record of"), "{reasons:?}");
    assert!(reasons[1].contains("names model"), "{reasons:?}");
    std::fs::remove_dir_all(folder.path().join("series")).unwrap();
    let damage = library.verify().unwrap().damage;
    let orphans = damage.iter().filter(|one| one.reason.contains("names series")).count();
    assert_eq!((damage.len(), orphans), (3, 2), "{damage:?}");
}

#[test]
fn what_is_no_library_is_a_sentence() {
    let folder = TempDir::new().unwrap();
    let error = Library::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("there is no library"), "{error}");
    let library = Library::create(folder.path()).unwrap();
    let error = Library::create(folder.path()).unwrap_err().to_string();
    assert!(error.contains("there is a library"), "{error}");
    let unknown: SeriesId = "0123456789abcdef".parse().unwrap();
    assert!(
        library.series_objects(&unknown).unwrap_err().to_string().contains("gantry data series")
    );
    for run in ["", "../up", ".hidden", "a/b", "a b"] {
        assert!(library.run_folder(run).is_err(), "{run}");
    }
}

fn record(patient: u64, number: u64, image: u64) -> SampleRecord {
    let hex = |n: u64| format!("{n:016x}");
    serde_json::from_value(json!({
        "id": hex(number), "series": hex(number), "patient": hex(patient), "modality": "CT",
        "label": "lungs", "image": format!("{image:064x}"), "mask": "0".repeat(64), "size": [1, 1, 1],
        "spacing_mm": [1.0, 1.0, 1.0], "mask_voxels": 1, "volume_ml": 1.0, "created_ms": 0,
        "provenance": {"sources": [], "pipeline": "p", "pipeline_hash": "h", "program": "0", "author": "auto"},
    }))
    .unwrap()
}

#[test]
fn one_image_under_two_patients_is_noticed() {
    let samples = [record(1, 1, 1), record(2, 2, 1), record(3, 3, 3)];
    let none = Fractions { validation_percent: 0, test_percent: 0 };
    let plan = |held: &[&SampleRecord]| {
        let held: Vec<PatientKey> = held.iter().map(|one| one.patient.clone()).collect();
        SplitPlan::new(&samples, 0, none, &held)
    };
    let error = plan(&[&samples[0]]).unwrap_err().to_string();
    assert!(error.contains("are of one image"), "{error}");
    plan(&[&samples[0], &samples[1]]).unwrap();
    let plan = plan(&[&samples[2]]).unwrap();
    let later = record(4, 4, 1);
    assert!(plan.prove(&[samples[0].clone(), later]).is_err(), "who comes later tests");
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
            patients.iter().enumerate().map(|(n, patient)| record(*patient, n as u64, n as u64)).collect();
        let fractions = Fractions { validation_percent, test_percent };
        let plan = SplitPlan::new(&samples, seed, fractions, &[]).unwrap();
        let sides: Vec<Vec<&PatientKey>> = [Split::Train, Split::Validation, Split::Test]
            .map(|split| plan.of(split, &samples).into_iter().map(|one| &one.patient).collect())
            .to_vec();
        prop_assert!(!sides[0].is_empty());
        prop_assert_eq!(&SplitPlan::new(&samples, seed, fractions, &[]).unwrap(), &plan);
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
