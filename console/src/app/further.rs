//! Nodes behind those in the picture: a picture is one message, which holds some forty large nodes. The
//! others of a large cluster are asked for page after page while the screen lists nodes, and stand
//! behind those of each picture as if they had come with it.

use gantry_wire::{NodeStatus, Request, Update};

use super::{About, App, View};

/// Nodes that are kept beside a picture: 4 MB. What is beyond is listed by gantry nodes.
const FURTHER_MAX: usize = 2_000;
/// Between two looks at all pages.
pub(super) const FURTHER_EACH_MS: u64 = 5_000;

/// The pages that came.
#[derive(Clone, Debug, Default)]
pub(super) struct Further {
    /// Those of the last whole look, by name.
    rows: Vec<NodeStatus>,
    /// Those of the look that goes on.
    coming: Vec<NodeStatus>,
}

impl Further {
    /// The last name of the page before, while a look goes on.
    fn after(&self) -> Option<&str> {
        self.coming.last().map(|node| node.row.facts.name.as_str())
    }

    fn take(&mut self, rows: Vec<NodeStatus>, more: bool) {
        let ends = !more || rows.is_empty() || self.coming.len() >= FURTHER_MAX;
        self.coming.extend(rows);
        if ends {
            self.rows = std::mem::take(&mut self.coming);
        }
    }

    /// Puts them behind those of a picture.
    pub(super) fn add_to(&self, update: &mut Update) {
        let last = update.nodes.last().map(|node| node.row.facts.name.clone());
        let behind = |node: &&NodeStatus| {
            last.as_ref().is_none_or(|last| node.row.facts.name.as_str() > last.as_str())
        };
        update.nodes.extend(self.rows.iter().filter(behind).cloned());
    }
}

impl App {
    /// What is to be asked, and how long after the last time: nothing where the picture has them all.
    pub(super) fn further_nodes_asked(&self) -> Option<(u64, Request)> {
        let update = self.update.as_ref().filter(|_| self.view == View::Nodes)?;
        if let Some(after) = self.further.after() {
            return Some((0, Request::Nodes { after: Some(after.to_owned()) }));
        }
        // A picture of the past has none of them.
        let known = update.nodes.len().saturating_sub(self.further_shown);
        let last = update.nodes.get(known.checked_sub(1)?)?.row.facts.name.clone();
        let all = update.summary.nodes as usize;
        (known < all).then_some((FURTHER_EACH_MS, Request::Nodes { after: Some(last) }))
    }

    /// Takes a page.
    pub(super) fn take_further_nodes(&mut self, rows: Vec<NodeStatus>, more: bool) {
        self.further.take(rows, more);
        if self.further.after().is_some() {
            // The pages of one look follow one another at once.
            self.forget_asked(|about| *about == About::FurtherNodes);
        }
    }
}
