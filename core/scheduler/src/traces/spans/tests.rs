//! Spans of what happens to jobs, one fact at a time.

use gantry_model::{MemoryMib, Resources, TaskCounts};

use super::*;

fn end(exit: Exit, stopped: Option<AfterStop>, then: TaskState) -> TryEnd {
    TryEnd {
        try_id: TryId(9),
        task: JobId(12).task(3),
        user: "ada".into(),
        kind: "train",
        submitted: At(1000),
        node: "gpu-1".into(),
        start: 2,
        placed: At(5000),
        began: Some(At(5010)),
        exit,
        stopped,
        then,
    }
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    span.attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
}

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

#[test]
fn how_an_execution_ended_is_its_outcome_and_its_status() {
    let sentence = "/data/patient-7 is not there".to_owned();
    let failed = |exit: &Exit| TaskState::Failed(exit.clone());
    let (cancel, again) = (Some(AfterStop::Cancel), Some(AfterStop::Again));
    for (exit, stopped, by, outcome, error, message) in [
        (Exit::Code(0), None, None, "done", None, None),
        // It was faster than the stop.
        (Exit::Code(0), cancel, None, "done", None, None),
        (Exit::Code(3), None, None, "failed", Some("exit"), Some("exit 3")),
        (Exit::Signal(11), None, None, "failed", Some("signal"), Some("ended by signal 11")),
        (Exit::Signal(15), cancel, None, "cancelled", None, None),
        (Exit::Signal(15), again, None, "requeued", None, None),
        (Exit::Signal(15), again, Some(JobId(13)), "preempted", None, None),
        (
            Exit::TimeLimit,
            None,
            None,
            "failed",
            Some("time_limit"),
            Some("ended at its time limit"),
        ),
        (Exit::NodeLost, None, None, "failed", Some("node_lost"), Some("its node was lost")),
        (
            Exit::OutOfMemory { used: MemoryMib(2048), limit: MemoryMib(1024) },
            None,
            None,
            "failed",
            Some("out_of_memory"),
            Some("out of memory: it used 2G of 1G"),
        ),
        (
            Exit::NotStarted { code: 127, sentence: sentence.clone() },
            None,
            None,
            "failed",
            Some("not_started"),
            Some("it could not be started: 127"),
        ),
        (
            Exit::NotStarted { code: 125, sentence: sentence.clone() },
            None,
            None,
            "failed",
            Some("node_not_ready"),
            Some("its node could not be made ready for it"),
        ),
        (
            Exit::Failed(sentence.clone()),
            None,
            None,
            "failed",
            Some("operation"),
            Some("the operation failed"),
        ),
    ] {
        let code = i64::from(exit.code());
        let lost = exit == Exit::NodeLost;
        let then = if outcome == "failed" { failed(&exit) } else { TaskState::Waiting };
        let span = of_try("test", &end(exit, stopped, then), At(9000), by);
        assert_eq!(attribute(&span, "gantry.try.outcome"), Some(text(outcome)));
        assert_eq!(attribute(&span, "error.type"), error.map(text), "{span:?}");
        let status = match message {
            Some(message) => Status::Ill(message.into()),
            None if outcome == "done" => Status::Well,
            None => Status::Unset,
        };
        assert_eq!(span.status, status);
        let told = attribute(&span, "process.exit.code");
        assert_eq!(told, (!lost).then_some(Value::Number(code)));
        let job = by.map(|job| Value::Text(job.to_string()));
        assert_eq!(attribute(&span, "gantry.try.preempted_by"), job);
        assert!(!format!("{span:?}").contains("patient"), "{span:?}");
        assert_eq!((span.start, span.end), (At(5000), At(9000)));
        assert_eq!(span.events, [(At(5010), "running")]);
    }
}

#[test]
fn a_job_is_the_root_and_says_how_many_executions_are_left_out() {
    let row = JobRow {
        job: JobId(12),
        name: "patient-7".into(),
        user: "ada".into(),
        kind: "train".into(),
        state: JobState::Fail,
        tasks: TaskCounts { done: 3, fail: 1, ..TaskCounts::default() },
        resources: Resources { cores: 4, gpus: 2, ..Resources::default() },
        submitted: At(1000),
        started: Some(At(5000)),
        ended: Some(At(9000)),
        starts: 6,
        reason: Some("/data/patient-7 is not there".into()),
        exit: Some(Exit::Failed("/data/patient-7 is not there".into())),
        ..JobRow::default()
    };
    let span = of_job("test", &row, 2);
    let end = end(Exit::Code(0), None, TaskState::Done);
    let below = of_try("test", &end, At(9000), None);
    let waited = of_wait("test", &end, At(2000));
    assert_eq!((span.parent, span.name.as_str()), (None, "job train"));
    assert_eq!((below.parent, waited.parent), (Some(span.id), Some(span.id)));
    assert_eq!((below.trace, waited.trace), (span.trace, span.trace));
    assert_ne!(below.id, waited.id);
    assert_eq!((span.start, span.end), (At(1000), At(9000)));
    assert_eq!((waited.start, waited.end), (At(2000), At(5000)));
    assert_eq!(span.status, Status::Ill("the operation failed".into()));
    for (key, number) in [
        ("gantry.job.tasks", 4),
        ("gantry.job.tasks.failed", 1),
        ("gantry.job.starts", 6),
        ("gantry.job.gpus", 2),
        ("gantry.job.tries.left_out", 2),
    ] {
        assert_eq!(attribute(&span, key), Some(Value::Number(number)), "{key}");
    }
    assert!(!format!("{span:?}").contains("patient"), "{span:?}");
    let cancelled = of_job("test", &JobRow { state: JobState::Cancel, ..row }, 0);
    assert_eq!(cancelled.status, Status::Unset);
    assert_eq!(attribute(&cancelled, "gantry.job.tries.left_out"), None);
}

#[test]
fn a_trace_belongs_to_one_job_of_one_cluster() {
    let trace = Trace::of("test", JobId(12), At(1000));
    assert_eq!(trace, Trace::of("test", JobId(12), At(1000)));
    for other in [
        Trace::of("test", JobId(13), At(1000)),
        Trace::of("test2", JobId(12), At(1000)),
        Trace::of("test", JobId(12), At(1001)),
    ] {
        assert!(trace.id != other.id && trace.root != other.root);
    }
    let parent = trace.parent(TryId(9));
    let parts: Vec<&str> = parent.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    assert_eq!((parts[0], &lengths[..], parts[3]), ("00", &[2, 32, 16, 2][..], "01"));
    // Kept by whoever has seen it: another version must give the same.
    assert_eq!(parent, "00-51b9a9d996041b2aadf5d7a5f39c98a7-c965d81a6717b09e-01");
}
