//! Any order of events keeps the promises, and once faults stop everything ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{Cluster, ClusterSettings, Event};
use gantry_model::{Dependency, DependencyKind, Exit, JobId, JobSpec, Machine, Resources};
use proptest::prelude::*;
use support::{Env, array, launches, spec};

/// The nodes of every storm: name, cores, GPUs.
const NODES: [(&str, u32, u32); 3] = [("a", 2, 0), ("b", 4, 0), ("g", 3, 2)];

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit { cores: u32, gpus: u32, count: u32, cap: u32, retries: u8, after: u64 },
    Cancel(u64),
    Up { node: usize, forgets: u64 },
    Down(usize),
    Started(u64),
    Ended { try_id: u64, code: u8 },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (1_u32..4, 0_u32..3, 1_u32..5, 1_u32..3, 0_u8..2, 0_u64..12).prop_map(
        |(cores, gpus, count, cap, retries, after)| Step::Submit {
            cores,
            gpus,
            count,
            cap,
            retries,
            after,
        },
    );
    prop_oneof![
        4 => submit,
        1 => (1_u64..12).prop_map(Step::Cancel),
        2 => (0..NODES.len(), 0_u64..4).prop_map(|(node, forgets)| Step::Up { node, forgets }),
        1 => (0..NODES.len()).prop_map(Step::Down),
        4 => (1_u64..30).prop_map(Step::Started),
        6 => (1_u64..30, 0_u8..2).prop_map(|(try_id, code)| Step::Ended { try_id, code }),
        3 => (0_u64..12_000).prop_map(Step::Pass),
    ]
}

/// On which node each try was launched, as the effects say.
fn places(env: &Env) -> std::collections::BTreeMap<u64, String> {
    launches(&env.effects).into_iter().map(|(node, try_id, _)| (try_id, node)).collect()
}

fn carry_out(env: &mut Env, step: Step) {
    match step {
        Step::Submit { cores, gpus, count, cap, retries, after } => {
            let after = env.cluster.job(JobId(after)).map(|row| Dependency {
                job: row.job,
                kind: if cap == 1 { DependencyKind::Any } else { DependencyKind::Ok },
            });
            let resources = Resources { cores, gpus, ..Resources::default() };
            let array = array(1, &format!("0-{count}%{cap}")).array;
            let after = after.into_iter().collect();
            env.submit(JobSpec { resources, array, retries, after, ..spec(1) }).unwrap();
        }
        Step::Cancel(job) => drop(env.cancel(JobId(job))),
        Step::Up { node, forgets } => {
            let (name, cores, gpus) = NODES[node];
            // A restarted agent may have forgotten some, and holds what it was ever given.
            let here = places(env).into_iter().filter(|(_, node)| node == name);
            let holds: Vec<u64> =
                here.map(|(try_id, _)| try_id).filter(|id| id % 4 != forgets).collect();
            env.up(name, cores, gpus, &holds);
        }
        Step::Down(node) => drop(env.down(NODES[node].0)),
        Step::Started(try_id) => {
            if let Some(node) = places(env).get(&try_id) {
                env.started(node, try_id);
            }
        }
        Step::Ended { try_id, code } => {
            if let Some(node) = places(env).get(&try_id) {
                env.ended(node, try_id, Exit::Code(code));
            }
        }
        Step::Pass(millis) => drop(env.pass(millis)),
    }
}

/// Brings every node back with nothing in its hands and lets every task end well.
fn calm(env: &mut Env) {
    for (name, cores, gpus) in NODES {
        env.up(name, cores, gpus, &[]);
    }
    let mut told = 0;
    for _ in 0..200 {
        while told < env.effects.len() {
            let fresh = launches(&env.effects[told..]);
            told = env.effects.len();
            for (node, try_id, _) in fresh {
                env.started(&node, try_id);
                env.ended(&node, try_id, Exit::Code(0));
            }
        }
        env.pass(60_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn everything_ends_once_faults_stop(steps in prop::collection::vec(step(), 1..60)) {
        let mut env = Env::new();
        for (name, cores, gpus) in NODES {
            env = env.node(name, cores, gpus);
        }
        for step in steps {
            carry_out(&mut env, step);
        }
        calm(&mut env);
        let (waiting, more) = env.cluster.jobs(None, false, 100);
        prop_assert!(waiting.is_empty() && !more, "{:?}", waiting);
        let summary = env.cluster.summary();
        prop_assert_eq!((summary.cores_used, summary.gpus_used), (0, 0));

        let mut again = Cluster::new(ClusterSettings::default());
        let mut effects = Vec::new();
        for (at, event) in env.events.clone() {
            again.apply(at, event, &mut effects);
        }
        prop_assert!(again == env.cluster && effects == env.effects, "a replay differs");
    }

    #[test]
    fn events_of_nobody_change_nothing(try_id in 50_u64..99, job in 50_u64..99) {
        let mut env = Env::new().node("a", 1, 0);
        env.submit(spec(1)).unwrap();
        let before = env.cluster.clone();
        env.started("a", try_id);
        env.ended("a", try_id, Exit::Code(0));
        env.ended("nobody", 1, Exit::Code(0));
        env.cancel(JobId(job));
        env.apply(Event::NodeDown { node: "nobody".into() });
        prop_assert!(env.cluster == before);
    }
}
