//! Processes of tasks, as a made-up `/proc` and the real one have them.

use super::*;
use gantry_model::JobId;
use gantry_telemetry::GpuProcess;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

const DEADLINE: Duration = Duration::from_secs(20);

/// A task's command as the supervisor starts it, with a mark of the test's own.
struct Run {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Run {
    fn start(mark: &str, task: TaskId, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .env("GANTRY_AGENT", mark)
            .env("GANTRY_TASK", task.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Closes its input and waits for its end.
    fn end(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        // Whoever else had its output has let go of it, too.
        self.lines.read_to_end(&mut Vec::new()).unwrap();
    }
}

/// Reads until no task has a process: whose output is closed may yet be about to end.
fn until_none(tasks: &mut Tasks) {
    let begun = Instant::now();
    loop {
        let samples = tasks.read(&mut []);
        if samples.is_empty() {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "still there: {samples:#?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Reads until a task is as wanted.
fn until(tasks: &mut Tasks, task: TaskId, is: impl Fn(&TaskSample) -> bool) -> TaskSample {
    let begun = Instant::now();
    let mut last = Vec::new();
    while begun.elapsed() < DEADLINE {
        last = tasks.read(&mut []);
        if let Some(sample) = last.iter().find(|sample| sample.task == task && is(sample)) {
            return *sample;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("{task} is not as wanted; the last samples are {last:#?}")
}

#[test]
fn whatever_descends_from_a_command_is_its_tasks() {
    let task = JobId(900_001).task(4);
    let mark = format!("/test/{}/members", std::process::id());
    // The script, a child, one that has left group and parent behind, and one without variables.
    let script = "cat & setsid sh -c 'echo $$; exec cat' & env -i cat & echo ready; cat";
    // An asynchronous command of a shell has nothing on its input, so the input has a number.
    let script = format!("exec 3<&0; {}", script.replace("cat", "cat <&3"));
    let mut run = Run::start(&mark, task, &script);
    let mut other = Run::start("/another/agent", JobId(900_002).task(0), "echo ready; cat");
    let mut lines = [run.line(), run.line()];
    lines.sort();
    assert_eq!((other.line().as_str(), lines[1].as_str()), ("ready", "ready"));
    let left: u32 = lines[0].parse().unwrap();
    let mut tasks = Tasks::new(mark);
    let sample = until(&mut tasks, task, |sample| sample.processes == 5);
    assert_eq!(sample.gpu_memory_mib, 0);
    // Its processes on GPUs are told from those of others.
    let process = |pid, memory_mib| GpuProcess { pid, task: None, memory_mib };
    let gpu = |processes| GpuSample { processes, ..GpuSample::default() };
    let mut gpus = [
        gpu(vec![process(left, Some(300)), process(other.child.id(), Some(50))]),
        gpu(vec![process(left, Some(20)), process(run.child.id(), None)]),
    ];
    let samples = tasks.read(&mut gpus);
    let [sample] = samples[..] else { panic!("{samples:?}") };
    assert_eq!((sample.task, sample.gpu_memory_mib), (task, 320));
    let of: Vec<_> =
        gpus.iter().flat_map(|gpu| &gpu.processes).map(|process| process.task).collect();
    assert_eq!(of, [Some(task), None, Some(task), Some(task)]);
    run.end();
    other.end();
    until_none(&mut tasks);
}

#[test]
fn what_a_task_uses_is_measured() {
    let task = JobId(900_003).task(0);
    let mark = format!("/test/{}/use", std::process::id());
    // Burns a core in children that live shortly, and holds some memory.
    let script = "a=$(head -c 30000000 /dev/zero | tr '\\0' x); echo ready; while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done & wait $!; done";
    let mut run = Run::start(&mark, task, script);
    assert_eq!(run.line(), "ready");
    let mut tasks = Tasks::new(mark);
    let sample = until(&mut tasks, task, |sample| {
        sample.cpu_permille > 100 && sample.memory_mib >= 20 && sample.processes >= 1
    });
    assert!(sample.cpu_permille < 8000, "{sample:?}");
    run.child.kill().unwrap();
    run.end();
}
