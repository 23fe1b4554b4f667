//! The webhook against a server that does what it is told.

use std::net::{SocketAddr, TcpListener};

use gantry_model::{At, Subject};
use serde_json::Value as Json;

use super::*;
use crate::outgoing::script::{Does, Told, server};

fn note(level: Level, number: u64) -> Note {
    let subject = Subject::Node("gpu-1".into());
    Note { at: At(number), level, subject, sentence: format!("line {number}") }
}

fn quick() -> Pace {
    Pace {
        within: Duration::from_millis(300),
        first: Duration::from_millis(1),
        most: Duration::from_millis(5),
        give_up: Duration::from_mins(1),
    }
}

fn target(address: SocketAddr) -> Target {
    Target { url: format!("http://{address}/hook?key=secret"), least: Level::Warn }
}

fn webhook(address: SocketAddr, pace: Pace) -> Webhook {
    Webhook::start_with("test".into(), Some(target(address)), pace).unwrap()
}

/// The value of a request to the webhook.
fn value(told: &Told) -> Json {
    assert!(told.head.starts_with("POST /hook?key=secret HTTP/1.1"), "{}", told.head);
    assert!(told.head.contains("content-type: application/json"), "{}", told.head);
    serde_json::from_slice(&told.body).unwrap()
}

const LONG: Duration = Duration::from_secs(30);

/// Waits until what became of lines is as wanted.
fn until(webhook: &Webhook, wanted: impl Fn(Counts) -> bool) {
    let begun = std::time::Instant::now();
    while !wanted(webhook.counts()) {
        assert!(begun.elapsed() < LONG, "it stays {:?}", webhook.counts());
        std::thread::yield_now();
    }
}

#[test]
fn a_line_that_matters_arrives_as_json() {
    let (address, bodies) = server(vec![Does::Answers(200)]);
    let webhook = webhook(address, quick());
    let outbox = webhook.outbox();
    for level in [Level::Info, Level::Note, Level::Warn, Level::Fail] {
        outbox.offer(&note(level, 7));
    }
    for level in ["warn", "fail"] {
        let wanted = serde_json::json!({
            "cluster": "test",
            "at_ms": 7,
            "level": level,
            "subject": "gpu-1",
            "sentence": "line 7",
        });
        assert_eq!(value(&bodies.recv_timeout(LONG).unwrap()), wanted);
    }
    until(&webhook, |counts| counts == Counts { sent: 2, dropped: 0, waiting: 0 });
}

#[test]
fn what_is_not_taken_is_sent_again_in_its_order() {
    for first in [
        Does::Answers(500),
        Does::Answers(404),
        Does::Answers(429),
        Does::Redirects,
        Does::Hangs,
        Does::Closes,
    ] {
        let (address, bodies) = server(vec![first, first, Does::Answers(204)]);
        let webhook = webhook(address, quick());
        for number in 1..=3 {
            webhook.outbox().offer(&note(Level::Fail, number));
        }
        until(&webhook, |counts| counts == Counts { sent: 3, dropped: 0, waiting: 0 });
        let mut numbers: Vec<u64> =
            bodies.try_iter().map(|told| value(&told)["at_ms"].as_u64().unwrap()).collect();
        numbers.dedup();
        assert_eq!(numbers, [1, 2, 3], "{first:?}");
    }
}

#[test]
fn what_is_given_up_is_counted_and_told_with_the_next() {
    let (address, _bodies) = server(vec![Does::Answers(503)]);
    let pace = Pace { give_up: Duration::from_millis(50), ..quick() };
    let webhook = webhook(address, pace);
    for number in 0..3 {
        webhook.outbox().offer(&note(Level::Fail, number));
    }
    until(&webhook, |counts| counts == Counts { sent: 0, dropped: 3, waiting: 0 });
    let (address, bodies) = server(vec![Does::Answers(200)]);
    webhook.set(Some(target(address)));
    webhook.outbox().offer(&note(Level::Fail, 3));
    webhook.outbox().offer(&note(Level::Fail, 4));
    let told: Vec<Json> = (0..2).map(|_| value(&bodies.recv_timeout(LONG).unwrap())).collect();
    assert_eq!((&told[0]["at_ms"], &told[0]["dropped"]), (&3.into(), &3.into()));
    assert_eq!((&told[1]["at_ms"], &told[1]["dropped"]), (&4.into(), &Json::Null));
}

#[test]
fn whoever_hands_lines_in_waits_for_nothing_and_the_oldest_give_way() {
    // Nothing accepts: the address is taken and nobody serves it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pace = Pace { within: Duration::from_mins(1), ..quick() };
    let webhook = webhook(listener.local_addr().unwrap(), pace);
    let outbox = webhook.outbox();
    outbox.offer(&note(Level::Fail, 0));
    until(&webhook, |counts| counts.waiting == 0);
    let begun = std::time::Instant::now();
    let many = 20_000;
    for number in 0..many {
        outbox.offer(&note(Level::Fail, number));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    let waiting = queue::WAITING_MAX as u64;
    assert_eq!(webhook.counts(), Counts { sent: 0, dropped: many - waiting, waiting });
}

#[test]
fn without_an_address_nothing_waits_and_the_thread_ends_with_its_owner() {
    let webhook = Webhook::start_with("test".into(), None, quick()).unwrap();
    webhook.outbox().offer(&note(Level::Fail, 1));
    assert_eq!(webhook.counts(), Counts::default());
    let (address, bodies) = server(vec![Does::Answers(500)]);
    let pace = Pace { first: Duration::from_hours(1), most: Duration::from_hours(1), ..quick() };
    let (given, queue) = (webhook.sent.clone(), webhook.queue.clone());
    drop(webhook);
    let sleeping = Webhook::start_with("test".into(), Some(target(address)), pace).unwrap();
    sleeping.outbox().offer(&note(Level::Fail, 1));
    bodies.recv_timeout(LONG).unwrap();
    // An address that is taken away ends a wait for the next try, and so does the end.
    sleeping.set(None);
    let (sent, waits) = (sleeping.sent.clone(), sleeping.queue.clone());
    drop(sleeping);
    let begun = std::time::Instant::now();
    for (sent, queue) in [(given, queue), (sent, waits)] {
        while Arc::strong_count(&sent) > 1 || Arc::strong_count(&queue) > 1 {
            assert!(begun.elapsed() < LONG, "a thread goes on");
            std::thread::yield_now();
        }
    }
}
