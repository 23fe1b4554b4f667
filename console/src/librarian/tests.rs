//! The librarian on a real library: series as a scanner sends them, opened, grown in, kept and
//! rejected; models and predictions listed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use gantry_imaging::dicom::write::{Subject as Patient, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_library::{Author, ModelDraft, PredictionDraft};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::app::image::Marks;
use crate::app::library::{Growing, Kind, Listing, Subject};

/// A library with the series of two phantom patients and two files that are none.
fn library() -> (TempDir, Library) {
    let folder = TempDir::new().unwrap();
    let library = Library::create(&folder.path().join("library")).unwrap();
    let images = folder.path().join("images");
    std::fs::create_dir(&images).unwrap();
    for number in 1..=2 {
        let image = patient(number, &PhantomSettings::default()).image;
        let files = ct_series(&image, &Patient::new(format!("phantom-{number}"))).unwrap();
        for (n, bytes) in files.iter().enumerate() {
            std::fs::write(images.join(format!("{number}-{n}.dcm")), bytes).unwrap();
        }
    }
    for n in 0..2 {
        std::fs::write(images.join(format!("junk-{n}")), format!("no image {n}")).unwrap();
    }
    gantry_agent::import::import(&library, &images, None, &mut |_| ()).unwrap();
    (folder, library)
}

/// What is told while something is carried out.
struct Heard {
    desk: images::Desk,
    records: Records,
    told: Arc<Mutex<Vec<Told>>>,
    wanted: Arc<AtomicU64>,
}

impl Heard {
    fn at(library: &Path, by: &str) -> Self {
        let reader = Reader { library: Some(library.to_owned()), by: by.into() };
        let told = Arc::new(Mutex::new(Vec::new()));
        let wanted = Arc::new(AtomicU64::new(1));
        let tell: Tell = {
            let told = Arc::clone(&told);
            Arc::new(move |one| told.lock().unwrap().push(one))
        };
        let desk = images::Desk::new(reader.clone(), Arc::clone(&tell), Arc::clone(&wanted));
        let records = Records { reader, tell, shown: listing::Shown::default() };
        Self { desk, records, told, wanted }
    }

    fn of_image(&mut self, wish: Wish) -> Vec<Told> {
        self.desk.carry_out(wish);
        std::mem::take(&mut self.told.lock().unwrap())
    }

    fn of_records(&mut self, wish: Wish) -> Vec<Told> {
        self.records.carry_out(wish);
        std::mem::take(&mut self.told.lock().unwrap())
    }

    fn listing(&mut self) -> Arc<Listing> {
        match self.of_records(Wish::Look).as_slice() {
            [Told::Listing(listing)] => Arc::clone(listing),
            other => panic!("{other:?}"),
        }
    }

    fn done(told: &[Told]) -> Result<String, String> {
        told.iter()
            .find_map(|one| match one {
                Told::Done(done) => Some(done.clone()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("nothing was done: {told:?}"))
    }
}

fn open(kind: Kind, id: &str) -> Wish {
    Wish::Open { subject: Subject { kind, id: id.into() }, number: 1, deidentified: false }
}

fn accept(kind: Kind, id: &str, marks: Option<Arc<Marks>>) -> Wish {
    let subject = Subject { kind, id: id.into() };
    Wish::Do(Box::new(Doing::Accept { subject, label: "lungs".into(), marks }))
}

#[test]
fn a_series_is_opened_grown_in_and_kept_then_its_sample_is_accepted_and_rejected() {
    let (_folder, library) = library();
    let mut heard = Heard::at(library.root(), "ada");
    let listing = heard.listing();
    assert_eq!((listing.series.len(), listing.asides.len()), (2, 2));
    assert_eq!(listing.reasons.iter().map(|(_, files)| files).sum::<u64>(), 2);
    assert!(heard.of_records(Wish::Look).is_empty(), "nothing is new");
    let series = listing.series[0].id.clone();
    let told = heard.of_image(open(Kind::Series, &series));
    let Some(Told::Open(1, opened, None)) = told.last() else { panic!("{told:?}") };
    assert!(matches!(&told[0], Told::Coming(1, how) if how == "reading image 1 of 24"));
    let geometry = opened.image.geometry;
    assert_eq!((geometry.size, opened.modality.as_str()), ([96, 96, 24], "CT"));
    // In the left lung of a phantom.
    let dark = opened.image.slice(12).iter().enumerate().skip(96 * 40);
    let lung =
        dark.map(|(at, value)| (at, *value)).find(|(_, value)| (-900.0..-800.0).contains(value));
    let (at, _) = lung.unwrap();
    let grow = Wish::Grow { number: 1, seed: [at % 96, at / 96, 12], how: Growing::Tolerance(120) };
    let grown = heard.of_image(grow);
    let [Told::Grown(1, runs, ..)] = grown.as_slice() else { panic!("{grown:?}") };
    let mut marks = Marks::none(geometry.voxels());
    marks.fill(runs, true);
    assert!(marks.count() > 10, "{}", marks.count());
    let kept = Heard::done(&heard.of_image(accept(Kind::Series, &series, Some(marks.into()))));
    let first = library.samples().unwrap().remove(0);
    assert!(kept.unwrap().contains(first.id.as_str()));
    assert_eq!(first.provenance.author, Author::Person("ada".into()));
    assert_eq!((first.label.as_str(), first.provenance.pipeline.as_str()), ("lungs", "by-hand"));
    assert_eq!(first.provenance.sources.len(), 24);
    let id = first.id.to_string();
    // The same as a sample: it has its mask, and is accepted as it is by another person.
    let mut other = Heard::at(library.root(), "bob");
    let told = other.of_image(open(Kind::Sample, &id));
    let Some(Told::Open(1, _, Some(found))) = told.last() else { panic!("{told:?}") };
    assert_eq!(found.count(), first.mask_voxels);
    Heard::done(&other.of_image(accept(Kind::Sample, &id, None))).unwrap();
    let all = library.samples().unwrap();
    assert!(
        all.len() == 2 && all.iter().all(|one| one.mask == first.mask && one.image == first.image)
    );
    let reject = Doing::Reject { sample: id.clone(), reason: "a vessel is missing".into() };
    Heard::done(&other.of_records(Wish::Do(Box::new(reject)))).unwrap();
    let listing = heard.listing();
    let line = listing.samples.iter().find(|one| one.id == id).unwrap();
    assert_eq!(line.rejected.as_deref(), Some("a vessel is missing"));
    assert_eq!(listing.labels[0].counts, [2, 2, 1, 1]);
    // The other series waits; of this one a mask by bob is left.
    let waits: Vec<&str> = listing.waiting.iter().map(|one| one.series.as_str()).collect();
    let next = library.next_case(None).unwrap().unwrap();
    assert_eq!((waits.as_slice(), listing.waits), ([next.series.as_str()].as_slice(), 1));
    assert_ne!(waits[0], series);
    assert!(library.verify().unwrap().damage.is_empty());
}

#[test]
fn what_cannot_be_opened_or_done_says_why() {
    let (_folder, library) = library();
    let mut heard = Heard::at(library.root(), "");
    let series = library.series().unwrap()[0].id.to_string();
    let failed = |told: Vec<Told>| match told.last() {
        Some(Told::Failed(_, why)) => why.clone(),
        other => panic!("{other:?}"),
    };
    let subject = Subject { kind: Kind::Series, id: series.clone() };
    let preview = Wish::Open { subject, number: 1, deidentified: true };
    let why = failed(heard.of_image(preview));
    assert!(why.contains("(0012,0062") && why.contains("--deidentify"), "{why}");
    assert!(failed(heard.of_image(open(Kind::Sample, "nonsense"))).contains("is not the id"));
    // Given up: nothing more is told of it.
    heard.wanted.store(2, Ordering::Relaxed);
    let told = heard.of_image(open(Kind::Series, &series));
    assert!(matches!(told.as_slice(), [Told::Coming(1, _)]), "{told:?}");
    let gone = heard.of_image(accept(Kind::Series, &series, None));
    assert!(Heard::done(&gone).unwrap_err().contains("no image is open"));
    let stage = Doing::Stage { models: vec!["m".into()], approve: true };
    let nameless = heard.of_records(Wish::Do(Box::new(stage)));
    assert!(Heard::done(&nameless).unwrap_err().contains("set USER"));
    let nowhere = Reader::default();
    assert!(nowhere.open().unwrap_err().contains("GANTRY_LIBRARY"));
}

#[test]
fn models_predictions_and_the_nearest_cases_are_listed() {
    let (_folder, library) = library();
    let epochs = json!([{ "loss": 0.9, "validation_dice": 0.5 },
                        { "loss": 0.4, "validation_dice": 0.75 }]);
    let draft = ModelDraft {
        name: "lungs-1".into(),
        run: "r1".into(),
        weights: vec![1],
        metadata: json!({}),
        metrics: json!({ "epochs": epochs }),
    };
    let model = library.publish_model(draft).unwrap();
    for (number, series) in library.series().unwrap().into_iter().enumerate() {
        let lungs = patient(number as u32 + 1, &PhantomSettings::default()).lungs;
        let mut mask = Vec::new();
        gantry_imaging::nifti::write_mask(&lungs, &mut mask).unwrap();
        let draft = PredictionDraft {
            series: series.id,
            model: model.clone(),
            mask,
            segmentation: None,
            volume_ml: 3000.0,
            confidence: 0.75,
            embedding: vec![1.0, number as f32],
            findings: json!({ "label": "lungs", "volume_ml": 3000.0 }),
        };
        library.add_prediction(draft).unwrap();
    }
    let mut heard = Heard::at(library.root(), "ada");
    let listing = heard.listing();
    let line = &listing.models[0];
    assert_eq!((line.stage, line.dice, line.predictions), ("candidate", Some(0.75), 2));
    let names: Vec<&str> = line.curves.iter().map(|curve| curve.name.as_str()).collect();
    assert_eq!(names, ["loss", "validation_dice"]);
    let id = listing.predictions[0].id.clone();
    let told = heard.of_records(Wish::Near(id.clone()));
    let [Told::Near(of, cases)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((of, cases.len()), (&id, 1), "the other patient's");
    assert!((cases[0].distance - (1.0 - 0.5_f32.sqrt())).abs() < 1e-5);
    let small = cases[0].thumbnail.as_ref().unwrap();
    assert!(small.greys.iter().any(|grey| *grey > 200) && small.greys.contains(&0));
    let told = heard.of_image(open(Kind::Prediction, &id));
    assert!(matches!(told.last(), Some(Told::Open(1, opened, Some(marks)))
        if opened.label == "lungs" && marks.count() > 0));
    let stage = Doing::Stage { models: vec![model.to_string()], approve: true };
    let told = heard.of_records(Wish::Do(Box::new(stage)));
    assert_eq!(Heard::done(&told).unwrap(), format!("approved: {model}"));
    assert!(
        told.iter().any(|one| matches!(one, Told::Listing(listing)
        if listing.models[0].stage == "approved")),
        "it is seen at once"
    );
    // The console and the command line name the same case.
    let next = library.next_case(None).unwrap().unwrap();
    let waiting = Heard::at(library.root(), "ada").listing().waiting.clone();
    assert_eq!(waiting[0].series, next.series.as_str());
    assert_eq!((waiting.len() as u64, next.unlabelled), (2, 2));
    let verified = heard.of_records(Wish::Do(Box::new(Doing::Verify)));
    assert!(Heard::done(&verified).unwrap().contains("all are whole"));
}

#[test]
fn images_are_taken_in_without_their_patients() {
    let (folder, library) = library();
    let other = Library::create(&folder.path().join("other")).unwrap();
    let mut heard = Heard::at(other.root(), "ada");
    let path = folder.path().join("images").display().to_string();
    let told = heard.of_records(Wish::Do(Box::new(Doing::Add { path })));
    assert_eq!(
        Heard::done(&told).unwrap(),
        "taken in: 48 new, 0 known, 0 conflicts, 2 set aside, 0 not read"
    );
    let series = other.series().unwrap()[0].id.to_string();
    let subject = Subject { kind: Kind::Series, id: series };
    let told = heard.of_image(Wish::Open { subject, number: 1, deidentified: true });
    assert!(matches!(told.last(), Some(Told::Open(1, ..))), "the preview shows it: {told:?}");
    drop(library);
}
