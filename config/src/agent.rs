//! The agent's settings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use gantry_model::{MemoryMib, Millis, Reject, Role};
use serde::{Deserialize, Deserializer};

use crate::load::Settings;

/// What an administrator may set of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    /// The node's name, as its certificate has it.
    pub node: String,
    /// The scheduler's UDP address.
    pub scheduler: SocketAddr,
    /// What the node is for.
    pub roles: Vec<Role>,
    /// Cores that tasks may have; all of the machine's where absent.
    pub cores: Option<u32>,
    /// Memory that tasks may have; all of the machine's where absent.
    #[serde(deserialize_with = "optional_text")]
    pub memory: Option<MemoryMib>,
    /// The library on the shared storage, for counts on the screen and for the receiver.
    pub library: Option<PathBuf>,
    /// Warm workers for built-in operations; one per core, at most eight, where absent.
    pub workers: Option<u32>,
    /// Another libnvidia-ml than the system's.
    pub nvml: Option<PathBuf>,
    /// Between TERM and KILL.
    #[serde(deserialize_with = "text")]
    pub grace: Millis,
    /// The DICOM receiver; none where absent.
    pub ingest: Option<IngestSettings>,
}

/// What an administrator may set of a DICOM receiver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// The TCP address that scanners call.
    pub listen: SocketAddr,
    /// The receiver's own AE title; any called title is accepted where empty.
    pub ae_title: String,
    /// Calling AE titles that are accepted; all where empty.
    pub callers: Vec<String>,
    /// A series is complete once nothing new came for this long.
    #[serde(deserialize_with = "text")]
    pub series_stable: Millis,
    /// Below this much free space images are refused (0xA700), so that nothing is half stored.
    #[serde(deserialize_with = "text")]
    pub storage_free_min: MemoryMib,
    /// Associations at once.
    pub associations_max: usize,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            node: String::new(),
            scheduler: ([127, 0, 0, 1], 7400).into(),
            roles: vec![Role::Cpu],
            cores: None,
            memory: None,
            library: None,
            workers: None,
            nvml: None,
            grace: Millis::from_seconds(10),
            ingest: None,
        }
    }
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 11112).into(),
            ae_title: "GANTRY".into(),
            callers: Vec::new(),
            series_stable: Millis::from_seconds(60),
            storage_free_min: MemoryMib(1024),
            associations_max: 32,
        }
    }
}

impl Settings for AgentSettings {
    const KEYS: &'static [&'static str] = &[
        "node",
        "scheduler",
        "roles",
        "cores",
        "memory",
        "library",
        "workers",
        "nvml",
        "grace",
        "ingest.listen",
        "ingest.ae_title",
        "ingest.callers",
        "ingest.series_stable",
        "ingest.storage_free_min",
        "ingest.associations_max",
    ];

    fn validate(&self) -> Result<(), String> {
        gantry_model::job::check_name("node", &self.node).map_err(|reject| {
            format!("{}; set node to the name that the token was made for", reject.sentence)
        })?;
        if self.cores == Some(0) {
            return Err(
                "cores = 0 would give the node nothing to work with; leave it out for all".into()
            );
        }
        match &self.ingest {
            Some(_) if self.library.is_none() => {
                Err("a receiver needs a library to keep images in; set library = \"/path\"".into())
            }
            Some(ingest) if ingest.ae_title.len() > 16 => Err(format!(
                "the AE title {:?} is longer than the 16 characters of DICOM",
                ingest.ae_title
            )),
            Some(ingest) if ingest.associations_max == 0 => {
                Err("associations_max = 0 would refuse every scanner; raise it".into())
            }
            _ => Ok(()),
        }
    }
}

/// A quantity written as people type it: `"10s"`, `"4G"`.
pub(crate) fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = Reject>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn optional_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = Reject>,
{
    text(deserializer).map(Some)
}
