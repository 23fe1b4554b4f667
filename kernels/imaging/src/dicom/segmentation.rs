//! Writing and reading DICOM Segmentation objects (PS3.3 A.51): one binary segment is written, any
//! number is read.

use std::collections::BTreeMap;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::inspect::Instance;
use super::pixels::{self, functional};
use super::read::{self, EXPLICIT_LE, File};
use super::refusal::{Reason, Refusal};
use super::series::{Place, cross, dot};
use super::write::{decimal, decimals, file, short, string, uid};
use crate::error::ImagingError;
use crate::volume::{Geometry, Mask};

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
    /// When it was made, as `YYYYMMDDhhmmss`.
    pub made: String,
}

/// Encodes a mask as DICOM SEG on the grid of the series that `sources` are the instances of.
/// Slices without a marked voxel have no frame.
///
/// # Errors
/// Where there is no source, nothing is marked (a segmentation without frames is none), the time is
/// none, or the mask has more rows or columns than DICOM can say.
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
    if head.made.len() != 14 || !head.made.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong("the time at which it was made has to be given as YYYYMMDDhhmmss"));
    }
    let side = |axis: usize| {
        u16::try_from(mask.geometry.size[axis])
            .map_err(|_| wrong("the mask has more rows or columns than DICOM can say"))
    };
    let (columns, rows) = (side(0)?, side(1)?);
    let bits = pack(mask, &marked);
    // The same mask of the same series by the same program is the same instance.
    let what = |what: &str| {
        let head = format!("{}/{}/{}/{}", head.label, head.algorithm, head.version, head.made);
        uid(&[first.series_uid.as_bytes(), head.as_bytes(), &bits, what.as_bytes()])
    };
    let instance = what("instance");
    let mut data = general(first, head, marked.len());
    string(&mut data, tags::SOP_INSTANCE_UID, VR::UI, &instance);
    string(&mut data, tags::SERIES_INSTANCE_UID, VR::UI, &what("series"));
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, rows),
        (tags::COLUMNS, columns),
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
    dimensions(&mut data, &what("dimensions"));
    sequence(&mut data, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared(mask)]);
    let frames = marked.iter().enumerate().map(|(n, z)| frame(mask, *z, n, sources)).collect();
    sequence(&mut data, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames);
    data.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(bits.into())));
    file(data, SEGMENTATION, &instance, EXPLICIT_LE)
}

/// What is the same for every mask: whose it is, and what made it.
fn general(source: &Instance, head: &SegmentationHead, frames: usize) -> InMemDicomObject {
    let mut data = InMemDicomObject::new_empty();
    for (tag, vr, value) in [
        (tags::SOP_CLASS_UID, VR::UI, SEGMENTATION),
        (tags::STUDY_INSTANCE_UID, VR::UI, &source.study_uid),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, &source.frame_of_reference_uid),
        (tags::PATIENT_ID, VR::LO, &source.patient_id),
        (tags::PATIENT_NAME, VR::PN, ""),
        (tags::PATIENT_BIRTH_DATE, VR::DA, ""),
        (tags::PATIENT_SEX, VR::CS, ""),
        (tags::STUDY_DATE, VR::DA, ""),
        (tags::STUDY_TIME, VR::TM, ""),
        (tags::STUDY_ID, VR::SH, ""),
        (tags::ACCESSION_NUMBER, VR::SH, ""),
        (tags::REFERRING_PHYSICIAN_NAME, VR::PN, ""),
        (tags::POSITION_REFERENCE_INDICATOR, VR::LO, ""),
        (tags::CONTENT_DATE, VR::DA, &head.made[..8]),
        (tags::CONTENT_TIME, VR::TM, &head.made[8..]),
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
        (tags::NUMBER_OF_FRAMES, VR::IS, &frames.to_string()),
    ] {
        string(&mut data, tag, vr, value);
    }
    data
}

/// What the segments of a segmentation mark on the grid of its volume. Segments may overlap, so that each
/// has a mask of its own.
pub struct Segments {
    grid: Geometry,
    /// By the segment's number, the slices that its frames mark, and which voxels of them.
    marked: BTreeMap<u8, Vec<(usize, Vec<bool>)>>,
}

impl Segments {
    /// Reads the segments of a binary segmentation on the grid of the volume that it belongs to.
    ///
    /// # Errors
    /// Where it is none, or a frame does not lie on a slice of the grid.
    pub fn read(bytes: &[u8], grid: &Geometry) -> Result<Self, Refusal> {
        let file = read::parse(bytes)?;
        read::guarded(|| segments_of_file(&file, grid))
    }

    /// Returns the numbers of the segments that have frames.
    pub fn numbers(&self) -> impl Iterator<Item = u8> {
        self.marked.keys().copied()
    }

    /// Returns the number and the mask of each segment, one after the other: 1 where a frame marks a
    /// voxel, 0 elsewhere.
    pub fn masks(&self) -> impl Iterator<Item = (u8, Mask)> {
        let area = self.grid.size[0] * self.grid.size[1];
        self.marked.iter().map(move |(&number, frames)| {
            let mut mask = Mask::filled(self.grid, 0);
            for (z, marked) in frames {
                for (voxel, &marked) in mask.voxels[z * area..][..area].iter_mut().zip(marked) {
                    *voxel |= u8::from(marked);
                }
            }
            (number, mask)
        })
    }
}

/// What a segmentation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentationSubject {
    /// The series whose images it segments.
    pub series_uid: String,
    /// What each of its segments marks, by the segment's number: the label in the mask.
    pub labels: BTreeMap<u8, String>,
}

/// Reads what a segmentation is about.
///
/// # Errors
/// Where it is none, refers to no series or to several, or has segments without a number or a label.
pub fn segmentation_subject(bytes: &[u8]) -> Result<SegmentationSubject, Refusal> {
    let file = read::parse(bytes)?;
    let wrong = |sentence: &str| Refusal::new(Reason::Malformed, sentence);
    let [series] = read::items(&file, tags::REFERENCED_SERIES_SEQUENCE) else {
        return Err(wrong("the segmentation refers to no series, or to several"));
    };
    let series_uid = read::text(series, tags::SERIES_INSTANCE_UID)
        .map(|uid| read::trimmed(&uid))
        .filter(|uid| !uid.is_empty())
        .ok_or_else(|| wrong("the segmentation refers to a series without a UID"))?;
    let label = |segment: &InMemDicomObject| {
        let number = read::count(segment, tags::SEGMENT_NUMBER)?;
        let number = u8::try_from(number).ok().filter(|&number| number > 0)?;
        Some((number, read::text(segment, tags::SEGMENT_LABEL)?.trim().to_owned()))
    };
    let segments = read::items(&file, tags::SEGMENT_SEQUENCE);
    let labels: Option<BTreeMap<u8, String>> = segments.iter().map(label).collect();
    let labels = labels
        .filter(|labels| labels.len() == segments.len() && !labels.is_empty())
        .ok_or_else(|| wrong("a segment of the segmentation has no number or no label"))?;
    Ok(SegmentationSubject { series_uid, labels })
}

fn segments_of_file(file: &File, grid: &Geometry) -> Result<Segments, Refusal> {
    if read::text(file, tags::SEGMENTATION_TYPE).as_deref() != Some("BINARY") {
        let sentence = "the instance is no binary segmentation";
        return Err(Refusal::new(Reason::UnsupportedPixels, sentence));
    }
    grid.check()
        .map_err(|_| Refusal::new(Reason::TooLarge, "the grid is none that can be read"))?;
    let frames = pixels::of_file(file)?;
    if [frames.columns, frames.rows] != grid.size[..2] {
        let sentence = "the segmentation's frames are not as large as the slices of its volume";
        return Err(Refusal::new(Reason::MixedImages, sentence));
    }
    let mut marked: BTreeMap<u8, Vec<(usize, Vec<bool>)>> = BTreeMap::new();
    let count = frames.frames.len();
    for (frame, values) in frames.frames.iter().enumerate() {
        let position = Place { file, frame, count }.position_mm();
        let z = position.and_then(|position| slice_at(grid, position)).ok_or_else(|| {
            Refusal::new(
                Reason::NoGeometry,
                "a frame of the segmentation lies on no slice of its volume",
            )
        })?;
        let segment = functional(file, frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE)
            .and_then(|item| read::count(item, tags::REFERENCED_SEGMENT_NUMBER))
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(1);
        let values = values.iter().map(|&value| value > 0.5).collect();
        marked.entry(segment).or_default().push((z, values));
    }
    Ok(Segments { grid: *grid, marked })
}

/// The slice whose first voxel lies at a position, within a tenth of a voxel.
fn slice_at(grid: &Geometry, position_mm: [f64; 3]) -> Option<usize> {
    let normal = cross(grid.direction[0], grid.direction[1]);
    let step = grid.spacing_mm[2] * dot(grid.direction[2], normal);
    let way: [f64; 3] = std::array::from_fn(|k| position_mm[k] - grid.origin_mm[k]);
    let z = (dot(way, normal) / step).round();
    if !(0.0..grid.size[2] as f64).contains(&z) {
        return None;
    }
    let there = grid.to_patient_mm([0.0, 0.0, z]);
    let off: [f64; 3] = std::array::from_fn(|k| position_mm[k] - there[k]);
    let voxel_mm = grid.spacing_mm.iter().copied().fold(f64::INFINITY, f64::min);
    (dot(off, off).sqrt() < 0.1 * voxel_mm).then_some(z as usize)
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
    sequence(
        &mut data,
        tags::REFERENCED_INSTANCE_SEQUENCE,
        sources.iter().map(reference).collect(),
    );
    data
}

fn reference(source: &Instance) -> InMemDicomObject {
    item(&[
        (tags::REFERENCED_SOP_CLASS_UID, VR::UI, &source.sop_class_uid),
        (tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &source.sop_instance_uid),
    ])
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

fn frame(mask: &Mask, z: usize, number: usize, sources: &[Instance]) -> InMemDicomObject {
    let position = mask.geometry.to_patient_mm([0.0, 0.0, z as f64]);
    let mut data = InMemDicomObject::new_empty();
    let on_slice = |source: &Instance| {
        source.position_mm.and_then(|at| slice_at(&mask.geometry, at)) == Some(z)
    };
    let of_slice: Vec<&Instance> = sources.iter().filter(|source| on_slice(source)).collect();
    if !of_slice.is_empty() {
        sequence(&mut data, tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation(&of_slice)]);
    }
    let plane = item(&[(tags::IMAGE_POSITION_PATIENT, VR::DS, &decimals(&position))]);
    sequence(&mut data, tags::PLANE_POSITION_SEQUENCE, vec![plane]);
    let mut content = InMemDicomObject::new_empty();
    let index = PrimitiveValue::U32(vec![1, number as u32 + 1].into());
    content.put(DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, index));
    sequence(&mut data, tags::FRAME_CONTENT_SEQUENCE, vec![content]);
    data
}

/// What a frame was made from.
fn derivation(sources: &[&Instance]) -> InMemDicomObject {
    let purpose = || code("121322", "DCM", "Source image for image processing operation");
    let one = |source: &&Instance| {
        let mut data = reference(source);
        string(&mut data, tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
        sequence(&mut data, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![purpose()]);
        data
    };
    let mut data = InMemDicomObject::new_empty();
    let kind = code("113076", "DCM", "Segmentation");
    sequence(&mut data, tags::DERIVATION_CODE_SEQUENCE, vec![kind]);
    sequence(&mut data, tags::SOURCE_IMAGE_SEQUENCE, sources.iter().map(one).collect());
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
