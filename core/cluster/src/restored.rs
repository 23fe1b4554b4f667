//! After a restore: the state is that of a backup, and nodes know of more.
//!
//! Between the backup and the loss of the scheduler's disk more may have happened: jobs were
//! submitted, tries started, tests ordered. Their ids are in the hands of people and nodes, name
//! folders of output and checkpoints, and fence what runs. None of them may ever be given again: each
//! kind of number skips a step that is greater than what any cluster makes between two backups.
//!
//! A node that comes back says what it holds. What of that is not known here is told to stop, as
//! after a journal whose end was cut. A task among it waits here, as it did when the backup was
//! taken: so nothing is placed before every node has come back or is lost, and what it was told to
//! stop has ended. A try that does not end keeps only its own node from work, after a while.

use gantry_model::{At, Level, Millis, NodeState, Subject};

use crate::cluster::{Cluster, note};
use crate::event::Effect;
use crate::node::Node;

/// Jobs that are skipped: at five thousand submits a second more than two days.
const JOBS_STEP: u64 = 1_000_000_000;
/// Tries that are skipped: at a hundred thousand starts a second more than three months.
const TRIES_STEP: u64 = 1_000_000_000_000;
/// Tests of nodes that are skipped.
const TESTS_STEP: u64 = 1_000_000_000;
/// How long what was told to stop is waited for, once its node is back: three times as long as the
/// default time from TERM to KILL.
const STRAYS_WAIT: Millis = Millis::from_seconds(30);

impl Cluster {
    /// What there is comes from a backup. Whatever is known of the nodes is old: each has as long as
    /// ever to come back, from the scheduler's start.
    pub(crate) fn restored(&mut self, at: At, taken: At, effects: &mut Vec<Effect>) {
        self.jobs_made += JOBS_STEP;
        self.tries_made += TRIES_STEP;
        self.tests_made += TESTS_STEP;
        self.returning = !self.nodes.is_empty();
        for node in &mut self.nodes {
            (node.state, node.since) = (NodeState::Late, at);
        }
        let sentence = format!(
            "restored from a backup that was {} old; what was submitted since it was taken is not known, and what has ended since then runs again",
            Millis(at.since(taken).0 / 1000 * 1000)
        );
        effects.push(note(at, Level::Warn, Subject::Cluster, sentence));
    }

    /// Whether nothing is placed yet. Once nodes are no longer awaited they never are again.
    pub(crate) fn awaits_nodes(&mut self, at: At) -> bool {
        self.returning = self.returning && self.nodes.iter().any(|node| is_awaited(node, at));
        self.returning
    }

    /// When what was told to stop is waited for no longer, while it is.
    pub(crate) fn given_up_at(&self) -> Option<At> {
        let strays = self.nodes.iter().filter(|node| self.returning && !node.strays.is_empty());
        strays.map(|node| node.since.after(STRAYS_WAIT)).min()
    }

    /// The sentence for jobs that wait for nodes to come back.
    pub(crate) fn waits_for_nodes(&self, at: At) -> Option<String> {
        let awaited = |node: &&Node| is_awaited(node, at);
        let mut names = self.nodes.iter().filter(awaited).map(Node::name);
        let first = names.next().filter(|_| self.returning)?;
        let others = match names.count() {
            0 => String::new(),
            others => format!(" and {others} others"),
        };
        Some(format!(
            "the scheduler was restored from a backup, and {first}{others} may still run what it does not know of"
        ))
    }
}

/// Whether a node may still run what is not known.
fn is_awaited(node: &Node, at: At) -> bool {
    match node.state {
        NodeState::Late => true,
        NodeState::Up => !node.strays.is_empty() && node.since.after(STRAYS_WAIT) > at,
        NodeState::Lost => false,
    }
}
