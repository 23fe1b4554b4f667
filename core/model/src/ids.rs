//! Ids, with the form in which people read and type them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reject::Reject;

/// A job, printed as `j12`. Ids are given in order of submission and never used twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct JobId(pub u64);

/// One unit of a job: an element of an array. Printed as `j12.3`, or `j12` for a job of one task.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TaskId {
    /// The job it belongs to.
    pub job: JobId,
    /// Its array index, 0 for a job without an array.
    pub index: u32,
}

/// One execution of a task on a node. The cluster gives the ids in rising order, so that a larger
/// one always fences a smaller one of the same task.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct TryId(pub u64);

/// A server with an agent. People call it by its name; this is the cluster's number for it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u32);

impl JobId {
    /// The task of this job at an array index.
    #[must_use]
    pub const fn task(self, index: u32) -> TaskId {
        TaskId { job: self, index }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "j{}", self.0)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

impl fmt::Display for TryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = Reject;

    /// Reads `j12` or `12`.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let digits = text.strip_prefix('j').unwrap_or(text);
        digits
            .parse()
            .map(Self)
            .map_err(|_| Reject::invalid(format!("{text:?} is not a job; jobs look like j12")))
    }
}

impl FromStr for TaskId {
    type Err = Reject;

    /// Reads `j12.3`, or `j12` for its first task.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let Some((job, index)) = text.split_once('.') else {
            return Ok(text.parse::<JobId>()?.task(0));
        };
        let index = index.parse().map_err(|_| {
            Reject::invalid(format!("{text:?} is not a task; tasks look like j12.3"))
        })?;
        Ok(job.parse::<JobId>()?.task(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back() {
        assert_eq!("j12".parse::<JobId>().unwrap(), JobId(12));
        assert_eq!("12".parse::<JobId>().unwrap(), JobId(12));
        let task = JobId(12).task(3);
        assert_eq!(task.to_string().parse::<TaskId>().unwrap(), task);
        for text in ["", "j", "jx", "j-1", "j1.x", "j1.", "12.4294967296"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
