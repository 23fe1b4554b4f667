//! Ends of tries that the cluster has not acknowledged, in one file.
//!
//! A record is its length, a checksum and the value: an end that is kept, or the number of one that
//! is acknowledged. Ends are written as they come and synced together, before any of them is
//! told. A damaged record is passed over, with a warning: the cluster asks the node what it holds
//! and queues the task again. When the file is full it is written anew with what is left.
//!
//! The file has its full size from the start, with zeros behind the last record. A sync that
//! changes neither size nor place of a file does not wait for the file system's journal, in which
//! each output that a task has opened stands: that is a third of its time, and much more where
//! others are busy on the disk. It also takes ends while the disk is full, until it is itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_model::TryId;
use gantry_node::End;
use gantry_wire::codec::{self, VALUE_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;

/// The file's name in its folder.
const FILE: &str = "ends";
/// Bytes of the file, unless the ends that are left need half of that: some 15,000 tasks.
const FILE_BYTES: u64 = 1 << 20;
/// Length and checksum.
const HEAD_BYTES: usize = 8;

#[derive(Serialize, Deserialize)]
enum Record {
    Kept(End),
    Forgotten(TryId),
}

/// The unacknowledged ends.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: Arc<File>,
    /// Bytes of records, and what there is room for.
    length: u64,
    room: u64,
    ends: BTreeMap<TryId, End>,
    /// Records that are not written yet, as a write each would cost more than the records.
    pending: Vec<u8>,
}

impl Spool {
    /// Opens the spool, and gives what is in it.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Vec<End>), AgentError> {
        let path = folder.join(FILE);
        let fail = |error: io::Error| AgentError::file("opening the spool", &path, error);
        fs::create_dir_all(folder).map_err(fail)?;
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(fail)?,
        };
        let (ends, damaged) = read(&bytes);
        if damaged > 0 {
            tracing::warn!(damaged, "passed over damaged records of the spool {}", path.display());
            // Kept for people to look at; where that fails the warning was given.
            let _ = fs::copy(&path, path.with_extension("damaged"));
        }
        let (file, length, room) = write_anew(&path, &ends).map_err(fail)?;
        let all = ends.values().cloned().collect();
        Ok((Self { path, file, length, room, ends, pending: Vec::new() }, all))
    }

    /// Keeps an end; it is durable after the next [`Self::begin_sync`] and what that
    /// gives.
    pub(crate) fn keep(&mut self, end: End) -> Result<(), AgentError> {
        let try_id = end.try_id;
        let record = Record::Kept(end);
        append(&mut self.pending, &record)
            .map_err(|error| AgentError::file("writing", &self.path, error))?;
        if let Record::Kept(end) = record {
            self.ends.insert(try_id, end);
        }
        Ok(())
    }

    /// Forgets an end that is acknowledged. One that is told again after a restart harms nobody, so
    /// nobody waits for the disk.
    pub(crate) fn forget(&mut self, try_id: TryId) -> Result<(), AgentError> {
        self.ends.remove(&try_id);
        append(&mut self.pending, &Record::Forgotten(try_id))
            .map_err(|error| AgentError::file("writing", &self.path, error))
    }

    /// Writes what is pending, without waiting for the disk.
    pub(crate) fn write(&mut self) -> Result<(), AgentError> {
        let fail = |error| AgentError::file("writing", &self.path, error);
        if self.length + self.pending.len() as u64 > self.room {
            (self.file, self.length, self.room) =
                write_anew(&self.path, &self.ends).map_err(fail)?;
        } else if !self.pending.is_empty() {
            self.file.write_all_at(&self.pending, self.length).map_err(fail)?;
            self.length += self.pending.len() as u64;
        }
        self.pending.clear();
        Ok(())
    }

    /// Writes what is pending. Everything that was kept so far is durable after [`Unsynced::sync`].
    pub(crate) fn begin_sync(&mut self) -> Result<Unsynced, AgentError> {
        self.write()?;
        Ok(Unsynced { path: self.path.clone(), file: self.file.clone() })
    }
}

/// Ends that are written and may not be on the disk yet. A file that is written anew meanwhile holds
/// them too, and is synced as it is made.
#[derive(Debug)]
pub(crate) struct Unsynced {
    path: PathBuf,
    file: Arc<File>,
}

impl Unsynced {
    /// Waits for the disk.
    pub(crate) fn sync(&self) -> Result<(), AgentError> {
        self.file.sync_data().map_err(|error| AgentError::file("syncing", &self.path, error))
    }
}

/// The tries whose ends are in the spool of a folder, without touching it.
pub(crate) fn tries(folder: &Path) -> Vec<TryId> {
    // Without one there is nothing in it.
    let bytes = fs::read(folder.join(FILE)).unwrap_or_default();
    read(&bytes).0.into_keys().collect()
}

fn append(bytes: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let value = codec::encode(record).map_err(io::Error::other)?;
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&value).to_le_bytes());
    bytes.extend_from_slice(&value);
    Ok(())
}

/// What the records leave, and how many of them are damaged.
fn read(mut bytes: &[u8]) -> (BTreeMap<TryId, End>, u64) {
    let mut ends = BTreeMap::new();
    let mut damaged = 0;
    while !bytes.is_empty() {
        // The room behind the last record.
        if bytes.iter().take(HEAD_BYTES).all(|byte| *byte == 0) {
            return (ends, damaged);
        }
        let four = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (Some(length), Some(checksum)) = (four(0), four(4)) else { return (ends, damaged + 1) };
        let end = HEAD_BYTES + length as usize;
        // Where the length itself is damaged nothing behind it can be found.
        let may_be = |value: &&[u8]| (1..=VALUE_BYTES_MAX).contains(&value.len());
        let Some(value) = bytes.get(HEAD_BYTES..end).filter(may_be) else {
            return (ends, damaged + 1);
        };
        let whole = crc32fast::hash(value) == checksum;
        match codec::decode(value).ok().filter(|_| whole) {
            Some(Record::Kept(end)) => drop(ends.insert(end.try_id, end)),
            Some(Record::Forgotten(try_id)) => drop(ends.remove(&try_id)),
            None => damaged += 1,
        }
        bytes = &bytes[end..];
    }
    (ends, damaged)
}

/// Writes a file with just these ends in place of the one that is there. Gives it with the bytes of
/// its records and those it has room for.
fn write_anew(path: &Path, ends: &BTreeMap<TryId, End>) -> io::Result<(Arc<File>, u64, u64)> {
    let mut bytes = Vec::new();
    for end in ends.values() {
        append(&mut bytes, &Record::Kept(end.clone()))?;
    }
    let length = bytes.len() as u64;
    let room = FILE_BYTES.max(2 * length);
    // Zeros that are written, as room that is only set aside changes its place at the first write.
    bytes.resize(room as usize, 0);
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    if let Some(above) = path.parent() {
        File::open(above)?.sync_all()?;
    }
    Ok((Arc::new(file), length, room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_model::{Exit, MemoryMib, Usage};
    use tempfile::TempDir;

    fn end(number: u64, exit: Exit) -> End {
        let usage = Usage { cpu_ms: number, memory_peak: MemoryMib(3), ..Usage::default() };
        End { try_id: TryId(number), exit, usage, heir: None }
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart() {
        let folder = TempDir::new().unwrap();
        let (mut spool, ends) = Spool::open(folder.path()).unwrap();
        assert!(ends.is_empty());
        for one in [end(7, Exit::Code(3)), end(2, Exit::NodeLost), end(5, Exit::Code(0))] {
            spool.keep(one).unwrap();
        }
        spool.forget(TryId(5)).unwrap();
        spool.begin_sync().unwrap().sync().unwrap();
        for _ in 0..2 {
            let (_, ends) = Spool::open(folder.path()).unwrap();
            assert_eq!(ends, [end(2, Exit::NodeLost), end(7, Exit::Code(3))]);
        }
    }

    #[test]
    fn damage_costs_what_is_damaged() {
        let ends: BTreeMap<TryId, End> =
            (1..=3).map(|number| (TryId(number), end(number, Exit::Code(0)))).collect();
        let mut bytes = Vec::new();
        for end in ends.values() {
            append(&mut bytes, &Record::Kept(end.clone())).unwrap();
        }
        let one = bytes.len() / 3;
        let flipped = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            bytes
        };
        for (what, bytes, left, damaged) in [
            ("whole", bytes.clone(), vec![1, 2, 3], 0),
            ("with room behind", [&bytes[..], &[0; 99]].concat(), vec![1, 2, 3], 0),
            ("with little room behind", [&bytes[..], &[0; 3]].concat(), vec![1, 2, 3], 0),
            ("written in part", [&bytes[..bytes.len() - 5], &[0; 99]].concat(), vec![1, 2], 1),
            ("cut", bytes[..bytes.len() - 1].to_vec(), vec![1, 2], 1),
            ("cut within a head", bytes[..2 * one + 3].to_vec(), vec![1, 2], 1),
            ("a value", flipped(one + HEAD_BYTES), vec![1, 3], 1),
            ("a checksum", flipped(one + 5), vec![1, 3], 1),
            ("a length", flipped(one + 2), vec![1], 1),
        ] {
            let (ends, found) = read(&bytes);
            let numbers: Vec<u64> = ends.keys().map(|try_id| try_id.0).collect();
            assert_eq!((numbers, found), (left, damaged), "{what}");
        }
    }

    #[test]
    fn a_bit_that_is_another_gives_no_end_that_was_not_kept() {
        let ends: BTreeMap<TryId, End> =
            (1..=3).map(|number| (TryId(number), end(number, Exit::Code(number as u8)))).collect();
        let mut bytes = Vec::new();
        for end in ends.values() {
            append(&mut bytes, &Record::Kept(end.clone())).unwrap();
        }
        bytes.resize(bytes.len() + 64, 0);
        let records = bytes.len() - 64;
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (found, damaged) = read(&bad);
            assert!(found.iter().all(|(id, end)| ends.get(id) == Some(end)), "bit {bit}");
            assert!(damaged > 0 || bit / 8 >= records, "bit {bit} is not noticed");
        }
    }

    #[test]
    fn the_file_stays_small() {
        let folder = TempDir::new().unwrap();
        let (mut spool, _) = Spool::open(folder.path()).unwrap();
        spool.keep(end(1, Exit::Failed("x".repeat(100)))).unwrap();
        for number in 2..40_000 {
            spool.keep(end(number, Exit::Failed("x".repeat(100)))).unwrap();
            spool.forget(TryId(number)).unwrap();
            if number % 1000 == 0 {
                spool.begin_sync().unwrap().sync().unwrap();
            }
        }
        spool.begin_sync().unwrap().sync().unwrap();
        let size = || fs::metadata(folder.path().join("ends")).unwrap().len();
        assert_eq!(size(), FILE_BYTES);
        spool.forget(TryId(1)).unwrap();
        spool.begin_sync().unwrap().sync().unwrap();
        assert_eq!(size(), FILE_BYTES);
        spool.keep(end(50_000, Exit::Code(0))).unwrap();
        spool.begin_sync().unwrap().sync().unwrap();
        let (_, ends) = Spool::open(folder.path()).unwrap();
        assert_eq!(ends, [end(50_000, Exit::Code(0))]);
    }
}
