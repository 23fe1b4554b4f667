//! What the end of a job, or of an element, means for those that wait for it.

use std::collections::VecDeque;

use gantry_model::{
    At, DependencyKind, DependencyScope, JobId, JobState, Level, Subject, TaskId, TaskState,
};

use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::job::Job;

/// What a dependency says of an element now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Met,
    Open,
    Never,
}

impl Cluster {
    /// Does what the end of a job asks for, once all its tasks have ended: frees those that wait
    /// for it, and ends those that never can run now. A list and not a recursion, because a chain
    /// of jobs may be as long as users make it.
    pub(crate) fn end_of_job(&mut self, at: At, id: JobId, effects: &mut Vec<Effect>) {
        let mut ended = VecDeque::from([id]);
        while let Some(id) = ended.pop_front() {
            if !self.close_job(at, id, effects) {
                continue;
            }
            for dependent in self.dependents.remove(&id).unwrap_or_default() {
                self.unlock_elements(dependent);
                let cancelled = self.look_at_dependencies(dependent);
                let over = self.jobs.get(&dependent).is_some_and(|job| job.state().is_ended());
                if cancelled || over {
                    ended.push_back(dependent);
                }
            }
        }
    }

    /// Writes down that a job has ended; says whether it has, for the first time.
    fn close_job(&mut self, at: At, id: JobId, effects: &mut Vec<Effect>) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        let state = job.state();
        if !state.is_ended() || job.ended.is_some() {
            return false;
        }
        job.ended = Some(at);
        let reason = || job.reason.clone().unwrap_or_else(|| state.word().to_owned());
        let (level, sentence) = match state {
            JobState::Fail => (Level::Warn, format!("failed: {}", reason())),
            JobState::Cancel => (Level::Info, reason()),
            _ => (Level::Info, "done".to_owned()),
        };
        effects.push(note(at, level, Subject::Job(id), sentence));
        let kind = job.kind;
        self.requeue(id);
        self.kinds.leave(kind);
        if let Some(job) = self.jobs.get(&id) {
            self.accounts.close_job(&job.user);
        }
        if let Some(row) = self.job(id) {
            effects.push(Effect::JobEnded(Box::new(row)));
        }
        self.ended.push_back(id);
        self.forget();
        true
    }

    /// Forgets the oldest ended jobs beyond the limit; the history has them.
    fn forget(&mut self) {
        while self.ended.len() > self.settings.ended_kept as usize {
            let Some(oldest) = self.ended.pop_front() else { return };
            let Some(job) = self.jobs.remove(&oldest) else { continue };
            self.keys.remove(&(job.user, job.key));
            if let Some(count) = self.tally.get_mut(&job.tallied) {
                *count -= 1;
            }
        }
    }

    /// Frees a job whose dependencies on whole jobs are met, and cancels one whose never can be;
    /// says whether it cancelled it.
    pub(crate) fn look_at_dependencies(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id) else { return false };
        if job.state().is_ended() {
            return false;
        }
        let (mut waits_for, mut never) = (None, None);
        let whole = job.spec.after.iter().filter(|after| after.scope == DependencyScope::Job);
        for dependency in whole {
            let state = self.jobs.get(&dependency.job).map_or(JobState::Cancel, Job::state);
            let met = match dependency.kind {
                _ if !state.is_ended() => {
                    waits_for.get_or_insert(dependency.job);
                    continue;
                }
                DependencyKind::Any => true,
                DependencyKind::Ok => state == JobState::Done,
                DependencyKind::Fail => state == JobState::Fail,
            };
            if !met {
                never.get_or_insert((dependency.job, state));
            }
        }
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        let was_blocked = std::mem::replace(&mut job.blocked, waits_for.is_some());
        if job.blocked || was_blocked {
            job.reason = waits_for.map(|other| format!("after {other}"));
        }
        if let Some((other, state)) = never {
            job.reason =
                Some(format!("cancelled: it needed {other}, which ended as {}", state.word()));
            // Nothing of it can have been started.
            self.cancel_waiting(id, None);
        }
        self.requeue(id);
        never.is_some()
    }

    /// Locks what of a new job waits for elements of others.
    pub(crate) fn lock_elements(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.waits_by_element()) else {
            return;
        };
        job.locked = job.fresh.take(None);
        self.unlock_elements(id);
    }

    /// Looks again at every element of a job that waits for elements of others.
    fn unlock_elements(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let locked: Vec<u32> = job.locked.iter().collect();
        for index in locked {
            self.unlock(id, index);
        }
        self.requeue(id);
    }

    /// An element may have ended: what waits for it is looked at.
    pub(crate) fn element_ended(&mut self, at: At, task: TaskId, effects: &mut Vec<Effect>) {
        let Some(dependents) = self.dependents.get(&task.job) else { return };
        let waiting: Vec<JobId> = dependents
            .iter()
            .copied()
            .filter(|id| {
                let job = self.jobs.get(id);
                job.is_some_and(|job| job.locked.contains(task.index))
            })
            .collect();
        for id in waiting {
            self.unlock(id, task.index);
            self.requeue(id);
            self.end_of_job(at, id, effects);
        }
    }

    fn unlock(&mut self, id: JobId, index: u32) {
        // The end of another job that waited may have freed it already.
        let locked = |job: &&Job| job.locked.contains(index);
        let Some(job) = self.jobs.get(&id).filter(locked) else { return };
        let verdict = job.spec.after.iter().map(|after| match after.scope {
            DependencyScope::Job => Verdict::Met,
            DependencyScope::Element => self.element(after.job, index, after.kind),
        });
        let verdict = verdict.max().unwrap_or(Verdict::Met);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match verdict {
            Verdict::Open => {}
            Verdict::Met => {
                job.locked.remove(index);
                if !job.parked.contains(index) {
                    job.fresh.insert(index);
                }
            }
            Verdict::Never => {
                job.locked.remove(index);
                job.parked.remove(index);
                job.cancelled.insert(index);
                job.counts.wait -= 1;
                job.counts.cancel += 1;
            }
        }
    }

    fn element(&self, job: JobId, index: u32, kind: DependencyKind) -> Verdict {
        let state = self.jobs.get(&job).and_then(|job| job.task_state(index));
        let met = match state {
            Some(state) if !state.is_ended() => return Verdict::Open,
            None => return Verdict::Never,
            Some(state) => match kind {
                DependencyKind::Any => true,
                DependencyKind::Ok => state == TaskState::Done,
                DependencyKind::Fail => matches!(state, TaskState::Failed(_)),
            },
        };
        if met { Verdict::Met } else { Verdict::Never }
    }
}
