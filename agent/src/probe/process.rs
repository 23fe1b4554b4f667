//! What the kernel says of one process (`/proc/PID`, proc(5)) and of a control group of tasks.
//!
//! Every file is read through one buffer: a node has hundreds of processes, and they are looked at
//! each second.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of an environment that are looked at.
const ENVIRONMENT_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a file that is one line, or a few of fixed form: some fifty numbers and a short name.
const SHORT_BYTES_MAX: usize = 2048;
/// Where control groups of the second version are mounted, alone or beside those of the first.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The line `stat` of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Whether it has ended, and nobody has waited for it yet.
    pub(super) has_ended: bool,
    pub(super) parent: u32,
    /// Its process group, by the number of the leader.
    pub(super) group: u32,
    /// Processor time of it and of those of its children that have ended, in the kernel's ticks.
    pub(super) ticks: u64,
    /// When it was started, in ticks since the start of the machine: with its number its identity.
    pub(super) start: u64,
    /// Memory it has, in pages.
    pub(super) pages: u64,
}

impl Stat {
    /// Reads a line; the name in it may hold blanks and brackets.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let end = memchr::memrchr(b')', line)?;
        let text = std::str::from_utf8(line.get(end + 2..)?).ok()?;
        let mut fields = text.split_ascii_whitespace();
        let has_ended = matches!(fields.next()?, "Z" | "X");
        let mut next = |skip: usize| fields.nth(skip)?.parse::<i64>().ok();
        let (parent, group) = (next(0)?, next(0)?);
        let own = next(8)?.max(0) + next(0)?.max(0);
        let of_children = next(0)?.max(0) + next(0)?.max(0);
        let start = next(4)?;
        let pages = next(1)?;
        Some(Self {
            has_ended,
            parent: parent as u32,
            group: group as u32,
            ticks: (own + of_children) as u64,
            start: start as u64,
            pages: pages.max(0) as u64,
        })
    }
}

/// Bytes that a process, and those of its children that have ended, read from disks and wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) read: u64,
    pub(super) written: u64,
}

impl Io {
    fn parse(text: &str) -> Self {
        let of = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
        };
        Self { read: of("read_bytes:"), written: of("write_bytes:") }
    }
}

/// Reads files of `/proc`.
pub(super) struct Proc {
    folder: PathBuf,
    buffer: Vec<u8>,
}

impl Proc {
    /// Reads those of a folder, which is `/proc`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, buffer: Vec::with_capacity(SHORT_BYTES_MAX) }
    }

    /// Every process there is, by rising number.
    pub(super) fn processes(&self) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let mut all: Vec<u32> = entries.flatten().filter_map(number).collect();
        all.sort_unstable();
        all
    }

    /// A file of a process. One that has ended, or is somebody else's, has none.
    fn read(&mut self, process: u32, name: &str) -> Option<&[u8]> {
        let file = File::open(self.folder.join(format!("{process}/{name}"))).ok()?;
        self.buffer.clear();
        file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut self.buffer).ok()?;
        Some(&self.buffer)
    }

    /// A file that the kernel gives whole to the first reading: asking whether that was all would
    /// be a third of the cost.
    fn read_short(&mut self, process: u32, name: &str) -> Option<&[u8]> {
        let mut file = File::open(self.folder.join(format!("{process}/{name}"))).ok()?;
        self.buffer.resize(SHORT_BYTES_MAX, 0);
        let count = file.read(&mut self.buffer).ok()?;
        self.buffer.get(..count)
    }

    pub(super) fn stat(&mut self, process: u32) -> Option<Stat> {
        Stat::parse(self.read_short(process, "stat")?)
    }

    pub(super) fn io(&mut self, process: u32) -> Option<Io> {
        Some(Io::parse(std::str::from_utf8(self.read_short(process, "io")?).ok()?))
    }

    /// The values of these variables in the environment a program was started with.
    pub(super) fn variables<const N: usize>(
        &mut self,
        process: u32,
        names: [&str; N],
    ) -> Option<[Option<String>; N]> {
        let environment = self.read(process, "environ")?;
        let mut values = [const { None }; N];
        for variable in environment.split(|byte| *byte == 0) {
            for (name, value) in names.iter().zip(&mut values) {
                let rest = variable.strip_prefix(name.as_bytes());
                if let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b"=")) {
                    *value = String::from_utf8(rest.to_vec()).ok();
                }
            }
        }
        Some(values)
    }

    /// The folder of a process' control group of the second version, where it has one of its own:
    /// it is not its parent's.
    pub(super) fn own_cgroup(&mut self, process: u32, parent: u32) -> Option<PathBuf> {
        let own = self.cgroup(process)?;
        if self.cgroup(parent)? == own {
            return None;
        }
        let mut roots = CGROUPS.iter().map(Path::new);
        let root = roots.find(|root| root.join("cgroup.controllers").exists())?;
        Some(root.join(own.trim_start_matches('/')))
    }

    fn cgroup(&mut self, process: u32) -> Option<String> {
        let text = std::str::from_utf8(self.read(process, "cgroup")?).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned())
    }
}

/// What a control group has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroup {
    /// Processor time, in microseconds.
    pub(super) cpu_us: Option<u64>,
    /// Memory that is not merely kept of files, in bytes.
    pub(super) memory_bytes: Option<u64>,
    /// Over all devices.
    pub(super) io: Option<Io>,
}

impl Cgroup {
    /// Reads a group's folder. What no controller counts is absent.
    pub(super) fn read(folder: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let of = |text: &str, name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let used: Option<u64> = text("memory.current").and_then(|text| text.trim().parse().ok());
        let kept = text("memory.stat").and_then(|text| of(&text, "inactive_file "));
        Self {
            cpu_us: text("cpu.stat").and_then(|text| of(&text, "usage_usec ")),
            memory_bytes: used.map(|used| used.saturating_sub(kept.unwrap_or(0))),
            io: text("io.stat").map(|text| sum_io(&text)),
        }
    }
}

/// Each line: the device's numbers, then `rbytes=1 wbytes=2` and more of that kind.
fn sum_io(text: &str) -> Io {
    let sum = |name: &str| {
        let words = text.split_ascii_whitespace();
        words.filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok()).sum()
    };
    Io { read: sum("rbytes="), written: sum("wbytes=") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_line_is_read_whatever_the_programs_name_is() {
        let rest = "40 41 42 0 -1 4194560 100 200 0 0 11 12 13 14 20 0 3 0 5678 99999 321 18446744073709551615 1";
        let lives =
            Stat { has_ended: false, parent: 40, group: 41, ticks: 50, start: 5678, pages: 321 };
        for (line, expected) in [
            (format!("7 (true) S {rest}"), Some(lives)),
            (format!("7 (a b) c) R {rest}"), Some(lives)),
            (format!("7 (true) Z {rest}"), Some(Stat { has_ended: true, ..lives })),
            ("7 (true) S 40".to_owned(), None),
            ("7 (true".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(Stat::parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn this_process_is_read() {
        let mut proc = Proc::new("/proc".into());
        let own = std::process::id();
        assert!(proc.processes().binary_search(&own).is_ok());
        let stat = proc.stat(own).unwrap();
        assert!(stat.pages > 0 && stat.start > 0);
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(proc.io(own).is_some());
        let [path, none] = proc.variables(own, ["PATH", "GANTRY_NO_SUCH"]).unwrap();
        assert_eq!((path, none), (std::env::var("PATH").ok(), None));
        assert_eq!(proc.stat(u32::MAX), None);
    }

    #[test]
    fn a_control_group_says_what_it_counts() {
        let folder = TempDir::new().unwrap();
        let io = Some(Io { read: 1100, written: 2200 });
        let all = Cgroup { cpu_us: Some(123), memory_bytes: Some(3000), io };
        let files = [
            ("cpu.stat", "usage_usec 123\nuser_usec 100\nsystem_usec 23\n"),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 100\nfile 2900\ninactive_file 2000\n"),
            ("io.stat", "8:0 rbytes=1000 wbytes=2000 rios=1\n8:16 rbytes=100 wbytes=200\n"),
        ];
        assert_eq!(Cgroup::read(folder.path()), Cgroup::default());
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(Cgroup::read(folder.path()), all);
    }
}
