//! Who may do what: the roles of people, and whom access is given to and taken from.
//!
//! A role says what a person may do; the scheduler keeps which one each has, and decides by its own
//! table of requests and roles. Machines have no role: an agent speaks for its node and asks nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reject::Reject;

/// What a person may do, each role a little more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks at the queue and the nodes, and changes nothing.
    Viewer,
    /// Submits jobs, and steers and reads those that are its own.
    User,
    /// Steers all jobs and nodes.
    Operator,
    /// Also lets people and nodes in, and takes access away.
    Administrator,
}

impl Role {
    /// Every role, the one that may least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::User, Self::Operator, Self::Administrator];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }

    /// The word with its article, as a sentence has it.
    #[must_use]
    pub const fn with_article(self) -> &'static str {
        match self {
            Self::Viewer => "a viewer",
            Self::User => "a user",
            Self::Operator => "an operator",
            Self::Administrator => "an administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = Reject;

    fn from_str(text: &str) -> Result<Self, Reject> {
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::word).join(", ");
            Reject::invalid(format!("{text:?} is no role; the roles are {words}"))
        })
    }
}

/// Somebody whom the scheduler knows by a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Principal {
    /// A person, by name.
    User(String),
    /// A node's agent, by the node's name.
    Node(String),
}

impl Principal {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Node(name) => name,
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Node(_) => "node",
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written_and_each_is_more_than_the_one_before() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!(Role::ALL.is_sorted());
        let reject = "root".parse::<Role>().unwrap_err();
        assert!(reject.sentence.contains("viewer, user, operator, administrator"), "{reject}");
    }
}
