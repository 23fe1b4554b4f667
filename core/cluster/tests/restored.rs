//! A cluster that came from a backup: ids are never given again, and what nodes know beyond it is
//! ended before anything new is placed.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::Event;
use gantry_model::{At, Exit, JobState, Machine};
use support::{Env, array, launches, spec, stops};

/// A job of two tasks on two nodes of one core, the second of which waits when the backup is taken.
fn backup() -> Env {
    let mut env = Env::new().node("a", 1, 0).node("b", 1, 0);
    env.submit(array(1, "0-2")).unwrap();
    assert_eq!(launches(&env.effects).len(), 2, "the third waits");
    env
}

/// The same a year later: restored, and the scheduler is started again.
fn restore(mut env: Env) -> Env {
    let taken = At(env.at);
    env.at += 31_536_000_000;
    env.apply(Event::Restored { taken });
    for node in env.cluster.up_nodes() {
        env.down(&node);
    }
    env
}

#[test]
fn no_id_is_given_again_after_a_restore() {
    let mut later = backup();
    let mut env = restore(backup());
    // What the cluster did between the backup and the loss of its disk.
    let lost = later.submit(spec(1)).unwrap();
    let lost_tries = launches(&later.ended("a", 1, Exit::Code(0)));
    let known = env.submit(spec(1)).unwrap();
    assert!(known.0 > lost.0 + 100_000_000, "{known} could have been given before");
    env.up("a", 1, 0, &[1]);
    env.up("b", 1, 0, &[2]);
    let tries = launches(&env.ended("a", 1, Exit::Code(0)));
    assert_eq!((tries.len(), lost_tries.len()), (1, 1));
    assert!(tries[0].1 > lost_tries[0].1 + 100_000_000_000, "{tries:?} after {lost_tries:?}");
}

#[test]
fn what_runs_since_the_backup_goes_on_and_what_it_does_not_know_is_ended_first() {
    let mut env = restore(backup());
    let job = env.submit(spec(1)).unwrap();
    // The task that waited has run on a since then, and that of a has ended.
    let up = env.up("a", 1, 0, &[3]);
    assert_eq!(stops(&up), [("a".to_owned(), 3)]);
    assert_eq!(launches(&env.effects).len(), 2, "b may run what waits");
    let why = env.cluster.why(At(env.at), job, None).unwrap().sentence;
    assert!(why.contains("restored from a backup") && why.contains("others"), "{why}");
    env.up("b", 1, 0, &[2]);
    assert_eq!(launches(&env.effects).len(), 2, "a still ends what it was told to stop");
    let ended = env.ended("a", 3, Exit::Signal(15));
    let first = launches(&ended);
    assert_eq!(first.len(), 1, "a task on a, that of b goes on: {first:?}");
    assert_eq!(env.state(gantry_model::JobId(1)), JobState::Run);
    let why = env.cluster.why(At(env.at), job, None).unwrap().sentence;
    assert!(!why.contains("backup"), "{why}");
}

#[test]
fn a_node_that_does_not_come_back_is_waited_for_as_long_as_ever() {
    for held in [vec![], vec![1]] {
        let mut env = restore(backup());
        env.up("a", 1, 0, &held);
        env.pass(9_999);
        assert_eq!(launches(&env.effects).len(), 2, "b may come back");
        let lost = env.pass(1);
        assert_eq!(launches(&lost).len(), usize::from(held.is_empty()), "b is lost");
        assert_eq!(env.cluster.summary().nodes_up, 1);
    }
}

#[test]
fn a_try_that_does_not_end_keeps_its_own_node_alone_from_work() {
    let mut env = restore(backup());
    env.up("a", 1, 0, &[77]);
    env.up("b", 1, 0, &[]);
    env.pass(29_999);
    assert_eq!(launches(&env.effects).len(), 2);
    let placed = launches(&env.pass(1));
    assert_eq!(placed.iter().map(|(node, ..)| node.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_scheduler_that_is_started_again_while_nodes_come_back_waits_for_them_anew() {
    let mut env = restore(backup());
    env.pass(9_000);
    for node in env.cluster.up_nodes() {
        env.down(&node);
    }
    env.pass(9_000);
    assert_eq!(env.cluster.nodes()[0].state, gantry_model::NodeState::Late);
    // A node that was lost when the backup was taken may have come back since.
    let mut env = Env::new().node("a", 1, 0);
    env.down("a");
    env.pass(60_000);
    assert_eq!(env.cluster.nodes()[0].state, gantry_model::NodeState::Lost);
    let env = restore(env);
    assert_eq!(env.cluster.nodes()[0].state, gantry_model::NodeState::Late);
}

#[test]
fn a_restored_cluster_without_nodes_waits_for_none() {
    let mut env = Env::new();
    env.submit(spec(1)).unwrap();
    let mut env = restore(env);
    assert_eq!(launches(&env.up("a", 1, 0, &[])).len(), 1);
    assert!(env.cluster.check().is_ok());
}
