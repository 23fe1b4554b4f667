//! What jobs may ask for: devices, labels, nodes alone, and elements of other jobs.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{Effect, Event};
use gantry_model::{
    Dependency, DependencyKind, DependencyScope, Exit, Gpu, GpuDemand, GpuPart, JobId, JobSpec,
    JobState, MemoryMib, NodeFacts, RejectKind, Resources, Sharing,
};
use support::{Env, all_launches, array, facts, launches, spec, stops};

fn gpus(count: u32, gpu: GpuDemand) -> JobSpec {
    let resources = Resources { cores: 1, gpus: count, ..Resources::default() };
    JobSpec { resources, gpu, ..spec(1) }
}

fn share(permille: u16) -> GpuDemand {
    GpuDemand { part: GpuPart::Share(permille), ..GpuDemand::default() }
}

/// A node with these devices: name, memory, MIG profile, island, NUMA node.
fn machine(name: &str, devices: &[(&str, u64, Option<&str>, u16, u16)]) -> NodeFacts {
    let gpu = |(name, memory, mig, island, numa): &(&str, u64, Option<&str>, u16, u16)| Gpu {
        uuid: format!("{name}-{memory}-{island}"),
        name: (*name).to_owned(),
        memory: MemoryMib(*memory),
        mig: mig.map(Into::into),
        island: *island,
        numa: Some(*numa),
        unfit: None,
    };
    let mut facts = facts(name, 64, 0);
    facts.gpus = devices.iter().map(gpu).collect();
    facts.resources.gpus = devices.len() as u32;
    facts.resources.scratch = MemoryMib(1000);
    facts.labels = ["nvme".into()].into();
    facts
}

fn with(facts: Vec<NodeFacts>) -> Env {
    let mut env = Env::new();
    for facts in facts {
        env.apply(Event::NodeUp { facts: Box::new(facts), holds: Vec::new() });
    }
    env
}

/// The devices of each launch.
fn devices(env: &Env) -> Vec<Vec<u16>> {
    all_launches(&env.effects).into_iter().map(|(_, launch)| launch.lease.gpus).collect()
}

#[test]
fn shares_fill_one_gpu_before_the_next_and_never_beyond_a_whole() {
    let mut env = Env::new().node("g", 64, 2);
    for permille in [400, 400, 400, 200] {
        env.submit(gpus(1, share(permille))).unwrap();
    }
    assert_eq!(devices(&env), [[0], [0], [1], [0]]);
    let whole = env.submit(gpus(1, GpuDemand::default())).unwrap();
    assert_eq!(env.state(whole), JobState::Wait, "none is free as a whole");
    env.ended("g", 3, Exit::Code(0));
    assert_eq!(env.state(whole), JobState::Run);
    let all = all_launches(&env.effects);
    assert_eq!((all[0].1.lease.gpu_permille, all[4].1.lease.gpu_permille), (400, 1000));
}

#[test]
fn devices_come_from_one_island_and_one_numa_node_where_one_has_enough() {
    let h100 = |island, numa| ("H100", 80_000, None, island, numa);
    let node = machine("g", &[h100(0, 0), h100(1, 1), h100(0, 0), h100(1, 1), h100(1, 0)]);
    let mut env = with(vec![node]);
    env.submit(gpus(2, GpuDemand::default())).unwrap();
    env.submit(gpus(3, GpuDemand::default())).unwrap();
    assert_eq!(devices(&env), [vec![0, 2], vec![1, 3, 4]]);
    // Nothing fits one island any more, and two are better than none.
    let node = machine("g", &[h100(0, 0), h100(1, 1), h100(2, 0)]);
    let mut env = with(vec![node]);
    env.submit(gpus(2, GpuDemand::default())).unwrap();
    assert_eq!(devices(&env)[0].len(), 2);
}

#[test]
fn a_mig_instance_is_a_device_of_its_own() {
    let node =
        machine("g", &[("A100", 40_000, None, 0, 0), ("A100", 10_000, Some("1g.10gb"), 0, 0)]);
    let mut env = with(vec![node]);
    let mig = GpuDemand { part: GpuPart::Mig("1g.10gb".into()), ..GpuDemand::default() };
    env.submit(gpus(1, GpuDemand::default())).unwrap();
    env.submit(gpus(1, mig.clone())).unwrap();
    assert_eq!(devices(&env), [[0], [1]]);
    let waits = env.submit(gpus(1, GpuDemand::default())).unwrap();
    assert_eq!(env.state(waits), JobState::Wait);
    assert_eq!(env.submit(gpus(2, mig)).unwrap_err().kind, RejectKind::Unsatisfiable);
}

#[test]
fn a_model_and_memory_are_found_by_what_devices_are() {
    let mut env = with(vec![
        machine("old", &[("Tesla T4", 16_000, None, 0, 0)]),
        machine("new", &[("NVIDIA H100 80GB", 80_000, None, 0, 0)]),
    ]);
    let ask = |model: Option<&str>, memory| GpuDemand {
        model: model.map(Into::into),
        memory: MemoryMib(memory),
        ..GpuDemand::default()
    };
    env.submit(gpus(1, ask(Some("h100"), 0))).unwrap();
    env.submit(gpus(1, ask(None, 10_000))).unwrap();
    let nodes: Vec<String> = launches(&env.effects).into_iter().map(|launch| launch.0).collect();
    assert_eq!(nodes, ["new", "old"]);
    let reject = env.submit(gpus(1, ask(Some("B200"), 0))).unwrap_err();
    assert!(reject.sentence.contains("such gpus"), "{reject}");
}

#[test]
fn labels_scratch_and_a_node_alone() {
    let mut env = with(vec![facts("plain", 64, 0), machine("fast", &[])]);
    env.submit(JobSpec { labels: ["nvme".into()].into(), ..spec(1) }).unwrap();
    let scratch = Resources { cores: 1, scratch: MemoryMib(600), ..Resources::default() };
    env.submit(JobSpec { resources: scratch, ..spec(1) }).unwrap();
    let second = env.submit(JobSpec { resources: scratch, ..spec(1) }).unwrap();
    assert_eq!(env.reason(second), "needs 600M of scratch; the most free is 400M, of 1 nodes");
    let alone = env.submit(JobSpec { sharing: Sharing::Exclusive, ..spec(1) }).unwrap();
    let row = env.cluster.job(alone).unwrap();
    assert_eq!(row.nodes, ["plain"]);
    let kept_off = env.submit(JobSpec { node: Some("plain".into()), ..spec(1) }).unwrap();
    assert_eq!(env.reason(kept_off), "plain is held by a task that has it alone");
    let reject = env.submit(JobSpec { labels: ["ib".into()].into(), ..spec(1) }).unwrap_err();
    assert!(reject.sentence.contains("label \"ib\""), "{reject}");
}

#[test]
fn a_gpu_that_vanishes_under_a_lease_is_given_to_nobody() {
    let two = machine("g", &[("H100", 1, None, 0, 0), ("H100", 1, None, 1, 0)]);
    let mut env = with(vec![two.clone()]);
    env.submit(gpus(2, GpuDemand::default())).unwrap();
    let mut one = two;
    one.gpus.truncate(1);
    one.resources.gpus = 1;
    env.apply(Event::NodeUp { facts: Box::new(one), holds: vec![gantry_model::TryId(1)] });
    let waits = env.submit(gpus(1, GpuDemand::default())).unwrap();
    assert_eq!(env.state(waits), JobState::Wait);
    env.ended("g", 1, Exit::Code(0));
    assert_eq!(env.state(waits), JobState::Run);
}

#[test]
fn leases_follow_their_gpus_when_one_before_them_vanishes() {
    let three: Vec<(&str, u64, Option<&str>, u16, u16)> =
        (0..3).map(|island| ("H100", 1, None, island, 0)).collect();
    let mut env = with(vec![machine("g", &three)]);
    env.submit(gpus(1, GpuDemand::default())).unwrap();
    env.submit(gpus(1, GpuDemand::default())).unwrap();
    assert_eq!(devices(&env), [[0], [1]]);
    // The first is gone: what was the second is the first now, and it is taken.
    let facts = machine("g", &three[1..]);
    let holds = vec![gantry_model::TryId(1), gantry_model::TryId(2)];
    env.apply(Event::NodeUp { facts: Box::new(facts), holds });
    env.submit(gpus(1, GpuDemand::default())).unwrap();
    assert_eq!(devices(&env)[2], [1]);
    // It comes back, and its task still has it.
    let holds = (1..=3).map(gantry_model::TryId).collect();
    env.apply(Event::NodeUp { facts: Box::new(machine("g", &three)), holds });
    let waits = env.submit(gpus(1, GpuDemand::default())).unwrap();
    assert_eq!(env.state(waits), JobState::Wait);
}

fn elements(job: JobId, kind: DependencyKind, indices: &str) -> JobSpec {
    let after = vec![Dependency { job, kind, scope: DependencyScope::Element }];
    JobSpec { after, ..array(1, indices) }
}

#[test]
fn elements_wait_for_elements() {
    let mut env = Env::new().node("a", 3, 0);
    let first = env.submit(array(1, "0-2")).unwrap();
    let second = env.submit(elements(first, DependencyKind::Ok, "0-2")).unwrap();
    assert_eq!(env.reason(second), "its elements wait for those of the job they come after");
    let effects = env.ended("a", 2, Exit::Code(0));
    assert_eq!(launches(&effects)[0].2, second.task(1).to_string());
    // An element whose element failed will never run; the others do.
    env.ended("a", 1, Exit::Code(1));
    let effects = env.ended("a", 3, Exit::Code(0));
    assert_eq!(launches(&effects)[0].2, second.task(2).to_string());
    let tasks = env.cluster.job(second).unwrap().tasks;
    assert_eq!((tasks.cancel, tasks.run), (1, 2));
    let missing = env.submit(elements(first, DependencyKind::Ok, "0-3")).unwrap_err();
    assert!(missing.sentence.contains("j1.3, which does not exist"), "{missing}");
}

#[test]
fn a_chain_of_elements_ends_with_the_first() {
    let mut env = Env::new().node("a", 4, 0);
    let first = env.submit(array(1, "0-1")).unwrap();
    let second = env.submit(elements(first, DependencyKind::Ok, "0-1")).unwrap();
    let third = env.submit(elements(second, DependencyKind::Any, "0-1")).unwrap();
    env.ended("a", 1, Exit::Code(1));
    env.ended("a", 2, Exit::Code(1));
    assert_eq!(env.state(second), JobState::Cancel);
    assert_eq!(env.state(third), JobState::Run, "it runs after any end");
    let never = env.submit(elements(first, DependencyKind::Ok, "0-1")).unwrap();
    let told = |effect: &Effect| matches!(effect, Effect::JobEnded(row) if row.job == never);
    assert!(env.effects.iter().any(told), "whoever waits for it is told");
    let late = env.submit(elements(first, DependencyKind::Fail, "0-1")).unwrap();
    assert_eq!(env.state(late), JobState::Run, "submitted after the end");
    assert_eq!(stops(&env.effects), []);
}
