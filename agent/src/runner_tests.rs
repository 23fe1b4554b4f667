//! What tasks find in their environment, and what is found of them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use gantry_model::{Builtin, JobId, Lease, MemoryMib, TaskWork, TryId};
use tempfile::TempDir;

use super::*;

const TASK: TaskId = TaskId { job: JobId(12), index: 3 };

/// A launch of a command.
pub(crate) fn launch(arguments: &[&str]) -> Launch {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Launch {
        try_id: TryId(5),
        task: TASK,
        name: "test".into(),
        user: "tester".into(),
        work: TaskWork::Command { arguments, folder: None },
        lease: Lease { gpus: vec![1], gpu_permille: GPU_WHOLE, ..Lease::default() },
        time_limit: None,
        output: None,
        warning: None,
        environment: BTreeMap::from([
            ("OWN".to_owned(), "yes".to_owned()),
            ("CUDA_VISIBLE_DEVICES".to_owned(), "all of them".to_owned()),
        ]),
        start: 2,
        inherits: None,
    }
}

/// Places in a folder.
pub(crate) fn places(folder: &Path) -> Places {
    Places {
        output: folder.join("output"),
        work: folder.to_owned(),
        checkpoints: folder.join("checkpoints"),
        run_as: RunAs::Agent,
        worker: vec!["gantry".into(), "worker".into()],
        python: "python3".into(),
    }
}

/// Two GPUs.
pub(crate) fn gpus() -> Vec<Gpu> {
    let gpu = |uuid: &str, gib: u64| Gpu {
        uuid: uuid.into(),
        memory: MemoryMib(gib * 1024),
        ..Gpu::default()
    };
    vec![gpu("GPU-a", 80), gpu("GPU-b", 40)]
}

#[test]
fn folders_without_checkpoints_go_after_a_while() {
    let folder = TempDir::new().unwrap();
    let places = places(folder.path());
    for path in ["j1", "j2/0", "j3", "of-somebody"] {
        fs::create_dir_all(places.checkpoints.join(path)).unwrap();
    }
    let left = || -> BTreeSet<String> {
        let entries = fs::read_dir(&places.checkpoints).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let live = [JobId(3)].into();
    places.remove_empty_checkpoints(&live, SystemTime::now()).unwrap();
    let all: BTreeSet<String> = ["j1", "j2", "j3", "of-somebody"].map(Into::into).into();
    assert_eq!(left(), all, "none is old");
    places.remove_empty_checkpoints(&live, SystemTime::now() + 2 * EMPTY_AGE).unwrap();
    let kept: BTreeSet<String> = ["j2", "j3", "of-somebody"].map(Into::into).into();
    assert_eq!(left(), kept);
    assert!(places.checkpoints.join("j2/0").exists());
}

#[test]
fn an_operation_is_told_the_memory_that_it_was_granted() {
    let granted = |work: TaskWork, memory| {
        let mut launch = Launch { work, ..launch(&[]) };
        launch.lease.resources.memory = MemoryMib(memory);
        let all = environment(&launch, &places(Path::new("/tmp")), &gpus());
        all.into_iter().find(|(name, _)| name == "GANTRY_MEMORY_MIB").map(|(_, value)| value)
    };
    let (library, settings, run) = ("l".into(), "{}".into(), "r".into());
    let training = TaskWork::Builtin(Builtin::Train { library, settings, run });
    assert_eq!(granted(training.clone(), 6144).as_deref(), Some("6144"));
    assert_eq!(granted(training, 0), None, "nobody said how much");
    assert_eq!(granted(launch(&["true"]).work, 6144), None);
}

#[test]
fn a_share_of_a_gpu_is_told_in_the_environment() {
    let shares: [(u16, &[u16], &[&str]); 7] = [
        (250, &[0], &["0.25", "25", "20480"]),
        (250, &[0, 1], &["0.25", "25", "10240"]),
        (333, &[1], &["0.333", "34", "13639"]),
        (5, &[1], &["0.005", "1", "204"]),
        (GPU_WHOLE, &[0], &[]),
        (0, &[0], &[]),
        (500, &[], &[]),
    ];
    for (permille, leased, expected) in shares {
        let mut launch = launch(&["true"]);
        launch.lease = Lease { gpus: leased.to_vec(), gpu_permille: permille, ..Lease::default() };
        let all = environment(&launch, &places(Path::new("/tmp")), &gpus());
        let names =
            ["GANTRY_GPU_SHARE", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "GANTRY_GPU_MEMORY_MIB"];
        let found: Vec<&str> = names
            .iter()
            .filter_map(|name| all.iter().find(|(one, _)| one == name))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(found, expected, "{permille} of {leased:?}");
    }
}

#[test]
fn what_a_dead_supervisor_left_is_swept_and_nothing_else() {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (places, others) = (places(folder.path()), self::places(other.path()));
    let mut left = Command::new("sh")
        .args(["-c", "echo up; exec sleep 1000"])
        .envs(environment(&launch(&["true"]), &places, &[]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    io::Read::read_exact(left.stdout.as_mut().unwrap(), &mut line).unwrap();
    // Until it is the other program its environment may not be seen.
    let cmdline = format!("/proc/{}/cmdline", left.id());
    while !std::fs::read(&cmdline).unwrap().starts_with(b"sleep") {
        std::thread::yield_now();
    }
    assert_eq!(sweep(&others), 0);
    assert!(sweep(&places) >= 1);
    assert_eq!(exit_of(left.wait().unwrap()), Exit::Signal(9));
    assert_eq!(sweep(&places), 0);
}

#[test]
fn a_script_that_is_swept_takes_no_further_step() {
    let folder = TempDir::new().unwrap();
    let places = places(folder.path());
    let further = folder.path().join("further");
    let mut left = Command::new("sh")
        .args(["-c", "sleep 1000 & echo $!; wait; touch \"$0\""])
        .arg(&further)
        .envs(environment(&launch(&["true"]), &places, &[]))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut step = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(left.stdout.as_mut().unwrap()), &mut step)
        .unwrap();
    // Until it is the other program its environment may not be seen.
    let cmdline = format!("/proc/{}/cmdline", step.trim());
    while !std::fs::read(&cmdline).unwrap().starts_with(b"sleep") {
        std::thread::yield_now();
    }
    assert!(sweep(&places) >= 1);
    assert_eq!(exit_of(left.wait().unwrap()), Exit::Signal(9));
    assert!(!further.exists(), "its step ended before it did");
}
