//! Samples put into a library, as a pipeline would leave them.

use anyhow::Result;
use gantry_imaging::{Image, Mask, measure, nifti};
use gantry_library::{Author, InstanceKey, Library, PatientKey, Provenance, SampleDraft, Source};

/// Puts the sample of a patient of this number into a library, and gives the patient's key.
pub(crate) fn add(
    library: &Library,
    number: u32,
    (modality, label): (&str, &str),
    image: &Image,
    mask: &Mask,
) -> Result<PatientKey> {
    let key = InstanceKey {
        patient_id: format!("measured-{number}"),
        study_uid: format!("1.2.{number}"),
        series_uid: format!("1.2.{number}.1"),
        sop_instance_uid: format!("1.2.{number}.1.1"),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        modality: modality.into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        rows: 1,
        columns: 1,
        frames: 1,
    };
    library.store_instance(&key, &Source::Import, number.to_string().as_bytes())?;
    let (mut image_bytes, mut mask_bytes) = (Vec::new(), Vec::new());
    nifti::write_image(image, &mut image_bytes)?;
    nifti::write_mask(mask, &mut mask_bytes)?;
    library.add_sample(SampleDraft {
        series: library.series_id(&key.series_uid),
        label: label.into(),
        image: image_bytes,
        mask: mask_bytes,
        size: image.geometry.size,
        spacing_mm: image.geometry.spacing_mm,
        mask_voxels: mask.count() as u64,
        volume_ml: measure::volume_ml(mask, 1),
        provenance: Provenance {
            sources: vec![],
            pipeline: "measured".into(),
            pipeline_hash: "0".into(),
            program: "measure".into(),
            author: Author::Auto,
        },
    })?;
    Ok(library.patient_key(&key.patient_id, &key.study_uid))
}
