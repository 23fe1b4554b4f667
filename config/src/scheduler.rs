//! The scheduler's settings.

use std::net::SocketAddr;

use gantry_model::Millis;
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
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 7400).into(),
            node_timeout: Millis::from_seconds(10),
            token_valid: Millis::from_seconds(900),
        }
    }
}

impl Settings for SchedulerSettings {
    const KEYS: &'static [&'static str] = &["listen", "node_timeout", "token_valid"];

    fn validate(&self) -> Result<(), String> {
        if self.node_timeout < Millis::from_seconds(1) {
            return Err(
                "node_timeout below 1s would lose nodes that are only busy; raise it".into()
            );
        }
        Ok(())
    }
}
