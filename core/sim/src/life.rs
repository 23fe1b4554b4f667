//! How the scheduler dies and starts again.
//!
//! What was not synced is lost, or a part of it; every connection is gone. The next life makes the
//! cluster from the journal, which must lead to the very state that was lost, and holds it against
//! everything that was promised.

use gantry_model::{At, Machine};

use crate::clock::Clock;
use crate::disk::Replayed;
use crate::scheduler::Phase;
use crate::settings::Flaw;
use crate::trace::Line;
use crate::world::World;

/// The wall clock of the scheduler's host is off by up to so much beside its jumps.
const SKEW_MAX_MS: u64 = 120_000;

impl World {
    /// The scheduler is killed. Nobody is told.
    pub(crate) fn crash_scheduler(&mut self) {
        let scheduler = &mut self.scheduler;
        if scheduler.phase == Phase::Down {
            return;
        }
        let syncing = scheduler.phase == Phase::Syncing;
        let lost = scheduler.journal.crash(&mut self.random);
        // Records that were not applied and stayed lead to a state of their own.
        let same = !syncing || lost == scheduler.batch.len();
        let honest = self.settings.flaw == Flaw::None;
        scheduler.before = (same && honest).then(|| Box::new(scheduler.cluster.clone()));
        scheduler.phase = Phase::Down;
        scheduler.life += 1;
        scheduler.inbox.clear();
        scheduler.batch.clear();
        scheduler.taken.clear();
        scheduler.newest.clear();
        scheduler.entered.clear();
        scheduler.drain_noted = false;
        (scheduler.wake, scheduler.armed) = (None, None);
        for session in self.network.sessions.values_mut() {
            session.scheduler_open = false;
        }
        self.summary.scheduler_crashes += 1;
        self.trace.write(self.now, Line::SchedulerCrashed { lost });
    }

    /// The scheduler is started again.
    pub(crate) fn start_scheduler(&mut self) {
        if self.scheduler.phase != Phase::Down {
            return;
        }
        let Replayed { cluster, books, ended, kept } = self.scheduler.journal.replay();
        if self.settings.flaw == Flaw::None {
            self.hold(kept);
        }
        if self.scheduler.before.take().is_some_and(|before| *before != cluster) {
            self.fail("the journal leads to another state than the one that was lost");
        }
        let kept = self.ledger.promises(&cluster).and_then(|()| cluster.check());
        self.hold(kept);
        // The crash may have come between a job's end and its way into the history.
        for row in ended {
            if !self.ledger.jobs_ended.contains(&row.job) {
                self.job_ended(&row);
            }
        }
        let scheduler = &mut self.scheduler;
        scheduler.cluster = cluster;
        scheduler.books = books;
        scheduler.file_owed = *scheduler.cluster.settings() != scheduler.file;
        scheduler.life += 1;
        scheduler.phase = Phase::Idle;
        scheduler.steady = self.now;
        // The host's clock may have been set; time does not go back behind the journal.
        let skew = self.random.between(0, 2 * SKEW_MAX_MS);
        let host = At((self.now.0 + skew).saturating_sub(SKEW_MAX_MS));
        let host = At(host.0.saturating_add_signed(scheduler.wall_ms));
        let base = host.max(scheduler.journal.last());
        scheduler.clock = Clock::new(base, self.now, scheduler.drift_ppm);
        scheduler.owed = scheduler.cluster.up_nodes();
        scheduler.wake = Some(scheduler.clock.read(self.now));
        self.trace.write(self.now, Line::SchedulerStarted);
        self.give_up_lost();
        self.note_drain();
    }
}
