//! The scripts of a node's administrator, before and after each command.
//!
//! They run as the agent's user, in a process group of their own, with the variables of the task but
//! not with those of the job: a job could have them run what it likes. One that takes too long is
//! killed. What they leave in their group ends with them; a daemon that they start in a session of
//! its own ends with the try.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Pid;

use super::course::Course;
use super::process;
use super::shared::Shared;
use super::table::Script;

/// Bytes of a script's output that are looked at for its last line.
const LAST_BYTES: u64 = 4096;
/// Characters of that line that are told.
const LINE_CHARACTERS_MAX: usize = 200;
/// How long the end of a script that was killed is waited for in one piece.
const KILLED_WAIT: Duration = Duration::from_mins(1);

/// Why a script has failed.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Its exit code, where it has ended by itself.
    pub(super) code: Option<i32>,
    reason: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Shared {
    /// Runs a script for a try, and waits until it has ended.
    pub(super) fn script(&self, program: &Path, course: &Course) -> Result<(), Wrong> {
        let cannot = |error: io::Error| {
            let reason = format!("{} cannot be run: {error}", program.display());
            Wrong { code: None, reason }
        };
        // Not a pipe: what a script leaves running may hold it for ever.
        let output =
            memfd_create("script", MemfdFlags::CLOEXEC).map_err(|error| cannot(error.into()))?;
        let output = File::from(output);
        let (out, err) =
            output.try_clone().and_then(|out| Ok((out, output.try_clone()?))).map_err(cannot)?;
        let mut command = Command::new(program);
        command
            .current_dir("/")
            .envs(course.start.environment.iter().map(|(name, value)| (name, value)))
            .env("GANTRY_USER", &course.start.launch.user)
            .envs(course.room.variables())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let try_id = course.start.launch.try_id;
        let mut started = Err(io::ErrorKind::Other.into());
        self.enter(
            || command.spawn(),
            |table, child| {
                started = child.map(|child| Pid::from_raw(child.id() as i32));
                if let Ok(Some(process)) = started {
                    table.scripts.insert(process, Script { try_id, end: None });
                }
            },
        );
        let process = started
            .and_then(|process| process.ok_or_else(|| io::ErrorKind::InvalidData.into()))
            .map_err(cannot)?;
        let limit = Duration::from_millis(course.isolation.scripts.limit.0);
        self.await_script(process, limit).map_err(|mut wrong| {
            if let Some(line) = last_line(&output) {
                wrong.reason = format!("{}: {line}", wrong.reason);
            }
            wrong
        })
    }

    fn await_script(&self, process: Pid, limit: Duration) -> Result<(), Wrong> {
        let deadline = Instant::now() + limit;
        let mut over = false;
        let mut table = self.lock();
        loop {
            if let Some(status) = table.scripts.get(&process).and_then(|script| script.end) {
                table.scripts.remove(&process);
                let reason = match (status.code(), status.signal()) {
                    (Some(0), _) => return Ok(()),
                    _ if over => format!("it took longer than {} s", limit.as_secs_f32()),
                    (Some(code), _) => format!("exit {code}"),
                    (None, signal) => format!("signal {}", signal.unwrap_or_default()),
                };
                return Err(Wrong { code: status.code().filter(|_| !over), reason });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && !over {
                over = true;
                process::signal(process, libc::SIGKILL as u8);
            }
            table = self.wait(table, if over { KILLED_WAIT } else { left });
        }
    }
}

/// The last line that a script has printed, if it has.
fn last_line(output: &File) -> Option<String> {
    let length = output.metadata().ok()?.len();
    let start = length.saturating_sub(LAST_BYTES);
    let mut bytes = vec![0; (length - start) as usize];
    output.read_exact_at(&mut bytes, start).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let shown = line.trim().chars().filter(|one| !one.is_control()).take(LINE_CHARACTERS_MAX);
    Some(shown.collect())
}
