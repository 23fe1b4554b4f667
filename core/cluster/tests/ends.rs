//! What the cluster tells of executions that have ended.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{Effect, TryEnd};
use gantry_model::{AfterStop, At, Exit, JobSpec, Preemption, TaskState, TryId};
use support::{Env, array, spec};

fn ends(effects: &[Effect]) -> Vec<TryEnd> {
    let end = |effect: &Effect| match effect {
        Effect::TryEnded(end) => Some((**end).clone()),
        _ => None,
    };
    effects.iter().filter_map(end).collect()
}

#[test]
fn each_execution_is_told_with_its_times_and_what_follows() {
    let mut env = Env::new().node("a", 1, 0);
    env.at = 10;
    let job = env.submit(JobSpec { retries: 1, ..spec(1) }).unwrap();
    env.at = 30;
    env.started("a", 1);
    env.at = 50;
    let first = ends(&env.ended("a", 1, Exit::Code(3)));
    assert_eq!(
        first,
        [TryEnd {
            try_id: TryId(1),
            task: job.task(0),
            user: "ada".into(),
            kind: "command",
            submitted: At(10),
            node: "a".into(),
            start: 1,
            placed: At(10),
            began: Some(At(30)),
            exit: Exit::Code(3),
            stopped: None,
            then: TaskState::Waiting,
        }]
    );
    env.pass(1000);
    let effects = env.ended("a", 2, Exit::Code(0));
    let second = ends(&effects);
    let facts = |end: &TryEnd| (end.start, end.placed, end.began, end.then.clone());
    assert_eq!(
        second.iter().map(facts).collect::<Vec<_>>(),
        [(2, At(1050), None, TaskState::Done)]
    );
    let place = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    let (end, job) = (
        place(|effect| matches!(effect, Effect::TryEnded(_))),
        place(|effect| matches!(effect, Effect::JobEnded(_))),
    );
    assert!(end < job, "an execution is told before its job");
    // Its node repeats itself until it is heard.
    assert_eq!(ends(&env.ended("a", 2, Exit::Code(0))), []);
}

#[test]
fn whoever_makes_room_is_told_with_the_job_that_comes() {
    let mut env = Env::new().node("a", 1, 0);
    let low =
        env.submit(JobSpec { preemption: Preemption::Requeue, priority: -5, ..spec(1) }).unwrap();
    env.started("a", 1);
    env.effects.clear();
    let urgent = env.submit(JobSpec { priority: 5, ..spec(1) }).unwrap();
    let told = Effect::Preempted { task: low.task(0), by: urgent };
    assert!(env.effects.contains(&told), "{:?}", env.effects);
    let ended = ends(&env.ended("a", 1, Exit::Signal(15)));
    let facts = |end: &TryEnd| (end.stopped, end.began, end.then.clone());
    let expected = [(Some(AfterStop::Again), None, TaskState::Waiting)];
    assert_eq!(ended.iter().map(facts).collect::<Vec<_>>(), expected);
}

#[test]
fn what_a_lost_node_ran_and_what_was_cancelled_is_told_too() {
    let mut env = Env::new().node("a", 1, 0).node("b", 1, 0);
    let job = env.submit(array(1, "0-1")).unwrap();
    let lost = ends(&env.gone("a", &[]));
    assert_eq!(lost.iter().map(|end| end.exit.clone()).collect::<Vec<_>>(), [Exit::NodeLost]);
    env.cancel(job);
    let ended = ends(&env.ended("b", 2, Exit::Signal(15)));
    let facts = |end: &TryEnd| (end.stopped, end.then.clone());
    let expected = [(Some(AfterStop::Cancel), TaskState::Cancelled)];
    assert_eq!(ended.iter().map(facts).collect::<Vec<_>>(), expected);
}
