//! Rules on readings written as text, and what no readings can make of them.

use gantry_model::{At, Level, Millis};
use proptest::prelude::*;

use crate::threshold::{Change, Rule, Side, Watchman};

/// Bad from 85 up for 3 s, good below 75 for 2 s, gone after 5 s.
fn hot() -> Rule {
    Rule {
        series: "gpu temperature".into(),
        side: Side::Above,
        raise_at: 85,
        clear_at: 75,
        raise_after: Millis::from_seconds(3),
        clear_after: Millis::from_seconds(2),
        gone_after: Millis::from_seconds(5),
        level: Level::Warn,
        sentence: "a GPU is hot".into(),
    }
}

/// Bad from 10 down at once, good above 20 at once.
fn short() -> Rule {
    Rule {
        series: "disk free".into(),
        side: Side::Below,
        raise_at: 10,
        clear_at: 20,
        raise_after: Millis(0),
        clear_after: Millis(0),
        ..hot()
    }
}

/// What is said of readings that come one a second; `-` is an absent one, `.` a second in which
/// nothing is looked at.
fn said(rule: &Rule, readings: &str) -> Vec<String> {
    let mut watchman = Watchman::default();
    let mut said = Vec::new();
    for (second, reading) in readings.split_whitespace().enumerate() {
        if reading == "." {
            continue;
        }
        let change = watchman.observe(rule, At(second as u64 * 1000), reading.parse().ok());
        said.extend(change.map(|change| match change {
            Change::Raised { since, value } => {
                format!("{second} raised {value} {}", since.0 / 1000)
            }
            Change::Cleared { since, value } => {
                format!("{second} cleared {value} {}", since.0 / 1000)
            }
            Change::Gone { since } => format!("{second} gone {}", since.0 / 1000),
            Change::Returned { value } => format!("{second} returned {value}"),
        }));
    }
    said
}

#[test]
fn a_rule_says_so_when_its_time_has_come() {
    let cases: &[(Rule, &str, &[&str])] = &[
        (hot(), "84 84 84 84 84", &[]),
        (hot(), "85 90 90 90 90", &["3 raised 90 0"]),
        (hot(), "90 90 84 90 90 90 91", &["6 raised 91 3"]),
        (hot(), "90 90 90 90 80 70 80 70 70 70", &["3 raised 90 0", "9 cleared 70 7"]),
        (hot(), "90 90 90 90 75 75 75 75 75 74 74 74", &["3 raised 90 0", "11 cleared 74 9"]),
        // An absent reading neither confirms nor refutes.
        (hot(), "90 - - 90 90", &["3 raised 90 0"]),
        // The while begins anew after so long an absence, looked at or not.
        (hot(), "90 . . . . 90 90 90 90", &["8 raised 90 5"]),
        (hot(), "90 - - - - - - 90 90 90 90", &["5 gone 0", "7 returned 90", "10 raised 90 7"]),
        (
            hot(),
            "90 90 90 90 - - - - - - - 70 70 70",
            &["3 raised 90 0", "8 gone 3", "11 returned 70", "13 cleared 70 11"],
        ),
        (hot(), "- - - - - - - - - -", &[]),
        (short(), "11 10 11 20 21 5", &["1 raised 10 1", "4 cleared 21 4", "5 raised 5 5"]),
        (short(), "0 - - - - - 0", &["0 raised 0 0", "5 gone 0", "6 returned 0"]),
    ];
    for (rule, readings, expected) in cases {
        assert_eq!(said(rule, readings), *expected, "of {readings}");
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused() {
    let cases: [(Rule, Option<&str>); 6] = [
        (hot(), None),
        (short(), None),
        (Rule { clear_at: 85, ..hot() }, None),
        (Rule { clear_at: 86, ..hot() }, Some("must not cross")),
        (Rule { clear_at: 9, ..short() }, Some("must not cross")),
        (Rule { gone_after: Millis(0), ..hot() }, Some("gone at once")),
    ];
    for (rule, expected) in cases {
        let said = rule.check().err();
        let is_as_expected = match (&said, expected) {
            (Some(said), Some(expected)) => said.contains(expected),
            (said, expected) => said.is_none() && expected.is_none(),
        };
        assert!(is_as_expected, "{said:?}, not {expected:?}");
    }
    assert!(Rule { series: String::new(), ..hot() }.check().is_err());
}

fn rule() -> impl Strategy<Value = Rule> {
    let whiles = (0..8_u64, 0..8_u64, 1..12_u64);
    (prop_oneof![Just(Side::Above), Just(Side::Below)], 0..20_u32, 0..20_u32, whiles).prop_map(
        |(side, one, other, (raise_after, clear_after, gone_after))| {
            let (low, high) = (one.min(other), one.max(other));
            let (raise_at, clear_at) = match side {
                Side::Above => (high, low),
                Side::Below => (low, high),
            };
            Rule {
                side,
                raise_at,
                clear_at,
                raise_after: Millis::from_seconds(raise_after),
                clear_after: Millis::from_seconds(clear_after),
                gone_after: Millis::from_seconds(gone_after),
                ..hot()
            }
        },
    )
}

/// Whether a reading is bad, and whether it is good.
fn judged(rule: &Rule, value: u32) -> (bool, bool) {
    match rule.side {
        Side::Above => (value >= rule.raise_at, value < rule.clear_at),
        Side::Below => (value <= rule.raise_at, value > rule.clear_at),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn changes_alternate_and_never_come_before_their_time(
        rule in rule(),
        steps in prop::collection::vec((1..4_u64, prop::option::weighted(0.8, 0..20_u32)), 1..200),
    ) {
        prop_assert_eq!(rule.check(), Ok(()));
        let mut watchman = Watchman::default();
        let (mut is_raised, mut is_gone, mut now) = (false, false, At(0));
        let mut history: Vec<(At, u32)> = Vec::new();
        for (seconds, value) in steps {
            now = now.after(Millis::from_seconds(seconds));
            history.extend(value.map(|value| (now, value)));
            let change = watchman.observe(&rule, now, value);
            // The readings since a point in time: all of one kind, and none too far from the next.
            let all_since = |since: At, is_kind: fn((bool, bool)) -> bool| {
                let readings: Vec<_> = history.iter().filter(|(at, _)| *at >= since).collect();
                readings.iter().all(|(_, value)| is_kind(judged(&rule, *value)))
                    && readings.windows(2).all(|pair| pair[1].0.since(pair[0].0) < rule.gone_after)
                    && readings.first().is_some_and(|(at, _)| *at == since)
            };
            match change {
                Some(Change::Raised { since, value: told }) => {
                    prop_assert!(!is_raised && Some(told) == value);
                    prop_assert!(now.since(since) >= rule.raise_after);
                    prop_assert!(all_since(since, |(is_bad, _)| is_bad));
                    is_raised = true;
                }
                Some(Change::Cleared { since, value: told }) => {
                    prop_assert!(is_raised && Some(told) == value);
                    prop_assert!(now.since(since) >= rule.clear_after);
                    prop_assert!(all_since(since, |(is_bad, is_good)| is_good && !is_bad));
                    is_raised = false;
                }
                Some(Change::Gone { since }) => {
                    prop_assert!(!is_gone && value.is_none());
                    prop_assert!(now.since(since) >= rule.gone_after);
                    prop_assert_eq!(history.last().map(|(at, _)| *at), Some(since));
                    is_gone = true;
                }
                Some(Change::Returned { value: told }) => {
                    prop_assert!(is_gone && Some(told) == value);
                    is_gone = false;
                }
                None => {}
            }
            prop_assert_eq!((watchman.is_raised(), watchman.is_gone()), (is_raised, is_gone));
        }
    }

    #[test]
    fn nothing_changes_within_the_band(
        rule in rule(),
        steps in prop::collection::vec((1..4_u64, 0..20_u32), 1..200),
        first in 0..20_u32,
    ) {
        let mut watchman = Watchman::default();
        let mut now = At(0);
        let _ = watchman.observe(&rule, now, Some(first));
        let was_raised = watchman.is_raised();
        for (seconds, value) in steps {
            now = now.after(Millis::from_seconds(seconds));
            if judged(&rule, value) == (false, false) {
                prop_assert_eq!(watchman.observe(&rule, now, Some(value)), None);
            }
        }
        prop_assert_eq!(watchman.is_raised(), was_raised);
    }
}
