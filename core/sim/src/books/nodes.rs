//! What is known of a node: what its agent said last, and whether it may be given work.

use std::collections::BTreeSet;

use gantry_cluster::{Cluster, Event};
use gantry_model::{Action, At, NodeFacts, NodeRow, Service, Window};

use super::Books;
use super::health::Sick;
use crate::server::number;
use crate::trace::name;

/// Where a node's connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Up,
    Down,
    Lost,
}

/// Whether a node is given work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Door {
    #[default]
    Open,
    Drained {
        deadline: Option<At>,
    },
    Quarantined,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) facts: NodeFacts,
    link: Link,
    pub(crate) door: Door,
    pub(crate) windows: Vec<Window>,
    /// What is wrong with it.
    pub(super) sick: Vec<Sick>,
}

impl Place {
    pub(super) fn come(&mut self, facts: NodeFacts) {
        self.facts = facts;
        self.link = Link::Up;
    }

    pub(super) fn go(&mut self) {
        if self.link == Link::Up {
            self.link = Link::Down;
        }
    }

    /// It is called lost; says whether it was not before.
    pub(super) fn lose(&mut self) -> bool {
        std::mem::replace(&mut self.link, Link::Lost) != Link::Lost
    }

    pub(super) fn is_away(&self) -> bool {
        self.link == Link::Down
    }

    pub(super) fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    pub(super) fn drain(&mut self, deadline: Option<At>) {
        self.door = Door::Drained { deadline };
    }

    pub(super) fn quarantine(&mut self) {
        self.door = Door::Quarantined;
    }

    pub(super) fn resume(&mut self) {
        self.door = Door::Open;
        self.sick.clear();
    }

    pub(super) fn forget(&mut self) {
        self.resume();
        self.windows.clear();
    }

    /// The devices at these indices, as its agent said last.
    pub(super) fn uuids(&self, indices: &[u16]) -> Vec<String> {
        let known = indices.iter().filter_map(|index| self.facts.gpus.get(usize::from(*index)));
        known.map(|gpu| gpu.uuid.clone()).collect()
    }

    /// Whether nothing may run on it any more.
    pub(super) fn is_cleared(&self, at: At) -> bool {
        let past =
            matches!(self.door, Door::Drained { deadline: Some(deadline) } if deadline <= at);
        past || self.windows.iter().any(|window| window.from <= at && window.until > at)
    }

    /// Whether a row of the cluster says the same.
    fn is_as(&self, row: &NodeRow) -> bool {
        match row.service {
            Service::Open => self.door == Door::Open,
            Service::Drain { .. } => matches!(self.door, Door::Drained { .. }),
            Service::Quarantine { .. } => self.door == Door::Quarantined,
        }
    }
}

impl Books {
    /// What runs where nothing may run any more was told to stop.
    pub(super) fn check_cleared(&mut self, at: At, event: &Event) -> Result<(), String> {
        let looked = matches!(
            event,
            Event::Tick
                | Event::Act { action: Action::Drain { .. } | Action::AddWindow { .. }, .. }
        );
        if !looked {
            return Ok(());
        }
        for place in self.places.values_mut() {
            place.windows.retain(|window| window.until > at);
        }
        let cleared = self.places.iter().filter(|(_, place)| place.is_cleared(at));
        let cleared: BTreeSet<usize> = cleared.map(|(server, _)| *server).collect();
        if cleared.is_empty() {
            return Ok(());
        }
        let stays = |lease: &&super::Lease| cleared.contains(&lease.server) && !lease.told;
        match self.leases.values().find(stays) {
            None => Ok(()),
            Some(lease) => Err(format!(
                "{} goes on on {}, where nothing may run any more",
                lease.task,
                name(lease.server)
            )),
        }
    }

    /// Whether the cluster's rows say what the books do.
    pub(crate) fn agree(&self, cluster: &Cluster) -> Result<(), String> {
        for row in cluster.nodes() {
            let Some(place) = self.places.get(&number(&row.facts.name)) else { continue };
            if !place.is_as(&row) {
                let (node, word) = (&row.facts.name, row.service.word());
                return Err(format!("{node} counts as {word} and is {:?}", place.door));
            }
            place.agrees_on_health(&row)?;
            let here = self.on(number(&row.facts.name)).count();
            if here != row.tasks as usize {
                let (node, tasks) = (&row.facts.name, row.tasks);
                return Err(format!("{node} counts {tasks} tasks and has the leases of {here}"));
            }
        }
        for (job, entry) in &self.jobs {
            let Some(row) = cluster.job(*job) else { return Err(format!("{job} is forgotten")) };
            if row.held != entry.held || row.priority != entry.spec.priority {
                return Err(format!("{job} is held: {}, of priority {}", row.held, row.priority));
            }
        }
        Ok(())
    }
}
