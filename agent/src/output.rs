//! The output of tasks: one file each, read by offset, and the lines in it that are metrics.
//!
//! `::metric NAME VALUE [STEP]` is a point of a curve. Any program in any language prints it; the
//! agent reads it from the file, so a task needs nothing of gantry. A line that is no metric is
//! just output.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use gantry_model::limits::NAME_CHARACTERS_MAX;
use gantry_model::{Reject, TaskId};
use gantry_wire::{Output, Point};

/// Bytes of one piece: with its frame it stays below 64 KiB.
const PIECE_BYTES: u64 = 32 * 1024;
/// Bytes of the last piece, which a screen asks for each second.
const LAST_BYTES: u64 = 8 * 1024;
/// Bytes of the output of one task, over all its starts. One that writes more is ended: a loop that
/// prints fills a disk that others need.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 4 << 30;
/// Looks at what a task printed last before it ended: 8 MiB.
const LAST_LOOKS_MAX: usize = 64;
/// Bytes of a line that may be a metric.
const LINE_BYTES_MAX: usize = 4096;

/// Where the output of a task is.
pub(crate) fn path(folder: &Path, task: TaskId) -> PathBuf {
    folder.join(task.job.to_string()).join(format!("{}.out", task.index))
}

/// Makes the folder of a task's output, and opens the file to append to it: a further start
/// writes behind the one before.
pub(crate) fn open(folder: &Path, task: TaskId) -> std::io::Result<File> {
    let path = path(folder, task);
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    File::options().create(true).append(true).open(path)
}

/// A piece of a task's output from an offset on; the last one for `u64::MAX`.
pub(crate) fn piece(
    folder: &Path,
    task: TaskId,
    offset: u64,
    live: bool,
) -> Result<Output, Reject> {
    let path = path(folder, task);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Output { bytes: Vec::new(), next: 0, live });
        }
        Err(error) => return Err(unreadable(task, &error)),
    };
    let length = file.metadata().map_err(|error| unreadable(task, &error))?.len();
    let (start, count) = if offset == u64::MAX {
        (length.saturating_sub(LAST_BYTES), LAST_BYTES)
    } else {
        (offset.min(length), PIECE_BYTES)
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.take(count).read_to_end(&mut bytes))
        .map_err(|error| unreadable(task, &error))?;
    Ok(Output { next: start + bytes.len() as u64, bytes, live })
}

fn unreadable(task: TaskId, error: &std::io::Error) -> Reject {
    Reject::new(
        gantry_model::RejectKind::Busy,
        format!("reading the output of {task} failed on its node: {error}"),
    )
}

/// Follows one output file for metrics.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

impl Tail {
    /// Follows from the present end of the file on.
    pub(crate) fn new(folder: &Path, task: TaskId) -> Self {
        let path = path(folder, task);
        let offset = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, offset, rest: Vec::new() }
    }

    /// The metrics of the lines that were added since the last look.
    pub(crate) fn look(&mut self) -> Vec<(String, Point)> {
        let mut added = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(4 * PIECE_BYTES).read_to_end(&mut added)
        });
        // A file that is not there yet has no metrics yet.
        let Ok(count) = read else { return Vec::new() };
        self.offset += count as u64;
        self.rest.extend(added);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        if self.rest.len() > LINE_BYTES_MAX {
            self.rest.clear();
        }
        let lines = whole.split(|byte| *byte == b'\n');
        lines.filter_map(|line| metric(std::str::from_utf8(line).ok()?)).collect()
    }

    /// The metrics of what is left, after the task has ended.
    pub(crate) fn look_to_the_end(&mut self) -> Vec<(String, Point)> {
        let mut points = Vec::new();
        for _ in 0..LAST_LOOKS_MAX {
            let before = self.offset;
            points.extend(self.look());
            if self.offset == before {
                break;
            }
        }
        points
    }

    /// Whether the file has more than [`OUTPUT_BYTES_MAX`].
    pub(crate) fn is_over(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() > OUTPUT_BYTES_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::JobId;
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
    fn a_tail_takes_whole_lines_and_pieces_meet() {
        let folder = TempDir::new().unwrap();
        let task = JobId(1).task(2);
        let mut file = open(folder.path(), task).unwrap();
        let mut tail = Tail::new(folder.path(), task);
        file.write_all(b"hello\n::metric loss 1 1\n::metric lo").unwrap();
        assert_eq!(tail.look().len(), 1);
        file.write_all(b"ss 2 2\n").unwrap();
        assert_eq!(tail.look(), [("loss".into(), Point::new(2, 2.0))]);
        file.write_all(&vec![b'x'; 100_000]).unwrap();
        let (mut offset, mut whole) = (0, Vec::new());
        loop {
            let piece = piece(folder.path(), task, offset, false).unwrap();
            if piece.bytes.is_empty() {
                break;
            }
            offset = piece.next;
            whole.extend(piece.bytes);
        }
        assert_eq!(whole, fs::read(path(folder.path(), task)).unwrap());
        let last = piece(folder.path(), task, u64::MAX, true).unwrap();
        assert_eq!((last.bytes.len() as u64, last.next), (LAST_BYTES, whole.len() as u64));
    }
}
