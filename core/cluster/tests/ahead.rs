//! Launches ahead: who may have them, what calls them back, and what becomes of a lease.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::Effect;
use gantry_model::{
    Action, Exit, IndexSet, JobChange, JobId, JobSpec, JobState, Millis, Preemption,
};
use support::{Env, ahead, array, launches, recalls, spec, stops};

/// A cluster of one node, on which two tasks of an array run that take 10 ms each; it has seen
/// four of them.
fn busy() -> (Env, JobId, Vec<Effect>) {
    let mut env = Env::ahead(Millis(100)).node("a", 2, 0);
    let job = env.submit(array(1, "0-99")).unwrap();
    let mut effects = Vec::new();
    for try_id in 1..=4 {
        env.at += 10;
        effects = env.ended("a", try_id, Exit::Code(0));
    }
    (env, job, effects)
}

fn elements(text: &str) -> IndexSet {
    text.parse().unwrap()
}

#[test]
fn short_tasks_wait_on_the_node() {
    let (mut env, job, effects) = busy();
    // 17.5 ms each, as they wait for one another: five in 100 ms, for each of the two that run.
    let waiting = ahead(&effects);
    assert_eq!(waiting, (7..=16).collect::<Vec<u64>>());
    let row = env.cluster.job(job).unwrap();
    assert_eq!((row.tasks.run, row.tasks.wait), (2, 94));

    let effects = env.handed_on("a", 5, 7);
    assert!(launches(&effects).is_empty(), "{effects:?}");
    assert_eq!(env.cluster.job(job).unwrap().tasks.done, 5);
    // Once half are gone there are more.
    let mut more = Vec::new();
    for (ended, heir) in [(6, 8), (7, 9), (8, 10), (9, 11), (10, 12), (11, 13), (12, 14)] {
        more.extend(ahead(&env.handed_on("a", ended, heir)));
    }
    assert!(!more.is_empty());
}

#[test]
fn long_tasks_do_not() {
    let mut env = Env::ahead(Millis(100)).node("a", 2, 0);
    env.submit(array(1, "0-99")).unwrap();
    for try_id in 1..=10 {
        env.at += 200;
        assert!(ahead(&env.ended("a", try_id, Exit::Code(0))).is_empty());
    }
}

#[test]
fn the_last_ones_are_shared_by_all_nodes() {
    let mut env = Env::ahead(Millis(100)).node("a", 2, 0).node("b", 2, 0);
    env.submit(array(1, "0-15")).unwrap();
    for (try_id, node) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
        env.at += 1;
        env.ended(node, try_id, Exit::Code(0));
    }
    let count = ahead(&env.effects).len();
    assert!((1..=4).contains(&count), "{count} of 8 wait on one of two nodes");
}

/// Only the first in the queue gets tasks ahead.
#[test]
fn whoever_comes_first_does_not_find_the_room_promised() {
    let (mut env, _, _) = busy();
    let urgent = JobSpec { priority: 10, ..spec(2) };
    let effects = env.submit(urgent).map(|_| env.effects.clone()).unwrap();
    assert_eq!(recalls(&effects), (7..=16).collect::<Vec<u64>>());
    for try_id in 7..=16 {
        env.returned("a", try_id);
    }
    env.ended("a", 5, Exit::Code(0));
    let effects = env.ended("a", 6, Exit::Code(0));
    assert_eq!(launches(&effects).len(), 1, "{effects:?}");
    assert_eq!(env.state(JobId(2)), JobState::Run);
}

#[test]
fn what_people_do_calls_them_back() {
    let all: Vec<u64> = (7..=16).collect();
    let node = || "a".to_owned();
    let job = JobId(1);
    let whole = |change| Action::Change { job, indices: None, change };
    for (action, expected) in [
        (Action::Hold { job, indices: None }, all.clone()),
        (Action::Hold { job, indices: Some(elements("6-7")) }, vec![7, 8]),
        (whole(JobChange { time_limit: Some(Millis(5000)), ..JobChange::default() }), all.clone()),
        (Action::Drain { node: node(), reason: "dust".into(), deadline: None }, all),
    ] {
        let (mut env, ..) = busy();
        let from = env.effects.len();
        env.act(action.clone()).unwrap();
        assert_eq!(recalls(&env.effects[from..]), expected, "{action:?}");
        // Nothing is lost: what comes back waits, or is held, and all of it runs in the end.
        for try_id in expected {
            env.returned("a", try_id);
        }
    }
}

#[test]
fn a_held_element_that_comes_back_is_held() {
    let (mut env, job, _) = busy();
    env.act(Action::Hold { job, indices: Some(elements("6-7")) }).unwrap();
    env.returned("a", 7);
    env.returned("a", 8);
    assert_eq!(env.cluster.job(job).unwrap().tasks_held, 2);
    env.act(Action::Release { job, indices: None }).unwrap();
    assert_eq!(env.cluster.job(job).unwrap().tasks_held, 0);
}

#[test]
fn a_cancelled_job_ends_once_all_have_come_back() {
    let (mut env, job, _) = busy();
    let effects = env.cancel(job);
    assert_eq!((recalls(&effects).len(), stops(&effects).len()), (10, 2));
    for try_id in 8..=16 {
        env.returned("a", try_id);
    }
    env.ended("a", 6, Exit::Signal(15));
    // One had begun before it was called back: it is stopped like any other.
    let effects = env.handed_on("a", 5, 7);
    assert_eq!(stops(&effects), [("a".to_owned(), 7)]);
    assert_eq!(env.state(job), JobState::Run);
    env.ended("a", 7, Exit::Signal(15));
    assert_eq!(env.state(job), JobState::Cancel);
    assert_eq!(env.cluster.job(job).unwrap().tasks.done, 5);
}

#[test]
fn a_task_that_takes_long_does_not_hold_up_those_behind_it() {
    let (mut env, job, _) = busy();
    env.pass(399);
    assert_eq!(recalls(&env.effects).len(), 0);
    let effects = env.pass(2);
    assert_eq!(recalls(&effects).len(), 10);
    for try_id in 7..=16 {
        env.returned("a", try_id);
    }
    let effects = env.up("b", 2, 0, &[]);
    assert_eq!(launches(&effects).len(), 2);
    assert_eq!(env.cluster.job(job).unwrap().tasks.run, 4);
}

#[test]
fn a_node_that_comes_back_without_them_gave_them_back() {
    let (mut env, job, _) = busy();
    env.down("a");
    env.up("a", 2, 0, &[5, 6, 7, 8]);
    let row = env.cluster.job(job).unwrap();
    assert_eq!((row.tasks.run, row.tasks.wait), (2, 94));
    env.handed_on("a", 5, 7);
    env.handed_on("a", 6, 8);
    assert_eq!(env.cluster.job(job).unwrap().tasks.run, 2);
}

#[test]
fn what_waits_with_an_agent_that_is_gone_waits_again() {
    let (mut env, job, _) = busy();
    env.gone("a", &[5]);
    let row = env.cluster.job(job).unwrap();
    assert_eq!((row.tasks.run, row.tasks.wait), (1, 95));
    // Elsewhere, and at once: nothing is tied to the node but what lives on there.
    let effects = env.up("b", 16, 0, &[]);
    assert_eq!(launches(&effects).len(), 16);
    assert!(stops(&env.up("a", 2, 0, &[5])).is_empty());
}

#[test]
fn a_lost_node_gives_everything_back() {
    let (mut env, job, _) = busy();
    env.down("a");
    env.pass(10_000);
    let row = env.cluster.job(job).unwrap();
    assert_eq!((row.tasks.run, row.tasks.wait), (0, 96));
    // What it had is fenced when it comes back.
    let effects = env.up("a", 2, 0, &[5, 6, 7]);
    assert_eq!(stops(&effects).len(), 3);
}

/// What is stopped to make room makes it, also where its lease was handed on meanwhile.
#[test]
fn room_that_was_made_is_not_handed_on() {
    let mut env = Env::ahead(Millis(100)).node("a", 2, 0);
    let gives_way = JobSpec { preemption: Preemption::Requeue, ..array(1, "0-99") };
    env.submit(gives_way).unwrap();
    for try_id in 1..=4 {
        env.at += 10;
        env.ended("a", try_id, Exit::Code(0));
    }
    let from = env.effects.len();
    env.submit(JobSpec { priority: 10, ..spec(2) }).unwrap();
    assert_eq!(stops(&env.effects[from..]).len(), 2);
    let effects = env.handed_on("a", 5, 7);
    assert_eq!(stops(&effects), [("a".to_owned(), 7)]);
    env.ended("a", 6, Exit::Signal(15));
    let effects = env.ended("a", 7, Exit::Signal(15));
    assert_eq!(launches(&effects).len(), 1);
}

#[test]
fn none_where_it_is_switched_off() {
    let mut env = Env::ahead(Millis(0)).node("a", 2, 0);
    env.submit(array(1, "0-99")).unwrap();
    for try_id in 1..=20 {
        env.at += 1;
        assert!(ahead(&env.ended("a", try_id, Exit::Code(0))).is_empty());
    }
}

/// Where more run than a lowered cap allows, what ends frees its room.
#[test]
fn nothing_waits_for_a_lease_beyond_the_cap() {
    let mut env = Env::ahead(Millis(100)).node("a", 3, 0);
    let job = env.submit(array(1, "0-99")).unwrap();
    let change = JobChange { at_once_max: Some(1), ..JobChange::default() };
    env.act(Action::Change { job, indices: None, change }).unwrap();
    let mut counts = Vec::new();
    for try_id in 1..=6 {
        env.at += 10;
        let effects = env.ended("a", try_id, Exit::Code(0));
        counts.push((env.cluster.job(job).unwrap().tasks.run, ahead(&effects).is_empty()));
    }
    let expected = [(2, true), (1, true), (1, true), (1, false), (1, true), (1, true)];
    assert_eq!(counts, expected);
}
