//! How well texts fit words: BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance
//! Framework: BM25 and Beyond", section 3).
//!
//! A word counts the more the fewer texts have it, each further time it stands in a text counts less
//! than the one before, and a long text needs it more often than a short one. A word that most texts
//! have would count against them in the original; 1 is added within the logarithm so that none does.
//! Words are runs of letters and digits, without case; nothing is stemmed, so that what is found has
//! the very words.

use std::collections::BTreeMap;

/// How soon a word's further times stop to count.
const K1: f64 = 1.2;
/// How much the length of a text counts.
const B: f64 = 0.75;

/// The words of a text, in lower case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// Texts by their words.
pub(crate) struct Ranking {
    /// How many words each text has.
    lengths: Vec<usize>,
    /// The texts that have a word, and how often.
    of_word: BTreeMap<String, Vec<(usize, u32)>>,
}

impl Ranking {
    pub(crate) fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self { lengths: Vec::new(), of_word: BTreeMap::new() };
        for (place, text) in texts.enumerate() {
            let mut length = 0;
            for word in words(text) {
                length += 1;
                let texts = all.of_word.entry(word).or_default();
                match texts.last_mut() {
                    Some((last, times)) if *last == place => *times += 1,
                    _ => texts.push((place, 1)),
                }
            }
            all.lengths.push(length);
        }
        all
    }

    /// The texts that have any of these words, by their places, each with how well it fits. A word
    /// that is named twice counts twice.
    pub(crate) fn scores(&self, wanted: &[String]) -> BTreeMap<usize, f64> {
        let count = self.lengths.len() as f64;
        let mean = self.lengths.iter().sum::<usize>() as f64 / count.max(1.0);
        let mut scores = BTreeMap::new();
        for texts in wanted.iter().filter_map(|word| self.of_word.get(word)) {
            let having = texts.len() as f64;
            let rarity = (1.0 + (count - having + 0.5) / (having + 0.5)).ln();
            for &(place, times) in texts {
                let (times, length) = (f64::from(times), self.lengths[place] as f64);
                let damped = times * (K1 + 1.0) / (K1 * (1.0 - B + B * length / mean) + times);
                *scores.entry(place).or_insert(0.0) += rarity * damped;
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three texts of 4, 3 and 5 words: 4 in the mean.
    const TEXTS: [&str; 3] =
        ["Small nodule, right lung.", "NODULE; nodule left", "Both lungs are quite clear"];

    fn scores(query: &str) -> Vec<(usize, f64)> {
        let wanted: Vec<String> = words(query).collect();
        Ranking::of(TEXTS.into_iter()).scores(&wanted).into_iter().collect()
    }

    fn check(query: &str, expected: &[(usize, f64)]) {
        let found = scores(query);
        assert_eq!(found.len(), expected.len(), "{query}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.0, expected.0, "{query}");
            assert!((found.1 - expected.1).abs() < 1e-6, "{query}: {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn scores_are_those_that_were_worked_out_by_hand() {
        // Two of three have it: ln(1 + 1.5 / 2.5) = ln 1.6 = 0.470004.
        // Text 0 once, of mean length: 1 × 2.2 / (1.2 × 1 + 1) = 1.
        // Text 1 twice, of 3 words: 2 × 2.2 / (1.2 × (0.25 + 0.75 × 3 / 4) + 2) = 4.4 / 2.975 = 1.478992.
        check("nodule", &[(0, 0.470_004), (1, 0.695_132)]);
        // One of three: ln(1 + 2.5 / 1.5) = 0.980829, on top of the word before.
        check("nodule right", &[(0, 1.450_833), (1, 0.695_132)]);
        // Of 5 words: 2.2 / (1.2 × (0.25 + 0.75 × 5 / 4) + 1) = 2.2 / 2.425 = 0.907216, × 0.980829.
        check("CLEAR", &[(2, 0.889_824)]);
        check("clear clear", &[(2, 1.779_648)]);
        check("absent", &[]);
    }

    #[test]
    fn words_are_letters_and_digits_without_case() {
        let all: Vec<String> = words("Rundherd (4,2 mm) im Oberlappen – ÖDEM").collect();
        assert_eq!(all, ["rundherd", "4", "2", "mm", "im", "oberlappen", "ödem"]);
        assert_eq!(words(" .,;\n").next(), None);
        assert!(Ranking::of(std::iter::empty()).scores(&["a".to_owned()]).is_empty());
    }
}
