//! What a task's processes are given, and what is known of them from outside.
//!
//! A command is started by the supervisor ([`crate::supervise`]), an operation by a worker
//! ([`crate::worker`]); here is what both have in common: the variables a task finds, how an end
//! reads, and how what a dead supervisor left behind is found and ended.
//!
//! `GANTRY_CHECKPOINT` names a folder that is the task's own on this node and stays for its later
//! starts. It is there for a task that has GPUs, and from the second start on; another task makes it
//! (`mkdir -p`) once it has something to keep. A folder for each element of an array, made and
//! removed again empty, would cost as much as all else that the agent does for it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, SystemTime};

use gantry_config::RunAs;
use gantry_model::{Exit, GPU_WHOLE, Gpu, JobId, Launch, MemoryMib, TaskId, TaskWork};
use rustix::process::{
    Pid, Signal, getpgid, getpid, getppid, kill_process, kill_process_group,
    set_parent_process_death_signal,
};

use crate::environ;
use crate::supervise::protocol::Start;

/// Looks for what a dead supervisor has left: what starts processes as fast as they are ended would
/// be looked for again and again.
const SWEEPS_MAX: usize = 10;
/// How long a folder of checkpoint folders has been empty when it goes: whoever has just made it makes
/// another one in it.
const EMPTY_AGE: Duration = Duration::from_mins(1);

/// Where an agent's tasks live.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The folder of output files.
    pub(crate) output: PathBuf,
    /// The folder in which a command runs that names none.
    pub(crate) work: PathBuf,
    /// The folder of checkpoint folders.
    pub(crate) checkpoints: PathBuf,
    /// As whom commands run.
    pub(crate) run_as: RunAs,
    /// The command line of a process that carries out built-in operations.
    pub(crate) worker: Vec<String>,
    /// The Python that may have `PyTorch`, for trainings.
    pub(crate) python: String,
}

impl Places {
    /// What tells this agent's processes from those of others on this host, in their variable
    /// `GANTRY_AGENT`: checkpoints may be on a storage that all share.
    pub(crate) fn mark(&self) -> String {
        self.output.display().to_string()
    }

    /// The folder of a task's checkpoints.
    fn checkpoint(&self, task: TaskId) -> PathBuf {
        self.checkpoints.join(task.job.to_string()).join(task.index.to_string())
    }

    /// The folder of a task's checkpoints, where it is made before the task starts.
    pub(crate) fn checkpoint_made(&self, launch: &Launch) -> Option<PathBuf> {
        if matches!(launch.work, TaskWork::Builtin(_)) {
            // A training keeps its own in the library.
            return None;
        }
        // A submitter may not make folders beside those of others.
        let for_user = self.run_as == RunAs::Submitter;
        let made = for_user || launch.start > 1 || !launch.lease.gpus.is_empty();
        made.then(|| self.checkpoint(launch.task))
    }

    /// Removes the folders of jobs, but for live ones, in which no task has kept a folder of its own.
    pub(crate) fn remove_empty_checkpoints(
        &self,
        live: &BTreeSet<JobId>,
        now: SystemTime,
    ) -> io::Result<()> {
        for entry in fs::read_dir(&self.checkpoints)? {
            let entry = entry?;
            let job = entry.file_name().to_str().and_then(|name| name.parse::<JobId>().ok());
            let since = now.duration_since(entry.metadata()?.modified()?).unwrap_or_default();
            if job.is_some_and(|job| !live.contains(&job)) && since > EMPTY_AGE {
                // Only where nothing is in it. On a storage that all share another may be sooner.
                let _ = fs::remove_dir(entry.path());
            }
        }
        Ok(())
    }
}

/// The variables that every task gets.
pub(crate) fn environment(launch: &Launch, places: &Places, gpus: &[Gpu]) -> Vec<(String, String)> {
    let task = launch.task;
    let leased: Vec<&Gpu> =
        launch.lease.gpus.iter().filter_map(|index| gpus.get(usize::from(*index))).collect();
    let devices: Vec<&str> = leased.iter().map(|gpu| gpu.uuid.as_str()).collect();
    let mut all = vec![
        ("GANTRY_JOB".to_owned(), task.job.to_string()),
        ("GANTRY_TASK".to_owned(), task.to_string()),
        ("GANTRY_INDEX".to_owned(), task.index.to_string()),
        ("GANTRY_TRY".to_owned(), launch.try_id.to_string()),
        ("GANTRY_CHECKPOINT".to_owned(), places.checkpoint(task).display().to_string()),
        ("GANTRY_AGENT".to_owned(), places.mark()),
        ("CUDA_VISIBLE_DEVICES".to_owned(), devices.join(",")),
    ];
    if matches!(launch.work, TaskWork::Builtin(_)) {
        all.push(("GANTRY_TORCH_PYTHON".to_owned(), places.python.clone()));
        let memory = launch.lease.resources.memory;
        if memory > MemoryMib(0) {
            // A training holds as many of its samples as there is room for.
            all.push(("GANTRY_MEMORY_MIB".to_owned(), memory.0.to_string()));
        }
    }
    if launch.start > 1 {
        all.push(("GANTRY_RESUME".to_owned(), "1".to_owned()));
    }
    all.extend(share(launch.lease.gpu_permille, &leased));
    all
}

/// The variables of a task that has a share of its GPUs: the share, the part of the processors that
/// CUDA's MPS lets it use, and its part of the smallest GPU's memory.
fn share(permille: u16, leased: &[&Gpu]) -> Vec<(String, String)> {
    let smallest = leased.iter().map(|gpu| gpu.memory.0).min();
    let Some(memory_mib) = smallest.filter(|_| (1..GPU_WHOLE).contains(&permille)) else {
        return Vec::new();
    };
    let fraction = format!("0.{permille:03}");
    let memory_mib = memory_mib * u64::from(permille) / u64::from(GPU_WHOLE);
    vec![
        ("GANTRY_GPU_SHARE".to_owned(), fraction.trim_end_matches('0').to_owned()),
        ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE".to_owned(), permille.div_ceil(10).to_string()),
        ("GANTRY_GPU_MEMORY_MIB".to_owned(), memory_mib.to_string()),
    ]
}

/// What a supervisor needs to start a command or an operation.
pub(crate) fn plan(
    launch: Launch,
    output: PathBuf,
    read: u64,
    places: &Places,
    gpus: &[Gpu],
) -> Start {
    let folder = match &launch.work {
        TaskWork::Command { folder: Some(folder), .. } => Path::new(folder),
        _ => places.work.as_path(),
    };
    let operation = match launch.work {
        TaskWork::Builtin(_) => places.worker.clone(),
        TaskWork::Command { .. } => Vec::new(),
    };
    Start {
        operation,
        environment: environment(&launch, places, gpus),
        folder: folder.to_owned(),
        output,
        checkpoint: places.checkpoint_made(&launch),
        near: launch
            .lease
            .gpus
            .iter()
            .filter_map(|index| gpus.get(usize::from(*index))?.numa)
            .collect(),
        launch,
        read,
    }
}

/// Lets a command's process end with the thread that starts it.
pub(crate) fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let set = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that ended before the call above sends no signal any more.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure runs in the child between fork and exec. It makes two system calls and
    // touches neither the heap nor a lock; the error it may build is a plain number.
    unsafe {
        command.pre_exec(set);
    }
}

/// Ends what commands of this folder have left whose supervisor is dead, told by their environment.
/// Gives how many processes that were.
pub(crate) fn sweep(places: &Places) -> usize {
    let mark = places.mark();
    let (mut ended, mut looked_in_vain) = (0, 0);
    for _ in 0..SWEEPS_MAX {
        let found = sweep_once(mark.as_bytes());
        ended += found;
        looked_in_vain = if found == 0 { looked_in_vain + 1 } else { 0 };
        // Behind the place where the list was just read, a process may have started another.
        if looked_in_vain == 2 {
            break;
        }
    }
    ended
}

fn sweep_once(mark: &[u8]) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    let mut numbers: Vec<i32> = processes.flatten().filter_map(number).collect();
    // The newest first: commands that still run were mostly started after all else on the machine.
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    // Those of other users cannot be read, and are none of ours.
    let is_ours = |environment: &[u8]| environ::variable(environment, "GANTRY_AGENT") == Some(mark);
    // With all of its group at once, where that is ours: a script whose step were ended before it would
    // take the next.
    let leads = |group| environ::glance(group).is_some_and(|environment| is_ours(&environment));
    let end = |process| match getpgid(Some(process)) {
        Ok(group) if leads(group) => kill_process_group(group, Signal::KILL).is_ok(),
        _ => kill_process(process, Signal::KILL).is_ok(),
    };
    let (mut ended, mut unsettled) = (0, Vec::new());
    for process in numbers.into_iter().filter_map(Pid::from_raw) {
        match environ::glance(process) {
            Some(nothing) if nothing.is_empty() => unsettled.push(process),
            Some(environment) if is_ours(&environment) => ended += usize::from(end(process)),
            _ => {}
        }
    }
    // None that can be ended at once waits for one that becomes another program.
    for process in unsettled {
        if environ::read(process).is_some_and(|environment| is_ours(&environment)) {
            ended += usize::from(end(process));
        }
    }
    ended
}

/// A process' end as the model has it.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code as u8),
        (None, Some(signal)) => Exit::Signal(signal as u8),
        (None, None) => Exit::Failed("it ended in a way that is neither exit nor signal".into()),
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
pub(crate) mod tests;
