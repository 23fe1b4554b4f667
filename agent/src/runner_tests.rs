//! Commands as real processes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_model::{JobId, Lease, MemoryMib, TaskId, TaskWork, TryId};
use rustix::process::test_kill_process;
use tempfile::TempDir;

use super::*;

const TASK: TaskId = TaskId { job: JobId(12), index: 3 };

struct Bench {
    _folder: TempDir,
    places: Places,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let places = Places {
            output: folder.path().join("output"),
            work: folder.path().to_owned(),
            checkpoints: folder.path().join("checkpoints"),
        };
        Self { _folder: folder, places }
    }

    fn start(&self, arguments: &[&str]) -> Result<Started, Exit> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let launch = launch(TaskWork::Command { arguments: arguments.clone(), folder: None });
        let gpu = |uuid: &str| Gpu { uuid: uuid.into(), name: "g".into(), memory: MemoryMib(1) };
        super::start(&launch, &arguments, None, &self.places, &[gpu("GPU-a"), gpu("GPU-b")])
    }

    async fn run(&self, arguments: &[&str]) -> Exit {
        match self.start(arguments) {
            Ok(started) => started.wait().await,
            Err(exit) => exit,
        }
    }

    fn output(&self) -> String {
        fs::read_to_string(output::path(&self.places.output, TASK)).unwrap_or_default()
    }

    /// Waits until the task has printed a line.
    async fn line(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.output().ends_with('\n') {
            assert!(Instant::now() < deadline, "nothing was printed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.output().trim().to_owned()
    }
}

fn launch(work: TaskWork) -> Launch {
    Launch {
        try_id: TryId(5),
        task: TASK,
        name: "test".into(),
        user: "tester".into(),
        work,
        lease: Lease { gpus: vec![1], ..Lease::default() },
        time_limit: None,
        environment: BTreeMap::from([
            ("OWN".to_owned(), "yes".to_owned()),
            ("CUDA_VISIBLE_DEVICES".to_owned(), "all of them".to_owned()),
        ]),
        start: 2,
    }
}

/// Waits until a process is gone or a zombie.
async fn is_gone(id: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let dead = || {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
    };
    while !dead() {
        assert!(Instant::now() < deadline, "{id} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn ends_are_those_that_a_shell_would_show() {
    for (arguments, expected) in [
        (&["true"][..], Exit::Code(0)),
        (&["sh", "-c", "exit 3"], Exit::Code(3)),
        (&["sh", "-c", "kill -TERM $$"], Exit::Signal(15)),
        (&["sh", "-c", "kill -SEGV $$"], Exit::Signal(11)),
        (
            &["gantry-no-such-program"],
            Exit::NotStarted {
                code: 127,
                sentence: "gantry-no-such-program is not found on this node".into(),
            },
        ),
        (
            &["/dev/null"],
            Exit::NotStarted {
                code: 126,
                sentence: "/dev/null cannot be run: Permission denied (os error 13)".into(),
            },
        ),
        (&[], Exit::NotStarted { code: 127, sentence: "no command".into() }),
    ] {
        assert_eq!(Bench::new().run(arguments).await, expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_task_finds_its_contract_in_its_environment() {
    let bench = Bench::new();
    let script = "echo $GANTRY_JOB $GANTRY_TASK $GANTRY_INDEX $GANTRY_TRY $GANTRY_RESUME $OWN \
                  $CUDA_VISIBLE_DEVICES; cat; test -d \"$GANTRY_CHECKPOINT\" && echo error >&2";
    assert_eq!(bench.run(&["sh", "-c", script]).await, Exit::Code(0));
    assert_eq!(bench.output(), "j12 j12.3 3 t5 1 yes GPU-b\nerror\n");
    assert_eq!(bench.run(&["echo", "again"]).await, Exit::Code(0));
    assert!(bench.output().ends_with("error\nagain\n"), "a further start appends");
}

#[tokio::test]
async fn a_group_has_no_survivor() {
    let bench = Bench::new();
    let started = bench.start(&["sh", "-c", "sleep 1000 & echo $!"]).ok().unwrap();
    let group = started.group;
    assert_eq!(started.wait().await, Exit::Code(0));
    is_gone(&bench.line().await).await;
    assert!(test_kill_process(group).is_err(), "the process is reaped");
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let bench = Bench::new();
    let started = bench.start(&["sh", "-c", "sleep 1000 & echo $!; wait"]).ok().unwrap();
    let child = bench.line().await;
    kill_process_group(started.group, Signal::TERM).unwrap();
    assert_eq!(started.wait().await, Exit::Signal(15));
    is_gone(&child).await;
}

#[tokio::test]
async fn what_a_killed_agent_left_is_swept_and_nothing_else() {
    let (bench, other) = (Bench::new(), Bench::new());
    let started = bench.start(&["sh", "-c", "echo up; exec sleep 1000"]).ok().unwrap();
    bench.line().await;
    assert_eq!(sweep(&other.places), 0);
    assert_eq!(sweep(&bench.places), 1);
    assert_eq!(started.wait().await, Exit::Signal(9));
    assert_eq!(sweep(&bench.places), 0);
}
