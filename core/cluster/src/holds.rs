//! Hold and release: of a whole job, which then starts nothing, or of some of its elements.
//!
//! Elements that are held are set aside from those that may start. One that also waits for an
//! element of another job stays where it is and is remembered, so that it is not started once that
//! one has ended.

use gantry_model::{AfterStop, At, IndexSet, JobId, Level, Reject, Subject, TaskState};

use crate::changes::shortened;
use crate::cluster::{Cluster, note};
use crate::event::{Answer, Effect};

impl Cluster {
    pub(crate) fn hold(
        &mut self,
        at: At,
        user: &str,
        id: JobId,
        indices: Option<&IndexSet>,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        let job = self.open_job(id)?;
        // A gang is held as a whole: one rank that waits keeps all from starting.
        let indices = indices.filter(|_| !job.is_gang());
        let waits = job.counts.wait;
        let count = match indices {
            None if job.held => 0,
            None => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.held = true;
                }
                waits
            }
            Some(indices) => self.park(id, indices),
        };
        self.recall_tasks(id, indices, AfterStop::Again, effects);
        self.said(at, id, &format!("held by {user}"), indices, count, effects);
        Ok(Answer::Acted(count))
    }

    pub(crate) fn let_go(
        &mut self,
        at: At,
        user: &str,
        id: JobId,
        indices: Option<&IndexSet>,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        let job = self.open_job(id)?;
        let indices = indices.filter(|_| !job.is_gang());
        if let (Some(_), true) = (indices, job.held) {
            return Err(Reject::invalid(format!(
                "all of {id} is held; release it, and hold those elements that shall go on waiting"
            )));
        }
        let waits = if job.held { job.counts.wait } else { 0 };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.held = false;
        }
        let count = self.unpark(at, id, indices).max(waits);
        self.said(at, id, &format!("released by {user}"), indices, count, effects);
        // What an element waited for may have ended in a way that keeps it from ever starting.
        self.end_of_job(at, id, effects);
        Ok(Answer::Acted(count))
    }

    fn said(
        &mut self,
        at: At,
        id: JobId,
        what: &str,
        indices: Option<&IndexSet>,
        count: u32,
        effects: &mut Vec<Effect>,
    ) {
        self.requeue(id);
        if count == 0 {
            return;
        }
        let sentence = match indices {
            None => what.to_owned(),
            Some(some) => format!("{what}: elements {}", shortened(&some.to_string())),
        };
        effects.push(note(at, Level::Note, Subject::Job(id), sentence));
    }

    /// Sets aside what of a job's elements waits; says how many.
    fn park(&mut self, id: JobId, indices: &IndexSet) -> u32 {
        let Some(job) = self.jobs.get_mut(&id) else { return 0 };
        let before = job.parked.count();
        let fresh = job.fresh.take(Some(indices));
        job.parked.extend(&fresh);
        let locked: Vec<u32> = job.locked.iter().filter(|index| indices.contains(*index)).collect();
        let again: Vec<u32> = job
            .tasks
            .iter()
            .filter(|(index, task)| {
                let waits = matches!(task.state, TaskState::Waiting | TaskState::Ahead { .. });
                waits && indices.contains(**index)
            })
            .map(|(index, _)| *index)
            .collect();
        for index in locked.into_iter().chain(again) {
            if job.parked.contains(index) {
                continue;
            }
            job.parked.insert(index);
            job.again.remove(&index);
            if let Some(task) = job.tasks.get(&index) {
                self.backoffs.remove(&(task.ready, id.task(index)));
            }
        }
        job.parked.count() - before
    }

    /// Puts held elements back to where they waited; says how many.
    fn unpark(&mut self, at: At, id: JobId, indices: Option<&IndexSet>) -> u32 {
        let Some(job) = self.jobs.get_mut(&id) else { return 0 };
        let parked = job.parked.take(indices);
        for (first, last) in parked.pairs() {
            let plain = job.locked.is_empty() && job.tasks.range(first..=last).next().is_none();
            if plain {
                job.fresh.insert_range(first, last);
                continue;
            }
            for index in first..=last {
                match job.tasks.get(&index) {
                    // It was called back and has not come back yet.
                    Some(task) if matches!(task.state, TaskState::Ahead { .. }) => {}
                    Some(task) if task.ready > at => {
                        self.backoffs.insert((task.ready, id.task(index)));
                    }
                    Some(_) => {
                        job.again.insert(index);
                    }
                    None if job.locked.contains(index) => {}
                    None => job.fresh.insert(index),
                }
            }
        }
        parked.count()
    }
}
