//! The agent's settings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use gantry_model::limits::LABELS_MAX;
use gantry_model::{MemoryMib, Millis, Reject, Role};
use serde::{Deserialize, Deserializer, Serialize};

use crate::isolation::IsolationSettings;
use crate::load::Settings;
use crate::network::Network;

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
    /// Scratch space that tasks may have; what is free beside the agent's folder where absent.
    #[serde(deserialize_with = "optional_text")]
    pub scratch: Option<MemoryMib>,
    /// What jobs may ask for by name, as `nvme` or `site=north`.
    pub labels: BTreeSet<String>,
    /// The library on the shared storage, for counts on the screen and for the receiver.
    pub library: Option<PathBuf>,
    /// Where tasks find their checkpoint folders again, also on another node: a folder on the shared
    /// storage. The agent's own folder where absent.
    pub checkpoints: Option<PathBuf>,
    /// Where other nodes reach this one, for the ranks of gangs; what the scheduler sees where
    /// absent.
    pub address: Option<String>,
    /// Warm workers for built-in operations; one per core, at most eight, where absent.
    pub workers: Option<u32>,
    /// The Python whose `PyTorch` trains, where it has one.
    pub python: String,
    /// Another libnvidia-ml than the system's.
    pub nvml: Option<PathBuf>,
    /// A command that tests a GPU before it gets work again after a trouble; none where empty.
    pub gpu_test: Vec<String>,
    /// Between TERM and KILL.
    #[serde(deserialize_with = "text")]
    pub grace: Millis,
    /// What becomes of commands when the agent ends.
    pub orphans: Orphans,
    /// How long the output of a job stays after the last of it was written; for good where 0.
    #[serde(deserialize_with = "text")]
    pub output_age: Millis,
    /// The TCP address at which a monitoring system reads this node; none where absent.
    pub metrics: Option<SocketAddr>,
    /// How commands are kept apart.
    pub isolation: IsolationSettings,
    /// The DICOM receiver; none where absent.
    pub ingest: Option<IngestSettings>,
}

/// What becomes of the commands of an agent that ends, in whatever way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orphans {
    /// They go on, and the next agent of the folder takes them over.
    #[default]
    Keep,
    /// They end with it.
    End,
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
    /// Addresses that may call; all where empty.
    pub addresses: Vec<Network>,
    /// Takes patients out of what comes before anything of it is kept; as it came where absent.
    pub deidentify: Option<DeidentifySettings>,
    /// Speaks TLS with who calls, and with nobody in plain; plain where absent.
    pub tls: Option<TlsSettings>,
    /// Where those are told what is kept for good who ask and hang up before the answer, by their
    /// AE titles.
    pub commitment: BTreeMap<String, SocketAddr>,
    /// Speaks TLS with who is called back; plain where absent.
    pub calls: Option<CallSettings>,
    /// A series is complete once nothing new came for this long.
    #[serde(deserialize_with = "text")]
    pub series_stable: Millis,
    /// Below this much free space images are refused (0xA700), so that nothing is half stored.
    #[serde(deserialize_with = "text")]
    pub storage_free_min: MemoryMib,
    /// Associations at once.
    pub associations_max: usize,
}

/// TLS of the receiver, by the site's own certificates (PEM).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The receiver's certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose certificates those need who call; none is asked for where absent.
    pub authority: Option<PathBuf>,
}

/// TLS with peers that are called, by the site's own certificates (PEM).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallSettings {
    /// Whose certificates they must show.
    pub authority: PathBuf,
    /// What is shown to those that ask for one, followed by those between it and its authority.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The names in their certificates, by their AE titles; the address that is called where absent.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
}

/// De-identification: the basic profile of PS3.15 annex E.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeidentifySettings {
    /// The codes of its options, as 113107 for dates that move.
    pub options: Vec<u32>,
    /// Private elements that stay, each as `GGGG,CREATOR,EE`.
    pub private: Vec<String>,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            node: String::new(),
            scheduler: ([127, 0, 0, 1], 7400).into(),
            roles: vec![Role::Cpu],
            cores: None,
            memory: None,
            scratch: None,
            labels: BTreeSet::new(),
            library: None,
            checkpoints: None,
            address: None,
            workers: None,
            python: "python3".into(),
            nvml: None,
            gpu_test: Vec::new(),
            grace: Millis::from_seconds(10),
            orphans: Orphans::Keep,
            output_age: Millis(0),
            metrics: None,
            isolation: IsolationSettings::default(),
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
            addresses: Vec::new(),
            deidentify: None,
            tls: None,
            commitment: BTreeMap::new(),
            calls: None,
            series_stable: Millis::from_seconds(60),
            storage_free_min: MemoryMib(1024),
            associations_max: 32,
        }
    }
}

impl Settings for AgentSettings {
    const NAME: &'static str = "agent";
    const FILE: &'static str = crate::AGENT_FILE;
    const KEYS: &'static [&'static str] = &[
        "node",
        "scheduler",
        "roles",
        "cores",
        "memory",
        "scratch",
        "labels",
        "library",
        "checkpoints",
        "address",
        "workers",
        "python",
        "nvml",
        "gpu_test",
        "grace",
        "orphans",
        "output_age",
        "metrics",
        "isolation.cgroup",
        "isolation.cpu_limit",
        "isolation.pids_max",
        "isolation.run_as",
        "isolation.allow_root",
        "isolation.umask",
        "isolation.pin",
        "isolation.scratch_folder",
        "isolation.prolog",
        "isolation.epilog",
        "isolation.script_limit",
        "ingest.listen",
        "ingest.ae_title",
        "ingest.callers",
        "ingest.addresses",
        "ingest.deidentify.options",
        "ingest.deidentify.private",
        "ingest.tls.certificate",
        "ingest.tls.key",
        "ingest.tls.authority",
        "ingest.commitment",
        "ingest.calls.authority",
        "ingest.calls.certificate",
        "ingest.calls.key",
        "ingest.calls.names",
        "ingest.series_stable",
        "ingest.storage_free_min",
        "ingest.associations_max",
    ];

    fn validate(&self) -> Result<(), String> {
        gantry_model::job::check_name("node", &self.node).map_err(|reject| {
            format!("{}; set node to the name that the token was made for", reject.sentence)
        })?;
        if self.checkpoints.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            return Err("checkpoints must be an absolute path; every node finds it there".into());
        }
        if self.cores == Some(0) {
            return Err(
                "cores = 0 would give the node nothing to work with; leave it out for all".into()
            );
        }
        if self.labels.len() > LABELS_MAX {
            return Err(format!(
                "{} labels are more than the {LABELS_MAX} a node may have; keep those that jobs ask for",
                self.labels.len()
            ));
        }
        for label in &self.labels {
            gantry_model::job::check_name("label", label).map_err(|reject| reject.sentence)?;
        }
        self.isolation.validate()?;
        match &self.ingest {
            Some(_) if self.library.is_none() => {
                Err("a receiver needs a library to keep images in; set library = \"/path\"".into())
            }
            Some(ingest) if ingest.ae_title.len() > 16 => Err(format!(
                "the AE title {:?} is longer than the 16 characters of DICOM",
                ingest.ae_title
            )),
            Some(ingest)
                if ingest
                    .calls
                    .as_ref()
                    .is_some_and(|calls| calls.certificate.is_some() != calls.key.is_some()) =>
            {
                Err("ingest.calls has a certificate without its key, or the other way round; name both or none".into())
            }
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
