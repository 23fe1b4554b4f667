//! Series against a plain map of readings.

use std::collections::BTreeMap;
use std::ops::Range;

use gantry_model::{At, Millis};
use proptest::prelude::*;

use crate::series::Series;
use crate::short::Short;
use crate::slots::Bucket;

/// A second at the start of a slot of ten minutes.
const START: u64 = 1_800_000_000 / 600 * 600;

/// A span that shows each slot of a level in a cell of its own: the seconds of a slot, the seconds
/// shown and how many cells they make.
const LEVELS: [(u64, u64, usize); 4] =
    [(1, 600, 600), (10, 719 * 10, 719), (60, 1439 * 60, 1439), (600, 2015 * 600, 2015)];

fn at(second: u64) -> At {
    At(second * 1000 + 17)
}

fn series(readings: impl IntoIterator<Item = (u64, u32)>) -> Series {
    let mut series = Series::new();
    for (second, value) in readings {
        series.push(at(second), value);
    }
    series
}

/// The bucket of a slot as the map has it: exact, then each of the three kept as a short.
fn expected(readings: &BTreeMap<u64, u32>, seconds: Range<u64>) -> Option<Bucket> {
    let values = || readings.range(seconds.clone()).map(|(_, value)| Short::new(*value).value());
    let kept = |value| Short::new(value).value();
    let sum: u64 = values().map(u64::from).sum();
    let mean = sum.checked_div(values().count() as u64)? as u32;
    Some(Bucket { min: kept(values().min()?), mean: kept(mean), max: kept(values().max()?) })
}

/// Holds every slot of every level against the map.
fn check(series: &Series, readings: &BTreeMap<u64, u32>) {
    let newest = *readings.keys().next_back().unwrap();
    for (width, span, cells) in LEVELS {
        let shown = series.resample(at(newest), Millis::from_seconds(span), cells);
        assert_eq!(shown.len(), cells);
        for (cell, bucket) in shown.into_iter().rev().enumerate() {
            let start = (newest / width - cell as u64) * width;
            let wanted = expected(readings, start..start + width);
            assert_eq!(bucket, wanted, "the slot of {width} seconds at {start}, newest {newest}");
        }
    }
}

/// Steps in seconds from one reading to the next: mostly a second, sometimes a gap.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![20 => Just(1_u64), 3 => 2..30_u64, 1 => 30..2000_u64]
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![0..1001_u32, prop::num::u32::ANY]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_level_is_exact_in_order(
        steps in prop::collection::vec((gap(), value()), 1..3000),
    ) {
        let mut second = START;
        let readings: BTreeMap<u64, u32> = steps.into_iter().map(|(gap, value)| {
            second += gap;
            (second, value)
        }).collect();
        check(&series(readings.clone()), &readings);
    }

    #[test]
    fn late_and_doubled_readings_change_nothing_while_their_slots_are_kept(
        readings in prop::collection::vec((0..600_u64, value()), 1..400),
    ) {
        // All within one slot of ten minutes, in any order; the last of a second counts.
        let readings = readings.into_iter().map(|(second, value)| (START + second, value));
        let map: BTreeMap<u64, u32> = readings.clone().collect();
        check(&series(readings), &map);
    }

    #[test]
    fn any_readings_and_any_view_are_taken(
        readings in prop::collection::vec((prop::num::u64::ANY, value()), 0..50),
        view in (prop::num::u64::ANY, prop::num::u64::ANY, 0..50_usize),
    ) {
        let series = series(readings.into_iter().map(|(at, value)| (at / 1000 % (1 << 50), value)));
        let cells = series.resample(At(view.0), Millis(view.1), view.2);
        prop_assert_eq!(cells.len(), view.2);
        for bucket in cells.into_iter().flatten() {
            prop_assert!(bucket.min <= bucket.mean && bucket.mean <= bucket.max);
        }
    }
}

#[test]
fn a_full_series_takes_its_bytes_and_no_more() {
    let empty = Series::new().bytes();
    assert!(empty <= 512, "{empty} bytes");
    let hour = series((0..3600).map(|second| (START + second, 700))).bytes();
    assert!(hour <= 6 * 1024, "{hour} bytes after an hour");
    // One reading a minute reaches every slot of the coarser levels as well.
    let full = series((0..16 * 24 * 60).map(|minute| (START + minute * 60, 700))).bytes();
    assert!(full <= 27 * 1024, "{full} bytes when full");
}

#[test]
fn the_finest_level_that_covers_the_span_is_shown() {
    // The newest second of each level's reach has the only reading that is not 5.
    let readings = (0..20 * 24 * 3600).step_by(10).map(|second| (START + second, 5));
    let mut series = series(readings);
    let newest = START + 20 * 24 * 3600 - 1;
    series.push(at(newest), 900);
    // One cell: its mean says how many readings were added up, and its peak is never lost.
    let cases = [
        ("10m", 10 * 60, 5 + 895 / 61),
        ("11m", 11 * 60, 5 + 895 / 67),
        ("1h", 3600, 5 + 895 / 361),
        ("12h", 12 * 3600, 5),
        ("14d", 14 * 24 * 3600, 5),
        ("longer than is kept", 30 * 24 * 3600, 5),
    ];
    for (span, seconds, mean) in cases {
        let cells = series.resample(at(newest), Millis::from_seconds(seconds), 1);
        let Some(Bucket { min, mean: shown, max }) = cells[0] else { panic!("nothing of {span}") };
        assert_eq!((min, max), (5, 900), "{span}");
        assert!(shown.abs_diff(mean) <= 1, "{span}: {shown}, not {mean}");
    }
    // Back in time, the level must still reach there from the newest reading.
    let hour_ago = series.resample(at(newest - 3600), Millis::from_seconds(60), 6);
    assert_eq!(hour_ago, [Some(Bucket { min: 5, mean: 5, max: 5 }); 6]);
}

#[test]
fn gaps_and_ages_are_kept() {
    let series = series([(START, 1), (START + 3, 4), (START + 1300, 7)]);
    assert_eq!(series.age(at(START + 1310)), Some(Millis::from_seconds(10)));
    assert_eq!(series.age(at(START)), Some(Millis(0)));
    assert_eq!(Series::new().age(at(START)), None);
    let cells = series.resample(at(START + 1300), Millis::from_seconds(1310), 131);
    let shown: Vec<usize> = (0..131).filter(|cell| cells[*cell].is_some()).collect();
    assert_eq!(shown, [0, 130]);
}

#[test]
fn a_late_reading_older_than_the_seconds_of_its_slot_moves_it_by_its_share() {
    let mut series =
        series((0..1200).map(|second| (START + second, if second == 590 { 0 } else { 100 })));
    // 599 of 600 seconds of the older slot have 100; two thirds of them are not kept any more.
    series.push(at(START + 1300), 100);
    series.push(at(START + 899), 1000);
    series.push(at(START + 100), 1000);
    let cells = series.resample(at(START + 1300), Millis::from_seconds(3 * 24 * 3600), 432);
    let [older, middle] = [cells[429], cells[430]].map(Option::unwrap);
    assert_eq!((older.min, older.mean, older.max), (0, 99, 100), "too old, and dropped");
    assert_eq!((middle.min, middle.max), (100, 1000));
    assert!((100..=102).contains(&middle.mean), "{middle:?}");
}

#[test]
fn cells_smaller_than_slots_show_no_gaps() {
    let series = series((0..100).map(|second| (START + second, 9)));
    let cells = series.resample(at(START + 99), Millis::from_seconds(50), 200);
    assert!(cells.iter().all(Option::is_some));
}
