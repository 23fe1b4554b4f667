//! Numbers and times as people read them, of fixed width.

use gantry_model::{At, JobRow, JobState, NodeState, Service};
use gantry_wire::NodeStatus;

/// A time of the day, UTC.
#[must_use]
pub fn clock(at: At) -> String {
    let second = at.0 / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// A time of the day to the minute, UTC: what stands on an idle screen changes once a minute.
pub(super) fn minute(at: At) -> String {
    let minute = at.0 / 60_000 % 1440;
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// A day, UTC, as `2026-11-24` (Howard Hinnant, `civil_from_days`, 2013).
pub(super) fn day(at: At) -> String {
    let days = (at.0 / 86_400_000) as i64 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A text in lines of at most so many columns, broken between words where they fit.
pub(super) fn folded(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut push = |word: &str| {
        let last = lines.len() - 1;
        let gap = usize::from(!lines[last].is_empty());
        if crate::output::width(&lines[last]) + gap + crate::output::width(word) > columns
            && gap > 0
        {
            lines.push(word.to_owned());
        } else {
            if gap > 0 {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    };
    for word in text.split(' ') {
        // A word that fits no line is cut where the line ends.
        let letters: Vec<char> = word.chars().collect();
        if letters.len() <= columns {
            push(word);
        } else {
            letters.chunks(columns.max(1)).for_each(|part| push(&part.iter().collect::<String>()));
        }
    }
    lines
}

/// A duration as `m:ss`, `h:mm:ss` or `d h`.
pub(super) fn duration(millis: u64) -> String {
    let second = millis / 1000;
    match second {
        0..3600 => format!("{}:{:02}", second / 60, second % 60),
        3600..86_400 => format!("{}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60),
        _ => format!("{} d {} h", second / 86_400, second / 3600 % 24),
    }
}

/// How long ago something began, in the largest unit that says it.
pub(super) fn since(millis: u64) -> String {
    match millis / 1000 {
        second @ 0..60 => format!("{second} s"),
        second @ 60..3600 => format!("{} m", second / 60),
        second @ 3600..86_400 => format!("{} h", second / 3600),
        second => format!("{} d", second / 86_400),
    }
}

/// Milliwatts as kW with one decimal.
pub(super) fn kilowatts(milliwatts: u64) -> String {
    let tenths = (milliwatts + 50_000) / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// How long a job has been running, or ran; how long it has been waiting where it never started.
pub(crate) fn time_of(row: &JobRow, now: At) -> String {
    let end = row.ended.unwrap_or(now);
    let time = duration(end.since(row.started.unwrap_or(row.submitted)).0);
    match row.time_limit.map(|limit| limit.0 / 1000) {
        Some(limit) if row.state == JobState::Run => match (limit % 3600, limit % 60) {
            (0, _) => format!("{time}/{} h", limit / 3600),
            (_, 0) => format!("{time}/{} m", limit / 60),
            _ => format!("{time}/{limit} s"),
        },
        _ => time,
    }
}

/// A count that keeps its width.
pub(super) fn count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{} k", number / 1000),
        _ => format!("{} M", number / 1_000_000),
    }
}

/// Thousandths as a percentage.
pub(super) fn percent(permille: u32) -> String {
    format!("{} %", permille / 10)
}

/// A count of things: `1 task`, `2 tasks`.
pub(super) fn things(number: impl Into<u64>, one: &str) -> String {
    let number = number.into();
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// An amount of memory in GB with one decimal; whole GB from 100 on.
pub(super) fn gigabytes(mib: u64) -> String {
    if mib >= 100 * 1024 {
        (mib / 1024).to_string()
    } else {
        format!("{}.{}", mib / 1024, mib % 1024 * 10 / 1024)
    }
}

/// The word for where a node stands, with its age where it is not up; a node that is up and gets no
/// work says so.
pub(super) fn node_state(node: &NodeStatus, now: At) -> String {
    match (node.row.state, &node.row.service) {
        (NodeState::Late, _) => format!("late {}", since(now.since(node.row.since).0)),
        (NodeState::Up, Service::Drain { .. }) => "drain".to_owned(),
        (NodeState::Up, Service::Quarantine { .. }) => "quarant.".to_owned(),
        (state, _) => state.word().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts() {
        let at = At(86_400_000 * 20_000 + 3_723_000);
        assert_eq!((clock(at), minute(at)), ("01:02:03".into(), "01:02".into()));
        assert_eq!((day(At(0)), day(at)), ("1970-01-01".into(), "2024-10-04".into()));
        assert_eq!(folded("one two three", 8), ["one two", "three"]);
        assert_eq!(folded("onetwothree", 4), ["onet", "woth", "ree"]);
        for (millis, text) in
            [(0, "0:00"), (61_000, "1:01"), (3_600_000, "1:00:00"), (90_000_000, "1 d 1 h")]
        {
            assert_eq!(duration(millis), text);
        }
        for (number, text) in [(99_999, "99999"), (123_456, "123 k"), (12_345_678, "12 M")] {
            assert_eq!(count(number), text);
        }
        assert_eq!((gigabytes(1536), gigabytes(2048 * 1024)), ("1.5".into(), "2048".into()));
        assert_eq!((things(1_u32, "job"), things(0_u64, "job")), ("1 job".into(), "0 jobs".into()));
    }
}
