//! What a structured report says (PS3.3 C.17.3), as text that people read and searches find words in.

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::read;
use super::refusal::{Reason, Refusal};

/// How deep content items may lie within each other.
const DEPTH_MAX: usize = 64;

/// Returns the content items of a structured report in their order, one on a line: texts, codes by their
/// meaning, and numbers with their units, each after the name of its concept. Names of people, dates,
/// UIDs and references are left out.
///
/// # Errors
/// Where the instance is no structured report, or its items lie too deep.
pub fn report_text(bytes: &[u8]) -> Result<String, Refusal> {
    let file = read::parse(bytes)?;
    if value_type(&file) != "CONTAINER" {
        return Err(Refusal::new(Reason::Malformed, "the instance is no structured report"));
    }
    let mut lines = Vec::new();
    read::guarded(|| add(&file, 0, &mut lines))?;
    Ok(lines.join("\n"))
}

/// Adds what a content item says, and then what those within it say.
fn add(item: &InMemDicomObject, depth: usize, lines: &mut Vec<String>) -> Result<(), Refusal> {
    if depth > DEPTH_MAX {
        let sentence = format!("the report's items lie deeper than {DEPTH_MAX} levels");
        return Err(Refusal::new(Reason::TooLarge, sentence));
    }
    let concept = meaning(item, tags::CONCEPT_NAME_CODE_SEQUENCE);
    let value = match value_type(item).as_str() {
        "CONTAINER" => Some(String::new()),
        "TEXT" => read::text(item, tags::TEXT_VALUE),
        "CODE" => meaning(item, tags::CONCEPT_CODE_SEQUENCE),
        "NUM" => measured(item),
        _ => None,
    };
    if let Some(value) = value {
        let parts = [concept.unwrap_or_default(), value.trim().to_owned()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if !parts.is_empty() {
            lines.push(parts.join(": "));
        }
    }
    read::items(item, tags::CONTENT_SEQUENCE)
        .iter()
        .try_for_each(|within| add(within, depth + 1, lines))
}

fn value_type(item: &InMemDicomObject) -> String {
    read::text(item, tags::VALUE_TYPE).unwrap_or_default().trim().to_owned()
}

/// What the code in a sequence means.
fn meaning(item: &InMemDicomObject, sequence: dicom_core::Tag) -> Option<String> {
    let code = read::items(item, sequence).first()?;
    Some(read::text(code, tags::CODE_MEANING)?.trim().to_owned())
}

/// A number and its unit.
fn measured(item: &InMemDicomObject) -> Option<String> {
    let measured = read::items(item, tags::MEASURED_VALUE_SEQUENCE).first()?;
    let number = read::text(measured, tags::NUMERIC_VALUE)?;
    let unit = meaning(measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE).unwrap_or_default();
    Some(format!("{} {unit}", number.trim()))
}
