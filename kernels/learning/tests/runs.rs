//! Whole runs on phantom patients: exactness, refusals, and what is learnt.

#![allow(clippy::unwrap_used)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_imaging::{Geometry, Image, Mask, measure};
use gantry_learning::{
    Augmentation, EngineChoice, Fold, Mirroring, ModelMetadata, NetworkKind, Predictor, RunOutcome,
    RunSink, Surroundings, Sweep, TrainSettings, export_model, import_model, similar, train,
};
use gantry_library::{Library, ModelId, PredictionDraft, Stage};
use support::{Memory, add, key, phantoms};

const SMALL: PhantomSettings = PhantomSettings {
    size: [32, 32, 6],
    spacing_mm: [10.5, 10.5, 32.0],
    noise_hu: 18.0,
    lesions_max: 2,
};

fn quick() -> TrainSettings {
    TrainSettings {
        epochs: 4,
        batch_size: 4,
        input_size: 16,
        base_channels: 4,
        checkpoint_every_steps: 2,
        engine: EngineChoice::Embedded,
        ..TrainSettings::default()
    }
}

fn run(
    library: &Library,
    settings: &TrainSettings,
    run: &str,
    sink: &mut dyn RunSink,
) -> RunOutcome {
    let folder = library.run_folder(run).unwrap();
    train(library, settings, &folder, &Surroundings::default(), sink, &AtomicBool::new(false))
        .unwrap()
}

fn model(outcome: &RunOutcome) -> ModelId {
    match outcome {
        RunOutcome::Finished { model, .. } => model.clone(),
        other => panic!("{other:?}"),
    }
}

/// The bytes of a model's weights.
fn weights(library: &Library, outcome: &RunOutcome) -> Vec<u8> {
    let record = library.model(model(outcome).as_str()).unwrap();
    library.read_object(&record.weights).unwrap()
}

/// Interrupts a run at a step: by the flag, or as a kill would, with nothing written after.
struct Interrupt<'a> {
    memory: Memory,
    at: u64,
    how: How<'a>,
}

#[derive(Clone, Copy)]
enum How<'a> {
    Flag(&'a AtomicBool),
    Kill,
}

impl RunSink for Interrupt<'_> {
    fn metric(&mut self, name: &str, value: f64, step: u64) {
        self.memory.metric(name, value, step);
        if step == self.at {
            match self.how {
                How::Flag(flag) => flag.store(true, Ordering::Relaxed),
                How::Kill => panic!("killed, as the test wants it"),
            }
        }
    }

    fn progress(&mut self, _: u64, _: u64) {}
}

#[test]
fn an_interrupted_run_ends_in_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings { hold_out: vec![key(&library, 3).to_string()], ..quick() };
    let mut straight = Memory::default();
    let whole = run(&library, &settings, "straight", &mut straight);
    let last = straight.progress.last().copied().unwrap();
    assert_eq!(last.0, last.1);

    let flag = AtomicBool::new(false);
    // A step within an epoch without a checkpoint, one with, the end of an epoch.
    for (name, at, how) in [
        ("flag-3", 3, How::Flag(&flag)),
        ("kill-4", 4, How::Kill),
        ("kill-7", 7, How::Kill),
        ("kill-6", 6, How::Kill),
    ] {
        flag.store(false, Ordering::Relaxed);
        let run_folder = library.run_folder(name).unwrap();
        let mut sink = Interrupt { memory: Memory::default(), at, how };
        let first = catch_unwind(AssertUnwindSafe(|| {
            train(&library, &settings, &run_folder, &Surroundings::default(), &mut sink, &flag)
                .unwrap()
        }));
        if let Ok(outcome) = first {
            assert_eq!(outcome, RunOutcome::Stopped { step: at }, "{name}");
        }
        let mut second = Memory::default();
        let outcome = run(&library, &settings, name, &mut second);
        assert!(weights(&library, &outcome) == weights(&library, &whole), "{name}: weights");
        for curve in ["loss", "train_loss", "validation_dice"] {
            // What was done twice gave the same both times.
            let mut points = [sink.memory.curve(curve), second.curve(curve)].concat();
            points.sort_unstable();
            points.dedup();
            assert_eq!(points, straight.curve(curve), "{name}: {curve}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_and_the_seed_changes_all() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..2, &SMALL);
    let settings = TrainSettings { epochs: 2, base_channels: 8, input_size: 32, ..quick() };
    let of = |threads: usize, settings: &TrainSettings, name: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| weights(&library, &run(&library, settings, name, &mut Memory::default())))
    };
    let one = of(1, &settings, "one");
    assert!(one == of(2, &settings, "two"), "two threads");
    assert!(one == of(5, &settings, "five"), "five threads");
    assert!(one != of(2, &TrainSettings { seed: 2, ..settings.clone() }, "other"), "another seed");
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_one_before_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..2, &SMALL);
    let whole = run(&library, &quick(), "run", &mut Memory::default());
    let run_folder = library.run_folder("run").unwrap();
    let mut checkpoints: Vec<_> =
        std::fs::read_dir(&run_folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.sort();
    assert_eq!(checkpoints.len(), 2);
    std::fs::write(&checkpoints[1], b"rubbish").unwrap();
    let mut sink = Memory::default();
    let again = run(&library, &quick(), "run", &mut sink);
    assert_eq!(sink.warnings.len(), 1, "{:?}", sink.warnings);
    assert!(weights(&library, &again) == weights(&library, &whole));
    assert_eq!(model(&again), model(&whole), "finished twice, one model");
}

#[test]
fn what_cannot_be_trained_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::open_or_create(folder.path()).unwrap();
    let refused = |settings: &TrainSettings, name: &str| {
        let run_folder = library.run_folder(name).unwrap();
        let stop = AtomicBool::new(false);
        let result = train(
            &library,
            settings,
            &run_folder,
            &Surroundings::default(),
            &mut Memory::default(),
            &stop,
        );
        result.unwrap_err().to_string()
    };
    let check = |sentence: String, parts: &[&str]| {
        for part in parts {
            assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
        }
    };
    check(refused(&quick(), "a"), &["\"lungs\"", "gantry preprocess"]);
    let one = patient(1, &SMALL);
    let empty = Mask::filled(one.image.geometry, 0);
    add(&library, 1, &one.image, &empty);
    check(refused(&quick(), "b"), &["marks no pixel in the 6 slices", "pipeline"]);
    let other = TrainSettings { label: "liver".into(), ..quick() };
    check(refused(&other, "c"), &["\"liver\"", "samples of lungs"]);
    let missing = TrainSettings { hold_out: vec![key(&library, 99).to_string()], ..quick() };
    check(refused(&missing, "d"), &["held out and has no sample"]);
    let wrong = TrainSettings { hold_out: vec!["Doe".into()], ..quick() };
    check(refused(&wrong, "e"), &["not the id of a patient"]);
    let nobody = TrainSettings { hold_out: vec![key(&library, 1).to_string()], ..quick() };
    check(refused(&nobody, "f"), &["no patient is left to train on"]);
    check(refused(&TrainSettings { input_size: 17, ..quick() }, "g"), &["input_size is 17"]);
    add(&library, 2, &patient(2, &SMALL).image, &patient(2, &SMALL).lungs);
    let settings = TrainSettings { validation_percent: 0, ..quick() };
    run(&library, &settings, "h", &mut Memory::default());
    check(refused(&TrainSettings { seed: 5, ..settings }, "h"), &["another seed", "another name"]);
}

#[test]
fn four_small_images_are_learnt_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let small = PhantomSettings { size: [32, 32, 4], spacing_mm: [10.5, 10.5, 40.0], ..SMALL };
    let (library, patients) = phantoms(folder.path(), 5..6, &small);
    let settings = TrainSettings {
        epochs: 60,
        batch_size: 4,
        input_size: 32,
        learning_rate: 0.01,
        augmentation: Augmentation::None,
        engine: EngineChoice::Embedded,
        ..TrainSettings::default()
    };
    let outcome = run(&library, &settings, "heart", &mut Memory::default());
    let predictor = Predictor::load(&library, model(&outcome).as_str()).unwrap();
    let result = predictor.predict(&patients[0].image).unwrap();
    let dice = measure::dice(&result.mask, &patients[0].lungs).unwrap();
    assert!(dice > 0.95, "{dice}");
}

#[test]
fn lungs_of_a_patient_never_seen_are_found_and_near_cases_named() {
    let folder = tempfile::tempdir().unwrap();
    let shape = PhantomSettings { size: [48, 48, 12], spacing_mm: [7.0, 7.0, 16.0], ..SMALL };
    let (library, patients) = phantoms(folder.path(), 0..6, &shape);
    let hold_out = vec![key(&library, 5).to_string()];
    let settings = TrainSettings {
        epochs: 8,
        batch_size: 4,
        input_size: 32,
        hold_out,
        engine: EngineChoice::Embedded,
        ..TrainSettings::default()
    };
    let outcome = run(&library, &settings, "lungs", &mut Memory::default());
    let RunOutcome::Finished { epochs, test, .. } = &outcome else { panic!("{outcome:?}") };
    assert!(epochs.last().unwrap().validation_dice.unwrap() > 0.9, "{epochs:?}");
    assert!(test.dice.unwrap() > 0.9, "{test:?}");
    let predictor = Predictor::load(&library, "run:lungs").unwrap();
    assert_eq!((predictor.label(), predictor.model()), ("lungs", &model(&outcome)));
    assert_eq!(predictor.metadata().intended_use, "research use only");
    for (number, one) in patients.iter().enumerate() {
        let result = predictor.predict(&one.image).unwrap();
        let dice = measure::dice(&result.mask, &one.lungs).unwrap();
        assert!(dice > 0.9, "patient {number}: {dice}");
        assert!(result.confidence > 0.5 && result.confidence <= 1.0, "{}", result.confidence);
        assert!((result.volume_ml - measure::volume_ml(&result.mask, 1)).abs() < 1e-6);
        let length: f32 = result.embedding.iter().map(|one| one * one).sum();
        assert!(result.embedding.len() == 64 && (length - 1.0).abs() < 1e-4, "{length}");
        let series = library.series_id(&format!("1.2.{number}.1"));
        library
            .add_prediction(PredictionDraft {
                series,
                model: predictor.model().clone(),
                mask: vec![number as u8],
                segmentation: None,
                volume_ml: result.volume_ml,
                confidence: result.confidence,
                embedding: result.embedding,
                findings: serde_json::json!({ "volume_ml": result.volume_ml }),
            })
            .unwrap();
    }
    let near = similar(&library, &library.series_id("1.2.5.1"), 3).unwrap();
    assert_eq!(near.len(), 3);
    assert!(near.windows(2).all(|two| two[0].distance < two[1].distance), "{near:?}");
    odd_images_are_predicted(&predictor);
}

/// An image mirrored left to right where it lies.
fn mirrored<T: Clone>(image: &gantry_imaging::Volume<T>) -> gantry_imaging::Volume<T> {
    let mut image = image.clone();
    let width = image.geometry.size[0];
    image.voxels.chunks_exact_mut(width).for_each(<[T]>::reverse);
    image
}

#[test]
fn a_model_that_looks_from_both_sides_finds_the_mirrored_mask_of_a_mirrored_image() {
    let folder = tempfile::tempdir().unwrap();
    let (library, patients) = phantoms(folder.path(), 0..4, &SMALL);
    let kinds = [NetworkKind::UNet2d, NetworkKind::UNet3d];
    for kind in kinds {
        let apart = |mirroring: Mirroring| {
            let name = format!("{}-{}", kind.word(), mirroring.word());
            let settings = TrainSettings {
                network: kind,
                input_size: 32,
                input_depth: 8,
                mirroring,
                epochs: 1,
                ..quick()
            };
            run(&library, &settings, &name, &mut Memory::default());
            let predictor = Predictor::load(&library, &format!("run:{name}")).unwrap();
            assert_eq!(predictor.metadata().mirroring, mirroring);
            // On the network's own grid, so that nothing but the network knows left from right.
            let image = &patients[0].image;
            let one = predictor.predict(image).unwrap();
            let other = predictor.predict(&mirrored(image)).unwrap();
            let turned = mirrored(&other.mask);
            let pairs = one.mask.voxels.iter().zip(&turned.voxels);
            (pairs.filter(|(a, b)| a != b).count(), one)
        };
        let ((none, plain), (both, result)) = (apart(Mirroring::None), apart(Mirroring::LeftRight));
        assert!(none > 0, "{kind:?} after one epoch knows left from right");
        assert_eq!(both, 0, "{kind:?}");
        assert_eq!(plain.embedding, result.embedding, "a case is as it is");
    }
    // What a run was begun with it goes on with.
    let settings = TrainSettings { mirroring: Mirroring::LeftRight, ..quick() };
    let run_folder = library.run_folder("unet2d-none").unwrap();
    let begun = TrainSettings { input_size: 32, epochs: 1, ..settings };
    let (around, stop) = (Surroundings::default(), AtomicBool::new(false));
    let other = train(&library, &begun, &run_folder, &around, &mut Memory::default(), &stop);
    assert!(other.unwrap_err().to_string().contains("mirroring"));
}

#[test]
fn stacks_of_slices_are_learnt_from_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let shape = PhantomSettings { size: [32, 32, 14], spacing_mm: [10.5, 10.5, 14.0], ..SMALL };
    let (library, patients) = phantoms(folder.path(), 0..5, &shape);
    let settings = TrainSettings {
        network: NetworkKind::UNet3d,
        epochs: 12,
        batch_size: 2,
        input_size: 32,
        input_depth: 8,
        base_channels: 4,
        learning_rate: 0.01,
        hold_out: vec![key(&library, 4).to_string()],
        average_decay: 0.9,
        ..quick()
    };
    let outcome = run(&library, &settings, "stacks", &mut Memory::default());
    let RunOutcome::Finished { test, .. } = &outcome else { panic!("{outcome:?}") };
    assert!(test.dice.unwrap() > 0.85 && test.auc.is_none(), "{test:?}");
    let predictor = Predictor::load(&library, "run:stacks").unwrap();
    let metadata = predictor.metadata();
    assert_eq!((metadata.input_depth, metadata.slice_mm), (8, Some(14.0)));
    let result = predictor.predict(&patients[4].image).unwrap();
    let dice = measure::dice(&result.mask, &patients[4].lungs).unwrap();
    // The image lies on the network's own grid.
    assert!((dice - f64::from(test.dice.unwrap())).abs() < 1e-6, "{dice} {test:?}");
    assert!(result.slices.is_none());
    odd_images_are_predicted(&predictor);
}

#[test]
fn a_classifier_says_which_slices_show_the_label() {
    let folder = tempfile::tempdir().unwrap();
    let shape = PhantomSettings { size: [48, 48, 16], spacing_mm: [7.0, 7.0, 18.0], ..SMALL };
    let (library, patients) = phantoms(folder.path(), 0..5, &shape);
    let settings = TrainSettings {
        network: NetworkKind::ResNet18,
        epochs: 6,
        batch_size: 8,
        input_size: 32,
        base_channels: 8,
        hold_out: vec![key(&library, 4).to_string()],
        ..quick()
    };
    let mut memory = Memory::default();
    let outcome = run(&library, &settings, "slices", &mut memory);
    let RunOutcome::Finished { test, .. } = &outcome else { panic!("{outcome:?}") };
    assert!(test.auc.unwrap() > 0.9 && test.dice.is_none(), "{test:?}");
    assert_eq!(memory.curve("validation_auc").len(), 6);
    let predictor = Predictor::load(&library, "run:slices").unwrap();
    let result = predictor.predict(&patients[4].image).unwrap();
    let slices = result.slices.unwrap();
    assert_eq!((slices.probability.len(), result.mask.count()), (16, 0));
    let (first, probability) = slices.first().unwrap();
    assert!(probability > 0.5 && (result.confidence - probability).abs() < 1e-6, "{slices:?}");
    let area = 48 * 48;
    let shown = &patients[4].lungs.voxels[first * area..(first + 1) * area];
    assert!(shown.iter().any(|voxel| *voxel != 0), "slice {first}: {slices:?}");
    odd_images_are_predicted(&predictor);
}

#[test]
fn a_run_that_gets_no_better_ends_early_with_its_best_weights_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    // The rate is so high that the network soon forgets what it knew.
    let settings = TrainSettings {
        epochs: 30,
        patience_epochs: 2,
        learning_rate: 0.3,
        average_decay: 0.5,
        ..quick()
    };
    let mut straight = Memory::default();
    let whole = run(&library, &settings, "straight", &mut straight);
    let RunOutcome::Finished { epochs, .. } = &whole else { panic!("{whole:?}") };
    assert!(epochs.len() < 30, "{} epochs", epochs.len());
    let dice: Vec<f32> = epochs.iter().map(|epoch| epoch.validation_dice.unwrap()).collect();
    let best = dice.len() - 3;
    assert!(dice.iter().all(|one| *one <= dice[best]), "the best is not two epochs ago: {dice:?}");
    let stop = AtomicBool::new(false);
    let run_folder = library.run_folder("killed").unwrap();
    let at = straight.progress.last().unwrap().0 - 1;
    let mut sink = Interrupt { memory: Memory::default(), at, how: How::Kill };
    let killed = catch_unwind(AssertUnwindSafe(|| {
        train(&library, &settings, &run_folder, &Surroundings::default(), &mut sink, &stop)
    }));
    assert!(killed.is_err());
    let outcome = run(&library, &settings, "killed", &mut Memory::default());
    assert!(weights(&library, &outcome) == weights(&library, &whole));
}

#[test]
fn a_model_is_carried_to_another_library_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (library, patients) = phantoms(&folder.path().join("from"), 0..2, &SMALL);
    let settings = TrainSettings { epochs: 1, ..quick() };
    let id = model(&run(&library, &settings, "carried", &mut Memory::default()));
    let out = folder.path().join("model");
    assert_eq!(export_model(&library, "run:carried", &out).unwrap(), id);
    let again = export_model(&library, "run:carried", &out).unwrap_err().to_string();
    assert!(again.contains("weights.safetensors failed"), "{again}");
    let other = Library::open_or_create(&folder.path().join("to")).unwrap();
    assert_eq!(import_model(&other, &out).unwrap(), id, "the same model has the same id");
    assert_eq!(other.stage(&id).unwrap(), Stage::Candidate);
    let predict = |library: &Library| {
        Predictor::load(library, id.as_str()).unwrap().predict(&patients[0].image).unwrap()
    };
    assert_eq!(predict(&other), predict(&library));
    let weights = std::fs::read(out.join("weights.safetensors")).unwrap();
    std::fs::write(out.join("weights.safetensors"), &weights[..weights.len() - 4]).unwrap();
    let refused = import_model(&other, &out).unwrap_err().to_string();
    assert!(refused.contains("weights are damaged"), "{refused}");
    std::fs::remove_file(out.join("model.json")).unwrap();
    let refused = import_model(&other, &out).unwrap_err().to_string();
    assert!(refused.contains("model.json failed"), "{refused}");
}

#[test]
fn every_patient_is_in_the_validation_of_one_fold() {
    let folder = tempfile::tempdir().unwrap();
    let (library, _) = phantoms(folder.path(), 0..4, &SMALL);
    let settings = TrainSettings {
        epochs: 1,
        hold_out: vec![key(&library, 3).to_string()],
        sweep: Some(Sweep { folds: 3, seeds: 1 }),
        ..quick()
    };
    for index in 0..3 {
        let (settings, name) = settings.clone().of_task("folds", index);
        let outcome = run(&library, &settings, &name, &mut Memory::default());
        let record = library.model(model(&outcome).as_str()).unwrap();
        let metadata: ModelMetadata = serde_json::from_value(record.metadata).unwrap();
        assert_eq!((metadata.fold, metadata.samples), (settings.fold, 2), "{name}");
        assert_eq!(name, format!("folds-fold{}", index + 1));
    }
    let four = TrainSettings { fold: Some(Fold { number: 1, of: 4 }), sweep: None, ..settings };
    let run_folder = library.run_folder("four").unwrap();
    let (stop, around) = (AtomicBool::new(false), Surroundings::default());
    let refused = train(&library, &four, &run_folder, &around, &mut Memory::default(), &stop);
    assert!(refused.unwrap_err().to_string().contains("4 folds need as many patients, and 3"));
}

#[test]
fn a_predictor_can_be_shared_by_threads() {
    const fn shared<T: Send + Sync>() {}
    shared::<Predictor>();
}

/// Images unlike those that were learnt give a result, never a panic.
fn odd_images_are_predicted(predictor: &Predictor) {
    for (size, spacing_mm, value) in [
        ([0, 0, 0], [1.0, 1.0, 1.0], 0.0),
        ([1, 1, 1], [1.0, 1.0, 1.0], -800.0),
        ([5, 300, 2], [0.1, 3.0, 9.0], 40.0),
        ([33, 17, 1], [2.0, 2.0, 2.0], f32::NAN),
        ([20, 20, 9], [2.0, 2.0, 2.0], f32::INFINITY),
    ] {
        let image = Image::filled(Geometry::new(size, spacing_mm), value);
        let result = predictor.predict(&image).unwrap();
        assert!(result.mask.geometry.same_grid(&image.geometry), "{size:?}");
        assert!(result.confidence.is_finite(), "{size:?}");
        assert!(result.embedding.iter().all(|one| one.is_finite()), "{size:?}");
    }
}
