//! The scheduler's settings: those of the daemon, and those of the cluster it decides for, which it
//! takes again while it runs (`gantry scheduler reload`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use gantry_model::access::Role;
use gantry_model::health::{Back, Measure, Policy, Trouble, Work};
use gantry_model::{Level, MemoryMib, Millis};
use serde::{Deserialize, Deserializer};

use crate::agent::text;
use crate::alerts::{self, AlertSettings};
use crate::load::Settings;

/// Lines of the event log that screens are shown from.
const EVENTS_KEPT_MIN: u32 = 1000;
/// What may wait on nodes: ten seconds are as long as people wait for what they call urgent.
const AHEAD_MAX: Millis = Millis::from_seconds(10);
/// Certificates that count for less would be renewed all the time.
const CERTIFICATE_VALID_MIN: Millis = Millis::from_seconds(5);
/// A year, as that of the scheduler itself.
const CERTIFICATE_VALID_MAX: Millis = Millis::from_seconds(365 * 86_400);
/// Bytes of an address that is called.
const URL_BYTES_MAX: usize = 2000;

/// What an administrator may set of a scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerSettings {
    /// The UDP address that agents and consoles call.
    pub listen: SocketAddr,
    /// Short tasks that wait on a node would take so long together; none do where zero.
    #[serde(deserialize_with = "text")]
    pub ahead: Millis,
    /// How long a node may be away before its tasks are queued again.
    #[serde(deserialize_with = "text")]
    pub node_timeout: Millis,
    /// The role of people of the scheduler's host, who come by their account; none is let in so where
    /// absent.
    #[serde(deserialize_with = "local_role")]
    pub local_role: Option<Role>,
    /// The socket that they call; `scheduler.sock` in the folder that systemd gives where absent, and none
    /// without it.
    pub local_socket: Option<PathBuf>,
    /// How long a join token lasts.
    #[serde(deserialize_with = "text")]
    pub token_valid: Millis,
    /// How long a certificate of an agent or a person counts; it is renewed after two thirds of that.
    #[serde(deserialize_with = "text")]
    pub certificate_valid: Millis,
    /// How long after its end a certificate can still be renewed, and nothing else.
    #[serde(deserialize_with = "text")]
    pub certificate_grace: Millis,
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
    /// Lines of the event log that are kept; the oldest give way.
    pub events_kept: u32,
    /// Lines of the event log that are older give way too; none where zero.
    #[serde(deserialize_with = "text")]
    pub events_age: Millis,
    /// Ended jobs are in the history for so long; for ever where zero.
    #[serde(deserialize_with = "text")]
    pub history_age: Millis,
    /// The TCP address at which a monitoring system reads the whole cluster; none where absent.
    pub metrics: Option<SocketAddr>,
    /// The URL that lines of the event log are sent to; none where absent.
    pub webhook: Option<String>,
    /// Only lines that matter so much or more are sent.
    pub webhook_level: Level,
    /// The URL of a collector that traces of jobs are sent to; none where absent.
    pub traces_endpoint: Option<String>,
    /// Licences, and how many there are of each.
    pub licences: BTreeMap<String, u32>,
    /// Groups of users.
    pub groups: BTreeMap<String, GroupSettings>,
    /// What follows from troubles of nodes and GPUs, where it is not the default.
    pub health: BTreeMap<Trouble, HealthRule>,
    /// Where a reading of a node is a trouble.
    pub watch: WatchSettings,
    /// Further readings that a person must see.
    pub alert: Vec<AlertSettings>,
}

/// Where a reading of a node is a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchSettings {
    /// How far a node's clock may be off.
    #[serde(deserialize_with = "text")]
    pub clock: Millis,
    /// Below this much free space the disk of the agent's folder counts as full.
    #[serde(deserialize_with = "text")]
    pub disk_free_min: MemoryMib,
    /// An answer of the shared storage that takes longer is slow.
    #[serde(deserialize_with = "text")]
    pub storage_slow: Millis,
    /// How long the shared storage may be silent.
    #[serde(deserialize_with = "text")]
    pub storage_silent: Millis,
    /// How long a GPU may be slowed down by heat or a lack of power.
    #[serde(deserialize_with = "text")]
    pub throttled: Millis,
    /// How long the GPU driver may be silent.
    #[serde(deserialize_with = "text")]
    pub driver_silent: Millis,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            clock: Millis::from_seconds(2),
            disk_free_min: MemoryMib(512),
            storage_slow: Millis::from_seconds(1),
            storage_silent: Millis::from_seconds(10),
            throttled: Millis::from_seconds(60),
            driver_silent: Millis::from_seconds(15),
        }
    }
}

/// What follows from a trouble; what is absent is as by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthRule {
    /// What is done: `note`, `gpu` or `node`.
    pub measure: Option<Measure>,
    /// What happens to work there: `stay` or `move`.
    pub work: Option<Work>,
    /// When work is given again: `over`, `test` or `person`.
    pub back: Option<Back>,
}

impl HealthRule {
    /// The whole policy for a trouble.
    #[must_use]
    pub fn policy(&self, trouble: Trouble) -> Policy {
        let default = trouble.policy();
        Policy {
            measure: self.measure.unwrap_or(default.measure),
            work: self.work.unwrap_or(default.work),
            back: self.back.unwrap_or(default.back),
        }
    }
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
            ahead: Millis(100),
            node_timeout: Millis::from_seconds(6),
            local_role: Some(Role::User),
            local_socket: None,
            token_valid: Millis::from_seconds(900),
            certificate_valid: Millis::from_seconds(86_400),
            certificate_grace: Millis::from_seconds(30 * 86_400),
            half_life: Millis::from_seconds(7 * 86_400),
            age_step: Millis::from_seconds(6 * 3600),
            age_max: 20,
            quarantine_after: 8,
            quarantine_within: Millis::from_seconds(10),
            jobs_max: 200_000,
            ended_kept: 10_000,
            events_kept: 1_000_000,
            events_age: Millis(0),
            history_age: Millis(0),
            metrics: None,
            webhook: None,
            webhook_level: Level::Fail,
            traces_endpoint: None,
            licences: BTreeMap::new(),
            groups: BTreeMap::new(),
            health: BTreeMap::new(),
            watch: WatchSettings::default(),
            alert: Vec::new(),
        }
    }
}

impl Settings for SchedulerSettings {
    const NAME: &'static str = "scheduler";
    const FILE: &'static str = crate::SCHEDULER_FILE;
    const KEYS: &'static [&'static str] = &[
        "listen",
        "ahead",
        "node_timeout",
        "local_role",
        "local_socket",
        "token_valid",
        "certificate_valid",
        "certificate_grace",
        "half_life",
        "age_step",
        "age_max",
        "quarantine_after",
        "quarantine_within",
        "jobs_max",
        "ended_kept",
        "events_kept",
        "events_age",
        "history_age",
        "metrics",
        "webhook",
        "webhook_level",
        "traces_endpoint",
        "licences",
        "groups",
        "groups.NAME.weight",
        "groups.NAME.guarantee",
        "groups.NAME.limit",
        "groups.NAME.users",
        "groups.NAME.limit.cores",
        "groups.NAME.limit.memory",
        "groups.NAME.limit.gpus",
        "health",
        "health.NAME.measure",
        "health.NAME.work",
        "health.NAME.back",
        "watch.clock",
        "watch.disk_free_min",
        "watch.storage_slow",
        "watch.storage_silent",
        "watch.throttled",
        "watch.driver_silent",
        "alert",
        "alert.name",
        "alert.series",
        "alert.above",
        "alert.below",
        "alert.clear",
        "alert.for",
        "alert.level",
        "alert.nodes",
        "alert.sentence",
    ];

    fn validate(&self) -> Result<(), String> {
        if self.node_timeout < Millis::from_seconds(1) {
            return Err(
                "node_timeout below 1s would lose nodes that are only busy; raise it".into()
            );
        }
        if self.ahead > AHEAD_MAX {
            return Err(format!(
                "ahead of more than {AHEAD_MAX} would let an urgent job wait as long; lower it"
            ));
        }
        if self.certificate_valid < CERTIFICATE_VALID_MIN {
            return Err(format!(
                "certificate_valid below {CERTIFICATE_VALID_MIN} would have all agents renew all the time; raise it"
            ));
        }
        if self.certificate_valid > CERTIFICATE_VALID_MAX {
            return Err(format!(
                "certificate_valid above {CERTIFICATE_VALID_MAX} outlives those who have it; lower it"
            ));
        }
        if self.half_life < Millis::from_seconds(60) {
            return Err("half_life below 1m would forget use at once; raise it".into());
        }
        if self.events_kept < EVENTS_KEPT_MIN {
            return Err(format!(
                "events_kept below {EVENTS_KEPT_MIN} would forget what screens show; raise it"
            ));
        }
        if let Some(webhook) = &self.webhook {
            check_url("webhook", "https://host/path", webhook)?;
        }
        if let Some(endpoint) = &self.traces_endpoint {
            check_traces_endpoint(endpoint)?;
        }
        alerts::validate(&self.alert)?;
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

/// The role of people of the scheduler's host, or `none`. Not every account is an administrator.
fn local_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Role>, D::Error> {
    let word = String::deserialize(deserializer)?;
    match word.parse() {
        Ok(Role::Administrator) => Err(serde::de::Error::custom(
            "local_role = \"administrator\" would make administrators of all accounts of this host; gantry access grant makes one of a person",
        )),
        Ok(role) => Ok(Some(role)),
        Err(_) if word == "none" => Ok(None),
        Err(_) => Err(serde::de::Error::custom(format!(
            "{word:?} is no role that people of this host can have; write viewer, user, operator or none"
        ))),
    }
}

/// Whether a part of a guarantee is beyond a limit that is set.
fn exceeds(guarantee: &Amount, limit: &Amount) -> bool {
    (limit.cores > 0 && guarantee.cores > limit.cores)
        || (limit.gpus > 0 && guarantee.gpus > limit.gpus)
        || (limit.memory > MemoryMib(0) && guarantee.memory > limit.memory)
}

/// Whether an address can be called at all; gives what comes behind its host. It may hold a secret, so
/// a sentence never repeats it.
fn check_url<'a>(key: &str, example: &str, url: &'a str) -> Result<&'a str, String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.unwrap_or_default();
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || !is_plain || url.len() > URL_BYTES_MAX {
        return Err(format!(
            "{key} must be an address such as {example}, without blanks and of at most {URL_BYTES_MAX} bytes"
        ));
    }
    Ok(path)
}

/// Whether a collector can be called at all. Its path is not guessed: behind a proxy it may be any.
fn check_traces_endpoint(url: &str) -> Result<(), String> {
    let path = check_url("traces_endpoint", "http://collector:4318/v1/traces", url)?;
    if !path.starts_with('/') || path == "/" {
        return Err(
            "traces_endpoint has no path; collectors take traces at /v1/traces, so append that"
                .into(),
        );
    }
    Ok(())
}
