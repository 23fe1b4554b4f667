//! From a file to settings, or to a sentence with line and column.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::layers;
use crate::nearest::nearest;

/// Settings that a file can hold.
pub trait Settings: DeserializeOwned {
    /// The daemon whose settings they are.
    const NAME: &'static str;

    /// The commented default file.
    const FILE: &'static str;

    /// Every key, with its table before a point, for the did-you-mean.
    const KEYS: &'static [&'static str];

    /// What is wrong with values that are well formed one by one.
    ///
    /// # Errors
    /// With a sentence that says what to change.
    fn validate(&self) -> Result<(), String>;
}

/// What is wrong with a settings file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("reading the settings {path} failed: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The text is wrong at a place.
    #[error("{path}:{line}:{column}: {reason}")]
    Text {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A value cannot be used.
    #[error("{path}: {reason}")]
    Value {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// The settings files of the package's daemons, each with the site's file that counts below it.
const SITES: [(&str, &str); 2] = [
    ("/var/lib/gantry/scheduler/scheduler.toml", "/etc/gantry/scheduler.toml"),
    ("/var/lib/gantry/agent/agent.toml", "/etc/gantry/agent.toml"),
];

/// The site's file below a settings file; nothing for a daemon in a folder of its own, which a file in
/// `/etc` has no say in.
#[must_use]
pub fn site_of(path: &Path) -> Option<&'static Path> {
    let found = SITES.iter().find(|(own, _)| path == Path::new(own));
    found.map(|(_, site)| Path::new(*site))
}

/// Reads settings from a file, the site's below it ([`site_of`]), and what the environment and the
/// command line of this process set beside both ([`crate::layers`]); a file that is not there stands for
/// the defaults.
///
/// # Errors
/// Where the file cannot be read, or something is wrong.
pub fn load_file<T: Settings>(path: &Path) -> Result<T, SettingsError> {
    let (name, text) = read_file(path)?;
    parse::<T>(&name, &text)?;
    let site = read_site(path)?;
    if let Some((name, text)) = &site {
        parse::<T>(name, text)?;
    }
    let site = site.map_or_else(String::new, |(_, text)| text);
    let settings: T = layers::over(&site, &text, &layers::overrides::<T>()?)?;
    settings.validate().map_err(|reason| SettingsError::Value { path: name, reason })?;
    Ok(settings)
}

/// A settings file's name and text; none where it is not there.
///
/// # Errors
/// Where it cannot be read.
pub fn read_file(path: &Path) -> Result<(String, String), SettingsError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((name, String::new())),
        Err(error) => Err(SettingsError::Read { path: name, reason: error.to_string() }),
    }
}

/// The name and the text of the site's file below a settings file; nothing where there is none.
///
/// # Errors
/// Where it cannot be read.
pub fn read_site(path: &Path) -> Result<Option<(String, String)>, SettingsError> {
    site_of(path).map(read_file).transpose()
}

/// Reads settings from text that came from `path`.
///
/// # Errors
/// Where the text is wrong, with line and column.
pub fn load<T: Settings>(path: &str, text: &str) -> Result<T, SettingsError> {
    let settings: T = parse(path, text)?;
    settings.validate().map_err(|reason| SettingsError::Value { path: path.to_owned(), reason })?;
    Ok(settings)
}

/// Reads settings without a look at what their values come to.
pub(crate) fn parse<T: Settings>(path: &str, text: &str) -> Result<T, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = &text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let reason = explain_mistake(error.message(), T::KEYS);
        SettingsError::Text { path: path.to_owned(), line, column, reason }
    })
}

/// Adds the nearest key to a message about an unknown one.
pub(crate) fn explain_mistake(message: &str, keys: &[&'static str]) -> String {
    let first = message.lines().next().unwrap_or_default().to_owned();
    let Some(unknown) =
        first.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
    else {
        return first;
    };
    let last = |key: &'static str| key.rsplit('.').next().unwrap_or_default();
    let near = nearest(unknown, keys.iter().copied().map(last));
    match near.and_then(|near| keys.iter().find(|key| last(key) == near)) {
        Some(key) => format!("there is no setting {unknown:?}; did you mean {key:?}"),
        None => format!("there is no setting {unknown:?}; there are {}", keys.join(", ")),
    }
}
