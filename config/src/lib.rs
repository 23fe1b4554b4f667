//! Typed settings and the shipped default files.
//!
//! A settings file is TOML. A key that is unknown is refused with its line and the nearest key
//! that exists; a value of the wrong kind with its line. What a file leaves out has the default
//! that the shipped file shows. The shipped files are in `config/files`.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
pub mod alerts;
mod explain;
mod isolation;
pub mod jobs;
pub mod layers;
mod load;
mod nearest;
mod network;
pub mod scheduler;
pub mod slurm;

pub use agent::{
    AgentSettings, CallSettings, DeidentifySettings, IngestSettings, Orphans, TlsSettings,
};
pub use alerts::AlertSettings;
pub use explain::{Explained, explain};
pub use isolation::{CgroupPlace, CpuLimit, IsolationSettings, RunAs, Umask};
pub use load::{Settings, SettingsError, load, load_file, read_file, read_site, site_of};
pub use nearest::nearest;
pub use network::Network;
pub use scheduler::SchedulerSettings;

/// The commented default settings of a scheduler.
pub const SCHEDULER_FILE: &str = include_str!("../files/scheduler.toml");
/// The commented default settings of an agent.
pub const AGENT_FILE: &str = include_str!("../files/agent.toml");
/// The shipped pipelines, by name.
pub const PIPELINES: &[(&str, &str)] = &[
    ("chest-ct", include_str!("../files/pipelines/chest-ct.toml")),
    ("edges", include_str!("../files/pipelines/edges.toml")),
    ("seeded", include_str!("../files/pipelines/seeded.toml")),
];
/// The console's themes, by name; the first is the one that is taken where none is named.
pub const THEMES: &[(&str, &str)] = &[
    ("dark", include_str!("../files/themes/dark.toml")),
    ("light", include_str!("../files/themes/light.toml")),
];
/// The console's keys.
pub const KEYS_FILE: &str = include_str!("../files/keys.toml");
/// A Grafana dashboard over the numbers that a scheduler gives to Prometheus.
pub const DASHBOARD_FILE: &str = include_str!("../files/grafana.json");
/// Agents on the nodes of a Kubernetes cluster.
pub const KUBERNETES_FILE: &str = include_str!("../files/kubernetes.yml");
/// A scheduler and an agent in containers on one host.
pub const COMPOSE_FILE: &str = include_str!("../files/compose.yml");
/// Alerting rules for Prometheus over the same numbers.
pub const RULES_FILE: &str = include_str!("../files/prometheus-rules.yml");
