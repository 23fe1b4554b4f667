//! Shards of samples: uncompressed tar archives whose members are read one after the other, or each from
//! where it begins.
//!
//! The members of a sample stand beside one another and have its key up to their first dot, as
//! `WebDataset` has it (Aizman et al. 2019); arrays among them are `NumPy`'s (NEP 1). So a shard is read by
//! whatever reads those, and this program can map or ask for a part of one.

use std::io::{self, Read, Write};

/// Bytes of a member's header, of which its own bytes fill whole multiples.
const BLOCK: u64 = 512;

/// A shard that is being written.
pub struct ShardWriter<W: Write> {
    archive: tar::Builder<W>,
    bytes: u64,
}

impl<W: Write> std::fmt::Debug for ShardWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardWriter").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<W: Write> ShardWriter<W> {
    /// A shard without members.
    pub fn new(to: W) -> Self {
        Self { archive: tar::Builder::new(to), bytes: 0 }
    }

    /// Appends a member whose bytes are those of its parts, one after the other. Returns where in the
    /// shard they begin.
    ///
    /// # Errors
    /// Where the name has more than 100 bytes, or writing fails.
    pub fn append(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<u64> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes);
        header.set_mode(0o644);
        header.set_mtime(0);
        let none: Box<dyn Read> = Box::new(io::empty());
        let all = parts.iter().fold(none, |all, part| Box::new(all.chain(*part)));
        self.archive.append_data(&mut header, name, all)?;
        let at = self.bytes + BLOCK;
        self.bytes += member_bytes(bytes);
        Ok(at)
    }

    /// Bytes of all members so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the end, and returns what was written to.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn finish(self) -> io::Result<W> {
        self.archive.into_inner()
    }
}

/// Bytes that a member of so many bytes takes in a shard.
#[must_use]
pub fn member_bytes(bytes: u64) -> u64 {
    BLOCK + bytes.next_multiple_of(BLOCK)
}

/// The header of an `.npy` file, version 1.0, for numbers of a kind (`<f4`, `|u1`) in the order of C: a
/// dictionary, padded to 64 bytes.
#[must_use]
pub fn npy_header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sides.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", sides.join(", "));
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let unpadded = 10 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.into_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_begin_where_it_is_said_and_are_read_as_tar() {
        let mut shard = ShardWriter::new(Vec::new());
        let header = npy_header("|u1", &[3]);
        let places = [
            shard.append("0.label.npy", &[&header, &[7, 8, 9]]).unwrap(),
            shard.append("0.json", &[b"{}"]).unwrap(),
            shard.append("1.empty", &[]).unwrap(),
        ];
        assert_eq!(shard.bytes(), 3 * 512 + 2 * 512);
        let bytes = shard.finish().unwrap();
        let first = places[0] as usize + header.len();
        assert_eq!(bytes[first..first + 3], [7, 8, 9]);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            found.push((name, entry.raw_file_position(), entry.size()));
        }
        let expected = [("0.label.npy", places[0], 67 + 64), ("0.json", places[1], 2)];
        let expected = expected.map(|(name, at, size)| (name.to_owned(), at, size));
        assert_eq!(found[..2], expected.map(|(name, at, size)| (name, at, size)));
        assert_eq!((found[2].1, found[2].2), (places[2], 0));
    }

    #[test]
    fn headers_are_those_of_numpy() {
        for (shape, text) in
            [(&[][..], "()"), (&[3], "(3,)"), (&[2, 4], "(2, 4)"), (&[1, 2, 3], "(1, 2, 3)")]
        {
            let header = npy_header("<f4", shape);
            assert!(header.len().is_multiple_of(64) && header.ends_with(b"\n"));
            let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}");
            assert_eq!(header[10..10 + text.len()], *text.as_bytes());
        }
    }
}
