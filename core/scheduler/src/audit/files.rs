//! The files of the audit log: each begins where the one before ended, and the oldest go.
//!
//! A file is named by the number of its first line. `audit.head` says which line was the newest that is
//! known to be on the disk, so that an end that was cut off is missed; it is written after the lines
//! it names are synced, and is so never ahead of them. Lines behind it were answered to nobody.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gantry_wire::{AuditPage, AuditQuery, AuditReport, AuditRow};

use super::chain::{self, BEGINNING, Entry};

/// The file that names the newest line.
pub(crate) const HEAD: &str = "audit.head";
/// What the names of files begin and end with.
const NAME: (&str, &str) = ("audit-", ".log");
/// Rows of one page, and the bytes of their texts: with all around them they fit a frame.
const ROWS_MAX: usize = 200;
const PAGE_BYTES: usize = 40_000;
/// What a row takes beside its texts, at most.
const ROW_BYTES: usize = 48;

/// How large files become, and how many are kept: 256 MiB, a million lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) file_bytes: u64,
    pub(super) files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 4 * 1024 * 1024, files: 64 }
    }
}

/// The newest line: its number and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) hash: String,
}

impl Head {
    fn beginning() -> Self {
        Self { number: 0, hash: BEGINNING.to_owned() }
    }

    /// Always of one length, so that it is written over in place.
    fn text(&self) -> String {
        format!("{:020} {}\n", self.number, self.hash)
    }

    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join(HEAD)).ok()?;
        let (number, hash) = text.strip_suffix('\n')?.split_once(' ')?;
        let head = Self { number: number.parse().ok()?, hash: hash.to_owned() };
        (head.text() == text).then_some(head)
    }
}

/// The files of a folder, each with the number of its first line, in order.
fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix(NAME.0).and_then(|name| name.strip_suffix(NAME.1));
        if let Some(first) = number.and_then(|number| number.parse().ok()) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

fn name(first: u64) -> String {
    format!("{}{first:012}{}", NAME.0, NAME.1)
}

fn make(folder: &Path, first: u64) -> io::Result<File> {
    let path = folder.join(name(first));
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // The name is on the disk before the first line is.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// The lines of a file, each without its newline, and what stands behind the last newline.
fn split(bytes: &[u8]) -> (impl Iterator<Item = &[u8]>, &[u8]) {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (lines, rest) = bytes.split_at(whole);
    (lines.split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1]), rest)
}

/// The log, to be written.
pub(super) struct Log {
    folder: PathBuf,
    limits: Limits,
    file: File,
    /// Bytes of the file that are whole lines.
    bytes: u64,
    head: Head,
    head_file: File,
    /// What could not be written yet.
    pending: Vec<Entry>,
    /// Why nothing more can be written in this life: it is not known what is on the disk.
    dead: Option<String>,
}

impl Log {
    /// Opens a log, or makes it. Says what is wrong with the one that is there: it is left as it is
    /// then, and a new file follows.
    pub(super) fn open(folder: &Path, limits: Limits) -> io::Result<(Self, Option<String>)> {
        let files = list(folder)?;
        let known = Head::read(folder);
        let mut wrong = None;
        let (mut head, bytes) = match files.last() {
            None => (known.clone().unwrap_or_else(Head::beginning), 0),
            Some((first, path)) => match end(*first, &fs::read(path)?, known.as_ref()) {
                Ok((head, bytes)) => (head, bytes),
                Err(what) => {
                    wrong = Some(what);
                    (known.clone().unwrap_or_else(Head::beginning), 0)
                }
            },
        };
        if files.is_empty() && head.number > 0 {
            wrong = Some("its files are gone".into());
        }
        // What follows a log that is broken begins behind everything that there is of it.
        if wrong.is_some() {
            let newest = files.last().map_or(0, |(first, _)| *first);
            head.number = head.number.max(newest);
        }
        let fresh = wrong.is_some() || files.is_empty();
        let first = match files.last() {
            Some((first, _)) if !fresh => *first,
            _ => head.number + 1,
        };
        let file = make(folder, first)?;
        // What was torn was answered to nobody.
        file.set_len(bytes)?;
        let path = folder.join(HEAD);
        let head_file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let (folder, pending, dead) = (folder.to_owned(), Vec::new(), None);
        let log = Self { folder, limits, file, bytes, head, head_file, pending, dead };
        log.keep_head()?;
        log.head_file.sync_all()?;
        Ok((log, wrong))
    }

    /// The newest line.
    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    /// Writes lines, and those that could not be written before, and syncs them once.
    pub(super) fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        self.pending.extend(entries);
        if let Some(why) = &self.dead {
            return Err(io::Error::other(why.clone()));
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.bytes >= self.limits.file_bytes {
            self.turn()?;
        }
        let (mut text, mut head) = (String::new(), self.head.clone());
        for entry in &self.pending {
            let (line, hash) = chain::line(head.number + 1, &head.hash, entry)?;
            text.push_str(&line);
            head = Head { number: head.number + 1, hash };
        }
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // A part of it may be there; where it cannot be taken away it is not known what is.
            if let Err(left) = self.file.set_len(self.bytes) {
                self.dead = Some(format!("a torn line cannot be taken away: {left}"));
            }
            return Err(error);
        }
        // What a sync has failed for once is never known to be on the disk.
        if let Err(error) = self.file.sync_data() {
            self.dead = Some(format!("syncing failed: {error}"));
            return Err(error);
        }
        self.bytes += text.len() as u64;
        self.head = head;
        self.pending.clear();
        self.keep_head()
    }

    fn keep_head(&self) -> io::Result<()> {
        self.head_file.write_all_at(self.head.text().as_bytes(), 0)
    }

    /// Begins the next file, and lets the oldest go.
    fn turn(&mut self) -> io::Result<()> {
        self.file = make(&self.folder, self.head.number + 1)?;
        self.bytes = 0;
        let files = list(&self.folder)?;
        for (_, path) in files.iter().take(files.len().saturating_sub(self.limits.files)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Where the newest file ends: its newest line, and the bytes of its whole lines.
fn end(first: u64, bytes: &[u8], known: Option<&Head>) -> Result<(Head, u64), String> {
    let known = known.ok_or("its head is gone or cannot be read")?;
    let (lines, _) = split(bytes);
    let (mut at, mut length) = (None, 0);
    let mut seen = known.number < first;
    for line in lines {
        let number = at.as_ref().map_or(first, |head: &Head| head.number + 1);
        let follows = |sound: &chain::Sound| {
            sound.row.number == number
                && at.as_ref().is_none_or(|head: &Head| sound.before == head.hash)
        };
        let Some(sound) = chain::read(line).filter(follows) else {
            // Behind the head a crash may have torn what was answered to nobody.
            if seen {
                break;
            }
            return Err(format!("line {number} is not as it was written"));
        };
        let head = Head { number, hash: sound.hash };
        if number == known.number {
            if head != *known {
                return Err(format!("line {number} is another than the one that was written"));
            }
            seen = true;
        }
        length += line.len() as u64 + 1;
        at = Some(head);
    }
    match at {
        Some(head) if seen => Ok((head, length)),
        // A file that was just begun.
        None if known.number + 1 == first => Ok((known.clone(), 0)),
        _ => Err(format!("its end is gone: line {} was written", known.number)),
    }
}

/// Reads every line up to a head, or to the one that the folder names, and says whether all are as
/// they were written.
pub(super) fn verify(folder: &Path, head: Option<Head>, limits: Limits) -> io::Result<AuditReport> {
    // A file may go while the others are read.
    for _ in 0..2 {
        match look(folder, head.clone(), limits) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    look(folder, head, limits)
}

fn look(folder: &Path, head: Option<Head>, limits: Limits) -> io::Result<AuditReport> {
    let head = head.or_else(|| Head::read(folder));
    let files = list(folder)?;
    let first = files.first().map_or(0, |(first, _)| *first);
    let mut report = AuditReport { first, ..AuditReport::default() };
    let mut at = None;
    let Some(head) = head else {
        report.broken = Some((first, "the head of the log is gone or cannot be read".into()));
        return Ok(report);
    };
    (report.last, report.head) = (head.number, head.hash.clone());
    if first > 1 && files.len() < limits.files {
        let what = format!("older lines are missing: line {first} is the first");
        report.broken = Some((1, what));
        return Ok(report);
    }
    'files: for (begins, path) in &files {
        let bytes = fs::read(path)?;
        let (lines, rest) = split(&bytes);
        let mut lines = lines.peekable();
        let next = at.as_ref().map_or(*begins, |head: &Head| head.number + 1);
        if *begins != next && next <= head.number {
            report.broken = Some((next, format!("is missing: the next file begins with {begins}")));
            return Ok(report);
        }
        if lines.peek().is_none() && next <= head.number && !rest.is_empty() {
            report.broken = Some((next, "is not as it was written".into()));
            return Ok(report);
        }
        for line in lines {
            let number = at.as_ref().map_or(first, |head: &Head| head.number + 1);
            if number > head.number {
                break 'files;
            }
            match broken(line, number, at.as_ref()) {
                Ok(hash) => at = Some(Head { number, hash }),
                Err(what) => {
                    report.broken = Some((number, what));
                    return Ok(report);
                }
            }
        }
    }
    let read = at.unwrap_or_else(Head::beginning);
    if read.number < head.number {
        let what = format!("is missing: line {} was written", head.number);
        report.broken = Some((read.number + 1, what));
    } else if read != head {
        report.broken = Some((read.number, "is another than the one that was written".into()));
    }
    Ok(report)
}

/// The hash of a line that should have this number and follow another; or what is wrong with it.
fn broken(line: &[u8], number: u64, before: Option<&Head>) -> Result<String, String> {
    let sound = chain::read(line).ok_or("is not as it was written")?;
    if sound.row.number != number {
        return Err(format!("is missing: line {} stands in its place", sound.row.number));
    }
    let begins = number == 1 && sound.before != BEGINNING;
    if begins || before.is_some_and(|before| sound.before != before.hash) {
        return Err("does not follow the line before it".into());
    }
    Ok(sound.hash)
}

/// One page of lines: those of one file at most.
pub(super) fn page(folder: &Path, query: &AuditQuery) -> io::Result<AuditPage> {
    let before = query.before.unwrap_or(u64::MAX);
    let files = list(folder)?;
    let place = files.iter().rposition(|(first, _)| *first < before);
    let Some(place) = place else { return Ok(AuditPage::default()) };
    let (begins, path) = &files[place];
    let bytes = match fs::read(path) {
        // The oldest file has gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AuditPage::default()),
        other => other?,
    };
    let matches = |row: &AuditRow| {
        row.number < before
            && query.who.as_ref().is_none_or(|who| row.who == *who)
            && query.from.is_none_or(|from| row.at >= from)
            && query.until.is_none_or(|until| row.at < until)
            && (row.refused || !query.refused)
    };
    let (lines, _) = split(&bytes);
    let found: Vec<AuditRow> =
        lines.filter_map(chain::read).map(|sound| sound.row).filter(matches).collect();
    let (mut rows, mut room) = (Vec::new(), PAGE_BYTES);
    let mut cut = false;
    for row in found.into_iter().rev() {
        let texts = [&row.who, &row.role, &row.from, &row.what, &row.whom, &row.why];
        let size = ROW_BYTES + texts.iter().map(|text| text.len()).sum::<usize>();
        if rows.len() >= ROWS_MAX || size > room {
            cut = true;
            break;
        }
        room -= size;
        rows.push(row);
    }
    rows.reverse();
    // What is older than what is asked for is not looked through to the beginning.
    let over = || query.from.is_some_and(|from| first_at(&bytes).is_some_and(|at| at < from));
    let first = if cut { rows.first().map_or(*begins, |row| row.number) } else { *begins };
    let more = cut || (place > 0 && !over());
    Ok(AuditPage { rows, first, more })
}

/// When the first line of a file was written.
fn first_at(bytes: &[u8]) -> Option<gantry_model::At> {
    split(bytes).0.next().and_then(chain::read).map(|sound| sound.row.at)
}
