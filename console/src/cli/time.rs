//! Points in time as people type and read them: in their own zone, beside the scheduler's
//! milliseconds since 1970.
//!
//! The only place of the commands that reads a clock. The scheduler's is taken to be close to this
//! machine's; mutual TLS would not work otherwise.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Days, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};
use gantry_model::{At, Millis, Reject};

/// Now.
#[must_use]
pub fn now() -> At {
    At(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

/// A point in time that lies ahead: `2026-11-24T18:00`, the next `18:00`, or `+2h`.
///
/// # Errors
/// Where it is none of them, or no such time exists in this zone.
pub fn ahead(text: &str, now: At) -> Result<At, Reject> {
    ahead_in(&Local, text, now)
}

/// A point in time that has passed: `7d` ago, or `2026-11-24`, also with `T18:00`.
///
/// # Errors
/// Where it is neither.
pub fn back(text: &str, now: At) -> Result<At, Reject> {
    back_in(&Local, text, now)
}

/// A time of the day; with its date where that is not today's.
#[must_use]
pub fn clock(at: At, now: At) -> String {
    clock_in(&Local, at, now)
}

/// A point to the second, with its date: what stands in a log.
#[must_use]
pub fn stamp(at: At) -> String {
    stamp_in(&Local, at)
}

/// How far a point lies ahead, in at most two units: `in 5m`, `in 2h10m`, `now`.
#[must_use]
pub fn distance(at: At, now: At) -> String {
    let seconds = at.since(now).0 / 1000;
    let step = match seconds {
        0..120 => 1,
        120..36_000 => 60,
        36_000..864_000 => 3600,
        _ => 86_400,
    };
    match seconds {
        0 => "now".to_owned(),
        _ => format!("in {}", Millis::from_seconds(seconds / step * step)),
    }
}

fn ahead_in<Z: TimeZone>(zone: &Z, text: &str, now: At) -> Result<At, Reject> {
    let wrong = || {
        Reject::invalid(format!(
            "{text:?} is not a time; write it as 2026-11-24T18:00, 18:00 for the next one, or +2h from now"
        ))
    };
    if let Some(later) = text.strip_prefix('+') {
        return Ok(now.after(later.parse().map_err(|_| wrong())?));
    }
    if let Some(time) = time_of_day(text) {
        let today = date(zone, now).naive_local().date();
        let tomorrow = today.checked_add_days(Days::new(1)).ok_or_else(wrong)?;
        let found = point(zone, today.and_time(time), text).unwrap_or_default();
        return if found > now { Ok(found) } else { point(zone, tomorrow.and_time(time), text) };
    }
    point(zone, date_and_time(text).ok_or_else(wrong)?, text)
}

fn back_in<Z: TimeZone>(zone: &Z, text: &str, now: At) -> Result<At, Reject> {
    if let Ok(ago) = text.parse::<Millis>() {
        return Ok(At(now.0.saturating_sub(ago.0)));
    }
    let day = || text.parse::<NaiveDate>().ok().map(|day| day.and_time(NaiveTime::MIN));
    let found = date_and_time(text).or_else(day).ok_or_else(|| {
        Reject::invalid(format!(
            "{text:?} is not a time that has passed; write it as 7d, 2026-11-24 or 2026-11-24T18:00"
        ))
    })?;
    point(zone, found, text)
}

fn clock_in<Z: TimeZone>(zone: &Z, at: At, now: At) -> String {
    let (at, now) = (date(zone, at).naive_local(), date(zone, now).naive_local());
    let form = if at.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.format(form).to_string()
}

fn stamp_in<Z: TimeZone>(zone: &Z, at: At) -> String {
    date(zone, at).naive_local().format("%Y-%m-%d %H:%M:%S").to_string()
}

fn date<Z: TimeZone>(zone: &Z, at: At) -> DateTime<Z> {
    let moment = i64::try_from(at.0).ok().and_then(DateTime::from_timestamp_millis);
    moment.unwrap_or(DateTime::<chrono::Utc>::MAX_UTC).with_timezone(zone)
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    ["%H:%M", "%H:%M:%S"].iter().find_map(|form| NaiveTime::parse_from_str(text, form).ok())
}

fn date_and_time(text: &str) -> Option<NaiveDateTime> {
    let forms = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"];
    forms.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
}

/// A local time as a point; the first of the two where clocks are set back.
fn point<Z: TimeZone>(zone: &Z, local: NaiveDateTime, text: &str) -> Result<At, Reject> {
    let found = zone.from_local_datetime(&local).earliest().ok_or_else(|| {
        Reject::invalid(format!(
            "the time {text:?} does not exist on that day, since clocks are set forward; choose another"
        ))
    })?;
    let millis = u64::try_from(found.timestamp_millis());
    millis.map(At).map_err(|_| Reject::invalid(format!("the time {text:?} lies before 1970")))
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    /// 2026-11-24 17:30 in a zone two hours east.
    const NOW: At = At(1_795_534_200_000);
    const MINUTE: u64 = 60_000;

    fn zone() -> FixedOffset {
        FixedOffset::east_opt(7200).unwrap()
    }

    #[test]
    fn times_people_type() {
        for (text, minutes) in [
            ("18:00", 30),
            ("17:30", 24 * 60),
            ("09:15", 15 * 60 + 45),
            ("17:30:30", 0),
            ("+2h", 120),
            ("+90s", 1),
            ("2026-11-24T18:00", 30),
            ("2026-11-25 17:30", 24 * 60),
        ] {
            let at = ahead_in(&zone(), text, NOW).unwrap();
            assert_eq!((at.0 - NOW.0) / MINUTE, minutes, "{text}");
        }
        for (text, minutes) in
            [("7d", 7 * 1440), ("1h30m", 90), ("2026-11-24", 1050), ("2026-11-24T17:00", 30)]
        {
            let at = back_in(&zone(), text, NOW).unwrap();
            assert_eq!((NOW.0 - at.0) / MINUTE, minutes, "{text}");
        }
        for text in ["", "noon", "25:00", "2026-13-01T10:00", "+", "+x", "2026-11-24", "18"] {
            assert!(ahead_in(&zone(), text, NOW).is_err(), "{text}");
        }
        for text in ["", "yesterday", "2026-11-31", "18:00"] {
            assert!(back_in(&zone(), text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn times_people_read() {
        for (minutes, shown, far) in [
            (0, "17:30", "now"),
            (1, "17:31", "in 1m"),
            (5, "17:35", "in 5m"),
            (130, "19:40", "in 2h10m"),
            (24 * 60 + 20, "2026-11-25 17:50", "in 1d"),
            (30 * 1440 + 70, "2026-12-24 18:40", "in 30d"),
        ] {
            let at = At(NOW.0 + minutes * MINUTE);
            assert_eq!(clock_in(&zone(), at, NOW), shown);
            assert_eq!(distance(at, NOW), far);
        }
        assert_eq!(stamp_in(&zone(), At(NOW.0 + 5999)), "2026-11-24 17:30:05");
        assert_eq!(distance(At(NOW.0 + 45_000), NOW), "in 45s");
        assert_eq!(distance(At(NOW.0 - 45_000), NOW), "now");
    }
}
