//! A library that samples go out of and come into.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use gantry_agent::ingest::keep;
use gantry_imaging::dicom::write::{Subject, ct_series};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_imaging::{Image, Mask, nifti};
use gantry_library::{Author, Library, Provenance, SampleDraft, Source};

/// A library with a sample of each patient, and what the samples are.
pub(crate) fn filled(folder: &Path, patients: u32) -> (Library, BTreeMap<String, (Image, Mask)>) {
    let library = Library::open_or_create(folder).unwrap();
    let settings = PhantomSettings {
        size: [30, 24, 6],
        spacing_mm: [11.0, 13.0, 32.0],
        ..PhantomSettings::default()
    };
    let mut samples = BTreeMap::new();
    for number in 1..=patients {
        let patient = patient(number, &settings);
        let subject = Subject::new(format!("SECRET {number}"));
        for file in ct_series(&patient.image, &subject).unwrap() {
            keep(&library, &file, &Source::Import, None).unwrap();
        }
        let series = library.series_id(&subject.series_uid());
        let (mut image, mut mask) = (Vec::new(), Vec::new());
        nifti::write_image(&patient.image, &mut image).unwrap();
        nifti::write_mask(&patient.lungs, &mut mask).unwrap();
        let draft = SampleDraft {
            label: "lungs".into(),
            image,
            mask,
            size: patient.image.geometry.size,
            spacing_mm: patient.image.geometry.spacing_mm,
            mask_voxels: patient.lungs.count() as u64,
            volume_ml: 1.0,
            provenance: Provenance {
                sources: library.series_objects(&series).unwrap(),
                pipeline: "phantom".into(),
                pipeline_hash: "ab".into(),
                program: "0.1.0".into(),
                author: Author::Auto,
            },
            series,
        };
        let id = library.add_sample(draft).unwrap();
        samples.insert(id.to_string(), (patient.image, patient.lungs));
    }
    (library, samples)
}
