//! The output of a job as a person reads it: followed until one scrolls, searched, cut down to what
//! went wrong.
//!
//! Pictures bring the end of an output; what lies before is asked for once one scrolls there. Bytes
//! are kept up to a limit, and a gap in them is told, never closed up.

use std::ops::Range;

use gantry_model::JobId;
use gantry_wire::Output;

/// Bytes of an output that are kept.
const BYTES_MAX: usize = 1 << 20;
/// Lines left above the first when earlier ones are asked for.
const NEAR_THE_TOP: usize = 50;

/// An output, and how it is looked at.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "switches that a person turns one by one")]
pub struct Log {
    job: Option<JobId>,
    bytes: Vec<u8>,
    /// The place of the first byte in the output.
    first: u64,
    /// Whether more may come.
    pub live: bool,
    /// Whether anything was ever said of this output.
    pub known: bool,
    lines: Vec<Range<usize>>,
    /// Lines that it is scrolled back; 0 follows it.
    pub back: usize,
    /// What is searched for.
    pub search: String,
    /// Whether only what looks like trouble is shown.
    pub errors_only: bool,
    /// Whether long lines go on below.
    pub wrap: bool,
    /// Whether the times that lines begin with are hidden.
    pub without_times: bool,
    /// Columns that it is moved to the left.
    pub sideways: u16,
}

impl Log {
    /// Whether it is this job's.
    #[must_use]
    pub fn is_of(&self, job: JobId) -> bool {
        self.job == Some(job)
    }

    /// Begins with another job; how it is looked at stays.
    pub fn open(&mut self, job: JobId) {
        if self.job != Some(job) {
            let (errors_only, wrap, without_times) =
                (self.errors_only, self.wrap, self.without_times);
            *self = Self { job: Some(job), errors_only, wrap, without_times, ..Self::default() };
        }
    }

    /// Takes the end of the output as a picture has it.
    pub fn take(&mut self, job: JobId, output: &Output) {
        self.open(job);
        let end = self.first + self.bytes.len() as u64;
        let start = output.next.saturating_sub(output.bytes.len() as u64);
        let (before, followed) = (self.lines.len(), self.back == 0);
        (self.live, self.known) = (output.live, true);
        if start > end || output.next < self.first || self.bytes.is_empty() {
            // Nothing joins the two: what is in between may be asked for from here.
            (self.bytes, self.first) = (output.bytes.clone(), start);
        } else if output.next > end {
            let new = (output.next - end) as usize;
            self.bytes.extend(&output.bytes[output.bytes.len() - new..]);
        } else if output.next == end || self.holds(start, &output.bytes) {
            // Pictures and answers go by different ways: one may be older than what is here.
            return;
        } else {
            // A new try has begun: its output is shorter.
            (self.bytes, self.first) = (output.bytes.clone(), start);
        }
        self.shorten();
        self.split();
        if !followed {
            // What is read stays where it is.
            self.back += self.lines.len().saturating_sub(before);
        }
        self.back = self.back.min(self.lines.len().saturating_sub(1));
    }

    /// Whether these bytes are what is kept from a place on.
    fn holds(&self, start: u64, bytes: &[u8]) -> bool {
        let place = start.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        place.and_then(|at| self.bytes.get(at..at + bytes.len())) == Some(bytes)
    }

    /// Takes a piece that was asked for: the end, or what lies before the first byte.
    pub fn take_piece(&mut self, job: JobId, output: &Output) {
        let start = output.next.saturating_sub(output.bytes.len() as u64);
        if self.job == Some(job) && start < self.first && output.next >= self.first {
            let earlier = (self.first - start) as usize;
            let mut bytes = output.bytes[..earlier].to_vec();
            bytes.append(&mut self.bytes);
            (self.bytes, self.first) = (bytes, start);
            self.split();
        } else {
            self.take(job, output);
        }
    }

    /// The byte from which on an earlier piece is wanted: one is scrolled near to the first line.
    #[must_use]
    pub fn wants(&self, job: JobId) -> Option<u64> {
        let near =
            self.back > 0 && self.lines.len() - self.back.min(self.lines.len()) < NEAR_THE_TOP;
        let more = self.is_of(job) && self.first > 0 && self.bytes.len() < BYTES_MAX;
        (near && more).then(|| self.first.saturating_sub(Output::PIECE_BYTES))
    }

    /// The piece from a byte on, as a node would give it, as far as it is kept.
    #[must_use]
    pub fn piece(&self, offset: u64) -> Option<Output> {
        let end = self.first + self.bytes.len() as u64;
        let kept = offset.max(self.first)..offset.saturating_add(Output::PIECE_BYTES).min(end);
        let at = |place: u64| (place - self.first) as usize;
        let next = kept.end;
        (!kept.is_empty()).then(|| {
            let bytes = self.bytes[at(kept.start)..at(kept.end)].to_vec();
            Output { bytes, next, live: self.live }
        })
    }

    /// Whether lines before the first are known to exist.
    #[must_use]
    pub fn begins_later(&self) -> bool {
        self.first > 0
    }

    fn shorten(&mut self) {
        if self.bytes.len() > BYTES_MAX {
            let over = self.bytes.len() - BYTES_MAX;
            let line =
                self.bytes[over..].iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.bytes.drain(..over + line);
            self.first += (over + line) as u64;
        }
    }

    /// Finds the lines that are shown.
    fn split(&mut self) {
        let start = self.bytes.as_ptr() as usize;
        let ranges: Vec<Range<usize>> = super::log_lines(&self.bytes)
            .into_iter()
            .filter(|line| !self.errors_only || is_loud(line))
            .map(|line| {
                let at = line.as_ptr() as usize - start;
                at..at + line.len()
            })
            .collect();
        self.lines = ranges;
    }

    /// Lines that are shown.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// A line as it is shown.
    #[must_use]
    pub fn line(&self, number: usize) -> String {
        let Some(range) = self.lines.get(number) else { return String::new() };
        let line = String::from_utf8_lossy(&self.bytes[range.clone()]).into_owned();
        if self.without_times { without_time(&line).to_owned() } else { line }
    }

    /// Whether a line looks like trouble.
    #[must_use]
    pub fn is_loud(&self, number: usize) -> bool {
        self.lines.get(number).is_some_and(|range| is_loud(&self.bytes[range.clone()]))
    }

    /// Whether a line holds what is searched for.
    #[must_use]
    pub fn is_match(&self, number: usize) -> bool {
        let holds = |range: &Range<usize>| {
            let line = String::from_utf8_lossy(&self.bytes[range.clone()]).to_lowercase();
            line.contains(&self.search.to_lowercase())
        };
        !self.search.is_empty() && self.lines.get(number).is_some_and(holds)
    }

    /// The newest line that holds a word.
    #[must_use]
    pub fn last_with(&self, word: &str) -> Option<String> {
        let numbers = (0..self.lines.len()).rev();
        numbers.map(|number| self.line(number)).find(|line| line.to_lowercase().contains(word))
    }

    /// The number behind the last line on the screen.
    #[must_use]
    pub fn end(&self) -> usize {
        self.lines.len() - self.back.min(self.lines.len().saturating_sub(1))
    }

    /// Goes to the nearest line before (or behind) the last one shown that holds what is searched
    /// for. Says whether there is one.
    pub fn find(&mut self, before: bool) -> bool {
        let here = self.end().saturating_sub(1);
        let found = if before {
            (0..here).rev().find(|number| self.is_match(*number))
        } else {
            (here + 1..self.lines.len()).find(|number| self.is_match(*number))
        };
        if let Some(number) = found {
            self.back = self.lines.len() - 1 - number;
            // The last line is followed; a match in it is looked at.
        }
        found.is_some()
    }

    /// Shows only what looks like trouble, or all.
    pub fn only_errors(&mut self, only: bool) {
        self.errors_only = only;
        self.back = 0;
        self.split();
    }
}

/// Whether a line looks like trouble.
fn is_loud(line: &[u8]) -> bool {
    let holds = |word: &[u8]| line.windows(word.len()).any(|part| part == word);
    line.starts_with(b"!")
        || [
            &b"rror"[..],
            b"ERROR",
            b"panicked",
            b"Traceback",
            b"FATAL",
            b"fatal",
            b"Killed",
            b" ! ",
        ]
        .into_iter()
        .any(holds)
}

/// A line without the time it begins with: `18:03:11 `, or a date before it.
fn without_time(line: &str) -> &str {
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b":.,-TZ+[]".contains(&byte));
    let mut rest = line;
    for _ in 0..2 {
        match rest.split_once(' ') {
            Some((word, after)) if word.len() >= 5 && digits(word) && word.contains([':', '-']) => {
                rest = after.trim_start();
            }
            _ => break,
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(1);

    fn piece(start: u64, text: &str) -> Output {
        Output { bytes: text.as_bytes().to_vec(), next: start + text.len() as u64, live: true }
    }

    fn text(log: &Log) -> Vec<String> {
        (0..log.len()).map(|number| log.line(number)).collect()
    }

    #[test]
    fn pieces_join_and_a_gap_begins_anew() {
        let mut log = Log::default();
        log.take(JOB, &piece(100, "one\ntwo\n"));
        log.take(JOB, &piece(104, "two\nthree\n"));
        assert_eq!(text(&log), ["one", "two", "three"]);
        log.back = 2;
        assert_eq!(log.wants(JOB), Some(0));
        log.take_piece(JOB, &piece(96, "old\none"));
        assert_eq!(
            (text(&log), log.back),
            (["old", "one", "two", "three"].map(String::from).to_vec(), 2)
        );
        log.take(JOB, &piece(108, "three\nfour\n"));
        assert_eq!(log.back, 3, "what is read stays");
        log.take(JOB, &piece(104, "two\nthree\n"));
        assert_eq!(log.len(), 5, "one that came late changes nothing");
        log.take(JOB, &piece(5000, "later\n"));
        assert_eq!((text(&log), log.begins_later()), (vec!["later".to_owned()], true));
        log.take(JOB, &piece(0, "a new try\n"));
        assert_eq!(text(&log), ["a new try"]);
        log.open(JobId(2));
        assert!(log.is_empty() && !log.known);
    }

    #[test]
    fn what_lies_before_is_asked_for_so_that_it_joins() {
        let line = "0123456\n";
        let whole = line.repeat(40_000);
        let mut node = Log::default();
        node.take(JOB, &piece(0, &whole));
        let mut log = Log::default();
        log.take(JOB, &piece(300_000, &whole[300_000..]));
        for _ in 0..100 {
            log.back = log.len() - 1;
            let Some(offset) = log.wants(JOB) else { break };
            let earlier = node.piece(offset).unwrap();
            assert!(earlier.bytes.len() as u64 <= Output::PIECE_BYTES);
            let before = log.len();
            log.take_piece(JOB, &earlier);
            assert!(log.len() > before, "at {offset}");
        }
        assert_eq!((log.len(), log.begins_later()), (40_000, false));
        // Where less is kept than was asked for it joins all the same.
        let mut late = Log::default();
        late.take(JOB, &piece(1000, "one\ntwo\n"));
        assert_eq!(late.piece(998), Some(piece(1000, "one\ntwo\n")));
        assert_eq!((late.piece(1008), late.piece(u64::MAX)), (None, None));
    }

    #[test]
    fn matches_are_found_in_both_directions_and_errors_alone() {
        let mut log = Log::default();
        log.take(JOB, &piece(0, "loss 1\nError: x\nloss 2\n12:00:01 loss 3\n! slow\n"));
        log.search = "LOSS".into();
        assert!(log.find(true) && log.end() == 4);
        assert!(log.find(true) && log.end() == 3);
        assert!(log.find(false) && log.end() == 4);
        assert!(!log.find(false));
        log.without_times = true;
        assert_eq!(log.line(3), "loss 3");
        log.only_errors(true);
        assert_eq!((text(&log), log.back), (vec!["Error: x".to_owned(), "! slow".into()], 0));
    }

    #[test]
    fn an_endless_output_is_kept_up_to_its_limit() {
        let mut log = Log::default();
        let line = format!("{}\n", "x".repeat(999));
        let mut at = 0;
        for _ in 0..2000 {
            log.take(JOB, &piece(at, &line));
            at += line.len() as u64;
        }
        assert!(log.bytes.len() <= BYTES_MAX && log.len() > 1000);
        assert!(log.line(0).len() == 999, "cut between lines");
    }
}
