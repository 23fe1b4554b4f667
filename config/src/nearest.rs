//! Did you mean: the word of a list that one has probably mistyped.

/// The nearest of some words: with few letters changed, missing, doubled or swapped, and of several
/// equally near ones the first in the alphabet.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters: two words that share less were not meant for one another.
    let most = (word.chars().count() / 3).clamp(1, 3);
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|one| (strsim::damerau_levenshtein(&lower, &one.to_lowercase()), one))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, one)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_probably_meant() {
        let known = ["gpu-1", "gpu-12", "cpu-1", "dgx-01", "listen"];
        for (word, expected) in [
            ("gpu1", Some("gpu-1")),
            ("GPU-1", Some("gpu-1")),
            ("dxg-01", Some("dgx-01")),
            ("lisen", Some("listen")),
            ("storage", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
