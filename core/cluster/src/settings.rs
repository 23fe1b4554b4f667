//! What an administrator may set of the cluster, with the defaults and why they are so.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::health::{Policy, Trouble};
use gantry_model::{Millis, Resources};
use serde::{Deserialize, Serialize};

/// A group of users and its share of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    /// Its share beside the others', for the order of waiting jobs.
    pub weight: u32,
    /// What it gets back by preemption when others have borrowed it.
    pub guarantee: Resources,
    /// More than this it never has; absent parts of it (zero) are not limited.
    pub limit: Option<Resources>,
    /// Who may use it; everybody where empty.
    pub users: BTreeSet<String>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self { weight: 100, guarantee: Resources::default(), limit: None, users: BTreeSet::new() }
    }
}

/// What an administrator may set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Tasks that wait on a node for those that run there would take so long together; none do
    /// where zero.
    pub ahead: Millis,
    /// How long a node may be away before its tasks are queued again; its connection is given up
    /// three seconds after the last word from it, and the time counts from then.
    pub node_timeout: Millis,
    /// After how long only half of what was used still counts.
    pub half_life: Millis,
    /// A job that waits gains one of priority each such time; none where zero.
    pub age_step: Millis,
    /// The most it gains.
    pub age_max: u32,
    /// So many tasks in a row that fail fast quarantine their node; never where zero.
    pub quarantine_after: u32,
    /// A failure so soon after the start is a fast one.
    pub quarantine_within: Millis,
    /// Jobs of one user that may wait or run at once.
    pub jobs_max: u32,
    /// Ended jobs that are kept in memory; older ones are in the history.
    pub ended_kept: u32,
    /// Groups by name.
    pub groups: BTreeMap<String, GroupSettings>,
    /// Licences by name, and how many there are.
    pub licences: BTreeMap<String, u32>,
    /// What follows from troubles, where it is not [`Trouble::policy`].
    pub health: BTreeMap<Trouble, Policy>,
}

impl ClusterSettings {
    /// What follows from a trouble.
    #[must_use]
    pub fn policy(&self, trouble: Trouble) -> Policy {
        self.health.get(&trouble).copied().unwrap_or_else(|| trouble.policy())
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            ahead: Millis(100),
            node_timeout: Millis::from_seconds(6),
            half_life: Millis::from_seconds(7 * 86_400),
            age_step: Millis::from_seconds(6 * 3600),
            age_max: 20,
            quarantine_after: 8,
            quarantine_within: Millis::from_seconds(10),
            jobs_max: 200_000,
            ended_kept: 10_000,
            groups: BTreeMap::new(),
            licences: BTreeMap::new(),
            health: BTreeMap::new(),
        }
    }
}
