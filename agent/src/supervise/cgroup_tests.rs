//! Where groups are made: a tree like the kernel's, and the kernel's own where there is one.

use super::*;
use gantry_config::CpuLimit;
use gantry_model::{Exit, MemoryMib, Usage};
use tempfile::TempDir;

impl Place {
    /// One whose bytes are kept.
    pub(in crate::supervise) fn golden() -> Self {
        Self { folder: "/g".into(), controllers: Controller::ALL.into() }
    }
}

/// A folder with these files in it.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn the_kernels_tables_say_where_this_process_is() {
    let two = "25 21 0:21 / /sys rw - sysfs sysfs rw\n30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    let hybrid = "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let bound = "30 25 0:26 /pod/a /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    for (mounts, groups, expected) in [
        (
            two,
            "0::/system.slice/agent.service\n",
            Some("/sys/fs/cgroup/system.slice/agent.service"),
        ),
        (two, "4:memory:/x\n0::/\n", Some("/sys/fs/cgroup/")),
        (hybrid, "4:memory:/x\n0::/a\n", Some("/sys/fs/cgroup/unified/a")),
        (bound, "0::/pod/a/b\n", Some("/sys/fs/cgroup/b")),
        (bound, "0::/other\n", None),
        ("", "0::/\n", None),
        (two, "4:memory:/x\n", None),
    ] {
        assert_eq!(own(mounts, groups).as_deref(), expected.map(Path::new), "{groups:?}");
    }
}

#[test]
fn a_place_is_made_with_the_controllers_there_are() {
    let base = tree(&[
        ("cgroup.type", "domain"),
        ("cgroup.controllers", "cpuset cpu io memory hugetlb"),
        ("cgroup.procs", ""),
        ("cgroup.subtree_control", ""),
        (&format!("tries-{:08x}/cgroup.subtree_control", digest("mark")), ""),
    ]);
    let place = Place::prepare(&CgroupPlace::At(base.path().into()), "mark").unwrap();
    assert_eq!(place.to_string(), "cgroup: memory cpu io");
    assert_eq!(place.folder, base.path().join(format!("tries-{:08x}", digest("mark"))));
    // The kernel takes one at a time; here the last one stays in the file.
    let told = fs::read_to_string(base.path().join("cgroup.subtree_control")).unwrap();
    assert!(told.starts_with("+io"), "{told}");
    assert_ne!(digest("mark"), digest("other"));
}

#[test]
fn what_cannot_be_used_is_told() {
    let root = tree(&[("cgroup.controllers", "memory"), ("cgroup.procs", "")]);
    let empty = tree(&[("cgroup.type", "domain")]);
    for (choice, expected) in [
        (CgroupPlace::Nowhere, "the settings say none"),
        (CgroupPlace::At(root.path().into()), "is no cgroup v2 below the root"),
        (CgroupPlace::At(empty.path().into()), "cannot be used: No such file"),
        (CgroupPlace::At("/proc/nowhere".into()), "/proc/nowhere cannot be made"),
    ] {
        let reason = Place::prepare(&choice, "mark").unwrap_err();
        assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
    }
}

/// A group of the kernel's, in which a test may make others.
fn of_kernel() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = own(&mounts, "0::/\n").ok_or("there is no cgroup v2")?;
    let base = root.join(format!("gantry-test-{}", std::process::id()));
    make(&base)?;
    Ok(base)
}

#[test]
fn the_kernel_ends_and_counts_whatever_is_in_a_group() {
    let base = match of_kernel() {
        Ok(base) => base,
        Err(reason) => return eprintln!("SKIPPED: no cgroup can be made here: {reason}"),
    };
    let place = Place::prepare(&CgroupPlace::At(base.clone()), "mark").unwrap();
    for controller in Controller::ALL.iter().filter(|one| !place.has(**one)) {
        eprintln!("SKIPPED: the kernel has no {} for groups of this hierarchy", controller.word());
    }
    let limits = Limits { memory: MemoryMib(64), cores: 1, cpu: CpuLimit::Hard, pids: Some(50) };
    let group = Group::make(&place, "t7", &limits).unwrap();
    let folder = place.folder.join("t7");
    // It leaves its group of processes, its session and its parent.
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; setsid sleep 1000 & wait";
    let steps =
        super::super::child::Steps { door: Some(group.door().unwrap()), ..Default::default() };
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]);
    let mut child = super::super::child::spawn(command, steps).unwrap();
    let inside = || fs::read_to_string(folder.join("cgroup.procs")).unwrap();
    while inside().lines().count() < 2 {
        std::thread::yield_now();
    }
    // One that the group holds by itself, below it.
    fs::create_dir(folder.join("below")).unwrap();
    let (exit, usage) = group.end(Exit::Code(0), Usage::default());
    assert_eq!(exit, Exit::Code(0));
    assert!(usage.cpu_ms > 0, "{usage:?}");
    assert!(!folder.exists(), "the group is gone");
    assert!(!child.wait().unwrap().success());
    if place.has(Controller::Memory) {
        memory_that_is_not_there_ends_all(&place, &limits);
    }
    // What a dead supervisor left.
    Group::make(&place, "t8", &limits).unwrap();
    assert_eq!((place.clear_tries(), place.clear_tries()), (1, 0));
    fs::remove_dir(&place.folder).unwrap();
    fs::remove_dir(&base).unwrap();
}

fn memory_that_is_not_there_ends_all(place: &Place, limits: &Limits) {
    let group = Group::make(place, "t9", limits).unwrap();
    let steps =
        super::super::child::Steps { door: Some(group.door().unwrap()), ..Default::default() };
    let mut command = std::process::Command::new("dd");
    command.args(["if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]);
    let mut child = super::super::child::spawn(command, steps).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(crate::runner::exit_of(status), Exit::Signal(9));
    let (exit, _) = group.end(Exit::Signal(9), Usage::default());
    let Exit::OutOfMemory { used, limit } = exit else { panic!("{exit:?}") };
    assert!(limit == MemoryMib(64) && used >= MemoryMib(60) && used <= MemoryMib(65), "{exit:?}");
}

#[test]
fn a_service_has_groups_only_where_its_manager_can_start_it_again() {
    let at = PathBuf::from("/sys/fs/cgroup/system.slice/gantry-agent.service");
    for served in [false, true] {
        assert_eq!(base_of(at.join(LEAF), served).as_ref(), Ok(&at));
    }
    assert_eq!(base_of(at.clone(), false).as_ref(), Ok(&at));
    assert!(base_of(at, true).unwrap_err().contains("DelegateSubgroup"));
}
