//! What the simulation found, each as the shortest course that shows it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use gantry_cluster::{ClusterSettings, GroupSettings};
use gantry_model::{
    Action, At, Dependency, DependencyKind, DependencyScope, Exit, JobChange, JobId, JobSpec,
    JobState, Preemption, Resources, Window,
};
use support::{Env, array, launches, spec, stops};

fn preemptible(job: JobSpec) -> JobSpec {
    JobSpec { preemption: Preemption::Requeue, ..job }
}

#[test]
fn an_element_that_two_ends_free_at_once_is_freed_once() {
    let mut env = Env::new().node("a", 4, 0);
    let after = |kind, job| Dependency { job, kind, scope: DependencyScope::Element };
    let first = env.submit(spec(1)).unwrap();
    let good = JobSpec { after: vec![after(DependencyKind::Ok, first)], ..spec(1) };
    let good = env.submit(good).unwrap();
    let any = [first, good].map(|job| after(DependencyKind::Any, job)).to_vec();
    let any = env.submit(JobSpec { after: any, ..spec(1) }).unwrap();
    // The first fails, so that the second never starts: both set the third free.
    let effects = env.ended("a", 1, Exit::Code(1));
    assert_eq!(env.state(good), JobState::Cancel);
    assert_eq!(launches(&effects), [("a".to_owned(), 2, any.task(0).to_string())]);
}

#[test]
fn what_is_due_on_a_node_is_done_though_its_connection_goes_at_that_time() {
    let window = Window { from: At(1000), until: At(9000), reason: "disks".into() };
    let (node, reason) = (String::from("a"), String::from("a fan"));
    for action in [
        Action::AddWindow { node: node.clone(), window },
        Action::Drain { node, reason, deadline: Some(At(1000)) },
    ] {
        let mut env = Env::new().node("a", 4, 0);
        env.submit(JobSpec { estimate: Some(gantry_model::Millis(500)), ..spec(1) }).unwrap();
        env.act(action).unwrap();
        assert_eq!(stops(&env.effects), []);
        env.at = 2000;
        env.down("a");
        assert_eq!(stops(&env.effects), [("a".to_owned(), 1)]);
        let back = env.up("a", 4, 0, &[1]);
        assert_eq!(stops(&back), [("a".to_owned(), 1)], "the first order may be lost");
    }
}

#[test]
fn a_raised_priority_holds_for_what_runs_too() {
    let mut env = Env::new().node("a", 4, 0);
    let job = env.submit(preemptible(array(1, "0-7"))).unwrap();
    let change = JobChange { priority: Some(5), ..JobChange::default() };
    env.act(Action::Change { job, indices: None, change }).unwrap();
    env.pass(1000);
    assert_eq!(stops(&env.effects), [], "it makes no room for itself");
    env.submit(JobSpec { priority: 3, ..spec(1) }).unwrap();
    assert_eq!(stops(&env.effects), [], "nor for one that is less urgent now");
    env.submit(JobSpec { priority: 7, ..spec(1) }).unwrap();
    assert_eq!(stops(&env.effects).len(), 1);
}

#[test]
fn who_takes_back_leaves_others_what_they_are_guaranteed() {
    let group = |user: &str, cores| GroupSettings {
        guarantee: Resources { cores, ..Resources::default() },
        users: [user.to_owned()].into(),
        ..GroupSettings::default()
    };
    for (asked, count) in [(3, 0), (1, 1)] {
        let groups = [("one".to_owned(), group("ada", 4)), ("two".to_owned(), group("bob", 3))];
        let settings = ClusterSettings { groups: groups.into(), ..ClusterSettings::default() };
        let mut env = Env::with(settings).node("a", 8, 0);
        env.submit_as("eve", spec(4), "e").unwrap();
        env.submit_as("bob", preemptible(array(1, "0-3")), "b").unwrap();
        for key in ["1", "2"] {
            env.submit_as("ada", spec(asked), key).unwrap();
        }
        let stopped = stops(&env.effects);
        assert_eq!(stopped.len(), count, "{asked} cores are asked for; two has borrowed one");
        // What it gave back is gone, and it is left alone with the rest.
        for (node, try_id) in stopped {
            env.ended(&node, try_id, Exit::Signal(15));
            assert_eq!((stops(&env.effects).len(), env.state(JobId(3))), (1, JobState::Run));
        }
    }
}

/// Found by thinking of a journal whose end is lost, not by the simulation.
#[test]
fn a_try_that_is_not_known_and_never_began_keeps_its_node_from_no_work() {
    let mut env = Env::new().node("a", 1, 0);
    env.submit(array(1, "0-9")).unwrap();
    env.down("a");
    // It waits there for the lease of the first.
    let up = env.up("a", 1, 0, &[1, 50]);
    assert_eq!(stops(&up), [("a".to_owned(), 50)]);
    env.returned("a", 50);
    let next = launches(&env.ended("a", 1, Exit::Code(0)));
    assert_eq!(
        next.iter().map(|(node, try_id, _)| (node.as_str(), *try_id)).collect::<Vec<_>>(),
        [("a", 51)]
    );
}
