//! Compressed pixels: what their own headers say, and RLE.
//!
//! A JPEG, JPEG-LS or JPEG 2000 stream has a header of its own. It is read before anything is decoded,
//! so that a stream of another size than the instance's costs no memory, and one that no codec here
//! reads is named. RLE (PS3.5 annex G) is decoded here in every depth, since dicom-rs 0.10.1 knows
//! 8 and 16 bits only; lossy JPEG of 12 bits and JPEG-LS by [`super::codec`]; the rest by dicom-rs.

use std::borrow::Cow;

use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::codec::{Picture, Shape, jpeg, jpeg_ls};
use super::read::{self, File, count};
use super::refusal::{Reason, Refusal};

const RLE: &str = "1.2.840.10008.1.2.5";
const JPEG_LS: [&str; 2] = ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"];
/// Offset of the first segment behind the RLE header: sixteen 32-bit numbers.
const RLE_HEADER: usize = 64;

/// What a compressed stream says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    rows: u32,
    columns: u32,
    /// Lossy JPEG of more than 8 bits.
    deep: bool,
    /// Whether it is sequential, with Huffman codes.
    sequential: bool,
}

/// Whether an instance is run-length encoded.
pub(super) fn is_rle(file: &File) -> bool {
    read::trimmed(file.meta().transfer_syntax()) == RLE
}

/// The codec of our own that decodes an instance's fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Lossy JPEG of more than 8 bits.
    DeepJpeg,
    /// JPEG-LS.
    JpegLs,
}

/// Which codec of our own decodes these fragments; none where dicom-rs does.
pub(super) fn own(file: &File, fragments: &[Vec<u8>]) -> Option<Own> {
    if JPEG_LS.contains(&read::trimmed(file.meta().transfer_syntax()).as_str()) {
        return Some(Own::JpegLs);
    }
    let deep = fragments.iter().filter_map(|fragment| stream(fragment)).any(|stream| stream.deep);
    deep.then_some(Own::DeepJpeg)
}

/// Decodes frames of such a size, one after the other. A frame may be in several fragments, of which the
/// first alone begins as a stream does. Returns the bits of each sample, and their bytes, the least first:
/// one of each where 8 bits are enough, else two.
pub(super) fn decode(
    own: Own,
    fragments: &[Vec<u8>],
    frames: usize,
    shape: Shape,
) -> Result<(u32, Vec<u8>), Refusal> {
    let malformed = |sentence: String| Refusal::new(Reason::Malformed, sentence);
    let mut streams: Vec<Vec<&[u8]>> = Vec::new();
    for fragment in fragments {
        match streams.last_mut() {
            Some(last) if frames == 1 || !fragment.starts_with(&[0xff, 0xd8]) => {
                last.push(fragment);
            }
            _ => streams.push(vec![fragment]),
        }
    }
    if streams.len() != frames {
        let found = streams.len();
        return Err(malformed(format!("the header says {frames} frames, and there are {found}")));
    }
    let (mut bits, mut bytes) = (0, Vec::new());
    for stream in streams {
        let stream = match stream[..] {
            [only] => Cow::Borrowed(only),
            _ => Cow::Owned(stream.concat()),
        };
        let Picture { bits: found, values } = match own {
            Own::DeepJpeg => jpeg::decode(&stream, shape)?,
            Own::JpegLs => jpeg_ls::decode(&stream, shape)?,
        };
        if bits != 0 && (bits > 8) != (found > 8) {
            return Err(malformed("its frames differ in the bits of their samples".into()));
        }
        bits = bits.max(found);
        if found > 8 {
            bytes.extend(values.into_iter().flat_map(u16::to_le_bytes));
        } else {
            bytes.extend(values.into_iter().map(|value| value as u8));
        }
    }
    Ok((bits, bytes))
}

/// Checks that fragments can be decoded, and hold what the instance's header says.
pub(super) fn check(file: &File, fragments: &[Vec<u8>]) -> Result<(), Refusal> {
    let unsupported = |sentence: String| Refusal::new(Reason::UnsupportedPixels, sentence);
    let known = TransferSyntaxRegistry.get(&read::trimmed(file.meta().transfer_syntax()));
    let decodable = known.is_some_and(|known| match known.codec() {
        Codec::EncapsulatedPixelData(reader, _) => reader.is_some(),
        Codec::None | Codec::Dataset(_) => false,
    });
    if !decodable && own(file, fragments).is_none() {
        let name = known.map_or("an unknown codec", |known| known.name());
        return Err(unsupported(format!(
            "pixels are encoded as {name}, which is not decoded here"
        )));
    }
    let frames = count(file, tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1) as usize;
    if frames > fragments.len() {
        return Err(Refusal::new(
            Reason::Truncated,
            format!("the header says {frames} frames, and there are {} fragments", fragments.len()),
        ));
    }
    let expected = (count(file, tags::ROWS), count(file, tags::COLUMNS));
    for stream in fragments.iter().filter_map(|fragment| stream(fragment)) {
        if stream.deep && !stream.sequential {
            let sentence = "pixels are lossy JPEG of 12 bits that is not sequential, which is not decoded here";
            return Err(unsupported(sentence.into()));
        }
        if expected != (Some(stream.rows), Some(stream.columns)) {
            return Err(Refusal::new(
                Reason::Malformed,
                format!(
                    "the compressed pixels are {} by {}, which is not what the header says",
                    stream.columns, stream.rows
                ),
            ));
        }
    }
    Ok(())
}

/// The header of a JPEG (ISO 10918-1 B.2) or JPEG 2000 stream (ISO 15444-1 A.5), if this is one.
fn stream(bytes: &[u8]) -> Option<Stream> {
    let short = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.starts_with(&[0xff, 0x4f, 0xff, 0x51]) {
        let side = |size: usize, offset: usize| Some(long(size)?.saturating_sub(long(offset)?));
        return Some(Stream {
            columns: side(8, 16)?,
            rows: side(12, 20)?,
            deep: false,
            sequential: false,
        });
    }
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return None;
    }
    let mut at = 2;
    loop {
        let marker = short(at)?;
        match marker {
            // Fill bytes.
            0xffff => at += 1,
            // Of JPEG-LS the head is the same.
            0xffc0..=0xffcf | 0xfff7 if !matches!(marker, 0xffc4 | 0xffc8 | 0xffcc) => {
                let lossy = !matches!(marker, 0xffc3 | 0xffc7 | 0xffcb | 0xffcf | 0xfff7);
                return Some(Stream {
                    rows: short(at + 5)?.into(),
                    columns: short(at + 7)?.into(),
                    deep: lossy && *bytes.get(at + 4)? > 8,
                    sequential: matches!(marker, 0xffc0 | 0xffc1),
                });
            }
            0xff01..=0xfffe => at += 2 + usize::from(short(at + 2)?),
            _ => return None,
        }
    }
}

/// Fragments of JPEG whose colours are red, green and blue, with the marker that says so, where
/// they lack it: without a marker dicom-rs 0.10.1 takes any colours for `YCbCr`.
pub(super) fn with_colour_marker(fragments: &[Vec<u8>], photometric: &str) -> Option<Vec<Vec<u8>>> {
    /// Adobe's APP14 segment: version 100, no flags, no colour transform.
    const ADOBE: &[u8] = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00";
    // One file of the tests has a segment of APP14 that is too short to say anything.
    let lacks = |fragment: &&Vec<u8>| {
        fragment.starts_with(&[0xff, 0xd8])
            && !matches!(fragment.get(2..6), Some([0xff, 0xe0, ..] | [0xff, 0xee, 0, 14..=255]))
    };
    if photometric != "RGB" || fragments.iter().find(lacks).is_none() {
        return None;
    }
    let mark = |fragment: &Vec<u8>| {
        if lacks(&fragment) {
            [&fragment[..2], ADOBE, &fragment[2..]].concat()
        } else {
            fragment.clone()
        }
    };
    Some(fragments.iter().map(mark).collect())
}

/// Decodes RLE frames to samples that lie pixel by pixel, the least byte first.
///
/// `area` is in pixels, `samples` for each pixel, `bytes` for each sample.
pub(super) fn unpack(
    fragments: &[Vec<u8>],
    frames: usize,
    [area, samples, bytes]: [usize; 3],
) -> Result<Vec<u8>, Refusal> {
    let malformed = || Refusal::new(Reason::Malformed, "the run-length encoded pixels are damaged");
    let whole;
    let of_frame: Vec<&[u8]> = if frames == 1 {
        whole = fragments.concat();
        vec![&whole]
    } else {
        fragments.iter().map(Vec::as_slice).collect()
    };
    if of_frame.len() != frames {
        return Err(malformed());
    }
    let stride = samples * bytes;
    let mut out = vec![0; area * stride * frames];
    for (frame, to) in of_frame.iter().zip(out.chunks_exact_mut((area * stride).max(1))) {
        let number = |n: usize| {
            let four = frame.get(n * 4..n * 4 + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(four) as usize)
        };
        if number(0) != Some(stride) || stride >= RLE_HEADER / 4 {
            return Err(malformed());
        }
        for segment in 0..stride {
            let start = number(segment + 1).ok_or_else(malformed)?;
            let end = if segment + 1 == stride { None } else { number(segment + 2) };
            let end = end.unwrap_or(frame.len());
            let packed = frame.get(start..end).ok_or_else(malformed)?;
            // Segments go sample by sample, the greatest byte of each first.
            let place = segment / bytes * bytes + (bytes - 1 - segment % bytes);
            unpack_segment(packed, to.iter_mut().skip(place).step_by(stride))
                .ok_or_else(malformed)?;
        }
    }
    Ok(out)
}

/// Unpacks one segment into the places of its bytes; `None` where it ends before they are filled.
fn unpack_segment<'a>(packed: &[u8], mut to: impl Iterator<Item = &'a mut u8>) -> Option<()> {
    let mut next = to.next();
    let mut at = 0;
    while next.is_some() {
        let head = i32::from(*packed.get(at)? as i8);
        at += 1;
        let repeats = head < 0;
        // -128 is no run; a run of n repeats 1 - n times, a literal is n + 1 bytes.
        let count = if head == -128 { 0 } else { head.unsigned_abs() + 1 };
        for n in 0..count as usize {
            let value = *packed.get(if repeats { at } else { at + n })?;
            let Some(byte) = next.take() else { break };
            *byte = value;
            next = to.next();
        }
        at += match (count, repeats) {
            (0, _) => 0,
            (_, true) => 1,
            (count, false) => count as usize,
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_lengths_become_samples() {
        // One 16-bit frame of four pixels: high bytes 1 1 1 1, low bytes 5 6 7 7.
        let mut frame = vec![0_u8; RLE_HEADER];
        frame[0] = 2;
        frame[4] = 64;
        frame[8] = 66;
        frame.extend([0xfd, 1, 1, 5, 6, 0xff, 7]);
        let pixels = [5, 1, 6, 1, 7, 1, 7, 1];
        assert_eq!(unpack(&[frame.clone()], 1, [4, 1, 2]).unwrap(), pixels);
        for length in 0..frame.len() {
            assert!(unpack(&[frame[..length].to_vec()], 1, [4, 1, 2]).is_err(), "{length}");
        }
    }

    #[test]
    fn streams_say_their_size() {
        let jpeg = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 9, 9, 0xff, 0xc1, 0, 11, 12, 0, 3, 0, 5, 1];
        assert_eq!(
            stream(&jpeg),
            Some(Stream { rows: 3, columns: 5, deep: true, sequential: true })
        );
        let lossless = [0xff, 0xd8, 0xff, 0xc3, 0, 11, 12, 0, 3, 0, 5, 1];
        assert_eq!(
            stream(&lossless),
            Some(Stream { rows: 3, columns: 5, deep: false, sequential: false })
        );
        assert_eq!(stream(&lossless[..8]), None);
        assert_eq!(stream(b"neither"), None);
    }
}
