//! The timer of the scheduler's shell: it fires when the scheduler's own clock shows the time that
//! the cluster asked for.

use gantry_model::At;

use crate::calendar::Happening;
use crate::scheduler::{Phase, Scheduler};
use crate::settings::Flaw;
use crate::world::World;

impl Scheduler {
    pub(crate) fn timer_is_due(&self, now: At) -> bool {
        self.wake.is_some_and(|at| at <= self.clock.read(now))
    }
}

impl World {
    /// Arms the timer that the cluster asked for.
    pub(crate) fn arm(&mut self) {
        let Some(wake) = self.scheduler.wake else { return };
        if self.settings.flaw == Flaw::ForgetsTimers {
            return;
        }
        let due = self.scheduler.clock.when(wake).max(self.now);
        if self.scheduler.armed.is_none_or(|armed| due < armed) {
            self.scheduler.armed = Some(due);
            let life = self.scheduler.life;
            self.calendar.note(due, Happening::SchedulerTimer { life });
        }
    }

    pub(crate) fn scheduler_timer(&mut self, life: u32) {
        if self.scheduler.life != life || self.scheduler.armed.is_none_or(|at| at > self.now) {
            return;
        }
        self.scheduler.armed = None;
        // While a batch is being synced, what follows it looks at the timer.
        if self.scheduler.phase == Phase::Idle {
            if self.scheduler.timer_is_due(self.now) {
                self.note_drain();
            } else {
                self.arm();
            }
        }
    }
}
