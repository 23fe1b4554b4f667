//! Times as storages of S3 write them, in milliseconds since 1970.

/// Reads a time of a listing, as `2026-11-30T11:22:33.456Z` (RFC 3339, in UTC).
pub(crate) fn of_listing(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    since_1970_ms([year, month, day], time)
}

/// Reads a time of an answer's head, as `Mon, 30 Nov 2026 11:22:33 GMT` (RFC 9110, 5.6.7).
pub(crate) fn of_http(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let mut parts = rest.split(' ');
    let day = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year = parts.next()?.parse().ok()?;
    since_1970_ms([year, month, day], parts.next()?)
}

fn since_1970_ms([year, month, day]: [u64; 3], time: &str) -> Option<u64> {
    let mut time = time.split(':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let seconds: f64 = time.next()?.parse().ok()?;
    let sound = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && (0.0..61.0).contains(&seconds);
    if !sound {
        return None;
    }
    // Years begin in March here, so that a leap day is their last (Fliegel & Van Flandern, CACM 11(10), 1968).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let minutes = ((days - 719_468) * 24 + hour) * 60 + minute;
    Some(minutes * 60_000 + (seconds * 1e3).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storages_times_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-02T03:04:05.678Z", Some(97_445_678)),
            ("2000-02-29T23:59:59.000Z", Some(951_868_799_000)),
            ("2026-11-30T11:22:33.456Z", Some(1_796_037_753_456)),
            ("2026-11-30T11:22:33", None),
            ("2026-13-30T11:22:33Z", None),
            ("2026-11-30", None),
            ("", None),
        ] {
            assert_eq!(of_listing(text), expected, "{text}");
        }
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 30 Nov 2026 11:22:33 GMT", Some(1_796_037_753_000)),
            ("Mon, 30 Nix 2026 11:22:33 GMT", None),
            ("Monday, 30-Nov-26 11:22:33 GMT", None),
            ("Mon, 30 Nov 2026 11:22:33 CET", None),
            ("", None),
        ] {
            assert_eq!(of_http(text), expected, "{text}");
        }
    }
}
