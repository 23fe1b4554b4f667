//! Alerts that an administrator sets: `[[alert]]` in the scheduler's settings.
//!
//! Thresholds are written with their units (`"90%"`, `"85 C"`, `"10G"`); what an alert comes to is a
//! [`Rule`] of `gantry-telemetry`, which has been checked before anybody applies it.

use std::collections::BTreeSet;

use gantry_model::{Level, Millis};
use gantry_telemetry::{Quantity, Rule, Side};
use serde::Deserialize;

use crate::agent::text;

/// Alerts of one file: each is applied to every sample of every node.
pub(crate) const ALERTS_MAX: usize = 32;
/// Characters of a sentence: what a screen can show.
const SENTENCE_CHARACTERS_MAX: usize = 200;
/// The longest that a reading must hold.
const FOR_MAX: Millis = Millis::from_seconds(24 * 3600);
/// What comes and goes is not over as soon as it is gone.
const CLEAR_AFTER_MIN: Millis = Millis::from_seconds(10);
/// A reading that stays away for so long is gone: sixty samples.
const GONE_AFTER: Millis = Millis::from_seconds(60);

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertSettings {
    /// Its name.
    pub name: String,
    /// The reading that is watched.
    pub series: Quantity,
    /// A reading there or above is bad.
    pub above: Option<Threshold>,
    /// A reading there or below is bad.
    pub below: Option<Threshold>,
    /// A reading that is not even there is good again; the threshold where absent.
    pub clear: Option<Threshold>,
    /// For how long readings must be bad, and good again.
    #[serde(rename = "for", default, deserialize_with = "text")]
    pub lasting: Millis,
    /// How loud it is.
    #[serde(default)]
    pub level: Loudness,
    /// The nodes it is for; all where absent.
    pub nodes: Option<BTreeSet<String>>,
    /// What it says to a person, before the numbers.
    pub sentence: Option<String>,
}

/// How loud an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loudness {
    /// Odd, nothing lost.
    #[default]
    Warn,
    /// A person must act.
    Fail,
}

impl Loudness {
    /// As a level of the event log.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Warn => Level::Warn,
            Self::Fail => Level::Fail,
        }
    }
}

/// A threshold as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct Threshold(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(i64),
    Real(f64),
    Text(String),
}

impl From<Written> for Threshold {
    fn from(written: Written) -> Self {
        Self(match written {
            Written::Whole(number) => number.to_string(),
            Written::Real(number) => number.to_string(),
            Written::Text(text) => text,
        })
    }
}

impl AlertSettings {
    /// Whether it is for a node.
    #[must_use]
    pub fn is_for(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// The rule it comes to.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn rule(&self) -> Result<Rule, String> {
        let name = &self.name;
        gantry_model::job::check_name("alert", name).map_err(|reject| reject.sentence)?;
        let (side, raise) = match (&self.above, &self.below) {
            (Some(raise), None) => (Side::Above, raise),
            (None, Some(raise)) => (Side::Below, raise),
            _ => return Err(format!("alert {name} needs above or below, and not both")),
        };
        let value = |threshold: &Threshold| {
            self.series.value_of(&threshold.0).map_err(|error| format!("alert {name}: {error}"))
        };
        let raise_at = value(raise)?;
        let clear_at = self.clear.as_ref().map_or(Ok(raise_at), value)?;
        if self.lasting > FOR_MAX {
            return Err(format!("alert {name} waits longer than {FOR_MAX}; shorten its for"));
        }
        let sentence = self.sentence.clone().unwrap_or_default();
        if sentence.chars().count() > SENTENCE_CHARACTERS_MAX || sentence.contains(char::is_control)
        {
            return Err(format!(
                "alert {name} has a sentence of more than {SENTENCE_CHARACTERS_MAX} characters, or with a control character; shorten it"
            ));
        }
        let rule = Rule {
            series: self.series.word().into(),
            side,
            raise_at,
            clear_at,
            raise_after: self.lasting,
            clear_after: self.lasting.max(CLEAR_AFTER_MIN),
            gone_after: GONE_AFTER,
            level: self.level.level(),
            sentence,
        };
        rule.check().map_err(|error| format!("alert {name}: {error}"))?;
        Ok(rule)
    }
}

/// What is wrong with the alerts of a file.
pub(crate) fn validate(alerts: &[AlertSettings]) -> Result<(), String> {
    if alerts.len() > ALERTS_MAX {
        return Err(format!(
            "{} alerts are more than the {ALERTS_MAX} that are applied; let some go",
            alerts.len()
        ));
    }
    let mut names = BTreeSet::new();
    for alert in alerts {
        alert.rule()?;
        if !names.insert(&alert.name) {
            return Err(format!("two alerts are named {}; give one another name", alert.name));
        }
    }
    Ok(())
}
