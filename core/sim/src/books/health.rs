//! What is known to be wrong with nodes and GPUs, and the rules that follow: no work where it is, a
//! test only where nothing runs, and work again only after a test that has found nothing, the end of
//! the trouble or a person.
//!
//! The books hold as sick only what must be: where the cluster is stricter, as with a trouble that
//! comes back again and again, that is its own affair.

use gantry_cluster::{Cluster, Event};
use gantry_model::health::{Back, Finding, Measure, Policy, Sign, Stage, Work};
use gantry_model::{Launch, NodeRow};

use super::{Books, Lease, Place};
use crate::server::number;
use crate::trace::name;

/// Something that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Sick {
    finding: Finding,
    policy: Policy,
    /// The test that decides.
    test: Option<u64>,
}

impl Sick {
    /// Whether a lease is where it is.
    fn is_at(&self, gpus: &[String]) -> bool {
        match self.policy.measure {
            Measure::Note => false,
            Measure::Gpu => self.finding.gpu.as_ref().is_some_and(|gpu| gpus.contains(gpu)),
            Measure::Node => true,
        }
    }
}

impl Books {
    /// What an event says of what is wrong.
    pub(super) fn hear_of_health(&mut self, event: &Event) {
        match event {
            Event::Found { node, finding } => self.found(number(node), finding),
            Event::Tested { node, number: test, wrong: None } => {
                let here = &mut self.place(number(node)).sick;
                let before = here.len();
                here.retain(|sick| sick.test != Some(*test));
                let passed = before - here.len();
                self.counts.readmitted += passed as u32;
            }
            // A test that was under way when the node left is ordered anew.
            Event::NodeUp { facts, .. } => {
                self.place(number(&facts.name)).sick.iter_mut().for_each(|sick| sick.test = None);
            }
            _ => {}
        }
    }

    fn found(&mut self, server: usize, finding: &Finding) {
        let policy = self.settings.policy(finding.trouble);
        if !self.places.contains_key(&server) || policy.measure == Measure::Note {
            return;
        }
        let here = &mut self.place(server).sick;
        let same = |sick: &Sick| {
            sick.finding.trouble == finding.trouble && sick.finding.gpu == finding.gpu
        };
        let known = here.iter().position(same);
        match (finding.sign, known) {
            (Sign::Over, Some(place)) if here[place].policy.back == Back::Over => {
                here.remove(place);
            }
            (Sign::Over, _) => {}
            // What is seen while it is tested is a person's.
            (_, Some(place)) => here[place].test = None,
            (_, None) => {
                here.push(Sick { finding: finding.clone(), policy, test: None });
                self.counts.sick += 1;
            }
        }
    }

    /// A test is ordered: nothing runs there, and something is wrong there. Which of several troubles
    /// it is about is the cluster's to say.
    pub(super) fn check_test(
        &mut self,
        server: usize,
        test: u64,
        cluster: &Cluster,
    ) -> Result<(), String> {
        self.counts.tests += 1;
        let rows = cluster.nodes().into_iter().filter(|row| number(&row.facts.name) == server);
        let about = rows
            .flat_map(|row| row.ailments)
            .find(|one| one.stage == Stage::Testing { number: test });
        let place = self.places.entry(server).or_default();
        let same = |sick: &&mut Sick| {
            about.as_ref().is_some_and(|about| {
                sick.finding.trouble == about.trouble && sick.finding.gpu == about.gpu
            })
        };
        let Some(sick) = place.sick.iter_mut().find(same) else {
            return Err(format!("{} is tested and nothing is wrong with it", name(server)));
        };
        sick.test = Some(test);
        let sick = sick.clone();
        match self.on(server).find(|lease| sick.is_at(&lease.gpus)) {
            None => Ok(()),
            Some(lease) => Err(format!("{} is tested while {} is there", name(server), lease.task)),
        }
    }

    /// Whether a stop follows from what an event has found.
    pub(super) fn is_moved(&self, lease: &Lease, event: &Event) -> bool {
        let Event::Found { node, finding } = event else { return false };
        let policy = self.settings.policy(finding.trouble);
        let there = |lease: &Lease| {
            let sick = Sick { finding: finding.clone(), policy, test: None };
            lease.server == number(node) && policy.work == Work::Move && sick.is_at(&lease.gpus)
        };
        let gang = self.jobs.get(&lease.task.job).filter(|entry| entry.spec.gang.is_some());
        let ranks = gang.into_iter().flat_map(|entry| entry.live.values());
        let mut ranks = ranks.filter_map(|try_id| self.leases.get(try_id));
        there(lease) || ranks.any(there)
    }
}

impl Place {
    /// What is sick to the books is so to the cluster.
    pub(super) fn agrees_on_health(&self, row: &NodeRow) -> Result<(), String> {
        let lost = self.sick.iter().find(|sick| {
            let Finding { trouble, gpu, .. } = &sick.finding;
            !row.ailments.iter().any(|one| one.trouble == *trouble && one.gpu == *gpu)
        });
        match lost {
            None => Ok(()),
            Some(sick) => Err(format!(
                "{} gets work again after {:?}, and no test has found it well",
                row.facts.name, sick.finding
            )),
        }
    }

    /// Whether a try may be given these devices of it.
    pub(super) fn is_fit_for(&self, server: usize, launch: &Launch) -> Result<(), String> {
        let uuids = self.uuids(&launch.lease.gpus);
        match self.sick.iter().find(|sick| sick.is_at(&uuids)) {
            None => Ok(()),
            Some(sick) => Err(format!(
                "{} is launched on {} with {uuids:?}, where something is wrong: {:?}",
                launch.task,
                name(server),
                sick.finding
            )),
        }
    }
}

/// Nodes that wait for a person.
pub(crate) fn waits_for_a_person(cluster: &Cluster) -> impl Iterator<Item = String> {
    let waits = |row: &NodeRow| row.ailments.iter().any(|one| one.stage == Stage::Person);
    cluster.nodes().into_iter().filter(waits).map(|row| row.facts.name)
}
