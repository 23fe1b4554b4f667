//! Job files whose jobs are built-in operations, alone and among commands.
#![allow(clippy::unwrap_used, missing_docs)]

use gantry_config::jobs::{
    EXAMPLES, FileBuiltin, FileJob, FileModel, FileSeries, FileWork, JobFile, job_keys,
};
use gantry_model::{Array, Builtin, DependencyKind, DependencyScope, Gang, IndexSet, JobId, Work};

fn parse(text: &str) -> JobFile {
    JobFile::parse("jobs.toml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn mistake(text: &str) -> String {
    JobFile::parse("jobs.toml", text).unwrap_err().to_string()
}

/// Every kind in one file, written from the end to the beginning.
const EVERY_KIND: &str = r#"
[defaults]
library = "/library"
folder = "/work"
environment = { SITE = "north" }
node-label = "nvme"

[[job]]
name = "predict"
kind = "predict"
model = "train"
series = ["00000000000000aa", "00000000000000bb"]
after = ["any:distributed", "j7"]

[[job]]
name = "distributed"
command = ["torchrun", "train.py"]
after = "prepare"
ranks = 4
nodes = 2

[[job]]
name = "train"
kind = "train"
after = "prepare"
library = "/other"
label = "lungs"
node-label = ["gpu", "site=north"]
epochs = 20
batch = 4
plan = "6G"
learning-rate = 0.001
average-decay = 0.99
supervision = "deep"
mirroring = "left-right"
seed = 7
hold-out = ["00000000000000cc"]
engine = "torch"
network = "unet3d"
input-size = 64
input-depth = 16
base-channels = 8
patience = 5
folds = 5
seeds = 2
precision = "bf16"
data-memory = "3G"
run = "chest-1"
gpus = 1

[[job]]
name = "prepare"
kind = "preprocess"
pipeline = "chest-ct"
series = "pending"
"#;

fn every_kind() -> JobFile {
    parse(EVERY_KIND)
}

fn work(job: &FileJob) -> &FileWork {
    &job.builtin.as_ref().unwrap().work
}

#[test]
fn every_kind_reaches_its_job() {
    let file = every_kind();
    let names: Vec<&str> = file.jobs.iter().map(|job| job.spec.name.as_str()).collect();
    assert_eq!(names, ["prepare", "distributed", "train", "predict"]);
    let [prepare, distributed, train, predict] = &file.jobs[..] else { panic!() };

    let FileWork::Preprocess { pipeline, series } = work(prepare) else { panic!() };
    assert_eq!(pipeline.as_ref().unwrap().value, "chest-ct");
    assert_eq!(series.value, FileSeries::Pending);
    assert_eq!(prepare.spec.array, None, "the library knows how many");
    assert_eq!(prepare.builtin.as_ref().unwrap().library.as_ref().unwrap().value, "/library");
    assert_eq!(prepare.spec.labels, ["nvme".into()].into());
    assert!(prepare.spec.environment.is_empty(), "a built-in operation has none");

    assert_eq!(distributed.spec.gang, Some(Gang { ranks: 4, nodes: Some(2) }));
    assert_eq!(distributed.spec.environment.len(), 1);
    let Work::Command { folder: Some(folder), .. } = &distributed.spec.work else { panic!() };
    assert_eq!(folder, "/work");

    let FileWork::Train(training) = work(train) else { panic!() };
    assert_eq!(training.label.as_ref().unwrap().value, "lungs");
    let numbers = (&training.epochs, &training.batch, &training.seed);
    let (Some(epochs), Some(batch), Some(seed)) = numbers else { panic!() };
    assert_eq!((epochs.value, batch.value, seed.value), (20, 4, 7));
    let numbers = [
        &training.input_size,
        &training.input_depth,
        &training.base_channels,
        &training.patience,
        &training.folds,
        &training.seeds,
    ];
    let numbers = numbers.map(|one| one.as_ref().map(|one| one.value));
    assert_eq!(numbers, [64, 16, 8, 5, 5, 2].map(Some));
    let decimals = [&training.learning_rate, &training.average_decay];
    assert_eq!(decimals.map(|one| one.as_ref().map(|one| one.value)), [0.001, 0.99].map(Some));
    assert_eq!(training.plan.as_ref().unwrap().value.0, 6 << 10);
    assert_eq!(training.data_memory.as_ref().unwrap().value.0, 3 << 10);
    assert_eq!(training.supervision.as_ref().unwrap().value, "deep");
    assert_eq!(training.mirroring.as_ref().unwrap().value, "left-right");
    assert_eq!(training.network.as_ref().unwrap().value, "unet3d");
    assert_eq!(training.hold_out[0].value, "00000000000000cc");
    assert_eq!(training.engine.as_ref().unwrap().value, "torch");
    assert_eq!(training.precision.as_ref().unwrap().value, "bf16");
    assert_eq!(train.spec.labels, ["gpu".into(), "site=north".into()].into());
    assert_eq!(train.spec.resources.gpus, 1);
    let Work::Builtin(Builtin::Train { library, run, .. }) = &train.spec.work else { panic!() };
    assert_eq!((library.as_str(), run.as_str()), ("/other", "chest-1"));

    let FileWork::Predict { model, series } = work(predict) else { panic!() };
    assert_eq!(model.value, FileModel::Job(2), "the training, by its new place");
    assert!(matches!(&series.value, FileSeries::Listed(ids) if ids.len() == 2));
    assert_eq!(predict.spec.array.as_ref().unwrap().to_string(), "0-1");
    let ids: Vec<JobId> = (11..15).map(JobId).collect();
    let after: Vec<_> =
        predict.with_ids(&ids).after.iter().map(|one| (one.job.0, one.kind)).collect();
    let (ok, any) = (DependencyKind::Ok, DependencyKind::Any);
    assert_eq!(after, [(7, ok), (12, any), (13, ok)], "it waits for the training by itself");
}

#[test]
fn every_key_has_an_example() {
    let commands = include_str!("jobs.rs");
    for key in job_keys() {
        let written = format!("\n{key} = ");
        let shown = commands.contains(&written) || EVERY_KIND.contains(&written);
        assert!(shown, "no example of {key}");
    }
}

#[test]
fn a_training_is_waited_for_once() {
    for (after, expected) in [
        ("", &[DependencyKind::Ok][..]),
        ("after = \"t\"", &[DependencyKind::Ok]),
        ("after = \"any:t\"", &[DependencyKind::Any]),
        ("after = \"fail:t\"", &[DependencyKind::Fail, DependencyKind::Ok]),
    ] {
        let text = format!(
            "[[job]]\nname = \"t\"\nkind = \"train\"\n[[job]]\nname = \"p\"\nkind = \"predict\"\nseries = \"all\"\nmodel = \"t\"\n{after}"
        );
        let kinds: Vec<_> = parse(&text).jobs[1].after.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, expected, "{after}");
    }
}

#[test]
fn a_mistake_names_the_key_and_its_kind() {
    let of = |kind: &str, more: &str| {
        format!("[[job]]\nname = \"a\"\nkind = \"{kind}\"\nlibrary = \"/l\"\n{more}\n")
    };
    let prepare = |more: &str| of("preprocess", &format!("series = \"all\"\n{more}"));
    let command = |more: &str| format!("[[job]]\nname = \"a\"\ncommand = [\"x\"]\n{more}\n");
    let train = |more: &str| of("train", more);
    let train_named = |name: &str| train("run = \"r\"").replace("\"a\"", &format!("{name:?}"));
    for (text, parts) in [
        (of("training", ""), &["jobs.toml:3:8", "kind: \"training\" is no kind of job"][..]),
        (of("predict", "series = \"all\""), &["jobs.toml:3:8", "predict needs a model; write"]),
        (of("preprocess", ""), &["jobs.toml:3:8", "needs a series; write series = \"all\""]),
        (command("pipeline = \"p\""), &["jobs.toml:4:1", "write kind = \"preprocess\""]),
        (command("series = \"all\""), &["of the kind preprocess or predict, and this one is"]),
        (command("library = \"/l\""), &["kind preprocess or train or predict"]),
        (command("epochs = 3"), &["epochs belongs to a job of the kind train", "kind command"]),
        (prepare("command = [\"x\"]"), &["jobs.toml:6:1", "or leave kind out"]),
        (prepare("epochs = 3"), &["kind train, and this one is of the kind preprocess"]),
        (prepare("label = \"x\""), &["write node-label for a label of the node"]),
        (prepare("array = \"0-9\""), &["one task for each of its series"]),
        (prepare("environment = { A = 1 }"), &["environment belongs to a job of the kind command"]),
        (prepare("ranks = 2"), &["ranks belongs to a job of the kind command or train"]),
        (prepare("engine = \"torch\""), &["engine belongs to a job of the kind train"]),
        (train("series = \"all\""), &["series belongs to a job of the kind"]),
        (train("epochs = \"x\""), &["jobs.toml:5:10", "epochs is a whole number"]),
        (train("label = [\"x\"]"), &["label is a string, not a list"]),
        (train("seed = -1"), &["seed is from 0 to 9223372036854775807, not -1"]),
        (train("zebra = 1"), &["retry-codes, library, epochs, batch, seed, hold-out, engine, precision, data-memory, network, input-size"]),
        (train("epoch = 1"), &["did you mean \"epochs\""]),
        (train("batch-size = 1"), &["did you mean \"batch\""]),
        (of("preprocess", "series = []"), &["jobs.toml:5:10", "the list is empty"]),
        (of("preprocess", "series = [\"all\", \"x\"]"), &["jobs.toml:5:11", "stands for series by itself"]),
        (of("preprocess", "series = [\"x\", \"x\"]"), &["jobs.toml:5:16", "named twice"]),
        (of("preprocess", "series = 3"), &["series is a string, not a whole number"]),
        (prepare("cores = 0"), &["job \"a\"", "at least one core"]),
        (prepare("output = \"/out\"").replace("\"all\"", "[\"x\", \"y\"]"), &["put %i into its name"]),
        (format!("[defaults]\nepochs = 3\n{}", train("")), &["belongs to one job; put it under"]),
        (format!("[defaults]\nlabel = \"x\"\n{}", train("")), &["jobs.toml:2:1", "write node-label"]),
        (format!("{}{}", train_named("b"), train_named("c")), &["jobs.toml:10:7", "another training"]),
        (
            "[[job]]\nname = \"p\"\nkind = \"predict\"\nmodel = \"t\"\nseries = \"all\"\n[[job]]\nname = \"t\"\nkind = \"train\"\nafter = \"p\"".into(),
            &["jobs.toml:4:9", "wait for one another: p → t → p"],
        ),
    ] {
        let found = mistake(&text);
        for part in parts {
            assert!(found.contains(part), "{found:?} lacks {part:?}, of\n{text}");
        }
    }
}

/// Gives a job its series, as the command does.
fn fill(job: &mut FileJob, ids: &[&str]) {
    if let Work::Builtin(Builtin::Preprocess { series, .. } | Builtin::Predict { series, .. }) =
        &mut job.spec.work
    {
        *series = ids.iter().map(ToString::to_string).collect();
    }
    let indices = IndexSet::first(ids.len() as u32);
    job.spec.array = Some(Array { indices, at_once_max: None });
}

#[test]
fn elements_wait_for_elements_of_the_same_series() {
    let text = "[[job]]\nname = \"s\"\nkind = \"preprocess\"\nseries = \"pending\"\n[[job]]\nname = \"p\"\nkind = \"predict\"\nmodel = \"m\"\nseries = \"all\"\nafter = \"elements:s\"";
    for (first, second, wrong) in [
        (&["a", "b"][..], &["a", "b"][..], None),
        (&["a", "b"], &["a"], None),
        (&["a"], &["a", "b"], Some("which has no element 1; give both the same series")),
        (&["a", "b"], &["a", "c"], Some("element 1 is another series there")),
    ] {
        let mut file = parse(text);
        fill(&mut file.jobs[0], first);
        file.check().unwrap();
        fill(&mut file.jobs[1], second);
        match wrong {
            None => file.check().unwrap(),
            Some(part) => {
                let sentence = file.check().unwrap_err().to_string();
                assert!(sentence.starts_with("jobs.toml:10:9: after:"), "{sentence}");
                assert!(sentence.contains(part), "{sentence:?} lacks {part:?}");
            }
        }
    }
}

#[test]
fn a_job_that_is_left_out_hands_on_what_it_waited_for() {
    let mut file = parse(
        "[[job]]\nname = \"copy\"\ncommand = [\"x\"]\n[[job]]\nname = \"s\"\nkind = \"preprocess\"\nseries = \"pending\"\nafter = [\"copy\", \"j3\"]\n[[job]]\nname = \"t\"\nkind = \"train\"\nafter = \"any:s\"\n[[job]]\nname = \"p\"\nkind = \"predict\"\nmodel = \"t\"\nseries = \"all\"\nafter = \"elements:s\"",
    );
    file.leave_out(1).unwrap();
    file.check().unwrap();
    let [copy, train, predict] = &file.jobs[..] else { panic!() };
    assert_eq!((copy.spec.name.as_str(), copy.after.len()), ("copy", 0));
    let after = |job: &FileJob| -> Vec<_> {
        let ids = [JobId(11), JobId(12), JobId(13)];
        let all = job.with_ids(&ids).after;
        all.iter().map(|one| (one.job.0, one.kind, one.scope)).collect()
    };
    let (ok, any, whole) = (DependencyKind::Ok, DependencyKind::Any, DependencyScope::Job);
    assert_eq!(after(train), [(3, any, whole), (11, any, whole)]);
    assert_eq!(after(predict), [(3, ok, whole), (12, ok, whole), (11, ok, whole)]);
    let FileWork::Predict { model, .. } = work(predict) else { panic!() };
    assert_eq!(model.value, FileModel::Job(1));

    let mut file = parse(
        "[[job]]\nname = \"s\"\nkind = \"preprocess\"\nseries = \"pending\"\n[[job]]\nname = \"b\"\ncommand = [\"x\"]\nafter = \"fail:s\"",
    );
    let sentence = file.leave_out(0).unwrap_err().to_string();
    assert!(
        sentence.starts_with("jobs.toml:8:9: after: a job waits for \"s\" to fail"),
        "{sentence}"
    );
}

#[test]
fn what_is_found_later_is_said_with_its_place() {
    let file = every_kind();
    let FileWork::Preprocess { pipeline, .. } = work(&file.jobs[0]) else { panic!() };
    let sentence = file.mistake(&pipeline.as_ref().unwrap().spot, "there is none").to_string();
    assert_eq!(sentence, "jobs.toml:54:12: pipeline: there is none");
    let Some(FileBuiltin { spot, .. }) = &file.jobs[2].builtin else { panic!() };
    assert_eq!(file.mistake(spot, "no").to_string(), "jobs.toml:24:8: kind: no");
}

#[test]
fn the_shipped_job_files_are_sound() {
    for (name, text) in EXAMPLES {
        let file = JobFile::parse(name, text).unwrap();
        let kinds: Vec<&str> = file
            .jobs
            .iter()
            .map(|job| match &job.spec.work {
                Work::Builtin(builtin) => builtin.name(),
                Work::Command { .. } => "command",
            })
            .collect();
        assert_eq!(kinds, ["preprocess", "train", "predict"], "{name}");
        assert!(file.jobs[2].after.iter().any(|one| one.place == 1));
    }
}
