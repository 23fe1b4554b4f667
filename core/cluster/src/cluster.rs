//! The cluster's value and its one method.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_model::{At, JobId, JobState, Level, Machine, NodeId, Note, Subject, TaskId};
use serde::{Deserialize, Serialize};

use crate::accounts::Accounts;
use crate::event::{Effect, Event};
use crate::job::Job;
use crate::kind::Kinds;
use crate::node::Node;
use crate::queue::Queue;
use crate::reserve::Reservation;
use crate::settings::ClusterSettings;

/// The whole cluster. What it is serialised to is a snapshot of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub(crate) settings: ClusterSettings,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// By number, from 1.
    pub(crate) nodes: Vec<Node>,
    pub(crate) names: BTreeMap<String, NodeId>,
    /// Which job a submit with this user and key gave.
    pub(crate) keys: BTreeMap<(String, String), JobId>,
    pub(crate) kinds: Kinds,
    pub(crate) accounts: Accounts,
    pub(crate) queue: Queue,
    /// What is kept for the first job that finds no place.
    pub(crate) reservation: Option<Reservation>,
    /// Nodes that may take more than when placement last looked.
    pub(crate) changed: BTreeSet<NodeId>,
    /// Nodes with leases of tasks that may be stopped to make room, and how many those are.
    pub(crate) preemptible: BTreeMap<NodeId, u32>,
    /// Grows when facts, roles or states of nodes change.
    pub(crate) generation: u64,
    /// Licences that tasks hold.
    pub(crate) licences: BTreeMap<String, u32>,
    /// Jobs that wait for a job to end.
    pub(crate) dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Tasks that wait for their back-off to end.
    pub(crate) backoffs: BTreeSet<(At, TaskId)>,
    /// When a node is to be looked at.
    pub(crate) timers: BTreeSet<(At, NodeId)>,
    /// Jobs in each state.
    pub(crate) tally: BTreeMap<JobState, u32>,
    /// Ended jobs in the order in which they are forgotten.
    pub(crate) ended: VecDeque<JobId>,
    pub(crate) jobs_made: u64,
    pub(crate) tries_made: u64,
    pub(crate) tests_made: u64,
    /// Whether this came from a backup, and nodes may still hold what it does not know.
    pub(crate) returning: bool,
}

impl Machine for Cluster {
    type Event = Event;
    type Effect = Effect;

    fn apply(&mut self, at: At, event: Event, effects: &mut Vec<Effect>) {
        let mut ended = None;
        match event {
            Event::Submit { request, user, key, spec } => {
                let answer = self.submit(at, user, key, *spec, effects);
                effects.push(Effect::Reply { request, answer });
            }
            Event::Cancel { request, user, job, indices } => {
                let answer = self.cancel(at, &user, job, indices.as_ref(), effects);
                effects.push(Effect::Reply { request, answer });
            }
            Event::Act { request, user, action } => {
                let answer = self.act(at, &user, action, effects);
                effects.push(Effect::Reply { request, answer });
            }
            Event::Settings(settings) => self.set(at, *settings, effects),
            Event::NodeUp { facts, holds } => self.node_up(at, *facts, &holds, effects),
            Event::NodeDown { node } => self.node_down(at, &node, effects),
            Event::Report { node, report } => ended = self.report(at, &node, report, effects),
            Event::Found { node, finding } => self.found(at, &node, finding, effects),
            Event::Tested { node, number, wrong } => {
                self.tested(at, &node, number, wrong, effects);
            }
            Event::Tick => self.tick(at, effects),
            Event::NodeGone { node, holds } => self.node_gone(at, &node, &holds, effects),
            Event::Restored { taken } => self.restored(at, taken, effects),
        }
        if !self.awaits_nodes(at) {
            self.place(at, effects);
            if let Some((node, job)) = ended {
                self.look_ahead(at, node, job, effects);
            }
        }
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

    /// What an administrator has set.
    #[must_use]
    pub const fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize - 1]
    }

    fn set(&mut self, at: At, settings: ClusterSettings, effects: &mut Vec<Effect>) {
        if settings != self.settings {
            self.settings = settings;
            self.queue.reopen();
            effects.push(note(at, Level::Note, Subject::Cluster, "settings were read again"));
        }
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
        self.look_at_nodes(at, effects);
    }

    fn next_timer(&self) -> Option<At> {
        let backoff = self.backoffs.first().map(|(ready, _)| *ready);
        let node = self.timers.first().map(|(at, _)| *at);
        node.into_iter().chain(backoff).chain(self.given_up_at()).min()
    }
}

/// A line for the event log.
pub(crate) fn note(at: At, level: Level, subject: Subject, sentence: impl Into<String>) -> Effect {
    Effect::Note(Note { at, level, subject, sentence: sentence.into() })
}
