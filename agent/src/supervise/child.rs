//! What a command's process does between fork and exec, where anything is to be done.
//!
//! It steps into its cgroup, binds itself to its cores, takes its limits, becomes its user and goes
//! to its folder, in this order: each needs rights that a later one gives up. All that it needs is
//! made before the fork: the child of a process with threads must not allocate. Where a step fails
//! it writes that step's number into a pipe, as an error's number alone would not say what was tried.
//!
//! A command with none of these is started without: the fork of a process costs more than a spawn.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, chdir, setrlimit, umask};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::account::{Account, become_user};

type Step = fn(&Steps) -> io::Result<()>;

/// What is done, in order, and what it is called.
const STEPS: [(&str, Step); 5] = [
    ("going into its cgroup", Steps::enter),
    ("binding it to its cores", Steps::bind),
    ("limiting it", Steps::limit),
    ("becoming its user", Steps::become_user),
    ("going to its folder", Steps::go),
];

/// The step after which what fails is that the program cannot be run.
pub(super) const FOLDER_STEP: &str = STEPS[4].0;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// The file to write `0` into.
    pub(super) door: Option<File>,
    /// The cores to bind itself to.
    pub(super) cores: Option<CpuSet>,
    /// The limits to take.
    pub(super) limits: Vec<(Resource, u64)>,
    /// The user to become.
    pub(super) user: Option<User>,
}

/// A user to become.
#[derive(Debug)]
pub(super) struct User {
    /// The account.
    pub(super) account: Account,
    /// The file mode creation mask.
    pub(super) umask: u32,
    /// The folder to go to with the user's rights, which root may not have on shared storage.
    pub(super) folder: CString,
}

impl Steps {
    fn are_none(&self) -> bool {
        let Self { door, cores, limits, user } = self;
        door.is_none() && cores.is_none() && limits.is_empty() && user.is_none()
    }

    fn enter(&self) -> io::Result<()> {
        match &self.door {
            Some(door) => (&*door).write_all(b"0"),
            None => Ok(()),
        }
    }

    fn bind(&self) -> io::Result<()> {
        match &self.cores {
            Some(cores) => Ok(sched_setaffinity(None, cores)?),
            None => Ok(()),
        }
    }

    fn limit(&self) -> io::Result<()> {
        self.limits.iter().try_for_each(|(resource, most)| {
            setrlimit(*resource, Rlimit { current: Some(*most), maximum: Some(*most) })?;
            Ok(())
        })
    }

    fn become_user(&self) -> io::Result<()> {
        match &self.user {
            Some(user) => {
                umask(Mode::from_raw_mode(user.umask));
                become_user(&user.account)
            }
            None => Ok(()),
        }
    }

    fn go(&self) -> io::Result<()> {
        match &self.user {
            Some(user) => Ok(chdir(user.folder.as_c_str())?),
            None => Ok(()),
        }
    }

    /// Does it all, in the child.
    fn take(&self, failed: &PipeWriter) -> io::Result<()> {
        for (number, (_, step)) in STEPS.iter().enumerate() {
            if let Err(error) = step(self) {
                // Where not even that can be said the error's number has to do.
                let _ = (&*failed).write_all(&[number as u8]);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Starts a command whose process does these steps first. The error names the step that failed, if
/// it was one.
pub(super) fn spawn(
    mut command: Command,
    steps: Steps,
) -> Result<Child, (Option<&'static str>, io::Error)> {
    if steps.are_none() {
        return command.spawn().map_err(|error| (None, error));
    }
    let (mut told, failed) = io::pipe().map_err(|error| (None, error))?;
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls with what
    // was made before, and touches neither the heap nor a lock; its errors are plain numbers.
    unsafe {
        command.pre_exec(move || steps.take(&failed));
    }
    command.spawn().map_err(|error| {
        // The parent's end for writing goes with the command, so that the reading ends.
        drop(command);
        let mut number = [0];
        let step =
            told.read_exact(&mut number).ok().and_then(|()| STEPS.get(usize::from(number[0])));
        (step.map(|(name, _)| *name), error)
    })
}
