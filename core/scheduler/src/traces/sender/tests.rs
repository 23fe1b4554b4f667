//! The thread against a collector that does what it is told.

use std::net::{SocketAddr, TcpListener};

use gantry_model::At;

use super::super::spans::Status;
use super::*;
use crate::outgoing::script::{Does, server};

const LONG: Duration = Duration::from_secs(30);

fn span(number: u64) -> Span {
    Span {
        trace: [1; 16],
        id: number.to_be_bytes(),
        parent: None,
        name: "try".into(),
        start: At(number),
        end: At(number),
        attributes: Vec::new(),
        events: Vec::new(),
        status: Status::Unset,
    }
}

fn quick() -> Pace {
    Pace {
        linger: Duration::from_millis(20),
        within: Duration::from_millis(300),
        first: Duration::from_millis(1),
        most: Duration::from_millis(5),
        give_up: Duration::from_mins(1),
    }
}

fn start(address: SocketAddr, pace: Pace) -> (Outbox, Exporter) {
    start_with("test", &format!("http://{address}/v1/traces"), pace).unwrap()
}

/// Waits until what became of spans is as wanted.
fn until(exporter: &Exporter, wanted: impl Fn(Counts) -> bool) {
    let begun = Instant::now();
    while !wanted(exporter.counts()) {
        assert!(begun.elapsed() < LONG, "it stays {:?}", exporter.counts());
        std::thread::yield_now();
    }
}

#[test]
fn spans_go_together_up_to_a_number() {
    let (address, requests) = server(vec![Does::Answers(200)]);
    let (outbox, exporter) = start(address, Pace { linger: LONG, ..quick() });
    let many = 2 * BATCH_MAX as u64;
    for number in 0..many {
        outbox.offer(span(number));
    }
    for _ in 0..2 {
        let told = requests.recv_timeout(LONG).unwrap();
        assert!(told.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", told.head);
        assert!(told.head.contains("content-type: application/x-protobuf"), "{}", told.head);
    }
    until(&exporter, |counts| counts == Counts { sent: many, dropped: 0, waiting: 0 });
    assert!(requests.try_recv().is_err(), "two requests are enough");
}

#[test]
fn what_was_not_taken_for_the_moment_is_sent_again() {
    for first in [Does::Answers(503), Does::Later(1), Does::Hangs, Does::Closes] {
        let (address, requests) = server(vec![first, first, Does::Answers(200)]);
        let (outbox, exporter) = start(address, quick());
        outbox.offer(span(1));
        until(&exporter, |counts| counts == Counts { sent: 1, dropped: 0, waiting: 0 });
        let bodies: Vec<Vec<u8>> = requests.try_iter().map(|told| told.body).collect();
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{first:?}");
    }
}

#[test]
fn what_is_refused_or_too_old_is_counted_and_given_up() {
    let short = Pace { give_up: Duration::from_millis(50), ..quick() };
    let endless = Pace { give_up: Duration::from_hours(1), ..quick() };
    for (does, pace) in
        [(Does::Answers(400), endless), (Does::Redirects, endless), (Does::Answers(503), short)]
    {
        let (address, _requests) = server(vec![does]);
        let (outbox, exporter) = start(address, pace);
        outbox.offer(span(1));
        until(&exporter, |counts| counts == Counts { sent: 0, dropped: 1, waiting: 0 });
    }
}

#[test]
fn whoever_hands_spans_in_waits_for_nothing() {
    // Nothing accepts: the address is taken and nobody serves it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pace = Pace { within: Duration::from_mins(1), ..quick() };
    let (outbox, exporter) = start(listener.local_addr().unwrap(), pace);
    let (begun, many) = (Instant::now(), 30_000);
    for number in 0..many {
        outbox.offer(span(number));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    let Counts { sent, dropped, waiting } = exporter.counts();
    assert_eq!((sent, dropped + waiting), (0, many));
    // One batch may be on its way.
    assert!(waiting <= (WAITING_MAX + BATCH_MAX) as u64, "{waiting} wait");
}

#[tokio::test]
async fn at_the_end_what_is_left_is_tried_once() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, _requests) = server(vec![Does::Answers(200)]);
    let hour = Duration::from_hours(1);
    let pace = Pace { first: hour, most: hour, give_up: 3 * hour, linger: hour, ..quick() };
    for (address, sent) in [(address, 1), (closed, 0)] {
        let (outbox, exporter) = start(address, pace);
        outbox.offer(span(1));
        drop(outbox);
        exporter.finished().await;
        assert_eq!(exporter.counts(), Counts { sent, dropped: 1 - sent, waiting: 0 });
    }
}
