//! Writing and reading DICOM Segmentation objects (PS3.3 A.51): one binary segment.

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::inspect::Instance;
use super::refusal::Refusal;
use super::series;
use super::write::{decimal, decimals, file, short, string, uid};
use crate::error::ImagingError;
use crate::volume::Mask;

const SEGMENTATION: &str = "1.2.840.10008.5.1.4.1.1.66.4";

/// What a segmentation says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentationHead {
    /// What the mask marks.
    pub label: String,
    /// The program or model that made it.
    pub algorithm: String,
    /// Its version.
    pub version: String,
}

/// Encodes a mask as DICOM SEG on the grid of the series that `sources` are the instances of.
/// Slices without a marked voxel have no frame.
///
/// # Errors
/// Where there is no source, or nothing is marked: a segmentation without frames is none.
pub fn segmentation(
    mask: &Mask,
    sources: &[Instance],
    head: &SegmentationHead,
) -> Result<Vec<u8>, ImagingError> {
    let wrong =
        |problem: &str| ImagingError::Format { format: "DICOM SEG", problem: problem.into() };
    let first = sources.first().ok_or_else(|| wrong("there is no source image to refer to"))?;
    let depth = mask.geometry.size[2];
    let marked: Vec<usize> =
        (0..depth).filter(|z| mask.slice(*z).iter().any(|voxel| *voxel != 0)).collect();
    if marked.is_empty() {
        return Err(wrong("nothing is marked; a segmentation needs at least one frame"));
    }
    let seed = [first.series_uid.as_str(), &head.label, &head.algorithm, &head.version];
    let instance = uid(&[seed[0], seed[1], seed[2], seed[3], "instance"]);
    let mut data = InMemDicomObject::new_empty();
    for (tag, vr, value) in [
        (tags::SOP_CLASS_UID, VR::UI, SEGMENTATION),
        (tags::SOP_INSTANCE_UID, VR::UI, &instance),
        (tags::STUDY_INSTANCE_UID, VR::UI, &first.study_uid),
        (tags::SERIES_INSTANCE_UID, VR::UI, &uid(&[seed[0], seed[1], seed[2], seed[3], "series"])),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, &first.frame_of_reference_uid),
        (tags::PATIENT_ID, VR::LO, &first.patient_id),
        (tags::PATIENT_NAME, VR::PN, ""),
        (tags::PATIENT_BIRTH_DATE, VR::DA, ""),
        (tags::PATIENT_SEX, VR::CS, ""),
        (tags::STUDY_DATE, VR::DA, ""),
        (tags::STUDY_TIME, VR::TM, ""),
        (tags::STUDY_ID, VR::SH, ""),
        (tags::ACCESSION_NUMBER, VR::SH, ""),
        (tags::REFERRING_PHYSICIAN_NAME, VR::PN, ""),
        (tags::POSITION_REFERENCE_INDICATOR, VR::LO, ""),
        (tags::CONTENT_DATE, VR::DA, "20260101"),
        (tags::CONTENT_TIME, VR::TM, "120000"),
        (tags::MODALITY, VR::CS, "SEG"),
        (tags::MANUFACTURER, VR::LO, "gantry"),
        (tags::MANUFACTURER_MODEL_NAME, VR::LO, "gantry"),
        (tags::DEVICE_SERIAL_NUMBER, VR::LO, "1"),
        (tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION")),
        (tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY"),
        (tags::CONTENT_LABEL, VR::CS, "SEGMENTATION"),
        (tags::CONTENT_DESCRIPTION, VR::LO, "research use only, no diagnosis"),
        (tags::CONTENT_CREATOR_NAME, VR::PN, "gantry"),
        (tags::SEGMENTATION_TYPE, VR::CS, "BINARY"),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        (tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00"),
        (tags::SERIES_NUMBER, VR::IS, "900"),
        (tags::INSTANCE_NUMBER, VR::IS, "1"),
        (tags::NUMBER_OF_FRAMES, VR::IS, &marked.len().to_string()),
    ] {
        string(&mut data, tag, vr, value);
    }
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, mask.geometry.size[1] as u16),
        (tags::COLUMNS, mask.geometry.size[0] as u16),
        (tags::BITS_ALLOCATED, 1),
        (tags::BITS_STORED, 1),
        (tags::HIGH_BIT, 0),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        short(&mut data, tag, value);
    }
    sequence(&mut data, tags::SEGMENT_SEQUENCE, vec![segment(head)]);
    sequence(
        &mut data,
        tags::REFERENCED_SERIES_SEQUENCE,
        vec![referenced(sources, &first.series_uid)],
    );
    let dimension = uid(&[&instance, "dimensions"]);
    dimensions(&mut data, &dimension);
    sequence(&mut data, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared(mask)]);
    let frames = marked.iter().enumerate().map(|(n, z)| frame(mask, *z, n)).collect();
    sequence(&mut data, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames);
    let bits = pack(mask, &marked);
    data.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(bits.into())));
    file(data, SEGMENTATION, &instance)
}

/// Reads the mask of a segmentation of one binary segment; slices without a frame between others
/// make it irregular.
///
/// # Errors
/// Where it is none, or its frames make no volume.
pub fn segmentation_mask(bytes: &[u8]) -> Result<Mask, Refusal> {
    let series = series::assemble(&[bytes])?;
    Ok(series.image.map(|value| u8::from(*value > 0.5)))
}

fn item(values: &[(Tag, VR, &str)]) -> InMemDicomObject {
    let mut data = InMemDicomObject::new_empty();
    for (tag, vr, value) in values {
        string(&mut data, *tag, *vr, value);
    }
    data
}

fn sequence(data: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    data.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

fn code(value: &str, scheme: &str, meaning: &str) -> InMemDicomObject {
    item(&[
        (tags::CODE_VALUE, VR::SH, value),
        (tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme),
        (tags::CODE_MEANING, VR::LO, meaning),
    ])
}

fn segment(head: &SegmentationHead) -> InMemDicomObject {
    let short_text = |text: &str| text.chars().take(64).collect::<String>();
    let mut data = item(&[
        (tags::SEGMENT_LABEL, VR::LO, &short_text(&head.label)),
        (tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC"),
        (
            tags::SEGMENT_ALGORITHM_NAME,
            VR::LO,
            &short_text(&format!("{} {}", head.algorithm, head.version)),
        ),
    ]);
    short(&mut data, tags::SEGMENT_NUMBER, 1);
    let anatomy = code("123037004", "SCT", "Anatomical Structure");
    let kind = match head.label.as_str() {
        "lungs" | "lung" => code("39607008", "SCT", "Lung"),
        "brain" => code("12738006", "SCT", "Brain"),
        _ => code("85756007", "SCT", "Tissue"),
    };
    sequence(&mut data, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, vec![anatomy]);
    sequence(&mut data, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![kind]);
    data
}

fn referenced(sources: &[Instance], series_uid: &str) -> InMemDicomObject {
    let mut data = item(&[(tags::SERIES_INSTANCE_UID, VR::UI, series_uid)]);
    let one = |source: &Instance| {
        item(&[
            (tags::REFERENCED_SOP_CLASS_UID, VR::UI, &source.sop_class_uid),
            (tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &source.sop_instance_uid),
        ])
    };
    sequence(&mut data, tags::REFERENCED_INSTANCE_SEQUENCE, sources.iter().map(one).collect());
    data
}

/// Frames are told apart by segment and by position (PS3.3 C.7.6.17).
fn dimensions(data: &mut InMemDicomObject, uid: &str) {
    let organization = || item(&[(tags::DIMENSION_ORGANIZATION_UID, VR::UI, uid)]);
    sequence(data, tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![organization()]);
    let index = |pointer: Tag, group: Tag| {
        let mut data = organization();
        for (tag, value) in
            [(tags::DIMENSION_INDEX_POINTER, pointer), (tags::FUNCTIONAL_GROUP_POINTER, group)]
        {
            data.put(DataElement::new(tag, VR::AT, PrimitiveValue::from(value)));
        }
        data
    };
    let both = vec![
        index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE),
        index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE),
    ];
    sequence(data, tags::DIMENSION_INDEX_SEQUENCE, both);
}

fn shared(mask: &Mask) -> InMemDicomObject {
    let [x, y, z] = mask.geometry.spacing_mm;
    let [row, column, _] = mask.geometry.direction;
    let orientation = [row[0], row[1], row[2], column[0], column[1], column[2]];
    let mut data = InMemDicomObject::new_empty();
    let plane = item(&[(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &decimals(&orientation))]);
    sequence(&mut data, tags::PLANE_ORIENTATION_SEQUENCE, vec![plane]);
    let measures = item(&[
        (tags::SLICE_THICKNESS, VR::DS, &decimal(z)),
        (tags::SPACING_BETWEEN_SLICES, VR::DS, &decimal(z)),
        (tags::PIXEL_SPACING, VR::DS, &decimals(&[y, x])),
    ]);
    sequence(&mut data, tags::PIXEL_MEASURES_SEQUENCE, vec![measures]);
    let mut segment = InMemDicomObject::new_empty();
    short(&mut segment, tags::REFERENCED_SEGMENT_NUMBER, 1);
    sequence(&mut data, tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment]);
    data
}

fn frame(mask: &Mask, z: usize, number: usize) -> InMemDicomObject {
    let position = mask.geometry.to_patient_mm([0.0, 0.0, z as f64]);
    let mut data = InMemDicomObject::new_empty();
    let plane = item(&[(tags::IMAGE_POSITION_PATIENT, VR::DS, &decimals(&position))]);
    sequence(&mut data, tags::PLANE_POSITION_SEQUENCE, vec![plane]);
    let mut content = InMemDicomObject::new_empty();
    let index = PrimitiveValue::U32(vec![1, number as u32 + 1].into());
    content.put(DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, index));
    sequence(&mut data, tags::FRAME_CONTENT_SEQUENCE, vec![content]);
    data
}

/// The marked slices, one bit a pixel, without gaps between frames (PS3.5 8.1.1).
fn pack(mask: &Mask, marked: &[usize]) -> Vec<u8> {
    let area = mask.geometry.size[0] * mask.geometry.size[1];
    let mut bytes = vec![0_u8; (area * marked.len()).div_ceil(8)];
    for (frame, z) in marked.iter().enumerate() {
        for (n, _) in mask.slice(*z).iter().enumerate().filter(|(_, voxel)| **voxel != 0) {
            let bit = frame * area + n;
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    bytes
}
