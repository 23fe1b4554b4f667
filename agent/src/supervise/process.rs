//! One command as a process: how it is started, and what is known when it ends.
//!
//! A command has a process group of its own, nothing on its standard input, and its output and
//! errors in one file. When it ends, whatever is left of its group is killed before it is reaped,
//! so that the group's number cannot belong to somebody else by then.

use std::fs;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::process::{Command, ExitStatus, Stdio};

use std::os::unix::process::{CommandExt, ExitStatusExt};

use gantry_model::{Exit, MemoryMib, TaskWork, Usage};
use rustix::process::{Pid, Signal, kill_process_group};

use super::protocol::Start;
use crate::output;
use crate::runner::exit_of;

/// Starts a command and gives its group, or says how a shell would say that it cannot.
pub(super) fn start(start: &Start) -> Result<Pid, Exit> {
    let TaskWork::Command { arguments, .. } = &start.launch.work else {
        return Err(cannot(126, "a built-in operation is no command".into()));
    };
    let (program, rest) =
        arguments.split_first().ok_or_else(|| cannot(127, "no command".into()))?;
    let output = output::append_to(&start.output)
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|error| cannot(126, format!("the output file cannot be written: {error}")))?;
    if let Some(checkpoint) = &start.checkpoint {
        fs::create_dir_all(checkpoint).map_err(|error| {
            cannot(126, format!("the checkpoint folder cannot be made: {error}"))
        })?;
    }
    let mut command = Command::new(program);
    command
        .args(rest)
        .current_dir(&start.folder)
        .env_remove("GANTRY_RESUME")
        .envs(&start.launch.environment)
        .envs(start.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.0)
        .stderr(output.1)
        .process_group(0);
    // Its end is waited for by number: dropping the handle does nothing to the process.
    let child = command.spawn().map_err(|error| match error.kind() {
        // The kernel does not say which of the two it misses.
        _ if !start.folder.is_dir() => {
            cannot(126, format!("there is no folder {} on this node", start.folder.display()))
        }
        ErrorKind::NotFound => cannot(127, format!("{program} is not found on this node")),
        _ => cannot(126, format!("{program} cannot be run: {error}")),
    })?;
    Pid::from_raw(child.id() as i32)
        .ok_or_else(|| cannot(126, format!("{program} ended while it was started")))
}

fn cannot(code: u8, sentence: String) -> Exit {
    Exit::NotStarted { code, sentence }
}

/// Waits until any child has ended, without reaping it. An error means that there is none.
pub(super) fn next_ended() -> io::Result<Pid> {
    find_ended(0)
}

/// A child that has ended already, without reaping it.
pub(super) fn one_ended() -> Option<Pid> {
    find_ended(libc::WNOHANG).ok()
}

fn find_ended(how: libc::c_int) -> io::Result<Pid> {
    let mut facts = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: the pointer is to a value of the right type, which the call fills.
        let done = unsafe {
            libc::waitid(libc::P_ALL, 0, facts.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT | how)
        };
        if done == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroed bytes are a valid value, and the call has filled in a child's facts, of which
    // the process id is one; it is left zero where none has ended.
    let raw = unsafe { facts.assume_init().si_pid() };
    Pid::from_raw(raw).ok_or_else(|| io::Error::other("a child without a number"))
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
