//! The verdict on one file, from its header.

use dicom_dictionary_std::tags;

use super::encapsulated;
use super::read::{self, DIRECTORY, File, count, numbers, text, trimmed};
use super::refusal::{Reason, Refusal};

/// Whether the pixels of an instance can be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// They can.
    Readable,
    /// There are none.
    Absent,
    /// They cannot; the sentence says why. The instance is kept all the same.
    Unreadable(String),
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Patient ID (0010,0020); empty where it has none.
    pub patient_id: String,
    /// Study Instance UID (0020,000D); empty where it has none.
    pub study_uid: String,
    /// Series Instance UID (0020,000E).
    pub series_uid: String,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: String,
    /// SOP Class UID (0008,0016); empty where it has none.
    pub sop_class_uid: String,
    /// The transfer syntax of its data set.
    pub transfer_syntax_uid: String,
    /// Modality (0008,0060); `OT` where it has none.
    pub modality: String,
    /// The part of the body; empty where the file does not say.
    pub body_part: String,
    /// Frame of Reference UID (0020,0052); empty where it has none.
    pub frame_of_reference_uid: String,
    /// Rows (0028,0010), 0 without pixels.
    pub rows: u32,
    /// Columns (0028,0011), 0 without pixels.
    pub columns: u32,
    /// Number of Frames (0028,0008), 1 where it says none.
    pub frames: u32,
    /// Image Position (Patient) (0020,0032), where the instance as a whole has one.
    pub position_mm: Option<[f64; 3]>,
    /// Its pixels.
    pub pixels: Pixels,
}

/// What a file says of traces of its patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Patient Identity Removed (0012,0062) is YES.
    pub removed: bool,
    /// Burned In Annotation (0028,0301) is YES: text in the pixels may name the patient.
    pub burned_in: bool,
}

/// Reads what a file says of traces of its patient.
///
/// # Errors
/// Where the file cannot be read.
pub fn traces(bytes: &[u8]) -> Result<Traces, Refusal> {
    let file = read::parse(bytes)?;
    let says_yes = |tag| text(&file, tag).is_some_and(|word| word.trim() == "YES");
    read::guarded(|| {
        Ok(Traces {
            removed: says_yes(tags::PATIENT_IDENTITY_REMOVED),
            burned_in: says_yes(tags::BURNED_IN_ANNOTATION),
        })
    })
}

/// Reads a file's header and gives its verdict. Pixels are not decoded.
///
/// # Errors
/// With the reason for which the file cannot be kept under a series.
pub fn inspect(bytes: &[u8]) -> Result<Instance, Refusal> {
    let file = read::parse(bytes)?;
    read::guarded(|| of_file(&file))
}

pub(super) fn of_file(file: &File) -> Result<Instance, Refusal> {
    // The reader put the data set's own UIDs there, where it has them.
    let class = trimmed(file.meta().media_storage_sop_class_uid());
    if class == DIRECTORY || file.get(tags::DIRECTORY_RECORD_SEQUENCE).is_some() {
        return Err(read::directory());
    }
    let instance_uid = trimmed(file.meta().media_storage_sop_instance_uid());
    if instance_uid.is_empty() {
        return Err(Refusal::new(
            Reason::NoSopInstanceUid,
            "the file has no SOP Instance UID, so it could not be told from others",
        ));
    }
    let series_uid = text(file, tags::SERIES_INSTANCE_UID).ok_or_else(|| {
        Refusal::new(
            Reason::NoSeriesUid,
            "the file has no Series Instance UID, so it belongs to no series",
        )
    })?;
    let syntax = trimmed(file.meta().transfer_syntax());
    let instance = Instance {
        patient_id: text(file, tags::PATIENT_ID).unwrap_or_default(),
        study_uid: text(file, tags::STUDY_INSTANCE_UID).unwrap_or_default(),
        series_uid,
        sop_instance_uid: instance_uid,
        sop_class_uid: class,
        modality: text(file, tags::MODALITY).unwrap_or_else(|| "OT".into()),
        body_part: text(file, tags::BODY_PART_EXAMINED).unwrap_or_default(),
        frame_of_reference_uid: text(file, tags::FRAME_OF_REFERENCE_UID).unwrap_or_default(),
        rows: count(file, tags::ROWS).unwrap_or(0),
        columns: count(file, tags::COLUMNS).unwrap_or(0),
        frames: count(file, tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1),
        position_mm: numbers(file, tags::IMAGE_POSITION_PATIENT)
            .and_then(|all| all.try_into().ok()),
        pixels: pixels_of(file)?,
        transfer_syntax_uid: syntax,
    };
    Ok(instance)
}

/// Looks at the pixels without decoding them. Native pixels that are fewer than the header says
/// mean that the file was cut.
fn pixels_of(file: &File) -> Result<Pixels, Refusal> {
    let has = |tag| file.get(tag).is_some();
    if has(tags::FLOAT_PIXEL_DATA) || has(tags::DOUBLE_FLOAT_PIXEL_DATA) {
        return Ok(Pixels::Unreadable("pixels are floating-point numbers (Parametric Map)".into()));
    }
    let Some(element) = file.get(tags::PIXEL_DATA) else { return Ok(Pixels::Absent) };
    let (Some(rows), Some(columns)) = (count(file, tags::ROWS), count(file, tags::COLUMNS)) else {
        return Ok(Pixels::Unreadable(
            "the header does not say how many rows and columns there are".into(),
        ));
    };
    if rows == 0 || columns == 0 {
        return Ok(Pixels::Unreadable("the header says that there are no rows or columns".into()));
    }
    if let Some(fragments) = element.fragments() {
        return Ok(match encapsulated::check(file, fragments) {
            Ok(()) => Pixels::Readable,
            Err(refusal) => Pixels::Unreadable(refusal.sentence),
        });
    }
    let needed = native_bytes(file, rows, columns);
    let held = element.to_bytes().map_or(0, |bytes| bytes.len() as u64);
    match needed {
        None => Ok(Pixels::Unreadable("the header's pixel format is none of DICOM's".into())),
        Some(needed) if held < needed => Err(Refusal::new(
            Reason::Truncated,
            format!(
                "the file has {held} bytes of pixels and its header asks for {needed}; send it again"
            ),
        )),
        Some(_) => Ok(Pixels::Readable),
    }
}

/// Bytes of native pixels that the header asks for.
fn native_bytes(file: &File, rows: u32, columns: u32) -> Option<u64> {
    let bits = u64::from(count(file, tags::BITS_ALLOCATED)?);
    let samples = u64::from(count(file, tags::SAMPLES_PER_PIXEL).unwrap_or(1));
    if !matches!(bits, 1 | 8 | 16 | 32 | 64) || !matches!(samples, 1 | 3 | 4) {
        return None;
    }
    let frames = u64::from(count(file, tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1));
    let pixels = u64::from(rows).checked_mul(u64::from(columns))?.checked_mul(frames)?;
    let subsampled = text(file, tags::PHOTOMETRIC_INTERPRETATION)
        .is_some_and(|name| name.starts_with("YBR_FULL_422") || name.starts_with("YBR_PARTIAL_42"));
    let samples = if subsampled { 2 } else { samples };
    Some(pixels.checked_mul(samples)?.checked_mul(bits)?.div_ceil(8))
}
