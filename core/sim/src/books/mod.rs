//! The books: what the cluster has promised, kept from the events it took and the effects it gave.
//!
//! They know nothing of how the cluster decides. From the outside alone they follow every job, lease
//! and node, and say so when an order breaks a rule: a launch on a node that is closed, beyond a
//! limit, of a job that is held or before what it comes after; a stop that nothing asks for. The
//! journal keeps them beside its snapshot, so that they follow a scheduler over its crashes.

pub(crate) mod health;
mod jobs;
mod launch;
mod nodes;
mod stop;

use std::collections::{BTreeMap, BTreeSet};

use gantry_cluster::{Answer, Cluster, ClusterSettings, Effect, Event, TryEnd};
use gantry_model::{At, Exit, JobId, Note, Order, Report, Resources, Subject, TaskId, TryId};

pub(crate) use jobs::{Entry, Over};
pub(crate) use nodes::Place;

use crate::server::number;

/// What a try holds, from its launch until its end is heard or its node is given up.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) server: usize,
    pub(crate) task: TaskId,
    amounts: Resources,
    /// Devices, by their uuid.
    gpus: Vec<String>,
    permille: u16,
    group: String,
    /// Whether it was told to stop.
    told: bool,
    /// The port at which its gang meets, where it is the rank at which the others do.
    port: Option<u16>,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) preempted: u32,
    pub(crate) reclaimed: u32,
    pub(crate) quarantined: u32,
    pub(crate) cleared: u32,
    pub(crate) reloads: u32,
    pub(crate) ahead: u32,
    pub(crate) handed_on: u32,
    pub(crate) recalled: u32,
    pub(crate) sick: u32,
    pub(crate) tests: u32,
    pub(crate) readmitted: u32,
    pub(crate) forgotten: u32,
}

/// The books.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    settings: ClusterSettings,
    pub(crate) jobs: BTreeMap<JobId, Entry>,
    ended: BTreeMap<JobId, Over>,
    pub(crate) places: BTreeMap<usize, Place>,
    leases: BTreeMap<TryId, Lease>,
    /// What waits on a server for a lease.
    ahead: BTreeMap<TryId, (usize, gantry_model::Launch)>,
    /// Tries that had a lease handed on and of which the end was heard first.
    early: BTreeSet<TryId>,
    /// What each group holds.
    held: BTreeMap<String, Resources>,
    licences: BTreeMap<String, u32>,
    /// Tries whose node was called lost.
    pub(crate) lost: BTreeSet<TryId>,
    /// Gangs of which a rank fell in the event that is looked at, and tries that ended by it.
    fallen: BTreeSet<JobId>,
    just_gone: BTreeSet<TryId>,
    /// Tries that were given the lease of one that was told to stop in it.
    too_late: BTreeSet<TryId>,
    /// What was taken back from each group in it.
    reclaimed: BTreeMap<String, BTreeMap<TaskId, Resources>>,
    /// Jobs that were said to make room in it, and for which other.
    room_for: BTreeMap<JobId, JobId>,
    newest: TryId,
    pub(crate) counts: Counts,
}

impl Books {
    pub(crate) fn new(settings: ClusterSettings) -> Self {
        Self {
            settings,
            jobs: BTreeMap::new(),
            ended: BTreeMap::new(),
            places: BTreeMap::new(),
            leases: BTreeMap::new(),
            ahead: BTreeMap::new(),
            early: BTreeSet::new(),
            held: BTreeMap::new(),
            licences: BTreeMap::new(),
            lost: BTreeSet::new(),
            fallen: BTreeSet::new(),
            just_gone: BTreeSet::new(),
            too_late: BTreeSet::new(),
            room_for: BTreeMap::new(),
            reclaimed: BTreeMap::new(),
            newest: TryId(0),
            counts: Counts::default(),
        }
    }

    /// Takes one event, the effects that it had, and the cluster after it.
    pub(crate) fn take(
        &mut self,
        at: At,
        event: &Event,
        effects: &[Effect],
        cluster: &Cluster,
    ) -> Result<(), String> {
        self.fallen.clear();
        self.just_gone.clear();
        self.too_late.clear();
        self.room_for.clear();
        self.reclaimed.clear();
        self.hear(event, cluster)?;
        self.hear_of_health(event);
        // What a person was granted comes before what follows from it.
        for effect in effects {
            if let Effect::Reply { answer: Ok(answer), .. } = effect {
                self.granted(event, *answer)?;
            }
        }
        self.check_ends(at, effects)?;
        let mut launched: BTreeMap<JobId, Vec<&gantry_model::Launch>> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Order { node, order: Order::Launch(launch) } => {
                    self.check_launch(at, number(node), launch, cluster)?;
                    self.lease(number(node), launch);
                    launched.entry(launch.task.job).or_default().push(launch);
                }
                Effect::Order { node, order: Order::Ahead(launch) } => {
                    self.check_ahead(at, number(node), launch, cluster)?;
                    self.newest = self.newest.max(launch.try_id);
                    self.ahead.insert(launch.try_id, (number(node), (**launch).clone()));
                    self.counts.ahead += 1;
                }
                Effect::Order { node, order: Order::Recall { try_id } } => {
                    let waits = self.ahead.get(try_id).is_some_and(|(at, _)| *at == number(node));
                    if !waits {
                        return Err(format!("{try_id} is called back and does not wait on {node}"));
                    }
                    self.counts.recalled += 1;
                }
                Effect::Order { node, order: Order::Stop { try_id } } => {
                    self.check_stop(at, number(node), *try_id, event)?;
                }
                Effect::Order { node, order: Order::Test { number: test, .. } } => {
                    self.check_test(number(node), *test, cluster)?;
                }
                Effect::JobEnded(row) => self.job_ended(row)?,
                Effect::Note(note) => self.read(note),
                _ => {}
            }
        }
        for (job, launches) in launched {
            self.check_together(job, &launches)?;
        }
        self.check_reclaimed()?;
        self.check_cleared(at, event)
    }

    /// What an event says by itself, before the cluster decides anything.
    fn hear(&mut self, event: &Event, cluster: &Cluster) -> Result<(), String> {
        match event {
            Event::Settings(settings) => {
                self.counts.reloads += u32::from(self.settings != **settings);
                self.settings = (**settings).clone();
            }
            Event::NodeUp { facts, holds } => {
                self.keep_only(number(&facts.name), holds);
                self.place(number(&facts.name)).come((**facts).clone());
            }
            Event::NodeDown { node } => self.place(number(node)).go(),
            Event::NodeGone { node, holds } => {
                self.place(number(node)).go();
                self.keep_only(number(node), holds);
            }
            Event::Report { node, report: Report::Ended { try_id, exit, heir, .. } } => {
                let server = number(node);
                let lease = self.leases.get(try_id).filter(|lease| lease.server == server);
                if let Some(told) = lease.map(|lease| lease.told) {
                    self.release(*try_id, exit);
                    if let Some(heir) = heir.filter(|heir| !self.early.remove(heir)) {
                        self.hand_on(server, *try_id, heir)?;
                        self.too_late.extend(told.then_some(heir));
                    }
                } else if self.ahead.get(try_id).is_some_and(|(at, _)| *at == server) {
                    // Ends that are told again are told by number: its own comes before that of
                    // whose lease it had.
                    self.hand_on(server, *try_id, *try_id)?;
                    self.release(*try_id, exit);
                    self.early.insert(*try_id);
                }
            }
            Event::Report { report: Report::Returned { try_id }, .. } => {
                self.ahead.remove(try_id);
            }
            Event::Tick if self.places.values().any(Place::is_away) => self.give_up(cluster),
            _ => {}
        }
        Ok(())
    }

    /// Each try that this event has ended is told once, with times in their order.
    fn check_ends(&self, at: At, effects: &[Effect]) -> Result<(), String> {
        let mut told = BTreeSet::new();
        for effect in effects {
            let Effect::TryEnded(end) = effect else { continue };
            let TryEnd { try_id, submitted, placed, began, .. } = **end;
            let began = began.unwrap_or(placed);
            if !told.insert(try_id) {
                return Err(format!("the end of {try_id} is told twice"));
            }
            if !(submitted <= placed && placed <= began && began <= at) {
                return Err(format!("the times of {try_id} are out of order: {end:?}"));
            }
        }
        if told == self.just_gone {
            return Ok(());
        }
        Err(format!("ends of {told:?} are told, and {:?} have ended", self.just_gone))
    }

    /// Takes back what a server should hold and does not.
    fn keep_only(&mut self, server: usize, holds: &[TryId]) {
        let here = self.leases.iter().filter(|(_, lease)| lease.server == server);
        let missing = here.filter(|(try_id, _)| !holds.contains(try_id));
        let missing: Vec<TryId> = missing.map(|(try_id, _)| *try_id).collect();
        for try_id in missing {
            self.release(try_id, &Exit::NodeLost);
        }
        self.ahead.retain(|try_id, (at, _)| *at != server || holds.contains(try_id));
    }

    /// A server has given the lease of a try that ended to one that waited there for it.
    fn hand_on(&mut self, server: usize, ended: TryId, heir: TryId) -> Result<(), String> {
        let Some((_, launch)) = self.ahead.remove(&heir).filter(|(at, _)| *at == server) else {
            return Err(format!("{heir} gets the lease of {ended} and did not wait for it"));
        };
        self.counts.handed_on += 1;
        self.lease(server, &launch);
        if let Some(entry) = self.jobs.get_mut(&launch.task.job) {
            // A hold that came too late.
            entry.parked.remove(&launch.task.index);
        }
        Ok(())
    }

    /// What the event log says of decisions that are the cluster's own.
    fn read(&mut self, note: &Note) {
        match &note.subject {
            Subject::Node(node) if note.sentence.starts_with("quarantined:") => {
                self.counts.quarantined += 1;
                self.place(number(node)).quarantine();
            }
            Subject::Task(task) => {
                let room = note.sentence.strip_prefix("stopped to make room for ");
                let other = room.and_then(|rest| rest.split(';').next()?.parse().ok());
                self.room_for.extend(other.map(|other| (task.job, other)));
            }
            _ => {}
        }
    }

    /// Takes back what nodes hold that are called lost.
    fn give_up(&mut self, cluster: &Cluster) {
        for row in cluster.nodes() {
            let server = number(&row.facts.name);
            if row.state != gantry_model::NodeState::Lost || !self.place(server).lose() {
                continue;
            }
            let here = self.leases.iter().filter(|(_, lease)| lease.server == server);
            let here: Vec<TryId> = here.map(|(try_id, _)| *try_id).collect();
            let waits = self.ahead.iter().filter(|(_, (at, _))| *at == server);
            self.lost.extend(waits.map(|(try_id, _)| *try_id));
            self.ahead.retain(|_, (at, _)| *at != server);
            for try_id in here {
                self.lost.insert(try_id);
                self.release(try_id, &Exit::NodeLost);
            }
        }
    }

    /// A request was granted.
    fn granted(&mut self, event: &Event, answer: Answer) -> Result<(), String> {
        match event {
            Event::Submit { user, spec, .. } => {
                if let Answer::Submitted(job) = answer {
                    self.enter(job, user, spec);
                }
                Ok(())
            }
            Event::Cancel { job, indices, .. } => {
                if let Some(entry) = self.jobs.get_mut(job) {
                    entry.cancel(indices.as_ref());
                }
                Ok(())
            }
            Event::Act { action, .. } => self.acted(action),
            _ => Ok(()),
        }
    }

    pub(crate) fn place(&mut self, server: usize) -> &mut Place {
        self.places.entry(server).or_default()
    }

    /// A try gets what it was launched with.
    fn lease(&mut self, server: usize, launch: &gantry_model::Launch) {
        let (task, try_id) = (launch.task, launch.try_id);
        self.newest = self.newest.max(try_id);
        let Some(entry) = self.jobs.get_mut(&task.job) else { return };
        entry.live.insert(task.index, try_id);
        *entry.starts.entry(task.index).or_default() += 1;
        let amounts = launch.lease.resources;
        let held = self.held.entry(entry.group.clone()).or_default();
        *held = held.plus(&amounts);
        for (name, count) in &entry.spec.licences {
            *self.licences.entry(name.clone()).or_default() += count;
        }
        let meets = entry.spec.gang.is_some() && task.index == 0;
        let port = launch.environment.get("MASTER_PORT").filter(|_| meets);
        let lease = Lease {
            server,
            task,
            amounts,
            gpus: self
                .places
                .get(&server)
                .map(|place| place.uuids(&launch.lease.gpus))
                .unwrap_or_default(),
            permille: launch.lease.gpu_permille,
            group: entry.group.clone(),
            told: false,
            port: port.and_then(|port| port.parse().ok()),
        };
        self.leases.insert(try_id, lease);
    }

    /// A try has ended, or is given up.
    fn release(&mut self, try_id: TryId, exit: &Exit) {
        let Some(lease) = self.leases.remove(&try_id) else { return };
        self.just_gone.insert(try_id);
        if let Some(held) = self.held.get_mut(&lease.group) {
            *held = held.minus(&lease.amounts);
        }
        let Some(entry) = self.jobs.get_mut(&lease.task.job) else { return };
        for (name, count) in &entry.spec.licences {
            if let Some(held) = self.licences.get_mut(name) {
                *held -= count;
            }
        }
        entry.live.remove(&lease.task.index);
        if entry.ends(lease.task.index, exit, lease.told) {
            self.fallen.insert(lease.task.job);
        }
    }

    /// The tries of a server.
    pub(crate) fn tries_on(&self, server: usize) -> impl Iterator<Item = TryId> + '_ {
        let here = self.leases.iter().filter(move |(_, lease)| lease.server == server);
        here.map(|(try_id, _)| *try_id)
    }

    /// The leases of a server.
    fn on(&self, server: usize) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(move |lease| lease.server == server)
    }
}
