//! Which tasks a command is about: `j12`, `j12.3`, `j12.0-99`.
//!
//! One parser for every command that takes jobs.

use std::fmt;
use std::str::FromStr;

use gantry_model::{IndexSet, JobId, Reject};

use crate::error::Failure;

/// A job, or some of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The job.
    pub job: JobId,
    /// Which elements; all where absent.
    pub indices: Option<IndexSet>,
}

impl Chosen {
    /// Whether it holds the element of this index.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.indices.as_ref().is_none_or(|indices| indices.contains(index))
    }

    /// The same job with these elements, where some are given beside it.
    ///
    /// # Errors
    /// Where elements are named twice.
    pub fn limited_to(&self, elements: Option<&IndexSet>) -> Result<Self, Failure> {
        match (elements, &self.indices) {
            (None, _) => Ok(self.clone()),
            (Some(elements), None) => Ok(Self { job: self.job, indices: Some(elements.clone()) }),
            (Some(elements), Some(_)) => Err(Failure::usage(format!(
                "{self} names elements, and so does --elements {elements}; keep one of the two"
            ))),
        }
    }
}

impl From<JobId> for Chosen {
    fn from(job: JobId) -> Self {
        Self { job, indices: None }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.indices {
            None => self.job.fmt(f),
            Some(indices) => write!(f, "{}.{indices}", self.job),
        }
    }
}

impl FromStr for Chosen {
    type Err = Reject;

    /// Reads `j12` for all of a job, `j12.3` for one element, `j12.0-99` or `j12.1,3` for several.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let Some((job, indices)) = text.split_once('.') else {
            return Ok(Self { job: text.parse()?, indices: None });
        };
        let indices = indices.parse().map_err(|reject: Reject| {
            Reject::invalid(format!("{text:?} names no elements: {}", reject.sentence))
        })?;
        Ok(Self { job: job.parse()?, indices: Some(indices) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_elements_people_type() {
        for (text, job, indices) in [
            ("j12", 12, None),
            ("12", 12, None),
            ("j12.3", 12, Some("3")),
            ("j12.0-99", 12, Some("0-99")),
            ("12.1,3,7-9", 12, Some("1,3,7-9")),
        ] {
            let chosen: Chosen = text.parse().unwrap();
            assert_eq!(chosen.job, JobId(job), "{text}");
            assert_eq!(chosen.indices.as_ref().map(ToString::to_string).as_deref(), indices);
            assert_eq!(chosen.to_string().parse::<Chosen>().unwrap(), chosen);
        }
        for text in ["", "j", "x", "j12.", "j12.x", "j12.9-0", "j12.1.2", "j12.0-1000000"] {
            assert!(text.parse::<Chosen>().is_err(), "{text}");
        }
    }

    #[test]
    fn elements_are_named_once() {
        let chosen = |text: &str| text.parse::<Chosen>().unwrap();
        let elements: IndexSet = "0-9".parse().unwrap();
        assert_eq!(chosen("j1").limited_to(Some(&elements)).unwrap(), chosen("j1.0-9"));
        assert_eq!(chosen("j1.3").limited_to(None).unwrap(), chosen("j1.3"));
        let twice = chosen("j1.3").limited_to(Some(&elements)).unwrap_err().sentence;
        assert!(twice.contains("keep one of the two"), "{twice}");
        assert!(chosen("j1.3").contains(3) && !chosen("j1.3").contains(4));
        assert!(chosen("j1").contains(4));
    }
}
