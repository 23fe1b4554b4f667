//! The users and operators of a simulated cluster: what they ask for, and how they change their
//! minds.
//!
//! A user who gets no answer asks again with the same key, as the commands do.

use std::collections::{BTreeMap, BTreeSet};

use gantry_cluster::Event;
use gantry_model::{Action, At, IndexSet, JobChange, JobId, Millis, Window};

use crate::load;
use crate::random::Random;
use crate::site::USERS;
use crate::trace::name;

/// Users look again at no more of their jobs than these, the newest.
const OPEN_MAX: usize = 200;
/// Elements that users speak of by their number.
const ELEMENTS_MAX: u64 = 20;

/// The users.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    random: Random,
    servers: usize,
    /// Requests without an answer.
    pub(crate) pending: BTreeMap<u64, Event>,
    asked: u64,
    /// Jobs that may not have ended.
    open: Vec<JobId>,
    held: BTreeSet<JobId>,
    drained: BTreeSet<usize>,
}

impl Users {
    pub(crate) fn new(servers: usize, random: Random) -> Self {
        Self {
            random,
            servers,
            pending: BTreeMap::new(),
            asked: 0,
            open: Vec::new(),
            held: BTreeSet::new(),
            drained: BTreeSet::new(),
        }
    }

    /// A job was submitted.
    pub(crate) fn submitted(&mut self, job: JobId) {
        self.open.push(job);
        if self.open.len() > OPEN_MAX {
            self.open.remove(0);
        }
    }

    /// A job has ended.
    pub(crate) fn ended(&mut self, job: JobId) {
        self.open.retain(|open| *open != job);
        self.held.remove(&job);
    }

    /// The next thing a user does: its number and what is asked. `at` is what the cluster's clock
    /// shows.
    pub(crate) fn act(&mut self, at: At) -> (u64, Event) {
        self.asked += 1;
        let request = self.asked;
        let user = (*self.random.pick(&USERS)).to_owned();
        let kind = self.random.below(100);
        let event = if kind < 70 || self.open.is_empty() {
            let spec = load::job(&mut self.random, &user, &self.open, self.servers);
            let (key, spec) = (format!("k{request}"), Box::new(spec));
            Event::Submit { request, user, key, spec }
        } else if kind < 75 {
            let job = *self.random.pick(&self.open);
            let indices = self.random.chance(400).then(|| self.elements());
            Event::Cancel { request, user, job, indices }
        } else if kind < 92 {
            let action = self.change_job(kind);
            Event::Act { request, user, action }
        } else {
            let action = self.change_node(kind, at);
            Event::Act { request, user, action }
        };
        self.pending.insert(request, event.clone());
        (request, event)
    }

    /// Some elements of an array, which it may not all have.
    fn elements(&mut self) -> IndexSet {
        let first = self.random.below(ELEMENTS_MAX);
        let last = first + self.random.below(ELEMENTS_MAX);
        format!("{first}-{last}").parse().unwrap_or_else(|_| IndexSet::first(2))
    }

    fn change_job(&mut self, kind: u64) -> Action {
        let job = *self.random.pick(&self.open);
        let indices = self.random.chance(400).then(|| self.elements());
        match kind {
            75..=78 => {
                self.held.insert(job);
                Action::Hold { job, indices }
            }
            79..=82 => {
                let job = self.held.pop_first().unwrap_or(job);
                Action::Release { job, indices: indices.filter(|_| self.random.chance(500)) }
            }
            83..=86 => Action::Requeue { job, indices },
            _ => {
                let random = &mut self.random;
                let whole = indices.is_none();
                let time = random.duration(Millis::from_seconds(20), Millis::from_seconds(1200));
                let change = JobChange {
                    priority: whole.then(|| random.between(0, 20) as i32 - 10),
                    at_once_max: (whole && random.chance(300)).then(|| random.between(2, 8) as u32),
                    time_limit: random.chance(300).then_some(time),
                    estimate: (whole && random.chance(200)).then_some(time),
                    retries: random.chance(300).then(|| random.between(0, 4) as u8),
                };
                Action::Change { job, indices, change }
            }
        }
    }

    fn change_node(&mut self, kind: u64, at: At) -> Action {
        let random = &mut self.random;
        let server = random.below(self.servers as u64) as usize;
        let node = name(server);
        match kind {
            92..=93 => {
                self.drained.insert(server);
                let soon = random.duration(Millis::from_seconds(1), Millis::from_seconds(1800));
                let deadline = random.chance(600).then(|| at.after(soon));
                Action::Drain { node, reason: "a fan is loud".into(), deadline }
            }
            94..=95 => {
                let server = self.drained.pop_first().unwrap_or(server);
                Action::Resume { node: name(server) }
            }
            96..=98 => {
                let soon = random.duration(Millis(1), Millis::from_seconds(3 * 3600));
                let takes = random.duration(Millis::from_seconds(30), Millis::from_seconds(3600));
                let from = at.after(soon);
                let window = Window { from, until: from.after(takes), reason: "new disks".into() };
                Action::AddWindow { node, window }
            }
            // Refused of most: what is up or late cannot be forgotten.
            _ if random.chance(500) => Action::Forget { node },
            _ => Action::DropWindows { node },
        }
    }

    /// What users and operators do before they go home: every hold is released, every node resumed
    /// and every window dropped.
    pub(crate) fn farewell(
        &mut self,
        held: impl Iterator<Item = JobId>,
        closed: impl Iterator<Item = String>,
        planned: impl Iterator<Item = String>,
    ) -> Vec<(u64, Event)> {
        let jobs = held.map(|job| Action::Release { job, indices: None });
        let nodes = closed.map(|node| Action::Resume { node });
        let windows = planned.map(|node| Action::DropWindows { node });
        jobs.chain(nodes).chain(windows).map(|action| self.operate(action)).collect()
    }

    /// An operator does something: its number and what is asked.
    pub(crate) fn operate(&mut self, action: Action) -> (u64, Event) {
        self.asked += 1;
        let (request, user) = (self.asked, "operator".to_owned());
        let event = Event::Act { request, user, action };
        self.pending.insert(request, event.clone());
        (request, event)
    }
}
