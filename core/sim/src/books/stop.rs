//! The rule that a stop must keep: somebody asked for it, or it makes room and may.

use gantry_cluster::Event;
use gantry_model::{Action, At, Preemption, Resources, TryId};

use super::launch::exceeds;
use super::{Books, Entry, Lease};
use crate::server::number;
use crate::trace::name;

impl Books {
    /// Whether a try may be told to stop; it is from now on.
    pub(super) fn check_stop(
        &mut self,
        at: At,
        server: usize,
        try_id: TryId,
        event: &Event,
    ) -> Result<(), String> {
        let back = matches!(event, Event::NodeUp { facts, .. } if number(&facts.name) == server);
        let Some(lease) = self.leases.get(&try_id) else {
            // A node that comes back with a try that was given up, or is given up with several
            // ranks of a gang.
            let gone = back || self.just_gone.contains(&try_id);
            return if gone {
                Ok(())
            } else {
                Err(format!("{try_id} is told to stop and is gone"))
            };
        };
        if lease.server != server {
            return Err(format!("{} is told to stop {try_id} of another node", name(server)));
        }
        if lease.told {
            let (task, again) = (lease.task, "is told to stop once more");
            return if back { Ok(()) } else { Err(format!("{task} {again}, as {try_id}")) };
        }
        if self.is_cleared(at, lease) {
            self.counts.cleared += 1;
        } else if !self.was_asked(lease, event) && !self.is_moved(lease, event) {
            let gain = self.may_preempt(lease)?;
            self.counts.preempted += 1;
            if gain == Gain::Guarantee {
                self.take_back(try_id);
            }
        }
        if let Some(lease) = self.leases.get_mut(&try_id) {
            lease.told = true;
        }
        Ok(())
    }

    /// Whether its node, or one of its gang's, has to be empty.
    fn is_cleared(&self, at: At, lease: &Lease) -> bool {
        let due =
            |server: usize| self.places.get(&server).is_some_and(|place| place.is_cleared(at));
        let gang = self.jobs.get(&lease.task.job).filter(|entry| entry.spec.gang.is_some());
        let ranks = gang.into_iter().flat_map(|entry| entry.live.values());
        let mut elsewhere = ranks.filter_map(|try_id| Some(self.leases.get(try_id)?.server));
        due(lease.server) || elsewhere.any(due)
    }

    /// Whether a person has asked for it, or its gang has fallen.
    fn was_asked(&self, lease: &Lease, event: &Event) -> bool {
        let job = lease.task.job;
        let asked = match event {
            Event::Cancel { job, .. } | Event::Act { action: Action::Requeue { job, .. }, .. } => {
                Some(job)
            }
            _ => None,
        };
        asked == Some(&job) || self.fallen.contains(&job) || self.is_late(lease)
    }

    /// Whether it was given its lease in this event, too late: it was cancelled, or who had the
    /// lease before was being stopped.
    fn is_late(&self, lease: &Lease) -> bool {
        let entry = self.jobs.get(&lease.task.job);
        let try_id = entry.and_then(|entry| entry.live.get(&lease.task.index));
        try_id.is_some_and(|try_id| self.too_late.contains(try_id))
            || entry.is_some_and(|entry| entry.over.contains(&lease.task.index))
    }

    /// Whether it may be stopped for the job that it was said to be: one of a higher
    /// priority, or of a group that is guaranteed what its own has borrowed.
    fn may_preempt(&self, lease: &Lease) -> Result<Gain, String> {
        let job = lease.task.job;
        let Some(spec) = self.jobs.get(&job).map(|entry| &entry.spec) else {
            return Err(format!("{} is told to stop and its job is not open", lease.task));
        };
        if spec.preemption != Preemption::Requeue {
            return Err(format!("{} is told to stop; nobody asked and it may not be", lease.task));
        }
        let gains = self.room_for.get(&job).filter(|other| **other != job);
        let Some((other, entry)) = gains.and_then(|other| Some((other, self.jobs.get(other)?)))
        else {
            return Err(format!("{} is told to stop and no job gains by it", lease.task));
        };
        if entry.held || entry.live.len() >= entry.spec.indices().count() as usize {
            return Err(format!("{} is told to stop for {other}, which cannot start", lease.task));
        }
        if entry.spec.priority > spec.priority {
            return Ok(Gain::Priority);
        }
        if entry.group == lease.group || !self.is_guaranteed(entry) {
            return Err(format!("{} is told to stop for {other}, which may not", lease.task));
        }
        Ok(Gain::Guarantee)
    }

    /// Writes down that a try gives back what its group has borrowed.
    fn take_back(&mut self, try_id: TryId) {
        let Some(lease) = self.leases.get(&try_id) else { return };
        let job = lease.task.job;
        // A gang is stopped as a whole.
        let gang = self.jobs.get(&job).is_some_and(|entry| entry.spec.gang.is_some());
        let victim = if gang { job.task(0) } else { lease.task };
        let sum = self.reclaimed.entry(lease.group.clone()).or_default().entry(victim).or_default();
        *sum = sum.plus(&lease.amounts);
        self.counts.reclaimed += 1;
    }

    /// What was taken back in this event left their guarantees to those who had borrowed it: without
    /// the last try that was stopped more would still be held than is guaranteed.
    pub(super) fn check_reclaimed(&self) -> Result<(), String> {
        for (group, victims) in &self.reclaimed {
            let goes_on = self.leases.values().filter(|lease| lease.group == *group && !lease.told);
            let sum = goes_on.fold(Resources::default(), |sum, lease| sum.plus(&lease.amounts));
            let guarantee = self.guarantee(group);
            let borrowed = |victim: &Resources| exceeds(&sum.plus(victim), &guarantee);
            if guarantee != Resources::default() && !victims.values().any(borrowed) {
                return Err(format!(
                    "{victims:?} of {group} are told to stop; it is left {sum}, of {guarantee}"
                ));
            }
        }
        Ok(())
    }

    /// Whether the group of a job stays within its guarantee with it.
    fn is_guaranteed(&self, entry: &Entry) -> bool {
        let guarantee = self.guarantee(&entry.group);
        let asked = &entry.spec.resources;
        let ranks = entry.spec.gang.map_or(1, |gang| gang.ranks);
        let held = self.held.get(&entry.group).copied().unwrap_or_default();
        let sum = (0..ranks).fold(held, |sum, _| sum.plus(asked));
        guarantee != Resources::default() && !exceeds(&sum, &guarantee)
    }

    fn guarantee(&self, group: &str) -> Resources {
        self.settings.groups.get(group).map(|group| group.guarantee).unwrap_or_default()
    }
}

/// Why a try may be stopped for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gain {
    Priority,
    Guarantee,
}
