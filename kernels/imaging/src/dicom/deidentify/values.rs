//! Values that say nothing, and dates that keep their distances.

use std::fmt::Write as _;

use dicom_core::chrono::{Days, NaiveDate};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::mem::InMemElement;
use sha2::{Digest, Sha256};

/// Days by which a patient's dates may move into the past: ten years, and never none.
const DAYS_MAX: u64 = 3650;

/// A keyed hash in hexadecimal: the key, what it is for, and the text, each with its length.
pub(super) fn hex(key: &[u8], purpose: &[u8], text: &[u8]) -> String {
    let mut hasher = Sha256::new();
    for part in [key, purpose, text] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An element with a value that fits its VR and says nothing; `None` where no such value is known.
pub(super) fn dummy(tag: Tag, vr: VR) -> Option<InMemElement> {
    let text = match vr {
        VR::DA => "19000101",
        VR::TM => "000000",
        VR::DT => "19000101000000",
        VR::AS => "000Y",
        VR::IS | VR::DS => "0",
        VR::PN | VR::AE | VR::CS | VR::LO | VR::LT | VR::SH | VR::ST | VR::UC | VR::UT => "REMOVED",
        // A code, an item or bytes: there is nothing that could stand for them.
        _ => return None,
    };
    Some(DataElement::new(tag, vr, PrimitiveValue::from(text)))
}

/// Whether a text could be dates or times: whoever wrote a name there wrote letters.
pub(super) fn temporal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.:\\ ".contains(&byte))
}

/// Dates, or times with dates, moved by the days that a hash says; `None` where one is no date.
pub(super) fn shifted(text: &str, hash: &str) -> Option<String> {
    let number = u64::from_str_radix(hash.get(..15)?, 16).ok()?;
    let days = Days::new(1 + number % DAYS_MAX);
    let moved = |one: &str| {
        let one = one.trim();
        if one.is_empty() {
            return Some(String::new());
        }
        let (date, rest) = (one.get(..8)?, one.get(8..)?);
        let plain = rest.bytes().all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
        let date = NaiveDate::parse_from_str(date, "%Y%m%d").ok().filter(|_| plain)?;
        Some(format!("{}{rest}", date.checked_sub_days(days)?.format("%Y%m%d")))
    };
    let all: Option<Vec<String>> = text.split('\\').map(moved).collect();
    Some(all?.join("\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_keep_their_distances_and_other_text_goes() {
        let hash = hex(b"key", b"dates", b"patient");
        let moved = shifted("20240301\\20240229", &hash).unwrap();
        let (first, second) = moved.split_once('\\').unwrap();
        let date = |text: &str| NaiveDate::parse_from_str(text, "%Y%m%d").unwrap();
        assert_eq!((date(first) - date(second)).num_days(), 1);
        let days = (date("20240301") - date(first)).num_days();
        assert!((1..=DAYS_MAX as i64).contains(&days), "{days}");
        assert_eq!(
            shifted("20240301101112.5+0100", &hash).unwrap(),
            format!("{first}101112.5+0100")
        );
        assert_ne!(shifted("20240301", &hex(b"key", b"dates", b"other")).unwrap(), first);
        for text in ["2024", "20241301", "yesterday", "20240301 Smith", "€€€€€€"] {
            assert_eq!(shifted(text, &hash), None, "{text}");
        }
        assert_eq!(shifted("", &hash).unwrap(), "");
        for (text, expected) in
            [("101112.25", true), ("20240301\\20240302", true), ("+0100", true), ("Smith", false)]
        {
            assert_eq!(temporal(text), expected, "{text}");
        }
    }
}
