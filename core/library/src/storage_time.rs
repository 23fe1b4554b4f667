//! Times as storages of S3 write them, in milliseconds since 1970.

use chrono::{DateTime, FixedOffset};

/// Reads a time of a listing, as `2026-11-30T11:22:33.456Z` (RFC 3339).
pub(crate) fn of_listing(text: &str) -> Option<u64> {
    since_1970_ms(DateTime::parse_from_rfc3339(text).ok()?)
}

/// Reads a time of an answer's head, as `Mon, 30 Nov 2026 11:22:33 GMT` (RFC 9110, 5.6.7).
pub(crate) fn of_http(text: &str) -> Option<u64> {
    text.strip_suffix(" GMT")?;
    since_1970_ms(DateTime::parse_from_rfc2822(text).ok()?)
}

fn since_1970_ms(time: DateTime<FixedOffset>) -> Option<u64> {
    u64::try_from(time.timestamp_millis()).ok()
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
