//! A list of numbers as its differences from another list, packed into bits.
//!
//! Each number becomes its difference from the number in the same place of the base (0 behind the
//! base's end), folded so that small differences of both signs are small, and then a prefix that
//! says how many bits follow: one bit for a number that did not change, 8 for a temperature, 12 for
//! the use of a core. That is shorter than a bitmap and whole bytes, because most readings that
//! change need 5 to 10 bits.
//!
//! Bits fill bytes from the lowest up. Unpacking never reads behind the end and never gives more
//! numbers than it was asked for; each takes at least one bit, so that memory follows the input.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Bits that follow a prefix of so many ones. Of all sets of six this one is the shortest for a
/// node with 64 cores and 8 GPUs in training, at 331 bytes; sets of four take 337.
const WIDTHS: [u32; 8] = [0, 6, 9, 12, 18, 22, 26, 64];
/// The longest prefix has no closing zero.
const ONES_MAX: u32 = WIDTHS.len() as u32 - 1;
/// Bits of the longest difference that is not written with all 64.
const SHORT_BITS: u32 = WIDTHS[ONES_MAX as usize - 1];
/// Bits that the longest of those takes with its prefix.
const SHORT_LENGTH: u32 = ONES_MAX + SHORT_BITS;
/// Bytes of the longest: its prefix and all 64 bits.
const DIFFERENCE_BYTES_MAX: usize = 9;

/// How a difference is written.
#[derive(Clone, Copy)]
struct Form {
    /// The bits of the difference's own.
    mask: u32,
    prefix: u8,
    /// Bits before the difference's own.
    shift: u8,
    /// Bits in all; 0 where the prefix is the longest.
    length: u8,
}

impl Form {
    const LONG: Self = Self { mask: 0, prefix: (1 << ONES_MAX) - 1, shift: 0, length: 0 };

    const fn of(ones: u32) -> Self {
        if ones >= ONES_MAX {
            return Self::LONG;
        }
        let width = WIDTHS[ones as usize];
        Self {
            mask: (1 << width) - 1,
            prefix: (1 << ones) - 1,
            shift: ones as u8 + 1,
            length: (ones + 1 + width) as u8,
        }
    }
}

/// The form for each number of bits that a short difference has.
const BY_BITS: [Form; SHORT_BITS as usize + 1] = {
    let mut forms = [Form::LONG; SHORT_BITS as usize + 1];
    let (mut bits, mut ones) = (0, 0);
    while bits < forms.len() {
        if bits > WIDTHS[ones] as usize {
            ones += 1;
        }
        forms[bits] = Form::of(ones as u32);
        bits += 1;
    }
    forms
};

/// The form for each of the first bits of one that is read.
const BY_PREFIX: [Form; 1 << ONES_MAX] = {
    let mut forms = [Form::LONG; 1 << ONES_MAX];
    let mut first = 0;
    while first < forms.len() {
        forms[first] = Form::of(first.trailing_ones());
        first += 1;
    }
    forms
};

/// Packed differences. Encoded as a run of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed(Vec<u8>);

impl Packed {
    /// Bytes that it takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes from a stranger.
    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Packs numbers, one list after the other. Its memory is used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    /// Packs `numbers` as their differences from `base`.
    pub(crate) fn pack(&mut self, numbers: &[u64], base: &[u64]) -> Packed {
        let room = numbers.len() * DIFFERENCE_BYTES_MAX + 8;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let mut bits = BitWriter { bytes: &mut self.bytes, at: 0, word: 0, held: 0 };
        let (within, beyond) = numbers.split_at(base.len().min(numbers.len()));
        let (pairs, odd) = within.as_chunks::<2>();
        let (base_pairs, base_odd) = base[..within.len()].as_chunks::<2>();
        for ([first, second], [base, next]) in pairs.iter().zip(base_pairs) {
            bits.pair(fold(first.wrapping_sub(*base)), fold(second.wrapping_sub(*next)));
        }
        for (number, base) in odd.iter().zip(base_odd) {
            bits.difference(fold(number.wrapping_sub(*base)));
        }
        for number in beyond {
            bits.difference(fold(*number));
        }
        let used = bits.used();
        Packed(self.bytes[..used].to_vec())
    }
}

/// Sets `numbers` to so many numbers, from their differences from `base`; `None` where the bytes
/// end before that, or do not end there.
pub(crate) fn unpack(
    packed: &Packed,
    base: &[u64],
    count: usize,
    numbers: &mut Vec<u64>,
) -> Option<()> {
    numbers.clear();
    if count > packed.0.len() * 8 {
        return None;
    }
    let mut bits = BitReader::new(&packed.0);
    numbers.extend_from_slice(&base[..base.len().min(count)]);
    numbers.resize(count, 0);
    let (pairs, odd) = numbers.as_chunks_mut::<2>();
    for [first, second] in pairs {
        let (difference, next) = bits.pair();
        *first = first.wrapping_add(unfold(difference));
        *second = second.wrapping_add(unfold(next));
    }
    for number in odd {
        *number = number.wrapping_add(unfold(bits.difference()));
    }
    (bits.used() == packed.0.len()).then_some(())
}

/// 0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ...
fn fold(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

fn unfold(folded: u64) -> u64 {
    (folded >> 1) ^ (folded & 1).wrapping_neg()
}

/// How many bits a number has: from the exponent of it as a float, for which every processor has an
/// instruction, and not every x86 one for counting zeros.
fn bits_of(number: u32) -> usize {
    (f64::from(number).to_bits() >> 52).saturating_sub(1022) as usize
}

/// Writes eight bytes at a time, of which those behind the last whole one are written again: a
/// branch that depends on the numbers would cost more than the store. Most differences are short, and
/// two of them are one write.
struct BitWriter<'a> {
    bytes: &'a mut [u8],
    /// The first byte that is not whole yet.
    at: usize,
    /// Its bits, and how many they are.
    word: u64,
    held: u32,
}

impl BitWriter<'_> {
    #[inline]
    fn pair(&mut self, first: u64, second: u64) {
        if (first | second) >> SHORT_BITS != 0 {
            self.difference(first);
            return self.difference(second);
        }
        let ((first, bits), (second, more)) = (short(first), short(second));
        if bits + more <= 56 {
            return self.put(first | second << bits, bits + more);
        }
        self.put(first, bits);
        self.put(second, more);
    }

    #[inline]
    fn difference(&mut self, folded: u64) {
        if folded >> SHORT_BITS == 0 {
            let (value, bits) = short(folded);
            return self.put(value, bits);
        }
        self.long(folded);
    }

    #[cold]
    fn long(&mut self, folded: u64) {
        self.put(Form::LONG.prefix.into(), ONES_MAX);
        self.put(folded & 0xffff_ffff, 32);
        self.put(folded >> 32, 32);
    }

    /// Puts at most 56 bits: with the 7 that may be held they stay within the word.
    #[inline]
    fn put(&mut self, value: u64, bits: u32) {
        self.word |= value << self.held;
        self.held += bits;
        self.bytes[self.at..self.at + 8].copy_from_slice(&self.word.to_le_bytes());
        self.at += (self.held / 8) as usize;
        self.word >>= self.held & !7;
        self.held %= 8;
    }

    /// Bytes that were written, the last one perhaps in part.
    fn used(&self) -> usize {
        self.at + usize::from(self.held > 0)
    }
}

/// A short difference with its prefix, and how many bits that is.
#[inline]
fn short(folded: u64) -> (u64, u32) {
    let form = BY_BITS[bits_of(folded as u32)];
    (u64::from(form.prefix) | folded << form.shift, form.length.into())
}

/// Reads on behind the end, where all bits are zeros: its owner looks at how many it used.
struct BitReader<'a> {
    bytes: &'a [u8],
    /// The first byte that is not wholly in the word.
    at: usize,
    /// The next bits, and how many of them count: at least 56 after a refill.
    word: u64,
    held: u32,
}

impl<'a> BitReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, word: 0, held: 0 }
    }

    /// Two after one refill, where both are short.
    #[inline]
    fn pair(&mut self) -> (u64, u64) {
        let first = self.difference();
        let form = self.form();
        let second = if form.length > 0 && self.held >= SHORT_LENGTH {
            self.short(form)
        } else {
            self.difference()
        };
        (first, second)
    }

    #[inline]
    fn difference(&mut self) -> u64 {
        self.refill();
        let form = self.form();
        if form.length > 0 { self.short(form) } else { self.long() }
    }

    #[inline]
    fn short(&mut self, form: Form) -> u64 {
        let value = self.word >> form.shift & u64::from(form.mask);
        self.word >>= form.length;
        self.held -= u32::from(form.length);
        value
    }

    #[cold]
    fn long(&mut self) -> u64 {
        self.take(ONES_MAX);
        self.refill();
        let low = self.take(32);
        self.refill();
        self.take(32) << 32 | low
    }

    fn form(&self) -> Form {
        BY_PREFIX[self.word as usize % BY_PREFIX.len()]
    }

    /// Fills the word up with whole bytes, without a branch (Giesen 2018, "Reading bits in far too
    /// many ways", variant 4). Bits above those that count are right already.
    #[inline]
    fn refill(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let eight = if let Some(eight) = rest.first_chunk::<8>() {
            *eight
        } else {
            let mut eight = [0; 8];
            eight[..rest.len()].copy_from_slice(rest);
            eight
        };
        self.word |= u64::from_le_bytes(eight) << self.held;
        self.at += ((63 - self.held) / 8) as usize;
        self.held |= 0b11_1000;
    }

    /// Takes at most 56 bits.
    fn take(&mut self, bits: u32) -> u64 {
        let value = self.word & ((1 << bits) - 1);
        self.word >>= bits;
        self.held -= bits;
        value
    }

    /// Bytes that were used, the last one perhaps in part.
    fn used(&self) -> usize {
        self.at - (self.held / 8) as usize
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Packed;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Packed, E> {
        Ok(Packed(bytes.to_vec()))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Packed, E> {
        Ok(Packed(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Packed, A::Error> {
        let mut packed = Vec::new();
        while let Some(byte) = bytes.next_element()? {
            packed.push(byte);
        }
        Ok(Packed(packed))
    }
}
