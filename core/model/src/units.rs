//! Quantities with their unit in the type: points in time, durations and memory.
//!
//! Parsing accepts what people type (`90s`, `1h30m`, `4G`, `512 MiB`); printing gives the shortest
//! form that reads back to the same value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reject::Reject;

/// A count of things: `1 task`, `2 tasks`.
#[must_use]
pub fn things(number: impl Into<u64>, one: &str) -> String {
    let number = number.into();
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// A point in time: milliseconds since the Unix epoch, by the scheduler's clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct At(pub u64);

impl At {
    /// The point in time `duration` after this one.
    #[must_use]
    pub fn after(self, duration: Millis) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// How long ago `earlier` was, zero where it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
}

/// Units of duration, longest first, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, size) in DURATION_UNITS {
            if rest >= size {
                write!(f, "{}{name}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl FromStr for Millis {
    type Err = Reject;

    /// Reads `90s`, `1h30m`, `2d`, `250ms` or a bare number of seconds.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let fail = || {
            Reject::invalid(format!(
                "{text:?} is not a duration; write it as 90s, 15m, 1h30m or 2d"
            ))
        };
        let text = text.trim();
        if let Ok(seconds) = text.parse::<u64>() {
            return seconds.checked_mul(1000).map(Self).ok_or_else(fail);
        }
        let mut total = 0_u64;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(letters);
            let size = DURATION_UNITS.iter().find(|(name, _)| *name == unit.trim());
            let (_, size) = size.ok_or_else(fail)?;
            let number: u64 = number.parse().map_err(|_| fail())?;
            let part = number.checked_mul(*size).ok_or_else(fail)?;
            total = total.checked_add(part).ok_or_else(fail)?;
            rest = next;
        }
        if text.is_empty() { Err(fail()) } else { Ok(Self(total)) }
    }
}

/// An amount of memory in MiB.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MemoryMib(pub u64);

impl fmt::Display for MemoryMib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0M"),
            n if n % (1 << 20) == 0 => write!(f, "{}T", n >> 20),
            n if n % 1024 == 0 => write!(f, "{}G", n >> 10),
            n => write!(f, "{n}M"),
        }
    }
}

impl FromStr for MemoryMib {
    type Err = Reject;

    /// Reads `512M`, `4G`, `1T`, `512 MiB` or a bare number of MiB.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let fail = || {
            Reject::invalid(format!(
                "{text:?} is not an amount of memory; write it as 512M, 4G or 1T"
            ))
        };
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| fail())?;
        let shift = match unit.trim() {
            "" | "M" | "MB" | "MiB" => 0,
            "G" | "GB" | "GiB" => 10,
            "T" | "TB" | "TiB" => 20,
            _ => return Err(fail()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_people_type() {
        for (text, millis) in [
            ("90", 90_000),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(text.parse::<Millis>().unwrap(), Millis(millis), "{text}");
        }
        for text in ["", "h", "1x", "1h2", "-3s", "99999999999999999999", "999999999999999999d"] {
            assert!(text.parse::<Millis>().is_err(), "{text}");
        }
    }

    #[test]
    fn memory_people_type() {
        for (text, mib) in [("512", 512), ("4G", 4096), ("512 MiB", 512), ("1T", 1 << 20)] {
            assert_eq!(text.parse::<MemoryMib>().unwrap(), MemoryMib(mib), "{text}");
        }
        for text in ["", "G", "4X", "-1G", "1.5G", "99999999999999999T"] {
            assert!(text.parse::<MemoryMib>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(value in 0_u64..1 << 50) {
            prop_assert_eq!(Millis(value).to_string().parse::<Millis>().unwrap(), Millis(value));
            let memory = MemoryMib(value >> 10);
            prop_assert_eq!(memory.to_string().parse::<MemoryMib>().unwrap(), memory);
        }
    }
}
