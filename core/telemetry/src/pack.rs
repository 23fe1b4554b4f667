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
/// Bytes of the longest: its prefix and all 64 bits.
const DIFFERENCE_BYTES_MAX: usize = 9;
/// The prefix for each number of bits that a difference has.
const ONES: [u8; 65] = ones();

const fn ones() -> [u8; 65] {
    let mut ones = [0; 65];
    let mut bits = 0;
    let mut class = 0;
    while bits < ones.len() {
        if bits > WIDTHS[class] as usize {
            class += 1;
        }
        ones[bits] = class as u8;
        bits += 1;
    }
    ones
}

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

/// Packs `numbers` as their differences from `base`.
pub(crate) fn pack(numbers: &[u64], base: &[u64]) -> Packed {
    let mut bits = BitWriter::new(numbers.len());
    let (within, beyond) = numbers.split_at(base.len().min(numbers.len()));
    for (number, base) in within.iter().zip(base) {
        bits.difference(fold(number.wrapping_sub(*base)));
    }
    for number in beyond {
        bits.difference(fold(*number));
    }
    Packed(bits.finish())
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
    let within = base.len().min(count);
    numbers.extend(base[..within].iter().map(|base| base.wrapping_add(unfold(bits.difference()))));
    numbers.extend((within..count).map(|_| unfold(bits.difference())));
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

/// Writes eight bytes at a time, of which those behind the last whole one are written again: a
/// branch that depends on the numbers would cost more than the store.
struct BitWriter {
    bytes: Vec<u8>,
    /// The first byte that is not whole yet.
    at: usize,
    /// Its bits, and how many they are.
    word: u64,
    held: u32,
}

impl BitWriter {
    /// A writer with room for so many differences.
    fn new(count: usize) -> Self {
        Self { bytes: vec![0; count * DIFFERENCE_BYTES_MAX + 8], at: 0, word: 0, held: 0 }
    }

    fn difference(&mut self, folded: u64) {
        let ones = u32::from(ONES[(64 - folded.leading_zeros()) as usize]);
        let prefix = (1 << ones) - 1;
        if ones < ONES_MAX {
            return self.put(prefix | folded << (ones + 1), ones + 1 + WIDTHS[ones as usize]);
        }
        self.put(prefix, ONES_MAX);
        self.put(folded & 0xffff_ffff, 32);
        self.put(folded >> 32, 32);
    }

    /// Puts at most 56 bits: with the 7 that may be held they stay within the word.
    fn put(&mut self, value: u64, bits: u32) {
        self.word |= value << self.held;
        self.held += bits;
        self.bytes[self.at..self.at + 8].copy_from_slice(&self.word.to_le_bytes());
        self.at += (self.held / 8) as usize;
        self.word >>= self.held & !7;
        self.held %= 8;
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.at + usize::from(self.held > 0));
        self.bytes.shrink_to_fit();
        self.bytes
    }
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

    fn difference(&mut self) -> u64 {
        self.refill();
        let ones = self.word.trailing_ones().min(ONES_MAX);
        if ones < ONES_MAX {
            let bits = ones + 1 + WIDTHS[ones as usize];
            return (self.take(bits)) >> (ones + 1);
        }
        self.take(ONES_MAX);
        self.refill();
        let low = self.take(32);
        self.refill();
        self.take(32) << 32 | low
    }

    /// Fills the word up with whole bytes, without a branch (Giesen 2018, "Reading bits in far too
    /// many ways", variant 4). Bits above those that count are right already.
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
