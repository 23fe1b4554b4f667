//! Any order of events keeps the promises, and once faults stop everything ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{Cluster, ClusterSettings, Event, GroupSettings};
use gantry_model::health::{Finding, Sign, Trouble};
use gantry_model::{
    Action, At, Dependency, DependencyKind, DependencyScope, Exit, Gang, GpuPart, JobChange, JobId,
    JobSpec, Machine, MemoryMib, Millis, Preemption, Resources, Sharing, Window,
};
use proptest::prelude::*;
use support::{Env, array, launches, spec};

/// The nodes of every storm: name, cores, GPUs.
const NODES: [(&str, u32, u32); 3] = [("a", 2, 0), ("b", 4, 0), ("g", 3, 2)];

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit(Shape),
    Cancel(u64),
    Act { job: u64, node: usize, what: u8 },
    Up { node: usize, forgets: u64 },
    Down(usize),
    Gone { node: usize, forgets: u64 },
    Started(u64),
    Ended { try_id: u64, code: u8 },
    Pass(u64),
    Found { trouble: usize, sign: u8, node: usize, gpu: u8 },
    Tested { number: u64, fit: bool },
}

/// What is special about a job.
#[derive(Clone, Copy, Debug)]
struct Shape {
    cores: u32,
    gpus: u32,
    count: u32,
    retries: u8,
    after: u64,
    priority: i32,
    special: u8,
    user: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (1_u32..4, 0_u32..3, 1_u32..5, 0_u8..2, 0_u64..12, 0_i32..3, 0_u8..16, 0_u8..3)
        .prop_map(|(cores, gpus, count, retries, after, priority, special, user)| {
            Step::Submit(Shape { cores, gpus, count, retries, after, priority, special, user })
        });
    prop_oneof![
        4 => submit,
        1 => (1_u64..12).prop_map(Step::Cancel),
        2 => (1_u64..12, 0..NODES.len(), 0_u8..13)
            .prop_map(|(job, node, what)| Step::Act { job, node, what }),
        2 => (0..NODES.len(), 0_u64..4).prop_map(|(node, forgets)| Step::Up { node, forgets }),
        1 => (0..NODES.len()).prop_map(Step::Down),
        1 => (0..NODES.len(), 0_u64..4).prop_map(|(node, forgets)| Step::Gone { node, forgets }),
        4 => (1_u64..40).prop_map(Step::Started),
        6 => (1_u64..40, 0_u8..2).prop_map(|(try_id, code)| Step::Ended { try_id, code }),
        3 => (0_u64..12_000).prop_map(Step::Pass),
        2 => (0..Trouble::ALL.len(), 0_u8..3, 0..NODES.len(), 0_u8..3)
            .prop_map(|(trouble, sign, node, gpu)| Step::Found { trouble, sign, node, gpu }),
        2 => (1_u64..12, any::<bool>()).prop_map(|(number, fit)| Step::Tested { number, fit }),
    ]
}

fn settings() -> ClusterSettings {
    let guarantee =
        Resources { cores: 4, gpus: 1, memory: MemoryMib(9999), ..Resources::default() };
    let limit = Some(Resources { cores: 6, ..Resources::default() });
    let one = GroupSettings { guarantee, users: ["u0".into()].into(), ..GroupSettings::default() };
    let two = GroupSettings { limit, users: ["u1".into()].into(), ..GroupSettings::default() };
    ClusterSettings {
        groups: [("one".into(), one), ("two".into(), two)].into(),
        licences: [("m".into(), 2)].into(),
        quarantine_after: 3,
        ended_kept: 6,
        ..ClusterSettings::default()
    }
}

/// A job with one of everything that jobs may ask for.
fn job(env: &Env, shape: Shape) -> JobSpec {
    let Shape { cores, gpus, count, retries, after, priority, special, .. } = shape;
    let resources = Resources { cores, gpus, ..Resources::default() };
    let by_element = special == 1 && after != 0;
    let after = env.cluster.job(JobId(after)).map(|row| Dependency {
        job: row.job,
        kind: if special % 2 == 0 { DependencyKind::Any } else { DependencyKind::Ok },
        scope: DependencyScope::Job,
    });
    let array = array(1, &format!("0-{count}%{}", 1 + special % 3)).array;
    let mut spec = JobSpec {
        resources,
        array,
        retries,
        priority,
        after: after.into_iter().collect(),
        ..spec(1)
    };
    match special {
        1 if by_element => {
            for one in &mut spec.after {
                one.scope = DependencyScope::Element;
            }
        }
        2 | 3 => {
            spec.array = None;
            let nodes = (special == 3).then_some(2);
            spec.gang = Some(Gang { ranks: if special == 3 { 2 } else { count }, nodes });
        }
        4 => spec.sharing = Sharing::Exclusive,
        5 if gpus > 0 => {
            spec.resources.gpus = 1;
            spec.gpu.part = GpuPart::Share(400);
        }
        6 => spec.held = true,
        7..=9 => spec.preemption = Preemption::Requeue,
        10 => spec.licences = [("m".into(), 1)].into(),
        11 => spec.time_limit = Some(Millis(5000)),
        12 => {
            spec.time_limit = Some(Millis(60_000));
            spec.preemption = Preemption::Requeue;
        }
        13 => spec.retry_codes = [7].into(),
        _ => {}
    }
    spec
}

fn act(env: &mut Env, id: u64, node: usize, what: u8) {
    let job = JobId(id);
    let node = NODES[node].0.to_owned();
    let at = At(env.at);
    let reason = || "why".to_owned();
    let some = || "0,2-3".parse().ok();
    let action = match what {
        0 => Action::Hold { job, indices: None },
        1 => Action::Release { job, indices: None },
        2 => Action::Requeue { job, indices: None },
        3 => {
            let at_once_max = Some(2);
            let priority = Some(id as i32 % 3);
            Action::Change {
                job,
                indices: None,
                change: JobChange { priority, at_once_max, ..JobChange::default() },
            }
        }
        8 => Action::Hold { job, indices: some() },
        9 => Action::Release { job, indices: some() },
        10 => Action::Requeue { job, indices: some() },
        11 => {
            let (time_limit, retries) = (Some(Millis(2000)), Some(2));
            let change = JobChange { time_limit, retries, ..JobChange::default() };
            Action::Change { job, indices: some(), change }
        }
        4 => Action::Drain { node, reason: reason(), deadline: Some(at.after(Millis(5000))) },
        5 | 6 => Action::Resume { node },
        12 => Action::Forget { node },
        _ => {
            let (from, until) = (at.after(Millis(3000)), at.after(Millis(9000)));
            Action::AddWindow { node, window: Window { from, until, reason: reason() } }
        }
    };
    // What may not be is refused.
    let _ = env.act(action);
}

/// On which node each try was launched, as the effects say.
fn places(env: &Env) -> std::collections::BTreeMap<u64, String> {
    launches(&env.effects).into_iter().map(|(node, try_id, _)| (try_id, node)).collect()
}

fn carry_out(env: &mut Env, step: Step) {
    match step {
        Step::Submit(shape) => {
            let spec = job(env, shape);
            let (user, key) = (format!("u{}", shape.user), format!("k{}", env.events.len()));
            // What can never run is refused.
            let _ = env.submit_as(&user, spec, &key);
        }
        Step::Act { job, node, what } => act(env, job, node, what),
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
        Step::Gone { node, forgets } => {
            let name = NODES[node].0;
            let here = places(env).into_iter().filter(|(_, node)| node == name);
            let holds: Vec<u64> =
                here.map(|(try_id, _)| try_id).filter(|id| id % 4 != forgets).collect();
            env.gone(name, &holds);
        }
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
        Step::Found { trouble, sign, node, gpu } => {
            let sign = [Sign::Seen, Sign::Begun, Sign::Over][usize::from(sign)];
            let gpu = (gpu < 2).then(|| format!("GPU-{gpu}"));
            let (trouble, detail) = (Trouble::ALL[trouble], "seen".into());
            let finding = Finding { trouble, sign, gpu, detail };
            drop(env.apply(Event::Found { node: NODES[node].0.into(), finding }));
        }
        Step::Tested { number, fit } => {
            let wrong = (!fit).then(|| "it is wrong".into());
            for (node, ..) in NODES {
                let (node, wrong) = (node.into(), wrong.clone());
                drop(env.apply(Event::Tested { node, number, wrong }));
            }
        }
    }
}

/// Brings every node back with nothing in its hands, lets go what is held, and lets every task end
/// well.
fn calm(env: &mut Env) {
    for (name, cores, gpus) in NODES {
        env.up(name, cores, gpus, &[]);
        let _ = env.act(Action::Resume { node: name.into() });
        let _ = env.act(Action::DropWindows { node: name.into() });
    }
    let (rows, _) = env.cluster.jobs(None, false, 100);
    for row in rows {
        let _ = env.act(Action::Release { job: row.job, indices: None });
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
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn everything_ends_once_faults_stop(steps in prop::collection::vec(step(), 1..160)) {
        let mut env = Env::with(settings());
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

        let mut again = Cluster::new(settings());
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
