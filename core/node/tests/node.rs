//! A node, event by event.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use gantry_model::{
    At, Exit, JobId, Launch, Lease, Machine, Millis, Order, Report, TaskWork, TryId,
};
use gantry_node::{Effect, Event, Node, NodeSettings, Signal};
use proptest::prelude::*;

fn launch(try_id: u64, time_limit: Option<Millis>) -> Event {
    Event::Order(Order::Launch(Box::new(Launch {
        try_id: TryId(try_id),
        task: JobId(1).task(0),
        name: "job".into(),
        user: "ada".into(),
        work: TaskWork::Command { arguments: vec!["true".into()], folder: None },
        lease: Lease::default(),
        time_limit,
        environment: BTreeMap::new(),
        start: 1,
    })))
}

fn stop(try_id: u64) -> Event {
    Event::Order(Order::Stop { try_id: TryId(try_id) })
}

fn exited(try_id: u64, exit: Exit) -> Event {
    Event::Exited { try_id: TryId(try_id), exit }
}

/// Applies events at their times and gives the words of all effects but timers.
fn run(events: Vec<(u64, Event)>) -> Vec<String> {
    let mut node = Node::new(NodeSettings { grace: Millis(1000) });
    let mut words = Vec::new();
    for (at, event) in events {
        let mut effects = Vec::new();
        node.apply(At(at), event, &mut effects);
        node.check().unwrap();
        words.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Start(launch) => Some(format!("start {}", launch.try_id)),
            Effect::Signal { try_id, signal: Signal::Term } => Some(format!("term {try_id}")),
            Effect::Signal { try_id, signal: Signal::Kill } => Some(format!("kill {try_id}")),
            Effect::Spool { try_id, exit } => Some(format!("spool {try_id} {exit}")),
            Effect::Unspool { try_id } => Some(format!("unspool {try_id}")),
            Effect::Send(Report::Started { try_id }) => Some(format!("say started {try_id}")),
            Effect::Send(Report::Ended { try_id, exit }) => {
                Some(format!("say ended {try_id} {exit}"))
            }
            Effect::Wake(_) => None,
        }));
    }
    words
}

#[test]
fn what_a_node_does() {
    let started = |try_id| Event::Started { try_id: TryId(try_id) };
    let acknowledge = |try_id| Event::Order(Order::Acknowledge { try_id: TryId(try_id) });
    let ok = || Exit::Code(0);
    let cases: Vec<(&str, Vec<Event>, &[&str])> = vec![
        (
            "a try runs, ends, is kept, told and forgotten",
            vec![Event::Connected, launch(1, None), started(1), exited(1, ok()), acknowledge(1)],
            &["start t1", "say started t1", "spool t1 exit 0", "say ended t1 exit 0", "unspool t1"],
        ),
        (
            "a launch that comes twice starts once, also after its end",
            vec![
                Event::Connected,
                launch(1, None),
                launch(1, None),
                exited(1, ok()),
                launch(1, None),
                acknowledge(1),
                launch(1, None),
            ],
            &["start t1", "spool t1 exit 0", "say ended t1 exit 0", "unspool t1"],
        ),
        (
            "an end without a connection is told at the next one, and again until acknowledged",
            vec![
                Event::Connected,
                launch(1, None),
                Event::Disconnected,
                exited(1, ok()),
                Event::Connected,
                Event::Disconnected,
                Event::Connected,
            ],
            &["start t1", "spool t1 exit 0", "say ended t1 exit 0", "say ended t1 exit 0"],
        ),
        (
            "an end in the spool survives the agent",
            vec![Event::Restored { spool: vec![(TryId(7), Exit::Code(3))] }, Event::Connected],
            &["say ended t7 exit 3"],
        ),
        (
            "a stop that overtakes its launch fences it",
            vec![Event::Connected, stop(1), launch(1, None)],
            &["say ended t1 node lost"],
        ),
    ];
    for (what, events, expected) in cases {
        assert_eq!(run(events.into_iter().map(|event| (0, event)).collect()), expected, "{what}");
    }
}

#[test]
fn term_then_kill_after_the_grace_time() {
    let words = run(vec![
        (0, Event::Connected),
        (0, launch(1, None)),
        (5, stop(1)),
        (6, stop(1)),
        (1004, Event::Tick),
        (1005, Event::Tick),
        (1006, Event::Tick),
        (1007, exited(1, Exit::Signal(9))),
    ]);
    let end = ["spool t1 ended by signal 9", "say ended t1 ended by signal 9"];
    assert_eq!(words[1..], ["term t1", "kill t1", end[0], end[1]]);
}

#[test]
fn a_time_limit_counts_from_the_start_and_is_told_as_such() {
    let words = run(vec![
        (0, Event::Connected),
        (0, launch(1, Some(Millis(100)))),
        (50, Event::Started { try_id: TryId(1) }),
        (149, Event::Tick),
        (150, Event::Tick),
        (160, exited(1, Exit::Signal(15))),
    ]);
    assert_eq!(words[2..4], ["term t1", "spool t1 ended at its time limit"]);
}

proptest! {
    #[test]
    fn any_order_of_events_keeps_the_promises(steps in prop::collection::vec((0_u64..6, 0_u8..9), 1..200)) {
        let mut node = Node::new(NodeSettings { grace: Millis(10) });
        let mut starts = BTreeMap::<TryId, u32>::new();
        let mut told_to_stop = std::collections::BTreeSet::new();
        for (n, (id, step)) in steps.into_iter().enumerate() {
            let event = match step {
                0 => launch(id, None),
                1 => stop(id),
                2 => Event::Started { try_id: TryId(id) },
                3 => exited(id, Exit::Code(0)),
                4 => Event::Order(Order::Acknowledge { try_id: TryId(id) }),
                5 => Event::Disconnected,
                6 => Event::Tick,
                // A node that connects anew clears its fences: the cluster knows what it holds.
                _ => continue,
            };
            if let Event::Order(Order::Stop { try_id }) = &event {
                told_to_stop.insert(*try_id);
            }
            let mut effects = Vec::new();
            node.apply(At(n as u64), event, &mut effects);
            prop_assert_eq!(node.check(), Ok(()));
            for effect in effects {
                if let Effect::Start(launch) = effect {
                    *starts.entry(launch.try_id).or_default() += 1;
                    prop_assert_eq!(starts[&launch.try_id], 1, "started twice");
                    prop_assert!(!told_to_stop.contains(&launch.try_id), "started after a stop");
                }
            }
        }
    }
}
