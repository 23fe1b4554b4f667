//! Array jobs: which elements, and how many at once.
//!
//! `0-9`, `0-999%50` (at most 50 at once), `1,3,7-12`. An [`IndexSet`] keeps ranges, not elements,
//! so that a million elements cost a few bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::ARRAY_ELEMENTS_MAX;
use crate::reject::Reject;

/// A set of array indices as sorted, separate, inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSet {
    ranges: Vec<(u32, u32)>,
}

impl IndexSet {
    /// The indices `0..count`.
    #[must_use]
    pub fn first(count: u32) -> Self {
        Self { ranges: count.checked_sub(1).map(|last| (0, last)).into_iter().collect() }
    }

    /// How many indices the set holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether the set holds `index`.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }

    /// The set as rising, separate, inclusive ranges.
    #[must_use]
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// Every index in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.ranges.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for IndexSet {
    type Err = Reject;

    fn from_str(text: &str) -> Result<Self, Reject> {
        let fail = || {
            Reject::invalid(format!(
                "{text:?} is not a list of array indices; write it as 0-9 or 1,3,7-12"
            ))
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u32 = first.trim().parse().map_err(|_| fail())?;
            let last: u32 = last.trim().parse().map_err(|_| fail())?;
            if last < first || last == u32::MAX {
                return Err(fail());
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[1].0 <= pair[0].1) {
            return Err(Reject::invalid(format!(
                "the array indices {text:?} name an element twice"
            )));
        }
        let count: u64 = ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
        if count > u64::from(ARRAY_ELEMENTS_MAX) {
            return Err(Reject::invalid(format!(
                "the array {text:?} has {count} elements; at most {ARRAY_ELEMENTS_MAX} are allowed, split it"
            )));
        }
        Ok(Self { ranges })
    }
}

/// The array of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// Which elements the job has.
    pub indices: IndexSet,
    /// How many elements may run at once, if there is such a cap.
    pub at_once_max: Option<u32>,
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.indices.fmt(f)?;
        self.at_once_max.map_or(Ok(()), |cap| write!(f, "%{cap}"))
    }
}

impl FromStr for Array {
    type Err = Reject;

    /// Reads `0-999%50`: elements, then the most that may run at once.
    fn from_str(text: &str) -> Result<Self, Reject> {
        let Some((indices, cap)) = text.split_once('%') else {
            return Ok(Self { indices: text.parse()?, at_once_max: None });
        };
        match cap.parse() {
            Ok(cap) if cap > 0 => Ok(Self { indices: indices.parse()?, at_once_max: Some(cap) }),
            _ => Err(Reject::invalid(format!(
                "{cap:?} in the array {text:?} is not a number of tasks that may run at once; write it as 0-999%50"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_people_type() {
        for (text, count, cap) in
            [("0-9", 10, None), ("0-999%50", 1000, Some(50)), ("1,3,7-12", 8, None), ("5", 1, None)]
        {
            let array: Array = text.parse().unwrap();
            assert_eq!((array.indices.count(), array.at_once_max), (count, cap), "{text}");
            assert_eq!(array.indices.iter().count() as u32, count, "{text}");
            assert_eq!(array.to_string(), text);
        }
        for text in ["", "9-0", "1,1", "0-5,3", "a", "0-9%0", "0-9%", "0-1000000", "-1"] {
            assert!(text.parse::<Array>().is_err(), "{text}");
        }
    }

    #[test]
    fn membership_follows_the_ranges() {
        let set: IndexSet = "1,3,7-12".parse().unwrap();
        let held: Vec<u32> = (0..20).filter(|index| set.contains(*index)).collect();
        assert_eq!(held, set.iter().collect::<Vec<_>>());
        assert_eq!(IndexSet::first(0).count(), 0);
        assert_eq!(IndexSet::first(3).to_string(), "0-2");
    }
}
