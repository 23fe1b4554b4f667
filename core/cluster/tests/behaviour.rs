//! What users and nodes see of the cluster, event by event.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{Cluster, ClusterSettings, Effect, Event};
use gantry_model::{
    At, Builtin, Dependency, DependencyKind, DependencyScope, Exit, JobId, JobSpec, JobState,
    Machine, Order, RejectKind, Resources, TryId, Work,
};
use support::{Env, all_launches, array, launches, spec, stops};

fn after(job: JobId, kind: DependencyKind) -> JobSpec {
    JobSpec { after: vec![Dependency { job, kind, scope: DependencyScope::Job }], ..spec(1) }
}

#[test]
fn a_job_runs_once_and_is_acknowledged() {
    let mut env = Env::new().node("a", 2, 0);
    let job = env.submit(spec(1)).unwrap();
    assert_eq!(launches(&env.effects), [("a".into(), 1, "j1.0".into())]);
    env.started("a", 1);
    assert_eq!(env.state(job), JobState::Run);
    let effects = env.ended("a", 1, Exit::Code(0));
    let acknowledge = Order::Acknowledge { try_id: TryId(1) };
    assert!(effects.contains(&Effect::Order { node: "a".into(), order: acknowledge.clone() }));
    let ended = |effect: &Effect| matches!(effect, Effect::JobEnded(row) if row.job == job);
    assert!(effects.iter().any(ended));
    assert_eq!(env.state(job), JobState::Done);
    let again = env.ended("a", 1, Exit::Code(0));
    assert_eq!(again, [Effect::Order { node: "a".into(), order: acknowledge }]);
}

#[test]
fn the_same_key_is_the_same_job() {
    let mut env = Env::new().node("a", 1, 0);
    let first = env.submit_key(spec(1), "k").unwrap();
    assert_eq!(env.submit_key(spec(1), "k").unwrap(), first);
    assert_ne!(env.submit_key(spec(1), "other").unwrap(), first);
}

#[test]
fn what_can_never_run_is_refused_and_what_may_waits() {
    let mut env = Env::new();
    let early = env.submit(spec(64)).unwrap();
    assert_eq!(env.reason(early), "no node has joined yet");
    let mut env = Env::new().node("a", 2, 0).node("b", 4, 1);
    for (spec, kind, part) in [
        (spec(5), RejectKind::Unsatisfiable, "the most is 4, on b"),
        (
            JobSpec {
                resources: Resources { cores: 1, gpus: 2, ..Resources::default() },
                ..spec(1)
            },
            RejectKind::Unsatisfiable,
            "2 gpus; the most is 1, on b",
        ),
        (JobSpec { node: Some("c".into()), ..spec(1) }, RejectKind::NotFound, "known are: a, b"),
        (after(JobId(77), DependencyKind::Ok), RejectKind::NotFound, "j77"),
    ] {
        let reject = env.submit(spec).unwrap_err();
        assert_eq!(reject.kind, kind, "{}", reject.sentence);
        assert!(reject.sentence.contains(part), "{}", reject.sentence);
    }
}

#[test]
fn order_is_priority_then_submission_and_small_jobs_slip_in() {
    let mut env = Env::new().node("a", 2, 0);
    env.submit(spec(2)).unwrap();
    let wide = env.submit(spec(2)).unwrap();
    let urgent = env.submit(JobSpec { priority: 5, ..spec(2) }).unwrap();
    assert_eq!(env.reason(wide), "needs 2 cores; the most free is 0, of 1 nodes");
    let effects = env.ended("a", 1, Exit::Code(0));
    assert_eq!(launches(&effects)[0].2, urgent.task(0).to_string());
}

#[test]
fn roles_are_preferred_where_they_exist() {
    let train = || {
        let (library, settings, run) = ("/l".into(), "{}".into(), "r".into());
        JobSpec::new("train", Work::Builtin(Builtin::Train { library, settings, run }))
    };
    let mut env = Env::new().node("cpu", 4, 0).node("gpu", 2, 1);
    env.submit(train()).unwrap();
    env.submit(spec(1)).unwrap();
    let nodes: Vec<String> = launches(&env.effects).into_iter().map(|launch| launch.0).collect();
    assert_eq!(nodes, ["gpu", "cpu"]);
    let mut env = Env::new().node("cpu", 4, 0);
    env.submit(train()).unwrap();
    assert_eq!(launches(&env.effects)[0].0, "cpu", "a cluster without a GPU node still trains");
}

#[test]
fn a_role_that_cannot_hold_a_task_does_not_keep_it_waiting() {
    let train = |cores| {
        let (library, settings, run) = ("/l".into(), "{}".into(), "r".into());
        let resources = Resources { cores, ..Resources::default() };
        let work = Work::Builtin(Builtin::Train { library, settings, run });
        JobSpec { resources, ..JobSpec::new("train", work) }
    };
    let mut env = Env::new().node("cpu", 4, 0).node("gpu", 2, 1);
    env.submit(train(3)).unwrap();
    env.submit(JobSpec { node: Some("cpu".into()), ..train(1) }).unwrap();
    env.down("gpu");
    let last = env.submit(train(1)).unwrap();
    assert_eq!(env.reason(last), "gpu is late", "it may come back");
    env.pass(10_000);
    let nodes: Vec<String> = launches(&env.effects).into_iter().map(|launch| launch.0).collect();
    assert_eq!(nodes, ["cpu", "cpu"], "all four cores are taken");
    env.ended("cpu", 1, Exit::Code(0));
    assert_eq!(env.cluster.job(last).unwrap().nodes, ["cpu"]);
}

#[test]
fn a_wait_is_explained_by_what_is_short() {
    let ask = |cores, memory, gpus| {
        let memory = gantry_model::MemoryMib(memory);
        JobSpec { resources: Resources { cores, memory, gpus, ..Resources::default() }, ..spec(1) }
    };
    for (asked, reason) in [
        (ask(1, 4096, 0), "needs 4G of memory; the most free is 3G, of 1 nodes"),
        (ask(8, 0, 0), "needs 8 cores; the most free is 7, of 1 nodes"),
        (ask(1, 0, 2), "needs 2 gpus on one node; the most free is 1, of 1 nodes"),
    ] {
        let mut env = Env::new().node("g", 8, 2);
        env.submit(ask(1, 1024, 1)).unwrap();
        let job = env.submit(asked).unwrap();
        assert_eq!(env.reason(job), reason);
    }
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(JobSpec { retries: 1, ..spec(1) }).unwrap();
    env.ended("a", 1, Exit::Code(1));
    assert_eq!(env.reason(job), "waits out the time after a failure");
    env.up("a", 1, 0, &[9]);
    env.pass(1000);
    assert_eq!(env.reason(job), "a has to end 1 earlier tries first");
}

#[test]
fn gpus_are_given_by_index_and_never_twice() {
    let mut env = Env::new().node("g", 8, 3);
    let resources = Resources { cores: 1, gpus: 1, ..Resources::default() };
    for _ in 0..4 {
        env.submit(JobSpec { resources, ..spec(1) }).unwrap();
    }
    let gpus: Vec<Vec<u16>> =
        all_launches(&env.effects).into_iter().map(|(_, launch)| launch.lease.gpus).collect();
    assert_eq!(gpus, [vec![0], vec![1], vec![2]]);
    let effects = env.ended("g", 2, Exit::Code(0));
    assert_eq!(all_launches(&effects)[0].1.lease.gpus, [1]);
}

#[test]
fn an_array_keeps_its_cap() {
    let mut env = Env::new().node("a", 8, 0);
    let job = env.submit(array(1, "0-9%3")).unwrap();
    let mut running: Vec<u64> = launches(&env.effects).iter().map(|launch| launch.1).collect();
    assert_eq!(running.len(), 3);
    let mut tasks = 3;
    while let Some(try_id) = running.pop() {
        let effects = env.ended("a", try_id, Exit::Code(0));
        running.extend(launches(&effects).iter().map(|launch| launch.1));
        assert!(running.len() <= 3);
        tasks += launches(&effects).len();
    }
    assert_eq!((tasks, env.state(job)), (10, JobState::Done));
}

#[test]
fn failures_are_retried_with_a_growing_wait_and_then_final() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(JobSpec { retries: 2, ..spec(1) }).unwrap();
    let effects = env.ended("a", 1, Exit::Code(3));
    assert!(launches(&effects).is_empty());
    assert!(launches(&env.pass(999)).is_empty());
    let effects = env.pass(1);
    assert_eq!(all_launches(&effects)[0].1.start, 2);
    env.ended("a", 2, Exit::Code(3));
    assert!(launches(&env.pass(1999)).is_empty());
    assert_eq!(launches(&env.pass(1)).len(), 1);
    env.ended("a", 3, Exit::Code(4));
    assert_eq!(env.state(job), JobState::Fail);
    assert_eq!(env.cluster.job(job).unwrap().exit, Some(Exit::Code(4)));
}

#[test]
fn dependencies_free_or_cancel() {
    for (exit, kind, expected) in [
        (Exit::Code(0), DependencyKind::Ok, JobState::Run),
        (Exit::Code(0), DependencyKind::Any, JobState::Run),
        (Exit::Code(0), DependencyKind::Fail, JobState::Cancel),
        (Exit::Code(1), DependencyKind::Ok, JobState::Cancel),
        (Exit::Code(1), DependencyKind::Any, JobState::Run),
        (Exit::Code(1), DependencyKind::Fail, JobState::Run),
    ] {
        let mut env = Env::new().node("a", 4, 0);
        let first = env.submit(spec(1)).unwrap();
        let second = env.submit(after(first, kind)).unwrap();
        let third = env.submit(after(second, DependencyKind::Ok)).unwrap();
        assert_eq!(env.reason(second), "after j1");
        env.ended("a", 1, exit.clone());
        assert_eq!(env.state(second), expected, "{exit:?} {kind:?}");
        let last = if expected == JobState::Cancel { JobState::Cancel } else { JobState::Wait };
        assert_eq!(env.state(third), last, "{exit:?} {kind:?}");
        let late = env.submit(after(first, kind)).unwrap();
        assert_eq!(env.state(late), expected, "submitted after the end: {exit:?} {kind:?}");
    }
}

#[test]
fn a_long_chain_of_jobs_ends_at_once_when_its_first_is_cancelled() {
    let mut cluster = Cluster::new(ClusterSettings::default());
    let mut effects = Vec::new();
    let count = 20_000;
    for n in 1..=count {
        let after = if n == 1 { spec(1) } else { after(JobId(n - 1), DependencyKind::Ok) };
        let (user, key, spec) = ("ada".into(), n.to_string(), Box::new(after));
        cluster.apply(At(0), Event::Submit { request: n, user, key, spec }, &mut effects);
    }
    effects.clear();
    let cancel = Event::Cancel { request: 0, user: "ada".into(), job: JobId(1), indices: None };
    cluster.apply(At(0), cancel, &mut effects);
    let ended = effects.iter().filter(|effect| matches!(effect, Effect::JobEnded(_))).count();
    assert_eq!(ended as u64, count);
    let last = cluster.job(JobId(count)).unwrap();
    assert_eq!(last.reason.unwrap(), "cancelled: it needed j19999, which ended as cancel");
    assert_eq!(cluster.check(), Ok(()));
}

#[test]
fn an_array_ends_with_the_reason_of_its_first_failure() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-2")).unwrap();
    env.ended("a", 1, Exit::Code(3));
    env.ended("a", 2, Exit::Code(4));
    let effects = env.ended("a", 3, Exit::Code(0));
    let said = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Note(note) if note.sentence == "failed: exit 3"));
    assert!(said && env.state(job) == JobState::Fail, "{effects:?}");
}

#[test]
fn a_cancel_reaches_a_task_that_waits_out_a_failure() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(JobSpec { retries: 5, ..spec(1) }).unwrap();
    env.ended("a", 1, Exit::Code(3));
    env.cancel(job);
    assert_eq!((env.state(job), env.reason(job)), (JobState::Cancel, "cancelled by ada".into()));
    assert!(launches(&env.pass(60_000)).is_empty());
}

#[test]
fn a_cancel_waits_for_the_node_to_say_so() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-2")).unwrap();
    let effects = env.cancel(job);
    assert_eq!(stops(&effects), [("a".into(), 1)]);
    assert_eq!(env.state(job), JobState::Run, "the lease is held until the process is gone");
    let other = env.submit(spec(1)).unwrap();
    assert_eq!(env.state(other), JobState::Wait);
    env.ended("a", 1, Exit::Signal(15));
    assert_eq!((env.state(job), env.state(other)), (JobState::Cancel, JobState::Run));
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_tasks() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(spec(1)).unwrap();
    env.started("a", 1);
    env.down("a");
    env.pass(9000);
    let effects = env.up("a", 1, 0, &[1]);
    assert!(stops(&effects).is_empty() && launches(&effects).is_empty());
    env.ended("a", 1, Exit::Code(0));
    assert_eq!(env.state(job), JobState::Done);
}

#[test]
fn a_node_that_comes_back_late_ends_its_old_tries_before_it_gets_new_work() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(spec(1)).unwrap();
    env.started("a", 1);
    env.down("a");
    env.pass(10_000);
    assert_eq!(env.state(job), JobState::Wait);
    let effects = env.up("a", 1, 0, &[1]);
    assert_eq!(stops(&effects), [("a".into(), 1)]);
    assert!(launches(&effects).is_empty(), "not before the stray has ended");
    let effects = env.ended("a", 1, Exit::Code(0));
    assert_eq!(launches(&effects), [("a".into(), 2, "j1.0".into())], "its end came too late");
    env.ended("a", 2, Exit::Code(0));
    assert_eq!(env.state(job), JobState::Done);
}

#[test]
fn what_is_gone_with_an_agent_waits_at_once_and_what_outlives_it_runs_on() {
    let mut env = Env::new().node("a", 2, 0).node("b", 1, 0);
    let job = env.submit(array(1, "0-2")).unwrap();
    let started = launches(&env.effects);
    let on_a: Vec<u64> = started.iter().filter(|one| one.0 == "a").map(|one| one.1).collect();
    let [lives, _] = on_a[..] else { panic!("two run on a: {on_a:?}") };
    env.gone("a", &[lives]);
    assert_eq!(env.cluster.nodes()[0].state, gantry_model::NodeState::Late);
    let row = env.cluster.job(job).unwrap();
    assert_eq!((row.tasks.run, row.tasks.wait), (2, 1));
    env.pass(5000);
    let effects = env.up("a", 2, 0, &[lives]);
    assert!(stops(&effects).is_empty());
    assert_eq!(launches(&effects).len(), 1, "what was gone has another try");
    env.ended("a", lives, Exit::Code(0));
    assert_eq!(env.cluster.job(job).unwrap().tasks.done, 1);
    env.gone("nobody", &[1]);
}

#[test]
fn an_agent_that_was_restarted_costs_no_try() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(spec(1)).unwrap();
    env.started("a", 1);
    env.down("a");
    let effects = env.up("a", 1, 0, &[]);
    assert_eq!(launches(&effects), [("a".into(), 2, "j1.0".into())]);
    env.ended("a", 2, Exit::Code(1));
    assert_eq!(env.state(job), JobState::Fail, "no retry was asked for");
}

#[test]
fn a_node_that_comes_back_smaller_gives_no_more_than_it_has() {
    let mut env = Env::new().node("a", 4, 2);
    for _ in 0..4 {
        env.submit(spec(1)).unwrap();
    }
    env.up("a", 2, 1, &[1, 2, 3, 4]);
    env.submit(spec(1)).unwrap();
    assert!(launches(&env.ended("a", 1, Exit::Code(0))).is_empty());
    assert!(launches(&env.ended("a", 2, Exit::Code(0))).is_empty());
    assert_eq!(launches(&env.ended("a", 3, Exit::Code(0))).len(), 1);
}

#[test]
fn an_unknown_try_or_node_harms_nobody() {
    let mut env = Env::new().node("a", 1, 0);
    env.started("a", 99);
    env.ended("a", 99, Exit::Code(0));
    env.ended("nobody", 1, Exit::Code(0));
    env.down("nobody");
    assert!(env.submit(spec(1)).is_ok());
}

#[test]
fn the_same_events_give_the_same_cluster_and_effects() {
    let mut env = Env::new().node("a", 2, 0).node("g", 2, 1);
    let job = env.submit(array(1, "0-5")).unwrap();
    env.submit(after(job, DependencyKind::Ok)).unwrap();
    env.ended("a", 1, Exit::Code(1));
    env.down("g");
    env.pass(20_000);
    let mut cluster = Cluster::new(env.cluster.settings().clone());
    let mut effects = Vec::new();
    for (at, event) in env.events.clone() {
        cluster.apply(at, event, &mut effects);
    }
    assert_eq!(cluster, env.cluster);
    assert_eq!(effects, env.effects);
}
