//! What the processes of each task use.
//!
//! The supervisor starts each command with `GANTRY_AGENT` and `GANTRY_TASK` in its environment, and
//! whatever descends from it is the task's: a child of a member, one of a member's process group,
//! and, as members may leave group and parent behind, whoever has those variables. So nothing needs
//! to be told here, and an agent that takes tasks over finds them.
//!
//! Cost: one listing of `/proc` a second, and a file or two for each member. The others are looked
//! at twice and then only every sixteenth second, as their number may have become a member's.
//! Processor time and disk traffic hold those of children that have ended, as the kernel adds them
//! to whoever waited for them. Where a task has a control group of its own, that says more: it
//! counts shared memory once, and nobody leaves it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gantry_model::TaskId;
use gantry_telemetry::{GpuSample, TaskSample};

use super::process::{Cgroup, Io, Proc, Stat};
use super::{MIB, per_second};

/// Looks at a process before it is called a stranger: between its start and that of its program it
/// has its parent's environment.
const LOOKS: u8 = 2;
/// Readings between two looks at a stranger.
const STRANGERS_EACH: u64 = 16;
/// Tasks told of.
const TASKS_MAX: usize = 64;

/// A process as it was last seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// With its number its identity.
    start: u64,
    /// Whose it is.
    task: Option<TaskId>,
    /// How often it was found to be nobody's.
    looks: u8,
}

/// What a task has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu_us: u64,
    io: Io,
}

/// A task with processes.
#[derive(Debug)]
struct Task {
    cgroup: Option<PathBuf>,
    last: Used,
    at: Instant,
}

/// One reading of a task's processes.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    processes: u32,
    ticks: u64,
    pages: u64,
    io: Io,
    /// The age of the eldest.
    age: Duration,
}

/// What the kernel counts in.
#[derive(Clone, Copy, Debug)]
struct Units {
    ticks_per_second: u64,
    page_bytes: u64,
}

/// Reads the processes of an agent's tasks.
pub(super) struct Tasks {
    proc: Proc,
    units: Units,
    /// What tells this agent's tasks from those of others on this host.
    mark: String,
    seen: BTreeMap<u32, Seen>,
    known: BTreeMap<TaskId, Task>,
    turn: u64,
}

impl Tasks {
    /// Reads those whose variable `GANTRY_AGENT` is `mark`.
    pub(super) fn new(mark: String) -> Self {
        let units = Units {
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            page_bytes: rustix::param::page_size() as u64,
        };
        Self {
            proc: Proc::new("/proc".into()),
            units,
            mark,
            seen: BTreeMap::new(),
            known: BTreeMap::new(),
            turn: 0,
        }
    }

    /// What each task uses, those that use most first; says of each process on a GPU whose it is.
    pub(super) fn read(&mut self, gpus: &mut [GpuSample]) -> Vec<TaskSample> {
        let sums = self.sum();
        let mut gpu_mib = BTreeMap::<TaskId, u64>::new();
        for process in gpus.iter_mut().flat_map(|gpu| &mut gpu.processes) {
            process.task = self.seen.get(&process.pid).and_then(|seen| seen.task);
            if let Some(task) = process.task {
                *gpu_mib.entry(task).or_default() += process.memory_mib.unwrap_or(0);
            }
        }
        self.known.retain(|task, _| sums.contains_key(task));
        let mut samples: Vec<TaskSample> = sums
            .iter()
            .map(|(task, sum)| {
                let gpu_memory_mib = gpu_mib.get(task).copied().unwrap_or(0);
                TaskSample { gpu_memory_mib, ..self.sample(*task, sum) }
            })
            .collect();
        samples.sort_by_key(|one| std::cmp::Reverse((one.cpu_permille, one.memory_mib, one.task)));
        samples.truncate(TASKS_MAX);
        samples
    }

    /// Looks at the processes there are, and adds up those of each task.
    fn sum(&mut self) -> BTreeMap<TaskId, Sum> {
        self.turn += 1;
        let uptime = uptime();
        let mut before = std::mem::take(&mut self.seen);
        let mut sums = BTreeMap::<TaskId, Sum>::new();
        for process in self.proc.processes() {
            let known = before.remove(&process);
            let is_stranger = known.is_some_and(|seen| seen.task.is_none() && seen.looks >= LOOKS);
            let is_due = (u64::from(process) + self.turn).is_multiple_of(STRANGERS_EACH);
            if let Some(seen) = known.filter(|_| is_stranger && !is_due) {
                self.seen.insert(process, seen);
                continue;
            }
            let Some(stat) = self.proc.stat(process) else { continue };
            let known = known.filter(|seen| seen.start == stat.start);
            let seen = self.look(process, &stat, known);
            self.seen.insert(process, seen);
            let Some(task) = seen.task else { continue };
            let sum = sums.entry(task).or_default();
            sum.processes += u32::from(!stat.has_ended);
            sum.ticks += stat.ticks;
            sum.pages += stat.pages;
            let io = self.proc.io(process).unwrap_or_default();
            sum.io = Io { read: sum.io.read + io.read, written: sum.io.written + io.written };
            let begun = Duration::from_millis(stat.start * 1000 / self.units.ticks_per_second);
            sum.age = sum.age.max(uptime.saturating_sub(begun));
        }
        sums.retain(|_, sum| sum.processes > 0);
        sums
    }

    /// Whose a process is.
    fn look(&mut self, process: u32, stat: &Stat, known: Option<Seen>) -> Seen {
        if let Some(seen) = known
            && (seen.task.is_some() || seen.looks >= LOOKS)
        {
            return seen;
        }
        let of = |number: u32| self.seen.get(&number).and_then(|seen| seen.task);
        let task =
            of(stat.parent).or_else(|| of(stat.group)).or_else(|| self.first_of(process, stat));
        let looks = known.map_or(0, |seen| seen.looks) + 1;
        Seen { start: stat.start, task, looks }
    }

    /// The task whose variables a process has. It is the first of the task that is seen, or one that
    /// has left the others.
    fn first_of(&mut self, process: u32, stat: &Stat) -> Option<TaskId> {
        let names = ["GANTRY_AGENT", "GANTRY_TASK"];
        let [mark, task] = self.proc.variables(process, names)?;
        let task = task.filter(|_| mark.as_ref() == Some(&self.mark))?.parse().ok()?;
        if !self.known.contains_key(&task) {
            let cgroup = self.proc.own_cgroup(process, stat.parent);
            // Without a reading before it, the time since its start counts.
            self.known.insert(task, Task { cgroup, last: Used::default(), at: Instant::now() });
        }
        Some(task)
    }

    fn sample(&mut self, task: TaskId, sum: &Sum) -> TaskSample {
        let now = Instant::now();
        let fresh = Task { cgroup: None, last: Used::default(), at: now };
        let known = self.known.entry(task).or_insert(fresh);
        let group = known.cgroup.as_deref().map(Cgroup::read).unwrap_or_default();
        let used = Used {
            cpu_us: group.cpu_us.unwrap_or(sum.ticks * 1_000_000 / self.units.ticks_per_second),
            io: group.io.unwrap_or(sum.io),
        };
        let is_first = known.last == Used::default();
        let since = if is_first { sum.age } else { now.duration_since(known.at) };
        let millis = (since.as_millis() as u64).max(1);
        // A sum falls where a member has ended for whom nobody waited.
        let last = std::mem::replace(&mut known.last, used);
        known.at = now;
        TaskSample {
            task,
            processes: sum.processes,
            cpu_permille: (used.cpu_us.saturating_sub(last.cpu_us) / millis) as u32,
            memory_mib: group.memory_bytes.unwrap_or(sum.pages * self.units.page_bytes) / MIB,
            read_kib: per_second(used.io.read.saturating_sub(last.io.read), millis),
            written_kib: per_second(used.io.written.saturating_sub(last.io.written), millis),
            gpu_memory_mib: 0,
        }
    }
}

/// Time since the start of the machine, as the kernel counts the starts of processes.
fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}

#[cfg(test)]
#[path = "tasks_tests.rs"]
mod tests;
