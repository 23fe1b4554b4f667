//! A look at the lengths of a file's elements before anything is read.
//!
//! dicom-rs 0.10.1 makes room for what a length claims before it finds that the file is shorter: a
//! flipped bit costs gigabytes. It reads whole numbers only, so that of a length which is no multiple of
//! theirs a rest stays and is taken for the next element. It also stops at a meta group without its length or with a wrong
//! one, at bytes that were left behind the pixels, and has no end to nesting. This walk steps over
//! the elements without reading their values, so all of that is known first.

use std::borrow::Cow;
use std::ops::Range;

use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::refusal::{Reason, Refusal};

/// How far a data set is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// To its end.
    End,
    /// To its pixels, which may be missing from the bytes.
    Pixels,
}

/// How elements stand in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) explicit: bool,
    pub(super) big: bool,
}

/// The meta group of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Where the data set begins.
    pub(super) end: usize,
    /// The transfer syntax, where it names one.
    pub(super) transfer_syntax: Option<String>,
    /// The SOP class, where it names one.
    pub(super) sop_class: Option<String>,
    /// The SOP instance, where it names one.
    pub(super) sop_instance: Option<String>,
}

pub(super) const IMPLICIT: Encoding = Encoding { explicit: false, big: false };
/// Sequences and items within one another: 32 sequences. The parser calls itself for each, and a
/// thread's stack is finite.
const NESTING_MAX: usize = 64;
const UNDEFINED: u32 = u32::MAX;
const ITEM: (u16, u16) = (0xfffe, 0xe000);
const ITEM_END: (u16, u16) = (0xfffe, 0xe00d);
const SEQUENCE_END: (u16, u16) = (0xfffe, 0xe0dd);
const PIXEL_DATA: (u16, u16) = (0x7fe0, 0x0010);
/// The group of all pixels, which stand behind everything that says what they are.
const PIXELS_GROUP: u16 = 0x7fe0;
/// VRs whose length has 16 bits; all others, and those that nobody knows, have 32 (PS3.5 7.1.2).
#[rustfmt::skip]
const SHORT_VRS: [VR; 21] = [
    VR::AE, VR::AS, VR::AT, VR::CS, VR::DA, VR::DS, VR::DT, VR::FL, VR::FD, VR::IS, VR::LO,
    VR::LT, VR::PN, VR::SH, VR::SL, VR::SS, VR::ST, VR::TM, VR::UI, VR::UL, VR::US,
];

/// One element's header.
struct Element {
    tag: (u16, u16),
    /// `None` where the encoding has none.
    vr: Option<VR>,
    length: u32,
    value: usize,
}

impl Element {
    /// Where its value ends, which is within what is around it.
    fn end(&self, within: usize) -> Result<usize, Refusal> {
        let end = self.value.checked_add(self.length as usize);
        end.filter(|end| *end <= within).ok_or_else(cut)
    }

    /// Whether its length is that of whole numbers, where its value is numbers.
    fn is_whole(&self) -> bool {
        let entry = || StandardDataDictionary.by_tag(Tag(self.tag.0, self.tag.1));
        let size = match self.vr.or_else(|| entry().map(|entry| entry.vr.relaxed())) {
            Some(VR::US | VR::SS | VR::OW) => 2,
            Some(VR::AT | VR::UL | VR::SL | VR::FL | VR::OF | VR::OL) => 4,
            Some(VR::FD | VR::OD | VR::SV | VR::UV | VR::OV) => 8,
            _ => 1,
        };
        self.length.is_multiple_of(size)
    }

    /// Whether its value is elements or items.
    fn holds_elements(&self, encoding: Encoding) -> bool {
        let sequence = || {
            let entry = StandardDataDictionary.by_tag(Tag(self.tag.0, self.tag.1));
            entry.is_some_and(|entry| entry.vr.exact() == Some(VR::SQ))
        };
        self.tag == ITEM || self.vr == Some(VR::SQ) || !encoding.explicit && sequence()
    }
}

fn nested() -> Refusal {
    Refusal::new(
        Reason::Malformed,
        format!("the file's sequences are nested more than {} deep", NESTING_MAX / 2),
    )
}

fn out_of_place() -> Refusal {
    Refusal::new(Reason::Malformed, "an item or a delimiter stands where none can")
}

fn uneven() -> Refusal {
    let sentence = "an element of numbers has a length that is no multiple of theirs";
    Refusal::new(Reason::Malformed, sentence)
}

fn cut() -> Refusal {
    Refusal::new(Reason::Truncated, "the file ends in the middle of an element; send it again")
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Refusal> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).ok_or_else(cut)
}

fn short(bytes: &[u8], at: usize, encoding: Encoding) -> Result<u16, Refusal> {
    let two = number(bytes, at)?;
    Ok(if encoding.big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
}

fn long(bytes: &[u8], at: usize, encoding: Encoding) -> Result<u32, Refusal> {
    let four = number(bytes, at)?;
    Ok(if encoding.big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
}

fn element(bytes: &[u8], at: usize, encoding: Encoding) -> Result<Element, Refusal> {
    let tag = (short(bytes, at, encoding)?, short(bytes, at + 2, encoding)?);
    if tag.0 == 0xfffe || !encoding.explicit {
        let length = long(bytes, at + 4, encoding)?;
        return Ok(Element { tag, vr: None, length, value: at + 8 });
    }
    let vr = VR::from_binary(number(bytes, at + 4)?).unwrap_or(VR::UN);
    if SHORT_VRS.contains(&vr) {
        let length = u32::from(short(bytes, at + 6, encoding)?);
        return Ok(Element { tag, vr: Some(vr), length, value: at + 8 });
    }
    Ok(Element { tag, vr: Some(vr), length: long(bytes, at + 8, encoding)?, value: at + 12 })
}

/// Steps over the meta group that begins at `start`.
pub(super) fn meta(bytes: &[u8], start: usize) -> Result<Meta, Refusal> {
    let encoding = Encoding { explicit: true, big: false };
    let mut at = start;
    let mut uids = [None, None, None];
    while bytes.get(at..at + 2) == Some(&[2, 0]) {
        let element = element(bytes, at, encoding)?;
        let end = element.end(bytes.len())?;
        let value = &bytes[element.value..end];
        if let Some(n) = [0x0002, 0x0003, 0x0010].iter().position(|number| *number == element.tag.1)
        {
            let text = String::from_utf8_lossy(value);
            let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
            uids[n] = (!text.is_empty()).then(|| text.to_owned());
        }
        at = end;
    }
    let [sop_class, sop_instance, transfer_syntax] = uids;
    Ok(Meta { end: at, transfer_syntax, sop_class, sop_instance })
}

/// How a data set that begins with these bytes is encoded.
pub(super) fn guess(bytes: &[u8]) -> Encoding {
    let explicit = bytes.get(4..6).is_some_and(|vr| vr.iter().all(u8::is_ascii_uppercase));
    Encoding { explicit, big: bytes.first() == Some(&0) && bytes.get(1) == Some(&8) }
}

/// What something that is open is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    /// A data set or an item: elements.
    Elements,
    /// A sequence: items.
    Items,
    /// Encapsulated pixels: items whose values are bytes.
    Fragments,
}

impl Parts {
    /// Whether an element may stand there. The parser goes on where it may not, and takes what follows
    /// for something else than this walk does.
    fn may_hold(self, tag: (u16, u16)) -> bool {
        match self {
            Self::Elements => tag != ITEM && tag != SEQUENCE_END,
            Self::Items | Self::Fragments => tag == ITEM || tag == SEQUENCE_END,
        }
    }
}

/// What the walk is inside of.
struct Open {
    /// Where it ends; `None` where a delimiter says so.
    end: Option<usize>,
    /// What nothing in it goes beyond.
    within: usize,
    encoding: Encoding,
    parts: Parts,
    /// Where it began, if it is left out.
    left_out: Option<usize>,
}

/// Steps over a data set and gives the bytes for the parser: without what lies behind the pixels
/// and is no element, and without elements of VR UN and undefined length, whose items are implicit
/// whatever the data set is (PS3.5 6.2.2), which dicom-rs does not know.
pub(super) fn data_set(
    bytes: &[u8],
    encoding: Encoding,
    until: Until,
) -> Result<Cow<'_, [u8]>, Refusal> {
    let mut at = 0;
    let mut open: Vec<Open> = Vec::new();
    let mut left_out: Vec<Range<usize>> = Vec::new();
    let mut end = bytes.len();
    while at < end {
        while open.last().is_some_and(|top| top.end.is_some_and(|end| end <= at)) {
            open.pop();
        }
        let (within, encoded, parts) =
            open.last().map_or((bytes.len(), encoding, Parts::Elements), |top| {
                (top.within, top.encoding, top.parts)
            });
        let element = element(bytes, at, encoded)?;
        if until == Until::Pixels && open.is_empty() && element.tag.0 >= PIXELS_GROUP {
            end = at;
            break;
        }
        if !parts.may_hold(element.tag) {
            return Err(out_of_place());
        }
        if element.tag == ITEM_END || element.tag == SEQUENCE_END {
            // It has none (PS3.5 7.5); where it claims one, dicom-rs makes room for that too.
            element.end(within)?;
            let closed = open.pop();
            at = element.value;
            if let Some(start) = closed.and_then(|closed| closed.left_out) {
                left_out.push(start..at);
            }
            if parts == Parts::Fragments && open.is_empty() {
                end = tail(bytes, at, encoding);
            }
            continue;
        }
        let defined = (element.length != UNDEFINED).then(|| element.end(within)).transpose()?;
        if defined.is_some() && !element.is_whole() {
            return Err(uneven());
        }
        let unknown = defined.is_none() && element.vr == Some(VR::UN);
        let enters =
            parts != Parts::Fragments && (defined.is_none() || element.holds_elements(encoded));
        if enters {
            if open.len() >= NESTING_MAX {
                return Err(nested());
            }
            open.push(Open {
                end: defined,
                within: defined.unwrap_or(within),
                encoding: if unknown { IMPLICIT } else { encoded },
                parts: match element.tag {
                    ITEM => Parts::Elements,
                    PIXEL_DATA if defined.is_none() => Parts::Fragments,
                    _ => Parts::Items,
                },
                left_out: unknown.then_some(at),
            });
            at = element.value;
            continue;
        }
        at = defined.ok_or_else(cut)?;
        if element.tag == PIXEL_DATA && open.is_empty() {
            end = tail(bytes, at, encoding);
        }
    }
    if left_out.is_empty() {
        return Ok(Cow::Borrowed(&bytes[..end]));
    }
    // Those within others ended first and go with them.
    left_out.sort_by_key(|range| range.start);
    let mut kept = Vec::with_capacity(end);
    let mut from = 0;
    for range in left_out.iter().filter(|range| range.end <= end) {
        if range.start >= from {
            kept.extend_from_slice(&bytes[from..range.start]);
            from = range.end;
        }
    }
    kept.extend_from_slice(&bytes[from..end]);
    Ok(Cow::Owned(kept))
}

/// What follows the pixels: the rest where it begins as an element of a higher group, nothing
/// where it does not.
fn tail(bytes: &[u8], at: usize, encoding: Encoding) -> usize {
    let belongs = element(bytes, at, encoding).is_ok_and(|next| {
        let fits =
            next.value.checked_add(next.length as usize).is_some_and(|end| end <= bytes.len());
        next.tag > PIXEL_DATA && (fits || next.length == UNDEFINED)
    });
    if belongs { bytes.len() } else { at }
}
