//! What a setting means, what it is, and which layer says so.
//!
//! The shipped file is the document: a key's comment there is its explanation, and its value the
//! default, or an example where the line is commented out.

use toml::{Table, Value};

use crate::layers::{Layer, Override};
use crate::load::{Settings, SettingsError};
use crate::nearest::nearest;

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The key.
    pub key: String,
    /// The daemon whose setting it is.
    pub of: &'static str,
    /// What it means.
    pub meaning: String,
    /// The value that counts; nothing where it is not set and has no default.
    pub value: Option<String>,
    /// Which layer says so.
    pub from: Layer,
    /// What each layer says, the weakest first.
    pub layers: Vec<(Layer, Option<String>)>,
    /// An example, where there is no default.
    pub example: Option<String>,
}

/// A key as the shipped file describes it.
struct Described {
    key: String,
    meaning: String,
    value: Option<String>,
    /// Whether the line counts, and is no example.
    counts: bool,
}

/// Explains a key, with a file's text, that of the site's file below it where there is one, and what is
/// set beside both.
///
/// # Errors
/// Where there is no such key, or the file cannot be read as TOML.
pub fn explain<T: Settings>(
    key: &str,
    (path, text): (&str, &str),
    site: Option<(&str, &str)>,
    overrides: &[Override],
) -> Result<Explained, SettingsError> {
    let known = T::KEYS.iter().any(|one| fits(one, key));
    if !known {
        let hint = match nearest(key, T::KEYS.iter().copied()) {
            Some(near) => format!("did you mean {near}"),
            None => format!("there are {}", T::KEYS.join(", ")),
        };
        let reason = format!("there is no setting {key:?} of the {}; {hint}", T::NAME);
        return Err(SettingsError::Value { path: path.to_owned(), reason });
    }
    // What is wrong with the file is said with its place.
    crate::load::parse::<T>(path, text)?;
    if let Some((path, text)) = site {
        crate::load::parse::<T>(path, text)?;
    }
    let table: Table = toml::from_str(text).unwrap_or_default();
    let below: Table = site.and_then(|(_, text)| toml::from_str(text).ok()).unwrap_or_default();
    let described = describe(T::FILE);
    let own = described.iter().find(|one| fits(&one.key, key));
    let or_near = own.or_else(|| {
        let parent = key.rsplit_once('.').map_or("", |(parent, _)| parent);
        let child =
            |one: &&Described| one.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        described.iter().find(|one| fits(&one.key, parent)).or_else(|| described.iter().find(child))
    });
    let (shown, counts) = own.map_or((None, false), |one| (one.value.clone(), one.counts));
    // The name of a node is everybody's own.
    let counts = counts && key != "node";
    let beside = |layer| {
        let found = overrides.iter().rev().find(|one| one.layer == layer && one.key == key);
        found.map(|one| one.text.clone())
    };
    let layers = vec![
        (Layer::Default, shown.clone().filter(|_| counts)),
        (Layer::Site, look_up(&below, key).map(ToString::to_string)),
        (Layer::File, look_up(&table, key).map(ToString::to_string)),
        (Layer::Environment, beside(Layer::Environment)),
        (Layer::Flag, beside(Layer::Flag)),
    ];
    let strongest = layers.iter().rev().find(|(_, value)| value.is_some());
    let (from, value) = strongest.cloned().unwrap_or((Layer::Default, None));
    Ok(Explained {
        key: key.to_owned(),
        of: T::NAME,
        meaning: or_near.map_or_else(String::new, |one| one.meaning.clone()),
        value,
        from,
        layers,
        example: shown.filter(|_| !counts),
    })
}

/// Whether a key is the one of a pattern, in which `NAME` stands for what people choose.
fn fits(pattern: &str, key: &str) -> bool {
    let (mut parts, mut others) = (pattern.split('.'), key.split('.'));
    loop {
        match (parts.next(), others.next()) {
            (None, None) => return true,
            (Some("NAME"), Some(_)) | (Some(_), Some("NAME")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

fn look_up<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value)
}

/// Reads a shipped file as a document.
fn describe(file: &str) -> Vec<Described> {
    let (mut all, mut meaning, mut ended): (Vec<Described>, Vec<&str>, bool) =
        (Vec::new(), Vec::new(), true);
    let mut prefix = String::new();
    for line in file.lines() {
        let bare =
            line.strip_prefix('#').map_or(line, |rest| rest.strip_prefix(' ').unwrap_or(rest));
        let counts = !line.starts_with('#');
        let header =
            bare.trim_start_matches('[').split(']').next().filter(|_| bare.starts_with('['));
        if let Some(name) = header {
            let name = name.replace("research", "NAME");
            all.push(Described {
                key: name.clone(),
                meaning: meaning.join(" "),
                value: None,
                counts: false,
            });
            prefix = format!("{name}.");
            ended = true;
        } else if let Some((key, value)) = assignment(bare) {
            let (value, beside) = value.split_once(" # ").unwrap_or((value, ""));
            let beside = beside.trim();
            let meaning = if beside.is_empty() { meaning.join(" ") } else { beside.to_owned() };
            let value = Some(value.trim().to_owned());
            all.push(Described { key: format!("{prefix}{key}"), meaning, value, counts });
            ended = true;
        } else if line.is_empty() {
            ended = true;
        } else if !bare.is_empty() {
            if std::mem::take(&mut ended) {
                meaning.clear();
            }
            meaning.push(bare.trim());
        }
    }
    all
}

/// `key = value`, where a line is one.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ").or_else(|| {
        // Aligned in a column.
        let (key, value) = line.split_once('=')?;
        Some((key, value.trim_start()))
    })?;
    let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == '-';
    let key = key.trim();
    (!key.is_empty() && key.chars().all(plain)).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentSettings, SchedulerSettings};

    fn every_key_is_described<T: Settings>() {
        for key in T::KEYS {
            let found = explain::<T>(key, ("x.toml", ""), None, &[]).unwrap();
            assert!(!found.meaning.is_empty(), "{key} of the {} has no comment", T::NAME);
            let shown = found.value.or(found.example);
            let table =
                ["licences", "groups", "health", "alert"].contains(key) || key.contains('.');
            assert!(shown.is_some() || table, "{key} has neither a default nor an example");
        }
    }

    #[test]
    fn the_shipped_files_describe_every_key() {
        every_key_is_described::<SchedulerSettings>();
        every_key_is_described::<AgentSettings>();
    }

    #[test]
    fn the_strongest_layer_counts_and_all_are_told() {
        let flag = |text: &str| Override::flag(text).unwrap();
        let environment = Override { layer: Layer::Environment, ..flag("node_timeout=20s") };
        for (text, beside, value, from) in [
            ("", vec![], "\"6s\"", Layer::Default),
            ("node_timeout = \"9s\"", vec![], "\"9s\"", Layer::File),
            ("node_timeout = \"9s\"", vec![environment.clone()], "20s", Layer::Environment),
            ("", vec![environment, flag("node_timeout=30s")], "30s", Layer::Flag),
        ] {
            let found =
                explain::<SchedulerSettings>("node_timeout", ("s.toml", text), None, &beside)
                    .unwrap();
            assert_eq!((found.value.as_deref(), found.from), (Some(value), from), "{text}");
            assert_eq!(found.layers.len(), 5);
            assert!(found.meaning.starts_with("How long a node may be away"), "{}", found.meaning);
        }
        let group = "[groups.chest]\nweight = 7";
        let found =
            explain::<SchedulerSettings>("groups.chest.weight", ("s.toml", group), None, &[])
                .unwrap();
        assert_eq!(found.value.as_deref(), Some("7"));
        let site = Some(("/etc/s.toml", "node_timeout = \"8s\""));
        let explained = |text| {
            explain::<SchedulerSettings>("node_timeout", ("s.toml", text), site, &[]).unwrap()
        };
        assert_eq!(explained("").from, Layer::Site);
        assert_eq!(explained("node_timeout = \"9s\"").value.as_deref(), Some("\"9s\""));
        let found = explain::<AgentSettings>("node", ("a.toml", ""), None, &[]).unwrap();
        assert_eq!((found.value, found.example.as_deref()), (None, Some("\"cpu-1\"")));
    }

    #[test]
    fn a_key_that_there_is_not_gets_the_nearest() {
        let error =
            explain::<SchedulerSettings>("nodetimeout", ("s.toml", ""), None, &[]).unwrap_err();
        assert!(error.to_string().ends_with("did you mean node_timeout"), "{error}");
        let error =
            explain::<SchedulerSettings>("listen", ("s.toml", "listen = "), None, &[]).unwrap_err();
        assert!(error.to_string().starts_with("s.toml:1:"), "{error}");
    }
}
