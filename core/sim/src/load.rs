//! The users of a simulated cluster: what they submit, and how they change their minds.
//!
//! A user who gets no answer asks again with the same key, as the commands do. The work of a task
//! is a command whose last argument says how long it takes; `broken` in it fails whenever it runs.

use std::collections::{BTreeMap, BTreeSet};

use gantry_cluster::Event;
use gantry_model::{
    Action, Array, Dependency, DependencyKind, DependencyScope, Gang, GpuDemand, GpuPart, IndexSet,
    JobChange, JobId, JobSpec, MemoryMib, Millis, Preemption, Resources, Sharing, Warning, Work,
};

use crate::random::Random;
use crate::trace::name;

const USERS: [&str; 5] = ["ada", "grace", "marie", "rosalind", "wilhelm"];
/// Users look again at no more of their jobs than these, the newest.
const OPEN_MAX: usize = 200;

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

    /// The next thing a user does: its number and what is asked.
    pub(crate) fn act(&mut self) -> (u64, Event) {
        self.asked += 1;
        let request = self.asked;
        let user = (*self.random.pick(&USERS)).to_owned();
        let kind = self.random.below(100);
        let event = if kind < 75 || self.open.is_empty() {
            let (key, spec) = (format!("k{request}"), Box::new(self.job()));
            Event::Submit { request, user, key, spec }
        } else if kind < 81 {
            let job = *self.random.pick(&self.open);
            let indices = self.random.chance(400).then(|| IndexSet::first(2));
            Event::Cancel { request, user, job, indices }
        } else {
            let action = self.action(kind);
            Event::Act { request, user, action }
        };
        self.pending.insert(request, event.clone());
        (request, event)
    }

    fn action(&mut self, kind: u64) -> Action {
        let job = *self.random.pick(&self.open);
        match kind {
            81..=84 => {
                self.held.insert(job);
                Action::Hold { job }
            }
            85..=88 => {
                let job = self.held.pop_first().unwrap_or(job);
                Action::Release { job }
            }
            89..=91 => Action::Requeue { job, indices: None },
            92..=94 => {
                let priority = Some(self.random.between(0, 20) as i32 - 10);
                let at_once_max = self.random.chance(300).then(|| self.random.between(2, 8) as u32);
                Action::Change {
                    job,
                    change: JobChange { priority, at_once_max, ..JobChange::default() },
                }
            }
            95..=96 => {
                let server = self.random.below(self.servers as u64) as usize;
                self.drained.insert(server);
                Action::Drain { node: name(server), reason: "a fan is loud".into(), deadline: None }
            }
            _ => {
                let any = self.random.below(self.servers as u64) as usize;
                let server = self.drained.pop_first().unwrap_or(any);
                Action::Resume { node: name(server) }
            }
        }
    }

    /// What users and operators do before they go home: every hold is released and every node
    /// resumed.
    pub(crate) fn farewell(
        &mut self,
        held: impl Iterator<Item = JobId>,
        closed: impl Iterator<Item = String>,
    ) -> Vec<(u64, Event)> {
        let jobs = held.map(|job| Action::Release { job });
        let nodes = closed.map(|node| Action::Resume { node });
        jobs.chain(nodes).map(|action| self.operate(action)).collect()
    }

    /// An operator does something: its number and what is asked.
    pub(crate) fn operate(&mut self, action: Action) -> (u64, Event) {
        self.asked += 1;
        let (request, user) = (self.asked, "operator".to_owned());
        let event = Event::Act { request, user, action };
        self.pending.insert(request, event.clone());
        (request, event)
    }

    fn job(&mut self) -> JobSpec {
        let kind = self.random.below(10);
        let random = &mut self.random;
        let takes = random.duration(Millis::from_seconds(2), Millis::from_seconds(900));
        let word = *random.pick(&["segment", "train", "register", "convert", "predict"]);
        let broken = if random.chance(20) { "broken" } else { "sound" };
        let arguments = [word, broken, &takes.to_string()].map(str::to_owned).to_vec();
        let mut spec = JobSpec::new(word, Work::Command { arguments, folder: None });
        spec.retries = random.between(0, 3) as u8;
        spec.priority = random.between(0, 4) as i32 - 2;
        spec.estimate = random.chance(500).then_some(takes);
        if random.chance(300) {
            let limit = Millis(takes.0 + takes.0 / random.between(1, 8));
            spec.time_limit = Some(limit);
            let before = Millis(limit.0 / 4);
            spec.warning = random.chance(300).then_some(Warning { signal: 10, before });
        }
        if random.chance(100) {
            spec.preemption = Preemption::Requeue;
        }
        let cores = random.between(1, 8) as u32;
        let memory = MemoryMib(random.between(1, 16) * 1024);
        spec.resources = Resources { cores, memory, ..Resources::default() };
        match kind {
            0..=1 => {}
            2..=5 => array(&mut spec, random),
            6..=7 => gpus(&mut spec, random),
            8 => gang(&mut spec, random),
            _ => {
                array(&mut spec, random);
                after(&mut spec, random, &self.open);
            }
        }
        spec
    }
}

fn array(spec: &mut JobSpec, random: &mut Random) {
    let count = random.between(2, 60) as u32;
    let at_once_max = random.chance(300).then(|| random.between(2, 8) as u32);
    spec.array = Some(Array { indices: IndexSet::first(count), at_once_max });
    if random.chance(30) {
        spec.array = Some(Array { indices: IndexSet::first(3), at_once_max });
        spec.sharing = Sharing::Exclusive;
    }
}

fn gpus(spec: &mut JobSpec, random: &mut Random) {
    spec.resources.gpus = *random.pick(&[1, 1, 1, 2, 4]);
    if spec.resources.gpus == 1 && random.chance(300) {
        let part = GpuPart::Share(*random.pick(&[250, 500]));
        spec.gpu = GpuDemand { part, ..GpuDemand::default() };
    }
    if random.chance(300) {
        let indices = IndexSet::first(random.between(2, 8) as u32);
        spec.array = Some(Array { indices, at_once_max: None });
    }
}

fn gang(spec: &mut JobSpec, random: &mut Random) {
    let ranks = *random.pick(&[2, 2, 4, 8]);
    let nodes = random.chance(300).then_some(2);
    spec.gang = Some(Gang { ranks, nodes });
    spec.resources.gpus = *random.pick(&[0, 1, 1, 2]);
    spec.resources.cores = spec.resources.cores.min(4);
}

fn after(spec: &mut JobSpec, random: &mut Random, open: &[JobId]) {
    for _ in 0..random.between(1, 2) {
        if open.is_empty() {
            return;
        }
        let kinds =
            [DependencyKind::Ok, DependencyKind::Ok, DependencyKind::Any, DependencyKind::Fail];
        let kind = *random.pick(&kinds);
        let scope =
            if random.chance(250) { DependencyScope::Element } else { DependencyScope::Job };
        spec.after.push(Dependency { job: *random.pick(open), kind, scope });
    }
}
