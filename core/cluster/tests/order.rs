//! Room and order: who waits for whom, who goes first, and what is stopped for what.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{ClusterSettings, Event, GroupSettings};
use gantry_model::{At, Exit, JobId, JobSpec, JobState, Millis, Preemption, RejectKind, Resources};
use support::{Env, all_launches, array, launches, spec, stops};

fn limited(cores: u32, seconds: u64) -> JobSpec {
    JobSpec { time_limit: Some(Millis::from_seconds(seconds)), ..spec(cores) }
}

fn preemptible(cores: u32, priority: i32) -> JobSpec {
    JobSpec { preemption: Preemption::Requeue, priority, ..spec(cores) }
}

#[test]
fn wide_jobs_are_not_starved_by_narrow_ones() {
    let mut env = Env::new().node("a", 4, 0);
    let mut running: Vec<u64> = Vec::new();
    for _ in 0..4 {
        env.submit(spec(1)).unwrap();
    }
    running.extend(launches(&env.effects).iter().map(|launch| launch.1));
    let wide = env.submit(spec(4)).unwrap();
    // Narrow jobs of unknown length keep coming; none may start while the wide one waits.
    for (turn, try_id) in running.into_iter().enumerate() {
        env.submit(spec(1)).unwrap();
        let effects = env.ended("a", try_id, Exit::Code(0));
        let started = launches(&effects);
        if turn < 3 {
            assert!(started.is_empty(), "{started:?} slipped in before the wide job");
        } else {
            assert_eq!(started[0].2, wide.task(0).to_string());
        }
    }
}

#[test]
fn backfill_takes_what_ends_in_time_and_never_delays_the_first() {
    let mut env = Env::new().node("a", 4, 0);
    env.submit(limited(3, 100)).unwrap();
    let wide = env.submit(limited(4, 50)).unwrap();
    let why = env.cluster.why(At(0), wide, None).unwrap();
    assert_eq!((why.start, why.reserved), (Some(At(100_000)), vec!["a".to_owned()]));
    let late = env.submit(limited(1, 101)).unwrap();
    assert_eq!(env.reason(late), "a is kept for j2");
    let unknown = env.submit(spec(1)).unwrap();
    assert_eq!(env.state(unknown), JobState::Wait, "nobody knows how long it takes");
    let short = env.submit(limited(1, 100)).unwrap();
    assert_eq!(env.state(short), JobState::Run, "it ends in time");
    env.at = 100_000;
    env.ended("a", 2, Exit::Code(0));
    let effects = env.ended("a", 1, Exit::TimeLimit);
    assert_eq!(launches(&effects)[0].2, wide.task(0).to_string(), "at the time it was promised");
}

#[test]
fn backfill_uses_what_the_first_does_not_need() {
    let mut env = Env::new().node("a", 4, 0);
    env.submit(limited(2, 100)).unwrap();
    env.submit(spec(3)).unwrap();
    let beside = env.submit(spec(1)).unwrap();
    assert_eq!(env.state(beside), JobState::Run, "3 of 4 cores are enough for the first");
    let more = env.submit(spec(1)).unwrap();
    assert_eq!(env.state(more), JobState::Wait);
}

#[test]
fn a_pass_does_not_stop_at_a_job_that_finds_no_room() {
    let mut env = Env::new().node("a", 4, 0).node("g", 2, 2);
    let gpus = |gpus| Resources { cores: 1, gpus, ..Resources::default() };
    env.submit(JobSpec { resources: gpus(2), ..spec(1) }).unwrap();
    let stuck = env.submit(JobSpec { resources: gpus(2), priority: 9, ..spec(1) }).unwrap();
    let free = env.submit(spec(4)).unwrap();
    assert_eq!((env.state(stuck), env.state(free)), (JobState::Wait, JobState::Run));
}

#[test]
fn preemption_stops_only_what_is_proven_to_make_room() {
    // Half of the node is held by work that may not be stopped: stopping the rest would be in vain.
    let mut env = Env::new().node("a", 4, 0);
    env.submit(spec(2)).unwrap();
    env.submit(preemptible(1, 0)).unwrap();
    env.submit(preemptible(1, 0)).unwrap();
    env.submit(JobSpec { priority: 5, ..spec(3) }).unwrap();
    assert_eq!(stops(&env.effects), [], "3 cores cannot be made free");
    // Two cores can.
    let mut env = Env::new().node("a", 4, 0);
    env.submit(spec(2)).unwrap();
    let low = env.submit(preemptible(1, 0)).unwrap();
    let lower = env.submit(preemptible(1, -1)).unwrap();
    let urgent = env.submit(JobSpec { priority: 5, ..spec(1) }).unwrap();
    assert_eq!(stops(&env.effects), [("a".into(), 3)], "the lowest goes, and no more than needed");
    assert_eq!(env.state(urgent), JobState::Wait, "until the node says that the task has ended");
    let effects = env.ended("a", 3, Exit::Signal(15));
    assert_eq!(launches(&effects)[0].2, urgent.task(0).to_string());
    assert_eq!((env.state(low), env.state(lower)), (JobState::Run, JobState::Wait));
    // What was stopped goes on later, as a further start that costs no retry.
    let effects = env.ended("a", 4, Exit::Code(0));
    let (_, again) = all_launches(&effects).swap_remove(0);
    assert_eq!((again.task, again.start), (lower.task(0), 2));
}

#[test]
fn nothing_is_stopped_for_an_equal_or_lower_priority_or_without_leave() {
    for (running, waiting) in [
        (preemptible(2, 0), spec(2)),
        (preemptible(2, 3), JobSpec { priority: 2, ..spec(2) }),
        (spec(2), JobSpec { priority: 9, ..spec(2) }),
    ] {
        let mut env = Env::new().node("a", 2, 0);
        env.submit(running).unwrap();
        env.submit(waiting).unwrap();
        assert_eq!(stops(&env.effects), []);
    }
}

#[test]
fn a_task_that_ended_well_before_it_was_stopped_has_ended_well() {
    let mut env = Env::new().node("a", 1, 0);
    let low = env.submit(preemptible(1, 0)).unwrap();
    let urgent = env.submit(JobSpec { priority: 1, ..spec(1) }).unwrap();
    env.ended("a", 1, Exit::Code(0));
    assert_eq!((env.state(low), env.state(urgent)), (JobState::Done, JobState::Run));
}

fn groups(guarantee: u32, limit: Option<u32>) -> ClusterSettings {
    let cores = |cores| Resources { cores, ..Resources::default() };
    let one = GroupSettings {
        guarantee: cores(guarantee),
        users: ["ada".into()].into(),
        ..GroupSettings::default()
    };
    let two = GroupSettings {
        limit: limit.map(cores),
        users: ["bob".into()].into(),
        ..GroupSettings::default()
    };
    ClusterSettings {
        groups: [("one".into(), one), ("two".into(), two)].into(),
        ..Default::default()
    }
}

#[test]
fn users_with_equal_pasts_take_turns() {
    let mut env = Env::with(ClusterSettings::default());
    for user in ["ada", "bob"] {
        env.submit_as(user, array(1, "0-5"), user).unwrap();
    }
    env.up("a", 4, 0, &[]);
    let jobs: Vec<JobId> = all_launches(&env.effects).iter().map(|(_, one)| one.task.job).collect();
    assert_eq!(jobs, [JobId(1), JobId(2), JobId(1), JobId(2)]);
}

#[test]
fn who_has_used_much_lately_waits_for_who_has_not() {
    let mut env = Env::new().node("a", 1, 0);
    env.submit_as("ada", spec(1), "1").unwrap();
    env.at = 3_600_000;
    let ada = env.submit_as("ada", spec(1), "2").unwrap();
    let bob = env.submit_as("bob", spec(1), "3").unwrap();
    let effects = env.ended("a", 1, Exit::Code(0));
    assert_eq!(launches(&effects)[0].2, bob.task(0).to_string());
    // A year later nothing of that counts any more.
    env.at += 365 * 86_400_000;
    let effects = env.ended("a", 2, Exit::Code(0));
    assert_eq!(launches(&effects)[0].2, ada.task(0).to_string());
}

#[test]
fn age_lets_a_low_priority_pass_in_the_end() {
    for (hours, first) in [(1, "high"), (13, "low")] {
        let mut env = Env::new().node("a", 1, 0);
        env.submit(spec(1)).unwrap();
        let low = env.submit(JobSpec { priority: -2, ..spec(1) }).unwrap();
        env.at = hours * 3_600_000;
        let high = env.submit(JobSpec { priority: -1, ..spec(1) }).unwrap();
        let effects = env.ended("a", 1, Exit::Code(0));
        let expected = if first == "low" { low } else { high };
        assert_eq!(launches(&effects)[0].2, expected.task(0).to_string(), "after {hours} h");
    }
}

#[test]
fn a_guarantee_is_lent_and_reclaimed() {
    let mut env = Env::with(groups(2, None)).node("a", 4, 0);
    // Bob borrows the whole node, with work that may be stopped.
    let borrowed = JobSpec { preemption: Preemption::Requeue, ..array(1, "0-3") };
    env.submit_as("bob", borrowed, "b").unwrap();
    assert_eq!(launches(&env.effects).len(), 4);
    // Ada's group gets back its two cores, and no more.
    for key in ["1", "2", "3"] {
        env.submit_as("ada", spec(1), key).unwrap();
    }
    for turn in 0..2 {
        let stopped = stops(&env.effects);
        assert_eq!(stopped.len(), turn + 1, "one at a time: {stopped:?}");
        env.ended("a", stopped[turn].1, Exit::Signal(15));
    }
    assert_eq!(stops(&env.effects).len(), 2, "the third is beyond the guarantee");
    let run = |job| env.state(JobId(job)) == JobState::Run;
    assert!(run(2) && run(3) && !run(4));
}

#[test]
fn a_group_keeps_to_its_limit() {
    let mut env = Env::with(groups(0, Some(2))).node("a", 8, 0);
    let job = env.submit_as("bob", array(1, "0-5"), "b").unwrap();
    assert_eq!(launches(&env.effects).len(), 2);
    assert!(
        env.cluster.why(At(0), job, None).unwrap().sentence.contains("group two may have 2 cores")
    );
    env.submit_as("ada", spec(6), "a").unwrap();
    assert_eq!(launches(&env.effects).len(), 3, "others have the rest");
    let reject = env.submit_as("bob", spec(3), "c").unwrap_err();
    assert_eq!(reject.kind, RejectKind::Unsatisfiable);
    let foreign = JobSpec { group: Some("one".into()), ..spec(1) };
    assert_eq!(env.submit_as("bob", foreign, "d").unwrap_err().kind, RejectKind::Forbidden);
    let unknown = JobSpec { group: Some("three".into()), ..spec(1) };
    let reject = env.submit_as("bob", unknown, "e").unwrap_err();
    assert!(reject.sentence.contains("known are: one, two"), "{reject}");
    // The settings are read again while it runs.
    let effects = env.apply(Event::Settings(Box::new(groups(0, Some(4)))));
    assert_eq!(launches(&effects).len(), 0, "the node is full");
    env.ended("a", 3, Exit::Code(0));
    assert_eq!(launches(&env.effects).len(), 5, "two more of bob's");
}

#[test]
fn licences_are_counted_over_the_whole_cluster() {
    let settings = ClusterSettings { licences: [("m".into(), 2)].into(), ..Default::default() };
    let mut env = Env::with(settings).node("a", 8, 0).node("b", 8, 0);
    let job = JobSpec { licences: [("m".into(), 1)].into(), ..array(1, "0-4") };
    let job = env.submit(job).unwrap();
    assert_eq!(launches(&env.effects).len(), 2);
    let why = env.cluster.why(At(0), job, None).unwrap();
    assert_eq!(why.sentence, "needs 1 of the licence m; 0 of 2 are free");
    let (node, try_id, _) = launches(&env.effects).swap_remove(0);
    assert_eq!(launches(&env.ended(&node, try_id, Exit::Code(0))).len(), 1);
    let much = JobSpec { licences: [("m".into(), 3)].into(), ..spec(1) };
    assert_eq!(env.submit(much).unwrap_err().kind, RejectKind::Unsatisfiable);
}
