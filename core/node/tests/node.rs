//! A node, event by event.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use gantry_model::{
    At, Exit, JobId, Launch, Lease, Machine, Millis, Order, Report, TaskWork, TryId, Usage, Warning,
};
use gantry_node::{Effect, End, Event, Node, NodeSettings, Signal};
use proptest::prelude::*;

fn plan(try_id: u64, time_limit: Option<Millis>) -> Launch {
    Launch {
        try_id: TryId(try_id),
        task: JobId(1).task(0),
        name: "job".into(),
        user: "ada".into(),
        work: TaskWork::Command { arguments: vec!["true".into()], folder: None },
        lease: Lease::default(),
        time_limit,
        output: None,
        warning: None,
        environment: BTreeMap::new(),
        start: 1,
        inherits: None,
    }
}

fn launch(try_id: u64, time_limit: Option<Millis>) -> Event {
    Event::Order(Order::Launch(Box::new(plan(try_id, time_limit))))
}

fn ahead(try_id: u64) -> Event {
    Event::Order(Order::Ahead(Box::new(plan(try_id, None))))
}

fn recall(try_id: u64) -> Event {
    Event::Order(Order::Recall { try_id: TryId(try_id) })
}

fn stop(try_id: u64) -> Event {
    Event::Order(Order::Stop { try_id: TryId(try_id) })
}

fn exited(try_id: u64, exit: Exit) -> Event {
    Event::Exited { try_id: TryId(try_id), exit, usage: Usage::default() }
}

/// What an agent's restart finds: spooled ends, with code 3, and tries started at the time 0.
fn restored(spool: &[u64], live: &[u64]) -> Event {
    let end = |number: &u64| End {
        try_id: TryId(*number),
        exit: Exit::Code(3),
        usage: Usage::default(),
        heir: None,
    };
    Event::Restored {
        spool: spool.iter().map(end).collect(),
        live: live.iter().map(|number| (plan(*number, Some(Millis(100))), At(0))).collect(),
    }
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
            Effect::Signal { try_id, signal: Signal::Warn(number) } => {
                Some(format!("warn {try_id} {number}"))
            }
            Effect::Test { number, .. } => Some(format!("test {number}")),
            Effect::Spool(end) => Some(format!("spool {} {}", end.try_id, end.exit)),
            Effect::Unspool { try_id } => Some(format!("unspool {try_id}")),
            Effect::Send(Report::Started { try_id }) => Some(format!("say started {try_id}")),
            Effect::Send(Report::Ended { try_id, exit, heir, .. }) => {
                let heir = heir.map(|heir| format!(", then {heir}")).unwrap_or_default();
                Some(format!("say ended {try_id} {exit}{heir}"))
            }
            Effect::Send(Report::Returned { try_id }) => Some(format!("say returned {try_id}")),
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
            vec![restored(&[7], &[]), Event::Connected],
            &["say ended t7 exit 3"],
        ),
        (
            "what still runs is taken over: told as started, stopped when ordered, started never",
            vec![
                restored(&[], &[4]),
                Event::Connected,
                launch(4, None),
                stop(4),
                exited(4, Exit::Signal(15)),
            ],
            &[
                "say started t4",
                "term t4",
                "spool t4 ended by signal 15",
                "say ended t4 ended by signal 15",
            ],
        ),
        (
            "what is spooled does not run any more, whatever else is said of it",
            vec![restored(&[4], &[4]), Event::Connected, stop(4), exited(4, ok())],
            &["say ended t4 exit 3", "say ended t4 exit 3"],
        ),
        (
            "what was taken over and has ended meanwhile is kept and told",
            vec![restored(&[], &[4]), exited(4, ok()), Event::Connected, acknowledge(4)],
            &["spool t4 exit 0", "say ended t4 exit 0", "unspool t4"],
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

#[test]
fn a_time_limit_goes_on_while_the_agent_is_away() {
    for (back, expected) in [(99, &[][..]), (100, &["term t1"]), (5000, &["term t1"])] {
        let words = run(vec![(back, restored(&[], &[1])), (back, Event::Tick)]);
        assert_eq!(words, expected, "back at {back}");
    }
}

#[test]
fn a_warning_comes_once_before_the_limit_and_not_after_a_stop() {
    let warned = |before: u64| {
        let warning = Some(Warning { signal: 10, before: Millis(before) });
        let plan = Launch { warning, ..plan(1, Some(Millis(100))) };
        Event::Order(Order::Launch(Box::new(plan)))
    };
    let started = || (10, Event::Started { try_id: TryId(1) });
    let ticks = || [69, 70, 71, 109, 110].map(|at| (at, Event::Tick));
    let cases = [
        ("in time", 40, vec![started()], &["warn t1 10", "term t1"][..]),
        ("longer before than the limit", 1000, vec![started()], &["warn t1 10", "term t1"]),
        ("stopped before", 40, vec![started(), (20, stop(1))], &["term t1"]),
        ("not started", 40, vec![], &[]),
    ];
    for (what, before, events, expected) in cases {
        let mut all = vec![(0, warned(before))];
        all.extend(events);
        all.extend(ticks());
        assert_eq!(&run(all)[1..], expected, "{what}");
    }
}

#[test]
fn the_next_timer_is_the_warning_then_the_limit_then_the_kill() {
    let mut node = Node::new(NodeSettings { grace: Millis(1000) });
    let warning = Some(Warning { signal: 10, before: Millis(40) });
    let plan = Launch { warning, ..plan(1, Some(Millis(100))) };
    for (at, event, wake) in [
        (0, Event::Order(Order::Launch(Box::new(plan))), None),
        (10, Event::Started { try_id: TryId(1) }, Some(70)),
        (70, Event::Tick, Some(110)),
        (110, Event::Tick, Some(1110)),
        (1110, Event::Tick, None),
    ] {
        let mut effects = Vec::new();
        node.apply(At(at), event, &mut effects);
        let timer = effects.iter().find_map(|effect| match effect {
            Effect::Wake(at) => Some(at.0),
            _ => None,
        });
        assert_eq!(timer, wake, "at {at}");
    }
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

#[test]
fn leases_are_handed_on() {
    let started = |try_id| Event::Started { try_id: TryId(try_id) };
    let ok = || Exit::Code(0);
    let begin =
        |more: Vec<Event>| [vec![Event::Connected, launch(1, None), started(1)], more].concat();
    let cases: Vec<(&str, Vec<Event>, &[&str])> = vec![
        (
            "after an end that is well, and the end says so; the start is not told",
            begin(vec![ahead(2), exited(1, ok()), started(2), exited(2, ok())]),
            &[
                "spool t1 exit 0",
                "say ended t1 exit 0, then t2",
                "start t2",
                "spool t2 exit 0",
                "say ended t2 exit 0",
            ],
        ),
        (
            "in the order of the tries",
            begin(vec![ahead(2), ahead(3), exited(1, ok())]),
            &["spool t1 exit 0", "say ended t1 exit 0, then t2", "start t2"],
        ),
        (
            "not after a failure, and nobody is left who would",
            begin(vec![ahead(2), ahead(3), exited(1, Exit::Code(1))]),
            &["spool t1 exit 1", "say ended t1 exit 1", "say returned t2", "say returned t3"],
        ),
        (
            "not by one that was told to stop",
            begin(vec![ahead(2), stop(1), exited(1, ok())]),
            &["term t1", "say returned t2", "spool t1 exit 0", "say ended t1 exit 0"],
        ),
        (
            "but still by another of its job",
            begin(vec![launch(2, None), ahead(3), stop(1), exited(2, ok())]),
            &["start t2", "term t1", "spool t2 exit 0", "say ended t2 exit 0, then t3", "start t3"],
        ),
        (
            "not to one that was called back",
            begin(vec![ahead(2), recall(2), exited(1, ok())]),
            &["say returned t2", "spool t1 exit 0", "say ended t1 exit 0"],
        ),
        (
            "calling back comes too late",
            begin(vec![ahead(2), exited(1, ok()), recall(2)]),
            &["spool t1 exit 0", "say ended t1 exit 0, then t2", "start t2"],
        ),
        (
            "where nothing runs that would hand one on, a try is returned",
            vec![Event::Connected, ahead(1)],
            &["say returned t1"],
        ),
        (
            "not without a connection: the cluster may have given up what waits",
            begin(vec![ahead(2), Event::Disconnected, exited(1, ok()), Event::Connected]),
            &["spool t1 exit 0", "say ended t1 exit 0"],
        ),
        (
            "a try that waits is stopped",
            begin(vec![ahead(2), stop(2), exited(1, ok())]),
            &["say returned t2", "spool t1 exit 0", "say ended t1 exit 0"],
        ),
    ];
    for (name, events, expected) in cases {
        let begun = ["start t1", "say started t1"];
        let all = if events.contains(&launch(1, None)) { &begun[..] } else { &[] };
        let words = run(events.into_iter().map(|event| (0, event)).collect());
        assert_eq!(words, [all, expected].concat(), "{name}");
    }
}

/// An agent that starts again between the end of a try and its being kept says the same as the one
/// before would have.
#[test]
fn a_restart_knows_who_has_whose_lease() {
    let heir = Launch { inherits: Some(TryId(1)), ..plan(2, None) };
    let live = vec![(plan(1, None), At(0)), (heir, At(0))];
    let words = run(vec![
        (0, Event::Restored { spool: Vec::new(), live }),
        (0, exited(1, Exit::Code(0))),
        (0, Event::Connected),
    ]);
    assert_eq!(words, ["spool t1 exit 0", "say ended t1 exit 0, then t2"]);
}
