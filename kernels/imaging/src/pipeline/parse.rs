//! Reading a pipeline's text: every mistake found, with its line and column and what to do.

use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::catalogue::{Kind, SIGNATURES, Signature};
use super::{INPUT, NAME_CHARACTERS_MAX, Pipeline, STEPS_MAX, Step, TEXT_BYTES_MAX};
use crate::compute::Device;

/// A mistake in a pipeline's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct PipelineError {
    /// The name of the file, as the caller gave it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, in characters, counted from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Where steps can run.
const DEVICES: &[(&str, Device)] =
    &[("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda", Device::Cuda)];

/// The text, for placing mistakes in it.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    text: &'a str,
    file: &'a str,
}

impl Source<'_> {
    fn error(&self, at: usize, problem: impl fmt::Display) -> PipelineError {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        PipelineError {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: problem.to_string(),
        }
    }
}

impl Pipeline {
    /// Returns the pipeline that `text` describes, or its first mistake. `file_name` is only for
    /// the error's sentence.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, PipelineError> {
        let source = Source { text, file: file_name };
        if text.len() > TEXT_BYTES_MAX {
            let problem = format!(
                "the file has {} bytes, more than the limit of {TEXT_BYTES_MAX}",
                text.len()
            );
            return Err(source.error(0, problem));
        }
        let document = DeTable::parse(text).map_err(|error| {
            source.error(error.span().map_or(0, |span| span.start), error.message())
        })?;
        let mut top = Fields::new(source, document.get_ref(), 0..0, "a pipeline");
        let name = top.name("name", None);
        let label = top.name("label", None);
        let about = top.text("about", Some(""));
        let image = top.optional("image").then(|| top.text("image", None));
        let image_at = top.place_of("image");
        let device = top.choice("device", Some("auto"), DEVICES);
        let step_tables = top.tables("steps");
        top.finish()?;
        let mut checked = Checked { source, steps: Vec::new(), signatures: Vec::new() };
        for table in &step_tables {
            checked.add(table)?;
        }
        if !checked.signatures.iter().any(|signature| signature.makes == Kind::Mask) {
            return Err(source.error(
                step_tables.last().map_or(0, |table| table.span().start),
                "no step makes a mask, so there is no label; add one that does, such as threshold",
            ));
        }
        if let Some(image) = &image {
            checked.require(image, Kind::Image, image_at, "image")?;
        }
        Ok(Self { name, label, about, image, device, steps: checked.steps })
    }
}

/// The steps checked so far.
struct Checked<'a> {
    source: Source<'a>,
    steps: Vec<Step>,
    signatures: Vec<&'static Signature>,
}

impl Checked<'_> {
    /// Checks one step and adds it.
    fn add(&mut self, table: &Spanned<&DeTable>) -> Result<(), PipelineError> {
        let mut fields = Fields::new(self.source, table.get_ref(), table.span(), "a step");
        let what = fields.text("operation", None);
        let what_at = fields.place_of("operation");
        let Some(signature) = SIGNATURES.iter().find(|signature| signature.name == what) else {
            if let Some(error) = fields.errors.into_iter().next() {
                return Err(error);
            }
            let names = SIGNATURES.iter().map(|signature| signature.name);
            let hint = did_you_mean(&what, names);
            let problem = format!("there is no operation {what:?}{hint}");
            return Err(self.source.error(what_at, problem));
        };
        fields.of = signature.name;
        let name = fields.name("name", Some(signature.name));
        let name_at = fields.place_of("name");
        let from = fields.optional("from").then(|| fields.text("from", None));
        let takes_mask = signature.takes_mask && fields.optional("with");
        let with = takes_mask.then(|| fields.text("with", None));
        let (from_at, with_at) = (fields.place_of("from"), fields.place_of("with"));
        let operation = (signature.build)(&mut fields);
        fields.finish()?;
        if name == INPUT || self.steps.iter().any(|step| step.name == name) {
            let problem = format!(
                "there is already a {name:?}; give this step a name of its own, for example name = \
                 \"{name}_2\""
            );
            return Err(self.source.error(name_at, problem));
        }
        if let Some(from) = &from {
            self.require(from, signature.reads, from_at, "from")?;
        }
        if let Some(with) = &with {
            self.require(with, Kind::Mask, with_at, "with")?;
        }
        let mask_before = self.signatures.iter().any(|before| before.makes == Kind::Mask);
        let lacks_mask = match signature.reads {
            Kind::Mask => from.is_none() && !mask_before,
            Kind::Image => signature.name == "crop" && with.is_none() && !mask_before,
        };
        if lacks_mask {
            let problem = format!(
                "{} works on a mask, and no step before it makes one; put one that does, such as \
                 threshold, before it",
                signature.name
            );
            return Err(self.source.error(what_at, problem));
        }
        if self.steps.len() == STEPS_MAX {
            let problem = format!("more than {STEPS_MAX} steps; split the pipeline");
            return Err(self.source.error(name_at, problem));
        }
        self.steps.push(Step { name, from, with, what: signature.name, operation });
        self.signatures.push(signature);
        Ok(())
    }

    /// Returns an error unless `name` is an earlier result of the right kind.
    fn require(&self, name: &str, kind: Kind, at: usize, key: &str) -> Result<(), PipelineError> {
        let made = match self.steps.iter().position(|step| step.name == name) {
            Some(position) => self.signatures[position].makes,
            None if name == INPUT => Kind::Image,
            None => {
                let names = self.steps.iter().map(|step| step.name.as_str()).chain([INPUT]);
                let hint = did_you_mean(name, names);
                let problem =
                    format!("{key} names {name:?}, but no step before is called so{hint}");
                return Err(self.source.error(at, problem));
            }
        };
        if made == kind {
            return Ok(());
        }
        let word = |kind: Kind| if kind == Kind::Image { "an image" } else { "a mask" };
        let problem =
            format!("{key} names {name:?}, which is {}; {} is needed", word(made), word(kind));
        Err(self.source.error(at, problem))
    }
}

/// The keys and values of one table, taken out by name and kind.
///
/// Mistakes are collected, and a default stands in for what is wrong, so that reading goes on and
/// [`Fields::finish`] can report a misspelt key rather than the missing one it stands for.
pub(super) struct Fields<'a> {
    source: Source<'a>,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    of: &'static str,
    known: Vec<&'static str>,
    errors: Vec<PipelineError>,
}

impl<'a> Fields<'a> {
    fn new(
        source: Source<'a>,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        of: &'static str,
    ) -> Self {
        Self { source, table, span, of, known: Vec::new(), errors: Vec::new() }
    }

    /// Returns the first mistake: a key that nobody asked for, or else what went wrong.
    fn finish(self) -> Result<(), PipelineError> {
        let unknown = self.table.keys().find(|key| !self.known.contains(&key.get_ref().as_ref()));
        if let Some(key) = unknown {
            let hint = did_you_mean(key.get_ref(), self.known.iter().copied());
            let problem = format!("{} has no {:?}{hint}", self.of, key.get_ref());
            return Err(self.source.error(key.span().start, problem));
        }
        self.errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// Records a mistake of the table as a whole.
    pub(super) fn fail(&mut self, problem: String) {
        self.errors.push(self.source.error(self.span.start, problem));
    }

    /// Records a mistake in the value of a key.
    pub(super) fn fail_at(&mut self, name: &str, problem: String) {
        self.errors.push(self.source.error(self.place_of(name), problem));
    }

    /// Returns where the value of a key begins, or the table where there is none.
    fn place_of(&self, name: &str) -> usize {
        self.table.get(name).map_or(self.span.start, |value| value.span().start)
    }

    /// Declares keys that may be there without reading them.
    pub(super) fn accept(&mut self, names: &[&'static str]) {
        self.known.extend_from_slice(names);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Declares a key that may be left out and returns whether it is there.
    pub(super) fn optional(&mut self, name: &'static str) -> bool {
        self.accept(&[name]);
        self.has(name)
    }

    pub(super) fn has_with(&self) -> bool {
        self.has("with")
    }

    pub(super) fn require_with(&mut self, problem: &str) {
        if !self.has_with() {
            self.fail(format!("{problem}: with = \"NAME OF A STEP\""));
        }
    }

    /// Records a mistake where both of two keys are given.
    pub(super) fn exclude(&mut self, name: &'static str, other: &str) {
        self.accept(&[name]);
        if self.has(name) {
            self.fail_at(name, format!("{name} and {other} exclude each other; give one of them"));
        }
    }

    fn value(&mut self, name: &'static str, required: bool) -> Option<&'a DeValue<'a>> {
        self.accept(&[name]);
        let value = self.table.get(name).map(Spanned::get_ref);
        if value.is_none() && required {
            self.fail(format!("{} needs `{name}`", self.of));
        }
        value
    }

    fn wrong_type(&mut self, name: &str, wanted: &str, found: &DeValue) {
        self.fail_at(name, format!("{name} must be {wanted}, not {}", found.type_str()));
    }

    /// Returns a number within a range.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        default: Option<f64>,
        range: RangeInclusive<f64>,
    ) -> f64 {
        let fallback = default.unwrap_or(*range.start());
        let Some(value) = self.value(name, default.is_none()) else { return fallback };
        let Some(number) = number(value) else {
            self.wrong_type(name, "a number", value);
            return fallback;
        };
        if !range.contains(&number) {
            let (least, most) = (range.start(), range.end());
            self.fail_at(name, format!("{name} is {number}; it must lie from {least} to {most}"));
            return fallback;
        }
        number
    }

    /// Returns a whole number within a range.
    pub(super) fn count(
        &mut self,
        name: &'static str,
        default: Option<usize>,
        range: RangeInclusive<usize>,
    ) -> usize {
        let fallback = default.unwrap_or(*range.start());
        let Some(value) = self.value(name, default.is_none()) else { return fallback };
        if !value.is_integer() {
            self.wrong_type(name, "a whole number", value);
            return fallback;
        }
        let count = number(value).filter(|count| *count >= 0.0).map(|count| count as usize);
        if let Some(count) = count.filter(|count| range.contains(count)) {
            return count;
        }
        let (least, most) = (range.start(), range.end());
        self.fail_at(name, format!("{name} must lie from {least} to {most}"));
        fallback
    }

    /// Returns text.
    pub(super) fn text(&mut self, name: &'static str, default: Option<&str>) -> String {
        let fallback = default.unwrap_or_default().to_owned();
        let Some(value) = self.value(name, default.is_none()) else { return fallback };
        let Some(text) = value.as_str() else {
            self.wrong_type(name, "text in quotes", value);
            return fallback;
        };
        text.to_owned()
    }

    /// Returns a name: letters, digits, `-` and `_`.
    fn name(&mut self, name: &'static str, default: Option<&str>) -> String {
        let text = self.text(name, default);
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let sound = !text.is_empty() && text.chars().all(allowed);
        if self.has(name) && !(sound && text.len() <= NAME_CHARACTERS_MAX) {
            self.fail_at(
                name,
                format!(
                    "{name} must have 1 to {NAME_CHARACTERS_MAX} letters, digits, - or _ (no \
                     spaces)"
                ),
            );
        }
        text
    }

    /// Returns what one of several words stands for; `true` counts as a word.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        default: Option<&str>,
        choices: &[(&'static str, T)],
    ) -> T {
        let of = |word: &str| choices.iter().find(|(choice, _)| *choice == word).map(|c| c.1);
        let fallback = default.and_then(of).unwrap_or(choices[0].1);
        let Some(value) = self.value(name, default.is_none()) else { return fallback };
        let word = value.as_bool().map(|b| b.to_string()).or(value.as_str().map(str::to_owned));
        let words = choices.iter().map(|(choice, _)| *choice);
        let Some(word) = word else {
            let wanted = format!("one of {}", words.collect::<Vec<_>>().join(", "));
            self.wrong_type(name, &wanted, value);
            return fallback;
        };
        of(&word).unwrap_or_else(|| {
            let hint = did_you_mean(&word, words.clone());
            let all = words.collect::<Vec<_>>().join(", ");
            self.fail_at(name, format!("{name} is {word:?}; it must be one of {all}{hint}"));
            fallback
        })
    }

    /// Returns three numbers.
    pub(super) fn triple(&mut self, name: &'static str) -> [f64; 3] {
        let fallback = [1.0; 3];
        let Some(value) = self.value(name, true) else { return fallback };
        let numbers: Option<Vec<f64>> =
            value.as_array().and_then(|array| array.iter().map(|v| number(v.get_ref())).collect());
        match numbers.as_deref() {
            Some(&[x, y, z]) if [x, y, z].iter().all(|v| (1e-3..=1e6).contains(v)) => [x, y, z],
            _ => {
                let problem = format!("{name} must be three positive numbers, [x, y, z]");
                self.fail_at(name, problem);
                fallback
            }
        }
    }

    /// Returns rows of numbers, each of the same length.
    pub(super) fn rows(&mut self, name: &'static str, length: usize, max: usize) -> Vec<Vec<f64>> {
        let Some(value) = self.value(name, true) else { return Vec::new() };
        let row = |row: &Spanned<DeValue>| {
            let numbers: Option<Vec<f64>> =
                row.get_ref().as_array()?.iter().map(|v| number(v.get_ref())).collect();
            numbers.filter(|numbers| numbers.len() == length)
        };
        let rows: Option<Vec<Vec<f64>>> =
            value.as_array().and_then(|rows| rows.iter().map(row).collect());
        match rows {
            Some(rows) if (1..=max).contains(&rows.len()) => rows,
            _ => {
                self.fail_at(
                    name,
                    format!(
                        "{name} must be 1 to {max} rows of {length} numbers each, [[...], ...]"
                    ),
                );
                Vec::new()
            }
        }
    }

    /// Returns a coordinate of a voxel.
    pub(super) fn voxel(&mut self, name: &'static str, number: f64) -> usize {
        if number < 0.0 || number.fract() != 0.0 || number > 1e6 {
            self.fail_at(name, format!("{number} in {name} is not a whole number from 0"));
            return 0;
        }
        number as usize
    }

    /// Returns the tables of an array of tables.
    fn tables(&mut self, name: &'static str) -> Vec<Spanned<&'a DeTable<'a>>> {
        let Some(value) = self.value(name, false) else {
            self.fail(format!("{} needs steps: [[{name}]]", self.of));
            return Vec::new();
        };
        let table = |item: &'a Spanned<DeValue<'a>>| {
            item.get_ref().as_table().map(|table| Spanned::new(item.span(), table))
        };
        let tables: Option<Vec<_>> =
            value.as_array().and_then(|items| items.iter().map(table).collect());
        tables.unwrap_or_else(|| {
            self.fail_at(name, format!("{name} must be written as [[{name}]]"));
            Vec::new()
        })
    }
}

/// Returns a value as a number, if it is a finite one.
fn number(value: &DeValue) -> Option<f64> {
    let number = match value {
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).ok()? as f64
        }
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Returns a hint at the nearest known word, or at all of them.
fn did_you_mean<'w>(word: &str, known: impl Iterator<Item = &'w str> + Clone) -> String {
    let near = known
        .clone()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((likeness, candidate)) if likeness > 0.8 => format!("; did you mean {candidate:?}?"),
        _ => format!("; there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}
