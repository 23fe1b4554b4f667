//! Who has access, and what was done with it.

use gantry_model::access::Role;
use gantry_model::{At, Principal, Reject};
use serde::{Deserialize, Serialize};

/// Somebody who has access, or had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRow {
    /// Who.
    pub principal: Principal,
    /// The role of a person; none of a node, and none where access was taken away.
    pub role: Option<Role>,
    /// Whether access was taken away.
    pub revoked: bool,
    /// Since when that is so; the beginning of time for the cluster's first administrator.
    pub since: At,
    /// Who said so; nobody where it has always been so.
    pub by: String,
    /// Connections that are open now.
    pub connections: u32,
}

/// What the scheduler says to an account of its own host that calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Invitation {
    /// It gets an identity with this.
    Given {
        /// The name that the account has, and the person.
        name: String,
        /// The role that it has.
        role: Role,
        /// Where the scheduler is called from this host, as HOST:PORT.
        address: String,
        /// A single-use token for that name.
        token: String,
    },
    /// Refused; the sentence says why.
    Refused(Reject),
}

/// The cluster's authority, and how far its rotation has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityState {
    /// The SHA-256 of its certificate, in hexadecimal.
    pub fingerprint: String,
    /// When it was made, where the one before still counts.
    pub since: Option<At>,
    /// Who has called with a certificate of the one before and has none of this one yet, the first of them.
    pub behind: Vec<Principal>,
    /// How many they are.
    pub behind_count: u32,
    /// Who has access and has not called since, the first of them.
    pub unseen: Vec<Principal>,
    /// How many they are.
    pub unseen_count: u32,
}

/// A step of a rotation of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorityStep {
    /// Make the one that follows.
    Rotate,
    /// Give the one before up, once nobody needs it.
    Finish,
    /// Give the one before up, and lock those out who have nothing else.
    FinishAnyway,
}

/// Which lines of the audit log are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditQuery {
    /// Only what this user or node did.
    pub who: Option<String>,
    /// Only what was done from then on.
    pub from: Option<At>,
    /// Only what was done before then.
    pub until: Option<At>,
    /// Only what was refused.
    pub refused: bool,
    /// Only lines before the one with this number: the first of the page after; the end of the log
    /// where absent.
    pub before: Option<u64>,
}

/// One line of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its number; numbers rise by one.
    pub number: u64,
    /// When it was done.
    pub at: At,
    /// Who did it; empty where nobody is known by the certificate.
    pub who: String,
    /// What they were: a role, or `node`; empty where nobody is known.
    pub role: String,
    /// The address they called from.
    pub from: String,
    /// What they did, in a word.
    pub what: String,
    /// To which job, node or person; empty where to none.
    pub whom: String,
    /// Whether it was refused.
    pub refused: bool,
    /// Why it was refused, or what more is to be said.
    pub why: String,
}

/// One page of the audit log. A page may be empty and have more before it, since one look goes over
/// a bounded number of lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The lines, oldest first.
    pub rows: Vec<AuditRow>,
    /// The page before this one lies before this number.
    pub first: u64,
    /// Whether older lines exist.
    pub more: bool,
}

/// Whether an audit log is as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// The number of the oldest line that is kept; 0 where there is none.
    pub first: u64,
    /// The number of the newest line.
    pub last: u64,
    /// The hash of the newest line, in hexadecimal: kept elsewhere, it shows later that nothing up
    /// to here was changed.
    pub head: String,
    /// The first line that is not as it was written, and what is wrong with it.
    pub broken: Option<(u64, String)>,
}
