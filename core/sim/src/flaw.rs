//! The one place where the scheduler's shell hands an event to the cluster, and the mistakes that can
//! be built into it.

use std::collections::BTreeSet;

use gantry_cluster::{Answer, Effect, Event};
use gantry_model::{Action, At, Machine, Order, TryId};

use crate::scheduler::Scheduler;
use crate::settings::Flaw;

impl Scheduler {
    /// Applies an event. Gives what is to be carried out.
    pub(crate) fn apply(&mut self, at: At, event: Event, flaw: Flaw) -> Vec<Effect> {
        if let Some(effects) = forgotten(&event, flaw) {
            return effects;
        }
        let mut effects = Vec::new();
        let event = match event {
            Event::Tested { node, number, .. } if flaw == Flaw::TrustsTests => {
                Event::Tested { node, number, wrong: None }
            }
            event => event,
        };
        self.cluster.apply(at, event, &mut effects);
        match flaw {
            Flaw::MixesGpus => effects.iter_mut().for_each(mix),
            Flaw::StopsBystanders => self.stop_another(&mut effects),
            _ => {}
        }
        effects
    }

    /// One more try of a node is told to stop than the cluster says.
    fn stop_another(&self, effects: &mut Vec<Effect>) {
        let stop = |effect: &Effect| match effect {
            Effect::Order { node, order: Order::Stop { try_id } } => Some((node.clone(), *try_id)),
            _ => None,
        };
        let stopped: BTreeSet<TryId> = effects.iter().filter_map(stop).map(|(_, id)| id).collect();
        let Some((node, _)) = effects.iter().find_map(stop) else { return };
        let server = crate::server::number(&node);
        let other = self.books.tries_on(server).find(|try_id| !stopped.contains(try_id));
        effects.extend(other.map(|try_id| Effect::Order { node, order: Order::Stop { try_id } }));
    }
}

/// The effects of an event that is granted and not applied.
fn forgotten(event: &Event, flaw: Flaw) -> Option<Vec<Effect>> {
    let granted = |request: u64| Effect::Reply { request, answer: Ok(Answer::Acted(0)) };
    match (flaw, event) {
        (Flaw::ForgetsSettings, Event::Settings(_))
        | (Flaw::ForgetsTroubles, Event::Found { .. }) => Some(Vec::new()),
        (
            Flaw::ForgetsDrains,
            Event::Act { request, action: Action::Drain { .. } | Action::AddWindow { .. }, .. },
        )
        | (Flaw::ForgetsHolds, Event::Act { request, action: Action::Hold { .. }, .. }) => {
            Some(vec![granted(*request)])
        }
        _ => None,
    }
}

/// Whatever devices were granted, the order names the first ones.
fn mix(effect: &mut Effect) {
    if let Effect::Order { order: Order::Launch(launch), .. } = effect {
        for (place, gpu) in launch.lease.gpus.iter_mut().enumerate() {
            *gpu = place as u16;
        }
    }
}
