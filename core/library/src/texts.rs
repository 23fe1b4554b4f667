//! Texts: what a person has written of a series, its report, and which series are written of with
//! certain words.
//!
//! A text is an object of the library like an image, and stands in nothing else: it tells of a
//! patient, so no scheduler, log or file name ever holds a word of it. A search reads them all, which
//! is one read of some kilobytes for each; it keeps nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::at_once::at_once;
use crate::error::LibraryError;
use crate::ids::{ObjectHash, PatientKey, SeriesId, TextId};
use crate::limits::{GETS_MAX, REASON_CHARACTERS_MAX, TEXT_BYTES_MAX};
use crate::ranking::{Ranking, words};
use crate::root::{Library, now_ms};

/// Characters of a text that are shown of what was found: a line.
const EXTRACT_CHARACTERS: usize = 80;
/// Of these so many stand before the first word that was looked for.
const EXTRACT_BEFORE: usize = 24;

/// A text that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextRecord {
    /// Its id.
    pub id: TextId,
    /// The series that it is written of.
    pub series: SeriesId,
    /// Whose that is.
    pub patient: PatientKey,
    /// Its bytes, which are UTF-8.
    pub object: ObjectHash,
    /// Who has written it.
    pub by: String,
    /// When it was kept.
    pub created_ms: u64,
}

/// A series that is written of with the words that were looked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextMatch {
    /// The series.
    pub series: SeriesId,
    /// Its text.
    pub text: TextId,
    /// How well it fits; larger is better. It compares within one search only.
    pub score: f64,
    /// Some of the text, around the first word that was looked for.
    pub extract: String,
}

impl Library {
    /// Keeps what a person has written of a series. The same text of the same series is kept once.
    ///
    /// # Errors
    /// Where the series is unknown, the text has no words or is longer than a mebibyte, nobody is named,
    /// or the storage is full or fails.
    pub fn add_text(
        &self,
        series: &SeriesId,
        text: &str,
        by: &str,
    ) -> Result<TextId, LibraryError> {
        let record = self.series_record(series)?;
        if words(text).next().is_none() {
            return Err(LibraryError::Invalid(
                "the text has no words; name a file with the report as plain text".to_owned(),
            ));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(LibraryError::Invalid(format!(
                "the text has {} bytes, over the limit of {TEXT_BYTES_MAX}; keep the report alone",
                text.len()
            )));
        }
        if by.is_empty() || by.chars().count() > REASON_CHARACTERS_MAX {
            return Err(LibraryError::Invalid(format!(
                "a text has an author of 1 to {REASON_CHARACTERS_MAX} characters; name who has written it"
            )));
        }
        let object = self.put_object(text.as_bytes())?;
        let id = TextId::of(&[series.as_str().as_bytes(), object.as_str().as_bytes()]);
        let record = TextRecord {
            id: id.clone(),
            series: series.clone(),
            patient: record.patient,
            object,
            by: by.to_owned(),
            created_ms: now_ms(),
        };
        self.records().create(&format!("texts/{id}.json"), &record)?;
        Ok(id)
    }

    /// Every text's record, in the order of their ids.
    ///
    /// # Errors
    /// Where a record is damaged.
    pub fn texts(&self) -> Result<Vec<TextRecord>, LibraryError> {
        self.records().read_all("texts")
    }

    /// What a text says.
    ///
    /// # Errors
    /// Where it is missing or damaged.
    pub fn text(&self, record: &TextRecord) -> Result<String, LibraryError> {
        let bytes = self.read_object(&record.object)?;
        String::from_utf8(bytes).map_err(|_| {
            LibraryError::damaged(&self.objects().place(&record.object), "it is no UTF-8 text")
        })
    }

    /// The series that are written of with the words of a query, best first; ties in the order of
    /// their series. A series with several texts is one, at its best. A series whose texts have none of
    /// the words is not among them.
    ///
    /// # Errors
    /// Where the query has no words, or a record or a text is damaged.
    pub fn texts_like(&self, query: &str, count: usize) -> Result<Vec<TextMatch>, LibraryError> {
        let wanted: Vec<String> = words(query).collect();
        if wanted.is_empty() {
            return Err(LibraryError::Invalid(
                "there are no words to look for; write some, as in a report".to_owned(),
            ));
        }
        let records = self.texts()?;
        let texts = at_once(&records, GETS_MAX, |record| self.text(record))?;
        let ranking = Ranking::of(texts.iter().map(String::as_str));
        let mut best: BTreeMap<&SeriesId, (f64, usize)> = BTreeMap::new();
        for (place, score) in ranking.scores(&wanted) {
            let known = best.entry(&records[place].series).or_insert((score, place));
            if score > known.0 {
                *known = (score, place);
            }
        }
        let mut found: Vec<(&SeriesId, (f64, usize))> = best.into_iter().collect();
        found.sort_by(|(a, (one, _)), (b, (other, _))| other.total_cmp(one).then(a.cmp(b)));
        let taken = found.into_iter().take(count);
        let taken = taken.map(|(series, (score, place))| TextMatch {
            series: series.clone(),
            text: records[place].id.clone(),
            score,
            extract: extract(&texts[place], &wanted),
        });
        Ok(taken.collect())
    }
}

/// Some of a text around the first word that is wanted, in one line.
fn extract(text: &str, wanted: &[String]) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let has = |part: &&str| words(part).any(|word| wanted.contains(&word));
    let first = line.iter().position(has).unwrap_or(0);
    let characters = |part: &str| part.chars().count() + 1;
    let mut begin = first;
    let mut before = 0;
    while begin > 0 && before + characters(line[begin - 1]) <= EXTRACT_BEFORE {
        begin -= 1;
        before += characters(line[begin]);
    }
    let shown: String = line[begin..].join(" ").chars().take(EXTRACT_CHARACTERS).collect();
    if begin > 0 { format!("… {shown}") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extract_shows_the_word_in_its_line() {
        let text = "CT of the chest.\n\nSmall nodule in the right lung, no effusion.";
        let of = |word: &str| extract(text, &[word.to_owned()]);
        assert_eq!(of("nodule"), "CT of the chest. Small nodule in the right lung, no effusion.");
        assert_eq!(of("effusion"), "… in the right lung, no effusion.");
        assert_eq!(of("absent"), "CT of the chest. Small nodule in the right lung, no effusion.");
        assert!(
            extract(&"word ".repeat(99), &["word".into()]).chars().count() <= EXTRACT_CHARACTERS
        );
    }
}
