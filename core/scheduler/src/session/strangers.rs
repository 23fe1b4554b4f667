//! Callers of whom nothing good is known: what they try is written down, and bounded.
//!
//! A secret of 128 bits is not guessed. What is bounded here is what guessing costs others: looks into
//! the store, and lines of the audit log. The bound is by address, or by network of 64 bits where that
//! is an IPv6 address, since whoever has one has them all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use gantry_link::{Connection, LinkError};
use gantry_model::{At, Level, Millis, Reject, Subject};

use super::{Caller, Shared};
use crate::audit::Entry;

/// So many from one address within this time are looked at.
const TRIES_MAX: u32 = 10;
const WITHIN: Millis = Millis::from_seconds(60);
/// Addresses that are told apart; all others share one count.
const ADDRESSES_MAX: usize = 4096;

/// What strangers have tried of late, by where they call from.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<BTreeMap<Option<Whence>, Tally>>);

/// Where somebody calls from: what is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whence {
    /// An address, or a network of IPv6.
    Network(IpAddr),
    /// An account of this host.
    Account(u32),
}

impl From<IpAddr> for Whence {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::Network([a, b, c, d, 0, 0, 0, 0].into())
            }
            v4 @ IpAddr::V4(_) => Self::Network(v4),
        }
    }
}

#[derive(Clone, Copy)]
struct Tally {
    since: At,
    count: u32,
}

impl Strangers {
    /// How many there were from this address within the time, this one too.
    fn count(&self, from: impl Into<Whence>, now: At, add: u32) -> u32 {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Some(from.into());
        if tallies.len() >= ADDRESSES_MAX && !tallies.contains_key(&key) {
            tallies.retain(|_, tally| now.since(tally.since) < WITHIN);
            if tallies.len() >= ADDRESSES_MAX {
                key = None;
            }
        }
        let tally = tallies.entry(key).or_insert(Tally { since: now, count: 0 });
        if now.since(tally.since) >= WITHIN {
            *tally = Tally { since: now, count: 0 };
        }
        tally.count = tally.count.saturating_add(add);
        tally.count
    }

    /// Whether a token from there is looked at.
    pub(super) fn may_try(&self, from: impl Into<Whence>, now: At) -> bool {
        self.count(from, now, 0) < TRIES_MAX
    }

    /// Whether one more from this address has a line in the log: a flood of callers fills no disk.
    pub(super) fn is_said(&self, address: IpAddr, now: At) -> bool {
        self.count(address, now, 1) <= TRIES_MAX
    }

    /// Counts something that was wrong; says which it was within the time.
    pub(super) fn wrong(&self, from: impl Into<Whence>, now: At) -> u32 {
        self.count(from, now, 1)
    }
}

/// Why somebody was not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unheard {
    /// Its certificate does not count here.
    Untrusted,
    /// It was refused with a sentence.
    Refused,
    /// It did not go on in time.
    Late,
    /// What it sent is no message.
    Malformed,
    /// It left.
    Left,
}

impl Unheard {
    const ALL: [Self; 5] =
        [Self::Untrusted, Self::Refused, Self::Late, Self::Malformed, Self::Left];

    const fn word(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Refused => "refused",
            Self::Late => "late",
            Self::Malformed => "malformed",
            Self::Left => "left",
        }
    }
}

impl From<&LinkError> for Unheard {
    fn from(error: &LinkError) -> Self {
        match error {
            LinkError::Untrusted(_) => Self::Untrusted,
            LinkError::Refused(_) => Self::Refused,
            LinkError::Timeout { .. } => Self::Late,
            LinkError::Wire(_) => Self::Malformed,
            _ => Self::Left,
        }
    }
}

/// How many were not heard, by the reason.
#[derive(Debug, Default)]
pub(crate) struct Tallied([AtomicU64; Unheard::ALL.len()]);

impl Tallied {
    pub(super) fn count(&self, why: Unheard) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each reason with its number.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let word =
            |(count, why): (&AtomicU64, Unheard)| (why.word(), count.load(Ordering::Relaxed));
        self.0.iter().zip(Unheard::ALL).map(word).collect::<Vec<_>>().into_iter()
    }
}

/// Writes down that a caller was turned away before anything was heard of it. What only went away is
/// not, and of many from one address only the first.
pub(super) async fn turned_away(shared: &Shared, from: IpAddr, error: &LinkError) {
    let why = match error {
        LinkError::Untrusted(why) => format!("no certificate that counts here: {why}"),
        LinkError::Refused(reject) => reject.sentence.clone(),
        _ => return,
    };
    let now = shared.core.clock.now();
    let count = shared.callers.wrong(from, now);
    refused(shared, from, count, Entry { why, ..Entry::new(now, "connect") }).await;
}

/// Writes down that somebody was turned away whose access was taken away. An agent calls again and
/// again, so that here too only the first from one address are written down.
pub(super) async fn known(shared: &Shared, connection: &Connection, reject: &Reject) {
    let caller = Caller::of(connection);
    let now = shared.core.clock.now();
    if shared.callers.wrong(connection.remote().ip(), now) <= TRIES_MAX {
        let mut line = caller.line(shared, "connect");
        (line.refused, line.why) = (true, reject.sentence.clone());
        shared.audit.record(line).await;
    }
}

/// Writes down that a token was none.
pub(super) async fn guessed(shared: &Shared, from: IpAddr, whom: String) {
    let now = shared.core.clock.now();
    let count = shared.guesses.wrong(from, now);
    let why = "the token is not known".to_owned();
    refused(shared, from, count, Entry { whom, why, ..Entry::new(now, "join") }).await;
}

/// Writes down what was refused to a stranger, of many from one address only the first.
async fn refused(shared: &Shared, from: IpAddr, count: u32, line: Entry) {
    if count > TRIES_MAX {
        return;
    }
    let from = from.to_canonical().to_string();
    if count == TRIES_MAX {
        let sentence = format!(
            "{TRIES_MAX} callers from {from} were turned away within a minute; what more come from there in it have no line in the audit log"
        );
        shared.core.note(Level::Warn, Subject::Cluster, sentence);
    }
    shared.audit.record(Entry { from, refused: true, ..line }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_counted_by_address_and_forgotten_after_their_time() {
        let strangers = Strangers::default();
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for n in 1..=TRIES_MAX {
            assert!(strangers.may_try(one, At(n.into())));
            assert_eq!(strangers.wrong(one, At(n.into())), n);
        }
        assert!(!strangers.may_try(one, At(100)));
        assert!(strangers.may_try(other, At(100)), "another address");
        assert!(strangers.may_try(one, At(1).after(WITHIN)), "later");
    }

    #[test]
    fn accounts_of_this_host_are_counted_each_by_itself() {
        let strangers = Strangers::default();
        for _ in 0..TRIES_MAX {
            assert!(strangers.may_try(Whence::Account(1000), At(1)));
            strangers.wrong(Whence::Account(1000), At(1));
        }
        assert!(!strangers.may_try(Whence::Account(1000), At(1)));
        assert!(strangers.may_try(Whence::Account(1001), At(1)), "another account");
        assert!(strangers.may_try(Whence::Account(1000), At(1).after(WITHIN)), "later");
    }

    #[test]
    fn a_network_counts_as_one_and_floods_of_addresses_share_a_count() {
        let strangers = Strangers::default();
        for n in 0..TRIES_MAX {
            let address: IpAddr = [0x2001, 0xdb8, 0, 1, 0, 0, 0, n as u16].into();
            strangers.wrong(address, At(1));
        }
        assert!(!strangers.may_try(IpAddr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]), At(1)));
        assert!(strangers.may_try(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]), At(1)));
        let flood = Strangers::default();
        for n in 0..ADDRESSES_MAX as u32 + TRIES_MAX {
            flood.wrong(IpAddr::V4(n.into()), At(1));
        }
        assert_eq!(flood.0.lock().unwrap().len(), ADDRESSES_MAX + 1);
        assert!(!flood.may_try(IpAddr::from([250, 0, 0, 1]), At(1)));
        assert!(flood.may_try(IpAddr::from([250, 0, 0, 1]), At(1).after(WITHIN)));
    }
}
