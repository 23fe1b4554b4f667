//! A library of phantom patients, and a sink that remembers.

#![allow(dead_code, missing_docs, unreachable_pub)]

use gantry_imaging::phantom::{PhantomPatient, PhantomSettings, patient};
use gantry_imaging::{Image, Mask, measure, nifti};
use gantry_learning::RunSink;
use gantry_library::{
    Author, InstanceKey, Library, PatientKey, Provenance, SampleDraft, SeriesId, Source,
};

/// Puts a sample of one patient into the library.
pub fn add(library: &Library, number: u32, image: &Image, mask: &Mask) -> SeriesId {
    let key = InstanceKey {
        patient_id: format!("patient-{number}"),
        study_uid: format!("1.2.{number}"),
        series_uid: format!("1.2.{number}.1"),
        sop_instance_uid: format!("1.2.{number}.1.1"),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        modality: "CT".into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        rows: 1,
        columns: 1,
        frames: 1,
    };
    library.store_instance(&key, &Source::Import, number.to_string().as_bytes()).unwrap();
    let series = library.series_id(&key.series_uid);
    let (mut image_bytes, mut mask_bytes) = (Vec::new(), Vec::new());
    nifti::write_image(image, &mut image_bytes).unwrap();
    nifti::write_mask(mask, &mut mask_bytes).unwrap();
    library
        .add_sample(SampleDraft {
            series: series.clone(),
            label: "lungs".into(),
            image: image_bytes,
            mask: mask_bytes,
            size: image.geometry.size,
            spacing_mm: image.geometry.spacing_mm,
            mask_voxels: mask.count() as u64,
            volume_ml: measure::volume_ml(mask, 1),
            provenance: Provenance {
                sources: vec![],
                pipeline: "phantom".into(),
                pipeline_hash: "0".into(),
                program: "test".into(),
                author: Author::Auto,
            },
        })
        .unwrap();
    series
}

/// A library with the phantoms of these numbers.
pub fn phantoms(
    folder: &std::path::Path,
    numbers: std::ops::Range<u32>,
    settings: &PhantomSettings,
) -> (Library, Vec<PhantomPatient>) {
    let library = Library::open_or_create(folder).unwrap();
    let patients = fill(&library, numbers, settings);
    (library, patients)
}

/// Puts the phantoms of these numbers into a library.
pub fn fill(
    library: &Library,
    numbers: std::ops::Range<u32>,
    settings: &PhantomSettings,
) -> Vec<PhantomPatient> {
    let patients: Vec<PhantomPatient> =
        numbers.clone().map(|number| patient(number, settings)).collect();
    for (number, one) in numbers.zip(&patients) {
        add(library, number, &one.image, &one.lungs);
    }
    patients
}

/// The key of a phantom patient.
pub fn key(library: &Library, number: u32) -> PatientKey {
    library.patient_key(&format!("patient-{number}"), &format!("1.2.{number}"))
}

/// Remembers what a run reports.
#[derive(Default)]
pub struct Memory {
    pub metrics: Vec<(String, u64, f64)>,
    pub progress: Vec<(u64, u64)>,
    pub warnings: Vec<String>,
    pub notes: Vec<String>,
}

impl Memory {
    /// The points of a curve: step and the value's bits.
    pub fn curve(&self, name: &str) -> Vec<(u64, u64)> {
        let points = self.metrics.iter().filter(|(metric, ..)| metric == name);
        points.map(|(_, step, value)| (*step, value.to_bits())).collect()
    }
}

impl RunSink for Memory {
    fn metric(&mut self, name: &str, value: f64, step: u64) {
        self.metrics.push((name.to_owned(), step, value));
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.progress.push((done, total));
    }

    fn note(&mut self, sentence: &str) {
        self.notes.push(sentence.to_owned());
    }

    fn warning(&mut self, sentence: &str) {
        self.warnings.push(sentence.to_owned());
    }
}
