//! Control groups (cgroup v2): where an agent may make them, and which limits they can hold.
//!
//! The agent looks once, at its start ([`Place::prepare`]): in the group that its service was given,
//! or in the one that its settings name. Processes may not live in a group whose children have
//! limits, so it moves itself and its supervisor into a leaf, [`LEAF`]; the tries get a group each
//! beside it ([`group`]). Which controllers the kernel lets it use decides what is limited; without
//! any, a group still ends all processes of a try and counts their processor time. What cannot be
//! used is a sentence, for the log and for the facts of the node.

mod group;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gantry_config::CgroupPlace;
use serde::{Deserialize, Serialize};

pub(super) use group::{Group, Limits};

/// The group of the agent and its supervisor, below the one they were given.
const LEAF: &str = "gantry-agent";
/// What the names of the tries' groups begin with.
const TRY: &str = "t";
/// What those of the workers' begin with.
pub(super) const WORKER: &str = "w";
/// Rounds of moving processes away: what forks meanwhile is in the next.
const MOVES_MAX: usize = 10;

/// What the kernel can limit or count in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Controller {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// Processes.
    Pids,
    /// Disks.
    Io,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::Io];

    /// The kernel's word for it.
    const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }
}

/// The group below which an agent's tries have theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    folder: PathBuf,
    controllers: BTreeSet<Controller>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.controllers.is_empty() {
            return f.write_str("cgroup: no controllers");
        }
        f.write_str("cgroup:")?;
        self.controllers.iter().try_for_each(|controller| write!(f, " {}", controller.word()))
    }
}

impl Place {
    /// Makes the place for an agent's tries, which `mark` tells from those of other agents. The error
    /// says why there is none.
    pub(crate) fn prepare(choice: &CgroupPlace, mark: &str) -> Result<Self, String> {
        let base = match choice {
            CgroupPlace::Nowhere => return Err("the settings say none".into()),
            CgroupPlace::At(path) => path.clone(),
            CgroupPlace::Delegated => delegated()?,
        };
        if *choice != CgroupPlace::Delegated {
            make(&base)?;
        }
        // The kernel has this file in each group but the root, which belongs to the whole machine.
        if !base.join("cgroup.type").exists() {
            return Err(format!("{} is no cgroup v2 below the root", base.display()));
        }
        Self::below(&base, mark)
    }

    fn below(base: &Path, mark: &str) -> Result<Self, String> {
        let fail = |error: io::Error| format!("{} cannot be used: {error}", base.display());
        let known = fs::read_to_string(base.join("cgroup.controllers")).map_err(fail)?;
        move_to_leaf(base).map_err(fail)?;
        let known: BTreeSet<&str> = known.split_whitespace().collect();
        let mut controllers: BTreeSet<Controller> = Controller::ALL.into();
        controllers.retain(|controller| known.contains(controller.word()));
        enable(base, &mut controllers);
        let folder = base.join(format!("tries-{:08x}", digest(mark)));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            _ => {}
        }
        enable(&folder, &mut controllers);
        Ok(Self { folder, controllers })
    }

    /// Whether tries can be limited or counted in this way.
    pub(super) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// Ends and removes the groups of tries whose supervisor is dead. Gives how many those were.
    pub(crate) fn clear_tries(&self) -> usize {
        self.clear(TRY)
    }

    /// Ends and removes the groups whose names begin like this. Gives how many those were.
    pub(super) fn clear(&self, prefix: &str) -> usize {
        let Ok(left) = fs::read_dir(&self.folder) else { return 0 };
        let folders = left.flatten().filter(|one| {
            let named = one.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
            named && one.file_type().is_ok_and(|kind| kind.is_dir())
        });
        folders.filter(|folder| group::end(&folder.path()) == group::Left::Nothing).count()
    }

    /// A group for a test to look at.
    #[cfg(test)]
    pub(super) fn of_test(folder: &Path, controllers: &[Controller]) -> Self {
        Self { folder: folder.to_owned(), controllers: controllers.iter().copied().collect() }
    }
}

/// Hands controllers on to the children of a group; those that the kernel refuses are dropped.
fn enable(folder: &Path, controllers: &mut BTreeSet<Controller>) {
    let file = folder.join("cgroup.subtree_control");
    // One by one, as the kernel takes all of a line or none.
    controllers.retain(|controller| write(&file, &format!("+{}", controller.word())).is_ok());
}

/// Makes the group that the settings name, with what its parent has to give.
fn make(base: &Path) -> Result<(), String> {
    if let Some(parent) = base.parent() {
        enable(parent, &mut Controller::ALL.into());
    }
    match fs::create_dir(base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("{} cannot be made: {error}", base.display()))
        }
        _ => Ok(()),
    }
}

/// Moves the processes of a group into its leaf.
fn move_to_leaf(base: &Path) -> io::Result<()> {
    let leaf = base.join(LEAF);
    for _ in 0..MOVES_MAX {
        let here = fs::read_to_string(base.join("cgroup.procs"))?;
        if here.is_empty() {
            return Ok(());
        }
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for process in here.lines() {
            match write(&leaf.join("cgroup.procs"), process) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
    }
    Err(io::Error::other("processes come into it as fast as they are moved away"))
}

/// The group that this process' service was given.
fn delegated() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let own = own(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
        .ok_or("there is no cgroup v2")?;
    let base = base_of(own, std::env::var_os("NOTIFY_SOCKET").is_some())?;
    // The kernel lets root write anywhere: whether it may is what the service manager has noted.
    let ours = if rustix::process::geteuid().is_root() {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0; 8];
            matches!(rustix::fs::getxattr(&base, *name, &mut value[..]), Ok(1)) && value[0] == b'1'
        })
    } else {
        let access = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        access(&base) && access(&base.join("cgroup.procs"))
    };
    if ours { Ok(base) } else { Err("no delegated cgroup".into()) }
}

/// The group that tries get theirs in, where this process is in `own`; `served` says that a service
/// manager has started it. One that knows no `DelegateSubgroup` puts the next agent into the group itself,
/// which the kernel refuses while tries below it have limits: then none are made.
fn base_of(own: PathBuf, served: bool) -> Result<PathBuf, String> {
    match own.parent() {
        Some(parent) if own.ends_with(LEAF) => Ok(parent.to_owned()),
        _ if served => Err(
            "this service manager has no DelegateSubgroup (systemd has it from 254 on), and could not start the agent again beside tasks"
                .into(),
        ),
        _ => Ok(own),
    }
}

/// The folder of this process' group, told by the kernel's tables of mounts and of groups.
fn own(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

/// Tells agents of one machine apart: FNV-1a (Fowler, Noll and Vo 1991), 32 bits.
pub(super) fn digest(mark: &str) -> u32 {
    mark.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Writes into one of the kernel's files, in one piece.
fn write(path: &Path, text: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
