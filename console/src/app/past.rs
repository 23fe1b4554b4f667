//! Pictures that were: so that one can look back at a screen as it stood some minutes ago.
//!
//! A picture every quarter of a minute is kept for half an hour. What
//! happened before this console was opened is in the event log and in the series, not here.

use std::collections::VecDeque;

use gantry_model::Millis;
use gantry_wire::{Scope, Update};

/// Between two that are kept.
const EACH: Millis = Millis::from_seconds(15);
/// Pictures that are kept: half an hour of one screen, about 20 MB of a hundred nodes.
const KEPT_MAX: usize = 120;

/// Pictures that were.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    kept: VecDeque<(Scope, Box<Update>)>,
}

impl Past {
    /// Keeps a picture, where the last of its kind is old enough.
    pub(super) fn keep(&mut self, scope: Scope, update: &Update) {
        let last = self.kept.iter().rev().find(|(known, _)| *known == scope);
        if last.is_some_and(|(_, last)| update.at.since(last.at) < EACH) {
            return;
        }
        let mut kept = Box::new(update.clone());
        kept.output = None;
        if self.kept.len() >= KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((scope, kept));
    }

    /// The newest of a scope before a time.
    #[must_use]
    pub(super) fn before(&self, scope: Scope, update: &Update) -> Option<Box<Update>> {
        let of = self.kept.iter().rev().filter(|(known, _)| *known == scope);
        of.map(|(_, kept)| kept).find(|kept| kept.at < update.at).cloned()
    }

    /// The oldest of a scope after a time.
    #[must_use]
    pub(super) fn after(&self, scope: Scope, update: &Update) -> Option<Box<Update>> {
        let of = self.kept.iter().filter(|(known, _)| *known == scope);
        of.map(|(_, kept)| kept).find(|kept| kept.at > update.at).cloned()
    }
}
