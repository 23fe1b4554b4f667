//! A server's spool: a log of ends on its disk, and what a power cut leaves of it.
//!
//! Records are synced together. Until then a power cut may take some of them: those that were
//! written first are the likeliest to stay, the next may be there in half, and what follows is gone.
//! A record in half is passed over when the log is read. That an end was acknowledged is written
//! too, but nobody waits for it: an end may come back and be told again.

use std::collections::BTreeMap;

use gantry_model::{Millis, Report, TryId};
use gantry_node::End;

use crate::calendar::Happening;
use crate::network::Said;
use crate::random::Random;
use crate::world::World;

/// A sync of a spool takes 1 to 4 ms, and a hundred at times.
const SYNC_MS: (u64, u64, u64) = (1, 4, 100);
/// Of a thousand syncs so many take long.
const SYNC_SLOW_PERMILLE: u64 = 50;

#[derive(Clone, Debug)]
enum Record {
    Kept(End),
    Forgotten(TryId),
}

/// The log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spool {
    /// What the synced records say.
    safe: BTreeMap<TryId, End>,
    unsynced: Vec<Record>,
}

impl Spool {
    pub(crate) fn keep(&mut self, end: End) {
        self.unsynced.push(Record::Kept(end));
    }

    pub(crate) fn forget(&mut self, try_id: TryId) {
        self.unsynced.push(Record::Forgotten(try_id));
    }

    /// Whether ends are not safe yet.
    pub(crate) fn owes(&self) -> bool {
        self.unsynced.iter().any(|record| matches!(record, Record::Kept(_)))
    }

    /// Makes every record safe. Gives the ends that are safe from now on.
    pub(crate) fn sync(&mut self) -> Vec<End> {
        let mut ends = Vec::new();
        for record in std::mem::take(&mut self.unsynced) {
            if let Record::Kept(end) = &record {
                ends.push(end.clone());
            }
            self.enter(record);
        }
        ends
    }

    /// The power goes: says how many records are lost.
    pub(crate) fn crash(&mut self, random: &mut Random) -> usize {
        let before = self.unsynced.len();
        let kept = random.below(before as u64 + 1) as usize;
        self.unsynced.truncate(kept);
        self.sync();
        before - kept
    }

    /// What an agent finds that starts. The log is written anew, so that all of it is safe.
    pub(crate) fn open(&mut self) -> Vec<End> {
        self.sync();
        self.safe.values().cloned().collect()
    }

    /// The tries whose ends are in it.
    pub(crate) fn kept(&self) -> Vec<TryId> {
        self.clone().open().into_iter().map(|end| end.try_id).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let mut left = self.clone();
        left.open().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.safe.len()
    }

    fn enter(&mut self, record: Record) {
        match record {
            Record::Kept(end) => drop(self.safe.insert(end.try_id, end)),
            Record::Forgotten(try_id) => drop(self.safe.remove(&try_id)),
        }
    }
}

impl World {
    /// An end is on its way to the disk.
    pub(crate) fn spool(&mut self, server: usize, end: End) {
        let here = &mut self.servers[server];
        let first = !here.spool.owes();
        here.spool.keep(end);
        if first {
            let slow = here.random.chance(SYNC_SLOW_PERMILLE);
            let takes = here.random.between(SYNC_MS.0, if slow { SYNC_MS.2 } else { SYNC_MS.1 });
            let happening = Happening::SpoolSynced { server, life: here.life };
            self.calendar.note(self.now.after(Millis(takes)), happening);
        }
    }

    /// Ends are safe, and told.
    pub(crate) fn spool_synced(&mut self, server: usize, life: u32) {
        let here = &mut self.servers[server];
        let Some(agent) = here.agent.as_mut().filter(|_| here.life == life) else { return };
        for end in here.spool.sync() {
            here.reaped.remove(&end.try_id);
            self.ledger.is_safe(&end);
        }
        for report in std::mem::take(&mut agent.outgoing) {
            self.tell(server, report);
        }
    }

    pub(crate) fn tell(&mut self, server: usize, report: Report) {
        let agent = self.servers[server].agent.as_ref();
        if let Some(session) = agent.and_then(|agent| agent.session) {
            self.say(session, Said::Report(report));
        }
    }
}
