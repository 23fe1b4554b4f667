//! What people change of jobs and nodes, and what is remembered of both.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{ClusterSettings, Effect, Event};
use gantry_model::{
    Action, At, Exit, JobChange, JobId, JobSpec, JobState, MemoryMib, Millis, RejectKind,
    Resources, Service, Window,
};
use support::{Env, all_launches, array, facts, launches, spec, stops};

fn limited(cores: u32, seconds: u64) -> JobSpec {
    JobSpec { time_limit: Some(Millis::from_seconds(seconds)), ..spec(cores) }
}

fn drain(node: &str, deadline: Option<At>) -> Action {
    Action::Drain { node: node.into(), reason: "new disks".into(), deadline }
}

fn service(env: &Env, name: &str) -> Service {
    env.cluster.nodes().into_iter().find(|row| row.facts.name == name).unwrap().service
}

#[test]
fn hold_release_requeue_and_change() {
    let mut env = Env::new().node("a", 1, 0);
    let job = env.submit(array(1, "0-2")).unwrap();
    assert_eq!(env.act(Action::Hold { job, indices: None }).unwrap(), 2);
    assert!(launches(&env.ended("a", 1, Exit::Code(0))).is_empty());
    assert_eq!(env.reason(job), "held; gantry release lets it go on");
    env.act(Action::Release { job, indices: None }).unwrap();
    let effects = env.act(Action::Requeue { job, indices: None });
    assert_eq!(effects.unwrap(), 1);
    assert_eq!(stops(&env.effects), [("a".into(), 2)]);
    let effects = env.ended("a", 2, Exit::Signal(15));
    assert_eq!(all_launches(&effects)[0].1.start, 2, "it runs again");
    let waiting = env.submit(spec(1)).unwrap();
    let change = JobChange { priority: Some(7), retries: Some(2), ..JobChange::default() };
    env.act(Action::Change { job: waiting, indices: None, change }).unwrap();
    let effects = env.ended("a", 3, Exit::Code(0));
    assert_eq!(launches(&effects)[0].2, waiting.task(0).to_string());
    let wrong = JobChange { at_once_max: Some(2), ..JobChange::default() };
    let reject =
        env.act(Action::Change { job: waiting, indices: None, change: wrong }).unwrap_err();
    assert!(reject.sentence.contains("is no array"), "{reject}");
    assert_eq!(
        env.act(Action::Hold { job: JobId(9), indices: None }).unwrap_err().kind,
        RejectKind::NotFound
    );
    env.cancel(job);
    assert_eq!(env.act(Action::Hold { job, indices: None }).unwrap_err().kind, RejectKind::State);
}

#[test]
fn a_cap_can_be_raised_and_lowered_while_the_array_runs() {
    let mut env = Env::new().node("a", 8, 0);
    let job = env.submit(array(1, "0-9%2")).unwrap();
    let cap = |cap| Action::Change {
        job,
        indices: None,
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
    let why = env.cluster.why(At(0), waiting, None).unwrap();
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
fn a_lost_node_is_forgotten_and_is_a_new_one_if_it_comes_back() {
    let mut env = Env::new().node("a", 2, 0).node("b", 8, 0);
    let forget = || Action::Forget { node: "b".into() };
    let wide = env.submit(spec(8)).unwrap();
    env.act(drain("b", None)).unwrap();
    for state in ["up", "late"] {
        let sentence = env.act(forget()).unwrap_err().sentence;
        assert!(sentence.contains(&format!("b is {state} and would be back")), "{sentence}");
        env.down("b");
    }
    env.pass(11_000);
    env.act(forget()).unwrap();
    assert_eq!(env.act(forget()).unwrap_err().kind, RejectKind::NotFound);
    let names = |env: &Env| -> Vec<String> {
        env.cluster.nodes().into_iter().map(|row| row.facts.name).collect()
    };
    assert_eq!((names(&env), env.cluster.summary().nodes), (vec!["a".to_owned()], 1));
    // What has run there still says so, and nothing more is hoped for from it.
    assert_eq!(env.state(wide), JobState::Wait);
    let refused = env.submit(spec(8)).unwrap_err().sentence;
    assert!(refused.contains("no node has 8 cores; the most is 2, on a"), "{refused}");
    let why = env.cluster.why(At(env.at), wide, None).unwrap();
    assert!(!format!("{why:?}").contains("\"b\""), "{why:?}");
    // The try that it was given runs there for ever, as far as is known, and is stopped first.
    let effects = env.up("b", 8, 0, &[1]);
    assert_eq!(stops(&effects), [("b".to_owned(), 1)]);
    assert_eq!(service(&env, "b"), Service::Open, "its drain is forgotten");
    env.ended("b", 1, Exit::Signal(15));
    assert_eq!(env.state(wide), JobState::Run);
    assert_eq!(names(&env), ["a", "b"]);
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
    env.apply(Event::NodeUp {
        facts: Box::new(facts("a", 2, 0)),
        holds: vec![gantry_model::TryId(41)],
    });
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
    let why = env.cluster.why(At(0), second, None).unwrap();
    assert_eq!((why.ahead, why.ahead_count), (vec![urgent, first], 2));
    assert_eq!(why.nodes, [("a".to_owned(), "has 0 of 1 cores free".to_owned())]);
    assert_eq!(why.sentence, "needs 1 cores; the most free is 0, of 1 nodes");
    let reject = env.cluster.why(At(0), JobId(1), None).unwrap_err();
    assert!(reject.sentence.contains("does not wait"), "{reject}");
    assert_eq!(env.cluster.why(At(0), JobId(99), None).unwrap_err().kind, RejectKind::NotFound);
}
