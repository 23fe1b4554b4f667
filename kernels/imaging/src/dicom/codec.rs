//! Codecs of our own, for what dicom-rs does not decode: lossy JPEG of 12 bits and JPEG-LS.
//!
//! Both are streams of segments that begin with a marker (ITU-T T.81 annex B), and both are told how
//! large a picture has to be before anything is decoded: a stream that says otherwise is refused, so that
//! none takes more memory than the instance's header allows. Nothing here panics on any bytes, and nothing
//! takes longer than the picture is large. A stream that ends early is refused; no pixel is made up.

pub(super) mod jpeg;
pub(super) mod jpeg_ls;

use super::refusal::{Reason, Refusal};

/// How large a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Of each pixel: 1 or 3.
    pub(super) samples: usize,
}

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// Bits of each sample.
    pub(super) bits: u32,
    /// Pixel by pixel, row by row.
    pub(super) values: Vec<u16>,
}

/// A segment of a stream: its marker's second byte, and what it holds.
struct Segment<'a> {
    marker: u8,
    data: &'a [u8],
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;

fn damaged(what: &str) -> Refusal {
    Refusal::new(Reason::Malformed, format!("the compressed pixels are damaged: {what}"))
}

fn truncated() -> Refusal {
    Refusal::new(Reason::Truncated, "the compressed pixels end early; send the instance again")
}

fn unsupported(what: &str) -> Refusal {
    Refusal::new(Reason::UnsupportedPixels, format!("pixels are {what}, which is not decoded here"))
}

/// The segment at a place, which is moved behind it. Of what lies between two markers nothing is read.
fn segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Segment<'a>, Refusal> {
    loop {
        if *bytes.get(*at).ok_or_else(truncated)? != 0xff {
            return Err(damaged("a marker is missing"));
        }
        let marker = *bytes.get(*at + 1).ok_or_else(truncated)?;
        // Fill bytes.
        if marker == 0xff {
            *at += 1;
            continue;
        }
        *at += 2;
        if matches!(marker, SOI | EOI | 0x01 | 0xd0..=0xd7) {
            return Ok(Segment { marker, data: &[] });
        }
        let length = bytes.get(*at..*at + 2).ok_or_else(truncated)?;
        let length = usize::from(short(length, 0));
        let data = bytes.get(*at + 2..*at + length.max(2)).ok_or_else(truncated)?;
        *at += length.max(2);
        return Ok(Segment { marker, data });
    }
}

/// Two bytes as a number, the greater first; the place must be there.
fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Refuses a stream whose frame is of another size than the instance says.
fn check_shape(found: Shape, expected: Shape) -> Result<(), Refusal> {
    if found == expected {
        return Ok(());
    }
    Err(Refusal::new(
        Reason::Malformed,
        format!(
            "the compressed pixels are {} by {} with {} samples each, which is not what the header says",
            found.columns, found.rows, found.samples
        ),
    ))
}
