//! When a reading is one that a person must see, and when it is no longer.
//!
//! A [`Rule`] raises an alert once readings have been beyond one threshold for a while, and clears
//! it once they have been back behind another for a while. Between the two lies a band in which
//! nothing changes, so that a reading that wavers there neither raises nor clears. A [`Watchman`]
//! applies one rule to one series. Its promises: an alert is never raised or cleared before its
//! time; raised and cleared alternate; no reading within the band starts either.
//!
//! A reading that stays away neither confirms nor refutes. After a while it is called gone, once,
//! and what was raised stays raised until readings come back and clear it. Readings after so long
//! an absence say nothing of the time in between, so the while before a change begins anew. A
//! series that never had a reading is not missed: many GPUs do not tell some of theirs.

use gantry_model::{At, Level, Millis};
use serde::{Deserialize, Serialize};

/// On which side of its threshold a reading is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// At the threshold and above it.
    Above,
    /// At the threshold and below it.
    Below,
}

/// What is watched, and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The name of the series.
    pub series: String,
    /// Which readings are bad.
    pub side: Side,
    /// A reading here or beyond is bad.
    pub raise_at: u32,
    /// A reading that is not even here is good.
    pub clear_at: u32,
    /// How long readings must be bad before the alert is raised.
    pub raise_after: Millis,
    /// How long they must be good before it is cleared.
    pub clear_after: Millis,
    /// How long a reading may stay away before it is called gone: some times the time from one
    /// reading to the next.
    pub gone_after: Millis,
    /// How loud the alert is.
    pub level: Level,
    /// What it says to a person.
    pub sentence: String,
}

/// Where a reading lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Good,
    Band,
    Bad,
}

/// What a watchman has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The alert is raised.
    Raised {
        /// Since when readings have been bad.
        since: At,
        /// The newest.
        value: u32,
    },
    /// The alert is cleared.
    Cleared {
        /// Since when readings have been good.
        since: At,
        /// The newest.
        value: u32,
    },
    /// No reading comes any more.
    Gone {
        /// When the last one came.
        since: At,
    },
    /// Readings come again.
    Returned {
        /// The first.
        value: u32,
    },
}

/// Applies one rule to one series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchman {
    alert: Alert,
    /// Since when readings have spoken for the other state, without one against it.
    since: Option<At>,
    presence: Presence,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Alert {
    #[default]
    Clear,
    Raised,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Presence {
    /// No reading ever came.
    #[default]
    Never,
    /// The last one came then.
    Last(At),
    /// The last one came then, and that it is gone has been said.
    Gone(At),
}

impl Rule {
    /// Whether the rule makes sense.
    ///
    /// # Errors
    /// A sentence where it is cleared by readings that raise it, calls every reading gone, or names
    /// no series.
    pub fn check(&self) -> Result<(), String> {
        let Self { series, side, raise_at, clear_at, gone_after, .. } = self;
        if series.is_empty() {
            return Err("a rule for alerts names no series; say which it watches".into());
        }
        if *gone_after == Millis(0) {
            return Err(format!(
                "the rule for {series} calls every reading gone at once; give it some seconds"
            ));
        }
        let (is_possible, word) = match side {
            Side::Above => (clear_at <= raise_at, "above"),
            Side::Below => (clear_at >= raise_at, "below"),
        };
        if is_possible {
            return Ok(());
        }
        Err(format!(
            "the rule for {series} is raised at {raise_at} and cleared at {clear_at}, which is \
             {word} that; the two must not cross"
        ))
    }

    fn zone(&self, value: u32) -> Zone {
        // Where the thresholds cross, bad wins: such a rule clears late and never flaps.
        let (is_bad, is_good) = match self.side {
            Side::Above => (value >= self.raise_at, value < self.clear_at),
            Side::Below => (value <= self.raise_at, value > self.clear_at),
        };
        match (is_bad, is_good) {
            (true, _) => Zone::Bad,
            (false, true) => Zone::Good,
            (false, false) => Zone::Band,
        }
    }
}

impl Watchman {
    /// A watchman whose alert was raised before `at`, by readings of which nothing else is known.
    #[must_use]
    pub const fn raised(at: At) -> Self {
        Self { alert: Alert::Raised, since: None, presence: Presence::Last(at) }
    }

    /// Whether the alert is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.alert == Alert::Raised
    }

    /// Whether readings have been called gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.presence, Presence::Gone(_))
    }

    /// Takes a reading, or its absence, and says what has changed. One observation changes one thing
    /// at most. Times should rise; an older one is taken for the newest.
    pub fn observe(&mut self, rule: &Rule, at: At, value: Option<u32>) -> Option<Change> {
        match (self.presence, value) {
            (Presence::Never | Presence::Gone(_), None) => None,
            (Presence::Last(last), None) => {
                if at.since(last) < rule.gone_after {
                    return None;
                }
                self.presence = Presence::Gone(last);
                self.since = None;
                Some(Change::Gone { since: last })
            }
            (Presence::Gone(last), Some(value)) => {
                let at = at.max(last);
                self.presence = Presence::Last(at);
                // The first reading begins a while of its own.
                self.since = self.speaks(rule, value).then_some(at);
                Some(Change::Returned { value })
            }
            (Presence::Never, Some(value)) => self.judge(rule, at, value),
            (Presence::Last(last), Some(value)) => {
                let at = at.max(last);
                if at.since(last) >= rule.gone_after {
                    self.since = None;
                }
                self.judge(rule, at, value)
            }
        }
    }

    /// Whether a reading speaks for the state that the alert is not in.
    fn speaks(&self, rule: &Rule, value: u32) -> bool {
        match self.alert {
            Alert::Clear => rule.zone(value) == Zone::Bad,
            Alert::Raised => rule.zone(value) == Zone::Good,
        }
    }

    fn judge(&mut self, rule: &Rule, at: At, value: u32) -> Option<Change> {
        self.presence = Presence::Last(at);
        if !self.speaks(rule, value) {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(at);
        let (after, other, change) = match self.alert {
            Alert::Clear => (rule.raise_after, Alert::Raised, Change::Raised { since, value }),
            Alert::Raised => (rule.clear_after, Alert::Clear, Change::Cleared { since, value }),
        };
        if at.since(since) < after {
            return None;
        }
        self.alert = other;
        self.since = None;
        Some(change)
    }
}
