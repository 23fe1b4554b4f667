//! A look at the lengths of a file's elements before anything is read.
//!
//! dicom-rs 0.10.1 makes room for what a length claims before it finds that the file is shorter: a
//! flipped bit costs gigabytes. It also stops at a meta group without its length or with a wrong
//! one, and at bytes that were left behind the pixels. This walk steps over the elements without
//! reading their values, so all of that is known first.

use super::refusal::{Reason, Refusal};

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
    /// Whether the group length is there and right.
    pub(super) sound: bool,
}

const UNDEFINED: u32 = u32::MAX;
const ITEM: (u16, u16) = (0xfffe, 0xe000);
const DELIMITERS: [(u16, u16); 2] = [(0xfffe, 0xe00d), (0xfffe, 0xe0dd)];
const PIXEL_DATA: (u16, u16) = (0x7fe0, 0x0010);
const LONG_VRS: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// One element's header.
struct Element {
    tag: (u16, u16),
    vr: [u8; 2],
    length: u32,
    value: usize,
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
        return Ok(Element { tag, vr: *b"  ", length, value: at + 8 });
    }
    let vr: [u8; 2] = number(bytes, at + 4)?;
    if LONG_VRS.contains(&&vr) {
        return Ok(Element { tag, vr, length: long(bytes, at + 8, encoding)?, value: at + 12 });
    }
    let length = u32::from(short(bytes, at + 6, encoding)?);
    Ok(Element { tag, vr, length, value: at + 8 })
}

/// Steps over the meta group that begins at `start`.
pub(super) fn meta(bytes: &[u8], start: usize) -> Result<Meta, Refusal> {
    let encoding = Encoding { explicit: true, big: false };
    let mut at = start;
    let mut claimed = None;
    let mut transfer_syntax = None;
    while bytes.get(at..at + 2) == Some(&[2, 0]) {
        let element = element(bytes, at, encoding)?;
        let end =
            element.value.checked_add(element.length as usize).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(cut)?;
        let value = &bytes[element.value..end];
        match element.tag.1 {
            0x0000 if value.len() == 4 => {
                claimed = Some(end + long(bytes, element.value, encoding)? as usize);
            }
            0x0010 => {
                let text = String::from_utf8_lossy(value);
                let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
                transfer_syntax = (!text.is_empty()).then(|| text.to_owned());
            }
            _ => {}
        }
        at = end;
    }
    let sound = claimed == Some(at) && transfer_syntax.is_some();
    Ok(Meta { end: at, transfer_syntax, sound })
}

/// How a data set that begins with these bytes is encoded.
pub(super) fn guess(bytes: &[u8]) -> Encoding {
    let explicit = bytes.get(4..6).is_some_and(|vr| vr.iter().all(u8::is_ascii_uppercase));
    Encoding { explicit, big: bytes.first() == Some(&0) && bytes.get(1) == Some(&8) }
}

/// Steps over a data set and gives the end of what belongs to it: all of it, or the end of the
/// pixels where no element follows them.
pub(super) fn data_set(bytes: &[u8], encoding: Encoding) -> Result<usize, Refusal> {
    let mut at = 0;
    let mut depth = 0_usize;
    // The end of the outermost sequence of a defined length.
    let mut nested_until = 0;
    let mut in_fragments = false;
    while at < bytes.len() {
        let element = element(bytes, at, encoding)?;
        let undefined = element.length == UNDEFINED;
        let sequence = &element.vr == b"SQ";
        if undefined && &element.vr == b"UN" {
            // Its items are encoded another way; the parser has to tell.
            return Ok(bytes.len());
        }
        if DELIMITERS.contains(&element.tag) {
            depth = depth.saturating_sub(1);
            at = element.value;
            if in_fragments && element.tag == DELIMITERS[1] {
                return Ok(tail(bytes, at, encoding));
            }
            continue;
        }
        if undefined {
            depth += 1;
            in_fragments |= element.tag == PIXEL_DATA && depth == 1 && at >= nested_until;
            at = element.value;
            continue;
        }
        let end = element.value.checked_add(element.length as usize).ok_or_else(cut)?;
        if end > bytes.len() {
            return Err(cut());
        }
        if element.tag == PIXEL_DATA && depth == 0 && at >= nested_until {
            return Ok(tail(bytes, end, encoding));
        }
        if sequence || element.tag == ITEM && !in_fragments {
            nested_until = nested_until.max(end);
            at = element.value;
        } else {
            at = end;
        }
    }
    Ok(bytes.len())
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
