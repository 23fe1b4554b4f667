//! Lines of all outputs of a job that hold a text.
//!
//! The text is looked for as it stands, byte by byte. An answer is bounded, and so is the work: a
//! search that read [`SEARCHED_BYTES_MAX`] says that there may be more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use gantry_model::{JobId, Reject, RejectKind, TaskId};
use gantry_wire::Found;
use memchr::memmem::Finder;

use super::Outputs;
use super::pack::{Pack, Segment};

/// Lines of one answer.
const LINES_MAX: usize = 200;
/// Characters of one line.
const LINE_CHARACTERS_MAX: usize = 300;
/// Bytes of all lines of an answer: with its frame it stays below 64 KiB.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// Bytes that one search reads: some seconds of a disk.
const SEARCHED_BYTES_MAX: u64 = 4 << 30;
/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What a search has found so far.
struct Search<'a> {
    finder: Finder<'a>,
    lines: Vec<Found>,
    bytes: usize,
    searched: u64,
    more: bool,
}

/// One task's output as it passes by.
struct Passing {
    task: TaskId,
    /// The number of the line that `rest` begins.
    line: u64,
    rest: Vec<u8>,
}

impl Outputs {
    /// The lines that hold a text, by task, and whether there are more than an answer holds.
    pub(crate) fn search(&self, job: JobId, text: &str) -> Result<(Vec<Found>, bool), Reject> {
        if text.is_empty() {
            return Err(Reject::invalid("there is nothing to search for; give a text"));
        }
        self.look_for(job, text).map_err(|error| {
            Reject::new(
                RejectKind::Busy,
                format!("searching the output of {job} failed on its node: {error}"),
            )
        })
    }

    fn look_for(&self, job: JobId, text: &str) -> io::Result<(Vec<Found>, bool)> {
        let folder = self.job(job);
        let (mut pack, mut files) = {
            let _packing = self.lock();
            (Pack::open(&folder)?, files(&folder)?)
        };
        let mut segments = BTreeMap::<u32, Vec<Segment>>::new();
        if let Some(pack) = &mut pack {
            for segment in pack.index(|_| true)?.segments {
                segments.entry(segment.index).or_default().push(segment);
            }
        }
        for index in files.keys() {
            segments.entry(*index).or_default();
        }
        let mut search = Search {
            finder: Finder::new(text.as_bytes()),
            lines: Vec::new(),
            bytes: 0,
            searched: 0,
            more: false,
        };
        for (index, segments) in segments {
            let mut passing = Passing { task: job.task(index), line: 1, rest: Vec::new() };
            for segment in &segments {
                if let Some(pack) = &mut pack {
                    search.pass(&mut passing, &pack.read(segment));
                }
            }
            if let Some(file) = files.remove(&index) {
                search.pass_file(&mut passing, file)?;
            }
            search.finish(&mut passing);
            if search.more {
                break;
            }
        }
        Ok((search.lines, search.more))
    }
}

/// The outputs of a folder that are not packed, by index.
fn files(job: &Path) -> io::Result<BTreeMap<u32, File>> {
    let mut files = BTreeMap::new();
    let entries = match fs::read_dir(job) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let index = name.strip_suffix(".out").and_then(|index| index.parse().ok());
        if let Some(index) = index {
            files.insert(index, super::named::open(&path)?);
        }
    }
    Ok(files)
}

impl Search<'_> {
    fn pass_file(&mut self, passing: &mut Passing, mut file: File) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while !self.more {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            self.pass(passing, &chunk[..count]);
        }
        Ok(())
    }

    /// Looks through the next bytes of an output, as far as whole lines go.
    fn pass(&mut self, passing: &mut Passing, bytes: &[u8]) {
        self.searched += bytes.len() as u64;
        self.more |= self.searched > SEARCHED_BYTES_MAX;
        passing.rest.extend_from_slice(bytes);
        let end = memchr::memrchr(b'\n', &passing.rest).map_or(0, |end| end + 1);
        // A line that is longer than a chunk is cut, so that memory stays bounded.
        let end =
            if end == 0 && passing.rest.len() > CHUNK_BYTES { passing.rest.len() } else { end };
        let whole: Vec<u8> = passing.rest.drain(..end).collect();
        self.look(passing.task, passing.line, &whole);
        passing.line += memchr::memchr_iter(b'\n', &whole).count() as u64;
    }

    /// Looks through the line that has no end.
    fn finish(&mut self, passing: &mut Passing) {
        let rest = std::mem::take(&mut passing.rest);
        self.look(passing.task, passing.line, &rest);
    }

    fn look(&mut self, task: TaskId, first_line: u64, bytes: &[u8]) {
        let (mut line, mut counted, mut from) = (first_line, 0, 0);
        while let Some(at) = self.finder.find(&bytes[from..]).map(|at| at + from) {
            let begin = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |before| before + 1);
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |after| at + after);
            line += memchr::memchr_iter(b'\n', &bytes[counted..begin]).count() as u64;
            counted = begin;
            if !self.keep(task, line, &bytes[begin..end]) {
                return;
            }
            // A line is told once. A text that holds a line's end is found in no line.
            from = (end + 1).min(bytes.len());
            if from <= at {
                return;
            }
        }
    }

    fn keep(&mut self, task: TaskId, line: u64, bytes: &[u8]) -> bool {
        let text: String = String::from_utf8_lossy(bytes)
            .trim_end_matches('\r')
            .chars()
            .take(LINE_CHARACTERS_MAX)
            .collect();
        if self.lines.len() >= LINES_MAX || self.bytes + text.len() > ANSWER_BYTES_MAX {
            self.more = true;
            return false;
        }
        self.bytes += text.len();
        self.lines.push(Found { task, line, text });
        true
    }
}
