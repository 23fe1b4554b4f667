//! Writing CT series: what our own scanner sends, and how real volumes become DICOM.

use std::io::Cursor;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use sha2::{Digest, Sha256};

use super::read::EXPLICIT_LE;
use crate::error::ImagingError;
use crate::volume::{Geometry, Image};

const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Our implementation, in every file that we write.
pub(super) const IMPLEMENTATION: &str = "2.25.302043857340122087254135689021345601";

/// Whose images are written: a name for the patient id, and one from which every UID follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    patient: String,
    name: String,
}

impl Subject {
    /// A subject of this name. The same name gives the same UIDs.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { patient: name.clone(), name }
    }

    /// A subject of this name who is one of several series of a patient.
    #[must_use]
    pub fn of_patient(patient: impl Into<String>, name: impl Into<String>) -> Self {
        Self { patient: patient.into(), name: name.into() }
    }

    /// The UID of its study.
    #[must_use]
    pub fn study_uid(&self) -> String {
        self.uid("study")
    }

    /// The UID of its series.
    #[must_use]
    pub fn series_uid(&self) -> String {
        self.uid("series")
    }

    fn uid(&self, what: &str) -> String {
        uid(&[self.name.as_bytes(), what.as_bytes()])
    }

    fn instance_uid(&self, slice: usize) -> String {
        self.uid(&format!("instance {slice}"))
    }
}

/// A UID below `2.25`, the arc of UUIDs (ITU-T X.667): 128 bits of a hash, in decimal.
pub(super) fn uid(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let bits = digest.iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    format!("2.25.{bits}")
}

/// Encodes a volume as a CT series: one DICOM file for each slice, 16 bits, Explicit VR Little
/// Endian. Whole Hounsfield units within 16 bits come back as they were; other values are rounded
/// to 65,536 steps between the least and the most.
///
/// # Errors
/// Where a value is not finite, the volume is empty, or a slice is larger than DICOM can say.
pub fn ct_series(image: &Image, subject: &Subject) -> Result<Vec<Vec<u8>>, ImagingError> {
    let [columns, rows, depth] = image.geometry.size;
    if columns.max(rows) > usize::from(u16::MAX) {
        return Err(ImagingError::TooLarge {
            what: "slice",
            found: columns.max(rows) as u64,
            limit: u64::from(u16::MAX),
        });
    }
    if image.voxels.is_empty() || image.voxels.iter().any(|value| !value.is_finite()) {
        return Err(ImagingError::Geometry {
            problem: "an empty volume, or values that are no numbers, cannot be encoded".into(),
        });
    }
    let (slope, intercept) = rescale(&image.voxels);
    (0..depth).map(|slice| ct_slice(image, subject, slice, slope, intercept)).collect()
}

fn rescale(voxels: &[f32]) -> (f64, f64) {
    let whole = |value: &f32| value.fract() == 0.0 && (-32_768.0..=32_767.0).contains(value);
    if voxels.iter().all(whole) {
        return (1.0, 0.0);
    }
    let least = voxels.iter().copied().fold(f32::INFINITY, f32::min);
    let most = voxels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let slope = (f64::from(most) - f64::from(least)).max(1e-6) / 65_535.0;
    // Decimal strings have 16 characters; what is written is what is computed with.
    let slope: f64 = decimal(slope).parse().unwrap_or(1.0);
    let intercept: f64 = decimal(f64::from(least) + 32_768.0 * slope).parse().unwrap_or(0.0);
    (slope, intercept)
}

fn ct_slice(
    image: &Image,
    subject: &Subject,
    slice: usize,
    slope: f64,
    intercept: f64,
) -> Result<Vec<u8>, ImagingError> {
    let geometry = &image.geometry;
    let mut data = InMemDicomObject::new_empty();
    let instance = subject.instance_uid(slice);
    identify(&mut data, CT_IMAGE, &instance, subject);
    place(&mut data, geometry, slice);
    let stored = image.slice(slice).iter().map(|value| {
        ((f64::from(*value) - intercept) / slope).round().clamp(-32_768.0, 32_767.0) as i16 as u16
    });
    let stored: Vec<u16> = stored.collect();
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, geometry.size[1] as u16),
        (tags::COLUMNS, geometry.size[0] as u16),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::HIGH_BIT, 15),
        (tags::PIXEL_REPRESENTATION, 1),
    ] {
        short(&mut data, tag, value);
    }
    string(&mut data, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    string(&mut data, tags::RESCALE_SLOPE, VR::DS, &decimal(slope));
    string(&mut data, tags::RESCALE_INTERCEPT, VR::DS, &decimal(intercept));
    string(&mut data, tags::RESCALE_TYPE, VR::LO, "HU");
    string(&mut data, tags::INSTANCE_NUMBER, VR::IS, &(slice + 1).to_string());
    data.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(stored.into())));
    file(data, CT_IMAGE, &instance, EXPLICIT_LE)
}

fn identify(data: &mut InMemDicomObject, class: &str, instance: &str, subject: &Subject) {
    for (tag, vr, value) in [
        (tags::SOP_CLASS_UID, VR::UI, class),
        (tags::SOP_INSTANCE_UID, VR::UI, instance),
        (tags::STUDY_INSTANCE_UID, VR::UI, &subject.study_uid()),
        (tags::SERIES_INSTANCE_UID, VR::UI, &subject.series_uid()),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, &subject.uid("frame of reference")),
        (tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL"),
        (tags::STUDY_DATE, VR::DA, "20260101"),
        (tags::STUDY_TIME, VR::TM, "120000"),
        (tags::MODALITY, VR::CS, "CT"),
        (tags::MANUFACTURER, VR::LO, "gantry"),
        (tags::PATIENT_NAME, VR::PN, &subject.patient),
        (tags::PATIENT_ID, VR::LO, &subject.patient),
        (tags::SERIES_NUMBER, VR::IS, "1"),
        (tags::BODY_PART_EXAMINED, VR::CS, "CHEST"),
    ] {
        string(data, tag, vr, value);
    }
}

/// Where a slice lies.
fn place(data: &mut InMemDicomObject, geometry: &Geometry, slice: usize) {
    let position = geometry.to_patient_mm([0.0, 0.0, slice as f64]);
    let [row, column, _] = geometry.direction;
    let orientation = [row[0], row[1], row[2], column[0], column[1], column[2]];
    let [x, y, z] = geometry.spacing_mm;
    string(data, tags::IMAGE_POSITION_PATIENT, VR::DS, &decimals(&position));
    string(data, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &decimals(&orientation));
    string(data, tags::PIXEL_SPACING, VR::DS, &decimals(&[y, x]));
    string(data, tags::SLICE_THICKNESS, VR::DS, &decimal(z));
}

/// A number as a decimal string of at most 16 characters (PS3.5 6.2).
pub(super) fn decimal(value: f64) -> String {
    for digits in (0..=14).rev() {
        let text = format!("{value:.digits$}");
        let short = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        if short.len() <= 16 && (value == 0.0 || short.parse::<f64>().is_ok_and(|back| back != 0.0))
        {
            return short.to_owned();
        }
    }
    format!("{value:.8e}")
}

pub(super) fn decimals(values: &[f64]) -> String {
    values.iter().map(|value| decimal(*value)).collect::<Vec<_>>().join("\\")
}

pub(super) fn string(data: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    let parts: Vec<String> = value.split('\\').map(str::to_owned).collect();
    data.put(DataElement::new(tag, vr, PrimitiveValue::Strs(parts.into())));
}

pub(super) fn short(data: &mut InMemDicomObject, tag: Tag, value: u16) {
    data.put(DataElement::new(tag, VR::US, dicom_value!(U16, value)));
}

/// A data set as a DICOM file (PS3.10) of a transfer syntax.
pub(super) fn file(
    data: InMemDicomObject,
    class: &str,
    instance: &str,
    transfer_syntax: &str,
) -> Result<Vec<u8>, ImagingError> {
    let failed = |error: &dyn std::fmt::Display| ImagingError::Format {
        format: "DICOM",
        problem: error.to_string(),
    };
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(transfer_syntax)
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid(instance)
        .implementation_class_uid(IMPLEMENTATION)
        .implementation_version_name("GANTRY")
        .build()
        .map_err(|error| failed(&error))?;
    let mut bytes = Cursor::new(Vec::new());
    data.with_exact_meta(meta).write_all(&mut bytes).map_err(|error| failed(&error))?;
    Ok(bytes.into_inner())
}
