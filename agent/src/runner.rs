//! Commands of tasks as processes.
//!
//! Each has a process group of its own, nothing on its standard input, and its output and errors
//! in one file. When it ends, whatever is left of its group is killed before it is reaped, so that
//! the group's number cannot belong to somebody else by then.
//!
//! A command ends with the agent that started it (`PR_SET_PDEATHSIG`), also when the agent is
//! killed. What such a command had started itself may live on; the next agent of the folder ends
//! it ([`sweep`]) before it takes new work. A supervisor that lets tasks outlive their agent is
//! not here yet.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use gantry_model::{Exit, Gpu, Launch};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process, kill_process_group, pidfd_open,
    set_parent_process_death_signal,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::output;

/// A process that was started.
pub(crate) struct Started {
    /// Its group, to which signals go.
    pub(crate) group: Pid,
    child: tokio::process::Child,
    /// Readable once the process has ended, without reaping it.
    ended: AsyncFd<OwnedFd>,
}

/// Where an agent's tasks live.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The folder of output files.
    pub(crate) output: std::path::PathBuf,
    /// The folder in which a command runs that names none.
    pub(crate) work: std::path::PathBuf,
    /// The folder of checkpoint folders.
    pub(crate) checkpoints: std::path::PathBuf,
}

/// The variables that every task gets.
pub(crate) fn environment(launch: &Launch, places: &Places, gpus: &[Gpu]) -> Vec<(String, String)> {
    let task = launch.task;
    let checkpoint = places.checkpoints.join(task.job.to_string()).join(task.index.to_string());
    let devices: Vec<&str> = launch
        .lease
        .gpus
        .iter()
        .filter_map(|index| gpus.get(usize::from(*index)).map(|gpu| gpu.uuid.as_str()))
        .collect();
    let mut all = vec![
        ("GANTRY_JOB".to_owned(), task.job.to_string()),
        ("GANTRY_TASK".to_owned(), task.to_string()),
        ("GANTRY_INDEX".to_owned(), task.index.to_string()),
        ("GANTRY_TRY".to_owned(), launch.try_id.to_string()),
        ("GANTRY_CHECKPOINT".to_owned(), checkpoint.display().to_string()),
        ("CUDA_VISIBLE_DEVICES".to_owned(), devices.join(",")),
    ];
    if launch.start > 1 {
        all.push(("GANTRY_RESUME".to_owned(), "1".to_owned()));
    }
    all
}

/// Starts a command, or says how a shell would say that it cannot.
pub(crate) fn start(
    launch: &Launch,
    arguments: &[String],
    folder: Option<&str>,
    places: &Places,
    gpus: &[Gpu],
) -> Result<Started, Exit> {
    let cannot = |code: u8, sentence: String| Exit::NotStarted { code, sentence };
    let output = output::open(&places.output, launch.task)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| cannot(126, format!("the output file cannot be written: {error}")))?;
    let environment = environment(launch, places, gpus);
    let checkpoint = environment.iter().find(|(name, _)| name == "GANTRY_CHECKPOINT");
    if let Some((_, checkpoint)) = checkpoint {
        fs::create_dir_all(checkpoint).map_err(|error| {
            cannot(126, format!("the checkpoint folder cannot be made: {error}"))
        })?;
    }
    let (program, rest) =
        arguments.split_first().ok_or_else(|| cannot(127, "no command".into()))?;
    let folder = folder.map_or(places.work.as_path(), Path::new);
    if !folder.is_dir() {
        let sentence = format!("there is no folder {} on this node", folder.display());
        return Err(cannot(126, sentence));
    }
    let mut command = Command::new(program);
    command
        .args(rest)
        .current_dir(folder)
        .env_remove("GANTRY_RESUME")
        .envs(&launch.environment)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(output.0)
        .stderr(output.1)
        .process_group(0);
    end_with_parent(&mut command);
    let child =
        tokio::process::Command::from(command).spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => cannot(127, format!("{program} is not found on this node")),
            _ => cannot(126, format!("{program} cannot be run: {error}")),
        })?;
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let group =
        group.ok_or_else(|| cannot(126, format!("{program} ended while it was started")))?;
    let ended = watch(group).map_err(|error| {
        // Nothing may run that is not watched; an error means that it has ended already.
        let _ = kill_process_group(group, Signal::KILL);
        cannot(126, format!("{program} cannot be watched: {error}"))
    })?;
    Ok(Started { group, child, ended })
}

/// A value that becomes readable when the process ends.
fn watch(process: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let ended = pidfd_open(process, PidfdFlags::empty())?;
    // SAFETY: the value owns the descriptor, which it neither closes nor changes while it lives.
    unsafe { AsyncFd::register_with_interest(ended, Interest::READABLE) }.map_err(io::Error::from)
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

/// Ends what tasks of an earlier agent of this folder have left, told by their environment. Gives
/// how many processes that were.
pub(crate) fn sweep(places: &Places) -> usize {
    let mark = format!("GANTRY_CHECKPOINT={}/", places.checkpoints.display());
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let left = processes.flatten().filter_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        // Those of other users cannot be read, and are none of ours.
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let ours = environment.split(|byte| *byte == 0).any(|one| one.starts_with(mark.as_bytes()));
        ours.then(|| Pid::from_raw(id)).flatten()
    });
    left.filter(|process| kill_process(*process, Signal::KILL).is_ok()).count()
}

impl Started {
    /// Waits for the process, then ends what is left of its group.
    pub(crate) async fn wait(mut self) -> Exit {
        if let Err(error) = self.ended.readable().await {
            tracing::error!("a process cannot be watched any more and is ended: {error}");
        }
        // An error means that nothing is left.
        let _ = kill_process_group(self.group, Signal::KILL);
        let status = self.child.wait().await;
        status.map_or_else(
            |error| Exit::Failed(format!("its end could not be read: {error}")),
            exit_of,
        )
    }
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
mod tests;
