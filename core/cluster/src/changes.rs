//! Changes of a job that waits or runs: of all of it, or of some of its elements.
//!
//! What placement looks at (priority, estimate, how many at once) belongs to the whole job, since
//! its elements are alike to it. The time limit and the retries are also an element's own: what a
//! person changes of the few that ran out of time, before starting them again.

use gantry_model::{
    AfterStop, At, IndexSet, JobChange, JobId, Level, Reject, RejectKind, Subject, limits,
};

use crate::cluster::{Cluster, note};
use crate::event::{Answer, Effect};
use crate::job::{Exception, Job};
use crate::kind::Kind;

impl Cluster {
    pub(crate) fn change(
        &mut self,
        at: At,
        user: &str,
        id: JobId,
        change: &JobChange,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        let mut spec = self.open_job(id)?.spec.clone();
        spec.priority = change.priority.unwrap_or(spec.priority);
        spec.time_limit = change.time_limit.or(spec.time_limit);
        spec.estimate = change.estimate.or(spec.estimate);
        spec.retries = change.retries.unwrap_or(spec.retries);
        match (&mut spec.array, change.at_once_max) {
            (_, None) => {}
            (Some(array), Some(cap)) if cap > 0 => array.at_once_max = Some(cap),
            (Some(_), Some(_)) => {
                return Err(Reject::invalid("0 at once would stop the array; hold it instead"));
            }
            (None, Some(_)) => {
                return Err(Reject::invalid(format!("{id} is no array and has no such cap")));
            }
        }
        spec.validate()?;
        // A change of the whole job goes over what was changed of some elements before.
        let rewrite = |job: &mut Job| {
            job.spec = spec;
            for some in &mut job.exceptions {
                some.time_limit = some.time_limit.filter(|_| change.time_limit.is_none());
                some.retries = some.retries.filter(|_| change.retries.is_none());
            }
            job.exceptions.retain(|some| some.time_limit.is_some() || some.retries.is_some());
            job.counts.wait + job.counts.run
        };
        let count = self.rewrite(id, rewrite);
        self.recall_tasks(id, None, AfterStop::Again, effects);
        effects.push(note(at, Level::Note, Subject::Job(id), format!("changed by {user}")));
        Ok(Answer::Acted(count))
    }

    pub(crate) fn change_elements(
        &mut self,
        at: At,
        user: &str,
        id: JobId,
        elements: IndexSet,
        change: &JobChange,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        let job = self.open_job(id)?;
        if job.is_gang() {
            return Err(Reject::invalid(format!(
                "the ranks of {id} start and end together; change the whole job"
            )));
        }
        let whole =
            change.priority.is_some() || change.estimate.is_some() || change.at_once_max.is_some();
        if whole {
            return Err(Reject::invalid(format!(
                "priority, estimate and how many run at once belong to the whole job; write {id} without elements for them"
            )));
        }
        if job.exceptions.len() >= limits::EXCEPTIONS_MAX {
            return Err(Reject::new(
                RejectKind::Busy,
                format!(
                    "elements of {id} were changed {} times, which is the most; change the whole job",
                    limits::EXCEPTIONS_MAX
                ),
            ));
        }
        let mut spec = job.spec.clone();
        spec.time_limit = change.time_limit.or(spec.time_limit);
        spec.retries = change.retries.unwrap_or(spec.retries);
        spec.validate()?;
        let open = elements
            .iter()
            .filter(|index| job.task_state(*index).is_some_and(|state| !state.is_ended()));
        let count = open.count() as u32;
        if count == 0 {
            return Ok(Answer::Acted(0));
        }
        let said = elements.to_string();
        let (time_limit, retries) = (change.time_limit, change.retries);
        self.rewrite(id, |job| {
            job.exceptions.push(Exception { elements, time_limit, retries });
            0
        });
        self.recall_tasks(id, None, AfterStop::Again, effects);
        let sentence = format!("changed by {user}: elements {}", shortened(&said));
        effects.push(note(at, Level::Note, Subject::Job(id), sentence));
        Ok(Answer::Acted(count))
    }

    /// Changes a job, and what placement knows of it.
    fn rewrite(&mut self, id: JobId, change: impl FnOnce(&mut Job) -> u32) -> u32 {
        self.leave_queue(id);
        let Some(job) = self.jobs.get_mut(&id) else { return 0 };
        let count = change(job);
        let before = job.kind;
        job.kind = self.kinds.enter(Kind::of(&job.longest()));
        self.kinds.leave(before);
        self.requeue(id);
        count
    }
}

/// Characters of a list of elements in a sentence.
const SAID_MAX: usize = 60;

/// A list of elements as a sentence can hold it.
pub(crate) fn shortened(elements: &str) -> String {
    match elements.char_indices().nth(SAID_MAX) {
        None => elements.to_owned(),
        Some((end, _)) => format!("{} ...", &elements[..end]),
    }
}
