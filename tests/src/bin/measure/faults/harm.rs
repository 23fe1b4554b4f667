//! Harm to what daemons live on: the scheduler's journal and disk, an agent's storage, memory.
//!
//! A journal that is damaged while the scheduler is down is refused at the start, or has everything
//! that was acknowledged; where it is refused its copy is put back. A job that was acknowledged and
//! is not known after a start counts as lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gantry_model::health::{Ailment, Stage};
use gantry_model::{Action, JobId};
use gantry_tests::until;
use gantry_wire::{Reply, Request};

use super::place::{Place, may_mount};
use super::{NODE, Outcome, Scene};
use crate::served::{self, Served};

/// What is harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// The end of the journal's log is cut off while the scheduler is down.
    Torn,
    /// A bit of the journal or its log is another.
    Flipped,
    /// No room on the scheduler's disk.
    Full,
    /// The agent's storage cannot be written.
    ReadOnly,
    /// The agent's storage is not there.
    Vanished,
    /// The daemons' memory is taken by a neighbour.
    Memory,
}

/// What a scheduler's disk holds: a file system that a journal of some hundred jobs fits.
const DISK_MIB: u32 = 4;
/// Submits until a full disk takes no more.
const SUBMITS_MAX: u32 = 1000;
/// Memory of daemons, their tasks and a neighbour together.
const MEMORY_BYTES: u64 = 512 << 20;
/// Where groups of processes are whose memory is counted together.
const GROUPS: &str = "/sys/fs/cgroup/memory";

impl Harm {
    pub(super) const ALL: [Self; 6] =
        [Self::Torn, Self::Flipped, Self::Full, Self::ReadOnly, Self::Vanished, Self::Memory];

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Torn => "torn end of the journal",
            Self::Flipped => "flipped bit in the journal",
            Self::Full => "full disk of the scheduler",
            Self::ReadOnly => "read-only storage of the agent",
            Self::Vanished => "vanished storage of the agent",
            Self::Memory => "memory pressure",
        }
    }

    /// Why it cannot be done on this machine.
    pub(super) fn is_beyond(self) -> Option<&'static str> {
        match self {
            Self::Torn | Self::Flipped => None,
            Self::Full | Self::ReadOnly | Self::Vanished => {
                (!may_mount()).then_some("it needs the right to mount")
            }
            Self::Memory => Group::make().err().map(|_| "it needs a writable memory cgroup"),
        }
    }

    /// Puts what will be harmed where it can be, while nothing runs.
    pub(super) fn place(self, served: &mut Served) -> Result<Option<Place>> {
        Ok(match self {
            Self::Torn | Self::Flipped | Self::Memory => None,
            Self::Full => {
                let place = Place::small(DISK_MIB)?;
                served.cluster.kill_scheduler();
                place.take(&served.scheduler_folder())?;
                served.cluster.start_scheduler()?;
                served.reconnect()?;
                Some(place)
            }
            Self::ReadOnly | Self::Vanished => {
                let place = Place::of_its_own()?;
                served.cluster.kill_agent(NODE);
                super::clean(served)?;
                place.take(&served.cluster.folder().join(NODE))?;
                served.cluster.start_agent(NODE)?;
                Some(place)
            }
        })
    }
}

impl Scene {
    /// Does it, looks that it happened, and ends it; gives when it was over.
    pub(super) fn harm(
        &mut self,
        harm: Harm,
        held: Duration,
        jobs: &[JobId],
        outcome: &mut Outcome,
    ) -> Result<Instant> {
        match harm {
            Harm::Torn | Harm::Flipped => self.damage(harm, jobs, outcome),
            Harm::Full => self.fill(outcome),
            Harm::ReadOnly => {
                self.place()?.forbid_writing()?;
                std::thread::sleep(held);
                self.place()?.allow_writing()?;
                self.agent_again()
            }
            Harm::Vanished => {
                self.place()?.vanish()?;
                std::thread::sleep(held);
                self.place()?.come_back()?;
                self.agent_again()
            }
            Harm::Memory => self.press(),
        }
    }

    /// Waits until a job is done. A node that has had a trouble three times within a day waits for a
    /// person: this is the one.
    pub(super) fn wait_resuming(&self, job: JobId) -> Result<()> {
        let person = |ailment: &Ailment| ailment.stage == Stage::Person;
        until("the end of a job", || {
            let node = self.served.nodes().ok()?.into_iter().next()?;
            if node.row.ailments.iter().any(person) {
                let resume = Action::Resume { node: NODE.into() };
                self.served.ask(&Request::Act(resume)).ok()?;
            }
            self.served.job(job).ok()?.state.is_ended().then_some(())
        })?;
        self.served.wait_done(job).map(drop)
    }

    fn place(&self) -> Result<&Place> {
        self.place.as_ref().context("nothing was mounted")
    }

    /// Starts the agent where the harm has ended it, as a service manager does.
    fn agent_again(&mut self) -> Result<Instant> {
        let over = Instant::now();
        if self.served.processes(&["agent", "--exit-with-parent"])?.is_empty() {
            self.served.cluster.kill_agent(NODE);
            self.served.cluster.start_agent(NODE)?;
        }
        Ok(over)
    }

    /// Damages the journal of a scheduler that was killed, and starts it.
    fn damage(&mut self, harm: Harm, jobs: &[JobId], outcome: &mut Outcome) -> Result<Instant> {
        self.served.cluster.kill_scheduler();
        let folder = self.served.scheduler_folder();
        let files: Vec<(PathBuf, Vec<u8>)> =
            ["journal.sqlite", "journal.sqlite-wal", "journal.head"]
                .iter()
                .map(|name| folder.join(name))
                .filter_map(|path| Some((path.clone(), fs::read(&path).ok()?)))
                .collect();
        let which = match harm {
            Harm::Torn => 1,
            _ => self.chance.below(2) as usize,
        };
        let (path, bytes) = files.get(which).context("the journal has no log")?;
        ensure!(!bytes.is_empty(), "{} is empty", path.display());
        let mut damaged = bytes.clone();
        let at = self.chance.below(bytes.len() as u64) as usize;
        match harm {
            Harm::Torn => damaged.truncate(at),
            _ => damaged[at] ^= 1 << self.chance.below(8),
        }
        fs::write(path, damaged)?;
        if self.is_refused(jobs, outcome)? {
            outcome.refused += 1;
            for (path, bytes) in &files {
                fs::write(path, bytes)?;
            }
            let _ = fs::remove_file(folder.join("journal.sqlite-shm"));
        }
        let over = Instant::now();
        self.served.cluster.start_scheduler()?;
        self.served.reconnect()?;
        Ok(over)
    }

    /// Starts a scheduler once, to see whether it refuses what it finds; where it does not, counts
    /// the jobs that it does not know any more.
    fn is_refused(&mut self, jobs: &[JobId], outcome: &mut Outcome) -> Result<bool> {
        let folder = self.served.scheduler_folder().display().to_string();
        let path = self.served.cluster.folder().join("damaged.log");
        let log = File::create(&path)?;
        let gantry = &self.served.cluster.gantry;
        let mut command = gantry.command(&["scheduler", "--dir", &folder, "--exit-with-parent"]);
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn()?;
        let refused = until("a start or a refusal", || {
            let ended = child.try_wait().ok()?.map(|_| true);
            ended.or_else(|| gantry.json(&["nodes"]).ok().map(|_| false))
        })?;
        if refused {
            let said = fs::read_to_string(&path)?;
            ensure!(said.contains("journal cannot be used"), "it ended with: {said}");
            return Ok(true);
        }
        self.served.reconnect()?;
        for job in jobs {
            match self.served.client.ask(&Request::Job { job: *job }) {
                Ok(Reply::Job(_)) => {}
                Ok(other) => bail!("asked for {job}, got {other:?}"),
                Err(_) => outcome.forgotten += 1,
            }
        }
        child.kill()?;
        child.wait()?;
        Ok(false)
    }

    /// Takes all room of the scheduler's disk until a submit is refused, and gives it back.
    fn fill(&mut self, outcome: &mut Outcome) -> Result<Instant> {
        let filler = self.place()?.fill()?;
        let mut spec = served::command(&["true"]);
        spec.environment.insert("PAD".into(), "x".repeat(10_000));
        let mut acknowledged = Vec::new();
        let refusal = loop {
            ensure!(acknowledged.len() < SUBMITS_MAX as usize, "the disk is never full");
            match self.served.submit(spec.clone()) {
                Ok(job) => acknowledged.push(job),
                Err(error) => break error.to_string(),
            }
        };
        ensure!(refusal.contains("disk is full"), "a submit was refused with: {refusal}");
        fs::remove_file(filler)?;
        let over = Instant::now();
        for job in acknowledged {
            if self.served.wait_done(job).is_err() {
                outcome.forgotten += 1;
            }
        }
        Ok(over)
    }

    /// Lets a neighbour take the memory of the daemons until the kernel ends it.
    fn press(&mut self) -> Result<Instant> {
        let group = Group::make()?;
        for words in [&["scheduler", "--exit-with-parent"][..], &["agent", "--exit-with-parent"]] {
            for process in self.served.processes(words)? {
                group.take(&process.as_raw_nonzero().to_string())?;
            }
        }
        for process in self.served.processes(&["supervise"])? {
            group.take(&process.as_raw_nonzero().to_string())?;
        }
        // It is the first that the kernel ends; a file of nothing has no end.
        let line = format!(
            "echo $$ > {}/cgroup.procs && echo 1000 > /proc/self/oom_score_adj && exec tail /dev/zero",
            group.0.display()
        );
        let output = Command::new("sh").args(["-c", &line]).output()?;
        ensure!(!output.status.success(), "the neighbour was not ended");
        Ok(Instant::now())
    }
}

/// A group of processes with little memory; they leave it when this is dropped.
struct Group(PathBuf);

impl Group {
    fn make() -> Result<Self> {
        let group = Self(Path::new(GROUPS).join(format!("gantry-measure-{}", std::process::id())));
        fs::create_dir(&group.0)?;
        fs::write(group.0.join("memory.limit_in_bytes"), MEMORY_BYTES.to_string())?;
        Ok(group)
    }

    fn take(&self, process: &str) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), process)
            .with_context(|| format!("moving {process} into the group"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines() {
            // It may have ended.
            let _ = fs::write(Path::new(GROUPS).join("cgroup.procs"), process);
        }
        let _ = fs::remove_dir(&self.0);
    }
}
