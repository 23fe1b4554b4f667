//! What follows from troubles of nodes and GPUs.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{ClusterSettings, Effect, Event};
use gantry_model::health::{Ailment, Back, Finding, Measure, Policy, Sign, Stage, Trouble, Work};
use gantry_model::{Action, Exit, Gang, JobSpec, JobState, Order, Resources};
use support::{Env, launches, spec, stops};

fn gpu_job(gpus: u32) -> JobSpec {
    JobSpec { resources: Resources { cores: 1, gpus, ..Resources::default() }, ..spec(1) }
}

fn find(env: &mut Env, trouble: Trouble, sign: Sign, gpu: Option<&str>) -> Vec<Effect> {
    let (gpu, detail) = (gpu.map(Into::into), "seen".into());
    env.apply(Event::Found { node: "a".into(), finding: Finding { trouble, sign, gpu, detail } })
}

fn tests(effects: &[Effect]) -> Vec<(u64, Option<String>)> {
    let test = |effect: &Effect| match effect {
        Effect::Order { order: Order::Test { number, gpu }, .. } => Some((*number, gpu.clone())),
        _ => None,
    };
    effects.iter().filter_map(test).collect()
}

fn tested(env: &mut Env, number: u64, wrong: Option<&str>) -> Vec<Effect> {
    env.apply(Event::Tested { node: "a".into(), number, wrong: wrong.map(Into::into) })
}

fn ailments(env: &Env) -> Vec<Ailment> {
    env.cluster.nodes().remove(0).ailments
}

fn said(effects: &[Effect]) -> String {
    let notes = effects.iter().filter_map(|effect| match effect {
        Effect::Note(note) => Some(note.sentence.clone()),
        _ => None,
    });
    notes.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_xid_marks_the_gpu_moves_its_work_and_a_test_brings_it_back() {
    let mut env = Env::new().node("a", 8, 2);
    let job = env.submit(gpu_job(1)).unwrap();
    let other = env.submit(gpu_job(1)).unwrap();
    let effects = find(&mut env, Trouble::XidMemory, Sign::Seen, Some("GPU-0"));
    assert_eq!(stops(&effects), [("a".into(), 1)]);
    let sentence = said(&effects);
    for part in ["seen on GPU-0", "rule xid-memory", "1 task stopped and queued again"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert!(tests(&effects).is_empty(), "the task is still there");
    // Its end begins the test, and the task finds no other GPU.
    let effects = env.ended("a", 1, Exit::Signal(15));
    assert_eq!(tests(&effects), [(1, Some("GPU-0".into()))]);
    assert_eq!(env.state(job), JobState::Wait);
    assert!(env.reason(job).contains("gpus"), "{}", env.reason(job));
    // The other GPU is given work as before, the marked one is not.
    env.ended("a", 2, Exit::Code(0));
    assert_eq!(env.state(other), JobState::Done);
    assert_eq!(env.state(job), JobState::Run);
    let third = env.submit(gpu_job(1)).unwrap();
    assert_eq!(env.state(third), JobState::Wait);
    tested(&mut env, 1, None);
    assert_eq!(env.state(third), JobState::Run);
    assert!(ailments(&env).is_empty());
}

#[test]
fn a_test_that_fails_leaves_the_gpu_to_a_person() {
    let mut env = Env::new().node("a", 8, 1);
    let effects = find(&mut env, Trouble::Ecc, Sign::Seen, Some("GPU-0"));
    assert_eq!(tests(&effects), [(1, Some("GPU-0".into()))]);
    let effects = tested(&mut env, 1, Some("sums differ"));
    assert!(said(&effects).contains("the test after ecc failed: sums differ; gantry resume a"));
    let job = env.submit(gpu_job(1)).unwrap();
    assert_eq!(env.state(job), JobState::Wait);
    env.act(Action::Resume { node: "a".into() }).unwrap();
    assert_eq!(env.state(job), JobState::Run);
}

fn not_ready(code: u8) -> Exit {
    Exit::NotStarted { code, sentence: "the prolog of this node failed: exit 1".into() }
}

#[test]
fn a_node_that_cannot_be_made_ready_costs_no_try_and_gets_no_work_until_it_is_tested() {
    let mut env = Env::new().node("a", 8, 0);
    let job = env.submit(spec(1)).unwrap();
    let effects = env.ended("a", 1, not_ready(125));
    let sentence = said(&effects);
    for part in ["rule not-ready: the node gets no new work", "queued again, which is no try of it"]
    {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert_eq!(tests(&effects), [(1, None)]);
    env.pass(2000);
    assert_eq!(env.state(job), JobState::Wait);
    assert!(env.reason(job).contains("not-ready"), "{}", env.reason(job));
    // It may be ready after the test: the job has no retries, and is started all the same. One that
    // never is becomes a person's.
    for (number, stage) in [(2, Some(Stage::Testing { number: 2 })), (3, None), (4, None)] {
        assert_eq!(launches(&tested(&mut env, number - 1, None)).len(), 1, "{number}");
        env.ended("a", number, not_ready(125));
        let at = ailments(&env)[0].stage;
        assert!(stage.is_none_or(|stage| stage == at), "{at:?}");
        env.pass(2000);
    }
    assert_eq!(ailments(&env)[0].stage, Stage::Person);
    env.act(Action::Resume { node: "a".into() }).unwrap();
    env.ended("a", 5, Exit::Code(0));
    assert_eq!(env.state(job), JobState::Done);
    // What a task is to blame for is a try of it.
    let job = env.submit(spec(1)).unwrap();
    env.ended("a", 6, not_ready(126));
    assert_eq!(env.state(job), JobState::Fail);
}

#[test]
fn a_gang_starts_again_where_a_node_was_not_ready() {
    let mut env = Env::new().node("a", 8, 0).node("b", 8, 0);
    let gang = Some(Gang { ranks: 2, nodes: Some(2) });
    let job = env.submit(JobSpec { gang, ..spec(6) }).unwrap();
    env.ended("a", 1, not_ready(125));
    env.ended("b", 2, Exit::Signal(15));
    assert_eq!(env.state(job), JobState::Wait);
    let effects = tested(&mut env, 1, None);
    let effects = [effects, env.pass(2000)].concat();
    assert_eq!(launches(&effects).len(), 2);
    env.ended("a", 3, Exit::Code(0));
    env.ended("b", 4, Exit::Code(0));
    assert_eq!(env.state(job), JobState::Done);
}

#[test]
fn what_is_over_lets_a_node_work_again_without_a_hand() {
    let mut env = Env::new().node("a", 8, 0);
    let running = env.submit(spec(1)).unwrap();
    let effects = find(&mut env, Trouble::StorageSilent, Sign::Begun, None);
    assert!(stops(&effects).is_empty(), "its work may end");
    let job = env.submit(spec(1)).unwrap();
    assert_eq!(env.state(job), JobState::Wait);
    assert!(env.reason(job).contains("unfit: seen (storage-silent)"), "{}", env.reason(job));
    env.ended("a", 1, Exit::Code(0));
    assert_eq!(env.state(running), JobState::Done);
    let effects = find(&mut env, Trouble::StorageSilent, Sign::Over, None);
    assert_eq!(launches(&effects).len(), 1);
}

#[test]
fn what_is_only_noted_changes_nothing() {
    let mut env = Env::new().node("a", 8, 1);
    for (trouble, sign) in [
        (Trouble::XidUser, Sign::Seen),
        (Trouble::Clock, Sign::Begun),
        (Trouble::Clock, Sign::Begun),
        (Trouble::Clock, Sign::Over),
        (Trouble::StorageSlow, Sign::Over),
    ] {
        let effects = find(&mut env, trouble, sign, None);
        assert!(stops(&effects).is_empty() && tests(&effects).is_empty(), "{trouble} {sign:?}");
    }
    let job = env.submit(gpu_job(1)).unwrap();
    assert_eq!(env.state(job), JobState::Run);
    assert!(ailments(&env).is_empty());
}

#[test]
fn a_bus_error_takes_the_node_and_waits_for_a_person() {
    let mut env = Env::new().node("a", 8, 1).node("b", 8, 1);
    let job = env.submit(JobSpec { node: None, ..gpu_job(1) }).unwrap();
    let effects = find(&mut env, Trouble::XidBus, Sign::Seen, Some("GPU-0"));
    assert_eq!(stops(&effects).len(), 1);
    let effects = env.ended("a", 1, Exit::Signal(15));
    assert_eq!(launches(&effects), [("b".into(), 2, job.task(0).to_string())]);
    assert!(tests(&env.effects).is_empty());
    assert_eq!(ailments(&env)[0].stage, Stage::Person);
    env.up("a", 8, 1, &[]);
    assert_eq!(ailments(&env).len(), 1, "a restart of the agent changes nothing");
}

#[test]
fn a_gpu_that_comes_back_is_still_marked() {
    let mut env = Env::new().node("a", 8, 2);
    find(&mut env, Trouble::RemapFailed, Sign::Begun, Some("GPU-0"));
    env.up("a", 8, 2, &[]);
    let gpus = env.cluster.nodes().remove(0).facts.gpus;
    assert_eq!(gpus[0].unfit.as_deref(), Some("seen (remap-failed)"));
    assert_eq!(gpus[1].unfit, None);
    let both = env.submit(gpu_job(2)).unwrap();
    assert_eq!(env.state(both), JobState::Wait, "it may run once the GPU is mended");
}

#[test]
fn a_trouble_that_comes_back_too_often_is_a_persons() {
    let mut env = Env::new().node("a", 8, 1);
    for round in 1..=3 {
        find(&mut env, Trouble::XidGpu, Sign::Seen, Some("GPU-0"));
        tested(&mut env, round, None);
        assert!(ailments(&env).is_empty());
    }
    let effects = find(&mut env, Trouble::XidGpu, Sign::Seen, Some("GPU-0"));
    assert!(said(&effects).contains("came back too often"), "{}", said(&effects));
    assert!(tests(&effects).is_empty());
    env.act(Action::Resume { node: "a".into() }).unwrap();
    find(&mut env, Trouble::XidGpu, Sign::Seen, Some("GPU-0"));
    env.pass(2 * 86_400_000);
    assert_eq!(ailments(&env).len(), 1);
}

#[test]
fn tests_survive_a_lost_connection_and_do_not_wait_for_ever() {
    let mut env = Env::new().node("a", 8, 1);
    find(&mut env, Trouble::XidGpu, Sign::Seen, Some("GPU-0"));
    env.down("a");
    env.pass(1_000);
    let effects = env.up("a", 8, 1, &[]);
    assert_eq!(tests(&effects), [(2, Some("GPU-0".into()))]);
    assert!(said(&tested(&mut env, 1, None)).is_empty(), "the first is forgotten");
    let effects = env.pass(120_000);
    assert!(said(&effects).contains("it said nothing for"), "{}", said(&effects));
}

#[test]
fn a_trouble_during_its_test_is_a_persons() {
    let mut env = Env::new().node("a", 8, 1);
    find(&mut env, Trouble::XidGpu, Sign::Seen, Some("GPU-0"));
    let effects = find(&mut env, Trouble::XidGpu, Sign::Seen, Some("GPU-0"));
    assert!(said(&effects).contains("again while it was tested"));
    tested(&mut env, 1, None);
    assert_eq!(ailments(&env)[0].stage, Stage::Person);
}

#[test]
fn settings_say_what_follows() {
    let policy = Policy { measure: Measure::Node, work: Work::Move, back: Back::Over };
    let health = [(Trouble::GpuHot, policy)].into();
    let mut env = Env::with(ClusterSettings { health, ..ClusterSettings::default() });
    env.up("a", 8, 1, &[]);
    let job = env.submit(spec(1)).unwrap();
    find(&mut env, Trouble::GpuHot, Sign::Begun, Some("GPU-0"));
    env.ended("a", 1, Exit::Signal(15));
    assert_eq!(env.state(job), JobState::Wait);
    find(&mut env, Trouble::GpuHot, Sign::Over, Some("GPU-0"));
    assert_eq!(env.state(job), JobState::Run);
}
