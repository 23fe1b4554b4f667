//! The cluster's value and its one method.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{At, JobId, Level, Machine, Millis, NodeState, Note, Subject, TaskId};

use crate::event::{Effect, Event};
use crate::job::{Class, Job, Kind};
use crate::node::Node;

/// What an administrator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// How long a node may be away before its tasks are queued again.
    pub node_timeout: Millis,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { node_timeout: Millis::from_seconds(10) }
    }
}

/// The whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Which job a submit with this user and key gave.
    pub(crate) keys: BTreeMap<(String, String), JobId>,
    /// Jobs with a task that could start now, by what they ask for.
    pub(crate) queue: BTreeMap<Kind, Class>,
    /// Jobs that wait for a job to end.
    pub(crate) dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Tasks that wait for their back-off to end.
    pub(crate) backoffs: BTreeSet<(At, TaskId)>,
    pub(crate) jobs_made: u64,
    pub(crate) tries_made: u64,
}

impl Machine for Cluster {
    type Event = Event;
    type Effect = Effect;

    fn apply(&mut self, at: At, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Submit { request, user, key, spec } => {
                let answer = self.submit(at, user, key, *spec, effects);
                effects.push(Effect::Reply { request, answer });
            }
            Event::Cancel { request, user, job, indices } => {
                let answer = self.cancel(at, &user, job, indices.as_ref(), effects);
                effects.push(Effect::Reply { request, answer });
            }
            Event::NodeUp { facts, holds } => self.node_up(at, facts, &holds, effects),
            Event::NodeDown { node } => self.node_down(at, &node, effects),
            Event::Report { node, report } => self.report(at, &node, report, effects),
            Event::Tick => self.tick(at, effects),
        }
        self.place(at, effects);
        effects.extend(self.next_timer().map(Effect::Wake));
    }

    fn check(&self) -> Result<(), String> {
        crate::check::check(self)
    }
}

impl Cluster {
    /// A cluster without nodes and jobs.
    #[must_use]
    pub fn new(settings: ClusterSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    fn tick(&mut self, at: At, effects: &mut Vec<Effect>) {
        while let Some((ready, task)) =
            self.backoffs.first().copied().filter(|(ready, _)| *ready <= at)
        {
            self.backoffs.remove(&(ready, task));
            if let Some(job) = self.jobs.get_mut(&task.job) {
                job.again.insert(task.index);
            }
            self.requeue(task.job);
        }
        let timeout = self.settings.node_timeout;
        let lost: Vec<String> = self
            .nodes
            .values()
            .filter(|node| node.state == NodeState::Late && node.since.after(timeout) <= at)
            .map(|node| node.facts.name.clone())
            .collect();
        for node in lost {
            self.node_lost(at, &node, effects);
        }
    }

    fn next_timer(&self) -> Option<At> {
        let timeout = self.settings.node_timeout;
        let late = self.nodes.values().filter(|node| node.state == NodeState::Late);
        let late = late.map(|node| node.since.after(timeout)).min();
        let backoff = self.backoffs.first().map(|(ready, _)| *ready);
        late.into_iter().chain(backoff).min()
    }

    /// Puts a job where placement looks, or takes it away, as its counts and dependencies say.
    pub(crate) fn requeue(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        if job.wants_placement() {
            self.queue.entry(job.kind.clone()).or_default().jobs.insert(job.place());
        } else if let Some(class) = self.queue.get_mut(&job.kind) {
            class.jobs.remove(&job.place());
            if class.jobs.is_empty() {
                self.queue.remove(&job.kind);
            }
        }
    }
}

/// A line for the event log.
pub(crate) fn note(at: At, level: Level, subject: Subject, sentence: impl Into<String>) -> Effect {
    Effect::Note(Note { at, level, subject, sentence: sentence.into() })
}
