//! Sets of array indices as ranges, so that a million elements in one state cost a few bytes.
//!
//! Ranges are inclusive, separate and never adjacent: two sets with the same elements are equal.

use std::collections::BTreeMap;

use gantry_model::IndexSet;
use serde::{Deserialize, Serialize};

/// A set of array indices that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ranges {
    /// First to last.
    ranges: BTreeMap<u32, u32>,
    count: u32,
}

impl Ranges {
    pub(crate) fn of(set: &IndexSet) -> Self {
        let mut ranges = Self::default();
        for (first, last) in set.ranges() {
            ranges.insert_range(*first, *last);
        }
        ranges
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn first(&self) -> Option<u32> {
        self.ranges.first_key_value().map(|(first, _)| *first)
    }

    pub(crate) fn contains(&self, index: u32) -> bool {
        self.ranges.range(..=index).next_back().is_some_and(|(_, last)| *last >= index)
    }

    /// The ranges, first and last of each.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    pub(crate) fn insert(&mut self, index: u32) {
        self.insert_range(index, index);
    }

    /// Adds a range.
    ///
    /// # Panics
    /// Where an element of it is in the set already: an element is in one state only.
    pub(crate) fn insert_range(&mut self, first: u32, last: u32) {
        assert!(first <= last, "a range from {first} to {last}");
        let overlaps = self.ranges.range(..=last).next_back().is_some_and(|(_, end)| *end >= first);
        assert!(!overlaps, "{first}-{last} is in the set already");
        let before = first.checked_sub(1).and_then(|end| {
            self.ranges.range(..=end).next_back().filter(|(_, last)| **last == end)
        });
        let begin = before.map_or(first, |(begin, _)| *begin);
        let end = last.checked_add(1).and_then(|next| self.ranges.remove(&next)).unwrap_or(last);
        self.ranges.insert(begin, end);
        self.count += last - first + 1;
    }

    pub(crate) fn remove(&mut self, index: u32) -> bool {
        !self.take_range(index, index).is_empty()
    }

    /// Takes out what of a range is in the set, and gives it.
    pub(crate) fn take_range(&mut self, first: u32, last: u32) -> Vec<(u32, u32)> {
        let mut taken = Vec::new();
        while let Some((begin, end)) =
            self.ranges.range(..=last).next_back().map(|(begin, end)| (*begin, *end))
        {
            if end < first {
                break;
            }
            self.ranges.remove(&begin);
            if begin < first {
                self.ranges.insert(begin, first - 1);
            }
            if end > last {
                self.ranges.insert(last + 1, end);
            }
            let piece = (begin.max(first), end.min(last));
            self.count -= piece.1 - piece.0 + 1;
            taken.push(piece);
        }
        taken
    }

    /// Takes out everything, or what is also in `some`.
    pub(crate) fn take(&mut self, some: Option<&IndexSet>) -> Self {
        let Some(some) = some else { return std::mem::take(self) };
        let mut taken = Self::default();
        for (first, last) in some.ranges() {
            for (first, last) in self.take_range(*first, *last) {
                taken.insert_range(first, last);
            }
        }
        taken
    }

    /// Takes in all of another set.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (first, last) in &other.ranges {
            self.insert_range(*first, *last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_a_set(steps in prop::collection::vec((any::<bool>(), 0_u32..40, 0_u32..8), 1..80)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (add, first, more) in steps {
                let last = first + more;
                if add {
                    if (first..=last).all(|index| !model.contains(&index)) {
                        ranges.insert_range(first, last);
                        model.extend(first..=last);
                    }
                } else {
                    let taken: BTreeSet<u32> = ranges
                        .take_range(first, last)
                        .into_iter()
                        .flat_map(|(first, last)| first..=last)
                        .collect();
                    let expected: BTreeSet<u32> = model.range(first..=last).copied().collect();
                    prop_assert_eq!(&taken, &expected);
                    model.retain(|index| !expected.contains(index));
                }
                prop_assert_eq!(ranges.iter().collect::<BTreeSet<_>>(), model.clone());
                prop_assert_eq!(ranges.count() as usize, model.len());
                prop_assert_eq!(ranges.first(), model.first().copied());
                let adjacent = ranges.ranges.iter().zip(ranges.ranges.iter().skip(1));
                prop_assert!(adjacent.into_iter().all(|((_, end), (begin, _))| end + 1 < *begin));
            }
        }
    }
}
