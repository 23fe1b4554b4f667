//! What users ask: submit and cancel.

use gantry_model::{
    AfterStop, At, DependencyScope, GpuDemand, IndexSet, JobId, JobSpec, Level, Reject, RejectKind,
    Resources, Subject, TaskState, things,
};

use crate::accounts::{exceeds, group_of};
use crate::cluster::{Cluster, note};
use crate::event::{Answer, Effect};
use crate::gang::{Places, spread};
use crate::job::Job;
use crate::kind::Kind;
use crate::node::Node;
use crate::place::times;

/// One part of an amount of resources.
type Part = fn(&Resources) -> u64;

/// Names in one sentence.
const NAMES_MAX: usize = 8;

impl Cluster {
    pub(crate) fn submit(
        &mut self,
        at: At,
        user: String,
        key: String,
        spec: JobSpec,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        let key = (user, key);
        if let Some(job) = self.keys.get(&key) {
            return Ok(Answer::Submitted(*job));
        }
        spec.validate()?;
        let (open, most) = (self.accounts.open_jobs(&key.0), self.settings.jobs_max);
        if open >= most {
            return Err(Reject::new(
                RejectKind::Busy,
                format!(
                    "{} has {open} jobs that have not ended, and {most} are the most; use arrays, or wait until some have ended",
                    key.0
                ),
            ));
        }
        let group = group_of(&key.0, spec.group.as_deref(), &self.settings)?;
        self.can_ever_run(&spec)?;
        self.can_ever_have(&spec, &group)?;
        self.can_depend(&spec)?;
        self.jobs_made += 1;
        let id = JobId(self.jobs_made);
        let kind = self.kinds.enter(Kind::of(&spec));
        let account = self.accounts.enter(&key.0, &group);
        self.accounts.open_job(&key.0);
        self.keys.insert(key.clone(), id);
        for dependency in &spec.after {
            self.dependents.entry(dependency.job).or_default().insert(id);
        }
        let job = Job::new(id, spec, key, kind, account, at);
        *self.tally.entry(job.tallied).or_default() += 1;
        self.jobs.insert(id, job);
        self.lock_elements(id);
        self.look_at_dependencies(id);
        // What it comes after may have ended in a way that keeps all of it from ever starting.
        self.end_of_job(at, id, effects);
        Ok(Answer::Submitted(id))
    }

    /// Refuses a job that asks for more at once than its group or a licence ever has.
    fn can_ever_have(&self, spec: &JobSpec, group: &str) -> Result<(), Reject> {
        let never = |sentence| Err(Reject::new(RejectKind::Unsatisfiable, sentence));
        let together = spec.gang.map_or(1, |gang| gang.ranks);
        for (name, count) in &spec.licences {
            let all = self.settings.licences.get(name).copied().unwrap_or(0);
            let count = count.saturating_mul(together);
            if count > all {
                return never(format!(
                    "{count} of the licence {name:?} were asked for; the settings give {all}"
                ));
            }
        }
        let asked = times(&spec.resources, together);
        let limit = self.settings.groups.get(group).and_then(|group| group.limit);
        match limit.filter(|limit| exceeds(&asked, limit)) {
            None => Ok(()),
            Some(limit) => never(format!(
                "the tasks that start together take {asked}; group {group} may have {limit}"
            )),
        }
    }

    fn can_depend(&self, spec: &JobSpec) -> Result<(), Reject> {
        for dependency in &spec.after {
            let id = dependency.job;
            let Some(other) = self.jobs.get(&id) else {
                let why = if id.0 > 0 && id.0 <= self.jobs_made {
                    "ended long ago and is only in the history; leave the dependency out"
                } else {
                    "does not exist; gantry jobs lists them"
                };
                return Err(Reject::not_found(format!("the job depends on {id}, which {why}")));
            };
            if dependency.scope == DependencyScope::Element {
                let theirs = other.spec.indices();
                if spec.gang.is_some() || other.is_gang() {
                    return Err(Reject::invalid(format!(
                        "the ranks of a gang start together and cannot wait element by element for {id}; write ok:{id}"
                    )));
                }
                if let Some(missing) = spec.indices().iter().find(|index| !theirs.contains(*index))
                {
                    return Err(Reject::invalid(format!(
                        "element {missing} would wait for {id}.{missing}, which does not exist; {id} has the elements {theirs}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Refuses a job that no known node could run even when empty. Before the first node has
    /// joined nothing is known, and the job waits.
    fn can_ever_run(&self, spec: &JobSpec) -> Result<(), Reject> {
        if let Some(name) = spec.node.as_ref().filter(|name| !self.names.contains_key(*name)) {
            return Err(Reject::not_found(format!(
                "there is no node {name:?}; known are: {}",
                self.node_names()
            )));
        }
        let never = |sentence| Err(Reject::new(RejectKind::Unsatisfiable, sentence));
        if self.names.is_empty() {
            return Ok(());
        }
        let kind = Kind::of(spec);
        let takes = |node: &&Node| self.is_member(node) && node.never_takes(&kind, None).is_none();
        if !self.nodes.iter().any(|node| takes(&node)) {
            return never(self.short(&kind));
        }
        if kind.gang.is_none() {
            return Ok(());
        }
        let whole = |node: &Node| {
            let most = node.whole.capacity(&node.facts.gpus, &kind);
            (node.id, most.min(kind.together()))
        };
        let room: Places = self.nodes.iter().filter(takes).map(whole).collect();
        let most: u64 = room.iter().map(|(_, count)| u64::from(*count)).sum();
        match kind.gang.filter(|gang| spread(*gang, room).is_none()) {
            None => Ok(()),
            Some(gang) => never(format!(
                "all nodes together have room for {most} of {} ranks as they are asked for; ask for fewer, or for less for each",
                gang.ranks
            )),
        }
    }

    /// What of a kind no node has, even when empty.
    fn short(&self, kind: &Kind) -> String {
        let asked = &kind.resources;
        let named = |node: &&Node| kind.node.as_ref().is_none_or(|name| name == node.name());
        let nodes = || self.nodes.iter().filter(|node| self.is_member(node)).filter(named);
        let parts: [(&str, Part); 4] = [
            ("cores", |resources| u64::from(resources.cores)),
            ("MiB of memory", |resources| resources.memory.0),
            ("gpus", |resources| u64::from(resources.gpus)),
            ("MiB of scratch", |resources| resources.scratch.0),
        ];
        for (word, part) in parts {
            let most = nodes().map(|node| (part(&node.facts.resources), node.name())).max();
            if let Some((most, node)) = most.filter(|(most, _)| *most < part(asked)) {
                let asked = part(asked);
                return format!(
                    "no node has {asked} {word}; the most is {most}, on {node}; ask for less"
                );
            }
        }
        let label = kind
            .labels
            .iter()
            .find(|label| nodes().all(|node| !node.facts.labels.contains(*label)));
        if let Some(label) = label {
            return format!(
                "no node has the label {label:?}; labels are set in the settings of agents"
            );
        }
        if asked.gpus > 0 && kind.gpu != GpuDemand::default() {
            return "no node has such gpus; gantry nodes shows what each has, ask for another model, profile or less memory".into();
        }
        format!("no node has {asked} together; gantry nodes shows what each has, ask for less")
    }

    /// The names of the first nodes and how many others there are.
    pub(crate) fn node_names(&self) -> String {
        let names: Vec<&str> = self.names.keys().take(NAMES_MAX).map(String::as_str).collect();
        match self.names.len().saturating_sub(NAMES_MAX) {
            0 if names.is_empty() => "none yet".into(),
            0 => names.join(", "),
            others => format!("{} and {others} others", names.join(", ")),
        }
    }

    pub(crate) fn cancel(
        &mut self,
        at: At,
        user: &str,
        id: JobId,
        indices: Option<&IndexSet>,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, Reject> {
        self.known(id)?;
        let count = self.cancel_tasks(at, id, indices, effects);
        if count > 0 {
            let sentence = format!("cancelled by {user}, {}", things(count, "task"));
            effects.push(note(at, Level::Note, Subject::Job(id), sentence));
            if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.counts.wait == 0) {
                job.reason = Some(format!("cancelled by {user}"));
            }
            self.end_of_job(at, id, effects);
        }
        Ok(Answer::Cancelled(count))
    }

    /// The job, or that there is none.
    pub(crate) fn known(&self, id: JobId) -> Result<&Job, Reject> {
        self.jobs.get(&id).ok_or_else(|| {
            let why = if id.0 > 0 && id.0 <= self.jobs_made {
                format!("{id} ended long ago; gantry history shows it")
            } else {
                format!("there is no job {id}; gantry jobs lists them")
            };
            Reject::not_found(why)
        })
    }

    /// Cancels what waits and tells what runs to stop.
    pub(crate) fn cancel_tasks(
        &mut self,
        at: At,
        id: JobId,
        indices: Option<&IndexSet>,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let Some(job) = self.jobs.get(&id) else { return 0 };
        // A gang stands or falls as a whole.
        let indices = if job.is_gang() { None } else { indices };
        let live: Vec<u32> = job
            .tasks
            .iter()
            .filter(|(index, task)| {
                let wanted = indices.is_none_or(|some| some.contains(**index));
                wanted && (task.state.live().is_some() || task.state == TaskState::Arrived)
            })
            .map(|(index, _)| *index)
            .collect();
        let mut count = self.cancel_waiting(id, indices);
        count += self.recall_tasks(id, indices, AfterStop::Cancel, effects);
        for index in live {
            count += u32::from(self.stop_task(at, id.task(index), AfterStop::Cancel, effects));
            let Some(job) = self.jobs.get_mut(&id) else { return count };
            if job.tasks.get(&index).is_some_and(|task| task.state == TaskState::Arrived) {
                job.step(index, &TaskState::Cancelled);
                count += 1;
            }
        }
        self.requeue(id);
        count
    }

    /// Cancels what waits of a job, by ranges where it was never started.
    pub(crate) fn cancel_waiting(&mut self, id: JobId, indices: Option<&IndexSet>) -> u32 {
        let Some(job) = self.jobs.get_mut(&id) else { return 0 };
        let mut count = 0;
        for taken in [job.fresh.take(indices), job.locked.take(indices)] {
            count += taken.count();
            job.cancelled.extend(&taken);
        }
        for index in job.parked.take(indices).iter() {
            let elsewhere = job.cancelled.contains(index) || job.tasks.contains_key(&index);
            if !elsewhere {
                job.cancelled.insert(index);
                count += 1;
            }
        }
        job.counts.wait -= count;
        job.counts.cancel += count;
        let waiting: Vec<u32> = job
            .tasks
            .iter()
            .filter(|(index, task)| {
                task.state == TaskState::Waiting
                    && indices.is_none_or(|some| some.contains(**index))
            })
            .map(|(index, _)| *index)
            .collect();
        for index in waiting {
            if let Some(task) = job.tasks.get(&index) {
                self.backoffs.remove(&(task.ready, id.task(index)));
            }
            job.step(index, &TaskState::Cancelled);
            count += 1;
        }
        count
    }
}
