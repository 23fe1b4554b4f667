//! The queue of a worker, and how operations end.

use std::sync::atomic::Ordering;

use super::*;
use tempfile::TempDir;

#[test]
fn a_stop_reaches_one_operation_and_what_has_not_begun_is_given_back() {
    let queue = Queue::default();
    let operation = |number: u64| {
        let series = Vec::new();
        let builtin = Builtin::Preprocess { library: "l".into(), pipeline: "p".into(), series };
        let (try_id, task) = (TryId(number), gantry_model::JobId(1).task(number as u32));
        Operation { try_id, task, builtin, output: "o".into(), stopped: false }
    };
    (1..=5).for_each(|number| queue.add(operation(number)));
    let stops = || queue.told.stop().load(Ordering::Relaxed);
    let begin = || (queue.next().try_id.0, stops());
    assert_eq!(begin(), (1, false));
    queue.warn(TryId(1));
    assert!(queue.told.take_warning() && !queue.told.take_warning(), "it is told once");
    queue.warn(TryId(1));
    queue.stop(TryId(1));
    assert!(stops());
    queue.stop(TryId(3));
    assert_eq!(begin(), (2, false), "the stop was for another");
    assert!(!queue.told.take_warning(), "and so was the warning");
    queue.stop(TryId(1));
    queue.warn(TryId(1));
    assert!(!queue.told.take_warning());
    assert_eq!(begin(), (3, true), "it was stopped before it began");
    assert_eq!(queue.give_back(), [TryId(4), TryId(5)]);
    queue.add(operation(6));
    assert_eq!(begin(), (6, false));
}

#[test]
fn an_operation_ends_with_a_sentence_or_a_stop_and_never_with_the_process() {
    type Operation = fn(&mut dyn Write) -> Result<(), String>;
    let stopped: Operation = |_| {
        let told = Told::default();
        told.go_on();
        told.tell_to_stop();
        told.go_on();
        Ok(())
    };
    let panicked = "broken panicked; this is a fault of gantry, please report it";
    let cases: [(&str, Operation, Exit); 4] = [
        ("fine", |log| writeln!(log, "hello").map_err(|e| e.to_string()), Exit::Code(0)),
        ("wrong", |_| Err("it is wrong".into()), Exit::Failed("it is wrong".into())),
        ("broken", |_| panic!("as the test wants it"), Exit::Failed(panicked.into())),
        ("stopped", stopped, Exit::Signal(15)),
    ];
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("0.out");
    for (name, operation, expected) in cases {
        let mut log = Log { path: output.clone(), file: None };
        assert_eq!(carry_out(name, &mut log, operation), expected);
    }
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "hello\n");
}

#[test]
fn the_end_of_an_operation_alone_is_told_by_its_last_line() {
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("0.out");
    let unknown = Exit::Failed("it failed, and its output does not say why".into());
    for (text, exit, expected) in [
        ("a\nfailed: it is wrong\n", Exit::Code(1), Exit::Failed("it is wrong".into())),
        ("failed: early\nlast\n", Exit::Code(1), unknown.clone()),
        ("", Exit::Code(1), unknown),
        ("failed: no\n", Exit::Code(0), Exit::Code(0)),
        ("failed: no\n", Exit::Signal(15), Exit::Signal(15)),
        ("", Exit::Code(101), Exit::Failed("its process ended with exit code 101".into())),
    ] {
        std::fs::write(&output, text).unwrap();
        assert_eq!(alone::exit_of(exit, &output), expected, "{text}");
    }
}
