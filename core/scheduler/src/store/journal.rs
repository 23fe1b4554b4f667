//! Events and snapshots.
//!
//! The state of the cluster is what the events give when they are applied in order, from the newest
//! snapshot on. Events of one moment are one row, a block: a row for each would cost more than
//! everything else that an event costs. The checksum of a block covers its number too, and the
//! numbers have no gap up to the last one given: a block that was changed, moved or taken away is
//! noticed. Two snapshots are kept, and the blocks since the older one: a damaged snapshot costs
//! time and nothing else.
//!
//! Rows at the very end that are damaged, with no good one after them, are cut and reported where they
//! were not acknowledged ([`super::head`]). Any other damage, and an end that is not there, stops the
//! scheduler: an administrator decides what to give up.

use std::time::Instant;

use gantry_cluster::{Cluster, Event};
use gantry_model::At;
use gantry_wire::{WireError, codec};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, checksum, damaged, wrong};
use crate::error::SchedulerError;

/// The format of a row: 1 is one event, 2 a block of events, each with its length before it; 3 is the
/// same, with a snapshot that says whether it came from a backup. A newer one is refused, an older
/// one is understood.
pub(super) const FORMAT: u32 = 3;
/// Bytes of one block, at which it is closed.
const BLOCK_BYTES: usize = 1 << 20;
/// Events after which a snapshot is worth its time: they are applied again in a tenth of a second.
const SNAPSHOT_EACH: i64 = 50_000;

const INSERT: &str =
    "INSERT INTO events (seq, at, format, crc, payload) VALUES (?1, ?2, ?3, ?4, ?5)";

/// An event as the journal keeps it.
///
/// # Errors
/// Where it is longer than one record may be.
pub(crate) fn record(event: &Event) -> Result<Vec<u8>, WireError> {
    codec::encode(event)
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// The block after which the snapshot was taken that the start began from; 0 without one.
    pub(crate) snapshot: i64,
    /// Events that were applied after it.
    pub(crate) events: i64,
    /// What was cut from the end, in a sentence.
    pub(crate) cut: Option<String>,
}

/// A row as it is stored.
pub(super) struct Stored {
    pub(super) seq: i64,
    pub(super) at: At,
    format: u32,
    crc: u32,
    payload: Vec<u8>,
}

impl Stored {
    pub(super) fn read(row: &Row) -> rusqlite::Result<Self> {
        let at: i64 = row.get(1)?;
        let (seq, format, crc) = (row.get(0)?, row.get(2)?, row.get(3)?);
        Ok(Self { seq, at: At(at as u64), format, crc, payload: row.get(4)? })
    }

    /// The time, format, checksum and bytes, as a row has them.
    pub(super) fn parts(&self) -> (i64, u32, u32, &[u8]) {
        (self.at.0 as i64, self.format, self.crc, &self.payload)
    }

    /// The events' bytes, where the checksum holds and their lengths fit.
    pub(super) fn events(&self) -> Result<Vec<&[u8]>, &'static str> {
        let mut rest = self.sound()?;
        if self.format == 1 {
            return Ok(vec![rest]);
        }
        let mut events = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (event, tail) = tail.split_at_checked(length).ok_or("has wrong lengths")?;
            events.push(event);
            rest = tail;
        }
        if rest.is_empty() { Ok(events) } else { Err("has wrong lengths") }
    }

    /// The state of a snapshot.
    fn cluster(&self) -> Result<Cluster, String> {
        let bytes = self.sound()?;
        let before_backups = [bytes, &[0]].concat();
        // What stood at the end before there were backups came from none.
        let bytes = if self.format < 3 { &before_backups } else { bytes };
        codec::decode_snapshot(bytes).map_err(|error| error.to_string())
    }

    /// The bytes, where the checksum holds.
    pub(super) fn sound(&self) -> Result<&[u8], &'static str> {
        if self.format > FORMAT {
            return Err(NEWER);
        }
        if checksum(self.seq, self.at, &self.payload) != self.crc {
            return Err("has a wrong checksum");
        }
        Ok(&self.payload)
    }
}

impl Store {
    /// Appends events, each with its time, as one transaction with one sync.
    ///
    /// # Errors
    /// [`SchedulerError::Full`] where the disk is full and nothing was written; anything else means
    /// that it is not known what is on disk.
    pub(crate) fn append(&mut self, records: &[(At, Vec<u8>)]) -> Result<(), SchedulerError> {
        let mut seq = self.last;
        let transaction = self.database.transaction().map_err(wrong)?;
        {
            let mut insert = transaction.prepare_cached(INSERT).map_err(wrong)?;
            for (at, block) in blocks(records) {
                seq += 1;
                let crc = checksum(seq, at, &block);
                insert.execute(params![seq, at.0 as i64, FORMAT, crc, block]).map_err(wrong)?;
            }
        }
        let begun = Instant::now();
        transaction.commit().map_err(wrong)?;
        if !records.is_empty() {
            self.counted.events += records.len() as u64;
            self.counted.bytes += records.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            self.counted.syncs += 1;
            self.counted.syncing += begun.elapsed();
        }
        self.since_snapshot += records.len() as i64;
        self.last = seq;
        self.head.keep(seq);
        Ok(())
    }

    /// Writes what is acknowledged and is no event, as one transaction with one sync; with it a block
    /// without events, so that it is missed as well where the journal's end is lost.
    pub(super) fn write(
        &mut self,
        at: At,
        write: impl FnOnce(&Transaction) -> Result<(), SchedulerError>,
    ) -> Result<(), SchedulerError> {
        let seq = self.last + 1;
        let transaction = self.database.transaction().map_err(wrong)?;
        write(&transaction)?;
        let crc = checksum(seq, at, &[]);
        transaction.execute(INSERT, params![seq, at.0 as i64, FORMAT, crc, []]).map_err(wrong)?;
        transaction.commit().map_err(wrong)?;
        self.last = seq;
        self.head.keep(seq);
        Ok(())
    }

    /// What was acknowledged and is not there, in a sentence.
    pub(super) fn missed(&self) -> Option<String> {
        let head = self.head.known().filter(|head| *head > self.last)?;
        let first = self.last + 1;
        Some(format!("block {first} {MISSING}; everything up to block {head} was acknowledged"))
    }

    /// Gives what the journal holds: a snapshot where there is one, then every event after it in
    /// order, each with its time and the number of its block.
    ///
    /// # Errors
    /// Names the first event that is damaged, missing or of a newer format, where good ones follow
    /// it.
    pub(crate) fn replay(
        &mut self,
        start: impl FnOnce(At, Cluster),
        mut apply: impl FnMut(i64, At, Event),
    ) -> Result<Replayed, SchedulerError> {
        if let Some(missed) = self.missed() {
            return Err(SchedulerError::Journal(missed));
        }
        let mut replayed = Replayed::default();
        if let Some((seq, at, cluster)) = self.newest_snapshot()? {
            replayed.snapshot = seq;
            self.counted.snapshot = Some(at);
            start(at, cluster);
        }
        let (mut expected, mut harm) = (replayed.snapshot, None);
        {
            let sql =
                "SELECT seq, at, format, crc, payload FROM events WHERE seq > ?1 ORDER BY seq";
            let mut select = self.database.prepare(sql).map_err(damaged)?;
            let mut rows = select.query([replayed.snapshot]).map_err(damaged)?;
            while let Some(row) = rows.next().map_err(damaged)? {
                expected += 1;
                match (sound_block(row, expected), &harm) {
                    (Ok((at, events)), None) => {
                        replayed.events += events.len() as i64;
                        for event in events {
                            apply(expected, at, event);
                        }
                    }
                    // A good one behind a damaged one: the middle is broken.
                    (Ok(_), Some((seq, what))) => {
                        return Err(SchedulerError::Journal(format!("block {seq} {what}")));
                    }
                    // A newer format is no damage, and a missing block shifts all that follow.
                    (Err(Harm::Final(what)), _) => {
                        return Err(SchedulerError::Journal(format!("block {expected} {what}")));
                    }
                    (Err(Harm::Damaged(what)), None) => harm = Some((expected, what)),
                    (Err(Harm::Damaged(_)), Some(_)) => {}
                }
            }
        }
        if harm.is_none() && expected < self.last {
            return Err(SchedulerError::Journal(format!("block {} {MISSING}", expected + 1)));
        }
        if let Some((seq, what)) = harm {
            if self.head.known().is_some_and(|head| seq <= head) {
                return Err(SchedulerError::Journal(format!("block {seq} {what}")));
            }
            replayed.cut = Some(self.cut(seq, &what)?);
        }
        self.since_snapshot = replayed.events;
        Ok(replayed)
    }

    /// Takes away what is damaged at the end.
    fn cut(&mut self, from: i64, what: &str) -> Result<String, SchedulerError> {
        let count = self.last - from + 1;
        self.database
            .execute("DELETE FROM events WHERE seq >= ?1", [from])
            .and_then(|_| {
                let update = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'events'";
                self.database.execute(update, [from - 1])
            })
            .map_err(wrong)?;
        self.last = from - 1;
        self.head.keep(self.last);
        Ok(format!("block {from} {what}; it and what followed, {count} blocks in all, were cut"))
    }

    /// The newest snapshot that is sound, and after which block it was taken.
    fn newest_snapshot(&self) -> Result<Option<(i64, At, Cluster)>, SchedulerError> {
        let sql = "SELECT seq, at, format, crc, payload FROM snapshots ORDER BY seq DESC";
        let mut select = self.database.prepare(sql).map_err(damaged)?;
        let mut rows = select.query([]).map_err(damaged)?;
        let mut harm = None;
        while let Some(row) = rows.next().map_err(damaged)? {
            let stored = Stored::read(row).map_err(damaged)?;
            match stored.cluster() {
                Ok(cluster) => return Ok(Some((stored.seq, stored.at, cluster))),
                Err(what) => {
                    tracing::warn!("the snapshot after block {} {what}", stored.seq);
                    harm = Some(format!("the snapshot after block {} {what}", stored.seq));
                }
            }
        }
        let first: Option<i64> = self
            .database
            .query_row("SELECT min(seq) FROM events", [], |row| row.get(0))
            .optional()
            .map_err(damaged)?
            .flatten();
        match harm {
            // The blocks since the beginning are all there: they are enough.
            Some(_) if first == Some(1) => Ok(None),
            Some(harm) => Err(SchedulerError::Journal(harm)),
            None => Ok(None),
        }
    }

    /// Whether enough has happened for a snapshot.
    pub(crate) const fn wants_snapshot(&self) -> bool {
        self.since_snapshot >= SNAPSHOT_EACH
    }

    /// Whether a start would be noticeably faster with a snapshot.
    pub(crate) const fn is_worth_a_snapshot(&self) -> bool {
        self.since_snapshot >= SNAPSHOT_EACH / 50
    }

    /// Keeps the state after the newest event, and lets go what the snapshot before the last one
    /// stood for.
    pub(crate) fn snapshot(&mut self, at: At, cluster: &Cluster) -> Result<(), SchedulerError> {
        let bytes = codec::encode_snapshot(cluster)
            .map_err(|error| SchedulerError::Storage(error.to_string()))?;
        let crc = checksum(self.last, at, &bytes);
        let transaction = self.database.transaction().map_err(wrong)?;
        let before: Option<i64> = transaction
            .query_row("SELECT max(seq) FROM snapshots", [], |row| row.get(0))
            .map_err(wrong)?;
        transaction
            .execute(
                "INSERT OR REPLACE INTO snapshots (seq, at, format, crc, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![self.last, at.0 as i64, FORMAT, crc, bytes],
            )
            .map_err(wrong)?;
        if let Some(before) = before.filter(|before| *before < self.last) {
            transaction.execute("DELETE FROM snapshots WHERE seq < ?1", [before]).map_err(wrong)?;
            transaction.execute("DELETE FROM events WHERE seq <= ?1", [before]).map_err(wrong)?;
        }
        transaction.commit().map_err(wrong)?;
        self.counted.snapshot = Some(at);
        self.since_snapshot = 0;
        Ok(())
    }
}

const MISSING: &str = "is missing";
const NEWER: &str = "was written by a newer scheduler";

/// What is wrong with a row.
enum Harm {
    /// No part of the journal behind it can be used.
    Final(&'static str),
    /// Where nothing good follows, it is the torn end.
    Damaged(String),
}

/// The events of a row that should have this number.
fn sound_block(row: &Row, expected: i64) -> Result<(At, Vec<Event>), Harm> {
    let stored =
        Stored::read(row).map_err(|error| Harm::Damaged(format!("cannot be read: {error}")))?;
    if stored.seq != expected {
        return Err(Harm::Final(MISSING));
    }
    if stored.format > FORMAT {
        return Err(Harm::Final(NEWER));
    }
    let events = stored.events().map_err(|what| Harm::Damaged(what.to_owned()))?;
    let decoded = events.into_iter().map(codec::decode).collect::<Result<Vec<Event>, _>>();
    Ok((stored.at, decoded.map_err(|error| Harm::Damaged(error.to_string()))?))
}

/// Events of one moment together, each with its length before it.
fn blocks(records: &[(At, Vec<u8>)]) -> Vec<(At, Vec<u8>)> {
    let mut blocks: Vec<(At, Vec<u8>)> = Vec::new();
    for (at, bytes) in records {
        let length = (bytes.len() as u32).to_le_bytes();
        match blocks.last_mut() {
            Some((before, block)) if before == at && block.len() < BLOCK_BYTES => {
                block.extend_from_slice(&length);
                block.extend_from_slice(bytes);
            }
            _ => blocks.push((*at, [&length, bytes.as_slice()].concat())),
        }
    }
    blocks
}
