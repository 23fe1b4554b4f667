//! JPEG-LS (ITU-T T.87, ISO 14495-1), lossless and near-lossless: 2 to 16 bits, one component or three,
//! whole planes, lines or pixels one after the other.
//!
//! Each sample is predicted from its neighbours, and the error is read as a Golomb code whose parameter
//! follows from earlier errors in the same surroundings (annex A). Restart intervals, tables of values and
//! transformed colours are refused.

mod bits;
mod coding;

use self::bits::Bits;
use self::coding::{Coding, Preset};
use super::{EOI, Picture, SOI, SOS, Segment, Shape, check_shape, damaged, segment, short};
use super::{truncated, unsupported};
use crate::dicom::refusal::Refusal;

/// Surroundings that are told apart: 9 x 9 x 9 by their gradients, of which each and its mirror are one.
const CONTEXTS: usize = 365;
/// Bits of the length of a run, by how far runs have gone (T.87 A.7.1.1).
const RUN_BITS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];
/// The least and the greatest correction of a prediction.
const CORRECTION: std::ops::RangeInclusive<i32> = -128..=127;
/// Samples that one byte can hold: 8 runs of the greatest length.
const SAMPLES_PER_BYTE_MAX: usize = 8 << 15;

/// Decodes a stream, which must be of this size.
///
/// # Errors
/// Where it is damaged, ends early, is of another size, or of a kind that is not decoded.
pub(in super::super) fn decode(bytes: &[u8], expected: Shape) -> Result<Picture, Refusal> {
    let mut at = 0;
    if segment(bytes, &mut at)?.marker != SOI {
        return Err(damaged("they do not begin as JPEG-LS does"));
    }
    let Shape { rows, columns, samples } = expected;
    if (rows * columns * samples).div_ceil(SAMPLES_PER_BYTE_MAX) > bytes.len() {
        return Err(truncated());
    }
    let mut frame: Option<(u32, Vec<u8>)> = None;
    let mut preset = Preset::default();
    let mut values = Vec::new();
    let mut left = samples;
    while left > 0 {
        let Segment { marker, data } = segment(bytes, &mut at)?;
        match marker {
            0xf7 if frame.is_some() => return Err(damaged("they have two heads")),
            0xf7 => {
                frame = Some(head(data, expected)?);
                values = vec![0; rows * columns * samples];
            }
            0xf8 => preset.read(data)?,
            0xdd if data.iter().any(|byte| *byte != 0) => {
                return Err(unsupported("JPEG-LS with restart intervals"));
            }
            0xe8 if data.starts_with(b"mrfx") && data.get(4).is_some_and(|kind| *kind != 0) => {
                return Err(unsupported("JPEG-LS with transformed colours"));
            }
            SOS => {
                let (bits, ids) = frame.as_ref().ok_or_else(|| damaged("they have no head"))?;
                let scan = Scan::read(data, *bits, ids, &preset)?;
                left = left
                    .checked_sub(scan.components.len())
                    .ok_or_else(|| damaged("they have a scan too many"))?;
                at += scan.decode(&bytes[at..], expected, &mut values)?;
            }
            EOI => return Err(truncated()),
            0xdd | 0xe0..=0xef | 0xfe => {}
            _ => return Err(unsupported("another kind of JPEG than JPEG-LS")),
        }
    }
    let (bits, _) = frame.ok_or_else(|| damaged("they have no head"))?;
    Ok(Picture { bits, values })
}

/// Bits of each sample, and the components' ids.
fn head(data: &[u8], expected: Shape) -> Result<(u32, Vec<u8>), Refusal> {
    if data.len() < 6 || data.len() != 6 + 3 * usize::from(data[5]) {
        return Err(damaged("their head is cut"));
    }
    let (rows, columns) = (usize::from(short(data, 1)), usize::from(short(data, 3)));
    check_shape(Shape { rows, columns, samples: usize::from(data[5]) }, expected)?;
    let about = data[6..].chunks_exact(3);
    if about.clone().any(|one| one[1] != 0x11) {
        return Err(unsupported("JPEG-LS with fewer samples of one colour than of another"));
    }
    if !matches!(data[0], 2..=16) {
        return Err(damaged("their samples have fewer than 2 or more than 16 bits"));
    }
    Ok((u32::from(data[0]), about.map(|one| one[0]).collect()))
}

/// How samples of several components follow one another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// A plane after the other, each in a scan of its own.
    Planes,
    Lines,
    Pixels,
}

struct Scan {
    coding: Coding,
    order: Order,
    /// Their places within the frame.
    components: Vec<usize>,
}

impl Scan {
    fn read(data: &[u8], bits: u32, ids: &[u8], preset: &Preset) -> Result<Self, Refusal> {
        let cut = || damaged("a scan's head is cut");
        let count = usize::from(*data.first().ok_or_else(cut)?);
        if data.len() != 4 + 2 * count || count == 0 {
            return Err(cut());
        }
        let mut components = Vec::new();
        for about in data[1..=2 * count].chunks_exact(2) {
            let place = ids.iter().position(|id| *id == about[0]);
            let place = place.filter(|place| !components.contains(place));
            components.push(place.ok_or_else(|| damaged("a scan is of no component"))?);
            if about[1] != 0 {
                return Err(unsupported("JPEG-LS with a table of values"));
            }
        }
        let order = match (data[2 * count + 2], count) {
            (0..=2, 1) => Order::Planes,
            (1, _) => Order::Lines,
            (2, _) => Order::Pixels,
            _ => return Err(damaged("the order of a scan's samples is none")),
        };
        if data[2 * count + 3] & 15 != 0 {
            return Err(unsupported("JPEG-LS without its lowest bits"));
        }
        let coding = Coding::new(bits, i32::from(data[2 * count + 1]), preset)?;
        Ok(Self { coding, order, components })
    }

    /// Decodes the scan into its places. Returns how many bytes it has.
    fn decode(&self, bytes: &[u8], shape: Shape, values: &mut [u16]) -> Result<usize, Refusal> {
        let mut state = State::new(&self.coding, bytes);
        // One sample before each line, and one behind the line above.
        let blank = vec![0_u16; shape.columns + 2];
        let mut lines = vec![[blank.clone(), blank]; self.components.len()];
        let mut gone = vec![0_usize; self.components.len()];
        for row in 0..shape.rows {
            for [above, line] in &mut lines {
                std::mem::swap(above, line);
                above[shape.columns + 1] = above[shape.columns];
                line[0] = above[1];
            }
            if self.order == Order::Pixels {
                state.pixels(&mut lines, &mut gone[0])?;
            } else {
                for (lines, gone) in lines.iter_mut().zip(&mut gone) {
                    state.line(lines, gone)?;
                }
            }
            let to = &mut values[row * shape.columns * shape.samples..];
            for ([_, line], component) in lines.iter().zip(&self.components) {
                let places = to[*component..].iter_mut().step_by(shape.samples);
                for (to, from) in places.zip(&line[1..=shape.columns]) {
                    *to = *from;
                }
            }
        }
        Ok(state.bits.end())
    }
}

/// What is known of the errors in like surroundings (T.87 A.2.1).
#[derive(Clone, Copy)]
struct Context {
    /// The sum of their sizes, of the errors, and how many there were.
    sizes: i64,
    errors: i32,
    count: i32,
    /// What is added to a prediction.
    correction: i32,
}

/// The same at the ends of runs; `negative` of the errors were.
#[derive(Clone, Copy)]
struct EndContext {
    sizes: i64,
    count: i32,
    negative: i32,
}

struct State<'a> {
    coding: &'a Coding,
    bits: Bits<'a>,
    contexts: Vec<Context>,
    ends: [EndContext; 2],
}

/// The samples around one: to its left, above, above to the left and above to the right.
#[derive(Clone, Copy)]
struct Around {
    left: i32,
    above: i32,
    corner: i32,
    right: i32,
}

impl Around {
    fn of([above, line]: &[Vec<u16>; 2], x: usize) -> Self {
        Self {
            left: i32::from(line[x - 1]),
            above: i32::from(above[x]),
            corner: i32::from(above[x - 1]),
            right: i32::from(above[x + 1]),
        }
    }

    /// Its context, negative where it is the mirror; 0 where all is flat.
    fn context(self, coding: &Coding) -> i32 {
        let Self { left, above, corner, right } = self;
        let gradients = [right - above, above - corner, corner - left];
        let [a, b, c] = gradients.map(|gradient| coding.quantised(gradient));
        // Of the first that is not 0 the others take nothing of the sign.
        81 * a + 9 * b + c
    }

    /// The median of three guesses (T.87 A.4.1).
    fn predicted(self) -> i32 {
        let Self { left, above, corner, .. } = self;
        let (least, most) = (left.min(above), left.max(above));
        if corner >= most {
            least
        } else if corner <= least {
            most
        } else {
            left + above - corner
        }
    }
}

impl<'a> State<'a> {
    fn new(coding: &'a Coding, bytes: &'a [u8]) -> Self {
        let sizes = i64::from(((coding.range + 32) / 64).max(2));
        let context = Context { sizes, errors: 0, count: 1, correction: 0 };
        let end = EndContext { sizes, count: 1, negative: 0 };
        let (contexts, ends) = (vec![context; CONTEXTS], [end; 2]);
        Self { coding, bits: Bits::new(bytes), contexts, ends }
    }

    /// Decodes a line of one component.
    fn line(&mut self, lines: &mut [Vec<u16>; 2], gone: &mut usize) -> Result<(), Refusal> {
        let end = lines[1].len() - 1;
        let mut x = 1;
        while x < end {
            let around = Around::of(lines, x);
            let context = around.context(self.coding);
            if context != 0 {
                lines[1][x] = self.regular(around, context)?;
                x += 1;
                continue;
            }
            let run = self.run(end - x, gone)?;
            let value = lines[1][x - 1];
            lines[1][x..x + run].fill(value);
            x += run;
            if x < end {
                let around = Around::of(lines, x);
                let flat = (around.left - around.above).abs() <= self.coding.near;
                lines[1][x] = self.end_of_run(around, usize::from(flat), *gone)?;
                *gone = gone.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// Decodes a line of several components, whose samples of a pixel follow one another.
    fn pixels(&mut self, lines: &mut [[Vec<u16>; 2]], gone: &mut usize) -> Result<(), Refusal> {
        let end = lines.first().map_or(0, |[_, line]| line.len() - 1);
        let mut x = 1;
        while x < end {
            let flat = |lines: &[Vec<u16>; 2]| Around::of(lines, x).context(self.coding) == 0;
            if !lines.iter().all(flat) {
                for lines in lines.iter_mut() {
                    let around = Around::of(lines, x);
                    lines[1][x] = self.regular(around, around.context(self.coding))?;
                }
                x += 1;
                continue;
            }
            let run = self.run(end - x, gone)?;
            for [_, line] in lines.iter_mut() {
                let value = line[x - 1];
                line[x..x + run].fill(value);
            }
            x += run;
            if x < end {
                for lines in lines.iter_mut() {
                    let around = Around::of(lines, x);
                    lines[1][x] = self.end_of_run(around, 0, *gone)?;
                }
                *gone = gone.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// Reads how long a run is, at most so long (T.87 A.7.1).
    fn run(&mut self, most: usize, gone: &mut usize) -> Result<usize, Refusal> {
        let mut run = 0;
        while self.bits.read(1)? == 1 {
            let whole = 1 << RUN_BITS[*gone];
            let part = whole.min(most - run);
            run += part;
            if part == whole && *gone < 31 {
                *gone += 1;
            }
            if run == most {
                return Ok(run);
            }
        }
        run += self.bits.read(RUN_BITS[*gone])? as usize;
        if run < most { Ok(run) } else { Err(damaged("a run goes beyond its line")) }
    }

    /// The sample that ends a run (T.87 A.7.2): `kind` is 1 where its neighbours are alike.
    fn end_of_run(&mut self, around: Around, kind: usize, gone: usize) -> Result<u16, Refusal> {
        let coding = self.coding;
        let context = &mut self.ends[kind];
        let ones = kind as i32;
        let parameter =
            parameter(context.sizes + i64::from(ones * (context.count >> 1)), context.count);
        let limit = coding.limit - RUN_BITS[gone] - 1;
        let code = self.bits.golomb(parameter, limit, coding)?;
        let whole = code + ones;
        let size = (whole >> 1) + (whole & 1);
        let mostly = parameter != 0 || 2 * context.negative >= context.count;
        let error = if mostly == (whole & 1 == 1) { -size } else { size };
        context.negative += i32::from(error < 0);
        context.sizes += i64::from((code + 1 - ones) >> 1);
        if context.count == coding.reset {
            context.sizes >>= 1;
            context.count >>= 1;
            context.negative >>= 1;
        }
        context.count += 1;
        Ok(if kind == 1 {
            coding.sample(around.left, error)
        } else if around.left > around.above {
            coding.sample(around.above, -error)
        } else {
            coding.sample(around.above, error)
        })
    }

    /// A sample whose surroundings are not flat (T.87 A.4 to A.6).
    fn regular(&mut self, around: Around, context: i32) -> Result<u16, Refusal> {
        let coding = self.coding;
        let mirror = if context < 0 { -1 } else { 1 };
        let context = &mut self.contexts[context.unsigned_abs() as usize];
        let corrected = around.predicted() + mirror * context.correction;
        let predicted = corrected.clamp(0, coding.most);
        let parameter = parameter(context.sizes, context.count);
        let code = self.bits.golomb(parameter, coding.limit, coding)?;
        let turned = coding.near == 0 && parameter == 0 && 2 * context.errors <= -context.count;
        // Sizes come twice, the sign in the lowest bit.
        let error = match (code & 1 == 1, turned) {
            (false, false) | (true, true) => code >> 1,
            (true, false) => -((code + 1) >> 1),
            (false, true) => -(code >> 1) - 1,
        };
        context.update(error, coding);
        Ok(coding.sample(predicted, mirror * error))
    }
}

/// The parameter of a code: the least by which the count, shifted, reaches the sum of sizes.
fn parameter(sizes: i64, count: i32) -> u32 {
    let mut parameter = 0;
    while i64::from(count) << parameter < sizes {
        parameter += 1;
    }
    parameter
}

impl Context {
    /// Takes note of an error (T.87 A.6).
    fn update(&mut self, error: i32, coding: &Coding) {
        self.errors += error * coding.step;
        self.sizes += i64::from(error.abs());
        if self.count == coding.reset {
            self.sizes >>= 1;
            self.errors >>= 1;
            self.count >>= 1;
        }
        self.count += 1;
        if self.errors <= -self.count {
            self.errors = (self.errors + self.count).max(1 - self.count);
            self.correction = (self.correction - 1).max(*CORRECTION.start());
        } else if self.errors > 0 {
            self.errors = (self.errors - self.count).min(0);
            self.correction = (self.correction + 1).min(*CORRECTION.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::refusal::Reason;

    /// The example of the standard (T.87 H.3): 4 by 4 pixels of 8 bits, and their code.
    const EXAMPLE: [u8; 47] = [
        0xff, 0xd8, 0xff, 0xf7, 0x00, 0x0b, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00,
        0xff, 0xda, 0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xc0, 0x00, 0x00, 0x6c, 0x80,
        0x20, 0x8e, 0x01, 0xc0, 0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6e, 0xe6, 0x00, 0x00, 0x01,
        0xbc, 0x18,
    ];
    const PIXELS: [u16; 16] =
        [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
    const SHAPE: Shape = Shape { rows: 4, columns: 4, samples: 1 };

    fn example() -> Vec<u8> {
        [&EXAMPLE[..], &[0x00, 0x00, 0x05, 0xd8, 0x00, 0x00, 0x91, 0x60, 0xff, 0xd9]].concat()
    }

    #[test]
    fn the_example_of_the_standard_is_decoded() {
        let picture = decode(&example(), SHAPE).unwrap();
        assert_eq!((picture.bits, &picture.values[..]), (8, &PIXELS[..]));
    }

    #[test]
    fn whatever_is_wrong_is_refused() {
        let sound = example();
        for length in 0..sound.len() - 3 {
            assert!(decode(&sound[..length], SHAPE).is_err(), "{length}");
        }
        let other = Shape { rows: 5, ..SHAPE };
        assert!(decode(&sound, other).unwrap_err().sentence.contains("4 by 4"));
        for (place, value, reason) in [
            (3, 0xc3, Reason::UnsupportedPixels),
            (6, 1, Reason::Malformed),
            (6, 17, Reason::Malformed),
            (13, 0x12, Reason::UnsupportedPixels),
            (20, 2, Reason::Malformed),
            (21, 1, Reason::UnsupportedPixels),
            (22, 200, Reason::Malformed),
            (23, 3, Reason::Malformed),
            (24, 1, Reason::UnsupportedPixels),
        ] {
            let mut bytes = sound.clone();
            bytes[place] = value;
            let refusal = decode(&bytes, SHAPE).unwrap_err();
            assert_eq!(refusal.reason, reason, "{place}: {refusal}");
        }
    }
}
