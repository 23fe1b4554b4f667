//! The pool with workers that are shells, and what they say played by hand.

use super::*;
use gantry_model::JobId;

/// A pool whose worker is a shell: it waits for an operation, and then does this.
fn pool(then: &str) -> (Pool, mpsc::Receiver<Input>) {
    let (inputs, received) = mpsc::channel(16);
    let program = vec!["sh".into(), "-c".into(), format!("head -c 4 >/dev/null; {then}")];
    (Pool::new(program, Isolation::none(), 1, inputs), received)
}

fn submit(pool: &mut Pool, number: u64) -> Vec<Begun> {
    submit_with(pool, number, &Lease::default())
}

fn submit_with(pool: &mut Pool, number: u64, lease: &Lease) -> Vec<Begun> {
    let builtin =
        Builtin::Preprocess { library: "l".into(), pipeline: "p".into(), series: Vec::new() };
    let begun = pool.submit(TryId(number), JobId(number).task(0), builtin, lease, Path::new("o"));
    pool.send();
    begun
}

/// What the next news of a worker ends, and how many operations begin by it.
fn hear(pool: &mut Pool, received: &mut mpsc::Receiver<Input>) -> (Option<(TryId, Exit)>, usize) {
    let Some(Input::Worker(id, said)) = received.blocking_recv() else { panic!() };
    let (mut ended, mut begun) = (Vec::new(), 0);
    for one in said {
        let (more, started) = pool.hear(id, one);
        ended.extend(more);
        begun += started.len();
    }
    pool.send();
    (ended.into_iter().map(|ended| (ended.try_id, ended.exit)).next(), begun)
}

#[test]
fn a_worker_that_dies_ends_its_operation_only() {
    for (then, expected) in [
        ("kill -9 $$", Exit::Signal(9)),
        ("exit 3", Exit::Failed("its worker ended with exit code 3".into())),
        ("echo this is no message at all; exec sleep 1000", Exit::Signal(9)),
    ] {
        let (mut pool, mut received) = pool(then);
        assert_eq!(submit(&mut pool, 1), [(TryId(1), Ok(()))]);
        assert_eq!(submit(&mut pool, 2), [], "one worker does one thing");
        // The first ends with its worker, and the second begins on another.
        let first = hear(&mut pool, &mut received);
        assert_eq!(first, (Some((TryId(1), expected.clone())), 1), "{then}");
        let second = hear(&mut pool, &mut received);
        assert_eq!(second, (Some((TryId(2), expected)), 0), "{then}");
    }
}

#[test]
fn an_operation_that_does_not_end_is_killed_and_one_that_waits_is_taken_away() {
    let (mut pool, mut received) = pool("exec sleep 1000");
    submit(&mut pool, 1);
    submit(&mut pool, 2);
    assert_eq!(pool.stop(TryId(2)), Some(Exit::Signal(15)));
    assert_eq!(pool.stop(TryId(1)), None);
    pool.kill(TryId(1));
    let ended = hear(&mut pool, &mut received);
    assert_eq!(ended, (Some((TryId(1), Exit::Signal(9))), 0));
}

#[test]
fn a_worker_gets_short_operations_ahead_and_gives_back_what_waits_behind_a_long_one() {
    let (mut pool, mut received) = pool("exec sleep 1000");
    assert_eq!(submit(&mut pool, 1), [(TryId(1), Ok(()))]);
    let at_once = 8;
    pool.workers.get_mut(&1).unwrap().at_once = at_once;
    for number in 2..=9 {
        assert_eq!(submit(&mut pool, number), [], "it waits behind the first");
    }
    let waiting =
        |pool: &Pool| -> Vec<u64> { pool.waiting.iter().map(|waiting| waiting.try_id.0).collect() };
    assert_eq!((pool.workers[&1].has.len(), waiting(&pool)), (at_once, vec![9]));
    // One of those is stopped; the worker has begun the second when it is asked.
    assert_eq!(pool.stop(TryId(4)), None);
    let (exit, usage, last) = (Exit::Code(0), Usage::default(), "done".to_owned());
    let done = Said::Message(FromWorker::Done { exit, usage, last });
    // The first was a long one.
    pool.workers.get_mut(&1).unwrap().since = Instant::now().checked_sub(SHORT).unwrap();
    let (ended, begun) = pool.hear(1, done);
    assert_eq!((ended[0].try_id, &begun[0]), (TryId(1), &(TryId(2), Ok(()))));
    let back = (3..=8).map(TryId).collect();
    let (ended, begun) = pool.hear(1, Said::Message(FromWorker::Returned(back)));
    assert_eq!((ended[0].try_id, &ended[0].exit), (TryId(4), &Exit::Signal(15)));
    assert_eq!((ended.len(), begun.len()), (1, 0));
    assert_eq!((pool.workers[&1].has.len(), waiting(&pool)), (1, vec![3, 5, 6, 7, 8, 9]));
    // It dies: what it carried out ends, and the next begins on another.
    pool.kill(TryId(2));
    let ended = hear(&mut pool, &mut received);
    assert_eq!(ended, (Some((TryId(2), Exit::Signal(9))), 1));
}

#[test]
fn a_worker_takes_what_has_its_lease_and_makes_room_for_another_once_it_is_free() {
    let (mut pool, _received) = pool("exec sleep 1000");
    let two = Share { cores: 2, memory: MemoryMib(0) }.lease();
    assert_eq!(submit(&mut pool, 1), [(TryId(1), Ok(()))]);
    pool.workers.get_mut(&1).unwrap().at_once = 8;
    assert_eq!(submit_with(&mut pool, 2, &two), [], "the only worker is busy, and another's");
    assert_eq!((pool.workers[&1].has.len(), pool.waiting.len()), (1, 1));
    let (exit, usage, last) = (Exit::Code(0), Usage::default(), String::new());
    let (_, begun) = pool.hear(1, Said::Message(FromWorker::Done { exit, usage, last }));
    assert_eq!(begun, [(TryId(2), Ok(()))]);
    assert_eq!(pool.workers.keys().copied().collect::<Vec<_>>(), [2], "in place of the first");
    let environment = std::fs::read(format!("/proc/{}/environ", pool.workers[&2].child.id()));
    let environment = String::from_utf8(environment.unwrap()).unwrap();
    assert!(environment.split('\0').any(|one| one == "RAYON_NUM_THREADS=2"), "{environment}");
}

#[test]
fn what_takes_more_memory_than_its_lease_is_told_so() {
    // What Rust's allocator does where it gets no memory.
    let (mut pool, mut received) = pool("kill -ABRT $$");
    let little = Share { cores: 1, memory: MemoryMib(64) }.lease();
    submit_with(&mut pool, 1, &little);
    pool.hear(1, Said::Message(FromWorker::Needs(MemoryMib(300))));
    let (ended, _) = hear(&mut pool, &mut received);
    let Some((TryId(1), Exit::Failed(sentence))) = ended else { panic!("{ended:?}") };
    assert!(sentence.contains("64M of memory are not enough"), "{sentence}");
    assert!(sentence.contains("takes up to 300M"), "{sentence}");
}

#[test]
fn no_worker_program_is_the_end_of_the_operation_with_125() {
    let (inputs, _received) = mpsc::channel(16);
    let program = vec!["gantry-no-such-program".into()];
    let mut pool = Pool::new(program, Isolation::none(), 1, inputs);
    let begun = submit(&mut pool, 1);
    assert!(
        matches!(&begun[..], [(TryId(1), Err(Exit::NotStarted { code: 125, .. }))]),
        "{begun:?}"
    );
}
