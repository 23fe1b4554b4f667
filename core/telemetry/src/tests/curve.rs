//! Curves: what is kept of the points of each group, in any order.

use proptest::prelude::*;

use crate::curve::{Curve, Point};

/// Points in the order in which they are told.
type Told<'a> = &'a [(u64, f64)];

fn curve(points_max: usize, points: impl IntoIterator<Item = (u64, f64)>) -> Curve {
    let mut curve = Curve::new(points_max);
    for (step, value) in points {
        curve.push(Point::new(step, value));
    }
    curve
}

fn steps(points: &[Point]) -> Vec<u64> {
    points.iter().map(|point| point.step).collect()
}

#[test]
fn a_long_curve_keeps_its_ends_its_peaks_and_its_bound() {
    // One peak up, one down, both a single step wide.
    let value = |step: u64| match step {
        41_234 => 99.0,
        77_777 => -3.0,
        step => 1.0 / (1.0 + step as f64),
    };
    let curve = curve(2000, (0..100_000).map(|step| (step, value(step))));
    assert!((900..=2000).contains(&curve.points().len()), "{}", curve.points().len());
    for points in [curve.points(), &curve.thinned(300), &curve.thinned(20)] {
        let steps = steps(points);
        assert!(steps.is_sorted_by(|one, other| one < other));
        assert_eq!((steps[0], steps[steps.len() - 1]), (0, 99_999));
        assert!(steps.contains(&41_234) && steps.contains(&77_777));
    }
    assert!((150..=300).contains(&curve.thinned(300).len()));
    assert!(curve.thinned(20).len() <= 20);
    assert!(curve.thinned(0).len() <= 4);
    assert_eq!(curve.thinned(5000), curve.points());
}

#[test]
fn points_are_ordered_by_step_and_the_newest_value_counts() {
    let cases: [(Told<'_>, &[u64]); 4] = [
        (&[], &[]),
        (&[(5, 1.0), (3, 2.0), (4, 3.0)], &[3, 4, 5]),
        (&[(5, 1.0), (5, 2.0), (3, 1.0), (3, 3.0)], &[3, 5]),
        (&[(0, 0.0), (u64::MAX, 1.0), (7, f64::NAN)], &[0, 7, u64::MAX]),
    ];
    for (points, expected) in cases {
        let curve = curve(8, points.iter().copied());
        assert_eq!(steps(curve.points()), expected);
        for point in curve.points() {
            let told = points.iter().rfind(|(step, _)| *step == point.step).unwrap().1;
            assert_eq!(point.value_bits, told.to_bits());
        }
    }
}

#[test]
fn what_is_no_number_is_seen_above_all_others() {
    let value = |step| match step {
        50 => f64::NAN,
        51 => f64::INFINITY,
        53 => f64::NEG_INFINITY,
        _ => -1.0,
    };
    let curve = curve(8, (0..100).map(|step| (step, value(step))));
    let thinned = curve.thinned(4);
    assert_eq!(steps(&thinned), [0, 50, 53, 99]);
}

proptest! {
    #[test]
    fn ends_and_extremes_of_all_points_are_kept(
        points in prop::collection::vec((0..5000_u64, -50..50_i32), 1..600),
        points_max in 8..100_usize,
        view in 4..100_usize,
    ) {
        // Each step once: of one that is told twice the older value may be the one that was kept.
        let all: std::collections::BTreeMap<u64, i32> = points.iter().copied().collect();
        let points = points.into_iter().filter(|(step, value)| all[step] == *value);
        let curve = curve(points_max, points.map(|(step, value)| (step, f64::from(value))));
        prop_assert!(curve.points().len() <= points_max);
        let view = curve.thinned(view);
        for kept in [curve.points(), &view] {
            let steps = steps(kept);
            prop_assert!(steps.is_sorted_by(|one, other| one < other));
            let values = || kept.iter().map(|point| point.value() as i32);
            let ends = (all.keys().next().copied(), all.keys().next_back().copied());
            prop_assert_eq!((steps.first().copied(), steps.last().copied()), ends);
            prop_assert_eq!(values().min(), all.values().min().copied());
            prop_assert_eq!(values().max(), all.values().max().copied());
            for point in kept {
                prop_assert_eq!(all.get(&point.step), Some(&(point.value() as i32)));
            }
        }
        prop_assert_eq!(curve.last().map(|point| point.step), all.keys().next_back().copied());
    }

    #[test]
    fn any_bits_keep_the_bound(
        points in prop::collection::vec((prop::num::u64::ANY, prop::num::u64::ANY), 1..300),
    ) {
        let mut curve = Curve::new(30);
        for (step, value_bits) in points {
            curve.push(Point { step, value_bits });
            prop_assert!(curve.points().len() <= 30);
            prop_assert!(curve.thinned(10).len() <= 10);
        }
    }
}
