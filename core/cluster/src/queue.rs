//! The queue: jobs that could start now, in classes that stand or fall together.
//!
//! A [`Class`] holds the jobs of one kind, one account and one priority, oldest first. They ask for
//! the same, count against the same quotas, and gain by age alike, so that only the oldest of each
//! is ever looked at. A class that found no node remembers it: until something of the whole changes
//! (the epoch), it is asked again only of nodes that have changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{At, JobId, JobState};
use serde::{Deserialize, Serialize};

use crate::accounts::{AccountId, Share};
use crate::cluster::Cluster;
use crate::kind::KindId;

/// What jobs of one class have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ClassId {
    pub(crate) kind: KindId,
    pub(crate) account: AccountId,
    pub(crate) priority: i32,
}

/// Jobs of one class with a task that could start now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Class {
    pub(crate) jobs: BTreeSet<JobId>,
    /// Why the first of them found no node when placement last looked.
    pub(crate) reason: String,
    /// The epoch in which no node took it.
    pub(crate) refused: Option<u64>,
}

/// Where a job stands among all: smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    priority: Reverse<i64>,
    /// Jobs within their group's guarantee first.
    borrows: Borrows,
    share: Share,
    job: JobId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Borrows {
    No,
    Yes,
}

/// The queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    pub(crate) classes: BTreeMap<ClassId, Class>,
    /// Classes that no search of the present epoch has refused.
    pub(crate) open: BTreeSet<ClassId>,
    /// Grows when what was refused may be taken now, whatever its node.
    pub(crate) epoch: u64,
}

impl Queue {
    /// What was refused may be taken now.
    pub(crate) fn reopen(&mut self) {
        self.epoch += 1;
        self.open = self.classes.keys().copied().collect();
    }
}

impl Cluster {
    pub(crate) fn class_of(&self, id: JobId) -> Option<ClassId> {
        let job = self.jobs.get(&id)?;
        Some(ClassId { kind: job.kind, account: job.account, priority: job.spec.priority })
    }

    /// Puts a job where placement looks, or takes it away, as its counts and dependencies say; and
    /// keeps the numbers of the summary.
    pub(crate) fn requeue(&mut self, id: JobId) {
        let (Some(class), Some(job)) = (self.class_of(id), self.jobs.get_mut(&id)) else { return };
        let (state, before) = (job.state(), job.tallied);
        if state != before {
            job.tallied = state;
            *self.tally.entry(state).or_default() += 1;
            if let Some(count) = self.tally.get_mut(&before) {
                *count -= 1;
            }
        }
        let wants = job.wants_placement();
        if wants == job.queued {
            return;
        }
        job.queued = wants;
        if wants {
            let queued = self.queue.classes.entry(class).or_default();
            // A class that was refused stays so: a further job of it asks for the same.
            if queued.refused != Some(self.queue.epoch) {
                self.queue.open.insert(class);
            }
            queued.jobs.insert(id);
        } else {
            self.unqueue(class, id);
        }
    }

    fn unqueue(&mut self, class: ClassId, id: JobId) {
        self.unkeep(id);
        let Some(queued) = self.queue.classes.get_mut(&class) else { return };
        queued.jobs.remove(&id);
        if queued.jobs.is_empty() {
            self.queue.classes.remove(&class);
            self.queue.open.remove(&class);
        }
    }

    /// Takes a job out of the queue while its class changes.
    pub(crate) fn leave_queue(&mut self, id: JobId) {
        let Some(class) = self.class_of(id) else { return };
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.queued) else { return };
        job.queued = false;
        self.unqueue(class, id);
    }

    /// The first job of a class.
    pub(crate) fn head(&self, class: ClassId) -> Option<JobId> {
        self.queue.classes.get(&class)?.jobs.first().copied()
    }

    /// Where a job of a class stands now.
    pub(crate) fn rank(&self, at: At, class: ClassId, job: JobId) -> Rank {
        let settings = &self.settings;
        let waited = self.jobs.get(&job).map_or(0, |job| at.since(job.submitted).0);
        let age = waited.checked_div(settings.age_step.0).unwrap_or(0);
        let age = age.min(u64::from(settings.age_max)) as i64;
        let asked = &self.kinds.get(class.kind).resources;
        let within = self.accounts.is_guaranteed(class.account, asked, settings);
        Rank {
            priority: Reverse(i64::from(class.priority) + age),
            borrows: if within { Borrows::No } else { Borrows::Yes },
            share: self.accounts.share(class.account),
            job,
        }
    }

    /// How many jobs stand in each state.
    pub(crate) fn tallied(&self, state: JobState) -> u32 {
        self.tally.get(&state).copied().unwrap_or(0)
    }
}
