//! Order, room and quotas: who goes first, who waits for whom, and what is stopped for what.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{ClusterSettings, Effect, Event, GroupSettings};
use gantry_model::{
    Action, At, Exit, Gang, JobChange, JobId, JobSpec, JobState, MemoryMib, Millis, Preemption,
    RejectKind, Resources, Service, Window,
};
use support::{Env, all_launches, array, facts, launches, spec, stops};

fn limited(cores: u32, seconds: u64) -> JobSpec {
    JobSpec { time_limit: Some(Millis::from_seconds(seconds)), ..spec(cores) }
}

fn preemptible(cores: u32, priority: i32) -> JobSpec {
    JobSpec { preemption: Preemption::Requeue, priority, ..spec(cores) }
}

fn gang(cores: u32, ranks: u32, nodes: Option<u32>) -> JobSpec {
    JobSpec { gang: Some(Gang { ranks, nodes }), ..spec(cores) }
}

fn drain(node: &str, deadline: Option<At>) -> Action {
    Action::Drain { node: node.into(), reason: "new disks".into(), deadline }
}

fn service(env: &Env, name: &str) -> Service {
    env.cluster.nodes().into_iter().find(|row| row.facts.name == name).unwrap().service
}

// --- wide and narrow -----------------------------------------------------------------------

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
    let why = env.cluster.why(At(0), wide).unwrap();
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

// --- preemption ----------------------------------------------------------------------------

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

// --- gangs ---------------------------------------------------------------------------------

#[test]
fn a_gang_starts_whole_or_not_at_all() {
    let mut env = Env::new().node("a", 2, 0).node("b", 2, 0);
    let one = env.submit(spec(1)).unwrap();
    let ranks = env.submit(gang(1, 4, None)).unwrap();
    assert_eq!(launches(&env.effects).len(), 1);
    let reason = env.reason(ranks);
    assert_eq!(reason, "needs room for 4 ranks at once; there is room for 3 on 2 nodes");
    let narrow = env.submit(spec(1)).unwrap();
    assert_eq!(env.state(narrow), JobState::Wait, "the gang is not starved");
    env.cancel(narrow);
    let effects = env.ended(&env.cluster.job(one).unwrap().nodes[0].clone(), 1, Exit::Code(0));
    let started = all_launches(&effects);
    assert_eq!(started.len(), 4);
    for (rank, (_, launch)) in started.iter().enumerate() {
        let value = |name: &str| launch.environment[name].as_str();
        assert_eq!(launch.task, ranks.task(rank as u32));
        assert_eq!((value("RANK"), value("WORLD_SIZE")), (rank.to_string().as_str(), "4"));
        assert_eq!((value("LOCAL_RANK"), value("LOCAL_WORLD_SIZE")), (["0", "1"][rank % 2], "2"));
        assert_eq!(value("GROUP_RANK"), ["0", "1"][rank / 2]);
        assert_eq!(value("MASTER_ADDR"), format!("10.0.0.{}", started[0].0));
        assert_eq!(value("MASTER_PORT"), "29500");
    }
}

#[test]
fn a_gang_is_done_when_all_ranks_are_and_falls_with_the_first_that_fails() {
    let mut env = Env::new().node("a", 2, 0).node("b", 2, 0);
    let job = env.submit(JobSpec { retries: 1, ..gang(2, 2, Some(2)) }).unwrap();
    env.started("a", 1);
    env.ended("a", 1, Exit::Code(0));
    assert_eq!(env.state(job), JobState::Run, "the other rank still runs");
    // The second falls: the first, which had arrived, starts again with it.
    let effects = env.ended("b", 2, Exit::Code(1));
    assert!(launches(&effects).is_empty(), "after a wait");
    let effects = env.pass(1000);
    assert_eq!(launches(&effects).len(), 2);
    assert!(all_launches(&effects).iter().all(|(_, launch)| launch.start == 2));
    let effects = env.ended("a", 3, Exit::Code(1));
    assert_eq!(stops(&effects), [("b".into(), 4)], "no retry is left");
    env.ended("b", 4, Exit::Signal(15));
    let row = env.cluster.job(job).unwrap();
    assert_eq!((row.state, row.exit), (JobState::Fail, Some(Exit::Code(1))));
    assert_eq!(row.reason.unwrap(), "rank 0 of the gang: exit 1");
}

#[test]
fn a_launch_that_fails_on_one_node_gives_back_what_the_gang_held_on_the_others() {
    let mut env = Env::new().node("a", 2, 0).node("b", 2, 0);
    let job = env.submit(gang(2, 2, Some(2))).unwrap();
    let exit = Exit::NotStarted { code: 127, sentence: "not found".into() };
    env.ended("b", 2, exit);
    env.ended("a", 1, Exit::Signal(15));
    assert_eq!((env.state(job), env.cluster.summary().cores_used), (JobState::Fail, 0));
    // The same for a single task, many times over.
    for n in 0..20 {
        env.submit(spec(2)).unwrap();
        let exit = Exit::NotStarted { code: 126, sentence: "no".into() };
        let node = launches(&env.effects).last().unwrap().0.clone();
        env.ended(&node, 3 + n, exit);
        assert_eq!(env.cluster.summary().cores_used, 0);
    }
}

#[test]
fn a_lost_node_brings_the_whole_gang_back_without_counting() {
    let mut env = Env::new().node("a", 2, 0).node("b", 2, 0).node("c", 2, 0);
    let job = env.submit(gang(2, 2, Some(2))).unwrap();
    env.down("b");
    let effects = env.pass(10_000);
    assert_eq!(stops(&effects), [("a".into(), 1)]);
    assert_eq!(env.state(job), JobState::Run, "the first rank is on its way out");
    let effects = env.ended("a", 1, Exit::Signal(15));
    let nodes: Vec<String> = launches(&effects).into_iter().map(|launch| launch.0).collect();
    assert_eq!(nodes, ["a", "c"]);
}

#[test]
fn two_gangs_on_one_node_meet_at_different_ports() {
    let mut env = Env::new().node("a", 4, 0);
    env.submit(gang(1, 2, None)).unwrap();
    env.submit(gang(1, 2, None)).unwrap();
    let ports: Vec<String> = all_launches(&env.effects)
        .into_iter()
        .map(|(_, launch)| launch.environment["MASTER_PORT"].clone())
        .collect();
    assert_eq!(ports, ["29500", "29500", "29501", "29501"]);
}

// --- order and quotas ----------------------------------------------------------------------

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
    assert!(env.cluster.why(At(0), job).unwrap().sentence.contains("group two may have 2 cores"));
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
    let why = env.cluster.why(At(0), job).unwrap();
    assert_eq!(why.sentence, "needs 1 of the licence m; 0 of 2 are free");
    let (node, try_id, _) = launches(&env.effects).swap_remove(0);
    assert_eq!(launches(&env.ended(&node, try_id, Exit::Code(0))).len(), 1);
    let much = JobSpec { licences: [("m".into(), 3)].into(), ..spec(1) };
    assert_eq!(env.submit(much).unwrap_err().kind, RejectKind::Unsatisfiable);
}

// --- what people change --------------------------------------------------------------------

#[test]
fn hold_release_requeue_and_change() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-2")).unwrap();
    assert_eq!(env.act(Action::Hold { job }).unwrap(), 2);
    assert!(launches(&env.ended("a", 1, Exit::Code(0))).is_empty());
    assert_eq!(env.reason(job), "held; gantry release lets it go on");
    env.act(Action::Release { job }).unwrap();
    let effects = env.act(Action::Requeue { job, indices: None });
    assert_eq!(effects.unwrap(), 1);
    assert_eq!(stops(&env.effects), [("a".into(), 2)]);
    let effects = env.ended("a", 2, Exit::Signal(15));
    assert_eq!(all_launches(&effects)[0].1.start, 2, "it runs again");
    let waiting = env.submit(spec(1)).unwrap();
    let change = JobChange { priority: Some(7), retries: Some(2), ..JobChange::default() };
    env.act(Action::Change { job: waiting, change }).unwrap();
    let effects = env.ended("a", 3, Exit::Code(0));
    assert_eq!(launches(&effects)[0].2, waiting.task(0).to_string());
    let wrong = JobChange { at_once_max: Some(2), ..JobChange::default() };
    let reject = env.act(Action::Change { job: waiting, change: wrong }).unwrap_err();
    assert!(reject.sentence.contains("is no array"), "{reject}");
    assert_eq!(env.act(Action::Hold { job: JobId(9) }).unwrap_err().kind, RejectKind::NotFound);
    env.cancel(job);
    assert_eq!(env.act(Action::Hold { job }).unwrap_err().kind, RejectKind::State);
}

#[test]
fn a_cap_can_be_raised_and_lowered_while_the_array_runs() {
    let mut env = Env::new().node("a", 8, 0);
    let job = env.submit(array(1, "0-9%2")).unwrap();
    let cap = |cap| Action::Change {
        job,
        change: JobChange { at_once_max: Some(cap), ..JobChange::default() },
    };
    env.act(cap(5)).unwrap();
    assert_eq!(launches(&env.effects).len(), 5);
    env.act(cap(1)).unwrap();
    for try_id in 1..=4 {
        assert!(launches(&env.ended("a", try_id, Exit::Code(0))).is_empty());
    }
    assert_eq!(launches(&env.ended("a", 5, Exit::Code(0))).len(), 1);
}

#[test]
fn only_named_exit_codes_are_tried_again() {
    for (code, again) in [(75, true), (1, false)] {
        let mut env = Env::new().node("a", 1, 0);
        let job = JobSpec { retries: 1, retry_codes: [75].into(), ..spec(1) };
        env.submit(job).unwrap();
        env.ended("a", 1, Exit::Code(code));
        assert_eq!(launches(&env.pass(1000)).len(), usize::from(again), "exit {code}");
    }
}

#[test]
fn a_drained_node_empties_and_its_deadline_is_kept() {
    let mut env = Env::new().node("a", 1, 0).node("b", 1, 0);
    env.submit(array(1, "0-1")).unwrap();
    env.act(drain("a", Some(At(5_000)))).unwrap();
    let waiting = env.submit(spec(1)).unwrap();
    assert_eq!(env.state(waiting), JobState::Wait);
    let why = env.cluster.why(At(0), waiting).unwrap();
    assert_eq!(why.nodes[0], ("a".into(), "drain: new disks".into()));
    assert!(stops(&env.pass(4_999)).is_empty());
    assert_eq!(stops(&env.pass(1)).len(), 1, "what still runs is queued again");
    env.ended("a", 1, Exit::Signal(15));
    assert!(launches(&env.pass(60_000)).is_empty());
    env.act(Action::Resume { node: "a".into() }).unwrap();
    assert_eq!(launches(&env.effects).len(), 3);
    assert_eq!(env.act(Action::Resume { node: "a".into() }).unwrap_err().kind, RejectKind::State);
    assert!(env.act(drain("c", None)).unwrap_err().sentence.contains("known are: a, b"));
}

#[test]
fn nothing_runs_into_a_maintenance_window() {
    let mut env = Env::new().node("a", 4, 0);
    let running = env.submit(spec(1)).unwrap();
    let window = Window { from: At(60_000), until: At(120_000), reason: "firmware".into() };
    env.act(Action::AddWindow { node: "a".into(), window }).unwrap();
    let short = env.submit(limited(1, 60)).unwrap();
    let long = env.submit(limited(1, 61)).unwrap();
    assert_eq!((env.state(short), env.state(long)), (JobState::Run, JobState::Wait));
    env.ended("a", 2, Exit::Code(0));
    let effects = env.pass(60_000);
    assert_eq!(stops(&effects), [("a".into(), 1)], "what had begun before it was planned");
    env.ended("a", 1, Exit::Signal(15));
    assert_eq!(env.state(running), JobState::Wait);
    assert_eq!(launches(&env.pass(59_999)).len(), 0);
    assert_eq!(launches(&env.pass(1)).len(), 2);
}

#[test]
fn one_bad_node_does_not_eat_the_queue() {
    let mut env = Env::new().node("bad", 1, 0).node("good", 1, 0);
    env.submit(array(1, "0-99")).unwrap();
    let mut told = 0;
    let mut failed = 0;
    while told < env.effects.len() {
        let fresh = launches(&env.effects[told..]);
        told = env.effects.len();
        for (node, try_id, _) in fresh {
            env.at += 100;
            let exit = if node == "bad" { Exit::Code(1) } else { Exit::Code(0) };
            failed += u32::from(node == "bad");
            env.ended(&node, try_id, exit);
        }
    }
    assert!(failed <= 9, "{failed} tasks fell to the bad node");
    assert!(matches!(service(&env, "bad"), Service::Quarantine { .. }));
    assert_eq!(service(&env, "good"), Service::Open);
}

#[test]
fn a_bad_job_does_not_quarantine_nodes_and_the_last_node_is_kept() {
    let mut env = Env::new().node("a", 1, 0).node("b", 1, 0);
    env.submit(array(1, "0-99")).unwrap();
    let mut told = 0;
    while told < env.effects.len() {
        let fresh = launches(&env.effects[told..]);
        told = env.effects.len();
        for (node, try_id, _) in fresh {
            env.ended(&node, try_id, Exit::Code(1));
        }
    }
    assert_eq!((service(&env, "a"), service(&env, "b")), (Service::Open, Service::Open));
    // Many jobs that fail on the only node: it is bad, and better than none.
    let mut env = Env::new().node("a", 1, 0);
    for n in 1..=20 {
        env.submit(spec(1)).unwrap();
        env.ended("a", n, Exit::Code(1));
    }
    assert_eq!(service(&env, "a"), Service::Open);
}

#[test]
fn a_user_has_so_many_jobs_at_once_and_no_more() {
    let settings = ClusterSettings { jobs_max: 2, ..ClusterSettings::default() };
    let mut env = Env::with(settings).node("a", 1, 0);
    env.submit(spec(1)).unwrap();
    env.submit(spec(1)).unwrap();
    let reject = env.submit(spec(1)).unwrap_err();
    assert_eq!(reject.kind, RejectKind::Busy, "{reject}");
    assert!(env.submit_as("bob", spec(1), "b").is_ok(), "others are not in its way");
    env.ended("a", 1, Exit::Code(0));
    assert!(env.submit(spec(1)).is_ok());
}

// --- what is remembered --------------------------------------------------------------------

#[test]
fn ended_jobs_are_forgotten_beyond_a_limit_and_that_is_said() {
    let settings = ClusterSettings { ended_kept: 3, ..ClusterSettings::default() };
    let mut env = Env::with(settings).node("a", 1, 0);
    for n in 1..=5 {
        env.submit(spec(1)).unwrap();
        env.ended("a", n, Exit::Code(0));
    }
    assert!(env.cluster.job(JobId(2)).is_none() && env.cluster.job(JobId(3)).is_some());
    let after = gantry_model::Dependency {
        job: JobId(1),
        kind: gantry_model::DependencyKind::Ok,
        scope: gantry_model::DependencyScope::Job,
    };
    let reject = env.submit(JobSpec { after: vec![after], ..spec(1) }).unwrap_err();
    assert!(reject.sentence.contains("only in the history"), "{reject}");
}

#[test]
fn a_million_elements_are_cancelled_and_kept_as_ranges() {
    let mut env = Env::new().node("a", 2, 0);
    let job = env.submit(array(1, "0-999999")).unwrap();
    env.ended("a", 1, Exit::Code(0));
    env.cancel(job);
    let row = env.cluster.job(job).unwrap();
    assert_eq!((row.tasks.done, row.tasks.cancel, row.tasks.run), (1, 999_997, 2));
    assert!(format!("{:?}", env.cluster).len() < 10_000, "no element is kept by itself");
}

#[test]
fn a_list_is_a_page_however_many_jobs_there_are() {
    let mut env = Env::new();
    for n in 0..2_000 {
        env.submit_as("ada", spec(1), &n.to_string()).unwrap();
    }
    let (rows, more) = env.cluster.jobs(None, true, 200);
    assert_eq!((rows.len(), rows[0].job, more), (200, JobId(2000), true));
    let (rows, more) = env.cluster.jobs(Some(JobId(101)), true, 200);
    assert_eq!((rows.len(), rows[0].job, more), (100, JobId(100), false));
    let array = env.submit(array(1, "0-999999")).unwrap();
    let (tasks, more) = env.cluster.tasks(array, 500_000, 200).unwrap();
    assert_eq!((tasks.len(), tasks[0].task.index, more), (200, 500_000, true));
}

#[test]
fn what_a_job_took_is_counted() {
    let mut env = Env::new().node("g", 4, 2);
    let resources = Resources { cores: 2, gpus: 1, ..Resources::default() };
    env.submit(JobSpec { resources, ..spec(1) }).unwrap();
    env.at = 5_000;
    let effects = env.ended("g", 1, Exit::Code(0));
    let row = effects.into_iter().find_map(|effect| match effect {
        Effect::JobEnded(row) => Some(*row),
        _ => None,
    });
    let spent = row.unwrap().spent;
    assert_eq!((spent.core_ms, spent.gpu_ms), (10_000, 5_000));
    assert_eq!((spent.cpu_ms, spent.memory_peak), (10, MemoryMib(5)));
}

#[test]
fn a_try_that_a_cut_journal_forgot_keeps_its_id() {
    let mut env = Env::new();
    env.apply(Event::NodeUp { facts: facts("a", 2, 0), holds: vec![gantry_model::TryId(41)] });
    env.ended("a", 41, Exit::Code(0));
    env.submit(spec(1)).unwrap();
    assert_eq!(launches(&env.effects)[0].1, 42);
}

#[test]
fn why_says_who_is_ahead() {
    let mut env = Env::new().node("a", 1, 0);
    env.submit(spec(1)).unwrap();
    let urgent = env.submit(JobSpec { priority: 4, ..spec(1) }).unwrap();
    let first = env.submit(spec(1)).unwrap();
    let second = env.submit(spec(1)).unwrap();
    let why = env.cluster.why(At(0), second).unwrap();
    assert_eq!((why.ahead, why.ahead_count), (vec![urgent, first], 2));
    assert_eq!(why.nodes, [("a".to_owned(), "has 0 of 1 cores free".to_owned())]);
    assert_eq!(why.sentence, "needs 1 cores; the most free is 0, of 1 nodes");
    let reject = env.cluster.why(At(0), JobId(1)).unwrap_err();
    assert!(reject.sentence.contains("does not wait"), "{reject}");
    assert_eq!(env.cluster.why(At(0), JobId(99)).unwrap_err().kind, RejectKind::NotFound);
}
