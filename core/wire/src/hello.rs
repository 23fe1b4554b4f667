//! Which version of the protocol two peers speak.

use gantry_model::{Reject, RejectKind};

use crate::message::{Greeting, Peer};

/// The oldest version this program understands.
pub const VERSION_MIN: u16 = 1;
/// The newest version this program speaks.
pub const VERSION_MAX: u16 = 1;

/// The greeting of this program.
#[must_use]
pub fn greeting(peer: Peer) -> Greeting {
    Greeting {
        peer,
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        software: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The newest version that both speak, or a refusal that says which of the two is too old.
pub fn agree(greeting: &Greeting) -> Result<u16, Reject> {
    let newest = greeting.version_max.min(VERSION_MAX);
    if newest >= greeting.version_min.max(VERSION_MIN) {
        return Ok(newest);
    }
    let side = if greeting.version_max < VERSION_MIN { "the caller" } else { "the scheduler" };
    Err(Reject::new(
        RejectKind::Invalid,
        format!(
            "no common protocol: the caller ({}) speaks versions {} to {}, the scheduler ({}) {VERSION_MIN} to {VERSION_MAX}; upgrade {side}",
            greeting.software,
            greeting.version_min,
            greeting.version_max,
            env!("CARGO_PKG_VERSION"),
        ),
    ))
}

/// Whether the version that a scheduler has chosen is one that this program understands.
pub fn accept(version: u16) -> Result<(), Reject> {
    if (VERSION_MIN..=VERSION_MAX).contains(&version) {
        return Ok(());
    }
    Err(Reject::new(
        RejectKind::Invalid,
        format!(
            "the scheduler speaks version {version} of the protocol, this program ({}) {VERSION_MIN} to {VERSION_MAX}; upgrade this program",
            env!("CARGO_PKG_VERSION"),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_agree_on_the_newest() {
        for (min, max, agreed) in [(1, 1, Some(1)), (1, 9, Some(1)), (2, 9, None), (0, 0, None)] {
            let mut theirs = greeting(Peer::Console);
            (theirs.version_min, theirs.version_max) = (min, max);
            assert_eq!(agree(&theirs).ok(), agreed, "{min} to {max}");
        }
    }

    #[test]
    fn a_version_that_was_not_offered_is_not_accepted() {
        assert!(accept(VERSION_MIN).is_ok() && accept(VERSION_MAX).is_ok());
        for version in [VERSION_MIN - 1, VERSION_MAX + 1] {
            let sentence = accept(version).unwrap_err().sentence;
            assert!(sentence.contains("upgrade this program"), "{sentence}");
        }
    }
}
