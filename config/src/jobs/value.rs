//! The values of a job file: what TOML has them as, and what they must be.
//!
//! Every mistake names the key, says what stands there and what to write instead.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use gantry_model::{DependencyScope, Reject};
use toml::Spanned;
use toml::de::DeValue;

use super::Mistake;
use super::draft::Other;
use super::keys::in_order;
use super::kind::{Placed, Spot};
use super::text::{self, DependencyText, LicenceText, RetryCodes};

/// One key with its value.
pub(super) struct Entry<'a> {
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(key: &'a str, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { key, value }
    }

    /// The byte at which the value begins.
    pub(super) fn at(&self) -> usize {
        self.value.span().start
    }

    /// What was read, with its place.
    pub(super) fn placed<T>(&self, value: T) -> Placed<T> {
        Placed { value, spot: Spot { at: self.at(), key: self.key.to_owned() } }
    }

    /// Another value that belongs to the same key.
    fn part(&self, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { key: self.key, value }
    }

    fn wrong(&self, wanted: &str) -> Mistake {
        let found = match self.value.get_ref() {
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with decimals",
            DeValue::Boolean(_) => "true or false",
            DeValue::String(_) => "a string",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
            DeValue::Datetime(_) => "a date",
        };
        Mistake::new(self.at(), format!("{} is {wanted}, not {found}", self.key))
    }

    fn refused(&self, reject: &Reject) -> Mistake {
        self.refuse(&reject.sentence)
    }

    /// A mistake that is said of the value.
    pub(super) fn refuse(&self, reason: &str) -> Mistake {
        Mistake::new(self.at(), format!("{}: {reason}", self.key))
    }

    /// A string.
    pub(super) fn string(&self) -> Result<String, Mistake> {
        let text = self.value.get_ref().as_str().ok_or_else(|| self.wrong("a string"))?;
        Ok(text.to_owned())
    }

    /// A quantity as people write it: a string with a unit, or a bare number.
    pub(super) fn written<T: FromStr<Err = Reject>>(&self) -> Result<T, Mistake> {
        let text = match self.value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return Err(self.wrong("a string, or a bare number")),
        };
        text.parse().map_err(|reject| self.refused(&reject))
    }

    /// A word of a few that are known.
    pub(super) fn word<T: FromStr<Err = Reject>>(&self) -> Result<T, Mistake> {
        self.string()?.parse().map_err(|reject| self.refused(&reject))
    }

    /// A whole number that its place has room for.
    pub(super) fn number<T: TryFrom<i64> + Bounds>(&self) -> Result<T, Mistake> {
        let number =
            self.value.get_ref().as_integer().ok_or_else(|| self.wrong("a whole number"))?;
        let read = i64::from_str_radix(number.as_str(), number.radix());
        read.ok().and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            Mistake::new(
                self.at(),
                format!(
                    "{} is from {} to {}, not {}",
                    self.key,
                    T::LEAST,
                    T::MOST,
                    number.as_str()
                ),
            )
        })
    }

    /// A number that may have decimals.
    pub(super) fn decimal(&self) -> Result<f64, Mistake> {
        let read = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        read.filter(|number: &f64| number.is_finite()).ok_or_else(|| self.wrong("a number"))
    }

    /// One thing where it is true, another where it is false.
    pub(super) fn choice<T>(&self, yes: T, no: T) -> Result<T, Mistake> {
        let found = self.value.get_ref().as_bool();
        found.map(|found| if found { yes } else { no }).ok_or_else(|| self.wrong("true or false"))
    }

    /// A list, or one value that stands for a list of one.
    fn items(&self) -> Vec<Self> {
        match self.value.get_ref() {
            DeValue::Array(list) => list.iter().map(|value| self.part(value)).collect(),
            _ => vec![self.part(self.value)],
        }
    }

    /// A string, or a list of strings.
    pub(super) fn strings(&self) -> Result<Vec<String>, Mistake> {
        self.items().iter().map(Self::string).collect()
    }

    /// The same, each with its place.
    pub(super) fn placed_strings(&self) -> Result<Vec<Placed<String>>, Mistake> {
        self.items().iter().map(|item| item.string().map(|text| item.placed(text))).collect()
    }

    /// A program and its arguments.
    pub(super) fn command(&self) -> Result<Vec<String>, Mistake> {
        if self.value.get_ref().is_str() {
            return Err(Mistake::new(
                self.at(),
                "command is a list of the program and its arguments, as [\"python\", \"train.py\"]; write script for a line that a shell shall read",
            ));
        }
        let list =
            self.value.get_ref().as_array().ok_or_else(|| self.wrong("a list of strings"))?;
        list.iter().map(|value| self.part(value).string()).collect()
    }

    /// A scalar as text, as a variable has it.
    fn scalar(&self) -> Result<String, Mistake> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(found) => Ok(found.to_string()),
            _ => Err(self.wrong("a string or a number")),
        }
    }

    /// Variables.
    pub(super) fn environment(&self) -> Result<BTreeMap<String, String>, Mistake> {
        let table = self
            .value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.wrong("a table, as { NAME = \"value\" }"))?;
        in_order(table)
            .into_iter()
            .map(|(name, value)| {
                let name = name.get_ref().as_ref();
                let key = format!("{}.{name}", self.key);
                Ok((name.to_owned(), Entry { key: &key, value }.scalar()?))
            })
            .collect()
    }

    /// Licences: `"matlab=2"`, a list of such, or `{ matlab = 2 }`.
    pub(super) fn licences(&self) -> Result<BTreeMap<String, u32>, Mistake> {
        if let Some(table) = self.value.get_ref().as_table() {
            let count = |value| self.part(value).number::<u32>();
            return in_order(table)
                .into_iter()
                .map(|(name, value)| Ok((name.get_ref().to_string(), count(value)?)))
                .collect();
        }
        let read = |item: &Self| {
            let licence: LicenceText = item.written()?;
            Ok((licence.name, licence.count))
        };
        self.items().iter().map(read).collect()
    }

    /// Exit codes: `"1,75"` or `[1, 75]`.
    pub(super) fn codes(&self) -> Result<BTreeSet<u8>, Mistake> {
        let mut codes = BTreeSet::new();
        for item in self.items() {
            codes.extend(item.written::<RetryCodes>()?.0);
        }
        Ok(codes)
    }

    /// Dependencies: `"ok:prepare"`, `{ job = "prepare", kind = "any", elements = true }`, or a list
    /// of such.
    pub(super) fn after(&self) -> Result<Vec<Other>, Mistake> {
        let read = |item: &Self| {
            let text = match item.value.get_ref() {
                DeValue::Table(_) => item.dependency()?,
                DeValue::String(_) => item.written()?,
                _ => return Err(item.wrong("a string as \"ok:prepare\", or a table")),
            };
            Ok(Other { at: item.at(), text })
        };
        self.items().iter().map(read).collect()
    }

    fn dependency(&self) -> Result<DependencyText, Mistake> {
        let Some(table) = self.value.get_ref().as_table() else {
            return Err(self.wrong("a table"));
        };
        let mut read = DependencyText {
            job: String::new(),
            kind: gantry_model::DependencyKind::Ok,
            scope: DependencyScope::Job,
        };
        for (word, value) in in_order(table) {
            let key = format!("{}.{}", self.key, word.get_ref());
            let entry = Entry { key: &key, value };
            match word.get_ref().as_ref() {
                "job" => read.job = entry.string()?,
                "kind" => {
                    let word = entry.string()?;
                    read.kind = text::kind(&word).map_err(|reject| entry.refused(&reject))?;
                }
                "elements" => {
                    read.scope = entry.choice(DependencyScope::Element, DependencyScope::Job)?;
                }
                other => {
                    return Err(Mistake::new(
                        word.span().start,
                        format!(
                            "there is no key {other:?} of a dependency; there are job, kind and elements"
                        ),
                    ));
                }
            }
        }
        if read.job.is_empty() {
            return Err(Mistake::new(
                self.at(),
                "after: the dependency names no job; write { job = \"prepare\" }",
            ));
        }
        Ok(read)
    }
}

/// The least and the greatest number of a type, for sentences.
pub(super) trait Bounds {
    const LEAST: i64;
    const MOST: i64;
}

impl Bounds for u8 {
    const LEAST: i64 = 0;
    const MOST: i64 = u8::MAX as i64;
}

impl Bounds for u32 {
    const LEAST: i64 = 0;
    const MOST: i64 = u32::MAX as i64;
}

impl Bounds for u64 {
    const LEAST: i64 = 0;
    const MOST: i64 = i64::MAX;
}

impl Bounds for i32 {
    const LEAST: i64 = i32::MIN as i64;
    const MOST: i64 = i32::MAX as i64;
}
