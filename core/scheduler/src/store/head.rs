//! How far the journal was acknowledged, in a small file beside it.
//!
//! Where the end of `SQLite`'s log is torn or a bit of it is another, everything behind that place is
//! silently taken for what was never committed. So the number of the newest block is written here
//! once its sync has returned, and a start from a journal that ends before it is refused. There is no
//! sync for it: the number may be older than the journal after a power failure and is never ahead of
//! it. Where the file is missing or torn nothing is known, and the journal's own end counts.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::SchedulerError;

/// The file in the scheduler's folder.
const HEAD: &str = "journal.head";

/// The file that names the newest block that was acknowledged.
pub(super) struct Head {
    file: File,
    known: Option<i64>,
}

impl Head {
    /// Opens that of a folder, or makes it.
    pub(super) fn open(folder: &Path) -> Result<Self, SchedulerError> {
        let path = folder.join(HEAD);
        let fail = |error: std::io::Error| SchedulerError::file("opening", &path, &error);
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = open.open(&path).map_err(fail)?;
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Ok(Self { file, known: parse(&text) })
    }

    /// The newest block that was acknowledged, as far as is known.
    pub(super) const fn known(&self) -> Option<i64> {
        self.known
    }

    /// Says that everything up to this block is on the disk, and acknowledged from now on.
    pub(super) fn keep(&mut self, block: i64) {
        self.known = Some(block);
        // Written over in place, which needs no room. What cannot be written is missed by a later
        // start only where the journal is damaged, too.
        if let Err(error) = self.file.write_all_at(text(block).as_bytes(), 0) {
            tracing::warn!("{HEAD} cannot be written: {error}");
        }
    }
}

/// Always of one length.
fn text(block: i64) -> String {
    let number = format!("{block:020}");
    let crc = crc32fast::hash(number.as_bytes());
    format!("{number} {crc:08x}\n")
}

fn parse(read: &str) -> Option<i64> {
    let block = read.split(' ').next()?.parse().ok()?;
    (text(block) == read).then_some(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_head_is_read_back_and_a_torn_one_says_nothing() {
        let folder = TempDir::new().unwrap();
        let mut head = Head::open(folder.path()).unwrap();
        assert_eq!(head.known(), None);
        for block in [0, 7, i64::MAX, 8] {
            head.keep(block);
            assert_eq!(Head::open(folder.path()).unwrap().known(), Some(block));
        }
        let whole = text(8);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(parse(&whole.replace('8', "9")), None);
    }
}
