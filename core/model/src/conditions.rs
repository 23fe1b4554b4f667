//! What a job waits for, and how it stands to other jobs and to time: dependencies, gangs, warnings
//! and preemption.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::reject::Reject;
use crate::units::Millis;

/// When a dependency counts as met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DependencyKind {
    /// Every task of the other job is done.
    Ok,
    /// The other job has ended in any way.
    Any,
    /// The other job has failed.
    Fail,
}

/// A job that must end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other job.
    pub job: JobId,
    /// When it counts as met.
    pub kind: DependencyKind,
    /// Whether all of the other job must end, or element by element.
    pub scope: DependencyScope,
}

/// What of the other job a dependency waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DependencyScope {
    /// All of it.
    #[default]
    Job,
    /// Each element for the element of the same index.
    Element,
}

/// Ranks that start together or not at all. Each has the job's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gang {
    /// How many ranks.
    pub ranks: u32,
    /// Over exactly so many nodes, evenly; over as few as have room where absent.
    pub nodes: Option<u32>,
}

/// A signal before the time limit, so that a task can write a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The signal's number.
    pub signal: u8,
    /// How long before the limit.
    pub before: Millis,
}

/// The signals a warning may be, with the numbers that Linux gives them on every architecture
/// gantry runs on.
const WARNING_SIGNALS: [(&str, u8); 6] =
    [("HUP", 1), ("INT", 2), ("USR1", 10), ("USR2", 12), ("TERM", 15), ("CONT", 18)];

impl FromStr for Warning {
    type Err = Reject;

    /// Reads `USR1@60s`: the signal, then how long before the limit.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let wrong = || {
            Reject::invalid(format!(
                "{text:?} is not a warning; write the signal and how long before the limit, as USR1@60s"
            ))
        };
        let (name, before) = text.split_once('@').ok_or_else(wrong)?;
        let name = name.strip_prefix("SIG").unwrap_or(name);
        let found = WARNING_SIGNALS.iter().find(|(known, _)| *known == name);
        let (_, signal) = found.ok_or_else(wrong)?;
        Ok(Self { signal: *signal, before: before.parse()? })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WARNING_SIGNALS.iter().find(|(_, number)| *number == self.signal) {
            Some((name, _)) => write!(f, "{name}@{}", self.before),
            None => write!(f, "{}@{}", self.signal, self.before),
        }
    }
}

/// Whether a running task may be stopped to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preemption {
    /// Never.
    #[default]
    Never,
    /// It may: it writes checkpoints, and goes on from the newest one when it starts again.
    Requeue,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_people_type() {
        for (text, signal, before) in
            [("USR1@60s", 10, 60_000), ("SIGTERM@5m", 15, 300_000), ("INT@1", 2, 1000)]
        {
            let warning: Warning = text.parse().unwrap();
            assert_eq!((warning.signal, warning.before), (signal, Millis(before)), "{text}");
            assert_eq!(warning.to_string().parse::<Warning>().unwrap(), warning);
        }
        for text in ["", "USR1", "KILL@1s", "USR1@", "@1s", "10@1s"] {
            assert!(text.parse::<Warning>().is_err(), "{text}");
        }
    }
}
