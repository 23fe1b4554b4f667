//! The lines of a live output that say something: metrics and progress.
//!
//! `::metric NAME VALUE [STEP]` is a point of a curve. `::progress 0.42`, `::progress 42%` or
//! `::progress 3/7` says how far a task is. Any program in any language prints them; the agent reads
//! them from the file, so a task needs nothing of gantry. Another line is just output.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use gantry_model::limits::NAME_CHARACTERS_MAX;
use gantry_wire::Point;

/// Bytes of one look.
const LOOK_BYTES: u64 = 128 * 1024;
/// Looks at what a task printed last before it ended: 8 MiB.
const LAST_LOOKS_MAX: usize = 64;
/// Bytes of a line that may say something.
const LINE_BYTES_MAX: usize = 4096;

/// Follows one output file.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

/// What was said since the last look.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// Metrics, in the order in which they were printed.
    pub(crate) points: Vec<(String, Point)>,
    /// The newest progress, in thousandths.
    pub(crate) progress_permille: Option<u16>,
}

impl Said {
    fn hear(&mut self, line: &[u8]) {
        // Almost no line says anything; the others cost this comparison.
        if !line.trim_ascii_start().starts_with(b"::") {
            return;
        }
        let Ok(line) = std::str::from_utf8(line) else { return };
        if let Some(point) = metric(line) {
            self.points.push(point);
        } else if let Some(permille) = progress(line) {
            self.progress_permille = Some(permille);
        }
    }

    /// Whether nothing was said.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn follow(&mut self, later: Self) {
        self.points.extend(later.points);
        self.progress_permille = later.progress_permille.or(self.progress_permille);
    }
}

impl Tail {
    /// Follows a file from this byte on.
    pub(crate) fn new(path: PathBuf, offset: u64) -> Self {
        Self { path, offset, rest: Vec::new() }
    }

    /// Up to where whole lines were read.
    pub(crate) fn read(&self) -> u64 {
        self.offset - self.rest.len() as u64
    }

    /// What the lines say that were added since the last look.
    pub(crate) fn look(&mut self) -> Said {
        let mut added = Vec::new();
        let read = super::named::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(LOOK_BYTES).read_to_end(&mut added)
        });
        let mut said = Said::default();
        // A file that is not there yet says nothing yet.
        let Ok(count) = read else { return said };
        self.offset += count as u64;
        self.rest.extend(added);
        let end = memchr::memrchr(b'\n', &self.rest).map_or(0, |end| end + 1);
        for line in self.rest[..end].split(|byte| *byte == b'\n') {
            said.hear(line);
        }
        self.rest.drain(..end);
        if self.rest.len() > LINE_BYTES_MAX {
            self.rest.clear();
        }
        said
    }

    /// The length of the file, where it is there.
    pub(crate) fn length(&self) -> Option<u64> {
        super::length(&self.path)
    }

    /// What is left to say, after the task has ended with a file of this length.
    pub(crate) fn look_to_the_end(&mut self, length: Option<u64>) -> Said {
        let mut said = Said::default();
        // Most tasks print nothing.
        if length.is_none_or(|length| length == self.offset) {
            return said;
        }
        for _ in 0..LAST_LOOKS_MAX {
            let before = self.offset;
            said.follow(self.look());
            if self.offset < before + LOOK_BYTES {
                break;
            }
        }
        said
    }

    /// Whether the file has more than so many bytes.
    pub(crate) fn is_over(&self, bytes_max: u64) -> bool {
        self.length().is_some_and(|length| length > bytes_max)
    }
}

/// A line's metric, if it is one.
fn metric(line: &str) -> Option<(String, Point)> {
    let mut words = line.trim().strip_prefix("::metric ")?.split_whitespace();
    let name = words.next().filter(|name| name.chars().count() <= NAME_CHARACTERS_MAX)?;
    let value: f64 = words.next()?.parse().ok().filter(|value: &f64| value.is_finite())?;
    let step = words.next().map_or(Ok(0), str::parse).ok()?;
    Some((name.to_owned(), Point::new(step, value)))
}

/// A line's progress in thousandths, if it is one: from 0 to 1, in per cent, or so many of so many.
fn progress(line: &str) -> Option<u16> {
    let words = line.trim().strip_prefix("::progress ")?.trim();
    let number = |text: &str| text.trim().parse().ok().filter(|value: &f64| value.is_finite());
    let part = if let Some(percent) = words.strip_suffix('%') {
        number(percent)? / 100.0
    } else if let Some((done, all)) = words.split_once('/') {
        let all = number(all).filter(|all| *all > 0.0)?;
        number(done)? / all
    } else {
        number(words)?
    };
    (0.0..=1.0).contains(&part).then(|| (part * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use std::io::Write;
    use tempfile::TempDir;

    #[test]
    fn lines_that_are_metrics() {
        for (line, expected) in [
            ("::metric loss 0.5 12", Some(("loss", 12, 0.5))),
            ("  ::metric dice 1e-3\r", Some(("dice", 0, 0.001))),
            ("::metric loss nan 1", None),
            ("::metric loss", None),
            ("::metric loss x 1", None),
            ("metric loss 1 1", None),
            ("::metric loss 1 -1", None),
        ] {
            let found = metric(line).map(|(name, point)| (name, point.step, point.value()));
            let expected = expected.map(|(name, step, value)| (name.to_owned(), step, value));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn lines_that_are_progress() {
        for (line, expected) in [
            ("::progress 0.42", Some(420)),
            ("  ::progress 42%\r", Some(420)),
            ("::progress 42.25 %", Some(423)),
            ("::progress 3/7", Some(429)),
            ("::progress 0 / 7", Some(0)),
            ("::progress 7/7", Some(1000)),
            ("::progress 1", Some(1000)),
            ("::progress 42", None),
            ("::progress -1%", None),
            ("::progress 8/7", None),
            ("::progress 0/0", None),
            ("::progress inf/inf", None),
            ("::progress half", None),
            ("::progress", None),
            ("progress 0.5", None),
        ] {
            assert_eq!(progress(line), expected, "{line}");
        }
    }

    #[test]
    fn a_tail_takes_whole_lines() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("0.out");
        let mut tail = Tail::new(path.clone(), 0);
        assert!(tail.look().is_nothing());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"hello\n::metric loss 1 1\n::metric lo").unwrap();
        assert_eq!((tail.look().points.len(), tail.read()), (1, 24));
        file.write_all(b"ss 2 2\n::progress 1/4\n::progress 2/4\n").unwrap();
        let said = tail.look();
        assert_eq!(said.points, [("loss".into(), Point::new(2, 2.0))]);
        assert_eq!(said.progress_permille, Some(500));
        // One that follows after a restart goes on where the one before was.
        let mut next = Tail::new(path, tail.read());
        file.write_all(&vec![b'x'; 300_000]).unwrap();
        file.write_all(b"\n::metric loss 3 3\n").unwrap();
        for tail in [&mut tail, &mut next] {
            assert_eq!(
                tail.look_to_the_end(tail.length()).points,
                [("loss".into(), Point::new(3, 3.0))]
            );
        }
    }
}
