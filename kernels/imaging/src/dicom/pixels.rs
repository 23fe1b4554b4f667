//! Pixels as real values.
//!
//! Native pixels are read here, in every format that PS3.5 knows: 1, 8, 16 and 32 bits, signed or
//! not, colour by pixel or by plane, `YBR_FULL_422`. Encapsulated ones are decoded by dicom-rs or by
//! codecs of our own ([`super::codec`]).
//! Values are after the rescale of their frame (PS3.3 C.11.1); padding is set to the least value
//! that is no padding, so that it lies in the air around a patient.

use std::ops::RangeInclusive;

use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use dicom_pixeldata::PixelDecoder;

use super::codec::Shape;
use super::encapsulated;
use super::read::{self, EXPLICIT_BE, File, count, items, number, text};
use super::refusal::{Reason, Refusal};

/// Samples of all frames together: 1024 frames of 1024 x 512, 2 GiB as `f32`.
const SAMPLES_MAX: u64 = 1 << 29;

/// The frames of an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub columns: usize,
    /// 1 for grey, 3 for colour (red, green, blue for each pixel).
    pub samples: usize,
    /// Whether small values are shown bright (MONOCHROME1). The values are as they came.
    pub inverted: bool,
    /// The values of each frame, row by row.
    pub frames: Vec<Vec<f32>>,
}

/// How samples stand in bytes.
struct Format {
    rows: usize,
    columns: usize,
    samples: usize,
    frames: usize,
    bits_allocated: u32,
    bits_stored: u32,
    high_bit: u32,
    signed: bool,
    planar: bool,
    subsampled: bool,
    photometric: String,
}

/// Decodes the pixels of a file to real values.
///
/// # Errors
/// Where the file cannot be read, has no pixels, or has pixels that cannot be decoded here.
pub fn pixels(bytes: &[u8]) -> Result<Frames, Refusal> {
    let file = read::parse(bytes)?;
    read::guarded(|| of_file(&file))
}

pub(super) fn of_file(file: &File) -> Result<Frames, Refusal> {
    let element = file
        .get(tags::PIXEL_DATA)
        .ok_or_else(|| Refusal::new(Reason::NoPixels, "the instance has no pixels"))?;
    let mut format = format(file)?;
    format.check_size()?;
    let raw = match element.fragments() {
        Some(fragments) => decode(file, fragments, &mut format)?,
        None => native(file, element, &format)?,
    };
    let padding = padding(file, &format);
    let mut frames = Vec::new();
    for frame in 0..format.frames {
        let mut values = samples(&raw, frame, &format)?;
        let (slope, intercept) = rescale(file, frame);
        pad(&mut values, padding.as_ref());
        if format.samples == 1 && (slope, intercept) != (1.0, 0.0) {
            for value in &mut values {
                *value = (f64::from(*value) * slope + intercept) as f32;
            }
        }
        frames.push(values);
    }
    Ok(Frames {
        rows: format.rows,
        columns: format.columns,
        samples: format.samples,
        inverted: format.photometric == "MONOCHROME1",
        frames,
    })
}

impl Format {
    fn check_size(&self) -> Result<(), Refusal> {
        let total = (self.rows as u64 * self.columns as u64)
            .saturating_mul(self.samples as u64)
            .saturating_mul(self.frames as u64);
        if total <= SAMPLES_MAX {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::TooLarge,
            format!("the instance has {total} samples; at most {SAMPLES_MAX} are read"),
        ))
    }
}

/// Native pixels, the least byte of each sample first.
fn native(file: &File, element: &InMemElement, format: &Format) -> Result<Vec<u8>, Refusal> {
    let bytes = element
        .to_bytes()
        .map_err(|_| Refusal::new(Reason::Malformed, "the instance's pixels are no bytes"))?;
    let mut bytes = bytes.into_owned();
    let big = read::trimmed(file.meta().transfer_syntax()) == EXPLICIT_BE;
    if big && format.bits_allocated == 32 && element.vr() == VR::OW {
        // They were taken for words of 16 bits and each word was turned; the words were not.
        for sample in bytes.chunks_exact_mut(4) {
            sample.rotate_left(2);
        }
    }
    Ok(bytes)
}

/// Compressed pixels as if they were native.
fn decode(file: &File, fragments: &[Vec<u8>], format: &mut Format) -> Result<Vec<u8>, Refusal> {
    encapsulated::check(file, fragments)?;
    // Decoders give whole pixels side by side.
    (format.planar, format.subsampled) = (false, false);
    if encapsulated::is_rle(file) {
        let bytes = format.bits_allocated.div_ceil(8) as usize;
        let shape = [format.rows * format.columns, format.samples, bytes];
        return encapsulated::unpack(fragments, format.frames, shape);
    }
    if let Some(own) = encapsulated::own(file, fragments) {
        let shape = Shape { rows: format.rows, columns: format.columns, samples: format.samples };
        let (bits, raw) = encapsulated::decode(own, fragments, format.frames, shape)?;
        // As wide as the samples are; which of their bits count the instance says.
        format.bits_allocated = if bits > 8 { 16 } else { 8 };
        format.bits_stored = format.bits_stored.min(format.bits_allocated);
        format.high_bit = format.high_bit.min(format.bits_allocated - 1);
        return Ok(raw);
    }
    let marked =
        encapsulated::with_colour_marker(fragments, &format.photometric).map(|fragments| {
            let mut marked = file.clone();
            let sequence = PixelFragmentSequence::new(Vec::new(), fragments);
            marked.put(DataElement::new(tags::PIXEL_DATA, VR::OB, sequence));
            marked
        });
    let decoded = marked.as_ref().unwrap_or(file).decode_pixel_data().map_err(|_| {
        Refusal::new(Reason::UnsupportedPixels, "the compressed pixels cannot be decoded here")
    })?;
    format.bits_allocated = u32::from(decoded.bits_allocated());
    format.bits_stored = u32::from(decoded.bits_stored());
    format.high_bit = u32::from(decoded.high_bit());
    format.samples = usize::from(decoded.samples_per_pixel());
    format.frames = decoded.number_of_frames() as usize;
    if format.samples == 3 {
        // JPEG 2000 and lossy JPEG decoders give RGB already.
        format.photometric = decoded.photometric_interpretation().to_string();
    }
    format.check_size()?;
    Ok(decoded.into_data())
}

fn format(file: &File) -> Result<Format, Refusal> {
    let missing = |what: &str| {
        Refusal::new(Reason::Malformed, format!("the instance does not say its {what}"))
    };
    let rows = count(file, tags::ROWS).filter(|n| *n > 0).ok_or_else(|| missing("rows"))?;
    let columns =
        count(file, tags::COLUMNS).filter(|n| *n > 0).ok_or_else(|| missing("columns"))?;
    let bits_allocated = count(file, tags::BITS_ALLOCATED).ok_or_else(|| missing("bits"))?;
    let bits_stored = count(file, tags::BITS_STORED).unwrap_or(bits_allocated).min(bits_allocated);
    let photometric =
        text(file, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_else(|| "MONOCHROME2".into());
    let samples = count(file, tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    if !matches!(samples, 1 | 3) {
        return Err(Refusal::new(
            Reason::UnsupportedPixels,
            format!("the instance has {samples} samples for each pixel; 1 and 3 are read"),
        ));
    }
    Ok(Format {
        rows: rows as usize,
        columns: columns as usize,
        samples: samples as usize,
        frames: count(file, tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1) as usize,
        bits_allocated,
        bits_stored,
        high_bit: count(file, tags::HIGH_BIT).unwrap_or(bits_stored.saturating_sub(1)),
        signed: count(file, tags::PIXEL_REPRESENTATION).unwrap_or(0) == 1,
        planar: count(file, tags::PLANAR_CONFIGURATION).unwrap_or(0) == 1 && samples == 3,
        subsampled: photometric.starts_with("YBR_FULL_422"),
        photometric,
    })
}

/// One frame's samples, pixel by pixel.
fn samples(raw: &[u8], frame: usize, format: &Format) -> Result<Vec<f32>, Refusal> {
    let area = format.rows * format.columns;
    let cut = || {
        Refusal::new(
            Reason::Truncated,
            "the instance has fewer pixels than its header says; send it again",
        )
    };
    if format.bits_allocated == 1 {
        let bit =
            |n: usize| raw.get(n / 8).map(|byte| f32::from(byte >> (n % 8) & 1)).ok_or_else(cut);
        return (frame * area..(frame + 1) * area).map(bit).collect();
    }
    let bytes = match format.bits_allocated {
        8 => 1,
        16 => 2,
        32 => 4,
        bits => {
            return Err(Refusal::new(
                Reason::UnsupportedPixels,
                format!("the instance has {bits} bits for each sample; 1, 8, 16 and 32 are read"),
            ));
        }
    };
    let stored = if format.subsampled { area * 2 } else { area * format.samples };
    let part = raw.get(frame * stored * bytes..(frame + 1) * stored * bytes).ok_or_else(cut)?;
    let values: Vec<f32> = part.chunks_exact(bytes).map(|sample| value(sample, format)).collect();
    let mut values = match (format.planar, format.subsampled) {
        (true, _) => (0..area * 3).map(|n| values[n % 3 * area + n / 3]).collect(),
        // Two pixels share their colour: Y1 Y2 Cb Cr.
        (_, true) => values
            .chunks_exact(4)
            .flat_map(|pair| [pair[0], pair[2], pair[3], pair[1], pair[2], pair[3]])
            .collect(),
        _ => values,
    };
    if format.photometric.starts_with("YBR_FULL")
        && format.samples == 3
        && format.bits_allocated <= 16
    {
        let half = f32::from(1_u16 << (format.bits_stored.clamp(1, 16) - 1));
        values.chunks_exact_mut(3).for_each(|pixel| to_rgb(pixel, half));
    }
    Ok(values)
}

fn value(sample: &[u8], format: &Format) -> f32 {
    let raw = sample.iter().rev().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let shift = (format.high_bit + 1).saturating_sub(format.bits_stored).min(31);
    let unused = 32 - format.bits_stored.clamp(1, 32);
    // Shifted to the top and back, so that overlays in the unused bits go and a sign stays.
    let top = (raw >> shift) << unused;
    if format.signed { (top as i32 >> unused) as f32 } else { (top >> unused) as f32 }
}

/// `YBR_FULL` to red, green and blue (PS3.3 C.7.6.3.1.2); no colour is half of what there is.
fn to_rgb(pixel: &mut [f32], half: f32) {
    let (y, cb, cr) = (pixel[0], pixel[1] - half, pixel[2] - half);
    let most = 2.0 * half - 1.0;
    pixel[0] = (y + 1.402 * cr).clamp(0.0, most);
    pixel[1] = (y - 0.344_136 * cb - 0.714_136 * cr).clamp(0.0, most);
    pixel[2] = (y + 1.772 * cb).clamp(0.0, most);
}

/// The stored values that are padding: one, or all from one to another (PS3.3 C.7.5.1.1.2).
fn padding(file: &File, format: &Format) -> Option<RangeInclusive<f32>> {
    let value = |tag| {
        let value = number(file, tag)? as i64;
        // Some write a signed value as unsigned, or the other way round.
        Some(match (format.signed, format.bits_allocated) {
            (true, 16) => f32::from(value as u16 as i16),
            (false, 16) => f32::from(value as u16),
            _ => value as f32,
        })
    };
    let one = value(tags::PIXEL_PADDING_VALUE)?;
    let other = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(one);
    Some(one.min(other)..=one.max(other))
}

fn pad(values: &mut [f32], padding: Option<&RangeInclusive<f32>>) {
    let Some(padding) = padding else { return };
    let images = values.iter().copied().filter(|value| !padding.contains(value));
    if let Some(least) = images.min_by(f32::total_cmp).filter(|least| padding.end() < least) {
        values.iter_mut().filter(|value| padding.contains(value)).for_each(|value| *value = least);
    }
}

/// Slope and intercept of a frame: its own, the shared ones, or the instance's.
fn rescale(file: &File, frame: usize) -> (f64, f64) {
    let within = |data: &InMemDicomObject| {
        Some((number(data, tags::RESCALE_SLOPE)?, number(data, tags::RESCALE_INTERCEPT)?))
    };
    functional(file, frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)
        .and_then(within)
        .or_else(|| {
            let slope = number(file, tags::RESCALE_SLOPE);
            let intercept = number(file, tags::RESCALE_INTERCEPT);
            (slope.is_some() || intercept.is_some())
                .then(|| (slope.unwrap_or(1.0), intercept.unwrap_or(0.0)))
        })
        .filter(|(slope, _)| *slope != 0.0)
        .unwrap_or((1.0, 0.0))
}

/// The first item of a frame's functional group: its own, or the shared one.
pub(super) fn functional(file: &File, frame: usize, tag: Tag) -> Option<&InMemDicomObject> {
    let own = items(file, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(frame);
    let shared = items(file, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
    own.and_then(|groups| items(groups, tag).first())
        .or_else(|| shared.and_then(|groups| items(groups, tag).first()))
}
