//! Bytes to a data set, with what dicom-rs 0.10.1 does not read on its own:
//!
//! - files without preamble or without a meta group, or whose meta group lacks its length or its
//!   syntax: the group is stepped over, and the syntax told from the data set's first element;
//! - a data set that is implicit though its syntax is an explicit one, or the other way round;
//! - bytes left behind the pixels, and lengths beyond the end of the file: see [`walk`];
//! - values that arrive with VR UN, a rescale slope among them: they are read with the VR that the
//!   dictionary has for their tag (as bytes, a slope of `"1"` would become 49).

use std::any::Any;
use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_object::mem::InMemElement;
use dicom_object::{FileDicomObject, FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use flate2::read::DeflateDecoder;

use super::refusal::{Reason, Refusal};
use super::walk::{self, Until};

/// The largest file that is read: a multi-frame tomosynthesis of 1 GiB.
pub const FILE_BYTES_MAX: usize = 1 << 30;
/// Characters of one text value; longer ones say nothing that is needed here.
const TEXT_CHARACTERS_MAX: usize = 1024;

const PREAMBLE: usize = 128;
/// Media Storage Directory Storage.
pub(super) const DIRECTORY: &str = "1.2.840.10008.1.3.10";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
pub(super) const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const DEFLATED_LE: &str = "1.2.840.10008.1.2.1.99";
pub(super) const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";

/// A parsed file.
pub(super) type File = FileDicomObject<InMemDicomObject>;

/// Parses a file, whatever its bytes are.
pub(super) fn parse(bytes: &[u8]) -> Result<File, Refusal> {
    if bytes.len() > FILE_BYTES_MAX {
        let sentence =
            format!("the file has {} bytes; at most {FILE_BYTES_MAX} are read", bytes.len());
        return Err(Refusal::new(Reason::TooLarge, sentence));
    }
    // dicom-rs is not written to panic; where it does, a scanner's file must not end a receiver.
    guarded(|| parse_unguarded(bytes, Until::End))
}

/// Parses the begin of a file, up to its pixels.
///
/// # Errors
/// Where the bytes end before the pixels begin, or are no DICOM.
pub(super) fn parse_head(bytes: &[u8]) -> Result<File, Refusal> {
    guarded(|| parse_unguarded(bytes, Until::Pixels))
}

/// Runs what calls dicom-rs, and takes a panic for a malformed file.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let panicked = |_: Box<dyn Any + Send>| {
        Refusal::new(
            Reason::Malformed,
            "the file's elements cannot be read: they contradict one another",
        )
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(panicked)?
}

fn parse_unguarded(bytes: &[u8], until: Until) -> Result<File, Refusal> {
    if bytes.get(PREAMBLE..PREAMBLE + 4) == Some(b"DICM") {
        return after_magic(&bytes[PREAMBLE + 4..], until);
    }
    if bytes.starts_with(b"DICM") {
        return after_magic(&bytes[4..], until);
    }
    after_magic(bytes, until)
}

/// A meta group, which may be missing or lack its length or its syntax, and a data set.
fn after_magic(bytes: &[u8], until: Until) -> Result<File, Refusal> {
    let meta = walk::meta(bytes, 0)?;
    let data = &bytes[meta.end..];
    if meta.sop_class.as_deref() == Some(DIRECTORY) {
        return Err(directory());
    }
    let uid = match meta.transfer_syntax {
        Some(uid) => uid,
        None if meta.end > 0 && !data.is_empty() || matches!(data, [8, 0, ..] | [0, 8, ..]) => {
            encoding_uid(walk::guess(data)).to_owned()
        }
        None => {
            let sentence =
                "the file is no DICOM: it begins with neither a meta group nor a data set";
            return Err(Refusal::new(Reason::NotDicom, sentence));
        }
    };
    let syntax = TransferSyntaxRegistry.get(&uid).ok_or_else(unknown)?;
    let data = match syntax.codec() {
        Codec::Dataset(_) if uid == DEFLATED_LE => Cow::Owned(inflate(data, FILE_BYTES_MAX)?),
        Codec::Dataset(_) => return Err(unknown()),
        _ => Cow::Borrowed(data),
    };
    // Some name an explicit syntax and write an implicit data set, or the other way round.
    let encoding = match uid.as_str() {
        EXPLICIT_BE => walk::Encoding { explicit: true, big: true },
        _ => walk::Encoding { explicit: walk::guess(&data).explicit, big: false },
    };
    let data = walk::data_set(&data, encoding, until)?;
    let syntax = TransferSyntaxRegistry.get(encoding_uid(encoding)).ok_or_else(unknown)?;
    let data = InMemDicomObject::read_dataset_with_ts(Cursor::new(data.as_ref()), syntax)
        .map_err(|error| refusal_of(&error))?;
    let class = text(&data, tags::SOP_CLASS_UID).or(meta.sop_class).unwrap_or_default();
    let instance = text(&data, tags::SOP_INSTANCE_UID).or(meta.sop_instance).unwrap_or_default();
    let head = FileMetaTableBuilder::new()
        .transfer_syntax(&uid)
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid(instance)
        .build()
        .map_err(|error| refusal_of(&error))?;
    Ok(data.with_exact_meta(head))
}

/// Reads a data set that stands alone, as the messages between peers have it.
///
/// # Errors
/// Where it is no data set of that transfer syntax.
pub fn data_set(bytes: &[u8], transfer_syntax: &str) -> Result<InMemDicomObject, Refusal> {
    guarded(|| {
        let encoding = walk::Encoding {
            explicit: transfer_syntax != IMPLICIT_LE,
            big: transfer_syntax == EXPLICIT_BE,
        };
        let bytes = walk::data_set(bytes, encoding, Until::End)?;
        let syntax = TransferSyntaxRegistry.get(encoding_uid(encoding)).ok_or_else(unknown)?;
        InMemDicomObject::read_dataset_with_ts(Cursor::new(bytes.as_ref()), syntax)
            .map_err(|error| refusal_of(&error))
    })
}

/// A deflated data set, of at most so many bytes: a file of a kilobyte can inflate to a gigabyte.
fn inflate(data: &[u8], bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut inflated = DeflateDecoder::new(data).take(bytes_max as u64 + 1);
    inflated.read_to_end(&mut bytes).map_err(|error| refusal_of(&error))?;
    if bytes.len() > bytes_max {
        let sentence = format!("the file inflates to more than {bytes_max} bytes");
        return Err(Refusal::new(Reason::TooLarge, sentence));
    }
    Ok(bytes)
}

pub(super) fn directory() -> Refusal {
    Refusal::new(
        Reason::DirectoryRecord,
        "the file is the directory of a medium (DICOMDIR); import the files that it lists",
    )
}

/// The transfer syntax in which a data set of this one is written anew: only deflation goes.
pub(super) fn uninflated(uid: &str) -> String {
    if uid == DEFLATED_LE { EXPLICIT_LE.to_owned() } else { uid.to_owned() }
}

fn unknown() -> Refusal {
    let sentence = "the file's transfer syntax is not known here; send it uncompressed";
    Refusal::new(Reason::UnknownTransferSyntax, sentence)
}

fn encoding_uid(encoding: walk::Encoding) -> &'static str {
    match encoding {
        walk::Encoding { big: true, .. } => EXPLICIT_BE,
        walk::Encoding { explicit: true, .. } => EXPLICIT_LE,
        _ => IMPLICIT_LE,
    }
}

/// A failure of dicom-rs in our words. Its own message may quote values, so it is not passed on.
pub(super) fn refusal_of(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut text = String::new();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::UnexpectedEof
        {
            return Refusal::new(
                Reason::Truncated,
                "the file ends in the middle of an element; send it again",
            );
        }
        text.push_str(&error.to_string().to_lowercase());
        cause = error.source();
    }
    if text.contains("transfer syntax") {
        return unknown();
    }
    if text.contains("not enough") || text.contains("unexpected end") || text.contains("premature")
    {
        return Refusal::new(
            Reason::Truncated,
            "the file ends in the middle of an element; send it again",
        );
    }
    Refusal::new(
        Reason::Malformed,
        "the file's elements cannot be read; it may be damaged or not be DICOM",
    )
}

/// An element's text, whatever VR it came with; the first characters of a very long one.
pub(super) fn text(data: &InMemDicomObject, tag: Tag) -> Option<String> {
    Some(whole_text(data.get(tag)?)?.chars().take(TEXT_CHARACTERS_MAX).collect())
}

/// As [`text`], of an element at hand, and all of it.
pub(super) fn whole_text(element: &InMemElement) -> Option<String> {
    let whole = if as_bytes(element) {
        let bytes = element.to_bytes().ok()?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        element.to_str().ok()?.into_owned()
    };
    let trimmed = whole.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// The VR of an element; for one that came as UN, the one that the dictionary has for its tag.
pub(super) fn vr_of(element: &InMemElement) -> VR {
    let known = || StandardDataDictionary.by_tag(element.header().tag);
    match element.vr() {
        VR::UN => known().map_or(VR::UN, |entry| entry.vr.relaxed()),
        vr => vr,
    }
}

/// Text that came as bytes since its VR is UN.
fn as_bytes(element: &InMemElement) -> bool {
    matches!(element.vr(), VR::UN | VR::OB)
}

/// A UID without the padding that it was written with.
pub(super) fn trimmed(uid: &str) -> String {
    uid.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
}

/// An element's numbers, whatever VR they came with.
pub(super) fn numbers(data: &InMemDicomObject, tag: Tag) -> Option<Vec<f64>> {
    let element = data.get(tag)?;
    if as_bytes(element) && !binary(tag) {
        let text = text(data, tag)?;
        return text.split('\\').map(|part| part.trim().parse().ok()).collect();
    }
    if as_bytes(element) {
        let bytes = element.to_bytes().ok()?;
        return Some(
            bytes
                .chunks_exact(2)
                .map(|pair| f64::from(u16::from_le_bytes([pair[0], pair[1]])))
                .collect(),
        );
    }
    element.to_multi_float64().ok().filter(|all| !all.is_empty())
}

/// One number.
pub(super) fn number(data: &InMemDicomObject, tag: Tag) -> Option<f64> {
    numbers(data, tag)?.first().copied().filter(|value| value.is_finite())
}

/// A number that counts something.
pub(super) fn count(data: &InMemDicomObject, tag: Tag) -> Option<u32> {
    let value = number(data, tag)?;
    (0.0..=f64::from(u32::MAX)).contains(&value).then_some(value as u32)
}

/// Attributes whose values are binary unsigned shorts.
fn binary(tag: Tag) -> bool {
    matches!(
        tag,
        tags::ROWS
            | tags::COLUMNS
            | tags::BITS_ALLOCATED
            | tags::BITS_STORED
            | tags::SAMPLES_PER_PIXEL
            | tags::PIXEL_REPRESENTATION
            | tags::PLANAR_CONFIGURATION
            | tags::PIXEL_PADDING_VALUE
    )
}

/// The items of a sequence.
pub(super) fn items(data: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    data.get(tag).and_then(|element| element.items()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn inflating_has_an_end() {
        let mut deflate =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        deflate.write_all(&[7; 5000]).unwrap();
        let small = deflate.finish().unwrap();
        assert_eq!(inflate(&small, 5000).unwrap(), [7; 5000]);
        assert_eq!(inflate(&small, 4999).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(inflate(&small[..small.len() - 3], 5000).unwrap_err().reason, Reason::Truncated);
    }
}
