//! Packed output: the outputs of a job's ended tasks in two files, however many tasks there are.
//!
//! `pack` holds the bytes one after the other. `index` holds one record of [`RECORD_BYTES`] per
//! packed start of a task: index, length, try, offset, a checksum of the bytes and one of the
//! record. Both only grow. A record with a wrong checksum is counted and passed over, and one that
//! was cut is followed by the next whole one; bytes with a wrong checksum are left out and said to
//! be: damage never hides what lies behind it. Neither file is synced at once, just as the
//! output of a running task is not.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gantry_model::TryId;

/// Bytes of one record of an index.
pub(super) const RECORD_BYTES: usize = 32;
/// The files' names in a job's folder.
const PACK: &str = "pack";
const INDEX: &str = "index";

/// Where the output of one start of a task lies in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The task's index in its job.
    pub(super) index: u32,
    pub(super) try_id: TryId,
    pub(super) offset: u64,
    pub(super) length: u32,
    checksum: u32,
}

impl Segment {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..4].copy_from_slice(&self.index.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.try_id.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.checksum.to_le_bytes());
        let own = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// A record, if its checksum is right.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let four = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let eight = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if four(28)? != crc32fast::hash(bytes.get(..28)?) {
            return None;
        }
        Some(Self {
            index: four(0)?,
            length: four(4)?,
            try_id: TryId(eight(8)?),
            offset: eight(16)?,
            checksum: four(24)?,
        })
    }
}

/// Appends to the pack of one job.
#[derive(Debug)]
pub(super) struct Packer {
    bytes: File,
    index: File,
    length: u64,
    /// What was appended and is not written yet, to either file.
    unwritten: (Vec<u8>, Vec<u8>),
}

impl Packer {
    /// Opens the pack of a job's folder, or makes it.
    pub(super) fn open(job: &Path) -> io::Result<Self> {
        let open = |name| File::options().create(true).append(true).open(job.join(name));
        let (pack, mut index) = (open(PACK)?, open(INDEX)?);
        let length = pack.metadata()?.len();
        // A record that was cut gets its full length, so that the next ones stand where they must.
        let cut = index.metadata()?.len() as usize % RECORD_BYTES;
        if cut > 0 {
            index.write_all(&[0; RECORD_BYTES][cut..])?;
        }
        Ok(Self { bytes: pack, index, length, unwritten: Default::default() })
    }

    /// Appends the output of one start of a task; it is in the files after [`Self::write`].
    pub(super) fn append(&mut self, index: u32, try_id: TryId, bytes: &[u8]) {
        let offset = self.length;
        self.length += bytes.len() as u64;
        let checksum = crc32fast::hash(bytes);
        let length = bytes.len() as u32;
        let segment = Segment { index, try_id, offset, length, checksum };
        self.unwritten.0.extend_from_slice(bytes);
        self.unwritten.1.extend_from_slice(&segment.encode());
    }

    /// Writes what was appended. Where that fails it is lost.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.unwritten.1.is_empty() {
            return Ok(());
        }
        let (bytes, records) = std::mem::take(&mut self.unwritten);
        if let Err(error) = self.bytes.write_all(&bytes) {
            // A part may have been written: the next one begins behind it.
            self.length = self.bytes.metadata()?.len();
            return Err(error);
        }
        self.index.write_all(&records)
    }

    /// Handles on both files, to sync them elsewhere.
    pub(super) fn files(&self) -> io::Result<[File; 2]> {
        Ok([self.bytes.try_clone()?, self.index.try_clone()?])
    }
}

/// The pack of a job, as it was when it was opened.
#[derive(Debug)]
pub(super) struct Pack {
    bytes: File,
    index: File,
    records: u64,
}

/// What an index says.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The segments that were asked for, in the order in which they were packed.
    pub(super) segments: Vec<Segment>,
    /// Records that are damaged, of whichever task.
    pub(super) damaged: u64,
}

impl Pack {
    /// Opens the pack of a job's folder; nothing where there is none.
    pub(super) fn open(job: &Path) -> io::Result<Option<Self>> {
        let open = || Ok((File::open(job.join(PACK))?, File::open(job.join(INDEX))?));
        match open() {
            Ok((pack, index)) => {
                let records = index.metadata()?.len() / RECORD_BYTES as u64;
                Ok(Some(Self { bytes: pack, index, records }))
            }
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The segments that `wanted` lets through.
    pub(super) fn index(&mut self, wanted: impl Fn(&Segment) -> bool) -> io::Result<Index> {
        let mut index = Index::default();
        self.index.seek(SeekFrom::Start(0))?;
        let all = self.records * RECORD_BYTES as u64;
        let mut input = io::BufReader::with_capacity(1 << 16, (&self.index).take(all));
        let mut record = [0; RECORD_BYTES];
        for _ in 0..self.records {
            input.read_exact(&mut record)?;
            match Segment::decode(&record) {
                Some(segment) if wanted(&segment) => index.segments.push(segment),
                Some(_) => {}
                None => index.damaged += 1,
            }
        }
        Ok(index)
    }

    /// The bytes of a segment; where they are damaged, a line of the same length at most that says
    /// so.
    pub(super) fn read(&mut self, segment: &Segment) -> Vec<u8> {
        let mut bytes = vec![0; segment.length as usize];
        let read = self
            .bytes
            .seek(SeekFrom::Start(segment.offset))
            .and_then(|_| self.bytes.read_exact(&mut bytes));
        if read.is_ok() && crc32fast::hash(&bytes) == segment.checksum {
            return bytes;
        }
        // The length stays, so that offsets of what follows do.
        let sentence = format!("[{} bytes are damaged on the node's disk]", segment.length);
        bytes.fill(b' ');
        let shown = sentence.len().min(bytes.len());
        bytes[..shown].copy_from_slice(&sentence.as_bytes()[..shown]);
        if let Some(last) = bytes.last_mut() {
            *last = b'\n';
        }
        bytes
    }
}
