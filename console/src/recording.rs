//! A recording: what a console was told, with its times, in one file.
//!
//! A recording holds pictures of every screen as the scheduler sent them, and what it answered to the
//! questions that the screens ask beside them, so that it can be looked at with the same screens and
//! keys as the cluster itself ([`replay`]). It holds names of users and jobs, command lines and ends of
//! outputs, and is made with mode 0600.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic `GANTREC` and the version of this form, 2 |
//! | then, for each entry: 4 | its length, little endian |
//! | 4 | CRC-32 of what follows |
//! | 8 | milliseconds since the recording began, little endian |
//! | length | the entry: deflated bytes of the wire's own encoding |
//!
//! The first entry is the [`Head`]. A length is checked before anything is read, and what a deflated
//! entry may become is limited. Bytes that end within an entry, or whose checksum does not fit, are
//! where a recording is [cut](Cut): everything before them counts.

mod questions;
pub mod record;
pub mod replay;

use std::fmt;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use gantry_model::At;
use gantry_wire::codec::{self, VALUE_BYTES_MAX};
use gantry_wire::{Reply, Request, Scope, Update};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 7] = b"GANTREC";
/// The version of the form. The first one had no answers, and is read too; any other is refused, never
/// guessed at.
const VERSION: u8 = 2;
const VERSION_MIN: u8 = 1;
/// Bytes in front of an entry.
const HEADER_BYTES: usize = 16;
/// Bytes of a deflated entry: what does not get shorter gets a little longer.
const ENTRY_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;
/// Bytes of an entry once inflated: a value of the wire and what it is of.
const INFLATED_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024;

/// What a recording is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The cluster's name.
    pub cluster: String,
    /// When it began, by the scheduler's clock.
    pub began: At,
    /// The version of the program that wrote it.
    pub software: String,
    /// The newest protocol version it spoke: pictures have the form of that one.
    pub protocol: u16,
}

/// What a console was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The scheduler answers.
    Live,
    /// It does not, and why.
    Away(String),
    /// A picture.
    Picture {
        /// What it is of.
        scope: Scope,
        /// What it looks like.
        update: Box<Update>,
    },
    /// An answer.
    Answer {
        /// What was asked.
        request: Box<Request>,
        /// What was answered.
        reply: Box<Reply>,
    },
}

/// What stands before a picture or an answer, or alone.
#[derive(Serialize, Deserialize)]
enum Tag {
    Head(Head),
    Live,
    Away(String),
    Picture(Scope),
    Answer(Box<Request>),
}

/// Where a recording cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Milliseconds of it that could be read.
    pub after_ms: u64,
    /// Why it goes no further.
    pub reason: String,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = gantry_model::Millis(self.after_ms / 1000 * 1000);
        write!(f, "the recording is cut after {time}: {}", self.reason)
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording, so that what is there can be replayed from now on.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn begin(mut to: W, head: &Head) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        to.write_all(&[VERSION])?;
        let mut writer = Self { to, written: MAGIC.len() as u64 + 1 };
        writer.entry(0, &Tag::Head(head.clone()), &[])?;
        writer.flush()?;
        Ok(writer)
    }

    /// Hands on what a buffer below still holds, which would be lost with this process.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Adds what was heard so long after its begin.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add(&mut self, after_ms: u64, heard: &Heard) -> io::Result<()> {
        match heard {
            Heard::Live => self.entry(after_ms, &Tag::Live, &[]),
            Heard::Away(why) => self.entry(after_ms, &Tag::Away(why.clone()), &[]),
            Heard::Picture { scope, update } => {
                let body = codec::encode(&**update).map_err(io::Error::other)?;
                self.entry(after_ms, &Tag::Picture(*scope), &body)
            }
            Heard::Answer { request, reply } => {
                let body = codec::encode(&**reply).map_err(io::Error::other)?;
                self.entry(after_ms, &Tag::Answer(request.clone()), &body)
            }
        }
    }

    /// Bytes so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Hands the file back.
    ///
    /// # Errors
    /// Where the last bytes cannot be written.
    pub fn end(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, after_ms: u64, tag: &Tag, body: &[u8]) -> io::Result<()> {
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
        let tag = codec::encode(tag).map_err(io::Error::other)?;
        deflate.write_all(&(tag.len() as u16).to_le_bytes())?;
        deflate.write_all(&tag)?;
        deflate.write_all(body)?;
        let body = deflate.finish()?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(after_ms.to_le_bytes());
        bytes.extend(body);
        let checksum = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.to.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a recording, entry by entry.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// What it is of.
    pub head: Head,
    after_ms: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of a recording.
    ///
    /// # Errors
    /// A sentence that says why this is no recording that can be shown.
    pub fn open(mut from: R) -> Result<Self, String> {
        let mut magic = [0; MAGIC.len() + 1];
        let whole = from.read_exact(&mut magic);
        if whole.is_err() || !magic.starts_with(MAGIC) {
            return Err("it is no recording of gantry".into());
        }
        let version = magic[MAGIC.len()];
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(format!(
                "it has the form {version}, and this program reads {VERSION_MIN} to {VERSION}; replay it with the program that wrote it"
            ));
        }
        let mut after_ms = 0;
        let first = entry(&mut from, &mut after_ms).map_err(|cut| cut.reason)?;
        let Some((Tag::Head(head), _)) = first else {
            return Err("it does not say what it is of".into());
        };
        if head.protocol != gantry_wire::hello::VERSION_MAX {
            return Err(format!(
                "it was written by version {} with pictures of another form; replay it with that one",
                head.software
            ));
        }
        Ok(Self { from, head, after_ms })
    }

    /// The next thing that was heard, and how long after the begin; nothing at the end.
    ///
    /// # Errors
    /// Where the recording is cut.
    pub fn hear(&mut self) -> Result<Option<(u64, Heard)>, Cut> {
        let Some((tag, rest)) = entry(&mut self.from, &mut self.after_ms)? else { return Ok(None) };
        let cut = |reason: &str| Cut { after_ms: self.after_ms, reason: reason.into() };
        let heard = match tag {
            Tag::Live => Heard::Live,
            Tag::Away(why) => Heard::Away(why),
            Tag::Picture(scope) => {
                let update = codec::decode::<Update>(&rest);
                let update = Box::new(update.map_err(|_| cut("a picture cannot be read"))?);
                Heard::Picture { scope, update }
            }
            Tag::Answer(request) => {
                let reply = codec::decode::<Reply>(&rest);
                let reply = Box::new(reply.map_err(|_| cut("an answer cannot be read"))?);
                Heard::Answer { request, reply }
            }
            Tag::Head(_) => return Err(cut("a second beginning stands in it")),
        };
        Ok(Some((self.after_ms, heard)))
    }
}

/// One entry: what it is, and what belongs to it.
fn entry(from: &mut impl Read, after_ms: &mut u64) -> Result<Option<(Tag, Vec<u8>)>, Cut> {
    let before = *after_ms;
    let cut = |reason: &str| Cut { after_ms: before, reason: reason.into() };
    let mut header = [0; HEADER_BYTES];
    match fill(from, &mut header) {
        Ok(0) => return Ok(None),
        Ok(HEADER_BYTES) => {}
        Ok(_) => return Err(cut("its last bytes are missing")),
        Err(error) => return Err(cut(&format!("reading it failed: {error}"))),
    }
    let number =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let length = number(&header[..4]) as usize;
    if length > ENTRY_BYTES_MAX {
        return Err(cut("its bytes are damaged"));
    }
    let mut body = vec![0; length];
    if !fill(from, &mut body).is_ok_and(|count| count == length) {
        return Err(cut("its last bytes are missing"));
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header[8..]);
    checksum.update(&body);
    if u64::from(checksum.finalize()) != number(&header[4..8]) {
        return Err(cut("its bytes are damaged"));
    }
    let mut inflated = Vec::new();
    let mut inflate = DeflateDecoder::new(&body[..]).take(INFLATED_BYTES_MAX as u64 + 1);
    let read = inflate.read_to_end(&mut inflated);
    if read.is_err() || inflated.len() > INFLATED_BYTES_MAX || inflated.len() < 2 {
        return Err(cut("an entry cannot be inflated"));
    }
    let tag_end = 2 + usize::from(u16::from_le_bytes([inflated[0], inflated[1]]));
    let tag = inflated.get(2..tag_end).and_then(|tag| codec::decode::<Tag>(tag).ok());
    let tag = tag.ok_or_else(|| cut("an entry cannot be read"))?;
    // Times do not run backwards, whatever a file says.
    *after_ms = number(&header[8..]).max(before);
    Ok(Some((tag, inflated.split_off(tag_end))))
}

/// Fills a buffer as far as there are bytes; says how far.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use gantry_model::{JobId, JobRow, Summary};

    use super::*;

    fn head() -> Head {
        Head {
            cluster: "a".into(),
            began: At(7),
            software: "0.1.0".into(),
            protocol: gantry_wire::hello::VERSION_MAX,
        }
    }

    fn picture(number: u64) -> Heard {
        let row = JobRow { job: JobId(number), name: "胸部".repeat(50), ..JobRow::default() };
        let update = Update {
            at: At(number),
            cluster: "a".into(),
            summary: Summary::default(),
            nodes: Vec::new(),
            busy_permille: vec![None, Some(5)],
            gpu_busy_permille: Vec::new(),
            gpu_power_w: Vec::new(),
            owners: Vec::new(),
            jobs: vec![row; 20],
            metrics: Vec::new(),
            output: None,
            notes: Vec::new(),
        };
        Heard::Picture { scope: Scope::Job(JobId(number)), update: Box::new(update) }
    }

    fn answer() -> Heard {
        let rows = vec![JobRow { job: JobId(9), ..JobRow::default() }];
        Heard::Answer {
            request: Box::new(Request::Jobs { before: Some(JobId(10)), ended: true }),
            reply: Box::new(Reply::Jobs { rows, more: true }),
        }
    }

    fn recording() -> (Vec<u8>, Vec<(u64, Heard)>) {
        let all = vec![
            (0, Heard::Live),
            (100, picture(1)),
            (1100, Heard::Away("no answer".into())),
            (2100, Heard::Live),
            (2200, picture(2)),
            (2300, answer()),
        ];
        let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
        for (after_ms, heard) in &all {
            writer.add(*after_ms, heard).unwrap();
        }
        let length = writer.written();
        let bytes = writer.end().unwrap();
        assert_eq!(bytes.len() as u64, length);
        (bytes, all)
    }

    fn read(bytes: &[u8]) -> (Vec<(u64, Heard)>, Option<Cut>) {
        let mut reader = Reader::open(bytes).unwrap();
        let mut all = Vec::new();
        loop {
            match reader.hear() {
                Ok(Some(heard)) => all.push(heard),
                Ok(None) => return (all, None),
                Err(cut) => return (all, Some(cut)),
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, all) = recording();
        assert_eq!(Reader::open(&bytes[..]).unwrap().head, head());
        assert_eq!(read(&bytes), (all, None));
        assert!(bytes.len() < 2500, "forty rows alike take {} bytes", bytes.len());
    }

    #[test]
    fn what_was_flushed_is_there_when_its_writer_is_killed() {
        let mut writer = Writer::begin(io::BufWriter::new(Vec::new()), &head()).unwrap();
        let written = |writer: &Writer<io::BufWriter<Vec<u8>>>| read(writer.to.get_ref());
        assert_eq!(written(&writer), (Vec::new(), None));
        writer.add(100, &picture(1)).unwrap();
        writer.flush().unwrap();
        assert_eq!(written(&writer), (vec![(100, picture(1))], None));
    }

    #[test]
    fn a_recording_that_is_cut_anywhere_counts_up_to_there() {
        let (bytes, all) = recording();
        let mut whole = 0;
        for length in 0..bytes.len() {
            let Ok(mut reader) = Reader::open(&bytes[..length]) else { continue };
            let mut count = 0;
            let end = loop {
                match reader.hear() {
                    Ok(Some(heard)) => {
                        assert_eq!(heard, all[count]);
                        count += 1;
                    }
                    other => break other,
                }
            };
            match end {
                Err(cut) => assert!(cut.to_string().contains("missing"), "{cut}"),
                // It ends between two entries.
                _ => whole += 1,
            }
        }
        assert_eq!(whole, all.len());
    }

    #[test]
    fn damage_is_where_a_recording_ends() {
        let (bytes, all) = recording();
        let first = Reader::open(&bytes[..]).map(|_| ()).is_ok();
        assert!(first);
        for place in (60..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x40;
            let Ok(_) = Reader::open(&damaged[..]) else { continue };
            let (read, cut) = read(&damaged);
            assert!(cut.is_some(), "a changed byte at {place} was not noticed");
            assert_eq!(read, all[..read.len()]);
        }
    }

    #[test]
    fn what_is_no_recording_says_why() {
        let (mut bytes, _) = recording();
        for (text, part) in [
            (&b""[..], "no recording"),
            (b"GANTREC", "no recording"),
            (b"PK\x03\x04 something else", "no recording"),
            (b"GANTREC\x09", "has the form 9"),
            (b"GANTREC\x01", "does not say"),
        ] {
            let sentence = Reader::open(text).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
        // One of the first form has no answers.
        let mut first = bytes.clone();
        first[7] = 1;
        assert_eq!(read(&first).0.len(), 6);
        let old = Head { protocol: 0, software: "0.0.1".into(), ..head() };
        let writer = Writer::begin(Vec::new(), &old).unwrap();
        let sentence = Reader::open(&writer.end().unwrap()[..]).unwrap_err();
        assert!(sentence.contains("0.0.1"), "{sentence}");
        // A length that lies makes nobody hold what is not there.
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Reader::open(&bytes[..]).unwrap_err().contains("damaged"));
    }
}
