//! Sequential JPEG with Huffman codes (ITU-T T.81, ISO 10918-1): process 1, and processes 2 and 4 of 8
//! and 12 bits. Progressive, lossless and arithmetic streams are refused.
//!
//! The inverse transform is the sum that the standard defines, in 64-bit floats and in one order, rounded
//! once: the same values on every machine, within one step of those of decoders that compute in integers.
//! Colours whose samples are fewer than the picture's pixels are repeated.

use super::{EOI, Picture, SOI, SOS, Segment, Shape, check_shape, damaged, segment, short};
use super::{truncated, unsupported};
use crate::dicom::refusal::Refusal;

/// Where the coefficient of each place of a stream lies in a block, row by row (T.81 figure A.6).
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
/// Pixels that one byte can hold: a block of 64 takes two codes of one bit each at least.
const PIXELS_PER_BYTE_MAX: usize = 256;
/// The greatest coefficient before it is multiplied: differences add up, and no sound stream comes near.
const COEFFICIENT_MAX: i32 = 1 << 20;

/// A component of the frame.
struct Component {
    id: u8,
    /// Blocks of each unit along x and y.
    sampling: [usize; 2],
    quantisation: usize,
    /// Blocks that hold the picture along x and y, and those of all units.
    blocks: [usize; 2],
    stride: usize,
    /// Samples, in rows of `stride` blocks.
    plane: Vec<u16>,
}

/// The frame's head.
struct Frame {
    bits: u32,
    shape: Shape,
    /// Units along x and y.
    units: [usize; 2],
    components: Vec<Component>,
}

/// What segments have set up.
#[derive(Default)]
struct Tables {
    quantisation: [Option<[u16; 64]>; 4],
    /// For the first coefficients of blocks, and for the others.
    codes: [[Option<Codes>; 4]; 2],
    /// Units between restarts; 0 for none.
    restart: usize,
}

/// Decodes a stream, which must be of this size.
///
/// # Errors
/// Where it is damaged, ends early, is of another size, or of a kind that is not decoded.
pub(in super::super) fn decode(bytes: &[u8], expected: Shape) -> Result<Picture, Refusal> {
    let mut at = 0;
    if segment(bytes, &mut at)?.marker != SOI {
        return Err(damaged("they do not begin as JPEG does"));
    }
    let pixels = expected.rows * expected.columns;
    if pixels.div_ceil(PIXELS_PER_BYTE_MAX) > bytes.len() {
        return Err(truncated());
    }
    let mut tables = Tables::default();
    let mut frame: Option<Frame> = None;
    let mut left = expected.samples;
    while left > 0 {
        let Segment { marker, data } = segment(bytes, &mut at)?;
        match marker {
            0xc0 | 0xc1 if frame.is_some() => return Err(damaged("they have two heads")),
            0xc0 | 0xc1 => frame = Some(Frame::read(data, expected)?),
            0xc4 => tables.read_codes(data)?,
            0xdb => tables.read_quantisation(data)?,
            0xdd if data.len() == 2 => tables.restart = usize::from(short(data, 0)),
            SOS => {
                let frame = frame.as_mut().ok_or_else(|| damaged("they have no head"))?;
                let scan = frame.scan(data, &tables)?;
                left = left.checked_sub(scan.len()).ok_or_else(|| damaged("a scan too many"))?;
                at += frame.decode(&scan, &tables, &bytes[at..])?;
            }
            EOI => return Err(truncated()),
            0xe0..=0xef | 0xfe => {}
            0xc2 => return Err(unsupported("progressive JPEG of more than 8 bits")),
            _ => return Err(unsupported("JPEG of a kind other than sequential")),
        }
    }
    Ok(frame.ok_or_else(|| damaged("they have no head"))?.picture())
}

impl Frame {
    fn read(data: &[u8], expected: Shape) -> Result<Self, Refusal> {
        if data.len() < 6 || data.len() != 6 + 3 * usize::from(data[5]) {
            return Err(damaged("their head is cut"));
        }
        let bits = u32::from(data[0]);
        let (rows, columns) = (usize::from(short(data, 1)), usize::from(short(data, 3)));
        let shape = Shape { rows, columns, samples: usize::from(data[5]) };
        check_shape(shape, expected)?;
        if !matches!(bits, 8 | 12) {
            return Err(damaged("their samples have neither 8 nor 12 bits"));
        }
        let mut components = Vec::new();
        for about in data[6..].chunks_exact(3) {
            let mut sampling = [usize::from(about[1] >> 4), usize::from(about[1] & 15)];
            if !sampling.iter().all(|side| (1..=4).contains(side)) || about[2] > 3 {
                return Err(damaged("a component's sampling or table is none"));
            }
            // One alone is sampled once, whatever its numbers say.
            if shape.samples == 1 {
                sampling = [1, 1];
            }
            let quantisation = usize::from(about[2]);
            let (blocks, stride, plane) = ([0; 2], 0, Vec::new());
            components.push(Component {
                id: about[0],
                sampling,
                quantisation,
                blocks,
                stride,
                plane,
            });
        }
        let most = |axis: usize| components.iter().map(|one| one.sampling[axis]).max().unwrap_or(1);
        let most = [most(0), most(1)];
        let units = [columns.div_ceil(8 * most[0]), rows.div_ceil(8 * most[1])];
        for one in &mut components {
            let side = |axis: usize, pixels: usize| {
                (pixels * one.sampling[axis]).div_ceil(most[axis]).div_ceil(8)
            };
            one.blocks = [side(0, columns), side(1, rows)];
            one.stride = units[0] * one.sampling[0];
            one.plane = vec![0; one.stride * units[1] * one.sampling[1] * 64];
        }
        Ok(Self { bits, shape, units, components })
    }

    /// The components of a scan, each with the tables of its codes.
    fn scan(&self, data: &[u8], tables: &Tables) -> Result<Vec<(usize, [usize; 2])>, Refusal> {
        let count = usize::from(*data.first().ok_or_else(|| damaged("a scan's head is cut"))?);
        if data.len() != 4 + 2 * count || count == 0 {
            return Err(damaged("a scan's head is cut"));
        }
        let mut scan: Vec<(usize, [usize; 2])> = Vec::new();
        for about in data[1..=2 * count].chunks_exact(2) {
            let place = self.components.iter().position(|one| one.id == about[0]);
            let place = place.ok_or_else(|| damaged("a scan is of no component"))?;
            let codes = [usize::from(about[1] >> 4), usize::from(about[1] & 15)];
            let known = |of: usize| tables.codes[of].get(codes[of]).is_some_and(Option::is_some);
            let quantised = tables.quantisation[self.components[place].quantisation].is_some();
            if !known(0) || !known(1) || !quantised || scan.iter().any(|(one, _)| *one == place) {
                return Err(damaged("a scan's tables are missing"));
            }
            scan.push((place, codes));
        }
        Ok(scan)
    }

    /// Decodes a scan. Returns how many bytes it has.
    fn decode(
        &mut self,
        scan: &[(usize, [usize; 2])],
        tables: &Tables,
        bytes: &[u8],
    ) -> Result<usize, Refusal> {
        let mut bits = Bits::new(bytes);
        let mut last = [0_i32; 4];
        let alone = scan.len() == 1;
        let units = if alone { self.components[scan[0].0].blocks } else { self.units };
        let depth = self.bits;
        for unit in 0..units[0] * units[1] {
            if tables.restart > 0 && unit > 0 && unit % tables.restart == 0 {
                bits.restart((unit / tables.restart - 1) % 8)?;
                last = [0; 4];
            }
            let place = [unit % units[0], unit / units[0]];
            for (place_in_scan, (component, [first, others])) in scan.iter().enumerate() {
                let component = &mut self.components[*component];
                let (Some(first), Some(others), Some(quantisation)) = (
                    &tables.codes[0][*first],
                    &tables.codes[1][*others],
                    &tables.quantisation[component.quantisation],
                ) else {
                    return Err(damaged("a scan's tables are missing"));
                };
                let last = &mut last[place_in_scan];
                let sampling = if alone { [1, 1] } else { component.sampling };
                for sub in 0..sampling[0] * sampling[1] {
                    let x = place[0] * sampling[0] + sub % sampling[0];
                    let y = place[1] * sampling[1] + sub / sampling[0];
                    let block = block(&mut bits, last, first, others, quantisation)?;
                    component.put([x, y], &transformed(&block, depth));
                }
            }
        }
        Ok(bits.end())
    }

    /// The picture of all planes.
    fn picture(self) -> Picture {
        let Shape { rows, columns, samples } = self.shape;
        let most =
            |axis: usize| self.components.iter().map(|one| one.sampling[axis]).max().unwrap_or(1);
        let (wide, high) = (most(0), most(1));
        let mut values = vec![0; rows * columns * samples];
        for (number, one) in self.components.iter().enumerate() {
            for (row, line) in values.chunks_exact_mut(columns * samples).enumerate() {
                let from = &one.plane[row * one.sampling[1] / high * one.stride * 8..];
                for (column, pixel) in line.chunks_exact_mut(samples).enumerate() {
                    pixel[number] = from[column * one.sampling[0] / wide];
                }
            }
        }
        Picture { bits: self.bits, values }
    }
}

impl Component {
    fn put(&mut self, [x, y]: [usize; 2], samples: &[u16; 64]) {
        let width = self.stride * 8;
        for (row, samples) in samples.chunks_exact(8).enumerate() {
            let at = (y * 8 + row) * width + x * 8;
            self.plane[at..at + 8].copy_from_slice(samples);
        }
    }
}

impl Tables {
    fn read_quantisation(&mut self, mut data: &[u8]) -> Result<(), Refusal> {
        let cut = || damaged("a table is cut");
        while let Some((head, rest)) = data.split_first() {
            let wide = usize::from(head >> 4);
            let (values, rest) = rest.split_at_checked(64 * (1 + wide)).ok_or_else(cut)?;
            let place = self.quantisation.get_mut(usize::from(head & 15)).ok_or_else(cut)?;
            let mut table = [0; 64];
            for (number, to) in ZIGZAG.iter().enumerate() {
                table[*to] = match wide {
                    0 => u16::from(values[number]),
                    1 => short(values, 2 * number),
                    _ => return Err(cut()),
                };
            }
            *place = Some(table);
            data = rest;
        }
        Ok(())
    }

    fn read_codes(&mut self, mut data: &[u8]) -> Result<(), Refusal> {
        let cut = || damaged("a table is cut");
        while let Some((head, rest)) = data.split_first() {
            let (counts, rest) = rest.split_at_checked(16).ok_or_else(cut)?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, rest) = rest.split_at_checked(total).ok_or_else(cut)?;
            let of = self.codes.get_mut(usize::from(head >> 4)).ok_or_else(cut)?;
            let place = of.get_mut(usize::from(head & 15)).ok_or_else(cut)?;
            *place = Some(Codes::new(counts, values)?);
            data = rest;
        }
        Ok(())
    }
}

/// Huffman codes (T.81 annex C): those of each length follow one another.
struct Codes {
    /// Behind the last code of each length, shifted to 16 bits.
    ends: [u32; 16],
    /// What is added to a code of each length to find its value's place.
    offsets: [i32; 16],
    values: Vec<u8>,
}

impl Codes {
    fn new(counts: &[u8], values: &[u8]) -> Result<Self, Refusal> {
        let (mut ends, mut offsets) = ([0; 16], [0; 16]);
        let (mut code, mut place) = (0_u32, 0_i32);
        for (index, count) in counts.iter().enumerate() {
            offsets[index] = place - code as i32;
            code += u32::from(*count);
            place += i32::from(*count);
            if code > 1 << (index + 1) {
                return Err(damaged("a table has more codes than there are"));
            }
            ends[index] = code << (15 - index);
            code <<= 1;
        }
        Ok(Self { ends, offsets, values: values.to_vec() })
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<u8, Refusal> {
        let ahead = bits.ahead();
        let length = self.ends.iter().position(|end| ahead < *end);
        let index = length.ok_or_else(|| if bits.left() < 16 { truncated() } else { no_code() })?;
        bits.skip(index as u32 + 1)?;
        let place = (ahead >> (15 - index)) as i32 + self.offsets[index];
        self.values.get(place as usize).copied().ok_or_else(no_code)
    }
}

fn no_code() -> Refusal {
    damaged("bits are no code")
}

/// The bits of a scan, without the zeros behind bytes of all ones.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 48 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                // A marker, or the end: no more bits until it is dealt with.
                (Some(0xff) | None, _) => return,
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    fn left(&self) -> u32 {
        self.count
    }

    /// The next 16 bits, with ones behind the last.
    fn ahead(&mut self) -> u32 {
        if self.count < 16 {
            self.fill();
        }
        let missing = 16_u32.saturating_sub(self.count);
        let bits = if missing == 0 {
            self.held >> (self.count - 16)
        } else {
            self.held << missing | ((1 << missing) - 1)
        };
        bits as u32 & 0xffff
    }

    fn skip(&mut self, count: u32) -> Result<(), Refusal> {
        self.count = self.count.checked_sub(count).ok_or_else(truncated)?;
        Ok(())
    }

    /// A number of so many bits, at most 16, as a difference (T.81 F.2.2.1, EXTEND).
    fn signed(&mut self, count: u32) -> Result<i32, Refusal> {
        if count == 0 {
            return Ok(0);
        }
        let value = (self.ahead() >> (16 - count)) as i32;
        self.skip(count)?;
        let negative = value < 1 << (count - 1);
        Ok(if negative { value - (1 << count) + 1 } else { value })
    }

    /// Goes on behind the restart marker of this number.
    fn restart(&mut self, number: usize) -> Result<(), Refusal> {
        (self.held, self.count) = (0, 0);
        while self.bytes.get(self.at + 1) == Some(&0xff) {
            self.at += 1;
        }
        match self.bytes.get(self.at..self.at + 2) {
            Some([0xff, marker]) if usize::from(*marker) == 0xd0 + number => {
                self.at += 2;
                Ok(())
            }
            Some(_) => Err(damaged("a restart is missing")),
            None => Err(truncated()),
        }
    }

    /// The place of the marker that ends the scan.
    fn end(&mut self) -> usize {
        let marker = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0;
        // Bits that were read ahead begin behind no marker.
        let rest = &self.bytes[self.at..];
        self.at + rest.windows(2).position(marker).unwrap_or(rest.len())
    }
}

/// Reads the coefficients of a block and multiplies them (T.81 F.2.2).
fn block(
    bits: &mut Bits<'_>,
    last: &mut i32,
    first: &Codes,
    others: &Codes,
    quantisation: &[u16; 64],
) -> Result<[f64; 64], Refusal> {
    let mut block = [0.0; 64];
    let length = u32::from(first.next(bits)?);
    if length > 16 {
        return Err(no_code());
    }
    *last += bits.signed(length)?;
    if last.abs() > COEFFICIENT_MAX {
        return Err(damaged("a block is brighter than any"));
    }
    block[0] = f64::from(*last) * f64::from(quantisation[0]);
    let mut place = 1;
    while place < 64 {
        let code = others.next(bits)?;
        let (zeros, length) = (usize::from(code >> 4), u32::from(code & 15));
        if length == 0 {
            // Sixteen zeros, or zeros up to the end.
            if zeros == 15 {
                place += 16;
                continue;
            }
            break;
        }
        place += zeros;
        let to = *ZIGZAG.get(place).ok_or_else(|| damaged("a block has too many coefficients"))?;
        block[to] = f64::from(bits.signed(length)?) * f64::from(quantisation[to]);
        place += 1;
    }
    Ok(block)
}

/// The cosine of so many sixteenths of half a turn, by half; the first by the root of a half more.
const WAVES: [[f64; 8]; 8] = {
    // cos(n pi / 16) / 2 for n from 0 to 8.
    const HALVES: [f64; 9] = [
        0.5,
        0.490_392_640_201_615_2,
        0.461_939_766_255_643_4,
        0.415_734_806_151_272_6,
        0.353_553_390_593_273_8,
        0.277_785_116_509_801_1,
        0.191_341_716_182_544_9,
        0.097_545_161_008_064_13,
        0.0,
    ];
    let mut waves = [[0.0; 8]; 8];
    let mut frequency = 0;
    while frequency < 8 {
        let mut place = 0;
        while place < 8 {
            let turn = (2 * place + 1) * frequency % 32;
            // The wave is even about 16 and odd about 8.
            let turn = if turn > 16 { 32 - turn } else { turn };
            waves[frequency][place] = if frequency == 0 {
                HALVES[4]
            } else if turn > 8 {
                -HALVES[16 - turn]
            } else {
                HALVES[turn]
            };
            place += 1;
        }
        frequency += 1;
    }
    waves
};

/// Samples of a block of coefficients (T.81 A.3.3), of so many bits.
fn transformed(block: &[f64; 64], bits: u32) -> [u16; 64] {
    let mut rows = [0.0; 64];
    for (from, to) in block.chunks_exact(8).zip(rows.chunks_exact_mut(8)) {
        for (coefficient, wave) in from.iter().zip(&WAVES).filter(|(one, _)| **one != 0.0) {
            for (sum, height) in to.iter_mut().zip(wave) {
                *sum += coefficient * height;
            }
        }
    }
    let mut sums = [0.0; 64];
    for (row, wave) in rows.chunks_exact(8).zip(&WAVES) {
        for (to, height) in sums.chunks_exact_mut(8).zip(wave) {
            for (sum, value) in to.iter_mut().zip(row) {
                *sum += value * height;
            }
        }
    }
    let (middle, most) = (f64::from(1 << (bits - 1)), f64::from((1 << bits) - 1));
    sums.map(|sum: f64| (sum + middle).round().clamp(0.0, most) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::refusal::Reason;

    /// A stream of 12 bits with one component of 16 by 8 pixels, whose two blocks are flat. Codes: 0 for a
    /// difference of no bits, 10 for one of 4, 110 for one of 2; and 0 for the end of a block.
    fn flat() -> Vec<u8> {
        let mut bytes = vec![0xff, SOI, 0xff, 0xdb, 0, 67, 0];
        bytes.extend([2; 64]);
        bytes.extend([0xff, 0xc1, 0, 11, 12, 0, 8, 0, 16, 1, 1, 0x22, 0]);
        let mut codes = |class: u8, counts: [u8; 3], values: &[u8]| {
            bytes.extend([0xff, 0xc4, 0, 19 + values.len() as u8, class]);
            bytes.extend(counts);
            bytes.extend([0; 13]);
            bytes.extend(values);
        };
        codes(0x00, [1, 1, 1], &[0, 4, 2]);
        codes(0x10, [1, 0, 0], &[0]);
        bytes.extend([0xff, SOS, 0, 8, 1, 1, 0, 0, 63, 0]);
        // 10 1000 (8), 0 (end), 110 00 (-3), 0 (end), filled with ones.
        bytes.extend([0b1010_0001, 0b1000_0111, 0xff, EOI]);
        bytes
    }

    const SHAPE: Shape = Shape { rows: 8, columns: 16, samples: 1 };

    #[test]
    fn flat_blocks_are_their_first_coefficient() {
        let picture = decode(&flat(), SHAPE).unwrap();
        assert_eq!(picture.bits, 12);
        for (place, value) in picture.values.iter().enumerate() {
            // 8 x 2 / 8 = 2, and (8 - 3) x 2 / 8 = 1.25.
            assert_eq!(*value, if place % 16 < 8 { 2050 } else { 2049 }, "{place}");
        }
    }

    #[test]
    fn whatever_is_wrong_is_refused() {
        let sound = flat();
        for length in 0..sound.len() - 3 {
            assert!(decode(&sound[..length], SHAPE).is_err(), "{length}");
        }
        let other = Shape { columns: 17, ..SHAPE };
        assert!(decode(&sound, other).unwrap_err().sentence.contains("16 by 8"));
        let at = sound.windows(2).position(|two| two == [0xff, 0xc1]).unwrap();
        for (place, value, reason) in [
            (at + 1, 0xc2, Reason::UnsupportedPixels),
            (at + 1, 0xc9, Reason::UnsupportedPixels),
            (at + 4, 16, Reason::Malformed),
            (at + 11, 0x50, Reason::Malformed),
            (at + 12, 4, Reason::Malformed),
            (0, 0, Reason::Malformed),
        ] {
            let mut bytes = sound.clone();
            bytes[place] = value;
            let refusal = decode(&bytes, SHAPE).unwrap_err();
            assert_eq!(refusal.reason, reason, "{place}: {refusal}");
        }
        let large = Shape { rows: 40_000, columns: 40_000, samples: 1 };
        assert_eq!(decode(&sound, large).unwrap_err().reason, Reason::Truncated);
    }

    /// Streams of 8 bits, whose process is the same but for the depth, from an encoder that is not ours:
    /// with restarts, with codes of their own, in colours of one and of several sizes.
    const STREAMS: &str = "
import io, json
from PIL import Image
import random
random.seed(3)
grey = Image.new('L', (61, 45))
grey.putdata([(x * 3 + y * 5 + random.randint(0, 40)) % 256 for y in range(45) for x in range(61)])
colours = Image.merge('RGB', [grey, grey.transpose(Image.Transpose.ROTATE_180), grey.point(lambda v: 255 - v)])
found = []
for image, options in [(grey, {}), (grey, {'optimize': True}), (grey, {'restart_marker_blocks': 3}),
        (grey, {'restart_marker_rows': 1, 'quality': 30}), (colours, {'subsampling': 0}),
        (colours, {'subsampling': 2, 'restart_marker_blocks': 2}), (colours, {'subsampling': 1})]:
    file = io.BytesIO()
    image.save(file, 'JPEG', **options)
    back = Image.open(io.BytesIO(file.getvalue()))
    if image is colours:
        back.draft('YCbCr', back.size)
    back.load()
    # Colours that were made smaller are made larger in another way there.
    first = back if image is grey else back.getchannel(0)
    whole = list(back.tobytes()) if options.get('subsampling', 0) == 0 else []
    found.append([list(file.getvalue()), len(back.getbands()), list(first.tobytes()), whole])
print(json.dumps(found))
";

    #[test]
    fn streams_of_another_encoder_are_decoded_as_its_decoder_does() {
        type Found = Vec<(Vec<u8>, usize, Vec<u16>, Vec<u16>)>;
        let program = std::env::var_os("GANTRY_PYTHON");
        let output = program.and_then(|program| {
            let output = std::process::Command::new(program).args(["-c", STREAMS]).output();
            output.ok().filter(|output| output.status.success())
        });
        let Some(output) = output else {
            eprintln!(
                "skipped: streams of another encoder need Pillow; set GANTRY_PYTHON to a Python with it"
            );
            return;
        };
        let found: Found = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found.len(), 7);
        for (number, (stream, samples, first, whole)) in found.iter().enumerate() {
            let shape = Shape { rows: 45, columns: 61, samples: *samples };
            let picture = decode(stream, shape).unwrap();
            let near = |ours: &u16, theirs: &u16| ours.abs_diff(*theirs) <= 1;
            let lines = picture.values.iter().step_by(*samples);
            assert!(lines.zip(first).all(|(a, b)| near(a, b)), "stream {number}");
            assert!(picture.values.iter().zip(whole).all(|(a, b)| near(a, b)), "stream {number}");
            assert!(decode(&stream[..stream.len() / 2], shape).is_err(), "stream {number}");
        }
    }

    #[test]
    fn waves_are_the_standards() {
        for (frequency, wave) in WAVES.iter().enumerate() {
            for (place, height) in wave.iter().enumerate() {
                let turn = (2 * place + 1) as f64 * frequency as f64 / 16.0;
                let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 };
                let expected = scale / 2.0 * (turn * std::f64::consts::PI).cos();
                assert!((height - expected).abs() < 1e-15, "{frequency} {place}");
            }
        }
    }
}
