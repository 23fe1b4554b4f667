//! Processes that have left their try's process group.
//!
//! A process that makes a session of its own, as daemons do, gets no signal of its group. Whatever
//! loses its parent becomes a child of the supervisor, which has asked the kernel for that, so that
//! none gets away. It is told by its variable `GANTRY_TRY` whose it is: it is ended once that try
//! has ended. One that does not say is ended once no try is left.
//!
//! Commands are started by other threads than the first, which makes the first thread's children
//! exactly the adopted ones but for tries with scripts: finding that there are none is one reading.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use gantry_model::TryId;
use rustix::process::{Pid, getpid, set_child_subreaper};

/// Children that are looked at in one round: those behind them follow once these have ended.
const BYTES_MAX: usize = 64 * 1024;

/// How long an `execve` may take, whose program's pages may be on another host.
const EXEC_MAX: Duration = Duration::from_millis(100);

/// The list of the first thread's children.
#[derive(Debug)]
pub(super) struct Strays(File);

impl Strays {
    /// Adopts whatever loses its parent from now on. Without this, and on kernels that do not list
    /// children, those that have left their group stay alive.
    pub(super) fn adopt() -> io::Result<Self> {
        let own = getpid();
        set_child_subreaper(Some(own))?;
        File::open(format!("/proc/self/task/{}/children", own.as_raw_nonzero())).map(Self)
    }

    /// The present children of the first thread.
    pub(super) fn children(&self) -> Vec<Pid> {
        let mut text = [0; 1024];
        let mut all = Vec::new();
        while all.len() < BYTES_MAX {
            match self.0.read_at(&mut text, all.len() as u64) {
                Ok(length) if length > 0 => all.extend_from_slice(&text[..length]),
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(&all);
        text.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
    }
}

/// The try that a process says it is of.
pub(super) fn try_of(process: Pid) -> Option<TryId> {
    let environment = environment(process)?;
    let value =
        environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"GANTRY_TRY="))?;
    let number = std::str::from_utf8(value).ok()?.strip_prefix('t')?;
    number.parse().ok().map(TryId)
}

/// What a process was started with. In the middle of an `execve` the kernel has an empty
/// environment for it, which is not what it says: that is over in microseconds.
fn environment(process: Pid) -> Option<Vec<u8>> {
    let file = |name| format!("/proc/{}/{name}", process.as_raw_nonzero());
    let begin = Instant::now();
    loop {
        let environment = fs::read(file("environ")).ok()?;
        let settled = !environment.is_empty() || has_none(&fs::read_to_string(file("stat")).ok()?);
        if settled || begin.elapsed() > EXEC_MAX {
            return Some(environment);
        }
        thread::yield_now();
    }
}

/// Whether a process is dead, or its environment a known place without anything in it: fields 3,
/// 50 and 51 of `proc_pid_stat(5)`, told from behind the name, which may have spaces.
fn has_none(stat: &str) -> bool {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let dead = fields.get(1).is_none_or(|state| matches!(*state, "Z" | "X"));
    dead || matches!((fields.get(48), fields.get(49)), (Some(start), Some(end)) if start == end && *start != "0")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_says_its_try_while_it_becomes_another_program() {
        // It is looked at while it turns from one program into the next, again and again.
        let mut shell = Command::new("sh")
            .args(["-c", "echo; i=0; exec sh -c \"$0\" \"$0\" $i"])
            .arg("[ $1 -lt 300 ] || exec sleep 10; exec sh -c \"$0\" \"$0\" $(($1 + 1))")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("GANTRY_TRY", "t7")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let process = Pid::from_child(&shell);
        shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let name = || fs::read_to_string(format!("/proc/{}/comm", process.as_raw_nonzero()));
        while name().unwrap().trim() != "sleep" {
            assert_eq!(try_of(process), Some(TryId(7)));
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn a_process_without_an_environment_says_nothing() {
        let mut shell = Command::new("/bin/sleep").arg("10").env_clear().spawn().unwrap();
        let begin = Instant::now();
        assert_eq!(environment(Pid::from_child(&shell)), Some(Vec::new()));
        assert!(begin.elapsed() < EXEC_MAX, "the kernel tells that it has none");
        shell.kill().unwrap();
        assert_eq!(try_of(Pid::from_child(&shell)), None);
        shell.wait().unwrap();
    }
}
