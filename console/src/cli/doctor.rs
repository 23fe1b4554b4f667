//! `gantry doctor`: what stands in the way of gantry on this machine, and how to mend it.
//!
//! It looks and changes nothing, but for a file in the library that it writes, syncs and removes
//! again. What does not belong to this machine's role is skipped and says so. Exits with 1 where
//! something fails.

mod cluster;
mod node;
mod seat;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::client::Reach;
use super::daemons::AGENT_FOLDER;
use crate::error::Outcome;
use crate::output::{self, Format};

/// `gantry doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The folder of this node's agent.
    #[arg(long, value_name = "DIR", default_value = AGENT_FOLDER)]
    agent_dir: PathBuf,
    /// A library to look at beside the one of the agent's settings.
    #[arg(long, env = "GANTRY_LIBRARY", value_name = "DIR")]
    library: Option<PathBuf>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// In order.
    Ok,
    /// It is no part of what this machine is for, or cannot be known.
    Skip,
    /// It works, and will bite one day.
    Warn,
    /// It does not work.
    Fail,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skip => "skip",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    mend: Option<String>,
}

impl Finding {
    fn new(check: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { check, state, found: found.into(), mend: None }
    }

    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, State::Ok, found)
    }

    fn skip(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, State::Skip, found)
    }

    fn warn(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..Self::new(check, State::Warn, found) }
    }

    fn fail(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..Self::new(check, State::Fail, found) }
    }
}

impl Doctor {
    /// Carries it out.
    ///
    /// # Errors
    /// Where standard output fails: what is wrong with the machine is what it prints.
    pub fn run(&self, cluster: &Reach, format: Format) -> Outcome {
        let mut found = cluster::findings(cluster);
        found.extend(node::findings(&self.agent_dir, self.library.as_deref()));
        found.extend(seat::findings(&seat::Seat::here()));
        let failed = found.iter().any(|one| one.state == State::Fail);
        let wrong = || {
            let bad = found.iter().filter(|one| matches!(one.state, State::Warn | State::Fail));
            bad.map(|one| one.check).collect::<Vec<_>>().join("\n")
        };
        format.print("doctor", &found, || page(&found), wrong)?;
        Ok(u8::from(failed))
    }
}

fn page(found: &[Finding]) -> String {
    let mut lines = Vec::new();
    for one in found {
        let line = format!("{:<5} {:<13} {}", one.state.word(), one.check, one.found);
        lines.push(output::clean(&line));
        lines.extend(one.mend.iter().map(|mend| output::clean(&format!("{:19} {mend}", ""))));
    }
    let count = |state| found.iter().filter(|one| one.state == state).count();
    let (warn, fail) = (count(State::Warn), count(State::Fail));
    lines.push(match (warn, fail) {
        (0, 0) => "nothing stands in the way".into(),
        _ => format!("{fail} of {} checks failed, {warn} warn", found.len()),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_says_how_to_mend_it() {
        let found = [
            Finding::ok("clock", "1 ms beside the scheduler's"),
            Finding::fail("ports", "nobody answers", "start gantry scheduler"),
            Finding::warn("locale", "LANG=C", "export LANG=C.UTF-8"),
        ];
        let page = page(&found);
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[0], "ok    clock         1 ms beside the scheduler's");
        assert_eq!(lines[2], "                    start gantry scheduler");
        assert_eq!(lines[5], "1 of 3 checks failed, 1 warn");
        for one in &found {
            let bad = matches!(one.state, State::Warn | State::Fail);
            assert_eq!(one.mend.is_some(), bad, "{one:?}");
        }
    }
}
