//! Job files against a library of three series, of which the first has a sample and a prediction.

use gantry_library::{
    Author, InstanceKey, ModelDraft, PredictionDraft, Provenance, SampleDraft, Source,
};
use gantry_model::limits::BUILTIN_BYTES_MAX;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::error::USAGE;

fn store(library: &Library, series: &str, instance: u64) {
    let key = InstanceKey {
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
    };
    let bytes = format!("image {instance} of {series}");
    library.store_instance(&key, &Source::Import, bytes.as_bytes()).unwrap();
}

/// A library, and what there is to know of it.
struct Shelves {
    folder: TempDir,
    library: Library,
    /// The ids in the order of the library; the first has a sample and a prediction.
    ids: Vec<String>,
    /// The UID of the first.
    first: &'static str,
}

const UIDS: [&str; 3] = ["1.1", "1.2", "1.3"];

fn shelves() -> Shelves {
    let folder = TempDir::new().unwrap();
    let library = Library::create(folder.path()).unwrap();
    for series in UIDS {
        store(&library, series, 1);
        store(&library, series, 2);
    }
    let ids: Vec<String> =
        library.series().unwrap().iter().map(|record| record.id.to_string()).collect();
    let first = UIDS.into_iter().find(|uid| library.series_id(uid).as_str() == ids[0]).unwrap();
    let shelves = Shelves { folder, library, ids, first };
    shelves.prepare(&shelves.ids[0]);
    let model = shelves.library.publish_model(ModelDraft {
        name: "old".into(),
        run: "old-run".into(),
        weights: b"weights".to_vec(),
        metadata: json!({}),
        metrics: json!({}),
    });
    let draft = PredictionDraft {
        series: shelves.ids[0].parse().unwrap(),
        model: model.unwrap(),
        mask: b"mask".to_vec(),
        segmentation: None,
        volume_ml: 1.0,
        confidence: 0.5,
        embedding: vec![0.0],
        findings: json!({}),
    };
    shelves.library.add_prediction(draft).unwrap();
    shelves
}

impl Shelves {
    /// Adds a sample of the shipped pipeline.
    fn prepare(&self, id: &str) {
        let series: SeriesId = id.parse().unwrap();
        let (_, pipeline) = learning::read_pipeline(PIPELINE).unwrap();
        let draft = SampleDraft {
            label: "lungs".into(),
            image: id.as_bytes().to_vec(),
            mask: b"mask".to_vec(),
            size: [1, 1, 1],
            spacing_mm: [1.0; 3],
            mask_voxels: 1,
            volume_ml: 0.001,
            provenance: Provenance {
                sources: self.library.series_objects(&series).unwrap(),
                pipeline: pipeline.name().into(),
                pipeline_hash: pipeline.hash(),
                program: "test".into(),
                author: Author::Auto,
            },
            series,
        };
        self.library.add_sample(draft).unwrap();
    }

    fn fill(&self, text: &str) -> Result<(JobFile, Vec<String>), Failure> {
        let mut file = JobFile::parse("jobs.toml", text).unwrap();
        let left_out = fill(&mut file, "night", Some(self.folder.path()))?;
        Ok((file, left_out))
    }
}

fn job(name: &str, more: &str) -> String {
    format!("[[job]]\nname = \"{name}\"\n{more}\n")
}

fn builtin(job: &FileJob) -> &Builtin {
    let Work::Builtin(builtin) = &job.spec.work else { panic!("{:?}", job.spec.work) };
    builtin
}

fn series(job: &FileJob) -> &[String] {
    let (Builtin::Preprocess { series, .. } | Builtin::Predict { series, .. }) = builtin(job)
    else {
        panic!()
    };
    series
}

#[test]
fn the_shipped_file_goes_from_scans_to_predictions() {
    let shelves = shelves();
    for (name, text) in gantry_config::jobs::EXAMPLES {
        let text = text.replace("\"/shared/library\"", &format!("{:?}", shelves.folder.path()));
        let (file, left_out) = shelves.fill(&text).unwrap();
        assert!(left_out.is_empty(), "{name}");
        let [samples, training, predictions] = &file.jobs[..] else { panic!() };
        assert_eq!(series(samples), &shelves.ids[1..]);
        assert_eq!(samples.spec.array.as_ref().unwrap().to_string(), "0-1");
        let Builtin::Preprocess { pipeline, library, .. } = builtin(samples) else { panic!() };
        assert!(pipeline.contains("name = \"chest-ct\""));
        assert_eq!(Path::new(library), shelves.folder.path().canonicalize().unwrap());
        let Builtin::Train { settings, run, .. } = builtin(training) else { panic!() };
        let settings: TrainSettings = serde_json::from_str(settings).unwrap();
        assert_eq!(settings, TrainSettings::default());
        let Builtin::Predict { model, .. } = builtin(predictions) else { panic!() };
        assert_eq!(*model, format!("run:{run}"));
        assert_eq!(series(predictions), shelves.ids);
        let after: Vec<usize> = file.jobs.iter().map(|job| job.after.len()).collect();
        assert_eq!(after, [0, 1, 1]);
    }
}

#[test]
fn a_training_has_the_sizes_that_are_planned_and_the_numbers_that_are_said() {
    let shelves = shelves();
    let settings = |more: &str| -> TrainSettings {
        let text = job("t", &format!("kind = \"train\"\nlabel = \"lungs\"\n{more}"));
        let (file, _) = shelves.fill(&text).unwrap();
        let Builtin::Train { settings, .. } = builtin(&file.jobs[0]) else { panic!() };
        serde_json::from_str(settings).unwrap()
    };
    let planned = settings("plan = \"8G\"");
    let wider = settings("plan = \"8G\"\nbase-channels = 16\nlearning-rate = 0.01");
    assert_ne!(planned.base_channels, 0, "a plan says how many channels there are");
    assert_eq!((wider.base_channels, wider.input_size), (16, planned.input_size));
    assert!((wider.learning_rate - 0.01).abs() < 1e-12);
    let said = settings("average-decay = 0.9\nmirroring = \"left-right\"");
    assert!((said.average_decay - 0.9).abs() < 1e-12);
    assert_eq!(said.mirroring, gantry_learning::Mirroring::LeftRight);
    assert_eq!((said.base_channels, said.data_memory_mib), (0, None));
    assert_eq!(settings("data-memory = \"2G\"").data_memory_mib, Some(2048));
}

#[test]
fn pending_is_what_has_no_result_of_this_pipeline_or_model() {
    let shelves = shelves();
    let all = &shelves.ids[..];
    let prepare = |pipeline: &str| {
        job("a", &format!("kind = \"preprocess\"\nseries = \"pending\"\n{pipeline}"))
    };
    let predict =
        |more: &str| job("a", &format!("kind = \"predict\"\nseries = \"pending\"\n{more}"));
    for (text, expected) in [
        (prepare(""), &all[1..]),
        (prepare("pipeline = \"chest-ct\""), &all[1..]),
        (prepare("pipeline = \"edges\""), all),
        (predict("model = \"old\""), &all[1..]),
        (predict("model = \"run:old-run\""), &all[1..]),
        (predict("model = \"coming\"\nafter = \"j7\""), all),
    ] {
        let (file, _) = shelves.fill(&text).unwrap();
        assert_eq!(series(&file.jobs[0]), expected, "{text}");
    }
    let trained =
        format!("{}{}", job("t", "kind = \"train\"\nrun = \"old-run\""), predict("model = \"t\""));
    let (file, _) = shelves.fill(&trained).unwrap();
    assert_eq!(series(&file.jobs[1]), all, "the new model of the run has predicted nothing");

    store(&shelves.library, shelves.first, 3);
    let (file, _) = shelves.fill(&prepare("")).unwrap();
    assert_eq!(series(&file.jobs[0]), all, "the first has grown since");
}

#[test]
fn a_pending_job_with_nothing_to_do_is_left_out() {
    let shelves = shelves();
    shelves.ids.iter().for_each(|id| shelves.prepare(id));
    let prepare = job("s", "kind = \"preprocess\"\nseries = \"pending\"\nafter = \"j3\"");
    let text = format!("{prepare}{}", job("t", "kind = \"train\"\nafter = \"s\""));
    let (file, left_out) = shelves.fill(&text).unwrap();
    assert_eq!((file.jobs.len(), left_out), (1, vec!["s".to_owned()]));
    assert_eq!(file.jobs[0].spec.after[0].job, gantry_model::JobId(3));
    let (file, left_out) = shelves.fill(&prepare).unwrap();
    assert_eq!((file.jobs.len(), left_out.len()), (0, 1));
}

#[test]
fn a_run_follows_from_the_key_and_the_job() {
    let shelves = shelves();
    let long = "x".repeat(64);
    let names = ["a", "b", "a b", "ä", &long];
    let text: String = names.iter().map(|name| job(name, "kind = \"train\"")).collect();
    let runs = |base: &str| -> Vec<String> {
        let mut file = JobFile::parse("jobs.toml", &text).unwrap();
        fill(&mut file, base, Some(shelves.folder.path())).unwrap();
        let run = |job: &FileJob| {
            let Builtin::Train { run, .. } = builtin(job) else { panic!() };
            run.clone()
        };
        file.jobs.iter().map(run).collect()
    };
    let (night, day) = (runs("night"), runs("day/1"));
    assert_eq!(night, runs("night"));
    let different: BTreeSet<&String> = night.iter().chain(&day).collect();
    assert_eq!(different.len(), 2 * names.len());
    for run in different {
        learning::check_run(run).unwrap();
        shelves.library.run_folder(run).unwrap();
    }
    for name in ["", ".a", "a b", "a/b", "ä", "a.b_c-1", &"x".repeat(64), &"x".repeat(65)] {
        let refused = shelves.library.run_folder(name).is_err();
        assert_eq!(learning::check_run(name).is_err(), refused, "{name:?}");
    }
}

#[test]
fn what_does_not_fit_the_library_is_said_with_its_place() {
    let shelves = shelves();
    let other = TempDir::new().unwrap();
    Library::create(other.path()).unwrap();
    let empty = other.path().display();
    let unknown = "00000000000000aa";
    let of = |kind: &str, more: &str| job("a", &format!("kind = \"{kind}\"\n{more}"));
    let listed = |more: &str| of("preprocess", &format!("series = [\"{unknown}\"]\n{more}"));
    let held = |more: &str| of("train", &format!("hold-out = \"{unknown}\"\n{more}"));
    let two = |model: &str| {
        format!(
            "{}{}",
            job("t", "kind = \"train\""),
            job("p", &format!("kind = \"predict\"\nseries = \"all\"\n{model}"))
        )
    };
    for (text, parts) in [
        (
            of("preprocess", "series = \"all\"\nlibrary = \"/nowhere\""),
            &["jobs.toml:5:11: library:", "/nowhere"][..],
        ),
        (
            of("preprocess", &format!("series = \"all\"\nlibrary = \"{empty}\"")),
            &["jobs.toml:4:10: series: the library has no series", "gantry import"],
        ),
        (listed(""), &["jobs.toml:4:11: series: the library has no series 00000000000000aa"]),
        (
            of("preprocess", "series = \"some\""),
            &["jobs.toml:4:10: series: \"some\" is not the id"],
        ),
        (
            of("preprocess", "series = \"all\"\npipeline = \"nowhere\""),
            &["jobs.toml:5:12: pipeline: reading the pipeline \"nowhere\" failed", "chest-ct"],
        ),
        (of("train", "epochs = 0"), &["jobs.toml:4:10: epochs: the setting epochs is 0"]),
        (of("train", "batch = 0"), &["jobs.toml:4:9: batch: the setting batch_size is 0"]),
        (
            of("train", "engine = \"tensorflow\""),
            &["jobs.toml:4:10: engine: the setting engine is", "one of auto, embedded, torch"],
        ),
        (
            of("train", "learning-rate = 2"),
            &["jobs.toml:4:17: learning-rate: the setting learning_rate is 2"],
        ),
        (
            of("train", "average-decay = 1.0"),
            &["jobs.toml:4:17: average-decay: the setting average_decay is 1"],
        ),
        (
            of("train", "network = \"resnet18\"\nsupervision = \"deep\""),
            &["jobs.toml:5:15: supervision: the setting supervision is deep", "a U-Net"],
        ),
        (
            of("train", "mirroring = \"up-down\""),
            &["jobs.toml:4:13: mirroring: the setting mirroring is", "one of none, left-right"],
        ),
        (of("train", "plan = \"4G\"\nlabel = \"heart\""), &["jobs.toml:4:8: plan:", "heart"]),
        (of("train", "plan = \"1M\"\nlabel = \"lungs\""), &["jobs.toml:4:8: plan:", "no room"]),
        (of("train", "run = \"a b\""), &["jobs.toml:4:7: run: \"a b\" is not the name of a run"]),
        (held(""), &["jobs.toml:4:12: hold-out: the library has no patient"]),
        (of("train", "hold-out = [\"x\"]"), &["jobs.toml:4:13: hold-out: \"x\" is not the id"]),
        (
            of("predict", "series = \"all\"\nmodel = \"new\""),
            &["jobs.toml:5:9: model: the library has no model \"new\"", "gantry data models"],
        ),
        (
            two(&format!("model = \"t\"\nlibrary = \"{empty}\"")),
            &["jobs.toml:8:9: model: the training \"t\" is on the library", "the same library"],
        ),
    ] {
        let failure = shelves.fill(&text).unwrap_err();
        assert_eq!(failure.code, USAGE, "{failure:?}");
        for part in parts {
            assert!(failure.sentence.contains(part), "{} lacks {part:?}", failure.sentence);
        }
    }
    let first = job("first", "command = [\"gantry\", \"import\"]");
    for text in [listed("after = \"first\""), held("after = \"first\"")] {
        shelves.fill(&format!("{first}{text}")).unwrap();
    }
    let mut file = JobFile::parse("jobs.toml", &of("train", "")).unwrap();
    let sentence = fill(&mut file, "night", None).unwrap_err().sentence;
    assert!(sentence.contains("jobs.toml:3:8: kind: the job names no library"), "{sentence}");
}

#[test]
fn more_series_than_a_job_has_room_for_are_refused() {
    let shelves = shelves();
    let ids: Vec<String> =
        (0..BUILTIN_BYTES_MAX / 16).map(|number| format!("\"{number:016x}\"")).collect();
    let text = job(
        "a",
        &format!(
            "kind = \"predict\"\nmodel = \"old\"\nafter = \"j1\"\nseries = [{}]",
            ids.join(",")
        ),
    );
    let failure = JobFile::parse("jobs.toml", &text).unwrap_err().to_string();
    assert!(failure.contains("submit it in parts"), "{failure}");
    let few = text.replace(&ids[1..].join(","), "");
    shelves.fill(&few).unwrap();
}
