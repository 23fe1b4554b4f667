//! The last lines of an output that can only be read forwards, in pieces from an offset on.
//!
//! The end is asked for first; from there steps back double until enough lines lie behind.

use gantry_wire::Output;

use crate::error::Failure;

/// How far the first step back goes: one piece.
const STEP_BYTES: u64 = 32 * 1024;

/// Where the last `lines` lines begin.
///
/// # Errors
/// Where a piece cannot be read.
pub(super) fn offset(
    lines: usize,
    read: &mut dyn FnMut(u64) -> Result<Output, Failure>,
) -> Result<u64, Failure> {
    let last = read(u64::MAX)?;
    let end = last.next;
    if lines == 0 {
        return Ok(end);
    }
    let mut start = end.saturating_sub(last.bytes.len() as u64);
    let mut bytes = last.bytes;
    let mut step = STEP_BYTES;
    loop {
        if let Some(place) = begin(&bytes, lines) {
            return Ok(start + place as u64);
        }
        if start == 0 {
            return Ok(0);
        }
        let from = start.saturating_sub(step);
        let mut before = Vec::with_capacity((start - from) as usize);
        let mut next = from;
        while next < start {
            let piece = read(next)?;
            if piece.bytes.is_empty() {
                break;
            }
            next = piece.next;
            before.extend(piece.bytes);
        }
        before.truncate((start - from) as usize);
        before.extend(&bytes);
        (bytes, start, step) = (before, from, step.saturating_mul(2));
    }
}

/// Where the last `lines` lines begin, if so many begin within `bytes` for certain.
fn begin(bytes: &[u8], lines: usize) -> Option<usize> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(place, _)| place + 1).nth(lines - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_outputs_long_and_short() {
        let long = (0..20_000).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n") + "\n";
        for (text, lines, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 0, ""),
            ("a\nb\n", 5, "a\nb\n"),
            ("\n\n\n", 2, "\n\n"),
            (&long, 1, "line 19999\n"),
            (&long, 12_000, &long[long.find("line 8000\n").unwrap()..]),
            (&long, 20_000, &long),
        ] {
            let bytes = text.as_bytes();
            let mut read = |offset: u64| {
                let piece = 1000;
                let from = if offset == u64::MAX {
                    bytes.len().saturating_sub(piece)
                } else {
                    offset as usize
                };
                let until = bytes.len().min(from + piece);
                Ok(Output { bytes: bytes[from..until].to_vec(), next: until as u64, live: false })
            };
            let found = offset(lines, &mut read).unwrap();
            assert_eq!(&text[found as usize..], expected, "{lines} of {} bytes", text.len());
        }
    }
}
