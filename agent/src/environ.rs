//! What a process was started with, as others read it.
//!
//! A process says by its variables whose it is. Read from `/proc/<pid>/environ` they may be missing
//! for a moment, while the process becomes another program: the kernel has given up the old memory
//! and not yet noted where the new environment lies, or has noted where it begins and not yet where
//! it ends. Both read as an empty environment, which is not what the process says.

use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// How long an `execve` may take, whose program's pages may be on another host.
const EXEC_MAX: Duration = Duration::from_secs(1);

/// More than the kernel takes from `execve`: arguments and environment are at most a quarter of the
/// largest stack, and 6 MiB, together.
const BYTES_MAX: usize = 6 << 20;

fn file(process: Pid, name: &str) -> String {
    format!("/proc/{}/{name}", process.as_raw_nonzero())
}

/// What can be seen of a process' variables now: as [`read`], but empty also for one that becomes
/// another program.
pub(crate) fn glance(process: Pid) -> Option<Vec<u8>> {
    // One call reads of one program: a second one would find the end where `execve` is between.
    let mut text = vec![0; BYTES_MAX];
    let length = File::open(file(process, "environ")).ok()?.read(&mut text).ok()?;
    text.truncate(length);
    Some(text)
}

/// A process' variables, each ended by a zero byte. `None` for one that is not there or another
/// user's; empty for one that has none, that has ended, or that belongs to the kernel.
pub(crate) fn read(process: Pid) -> Option<Vec<u8>> {
    let begin = Instant::now();
    loop {
        let text = glance(process)?;
        let is_settled = || Some(has_none(&fs::read_to_string(file(process, "stat")).ok()?));
        if !text.is_empty() || is_settled()? || begin.elapsed() > EXEC_MAX {
            return Some(text);
        }
        thread::yield_now();
    }
}

/// The value of a variable.
pub(crate) fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = |one: &'a [u8]| one.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    environment.split(|byte| *byte == 0).find_map(value)
}

/// Whether a process has no memory (the kernel's own, the dead), or an environment in a known place
/// without anything in it: fields 23, 26, 50 and 51 of `proc_pid_stat(5)`, counted from behind the
/// name, which may have spaces. The kernel notes where the code begins once the environment is
/// there, and writes that field before those of the environment.
fn has_none(stat: &str) -> bool {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let field = |number: usize| fields.get(number - 2).copied().unwrap_or("0");
    let (memory, code, start, end) = (field(23), field(26), field(50), field(51));
    memory == "0" || (code != "0" && start != "0" && start == end)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_says_its_variables_while_it_becomes_another_program() {
        // It is looked at while it turns from one program into the next, again and again.
        let mut shell = Command::new("sh")
            .args(["-c", "echo; i=0; exec sh -c \"$0\" \"$0\" $i"])
            .arg("[ $1 -lt 1000 ] || exec sleep 10; exec sh -c \"$0\" \"$0\" $(($1 + 1))")
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
            let environment = read(process).unwrap();
            assert_eq!(variable(&environment, "GANTRY_TRY"), Some(b"t7".as_slice()));
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn a_process_without_an_environment_says_nothing() {
        let mut shell = Command::new("/bin/sleep").arg("10").env_clear().spawn().unwrap();
        let begin = Instant::now();
        assert_eq!(read(Pid::from_child(&shell)), Some(Vec::new()));
        assert!(begin.elapsed() < EXEC_MAX, "the kernel tells that it has none");
        shell.kill().unwrap();
        assert_eq!(read(Pid::from_child(&shell)).unwrap_or_default(), Vec::<u8>::new());
        shell.wait().unwrap();
        assert!(begin.elapsed() < EXEC_MAX, "and that it has ended");
        assert_eq!(read(Pid::from_child(&shell)), None);
    }
}
