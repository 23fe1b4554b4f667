//! What a line of the audit log is, and how each vouches for all before it.
//!
//! A line is a JSON object on a line of its own. Its last field is the SHA-256 of everything before
//! that field, and the field before it is the hash of the line before: whoever changes, removes or
//! moves a line would have to write every later one anew. Lines are numbered from 1.

use std::fmt::Write;

use gantry_model::At;
use gantry_wire::AuditRow;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What stands before the hash at the end of a line, and behind it.
const OPEN: &str = ",\"hash\":\"";
const CLOSE: &str = "\"}";
const HASH_CHARACTERS: usize = 64;
/// What the first line names as the hash before it.
pub(super) const BEGINNING: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";
/// Characters of one field: names have 64 at most, and a sentence of ours is cut.
const FIELD_CHARACTERS_MAX: usize = 200;

/// Something that was done, or refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: At,
    pub(crate) who: String,
    pub(crate) role: String,
    pub(crate) from: String,
    pub(crate) what: String,
    pub(crate) whom: String,
    pub(crate) refused: bool,
    pub(crate) why: String,
}

/// A line as it stands in the file, without its own hash.
#[derive(Serialize, Deserialize)]
struct Line {
    number: u64,
    at_ms: u64,
    who: String,
    role: String,
    from: String,
    what: String,
    whom: String,
    refused: bool,
    why: String,
    before: String,
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The line of an entry, with its newline, and its hash.
pub(super) fn line(number: u64, before: &str, entry: &Entry) -> std::io::Result<(String, String)> {
    let cut = |text: &str| text.chars().take(FIELD_CHARACTERS_MAX).collect();
    let line = Line {
        number,
        at_ms: entry.at.0,
        who: cut(&entry.who),
        role: cut(&entry.role),
        from: cut(&entry.from),
        what: cut(&entry.what),
        whom: cut(&entry.whom),
        refused: entry.refused,
        why: cut(&entry.why),
        before: before.to_owned(),
    };
    let mut text = serde_json::to_string(&line)?;
    text.pop();
    let hash = hexadecimal(&Sha256::digest(text.as_bytes()));
    text.extend([OPEN, &hash, CLOSE, "\n"]);
    Ok((text, hash))
}

/// A line that is as it was written.
pub(super) struct Sound {
    pub(super) row: AuditRow,
    pub(super) before: String,
    pub(super) hash: String,
}

/// Reads a line without its newline, and holds it against its own hash.
pub(super) fn read(bytes: &[u8]) -> Option<Sound> {
    let end = bytes.len().checked_sub(OPEN.len() + HASH_CHARACTERS + CLOSE.len())?;
    let (body, tail) = bytes.split_at(end);
    let hash = tail.strip_prefix(OPEN.as_bytes())?.strip_suffix(CLOSE.as_bytes())?;
    let hash = std::str::from_utf8(hash).ok()?;
    if hexadecimal(&Sha256::digest(body)) != hash {
        return None;
    }
    let line: Line = serde_json::from_slice(bytes).ok()?;
    let row = AuditRow {
        number: line.number,
        at: At(line.at_ms),
        who: line.who,
        role: line.role,
        from: line.from,
        what: line.what,
        whom: line.whom,
        refused: line.refused,
        why: line.why,
    };
    Some(Sound { row, before: line.before, hash: hash.to_owned() })
}
