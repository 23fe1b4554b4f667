//! Gangs: whole, or not at all.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_model::{Exit, Gang, JobSpec, JobState};
use support::{Env, all_launches, launches, spec, stops};

fn gang(cores: u32, ranks: u32, nodes: Option<u32>) -> JobSpec {
    JobSpec { gang: Some(Gang { ranks, nodes }), ..spec(cores) }
}

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
