//! The control group of one try: its limits, its end, and what was counted in it.
//!
//! A group is made with its limits before the command exists, and the command steps into it between
//! fork and exec, so that nothing it does goes uncounted. At its end the kernel kills whatever is
//! left in the group at once (`cgroup.kill`), wherever it has gone in sessions and process groups.
//!
//! `memory.high` stands a little below `memory.max`: there the kernel takes back caches before it
//! has to kill. No more than 64 MiB below it, as whoever goes on beyond is slowed down the more, the
//! further it goes: by a few seconds in all with this distance, by hours with one of some percent.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_config::CpuLimit;
use gantry_model::{Exit, MemoryMib, Usage};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::Timespec;

use super::{Controller, Place, write};

/// How long the end of a group's processes is waited for: a killed process may be in a driver.
const EMPTY_WAIT: Duration = Duration::from_millis(200);
/// Between `memory.high` and `memory.max` at most.
const HIGH_BELOW_MAX_BYTES: u64 = 64 << 20;
/// The kernel's period for a hard limit of processor time, in microseconds.
const PERIOD_US: u64 = 100_000;
/// The greatest weight that the kernel takes.
const WEIGHT_MAX: u64 = 10_000;
/// Weight of one core: a lease of 1,000 cores still has a weight of its own.
const WEIGHT_OF_CORE: u64 = 10;
/// Rounds of killing where the kernel is older than `cgroup.kill` (5.14).
const KILLS_MAX: usize = 10;

/// What a group is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervise) struct Limits {
    /// Any amount where zero.
    pub(in crate::supervise) memory: MemoryMib,
    /// Cores of the lease.
    pub(in crate::supervise) cores: u32,
    /// What they mean.
    pub(in crate::supervise) cpu: CpuLimit,
    /// Processes and threads.
    pub(in crate::supervise) pids: Option<u32>,
}

/// Whether a file has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Must,
    /// Older kernels, and kernels that were built with less, do not have it.
    May,
}

/// The group of a try.
#[derive(Debug)]
pub(in crate::supervise) struct Group {
    folder: PathBuf,
    limit: MemoryMib,
}

/// What was counted in a group; each is absent where the kernel does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    cpu_ms: Option<u64>,
    memory_peak: Option<MemoryMib>,
    disk_kib: Option<(u64, u64)>,
    memory_kills: u64,
}

/// What is left of a group after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It is gone.
    Nothing,
    /// Processes that are killed and do not end, and so the group.
    Processes,
}

impl Group {
    /// Makes the group of a try or of a worker.
    pub(in crate::supervise) fn make(
        place: &Place,
        name: &str,
        limits: &Limits,
    ) -> io::Result<Self> {
        let folder = place.folder.join(name);
        match fs::create_dir(&folder) {
            // One that could not be removed: no two of one agent have one number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                end(&folder);
                fs::create_dir(&folder)?;
            }
            other => other?,
        }
        let group = Self { folder, limit: limits.memory };
        if let Err(error) = limit(&group.folder, place, limits) {
            end(&group.folder);
            return Err(error);
        }
        Ok(group)
    }

    /// The file into which a process writes `0` to step into the group.
    pub(in crate::supervise) fn door(&self) -> io::Result<File> {
        File::options().write(true).open(self.folder.join("cgroup.procs"))
    }

    /// Ends whatever is left in the group, and tells how the try has ended by what was counted.
    pub(in crate::supervise) fn end(self, exit: Exit, usage: Usage) -> (Exit, Usage) {
        kill(&self.folder);
        // Where it fails the group is removed at the start of the next supervisor.
        let _ = empty(&self.folder);
        let counted = count(&self.folder);
        remove(&self.folder);
        judge(&counted, self.limit, exit, usage)
    }
}

/// How a try has ended, by what was counted of it.
fn judge(counted: &Counted, limit: MemoryMib, exit: Exit, usage: Usage) -> (Exit, Usage) {
    let (read_kib, written_kib) = counted.disk_kib.unwrap_or((usage.read_kib, usage.written_kib));
    let usage = Usage {
        cpu_ms: counted.cpu_ms.unwrap_or(usage.cpu_ms),
        memory_peak: counted.memory_peak.unwrap_or(usage.memory_peak),
        read_kib,
        written_kib,
    };
    // One that goes on without the process that was killed, and ends well, has not failed.
    let exit = match exit {
        Exit::Code(0) => exit,
        Exit::Code(_) | Exit::Signal(_) if counted.memory_kills > 0 => {
            Exit::OutOfMemory { used: usage.memory_peak, limit }
        }
        other => other,
    };
    (exit, usage)
}

/// Sets the limits of a group that has no process yet.
fn limit(folder: &Path, place: &Place, limits: &Limits) -> io::Result<()> {
    for (name, value, need) in files(place, limits) {
        let path = folder.join(name);
        if need == Need::Must || path.exists() {
            write(&path, &value).map_err(|error| {
                io::Error::other(format!("writing {value} to {name} failed: {error}"))
            })?;
        }
    }
    Ok(())
}

/// What is written into which file of a group, in order.
fn files(place: &Place, limits: &Limits) -> Vec<(&'static str, String, Need)> {
    let mut all = Vec::new();
    let cores = u64::from(limits.cores);
    let weight = (cores.max(1) * WEIGHT_OF_CORE).min(WEIGHT_MAX).to_string();
    if place.has(Controller::Memory) && limits.memory > MemoryMib(0) {
        let most = limits.memory.0.saturating_mul(1 << 20);
        let high = most - (most / 64).min(HIGH_BELOW_MAX_BYTES);
        all.push(("memory.max", most.to_string(), Need::Must));
        all.push(("memory.high", high.to_string(), Need::Must));
        // What does not fit must not push others' memory out to a disk.
        all.push(("memory.swap.max", "0".into(), Need::May));
        // Half of a task is no use to anybody.
        all.push(("memory.oom.group", "1".into(), Need::May));
    }
    if place.has(Controller::Cpu) {
        all.push(("cpu.weight", weight.clone(), Need::Must));
        if limits.cpu == CpuLimit::Hard && cores > 0 {
            all.push(("cpu.max", format!("{} {PERIOD_US}", cores * PERIOD_US), Need::Must));
        }
    }
    if let Some(pids) = limits.pids.filter(|_| place.has(Controller::Pids)) {
        all.push(("pids.max", pids.to_string(), Need::Must));
    }
    if place.has(Controller::Io) {
        all.push(("io.weight", weight, Need::May));
    }
    all
}

/// Kills all that is in a group.
fn kill(folder: &Path) {
    let file = folder.join("cgroup.kill");
    if write(&file, "1").is_ok() {
        return;
    }
    for _ in 0..KILLS_MAX {
        let here = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let here = here.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        // An error means that it has ended meanwhile.
        if here.filter(|process| kill_process(*process, Signal::KILL).is_ok()).count() == 0 {
            return;
        }
    }
}

/// Waits until no process is left in a group. The kernel says so on its file of events.
fn empty(folder: &Path) -> io::Result<()> {
    let events = File::open(folder.join("cgroup.events"))?;
    let deadline = Instant::now() + EMPTY_WAIT;
    let mut text = [0; 256];
    loop {
        // Read through the same handle: the wait below is for what is newer than its last reading.
        let length = events.read_at(&mut text, 0)?;
        if number(&String::from_utf8_lossy(&text[..length]), "populated") == Some(0) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        // Being interrupted is no reason to wait less.
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&wait));
    }
}

/// Ends and removes a group.
pub(super) fn end(folder: &Path) -> Left {
    kill(folder);
    if empty(folder).is_ok() && remove(folder) { Left::Nothing } else { Left::Processes }
}

/// Removes a group and those that its processes have made below it. Only folders are removed: the
/// files are the kernel's.
fn remove(folder: &Path) -> bool {
    if let Ok(below) = fs::read_dir(folder) {
        let folders = below.flatten().filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.for_each(|one| {
            remove(&one.path());
        });
    }
    fs::remove_dir(folder).is_ok()
}

fn count(folder: &Path) -> Counted {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    Counted {
        cpu_ms: read("cpu.stat").and_then(|text| Some(number(&text, "usage_usec")? / 1000)),
        memory_peak: read("memory.peak")
            .and_then(|text| text.trim().parse::<u64>().ok())
            .map(|bytes| MemoryMib(bytes.div_ceil(1 << 20))),
        disk_kib: read("io.stat")
            .map(|text| (sum(&text, "rbytes") / 1024, sum(&text, "wbytes") / 1024)),
        memory_kills: read("memory.events").and_then(|text| number(&text, "oom_kill")).unwrap_or(0),
    }
}

/// The number behind a word, of a file with a word and a number in each line.
fn number(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The sum of `word=number` over all lines.
fn sum(text: &str, word: &str) -> u64 {
    let values = text.split_whitespace().filter_map(|part| part.split_once('='));
    values
        .filter(|(name, _)| *name == word)
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
