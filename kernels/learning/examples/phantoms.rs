//! Trains on phantom patients with the default settings and says how fast and how well:
//! `cargo run --release -p gantry-learning --example phantoms -- [PATIENTS] [EPOCHS]`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use gantry_imaging::{measure, phantom};
use gantry_learning::{Predictor, RunOutcome, Surroundings, TrainSettings, train};
use support::{Memory, key, phantoms};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>().unwrap());
    let (patients, epochs) = (numbers.next().unwrap_or(6), numbers.next().unwrap_or(12));
    let folder = tempfile::tempdir().unwrap();
    let shape = phantom::PhantomSettings::default();
    let (library, images) = phantoms(folder.path(), 0..patients, &shape);
    let hold_out = vec![key(&library, patients - 1).to_string()];
    let settings = TrainSettings { epochs, hold_out, ..TrainSettings::default() };
    let start = Instant::now();
    let run = library.run_folder("phantoms").unwrap();
    let stop = AtomicBool::new(false);
    let outcome =
        train(&library, &settings, &run, &Surroundings::default(), &mut Memory::default(), &stop)
            .unwrap();
    let RunOutcome::Finished { model, epochs, test } = outcome else { unreachable!() };
    for epoch in &epochs {
        println!("{epoch:?}");
    }
    println!("trained in {:.1} s; held out: {:?}", start.elapsed().as_secs_f64(), test.dice);
    let predictor = Predictor::load(&library, model.as_str()).unwrap();
    let last = predictor.predict(&images[images.len() - 1].image).unwrap().embedding;
    for (number, one) in images.iter().enumerate() {
        let start = Instant::now();
        let result = predictor.predict(&one.image).unwrap();
        let milliseconds = start.elapsed().as_millis();
        let dice = measure::dice(&result.mask, &one.lungs).unwrap();
        let confidence = result.confidence;
        let cosine: f32 = result.embedding.iter().zip(&last).map(|(a, b)| a * b).sum();
        println!(
            "patient {number}: Dice {dice:.3}, confidence {confidence:.3}, {milliseconds} ms, \
             distance to the last {:.5}",
            1.0 - cosine
        );
    }
}
