//! Troubles of nodes and GPUs: what is done about each, and how both get work again.
//!
//! What was found comes as an event, with the numbers; the settings have a policy for each kind of
//! trouble. A marked GPU, or a node that is unfit, gets no new work; what runs there stays or is
//! moved. Work is given again once the trouble is over, once a test of the agent finds nothing, or
//! once a person says so. A trouble that comes back [`RELAPSES_MAX`] times within [`RELAPSE_WITHIN`]
//! is a person's to look at whatever its policy says, so that no GPU goes in and out for ever.

use gantry_model::health::{Ailment, Back, Finding, Measure, Policy, Sign, Stage, Trouble, Work};
use gantry_model::{At, Level, Millis, NodeId, NodeState, Order, Subject, TaskId, things};
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::node::Node;

/// Troubles that are kept of one node: each GPU may have each.
const AILMENTS_MAX: usize = 1024;
const RELAPSES_MAX: usize = 3;
const RELAPSE_WITHIN: Millis = Millis::from_seconds(86_400);
/// A test that says nothing is given up after this time.
pub(crate) const TEST_MAX: Millis = Millis::from_seconds(120);

/// A trouble that was over, for the count of how often it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Relapse {
    trouble: Trouble,
    gpu: Option<String>,
    at: At,
}

impl Cluster {
    /// Something was found on a node.
    pub(crate) fn found(
        &mut self,
        at: At,
        name: &str,
        finding: Finding,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = self.names.get(name).copied() else { return };
        let known = self.node(id).ailment(finding.trouble, finding.gpu.as_deref());
        match (finding.sign, known) {
            (Sign::Over, None) => {}
            (Sign::Over, Some(place)) => self.is_over(at, id, place, effects),
            (_, None) => self.falls_ill(at, id, finding, effects),
            (_, Some(place)) => self.goes_on(at, id, place, finding, effects),
        }
    }

    /// A node could not be made ready for a task.
    pub(crate) fn not_ready(
        &mut self,
        at: At,
        id: NodeId,
        detail: String,
        effects: &mut Vec<Effect>,
    ) {
        let name = self.node(id).name().to_owned();
        let (trouble, sign) = (Trouble::NotReady, Sign::Seen);
        self.found(at, &name, Finding { trouble, sign, gpu: None, detail }, effects);
    }

    fn falls_ill(&mut self, at: At, id: NodeId, finding: Finding, effects: &mut Vec<Effect>) {
        let Finding { trouble, sign, gpu, detail } = finding;
        let policy = self.settings.policy(trouble);
        let node = self.node_mut(id);
        let name = node.name().to_owned();
        let place = gpu.as_ref().map_or(String::new(), |gpu| format!(" on {gpu}"));
        if policy.measure == Measure::Note {
            let level = if trouble == Trouble::XidUser { Level::Info } else { Level::Warn };
            let sentence = format!("{detail}{place} ({trouble})");
            effects.push(note(at, level, Subject::Node(name.clone()), sentence));
            // What goes on is kept, so that its end is told as well.
            if sign == Sign::Seen {
                return;
            }
        }
        if node.ailments.len() >= AILMENTS_MAX {
            return;
        }
        node.relapses.retain(|relapse| at.since(relapse.at) <= RELAPSE_WITHIN);
        let same = |relapse: &&Relapse| relapse.trouble == trouble && relapse.gpu == gpu;
        let often = node.relapses.iter().filter(same).count() >= RELAPSES_MAX;
        let back = match (often, sign, policy.back) {
            (true, ..) => Back::Person,
            // What has no end of its own is tested instead.
            (false, Sign::Seen, Back::Over) => Back::Test,
            (false, _, back) => back,
        };
        let policy = Policy { back, ..policy };
        let stage = match (sign, back) {
            (_, Back::Person) => Stage::Person,
            (Sign::Seen, _) => Stage::Emptying,
            _ => Stage::Active,
        };
        let ailment =
            Ailment { trouble, gpu: gpu.clone(), detail: detail.clone(), since: at, policy, stage };
        node.ailments.push(ailment);
        node.mark();
        self.has_changed(id);
        if policy.measure != Measure::Note {
            self.recall_node(id, effects);
        }
        let moved = if policy.work == Work::Move && policy.measure != Measure::Note {
            self.move_work(at, id, policy.measure, gpu.as_deref(), effects)
        } else {
            0
        };
        if policy.measure != Measure::Note {
            let sentence = said(&detail, &place, trouble, policy, moved, often);
            effects.push(note(at, Level::Fail, Subject::Node(name), sentence));
        }
        self.test_when_empty(at, id, effects);
    }

    /// A trouble that is known already was seen again.
    fn goes_on(
        &mut self,
        at: At,
        id: NodeId,
        place: usize,
        finding: Finding,
        effects: &mut Vec<Effect>,
    ) {
        let node = self.node_mut(id);
        let name = node.name().to_owned();
        let ailment = &mut node.ailments[place];
        let testing = matches!(ailment.stage, Stage::Testing { .. });
        if ailment.detail == finding.detail && !testing {
            return;
        }
        ailment.detail = finding.detail;
        if testing {
            ailment.stage = Stage::Person;
            let sentence = format!(
                "{} again while it was tested ({}); gantry resume {name} once it is mended",
                ailment.detail, ailment.trouble
            );
            effects.push(note(at, Level::Fail, Subject::Node(name), sentence));
        } else {
            if finding.sign == Sign::Begun && ailment.stage == Stage::Emptying {
                ailment.stage = Stage::Active;
            }
            let sentence = format!("{} as well ({})", ailment.detail, ailment.trouble);
            effects.push(note(at, Level::Warn, Subject::Node(name), sentence));
        }
        node.mark();
    }

    fn is_over(&mut self, at: At, id: NodeId, place: usize, effects: &mut Vec<Effect>) {
        let ailment = &mut self.node_mut(id).ailments[place];
        match ailment.policy.back {
            _ if ailment.stage != Stage::Active => {}
            Back::Over => self.recovers(at, id, place, "is over", effects),
            Back::Test => {
                ailment.stage = Stage::Emptying;
                self.test_when_empty(at, id, effects);
            }
            Back::Person => ailment.stage = Stage::Person,
        }
    }

    fn recovers(&mut self, at: At, id: NodeId, place: usize, how: &str, effects: &mut Vec<Effect>) {
        let node = self.node_mut(id);
        let Ailment { trouble, gpu, policy, .. } = node.ailments.remove(place);
        let on = gpu.as_ref().map_or(String::new(), |gpu| format!(" on {gpu}"));
        if policy.measure != Measure::Note {
            node.relapses.push(Relapse { trouble, gpu, at });
            let extra = node.relapses.len().saturating_sub(AILMENTS_MAX);
            node.relapses.drain(..extra);
        }
        node.mark();
        let name = node.name().to_owned();
        let again = if policy.measure == Measure::Note { "" } else { "; it gets work again" };
        let sentence = format!("{trouble}{on} {how}{again}");
        effects.push(note(at, Level::Note, Subject::Node(name), sentence));
        self.has_changed(id);
    }

    /// Stops what runs where the trouble is and lets it wait again; says how many tasks.
    fn move_work(
        &mut self,
        at: At,
        id: NodeId,
        measure: Measure,
        gpu: Option<&str>,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let node = self.node(id);
        let device = gpu.and_then(|gpu| node.device(gpu));
        let there = |lease: &gantry_model::Lease| {
            measure == Measure::Node || device.is_some_and(|device| lease.gpus.contains(&device))
        };
        let live = node.live.values().filter(|live| {
            there(&live.lease) || gpu.is_some_and(|gpu| live.gone.iter().any(|gone| gone == gpu))
        });
        let tasks: Vec<TaskId> = live.map(|live| live.task).collect();
        tasks.into_iter().map(|task| self.stop_to_wait(at, task, effects)).sum()
    }

    /// Begins the tests for which a node is empty enough.
    pub(crate) fn test_when_empty(&mut self, at: At, id: NodeId, effects: &mut Vec<Effect>) {
        let node = self.node(id);
        if node.state != NodeState::Up {
            return;
        }
        let name = node.name().to_owned();
        let empty = |ailment: &Ailment| match (&ailment.policy.measure, &ailment.gpu) {
            (Measure::Gpu, Some(gpu)) => {
                let device = node.device(gpu);
                !node.live.values().any(|live| {
                    device.is_some_and(|device| live.lease.gpus.contains(&device))
                        || live.gone.contains(gpu)
                })
            }
            _ => node.live.is_empty(),
        };
        let ready: Vec<usize> = (0..node.ailments.len())
            .filter(|place| {
                let ailment = &node.ailments[*place];
                ailment.stage == Stage::Emptying && empty(ailment)
            })
            .collect();
        if ready.is_empty() {
            return;
        }
        for place in ready {
            self.tests_made += 1;
            let number = self.tests_made;
            let ailment = &mut self.node_mut(id).ailments[place];
            ailment.stage = Stage::Testing { number };
            ailment.since = at;
            let order = Order::Test { number, gpu: ailment.gpu.clone() };
            effects.push(Effect::Order { node: name.clone(), order });
        }
        self.arm(at, id);
    }

    /// A test has ended; `wrong` says what it found.
    pub(crate) fn tested(
        &mut self,
        at: At,
        name: &str,
        number: u64,
        wrong: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = self.names.get(name).copied() else { return };
        let stage = Stage::Testing { number };
        let place = self.node(id).ailments.iter().position(|ailment| ailment.stage == stage);
        let Some(place) = place else { return };
        let Some(wrong) = wrong else {
            self.recovers(at, id, place, "is over, and its test found nothing", effects);
            return;
        };
        let ailment = &mut self.node_mut(id).ailments[place];
        ailment.stage = Stage::Person;
        let sentence = format!(
            "the test after {} failed: {wrong}; gantry resume {name} once it is mended",
            ailment.trouble
        );
        effects.push(note(at, Level::Fail, Subject::Node(name.to_owned()), sentence));
    }

    /// A node is back: what was tested when it left is tested anew.
    pub(crate) fn test_again(&mut self, at: At, id: NodeId, effects: &mut Vec<Effect>) {
        for ailment in &mut self.node_mut(id).ailments {
            if matches!(ailment.stage, Stage::Testing { .. }) {
                ailment.stage = Stage::Emptying;
            }
        }
        self.test_when_empty(at, id, effects);
    }

    /// Tests that say nothing are given up.
    pub(crate) fn give_up_tests(&mut self, at: At, id: NodeId, effects: &mut Vec<Effect>) {
        if self.node(id).state != NodeState::Up {
            return;
        }
        let late = |ailment: &Ailment| match ailment.stage {
            Stage::Testing { number } if ailment.since.after(TEST_MAX) <= at => Some(number),
            _ => None,
        };
        let numbers: Vec<u64> = self.node(id).ailments.iter().filter_map(late).collect();
        let name = self.node(id).name().to_owned();
        for number in numbers {
            let wrong = format!("it said nothing for {TEST_MAX}");
            self.tested(at, &name, number, Some(wrong), effects);
        }
    }
}

impl Node {
    fn ailment(&self, trouble: Trouble, gpu: Option<&str>) -> Option<usize> {
        let same = |ailment: &Ailment| ailment.trouble == trouble && ailment.gpu.as_deref() == gpu;
        self.ailments.iter().position(same)
    }

    fn device(&self, uuid: &str) -> Option<u16> {
        self.facts.gpus.iter().position(|gpu| gpu.uuid == uuid).map(|place| place as u16)
    }

    /// Why it gets no work, where a trouble of it says so.
    pub(crate) fn unfit(&self) -> Option<String> {
        let whole = |ailment: &&Ailment| ailment.policy.measure == Measure::Node;
        self.ailments
            .iter()
            .find(whole)
            .map(|ailment| format!("{} ({})", ailment.detail, ailment.trouble))
    }

    /// When the cluster has to look at its tests.
    pub(crate) fn test_ends(&self) -> Option<At> {
        let tests = self.ailments.iter().filter(|one| matches!(one.stage, Stage::Testing { .. }));
        tests.map(|ailment| ailment.since.after(TEST_MAX)).min()
    }

    /// Marks the GPUs that shall get no work, and weighs what is free again.
    pub(crate) fn mark(&mut self) {
        for gpu in &mut self.facts.gpus {
            let its = |ailment: &&Ailment| {
                ailment.policy.measure == Measure::Gpu
                    && ailment.gpu.as_deref() == Some(gpu.uuid.as_str())
            };
            gpu.unfit = self
                .ailments
                .iter()
                .find(its)
                .map(|ailment| format!("{} ({})", ailment.detail, ailment.trouble));
        }
        self.weigh();
    }
}

/// What happened and what is done about it, with the rule's name.
fn said(
    detail: &str,
    place: &str,
    trouble: Trouble,
    policy: Policy,
    moved: u32,
    often: bool,
) -> String {
    let what = match policy.measure {
        Measure::Note => "noted",
        Measure::Gpu => "the gpu gets no new work",
        Measure::Node => "the node gets no new work",
    };
    let moved = match moved {
        0 => String::new(),
        count => format!(", {} stopped and queued again", things(count, "task")),
    };
    let back = match policy.back {
        Back::Over => "until it is over",
        Back::Test => "until it is over and a test finds nothing",
        Back::Person if often => "until a person resumes the node, since it came back too often",
        Back::Person => "until a person resumes the node",
    };
    format!("{detail}{place}; rule {trouble}: {what}{moved}, {back}")
}
