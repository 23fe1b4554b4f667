//! Hold, release, change, why and wait for some elements of a job.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_model::{
    Action, At, Dependency, DependencyKind, DependencyScope, Exit, IndexSet, JobChange, JobId,
    JobState, Millis, TaskCounts, limits,
};
use support::{Env, all_launches, array, launches};

#[expect(clippy::unnecessary_wraps, reason = "what stands in an action")]
fn some(elements: &str) -> Option<IndexSet> {
    Some(elements.parse().unwrap())
}

fn started(env: &Env) -> Vec<String> {
    launches(&env.effects).into_iter().map(|(_, _, task)| task).collect()
}

#[test]
fn held_elements_wait_and_the_others_run() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-5")).unwrap();
    assert_eq!(env.act(Action::Hold { job, indices: some("1-3") }).unwrap(), 3);
    assert_eq!(env.act(Action::Hold { job, indices: some("1-3") }).unwrap(), 0);
    env.ended("a", 1, Exit::Code(0));
    env.ended("a", 2, Exit::Code(0));
    env.ended("a", 3, Exit::Code(0));
    assert_eq!(started(&env), ["j1.0", "j1.4", "j1.5"]);
    assert_eq!(env.reason(job), "held; gantry release lets it go on");
    assert_eq!(env.cluster.job(job).unwrap().tasks_held, 3);
    assert_eq!(env.act(Action::Release { job, indices: some("2") }).unwrap(), 1);
    assert_eq!(started(&env)[3..], ["j1.2"]);
    assert_eq!(env.act(Action::Release { job, indices: None }).unwrap(), 2);
    env.ended("a", 4, Exit::Code(0));
    env.ended("a", 5, Exit::Code(0));
    env.ended("a", 6, Exit::Code(0));
    assert_eq!(env.state(job), JobState::Done);
}

#[test]
fn a_held_element_that_failed_keeps_its_back_off() {
    let mut env = Env::new().node("a", 1, 0);
    let mut spec = array(1, "0-1");
    spec.retries = 1;
    let job = env.submit(spec).unwrap();
    env.ended("a", 1, Exit::Code(3));
    assert_eq!(env.act(Action::Hold { job, indices: some("0") }).unwrap(), 1);
    env.ended("a", 2, Exit::Code(0));
    env.pass(60_000);
    assert_eq!(started(&env), ["j1.0", "j1.1"]);
    env.act(Action::Release { job, indices: some("0") }).unwrap();
    assert_eq!(started(&env), ["j1.0", "j1.1", "j1.0"]);
}

#[test]
fn a_held_element_that_waits_for_another_is_not_started_by_its_end() {
    let mut env = Env::new().node("a", 8, 0);
    let first = env.submit(array(1, "0-2")).unwrap();
    let mut spec = array(1, "0-2");
    let (kind, scope) = (DependencyKind::Ok, DependencyScope::Element);
    spec.after = vec![Dependency { job: first, kind, scope }];
    let second = env.submit(spec).unwrap();
    assert_eq!(env.act(Action::Hold { job: second, indices: some("0-1") }).unwrap(), 2);
    for (try_id, code) in [(1, 0), (2, 9), (3, 0)] {
        env.ended("a", try_id, Exit::Code(code));
    }
    assert_eq!(started(&env)[3..], ["j2.2"]);
    let counts = env.cluster.job(second).unwrap().tasks;
    assert_eq!(counts, TaskCounts { wait: 1, run: 1, cancel: 1, ..TaskCounts::default() });
    env.act(Action::Release { job: second, indices: some("0-2") }).unwrap();
    assert_eq!(started(&env)[4..], ["j2.0"]);
}

#[test]
fn held_elements_can_be_cancelled() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-9")).unwrap();
    env.act(Action::Hold { job, indices: some("0-9") }).unwrap();
    env.cancel(job);
    env.ended("a", 1, Exit::Signal(15));
    assert_eq!(env.state(job), JobState::Cancel);
}

#[test]
fn a_million_elements_are_held_as_ranges() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-999999")).unwrap();
    let held = env.act(Action::Hold { job, indices: some("10-999999") }).unwrap();
    assert_eq!(held, 999_990);
    assert_eq!(env.act(Action::Release { job, indices: None }).unwrap(), 999_990);
}

#[test]
fn limits_and_retries_are_changed_by_element() {
    let mut env = Env::new().node("a", 1, 0);
    let mut spec = array(1, "0-3");
    spec.time_limit = Some(Millis::from_seconds(60));
    let job = env.submit(spec).unwrap();
    let longer = JobChange {
        time_limit: Some(Millis::from_seconds(14_400)),
        retries: Some(1),
        ..JobChange::default()
    };
    let change = |indices, change| Action::Change { job, indices, change };
    assert_eq!(env.act(change(some("2-3"), longer.clone())).unwrap(), 2);
    env.ended("a", 1, Exit::Code(1));
    env.ended("a", 2, Exit::Code(0));
    let limit = |env: &Env| all_launches(&env.effects).last().unwrap().1.time_limit;
    assert_eq!(limit(&env), Some(Millis::from_seconds(14_400)));
    env.ended("a", 3, Exit::Code(1));
    assert_eq!(env.cluster.job(job).unwrap().tasks.fail, 1, "only the unchanged one has failed");
    // A change of all goes over that of some.
    let all = JobChange { time_limit: Some(Millis::from_seconds(5)), ..JobChange::default() };
    env.act(change(None, all)).unwrap();
    env.ended("a", 4, Exit::Code(0));
    env.pass(2_000);
    assert_eq!(limit(&env), Some(Millis::from_seconds(5)));
    let part = JobChange { priority: Some(1), ..JobChange::default() };
    let refused = env.act(change(some("2"), part)).unwrap_err();
    assert!(refused.sentence.contains("belong to the whole job"), "{refused}");
}

#[test]
fn changes_by_element_are_bounded() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-999")).unwrap();
    for n in 0..=limits::EXCEPTIONS_MAX {
        let change = JobChange { retries: Some(1), ..JobChange::default() };
        let asked = env.act(Action::Change { job, indices: some(&n.to_string()), change });
        assert_eq!(asked.is_ok(), n < limits::EXCEPTIONS_MAX, "{n}");
    }
}

#[test]
fn elements_say_why_they_wait() {
    let mut env = Env::new().node("a", 1, 0);
    let mut spec = array(1, "0-9");
    spec.retries = 1;
    let job = env.submit(spec).unwrap();
    env.ended("a", 1, Exit::Code(1));
    env.act(Action::Hold { job, indices: some("4-5") }).unwrap();
    let why = |env: &Env, elements: &str| env.cluster.why(At(env.at), job, some(elements).as_ref());
    for (elements, part) in [
        ("0", "waits out the time after a failure"),
        ("4", "held; gantry release j1.4 lets it go on"),
        ("7", "the most free is 0"),
        ("0-9", "9 wait, 1 run; "),
    ] {
        let sentence = why(&env, elements).unwrap().sentence;
        assert!(sentence.contains(part), "{elements}: {sentence}");
    }
    assert!(why(&env, "1").unwrap_err().sentence.contains("it does not wait: 1 run"));
    assert!(why(&env, "77").unwrap_err().sentence.contains("has no element 77; it has 0-9"));
    let nobody = env.cluster.why(At(0), JobId(9), some("1").as_ref()).unwrap_err();
    assert!(nobody.sentence.contains("there is no job j9"));
}

#[test]
fn some_elements_are_a_row_of_their_own() {
    let mut env = Env::new().node("a", 3, 0);
    let job = env.submit(array(1, "0-3")).unwrap();
    for (try_id, code) in [(1, 0), (2, 7)] {
        env.ended("a", try_id, Exit::Code(code));
    }
    let part = |elements: &str| env.cluster.part(job, &elements.parse().unwrap());
    for (elements, state, exit) in [
        ("0", JobState::Done, Some(Exit::Code(0))),
        ("0-1", JobState::Fail, Some(Exit::Code(7))),
        ("0-2", JobState::Run, None),
    ] {
        let row = part(elements).unwrap();
        assert_eq!((row.state, row.exit), (state, exit), "{elements}");
    }
    assert!(part("9").is_err());
}
