//! What users ask: submit and cancel, and what the end of a job means for those that wait for it.

use std::collections::VecDeque;

use gantry_model::{
    At, DependencyKind, IndexSet, JobId, JobSpec, JobState, Level, Order, Reject, RejectKind,
    Resources, Subject, TaskState,
};

use crate::cluster::{Cluster, note};
use crate::event::{Answer, Effect};
use crate::job::Job;

/// Names of nodes in one sentence.
const NODES_NAMED_MAX: usize = 8;

/// One part of an amount of resources.
type Part = fn(&Resources) -> u64;

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
        self.can_ever_run(&spec)?;
        for dependency in &spec.after {
            if !self.jobs.contains_key(&dependency.job) {
                return Err(Reject::not_found(format!(
                    "the job depends on {}, which does not exist; gantry jobs lists them",
                    dependency.job
                )));
            }
        }
        self.jobs_made += 1;
        let id = JobId(self.jobs_made);
        let user = key.0.clone();
        self.keys.insert(key, id);
        for dependency in &spec.after {
            self.dependents.entry(dependency.job).or_default().insert(id);
        }
        self.jobs.insert(id, Job::new(id, spec, user, at));
        if self.look_at_dependencies(id, effects) {
            self.end_of_job(at, id, effects);
        }
        Ok(Answer::Submitted(id))
    }

    /// Refuses a job that no known node could run even when empty. Before the first node has
    /// joined nothing is known, and the job waits.
    fn can_ever_run(&self, spec: &JobSpec) -> Result<(), Reject> {
        if let Some(name) = &spec.node
            && !self.nodes.contains_key(name)
        {
            return Err(Reject::not_found(format!(
                "there is no node {name:?}; known are: {}",
                self.node_names()
            )));
        }
        let allowed = |name: &String| spec.node.as_ref().is_none_or(|pinned| pinned == name);
        let nodes = || self.nodes.iter().filter(|(name, _)| allowed(name)).map(|(_, node)| node);
        let asked = &spec.resources;
        if self.nodes.is_empty() || nodes().any(|node| node.facts.resources.hold(asked)) {
            return Ok(());
        }
        let most =
            |part: Part| nodes().map(|node| (part(&node.facts.resources), &node.facts.name)).max();
        let parts: [(&str, Part); 3] = [
            ("cores", |resources| u64::from(resources.cores)),
            ("MiB of memory", |resources| resources.memory.0),
            ("gpus", |resources| u64::from(resources.gpus)),
        ];
        let short = parts.iter().find_map(|(word, part)| {
            let (most, node) = most(*part)?;
            (most < part(asked)).then(|| {
                format!(
                    "no node has {} {word}; the most is {most}, on {node}; ask for less",
                    part(asked)
                )
            })
        });
        let together = || {
            format!("no node has {asked} together; gantry nodes shows what each has, ask for less")
        };
        Err(Reject::new(RejectKind::Unsatisfiable, short.unwrap_or_else(together)))
    }

    /// The names of the first nodes and how many others there are.
    fn node_names(&self) -> String {
        let names: Vec<&str> =
            self.nodes.keys().take(NODES_NAMED_MAX).map(String::as_str).collect();
        match self.nodes.len().saturating_sub(NODES_NAMED_MAX) {
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
        if !self.jobs.contains_key(&id) {
            return Err(Reject::not_found(format!("there is no job {id}; gantry jobs lists them")));
        }
        let count = self.cancel_tasks(id, indices, effects);
        if count > 0 {
            let sentence = format!("cancelled by {user}, {count} tasks");
            effects.push(note(at, Level::Note, Subject::Job(id), sentence));
            if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.counts.wait == 0) {
                job.reason = Some(format!("cancelled by {user}"));
            }
            self.end_of_job(at, id, effects);
        }
        Ok(Answer::Cancelled(count))
    }

    /// Cancels what waits and tells what runs to stop.
    fn cancel_tasks(
        &mut self,
        id: JobId,
        indices: Option<&IndexSet>,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let Some(job) = self.jobs.get_mut(&id) else { return 0 };
        let all = job.spec.indices();
        let mut count = 0;
        for index in all.iter().filter(|index| indices.is_none_or(|some| some.contains(*index))) {
            let Some(task) = job.touch(index) else { continue };
            match task.state.clone() {
                TaskState::Waiting => {
                    self.backoffs.remove(&(task.ready, id.task(index)));
                    job.step(index, &TaskState::Cancelled);
                }
                TaskState::Starting { node, try_id } | TaskState::Running { node, try_id, .. } => {
                    let name = task.node.clone().unwrap_or_default();
                    job.step(index, &TaskState::Stopping { node, try_id });
                    effects.push(Effect::Order { node: name, order: Order::Stop { try_id } });
                }
                _ => continue,
            }
            count += 1;
        }
        self.requeue(id);
        count
    }

    /// Does what the end of a job asks for, once all its tasks have ended: frees those that wait
    /// for it, and ends those that never can run now. A list and not a recursion, because a chain
    /// of jobs may be as long as users make it.
    pub(crate) fn end_of_job(&mut self, at: At, id: JobId, effects: &mut Vec<Effect>) {
        let mut ended = VecDeque::from([id]);
        while let Some(id) = ended.pop_front() {
            if !self.close(at, id, effects) {
                continue;
            }
            for dependent in self.dependents.remove(&id).unwrap_or_default() {
                if self.look_at_dependencies(dependent, effects) {
                    ended.push_back(dependent);
                }
            }
        }
    }

    /// Writes down that a job has ended; says whether it has.
    fn close(&mut self, at: At, id: JobId, effects: &mut Vec<Effect>) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        let state = job.state();
        if !state.is_ended() {
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
        effects.push(Effect::JobEnded(id));
        true
    }

    /// Frees a job whose dependencies are met, and cancels one whose never can be; says whether it
    /// cancelled it.
    fn look_at_dependencies(&mut self, id: JobId, effects: &mut Vec<Effect>) -> bool {
        let Some(job) = self.jobs.get(&id) else { return false };
        if job.state().is_ended() {
            return false;
        }
        let (mut waits_for, mut never) = (None, None);
        for dependency in &job.spec.after {
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
        job.blocked = waits_for.is_some();
        job.reason = waits_for.map(|other| format!("after {other}"));
        if let Some((other, state)) = never {
            job.reason =
                Some(format!("cancelled: it needed {other}, which ended as {}", state.word()));
            self.cancel_tasks(id, None, effects);
        }
        self.requeue(id);
        never.is_some()
    }
}
