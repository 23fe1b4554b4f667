//! One command, or one built-in operation, as a process: how it is started, and what is known when it ends.
//!
//! A command has a process group of its own, nothing on its standard input, and its output and
//! errors in one file. When it ends, whatever is left of its group is killed before it is reaped,
//! so that the group's number cannot belong to somebody else by then; what has left the group is
//! found by its cgroup, or as a stray ([`super::strays`]).

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, Write};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::lchown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use gantry_model::{Exit, MemoryMib, TaskWork, Usage};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::thread::CpuSet;

use super::account::{Account, as_user};
use super::cgroup::Group;
use super::child::{self, FOLDER_STEP, Steps, User};
use super::isolation::Isolation;
use super::protocol::Start;
use super::room::{Room, cannot};
use super::scratch;
use crate::output;
use crate::runner::exit_of;
use crate::worker::alone;

/// What a service manager says to the agent alone: a task that took it for its own would speak in its
/// name, or write its output as the journal of the agent.
const OF_SERVICE: [&str; 5] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM"];

/// A command of which everything is there but its process.
pub(super) struct Ready {
    command: Command,
    steps: Steps,
    group: Option<Group>,
    program: String,
    folder: PathBuf,
    /// What it means that there is no such folder: the node's fault where the job named none.
    without_folder: u8,
}

/// Makes a command ready, or says how a shell would say that it cannot be started.
pub(super) fn prepare(start: &Start, room: &Room, isolation: &Isolation) -> Result<Ready, Exit> {
    let (arguments, folder) = match &start.launch.work {
        TaskWork::Command { arguments, folder } => (arguments, folder.is_some()),
        TaskWork::Builtin(_) => (&start.operation, false),
    };
    let (program, rest) =
        arguments.split_first().ok_or_else(|| cannot(127, "no command".into()))?;
    let account = room.account.as_ref();
    let output = open_output(&start.output, account)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| {
            // A file that the job has named is the job's to have; the others are the node's.
            let code = if start.launch.output.is_some() { 126 } else { 125 };
            cannot(code, format!("the output file cannot be written: {error}"))
        })?;
    if let Some(checkpoint) = &start.checkpoint {
        let made = fs::create_dir_all(checkpoint)
            .and_then(|()| account.map_or(Ok(()), |account| scratch::give(checkpoint, account)));
        made.map_err(|error| {
            cannot(125, format!("the checkpoint folder cannot be made: {error}"))
        })?;
    }
    let without_folder = if folder { 126 } else { 125 };
    let folder = if folder { &start.folder } else { room.folder(&start.folder) };
    let mut command = Command::new(program);
    if let Some(clean) = room.clean_environment() {
        command.env_clear().envs(clean);
    }
    command.args(rest).envs(room.defaults()).env_remove("GANTRY_RESUME");
    for of_service in OF_SERVICE {
        command.env_remove(of_service);
    }
    command
        .envs(threads(start))
        .envs(&start.launch.environment)
        .envs(start.environment.iter().map(|(name, value)| (name, value)))
        .envs(room.variables())
        .stdin(input(start)?)
        .stdout(output.0)
        .stderr(output.1)
        .process_group(0);
    if account.is_none() {
        command.current_dir(folder);
    }
    let (steps, group) = steps(start, room, isolation, folder)?;
    let (program, folder) = (program.clone(), folder.to_owned());
    Ok(Ready { command, steps, group, program, folder, without_folder })
}

/// What a process finds on its standard input: an operation, what it shall do.
fn input(start: &Start) -> Result<Stdio, Exit> {
    let fail =
        |error: io::Error| cannot(126, format!("the operation cannot be handed on: {error}"));
    let Some(bytes) = alone::input(&start.launch).map_err(fail)? else { return Ok(Stdio::null()) };
    // Not a pipe, which would take no more than 64 KiB before somebody reads.
    let file = memfd_create("operation", MemfdFlags::CLOEXEC).map(File::from);
    let mut file = file.map_err(|error| fail(error.into()))?;
    file.write_all(&bytes).and_then(|()| file.rewind()).map_err(fail)?;
    Ok(Stdio::from(file))
}

/// How many threads an operation computes with; a command decides that itself.
fn threads(start: &Start) -> Option<(&'static str, String)> {
    let operation = matches!(start.launch.work, TaskWork::Builtin(_));
    let cores = start.launch.lease.resources.cores.max(1);
    operation.then(|| ("RAYON_NUM_THREADS", cores.to_string()))
}

/// What the command's process does first, and the cgroup that it goes into.
fn steps(
    start: &Start,
    room: &Room,
    isolation: &Isolation,
    folder: &Path,
) -> Result<(Steps, Option<Group>), Exit> {
    let lease = &start.launch.lease;
    let mut steps = Steps { limits: isolation.process_limits(lease), ..Steps::default() };
    if let Some(cores) = &room.cores {
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core as usize);
        }
        steps.cores = Some(set);
    }
    if let Some(account) = &room.account {
        let folder = CString::new(folder.as_os_str().as_bytes())
            .map_err(|_| cannot(126, "its folder has a zero in its name".into()))?;
        steps.user = Some(User { account: account.clone(), umask: isolation.umask, folder });
    }
    let Ok(place) = &isolation.place else { return Ok((steps, None)) };
    let made = Group::make(place, &start.launch.try_id.to_string(), &isolation.limits(lease))
        .and_then(|group| Ok((group.door()?, group)));
    let (door, group) =
        made.map_err(|error| cannot(125, format!("its cgroup cannot be made: {error}")))?;
    steps.door = Some(door);
    Ok((steps, Some(group)))
}

impl Ready {
    /// Starts the command and gives its group.
    pub(super) fn start(self) -> Result<(Pid, Option<Group>), Exit> {
        let Self { command, steps, group, program, folder, without_folder } = self;
        let user = steps.user.as_ref().map(|user| user.account.name.clone());
        // Its end is waited for by number: dropping the handle does nothing to the process.
        let failed = match child::spawn(command, steps) {
            Ok(child) => match Pid::from_raw(child.id() as i32) {
                Some(leader) => return Ok((leader, group)),
                None => cannot(126, format!("{program} ended while it was started")),
            },
            Err((Some(FOLDER_STEP), error)) => {
                let (folder, user) = (folder.display(), user.unwrap_or_default());
                cannot(
                    126,
                    format!("{user} cannot go to the folder {folder} on this node: {error}"),
                )
            }
            Err((Some(step), error)) => cannot(125, format!("{step} failed on this node: {error}")),
            Err((None, error)) => match error.kind() {
                // The kernel does not say which of the two it misses.
                _ if user.is_none() && !folder.is_dir() => {
                    let sentence = format!("there is no folder {} on this node", folder.display());
                    cannot(without_folder, sentence)
                }
                ErrorKind::NotFound => cannot(127, format!("{program} is not found on this node")),
                _ => cannot(126, format!("{program} cannot be run: {error}")),
            },
        };
        if let Some(group) = group {
            group.end(Exit::NodeLost, Usage::default());
        }
        Err(failed)
    }
}

/// Opens the output file. It is the user's; one that the job has named is opened with the user's
/// rights, as the agent's would let a job write to any file of the node.
fn open_output(path: &Path, account: Option<&Account>) -> io::Result<File> {
    let Some(account) = account else { return output::append_to(path) };
    if let Ok(named) = fs::read_link(path) {
        let file = as_user(account, || output::append_to(&named))?;
        // From now on it may be read through the link.
        lchown(path, Some(account.uid.as_raw()), None)?;
        return Ok(file);
    }
    let file = output::append_to(path)?;
    rustix::fs::fchown(&file, Some(account.uid), Some(account.gid))?;
    Ok(file)
}

/// What is known of the children of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Children {
    /// This one has ended.
    Ended(Pid),
    /// None has ended that is not reaped.
    Live,
    /// There are none.
    None,
}

/// Waits until any child has ended, without reaping it.
pub(super) fn next_ended() -> Children {
    find_ended(0)
}

/// A child that has ended already, without reaping it.
pub(super) fn one_ended() -> Children {
    find_ended(libc::WNOHANG)
}

fn find_ended(how: libc::c_int) -> Children {
    let mut facts = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: the pointer is to a value of the right type, which the call fills.
        let done = unsafe {
            libc::waitid(libc::P_ALL, 0, facts.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT | how)
        };
        if done == 0 {
            break;
        }
        if io::Error::last_os_error().kind() != ErrorKind::Interrupted {
            return Children::None;
        }
    }
    // SAFETY: zeroed bytes are a valid value, and the call has filled in a child's facts, of which
    // the process id is one; it is left zero where none has ended.
    let raw = unsafe { facts.assume_init().si_pid() };
    Pid::from_raw(raw).map_or(Children::Live, Children::Ended)
}

/// Ends what is left of a script's group, and reaps it.
pub(super) fn reap_script(leader: Pid) -> ExitStatus {
    // An error means that nothing is left.
    let _ = kill_process_group(leader, Signal::KILL);
    // One whose end cannot be read has failed.
    wait(leader).map_or(ExitStatus::from_raw(libc::SIGKILL), |(status, _)| status)
}

/// Reaps a child of which nothing is known, if it has ended.
pub(super) fn reap_stray(child: Pid) {
    // An error means that whoever has started it in vain has reaped it.
    let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::NOHANG);
}

/// Ends what is left of a group whose leader has ended, and reaps the leader.
pub(super) fn reap(leader: Pid) -> (Exit, Usage) {
    // An error means that nothing is left.
    let _ = kill_process_group(leader, Signal::KILL);
    match wait(leader) {
        Ok((status, usage)) => (exit_of(status), usage),
        Err(error) => {
            (Exit::Failed(format!("its end could not be read: {error}")), Usage::default())
        }
    }
}

/// Reaps one child, and gives what it and those of its children that it had waited for used.
fn wait(child: Pid) -> io::Result<(ExitStatus, Usage)> {
    let mut status = 0;
    let mut used = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to values of the right types, which the call fills.
        let done = unsafe {
            libc::wait4(child.as_raw_nonzero().get(), &raw mut status, 0, used.as_mut_ptr())
        };
        if done >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroed bytes are a valid value, and the call has succeeded.
    let used = unsafe { used.assume_init() };
    let millis = |time: libc::timeval| (time.tv_sec as u64) * 1000 + (time.tv_usec as u64) / 1000;
    let usage = Usage {
        cpu_ms: millis(used.ru_utime) + millis(used.ru_stime),
        // The kernel counts in KiB; a process that is too small for a MiB has used one.
        memory_peak: MemoryMib((used.ru_maxrss as u64).div_ceil(1024)),
        // Blocks of 512 bytes.
        read_kib: used.ru_inblock as u64 / 2,
        written_kib: used.ru_oublock as u64 / 2,
    };
    Ok((ExitStatus::from_raw(status), usage))
}

/// Sends a signal to a whole group. One that is not there any more has its end on the way.
pub(super) fn signal(group: Pid, number: u8) {
    let raw = group.as_raw_nonzero().get();
    // SAFETY: the call takes two numbers. The group's leader is not reaped yet, so that the number
    // is nobody else's; the kernel refuses a number that is no signal.
    let _ = unsafe { libc::killpg(raw, libc::c_int::from(number)) };
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
