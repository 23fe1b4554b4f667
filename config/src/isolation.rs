//! How the commands of a node are kept apart: what an administrator may set of it.
//!
//! All of it stands in the table `[isolation]` of an agent's settings, and all of it may be left out:
//! commands then run as the agent's user, in a cgroup of their own where the agent's service has
//! been given some, and under resource limits of their process where it has not.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use gantry_model::{Millis, Reject};
use serde::{Deserialize, Serialize};

use crate::agent::text;

/// The highest number of processes that a task may be allowed: what a kernel can count.
const PIDS_MAX: u32 = 1 << 22;
/// The longest time that a prolog or an epilog may take.
const SCRIPT_LIMIT_MAX: Millis = Millis::from_seconds(3600);

/// What an administrator may set of how commands are kept apart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IsolationSettings {
    /// Where the cgroups of tasks are made.
    #[serde(deserialize_with = "text")]
    pub cgroup: CgroupPlace,
    /// What the cores of a lease mean to the kernel.
    pub cpu_limit: CpuLimit,
    /// Processes and threads that a task may have at once; any number where absent.
    pub pids_max: Option<u32>,
    /// As whom commands run.
    pub run_as: RunAs,
    /// Whether root may submit where commands run as their submitter.
    pub allow_root: bool,
    /// The file mode creation mask of commands that run as their submitter.
    #[serde(deserialize_with = "text")]
    pub umask: Umask,
    /// Whether a command is bound to cores of its own.
    pub pin: bool,
    /// Where each try finds a folder of its own that is removed at its end; none where absent.
    pub scratch_folder: Option<PathBuf>,
    /// A program that is run before each command.
    pub prolog: Option<PathBuf>,
    /// A program that is run after each command.
    pub epilog: Option<PathBuf>,
    /// How long each of the two may take.
    #[serde(deserialize_with = "text")]
    pub script_limit: Millis,
}

/// Where the cgroups of tasks are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CgroupPlace {
    /// In the one that the agent's service was given, if it was given one.
    #[default]
    Delegated,
    /// In this one, which is made where it is not there.
    At(PathBuf),
    /// Nowhere.
    Nowhere,
}

impl FromStr for CgroupPlace {
    type Err = Reject;

    fn from_str(text: &str) -> Result<Self, Reject> {
        match text {
            "delegated" => Ok(Self::Delegated),
            "none" => Ok(Self::Nowhere),
            path if Path::new(path).is_absolute() => Ok(Self::At(path.into())),
            other => Err(Reject::invalid(format!(
                "{other:?} is no cgroup; write delegated, none, or an absolute path below /sys/fs/cgroup"
            ))),
        }
    }
}

/// What the cores of a lease mean to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuLimit {
    /// A share: what others leave idle may be used.
    #[default]
    Weight,
    /// A limit: no more than that, whoever else is there.
    Hard,
}

/// As whom commands run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunAs {
    /// As the agent's user.
    #[default]
    Agent,
    /// As the user who has submitted the job, who needs an account on the node; the agent must be root.
    Submitter,
}

/// A file mode creation mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(pub u32);

impl FromStr for Umask {
    type Err = Reject;

    fn from_str(text: &str) -> Result<Self, Reject> {
        let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
        mask.map(Self).ok_or_else(|| {
            Reject::invalid(format!("{text:?} is no umask; write three octal digits, as 027"))
        })
    }
}

impl Default for IsolationSettings {
    fn default() -> Self {
        Self {
            cgroup: CgroupPlace::Delegated,
            cpu_limit: CpuLimit::Weight,
            pids_max: None,
            run_as: RunAs::Agent,
            allow_root: false,
            umask: Umask(0o027),
            pin: false,
            scratch_folder: None,
            prolog: None,
            epilog: None,
            script_limit: Millis::from_seconds(60),
        }
    }
}

impl IsolationSettings {
    /// What is wrong with values that are well formed one by one.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let paths = [
            ("scratch_folder", &self.scratch_folder),
            ("prolog", &self.prolog),
            ("epilog", &self.epilog),
        ];
        for (name, path) in paths {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(format!(
                    "{name} must be an absolute path; the agent has no folder in which others would be looked for"
                ));
            }
        }
        if self.run_as == RunAs::Submitter && self.scratch_folder.is_none() {
            return Err("run_as = \"submitter\" needs a scratch_folder, in which each task gets a temporary folder of its own".into());
        }
        if self.pids_max.is_some_and(|most| most == 0 || most > PIDS_MAX) {
            return Err(format!(
                "pids_max must be from 1 to {PIDS_MAX}; leave it out for any number"
            ));
        }
        if self.script_limit == Millis(0) || self.script_limit > SCRIPT_LIMIT_MAX {
            return Err(format!(
                "script_limit must be more than nothing and at most {SCRIPT_LIMIT_MAX}; a task waits for its prolog"
            ));
        }
        Ok(())
    }
}
