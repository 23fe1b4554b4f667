//! A host's clock that jumps while daemons run, by libfaketime: it stands before the C library in
//! their processes and adds to the wall clock what a file says. Steady clocks stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use gantry_model::access::Role;
use gantry_model::{At, Principal};
use gantry_tests::until;
use gantry_wire::{Reply, Request};

use super::{NODE, Part, Scene};
use crate::served::Served;

/// By how many seconds the clock is off after each jump, in turn.
const OFFSETS_S: [i64; 7] = [3600, 0, -3600, 0, 31_536_000, -31_536_000, 0];
/// How far what a daemon reports may be from where its clock was put: less than any jump.
const NEAR_MS: u64 = 60_000;
/// The person of whose access the scheduler says since when it is so.
const PERSON: &str = "clock";

/// The clock of one daemon.
pub(super) struct Dial {
    file: PathBuf,
    jumps: usize,
}

/// Where libfaketime for programs of many threads is installed.
pub(super) fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
}

impl Dial {
    /// Starts a daemon again under a clock that can be put.
    pub(super) fn place(part: Part, served: &mut Served) -> Result<Self> {
        let library = library().context("libfaketime is not installed")?;
        let dial = Self { file: served.cluster.folder().join("clock"), jumps: 0 };
        dial.put(0)?;
        let text = |path: &Path| path.display().to_string();
        let variables = [
            ("LD_PRELOAD", text(&library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&dial.file)),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_DISABLE_SHM", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        match part {
            Part::Scheduler => {
                served.cluster.kill_scheduler();
                served.cluster.set_environment("scheduler", variables);
                served.cluster.start_scheduler()?;
                served.reconnect()?;
            }
            Part::Agent => {
                served.cluster.kill_agent(NODE);
                super::clean(served)?;
                served.cluster.set_environment(NODE, variables);
                served.cluster.start_agent(NODE)?;
            }
            Part::Supervisor => bail!("a supervisor has the clock of its agent"),
        }
        Ok(dial)
    }

    /// Lets the clock be off by so many seconds. The file is never half written: it is read at each
    /// look at the clock.
    fn put(&self, offset_s: i64) -> Result<()> {
        let part = self.file.with_extension("part");
        fs::write(&part, format!("{offset_s:+}\n"))?;
        fs::rename(&part, &self.file).context("putting the clock")
    }
}

impl Scene {
    /// Lets the clock of a daemon jump, and looks that it tells the other time; it stays so until the
    /// next jump.
    pub(super) fn jump(&mut self, part: Part) -> Result<Instant> {
        let dial = self.dial.as_mut().context("no clock can be put")?;
        let offset_s = OFFSETS_S[dial.jumps % OFFSETS_S.len()];
        dial.jumps += 1;
        dial.put(offset_s)?;
        let jumped = Instant::now();
        until("a time after the jump", || {
            let told = match part {
                Part::Scheduler => self.scheduler_time().ok()?,
                Part::Agent | Part::Supervisor => self.node_time().ok()?,
            };
            let put = gantry::cli::time::now().0.saturating_add_signed(offset_s * 1000);
            (told.0.abs_diff(put) < NEAR_MS).then_some(())
        })?;
        Ok(jumped)
    }

    /// What the scheduler takes for the host's time when it lets somebody in.
    fn scheduler_time(&self) -> Result<At> {
        self.served.ask(&Request::UserToken { user: PERSON.into(), role: Role::Viewer })?;
        let Reply::Access { rows, .. } = self.served.ask(&Request::Access { after: None })? else {
            bail!("asked for accesses, got something else");
        };
        let person = Principal::User(PERSON.into());
        let row = rows.into_iter().find(|row| row.principal == person);
        Ok(row.context("the person is not known")?.since)
    }

    /// What the agent takes for its host's time in its newest sample.
    fn node_time(&self) -> Result<At> {
        let nodes = self.served.nodes()?;
        ensure!(nodes.len() == 1, "{} nodes", nodes.len());
        let sample = nodes.into_iter().next().and_then(|node| node.sample);
        Ok(sample.context("no sample has come")?.at)
    }
}
