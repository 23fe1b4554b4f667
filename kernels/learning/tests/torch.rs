//! The engine of `PyTorch` beside the embedded one, on the CPU.
//!
//! They need a Python with torch: `GANTRY_TORCH_PYTHON`, or python3. Without one they say aloud that
//! they were skipped.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_imaging::phantom::PhantomSettings;
use gantry_learning::{
    DataRoom, EngineChoice, Mirroring, NetworkKind, Precision, Predictor, Rank, RunOutcome,
    RunSink, Supervision, Surroundings, TrainSettings, train,
};
use gantry_library::Library;
use safetensors::SafeTensors;
use support::{Memory, phantoms};

const SMALL: PhantomSettings = PhantomSettings {
    size: [32, 32, 6],
    spacing_mm: [10.5, 10.5, 32.0],
    noise_hu: 18.0,
    lesions_max: 2,
};

/// The Python with torch, or nothing, which is said.
fn python(test: &str) -> Option<String> {
    let python = std::env::var("GANTRY_TORCH_PYTHON").unwrap_or_else(|_| "python3".into());
    let look = Command::new(&python)
        .args(["-c", "import torch"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = look.is_ok_and(|status| status.success());
    if !there {
        eprintln!("SKIPPED: {test} needs a Python with torch (GANTRY_TORCH_PYTHON)");
    }
    there.then_some(python)
}

fn around(python: &str) -> Surroundings {
    Surroundings { python: python.into(), threads: Some(1), ..Surroundings::default() }
}

fn settings(engine: EngineChoice) -> TrainSettings {
    TrainSettings {
        epochs: 3,
        batch_size: 4,
        input_size: 16,
        base_channels: 4,
        checkpoint_every_steps: 2,
        engine,
        precision: Precision::Fp32,
        ..TrainSettings::default()
    }
}

/// Stops at a step: by the flag, or as a kill would, with nothing written after.
struct Until<'a> {
    memory: Memory,
    step: u64,
    flag: Option<&'a AtomicBool>,
}

impl RunSink for Until<'_> {
    fn metric(&mut self, name: &str, value: f64, step: u64) {
        self.memory.metric(name, value, step);
        if step == self.step {
            match self.flag {
                Some(flag) => flag.store(true, Ordering::Relaxed),
                None => panic!("killed, as the test wants it"),
            }
        }
    }

    fn progress(&mut self, _: u64, _: u64) {}
}

/// The losses of steps.
fn losses(memory: &Memory) -> Vec<(u64, f64)> {
    let loss = memory.metrics.iter().filter(|(name, ..)| name == "loss");
    loss.map(|(_, step, value)| (*step, *value)).collect()
}

/// The arrays of the newest checkpoint of a run.
fn arrays(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let bytes = std::fs::read(names.last().unwrap()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
    file.iter().map(|(name, view)| (name.to_owned(), values(view.data()))).collect()
}

fn whole(
    library: &Library,
    settings: &TrainSettings,
    run: &str,
    around: &Surroundings,
) -> (RunOutcome, Memory) {
    let folder = library.run_folder(run).unwrap();
    let mut memory = Memory::default();
    let stop = AtomicBool::new(false);
    let outcome = train(library, settings, &folder, around, &mut memory, &stop).unwrap();
    (outcome, memory)
}

fn weights(library: &Library, outcome: &RunOutcome) -> Vec<u8> {
    let RunOutcome::Finished { model, .. } = outcome else { panic!("{outcome:?}") };
    let record = library.model(model.as_str()).unwrap();
    library.read_object(&record.weights).unwrap()
}

/// The largest difference of two curves.
fn apart(a: &[(u64, f64)], b: &[(u64, f64)]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a.1 - b.1).abs()).fold(0.0, f64::max)
}

/// A small network of each kind, with what it needs of its input.
fn small(kind: NetworkKind, settings: TrainSettings) -> TrainSettings {
    let (input_size, base_channels) = if kind.side_multiple() == 32 { (32, 8) } else { (16, 4) };
    TrainSettings { network: kind, input_size, input_depth: 8, base_channels, ..settings }
}

#[test]
fn shards_are_read_ahead_of_its_steps_and_give_the_same_bits() {
    let Some(python) = python("shards_are_read_ahead_of_its_steps_and_give_the_same_bits") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..3, &SMALL);
    let settings = settings(EngineChoice::Torch);
    let of = |name: &str, memory_bytes| {
        let data = DataRoom { memory_bytes: Some(memory_bytes), shard_bytes: 1 };
        let around = Surroundings { data, ..around(&python) };
        let run = library.run_folder(name).unwrap();
        let mut memory = Memory::default();
        let stop = AtomicBool::new(false);
        train(&library, &settings, &run, &around, &mut memory, &stop).unwrap();
        let waiting = memory.metrics.iter().filter(|(name, ..)| name == "waiting_percent");
        assert_eq!(waiting.clone().count(), 3, "it is told after each epoch");
        assert!(waiting.clone().all(|(.., value)| (0.0..100.0).contains(value)));
        (losses(&memory), memory.curve("validation_dice"))
    };
    assert!(of("shards", 0) == of("memory", 1 << 30));
}

#[test]
fn loss_and_gradients_are_those_of_the_embedded_engine() {
    let Some(python) = python("the comparison of engines") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..3, &SMALL);
    let deep = NetworkKind::ALL.into_iter().filter(|kind| kind.side_multiple() == 8);
    let all = NetworkKind::ALL.into_iter().map(|kind| (kind, Supervision::Top));
    for (kind, supervision) in all.chain(deep.map(|kind| (kind, Supervision::Deep))) {
        // A rectifier whose input is 0 but for rounding may be open under one engine and shut under
        // the other. That is rare: of a few seeds one has none.
        let apart: Vec<String> = (1..=5)
            .map_while(|seed| first_step_apart(&library, &python, (kind, supervision), seed))
            .collect();
        assert!(apart.len() < 5, "{} {supervision:?}: {apart:?}", kind.word());
    }
}

/// A weight whose gradients under both engines are apart, after the first step of a run.
fn first_step_apart(
    library: &Library,
    python: &str,
    (kind, supervision): (NetworkKind, Supervision),
    seed: u64,
) -> Option<String> {
    let first = |engine, run: &str| {
        let run = format!("{run}-{}-{}-{seed}", kind.word(), supervision.word());
        let flag = AtomicBool::new(false);
        let mut sink = Until { memory: Memory::default(), step: 1, flag: Some(&flag) };
        let folder = library.run_folder(&run).unwrap();
        let settings = TrainSettings { seed, supervision, ..small(kind, settings(engine)) };
        let outcome = train(library, &settings, &folder, &around(python), &mut sink, &flag);
        assert_eq!(outcome.unwrap(), RunOutcome::Stopped { step: 1 });
        (losses(&sink.memory)[0].1, arrays(&folder))
    };
    let (embedded, torch) = (first(EngineChoice::Embedded, "a"), first(EngineChoice::Torch, "b"));
    assert!((embedded.0 - torch.0).abs() < 1e-5, "loss {} and {}", embedded.0, torch.0);
    assert_eq!(embedded.1.keys().collect::<Vec<_>>(), torch.1.keys().collect::<Vec<_>>());
    // After one step the first moment is a tenth of the gradient.
    embedded.1.iter().filter(|(name, _)| name.starts_with("first.")).find_map(|(name, one)| {
        let other = &torch.1[name];
        let largest = one.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let apart = one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let same = largest > 0.0 && apart <= 1e-4 * largest;
        (!same).then(|| format!("{name}: {apart} of {largest}"))
    })
}

#[test]
fn networks_are_those_that_pytorch_s_own_layers_make() {
    let Some(python) = python("the comparison with PyTorch's own layers") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..3, &SMALL);
    for kind in NetworkKind::ALL {
        let settings = TrainSettings { epochs: 1, ..small(kind, settings(EngineChoice::Embedded)) };
        let (outcome, _) = whole(&library, &settings, kind.word(), &Surroundings::default());
        let file = folder.path().join(format!("{}.safetensors", kind.word()));
        std::fs::write(&file, weights(&library, &outcome)).unwrap();
        let output = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/networks.py"))
            .args([Path::new(env!("CARGO_MANIFEST_DIR")).join("torch"), file])
            .arg(kind.word())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {output:?}", kind.word());
        assert!(said.starts_with("equal: "), "{said}");
    }
}

#[test]
fn a_run_learns_the_same_under_both_engines_and_may_change_between_them() {
    let Some(python) = python("the change of engines") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (library, patients) = phantoms(folder.path(), 0..3, &SMALL);
    let around = around(&python);
    let settings = |engine| TrainSettings {
        average_decay: 0.9,
        mirroring: Mirroring::LeftRight,
        supervision: Supervision::Deep,
        ..settings(engine)
    };
    let (embedded, straight) = whole(&library, &settings(EngineChoice::Embedded), "a", &around);
    let (torch, other) = whole(&library, &settings(EngineChoice::Torch), "b", &around);
    let difference = apart(&losses(&straight), &losses(&other));
    assert!(difference < 2e-3, "the curves are {difference} apart");
    let dice = |memory: &Memory| {
        let last = memory.metrics.iter().rfind(|(name, ..)| name == "validation_dice").unwrap();
        last.2
    };
    let (one, two) = (dice(&straight), dice(&other));
    assert!((one - two).abs() < 0.02, "Dice from both sides is {one} and {two}");
    // Begun by one and ended by the other.
    let flag = AtomicBool::new(false);
    let mut sink = Until { memory: Memory::default(), step: 3, flag: Some(&flag) };
    let run = library.run_folder("c").unwrap();
    let first = settings(EngineChoice::Embedded);
    train(&library, &first, &run, &around, &mut sink, &flag).unwrap();
    let (changed, rest) = whole(&library, &settings(EngineChoice::Torch), "c", &around);
    let both = [losses(&sink.memory), losses(&rest)].concat();
    assert!(apart(&losses(&straight), &both) < 2e-3);
    // What PyTorch has learnt predicts without it.
    let masks: Vec<usize> = [&embedded, &torch, &changed]
        .map(|outcome| {
            let RunOutcome::Finished { model, .. } = outcome else { panic!("{outcome:?}") };
            let predictor = Predictor::load(&library, model.as_str()).unwrap();
            predictor.predict(&patients[0].image).unwrap().mask.count()
        })
        .into();
    let most = masks.iter().max().unwrap();
    assert!(masks.iter().all(|count| most - count <= most / 50 + 3), "{masks:?}");
}

#[test]
fn a_run_under_pytorch_that_is_killed_ends_in_the_same_bits() {
    let Some(python) = python("a killed run") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..3, &SMALL);
    let (around, settings) = (around(&python), settings(EngineChoice::Torch));
    let (straight, curve) = whole(&library, &settings, "straight", &around);
    let run = library.run_folder("killed").unwrap();
    let mut sink = Until { memory: Memory::default(), step: 5, flag: None };
    let stop = AtomicBool::new(false);
    let killed = catch_unwind(AssertUnwindSafe(|| {
        train(&library, &settings, &run, &around, &mut sink, &stop)
    }));
    assert!(killed.is_err());
    let (outcome, rest) = whole(&library, &settings, "killed", &around);
    assert!(weights(&library, &outcome) == weights(&library, &straight), "weights");
    let begin = losses(&rest)[0].0;
    assert!(begin <= 5, "it began at {begin}");
    assert_eq!(losses(&rest), losses(&curve)[begin as usize - 1..]);
}

#[test]
fn two_ranks_learn_what_one_learns() {
    let Some(python) = python("a gang of two ranks") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..3, &SMALL);
    let settings =
        TrainSettings { supervision: Supervision::Deep, ..settings(EngineChoice::Torch) };
    let (alone, curve) = whole(&library, &settings, "alone", &around(&python));
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let (library, settings, python) = (&library, &settings, &python);
    let [(first, one), (second, other)] = std::thread::scope(|scope| {
        [0, 1]
            .map(|number| {
                let address = "127.0.0.1".to_owned();
                let rank = Some(Rank { number, of: 2, address, port });
                let around = Surroundings { rank, ..around(python) };
                scope.spawn(move || whole(library, settings, "gang", &around))
            })
            .map(|thread| thread.join().unwrap())
    });
    assert_eq!(second, RunOutcome::Helped);
    assert!(losses(&other).is_empty(), "the first rank tells the loss");
    assert!(other.metrics.iter().any(|(name, ..)| name == "images_per_second"));
    let difference = apart(&losses(&one), &losses(&curve));
    assert!(difference < 1e-3, "the curves are {difference} apart");
    let (gang, alone) = (weights(library, &first), weights(library, &alone));
    let of = |bytes: &[u8]| -> Vec<f32> {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let mut names = file.names();
        names.sort_unstable();
        let data = names.iter().flat_map(|name| file.tensor(name).unwrap().data().to_vec());
        data.collect::<Vec<u8>>().as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
    };
    let apart =
        of(&gang).iter().zip(of(&alone)).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    assert!(apart < 5e-3, "weights are {apart} apart");
}

#[test]
fn a_process_that_dies_ends_the_run_with_a_sentence_and_nothing_is_lost() {
    let Some(python) = python("a process that dies") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..3, &SMALL);
    // A Python that kills itself at its third step.
    let program = folder.path().join("dies");
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in -c) exec {python} \"$@\";; esac\n\
         sed -i 's/done = training.step/os.kill(os.getpid(), 9) if header[\"number\"] == 5 else None; done = training.step/' \"$1\"\n\
         exec {python} \"$@\"\n"
    );
    std::fs::write(&program, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let run = library.run_folder("dies").unwrap();
    let settings = settings(EngineChoice::Torch);
    let mut memory = Memory::default();
    let dying = around(program.to_str().unwrap());
    let stop = AtomicBool::new(false);
    let error = train(&library, &settings, &run, &dying, &mut memory, &stop).unwrap_err();
    assert!(error.to_string().contains("goes on from its last checkpoint"), "{error}");
    assert_eq!(losses(&memory).len(), 4);
    let (_, rest) = whole(&library, &settings, "dies", &around(&python));
    assert_eq!(losses(&rest)[0].0, 5);
}

#[test]
fn a_node_without_pytorch_says_so_or_uses_its_cores() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..3, &SMALL);
    let stop = AtomicBool::new(false);
    let nowhere = Surroundings { gpus: 1, ..around("/nowhere/python") };
    let run = |engine, name: &str, around: &Surroundings| {
        let mut memory = Memory::default();
        let folder = library.run_folder(name).unwrap();
        let outcome = train(&library, &settings(engine), &folder, around, &mut memory, &stop);
        (outcome, memory.warnings)
    };
    let (outcome, _) = run(EngineChoice::Torch, "torch", &nowhere);
    let sentence = outcome.unwrap_err().to_string();
    for part in ["/nowhere/python cannot be run", "`python` in the agent's settings"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    let (outcome, warnings) = run(EngineChoice::Auto, "auto", &nowhere);
    assert!(matches!(outcome, Ok(RunOutcome::Finished { .. })));
    assert!(warnings.iter().any(|one| one.contains("GPUs of this task are not used")));
    // The embedded engine knows no ranks: each would train by itself.
    let address = "127.0.0.1".to_owned();
    let rank = Some(Rank { number: 0, of: 2, address, port: 1 });
    let gang = Surroundings { rank, ..around("/nowhere/python") };
    for engine in [EngineChoice::Auto, EngineChoice::Embedded] {
        assert!(run(engine, "gang", &gang).0.is_err(), "{engine:?}");
    }
}
