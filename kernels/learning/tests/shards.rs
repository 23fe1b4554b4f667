//! Trainings from shards of prepared samples: what they give is what those in memory give, and what is
//! held is bounded.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use gantry_imaging::phantom::PhantomSettings;
use gantry_imaging::{Geometry, Image};
use gantry_learning::{
    DataRoom, EngineChoice, Fold, LearningError, NetworkKind, RunOutcome, RunSink, Surroundings,
    TrainSettings, train,
};
use gantry_library::Library;
use support::{Memory, add, fill, key, phantoms};

const SMALL: PhantomSettings = PhantomSettings {
    size: [32, 32, 6],
    spacing_mm: [10.5, 10.5, 32.0],
    noise_hu: 18.0,
    lesions_max: 2,
};
const DAY: Duration = Duration::from_hours(24);
/// A shard for each sample.
const TINY: u64 = 1;

fn quick(library: &Library) -> TrainSettings {
    TrainSettings {
        epochs: 3,
        batch_size: 4,
        input_size: 16,
        base_channels: 4,
        checkpoint_every_steps: 2,
        engine: EngineChoice::Embedded,
        hold_out: vec![key(library, 3).to_string()],
        ..TrainSettings::default()
    }
}

/// Memory for samples, and the size of the shards that are made.
fn around(memory_bytes: u64, shard_bytes: u64) -> Surroundings {
    let data = DataRoom { memory_bytes: Some(memory_bytes), shard_bytes };
    Surroundings { data, ..Surroundings::default() }
}

fn tried(
    library: &Library,
    settings: &TrainSettings,
    run: &str,
    around: &Surroundings,
    sink: &mut dyn RunSink,
) -> Result<RunOutcome, LearningError> {
    let folder = library.run_folder(run).unwrap();
    train(library, settings, &folder, around, sink, &AtomicBool::new(false))
}

/// What a run leaves: the bytes of its weights, what is said of the model, and its curves.
#[derive(PartialEq)]
struct Left {
    weights: Vec<u8>,
    metadata: String,
    test: String,
    curves: Vec<Vec<(u64, u64)>>,
}

fn left(library: &Library, outcome: &RunOutcome, memory: &Memory) -> Left {
    let RunOutcome::Finished { model, test, .. } = outcome else { panic!("{outcome:?}") };
    let record = library.model(model.as_str()).unwrap();
    let curves = ["loss", "train_loss", "validation_dice", "validation_auc"];
    Left {
        weights: library.read_object(&record.weights).unwrap(),
        metadata: record.metadata.to_string(),
        test: format!("{test:?}"),
        curves: curves.iter().map(|curve| memory.curve(curve)).collect(),
    }
}

fn run(
    library: &Library,
    settings: &TrainSettings,
    run: &str,
    around: &Surroundings,
) -> (Left, Memory) {
    let mut memory = Memory::default();
    let outcome = tried(library, settings, run, around, &mut memory).unwrap();
    (left(library, &outcome, &memory), memory)
}

/// What a run says of its shards once they are all there.
fn said(memory: &Memory) -> &str {
    memory.notes.iter().find(|note| note.contains("in memory")).unwrap()
}

/// The objects that are shards.
fn shards(library: &Library) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(library.root().join("shards")).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_none() {
            // It is being written.
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        let object = record["record"]["object"].as_str().unwrap();
        all.push(library.object_path(&object.parse().unwrap()));
    }
    all.sort();
    all
}

#[test]
fn a_run_from_shards_gives_the_bits_of_one_in_memory() {
    for (kind, size) in
        [(NetworkKind::UNet2d, 16), (NetworkKind::UNet3d, 16), (NetworkKind::ResNet18, 32)]
    {
        let folder = tempfile::tempdir().unwrap();
        // The last patient has fewer slices than a stack.
        let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
        fill(&library, 4..5, &PhantomSettings { size: [32, 32, 3], ..SMALL });
        let settings = TrainSettings {
            network: kind,
            input_size: size,
            input_depth: 8,
            epochs: 2,
            ..quick(&library)
        };
        let (first, memory) = run(&library, &settings, "shards", &around(0, TINY));
        assert_eq!(shards(&library).len(), 5, "{kind:?}");
        assert!(said(&memory).contains("5 shards, 5 of them made now"), "{:?}", memory.notes);
        assert!(said(&memory).contains("; 0 MiB of them are held"), "{:?}", memory.notes);
        // Some samples are held and some are not.
        for (name, bytes) in [("some", 160_000), ("all", 1 << 30)] {
            let (other, memory) = run(&library, &settings, name, &around(bytes, TINY));
            assert!(other == first, "{kind:?}: {name}");
            assert!(said(&memory).contains("0 of them made now"), "{:?}", memory.notes);
        }
        // However they are divided.
        let again = tempfile::tempdir().unwrap();
        let other = Library::create_salted(again.path(), &salt(&library)).unwrap();
        fill(&other, 0..4, &SMALL);
        fill(&other, 4..5, &PhantomSettings { size: [32, 32, 3], ..SMALL });
        let (whole, _) = run(&other, &settings, "whole", &around(1 << 30, 1 << 30));
        assert_eq!(shards(&other).len(), 1);
        assert!(whole == first, "{kind:?}: one shard");
    }
}

/// What the ids of a library follow from.
fn salt(library: &Library) -> String {
    let text = fs::read_to_string(library.root().join("library.json")).unwrap();
    let header: serde_json::Value = serde_json::from_str(&text).unwrap();
    header["record"]["salt"].as_str().unwrap().to_owned()
}

/// Does something to a run after every so-many-th step, such as to end it as a kill would.
struct At<'a> {
    memory: Memory,
    each: u64,
    what: &'a mut dyn FnMut(),
}

impl RunSink for At<'_> {
    fn metric(&mut self, name: &str, value: f64, step: u64) {
        self.memory.metric(name, value, step);
        if name == "loss" && step.is_multiple_of(self.each) {
            (self.what)();
        }
    }

    fn progress(&mut self, _: u64, _: u64) {}

    fn warning(&mut self, sentence: &str) {
        self.memory.warning(sentence);
    }
}

#[test]
fn a_run_goes_on_from_memory_to_shards_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = quick(&library);
    let (whole, _) = run(&library, &settings, "whole", &around(1 << 30, TINY));
    for (name, first, then) in [("to-shards", 1 << 30, 0), ("from-shards", 0, 1 << 30)] {
        let mut kill = || panic!("killed, as the test wants it");
        let mut sink = At { memory: Memory::default(), each: 4, what: &mut kill };
        let first =
            AssertUnwindSafe(|| tried(&library, &settings, name, &around(first, TINY), &mut sink));
        assert!(catch_unwind(first).is_err(), "{name}");
        let (other, memory) = run(&library, &settings, name, &around(then, TINY));
        assert!(other.weights == whole.weights && other.test == whole.test, "{name}");
        assert!(said(&memory).contains("0 of them made now"), "{:?}", memory.notes);
    }
}

#[test]
fn a_sample_is_prepared_once_for_all_seeds_and_folds() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { epochs: 1, ..quick(&library) };
    run(&library, &settings, "first", &around(0, 1 << 30));
    let first = shards(&library);
    assert_eq!(first.len(), 1);
    for (name, settings) in [
        ("seed", TrainSettings { seed: 9, ..settings.clone() }),
        ("fold1", TrainSettings { fold: Some(Fold { number: 1, of: 3 }), ..settings.clone() }),
        ("fold2", TrainSettings { fold: Some(Fold { number: 2, of: 3 }), ..settings.clone() }),
        ("all", TrainSettings { hold_out: Vec::new(), ..settings.clone() }),
    ] {
        let (_, memory) = run(&library, &settings, name, &around(0, 1 << 30));
        let words = "24 slices of 4 samples in 1 shards, 0 of them made now";
        assert!(said(&memory).contains(words), "{name}: {:?}", memory.notes);
    }
    // What comes later is a shard of its own, and another size another set.
    fill(&library, 4..5, &SMALL);
    let (_, memory) = run(&library, &settings, "later", &around(0, 1 << 30));
    assert!(said(&memory).contains("in 2 shards, 1 of them"), "{:?}", memory.notes);
    let larger = TrainSettings { input_size: 32, ..settings };
    let (_, memory) = run(&library, &larger, "larger", &around(0, 1 << 30));
    assert!(said(&memory).contains("in 1 shards, 1 of them"), "{:?}", memory.notes);
    assert_eq!(shards(&library).len(), 3);
    // Slices of stacks are as far apart for all of them, whoever is measured.
    let mut numbers = 5..9;
    let stacks = tempfile::tempdir().unwrap();
    let other = Library::create(stacks.path()).unwrap();
    for slice_mm in [20.0, 32.0, 40.0, 44.0] {
        let number = numbers.next().unwrap();
        let spacing_mm = [10.5, 10.5, slice_mm];
        fill(&other, number..number + 1, &PhantomSettings { spacing_mm, ..SMALL });
    }
    let stack = TrainSettings {
        network: NetworkKind::UNet3d,
        input_depth: 8,
        hold_out: Vec::new(),
        input_size: 16,
        ..larger
    };
    for (number, made) in [(1, 1), (2, 0), (3, 0)] {
        let settings = TrainSettings { fold: Some(Fold { number, of: 3 }), ..stack.clone() };
        let name = format!("stack{number}");
        let (_, memory) = run(&other, &settings, &name, &around(0, 1 << 30));
        let words = format!("of 4 samples in 1 shards, {made} of them");
        assert!(said(&memory).contains(&words), "{name}: {:?}", memory.notes);
    }
    let report = library.verify().unwrap();
    assert_eq!((report.damage.len(), report.unnamed), (0, 0), "{report:?}");
}

#[test]
fn what_is_held_is_bounded_however_much_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let large = PhantomSettings { size: [64, 64, 40], spacing_mm: [5.25, 5.25, 4.8], ..SMALL };
    let (library, _) = phantoms(folder.path(), 0..5, &large);
    let settings = TrainSettings { input_size: 64, epochs: 1, ..quick(&library) };
    let budget = 1_u64 << 20;
    // A slice has 4 bytes a pixel and its label.
    let all = 5 * 40 * 64 * 64 * 5;
    assert!(all > 3 * budget, "the samples are several times what may be held");
    let (_, memory) = run(&library, &settings, "run", &around(budget, 1 << 20));
    let most = |memory: &Memory| {
        let all = memory.metrics.iter().filter(|(name, ..)| name == "data_memory_mib");
        all.map(|(.., mib)| *mib).fold(0.0, f64::max)
    };
    assert!((0.1..=1.0).contains(&most(&memory)), "{} MiB", most(&memory));
    // The count is of what is held: in memory it is all of it, but for the held-out samples.
    let (_, memory) = run(&library, &settings, "memory", &around(1 << 30, 1 << 20));
    let least = (all * 4 / 5) as f64 / f64::from(1 << 20);
    assert!((least..least + 2.5).contains(&most(&memory)), "{} MiB", most(&memory));
}

#[test]
fn a_shard_that_is_damaged_or_gone_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { epochs: 1, ..quick(&library) };
    let (whole, _) = run(&library, &settings, "whole", &around(0, TINY));
    let all = shards(&library);
    let bytes = fs::read(&all[0]).unwrap();
    let mut flipped = bytes.clone();
    // In the first slice, behind the headers of the member and the array.
    flipped[512 + 128 + 5] ^= 0x40;
    let harms: [(&str, &dyn Fn()); 5] = [
        ("flipped", &|| fs::write(&all[0], &flipped).unwrap()),
        ("cut", &|| fs::write(&all[1], &bytes[..bytes.len() / 2]).unwrap()),
        ("gone", &|| fs::remove_file(&all[2]).unwrap()),
        ("records", &|| fs::remove_dir_all(library.root().join("shards")).unwrap()),
        ("rubbish", &|| {
            for entry in fs::read_dir(library.root().join("shards")).unwrap() {
                fs::write(entry.unwrap().path(), b"{}").unwrap();
            }
        }),
    ];
    for (name, harm) in harms {
        for (how, memory) in [("shards", 0), ("memory", 1 << 30)] {
            harm();
            let name = format!("{name}-{how}");
            let (other, memory) = run(&library, &settings, &name, &around(memory, TINY));
            assert!(other == whole, "{name}");
            let told = memory.warnings.iter().filter(|one| one.contains("is made anew")).count();
            let quiet = name.starts_with("records") || name.starts_with("rubbish");
            assert_eq!(told, usize::from(!quiet), "{name}: {:?}", memory.warnings);
            assert_eq!(shards(&library), all, "{name}");
            assert_eq!(library.verify().unwrap().damage, [], "{name}");
        }
    }
}

#[test]
fn a_shard_that_is_damaged_again_ends_the_run_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { epochs: 60, ..quick(&library) };
    let mut harms = 0;
    let mut harm = || {
        harms += 1;
        for path in shards(&library) {
            let length = fs::metadata(&path).unwrap().len();
            fs::write(&path, vec![0; length as usize]).unwrap();
        }
    };
    let mut sink = At { memory: Memory::default(), each: 20, what: &mut harm };
    let error = tried(&library, &settings, "run", &around(0, 1 << 30), &mut sink).unwrap_err();
    let warnings = sink.memory.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let sentence = error.to_string();
    assert!(sentence.contains("is damaged again") && sentence.contains("check the disks"));
    assert_eq!(harms, 2);
    // The same run goes on.
    let short = TrainSettings { epochs: 60, ..settings };
    assert!(tried(&library, &short, "run", &around(0, 1 << 30), &mut Memory::default()).is_ok());
}

/// The folder of the library of [`prepare_until_killed`].
const FOLDER: &str = "GANTRY_TEST_SHARDS";

/// Not a test of its own: a process that prepares ever more samples until it is killed.
#[test]
fn prepare_until_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let library = Library::open(&PathBuf::from(folder)).unwrap();
    for size in (2..).map(|times| 16 * times) {
        let settings = TrainSettings { input_size: size, epochs: 1, ..quick(&library) };
        let run = format!("until-killed-{size}");
        tried(&library, &settings, &run, &around(0, TINY), &mut Memory::default()).unwrap();
    }
}

#[test]
fn what_a_killed_run_has_begun_is_no_shard() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { input_size: 32, epochs: 1, ..quick(&library) };
    for round in 0..8_usize {
        let there = shards(&library).len();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "prepare_until_killed"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // At any moment once so many more are there.
        while shards(&library).len() < there + round % 3 {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(library.verify().unwrap().damage, [], "{round}");
    }
    let (one, memory) = run(&library, &settings, "after", &around(0, TINY));
    assert_eq!(memory.warnings, [""; 0]);
    let again = tempfile::tempdir().unwrap();
    let other = Library::create_salted(again.path(), &salt(&library)).unwrap();
    fill(&other, 0..4, &SMALL);
    let (whole, _) = run(&other, &settings, "whole", &around(1 << 30, TINY));
    assert!(one == whole);
}

#[test]
fn a_run_that_is_told_to_stop_while_it_prepares_keeps_what_it_has() {
    /// Raises a flag at the third note.
    struct Third<'a>(usize, &'a AtomicBool);
    impl RunSink for Third<'_> {
        fn metric(&mut self, name: &str, _: f64, _: u64) {
            panic!("{name}: no step is made");
        }
        fn progress(&mut self, _: u64, _: u64) {}
        fn note(&mut self, _: &str) {
            self.0 += 1;
            self.1.store(self.0 == 3, Ordering::Relaxed);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { epochs: 1, ..quick(&library) };
    let stop = AtomicBool::new(false);
    let run_folder = library.run_folder("run").unwrap();
    let (around, mut sink) = (around(0, TINY), Third(0, &stop));
    let outcome = train(&library, &settings, &run_folder, &around, &mut sink, &stop).unwrap();
    assert_eq!(outcome, RunOutcome::Stopped { step: 0 });
    assert_eq!(shards(&library).len(), 2);
    let (_, memory) = run(&library, &settings, "run", &around);
    assert!(said(&memory).contains("in 4 shards, 2 of them"), "{:?}", memory.notes);
}

#[test]
fn two_that_begin_at_once_agree() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { epochs: 1, ..quick(&library) };
    let all: Vec<Left> = std::thread::scope(|scope| {
        let one = |name: &'static str| {
            let (library, settings) = (&library, &settings);
            scope.spawn(move || run(library, settings, name, &around(0, TINY)).0)
        };
        let all = ["one", "two", "three"].map(one);
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(all[0] == all[1] && all[1] == all[2]);
    assert_eq!(shards(&library).len(), 4);
    let report = library.verify().unwrap();
    assert_eq!((report.damage.len(), report.unnamed), (0, 0), "{report:?}");
}

#[test]
fn a_run_makes_its_shards_young_and_a_sweep_takes_those_of_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { epochs: 1, ..quick(&library) };
    run(&library, &settings, "first", &around(0, 1 << 30));
    let age = || {
        for entry in fs::read_dir(library.root().join("shards")).unwrap() {
            let file = File::open(entry.unwrap().path()).unwrap();
            file.set_modified(SystemTime::now() - 2 * DAY).unwrap();
        }
    };
    age();
    assert_eq!(library.find_leftovers(DAY).unwrap().shards.len(), 1);
    run(&library, &settings, "second", &around(0, 1 << 30));
    assert_eq!(library.find_leftovers(DAY).unwrap().shards.len(), 0);
    age();
    let found = library.find_leftovers(DAY).unwrap();
    let mut swept = 0;
    let mut sweep = || swept += library.remove_leftovers(&found).unwrap().shards.count;
    library.remove_leftovers(&found).unwrap();
    assert_eq!(shards(&library).len(), 0);
    let mut sink = At { memory: Memory::default(), each: 2, what: &mut sweep };
    tried(&library, &settings, "third", &around(0, 1 << 30), &mut sink).unwrap();
    assert_eq!((swept, shards(&library).len()), (0, 1), "it is new");
    assert_eq!(library.verify().unwrap().damage, []);
}

#[test]
fn more_slices_than_a_training_takes_are_refused_before_any_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..1, &SMALL);
    let mut sample = library.samples().unwrap().remove(0);
    sample.size[2] = 5_000_000;
    let draft = gantry_library::SampleDraft {
        series: sample.series,
        label: "liver".into(),
        image: b"no image".to_vec(),
        mask: b"no mask".to_vec(),
        size: sample.size,
        spacing_mm: sample.spacing_mm,
        mask_voxels: 1,
        volume_ml: 1.0,
        provenance: sample.provenance,
    };
    library.add_sample(draft).unwrap();
    let settings = TrainSettings { label: "liver".into(), hold_out: Vec::new(), ..quick(&library) };
    let error = tried(&library, &settings, "run", &around(0, TINY), &mut Memory::default());
    let sentence = error.unwrap_err().to_string();
    for part in ["5000000 slices", "4194304 is the most", "reject some of them"] {
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn numpy_reads_what_is_in_a_shard() {
    let python = std::env::var("GANTRY_TORCH_PYTHON").unwrap_or_else(|_| "python3".into());
    let code = "
import io, json, sys, tarfile, numpy
members = {m.name: tarfile.open(sys.argv[1]).extractfile(m).read() for m in tarfile.open(sys.argv[1])}
image, label = (numpy.load(io.BytesIO(members[f'000000.{name}.npy'])) for name in ('image', 'label'))
about = json.loads(members['000000.json'])
print(len(members), image.dtype, image.shape, label.dtype, label.shape, int(label.sum()), image.max(), about['label'])
";
    let there = Command::new(&python).args(["-c", "import numpy"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: numpy_reads_what_is_in_a_shard needs a Python with numpy");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = Library::create(folder.path()).unwrap();
    // A cube of the network's own grid: prepared it is what it was.
    let mut image = Image::filled(Geometry::new([16, 16, 2], [1.0; 3]), 0.0);
    image.voxels[300] = 1000.0;
    add(&library, 1, &image, &image.map(|&value| u8::from(value > 0.0)));
    let settings =
        TrainSettings { hold_out: Vec::new(), validation_percent: 0, epochs: 1, ..quick(&library) };
    run(&library, &settings, "run", &around(0, TINY));
    let output =
        Command::new(&python).args(["-c", code]).arg(&shards(&library)[0]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = "3 float32 (2, 16, 16) uint8 (2, 16, 16) 1 1000.0 lungs";
    assert_eq!(said.trim(), wanted, "{}", String::from_utf8_lossy(&output.stderr));
}
