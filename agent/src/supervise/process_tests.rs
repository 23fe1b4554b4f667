//! Commands as real processes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::test_kill_process;
use tempfile::TempDir;

use super::super::cgroup::Place;
use super::*;
use crate::runner;
use crate::runner::tests::{gpus, launch, places};

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("output/j12/3.out")
    }

    fn start(&self, arguments: &[&str]) -> Result<Pid, Exit> {
        self.start_in(arguments, &Room::default(), &Isolation::none())
    }

    fn start_in(
        &self,
        arguments: &[&str],
        room: &Room,
        isolation: &Isolation,
    ) -> Result<Pid, Exit> {
        let places = places(self.folder.path());
        let plan = runner::plan(launch(arguments), self.path(), 0, &places, &gpus());
        prepare(&plan, room, isolation)?.start().map(|(leader, _)| leader)
    }

    fn run(&self, arguments: &[&str]) -> (Exit, Usage) {
        match self.start(arguments) {
            Ok(group) => ended(group),
            Err(exit) => (exit, Usage::default()),
        }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// Waits until the task has printed a line.
    fn line(&self) -> String {
        until("a line is printed", || self.output().ends_with('\n'));
        self.output().trim().to_owned()
    }
}

/// Waits for one process, as other tests have children too, and reaps it.
fn ended(group: Pid) -> (Exit, Usage) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    reap(group)
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it never happens that {what}");
        std::thread::yield_now();
    }
}

/// Waits until a process is gone or a zombie.
fn is_gone(id: &str) {
    until("a process is gone", || {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
    });
}

#[test]
fn ends_are_those_that_a_shell_would_show() {
    for (arguments, expected) in [
        (&["true"][..], Exit::Code(0)),
        (&["sh", "-c", "exit 3"], Exit::Code(3)),
        (&["sh", "-c", "kill -TERM $$"], Exit::Signal(15)),
        (&["sh", "-c", "kill -SEGV $$"], Exit::Signal(11)),
        (
            &["gantry-no-such-program"],
            cannot(127, "gantry-no-such-program is not found on this node".into()),
        ),
        (
            &["/dev/null"],
            cannot(126, "/dev/null cannot be run: Permission denied (os error 13)".into()),
        ),
        (&[], cannot(127, "no command".into())),
    ] {
        assert_eq!(Bench::new().run(arguments).0, expected, "{arguments:?}");
    }
}

#[test]
fn a_task_finds_its_contract_in_its_environment() {
    let bench = Bench::new();
    let script = "echo $GANTRY_JOB $GANTRY_TASK $GANTRY_INDEX $GANTRY_TRY $GANTRY_RESUME $OWN \
                  $CUDA_VISIBLE_DEVICES; cat; test -d \"$GANTRY_CHECKPOINT\" && echo error >&2";
    assert_eq!(bench.run(&["sh", "-c", script]).0, Exit::Code(0));
    assert_eq!(bench.output(), "j12 j12.3 3 t5 1 yes GPU-b\nerror\n");
    assert_eq!(bench.run(&["echo", "again"]).0, Exit::Code(0));
    assert!(bench.output().ends_with("error\nagain\n"), "a further start appends");
}

#[test]
fn the_kernel_says_what_was_used() {
    let count = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let (exit, used) = Bench::new().run(&["sh", "-c", count]);
    assert_eq!(exit, Exit::Code(0));
    assert!(used.cpu_ms > 10, "{used:?}");
    // A child that was waited for counts with the one that waited.
    let (_, of_child) = Bench::new().run(&["sh", "-c", &format!("sh -c '{count}'; true")]);
    assert!(of_child.cpu_ms > 10, "{of_child:?}");
    let (_, large) =
        Bench::new().run(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert!(large.memory_peak >= MemoryMib(200), "{large:?}");
}

#[test]
fn a_group_has_no_survivor() {
    let bench = Bench::new();
    let group = bench.start(&["sh", "-c", "sleep 1000 & echo $!"]).unwrap();
    assert_eq!(ended(group).0, Exit::Code(0));
    is_gone(&bench.line());
    assert!(test_kill_process(group).is_err(), "the process is reaped");
}

#[test]
fn a_signal_reaches_the_whole_group() {
    for number in [libc::SIGTERM as u8, libc::SIGUSR1 as u8] {
        let bench = Bench::new();
        let group = bench.start(&["sh", "-c", "sleep 1000 & echo $!; wait"]).unwrap();
        let child = bench.line();
        signal(group, 0);
        signal(group, 200);
        signal(group, number);
        assert_eq!(ended(group).0, Exit::Signal(number));
        is_gone(&child);
    }
}

#[test]
fn what_cannot_be_done_before_a_command_runs_is_told() {
    let mut isolation = Isolation::none();
    let nowhere = Path::new("/proc/self/nowhere");
    isolation.place = Ok(Place::of_test(nowhere, &[]));
    for (room, isolation, code, expected) in [
        (
            Room { cores: Some(vec![1023]), ..Room::default() },
            Isolation::none(),
            125,
            "binding it to its cores failed on this node: Invalid argument (os error 22)",
        ),
        (
            Room::default(),
            isolation,
            125,
            "its cgroup cannot be made: No such file or directory (os error 2)",
        ),
    ] {
        let exit = Bench::new().start_in(&["true"], &room, &isolation).unwrap_err();
        assert_eq!(exit, cannot(code, expected.into()));
    }
    // With something to do first, too, a program that is not there is not there.
    let room = Room { cores: Some(vec![0]), ..Room::default() };
    let exit = Bench::new().start_in(&["gantry-no-such"], &room, &Isolation::none()).unwrap_err();
    assert_eq!(exit, cannot(127, "gantry-no-such is not found on this node".into()));
}
