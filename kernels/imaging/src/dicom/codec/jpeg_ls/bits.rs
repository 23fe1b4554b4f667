//! The bits of a scan of JPEG-LS, and the codes that they are (T.87 A.5.3 and annex D).

use super::super::{damaged, truncated};
use super::coding::Coding;
use crate::dicom::refusal::Refusal;

/// The bits of a scan; a byte of all ones is followed by one whose highest bit is none of them.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 48 {
            let Some(byte) = self.bytes.get(self.at).copied() else { return };
            let after = self.at > 0 && self.bytes[self.at - 1] == 0xff;
            // A marker.
            if byte == 0xff && self.bytes.get(self.at + 1).is_none_or(|next| *next >= 0x80) {
                return;
            }
            let bits = if after { 7 } else { 8 };
            self.held = self.held << bits | u64::from(byte);
            self.count += bits;
            self.at += 1;
        }
    }

    /// A number of so many bits, at most 32.
    pub(super) fn read(&mut self, bits: u32) -> Result<u32, Refusal> {
        if self.count < bits {
            self.fill();
        }
        self.count = self.count.checked_sub(bits).ok_or_else(truncated)?;
        Ok((self.held >> self.count & ((1 << bits) - 1)) as u32)
    }

    /// How many zeros come before the next one, which is read too; at most so many.
    fn zeros(&mut self, most: u32) -> Result<u32, Refusal> {
        let mut zeros = 0;
        loop {
            if self.count == 0 {
                self.fill();
            }
            if self.count == 0 {
                return Err(truncated());
            }
            // The bits that are left, at the top.
            let there = (self.held << (64 - self.count)).leading_zeros().min(self.count);
            zeros += there;
            if zeros > most {
                return Err(damaged("a code is longer than any"));
            }
            self.count -= there;
            if self.count > 0 {
                self.count -= 1;
                return Ok(zeros);
            }
        }
    }

    /// A Golomb code of limited length (T.87 A.5.3). One that no error has is damage; contexts then grow
    /// no further than their sums can hold.
    pub(super) fn golomb(
        &mut self,
        parameter: u32,
        limit: u32,
        coding: &Coding,
    ) -> Result<i32, Refusal> {
        let bits = coding.error_bits;
        let most = limit.checked_sub(bits + 1).ok_or_else(|| damaged("a code is too short"))?;
        let zeros = self.zeros(most)?;
        let code = if zeros < most {
            u64::from(zeros) << parameter | u64::from(self.read(parameter)?)
        } else {
            u64::from(self.read(bits)?) + 1
        };
        i32::try_from(code)
            .ok()
            .filter(|code| *code <= 2 * coding.range + 2)
            .ok_or_else(|| damaged("an error is larger than any"))
    }

    /// The place of the marker that ends the scan.
    pub(super) fn end(&self) -> usize {
        let marker = |pair: &[u8]| pair[0] == 0xff && pair[1] >= 0x80;
        let rest = &self.bytes[self.at..];
        self.at + rest.windows(2).position(marker).unwrap_or(rest.len())
    }
}
