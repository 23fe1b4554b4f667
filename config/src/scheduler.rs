//! The scheduler's settings: those of the daemon, and those of the cluster it decides for, which it
//! takes again while it runs (`gantry scheduler reload`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use gantry_model::{MemoryMib, Millis};
use serde::Deserialize;

use crate::agent::text;
use crate::load::Settings;

/// What an administrator may set of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerSettings {
    /// The UDP address that agents and consoles call.
    pub listen: SocketAddr,
    /// How long a node may be away before its tasks are queued again.
    #[serde(deserialize_with = "text")]
    pub node_timeout: Millis,
    /// How long a join token lasts.
    #[serde(deserialize_with = "text")]
    pub token_valid: Millis,
    /// After how long only half of what was used counts for the order of jobs.
    #[serde(deserialize_with = "text")]
    pub half_life: Millis,
    /// A job that waits gains one of priority each such time; none where zero.
    #[serde(deserialize_with = "text")]
    pub age_step: Millis,
    /// The most it gains.
    pub age_max: u32,
    /// So many tasks in a row that fail fast quarantine their node; never where zero.
    pub quarantine_after: u32,
    /// A failure so soon after the start is a fast one.
    #[serde(deserialize_with = "text")]
    pub quarantine_within: Millis,
    /// Jobs of one user that may wait or run at once.
    pub jobs_max: u32,
    /// Ended jobs that are kept in memory; older ones are in the history.
    pub ended_kept: u32,
    /// Licences, and how many there are of each.
    pub licences: BTreeMap<String, u32>,
    /// Groups of users.
    pub groups: BTreeMap<String, GroupSettings>,
}

/// What an administrator may set of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupSettings {
    /// Its share beside the others', 100 where absent.
    pub weight: Option<u32>,
    /// What it gets back by preemption when others have borrowed it.
    pub guarantee: Amount,
    /// More than this it never has.
    pub limit: Option<Amount>,
    /// Who may use it; everybody where empty.
    pub users: BTreeSet<String>,
}

/// An amount of resources as people write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amount {
    /// Cores.
    pub cores: u32,
    /// Memory, as `"512G"`.
    #[serde(deserialize_with = "text")]
    pub memory: MemoryMib,
    /// GPUs.
    pub gpus: u32,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 7400).into(),
            node_timeout: Millis::from_seconds(6),
            token_valid: Millis::from_seconds(900),
            half_life: Millis::from_seconds(7 * 86_400),
            age_step: Millis::from_seconds(6 * 3600),
            age_max: 20,
            quarantine_after: 8,
            quarantine_within: Millis::from_seconds(10),
            jobs_max: 200_000,
            ended_kept: 10_000,
            licences: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }
}

impl Settings for SchedulerSettings {
    const KEYS: &'static [&'static str] = &[
        "listen",
        "node_timeout",
        "token_valid",
        "half_life",
        "age_step",
        "age_max",
        "quarantine_after",
        "quarantine_within",
        "jobs_max",
        "ended_kept",
        "licences",
        "groups",
        "groups.NAME.weight",
        "groups.NAME.guarantee",
        "groups.NAME.limit",
        "groups.NAME.users",
        "groups.NAME.limit.cores",
        "groups.NAME.limit.memory",
        "groups.NAME.limit.gpus",
    ];

    fn validate(&self) -> Result<(), String> {
        if self.node_timeout < Millis::from_seconds(1) {
            return Err(
                "node_timeout below 1s would lose nodes that are only busy; raise it".into()
            );
        }
        if self.half_life < Millis::from_seconds(60) {
            return Err("half_life below 1m would forget use at once; raise it".into());
        }
        for (name, group) in &self.groups {
            gantry_model::job::check_name("group", name).map_err(|reject| reject.sentence)?;
            if group.weight == Some(0) {
                return Err(format!("group {name} has a weight of 0; raise it, or leave it out"));
            }
            if let Some(limit) = &group.limit
                && exceeds(&group.guarantee, limit)
            {
                return Err(format!(
                    "group {name} is guaranteed more than its limit; raise the limit"
                ));
            }
        }
        Ok(())
    }
}

/// Whether a part of a guarantee is beyond a limit that is set.
fn exceeds(guarantee: &Amount, limit: &Amount) -> bool {
    (limit.cores > 0 && guarantee.cores > limit.cores)
        || (limit.gpus > 0 && guarantee.gpus > limit.gpus)
        || (limit.memory > MemoryMib(0) && guarantee.memory > limit.memory)
}
