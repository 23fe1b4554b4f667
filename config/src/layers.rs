//! Where a setting's value comes from: default < site < file < environment < flag.
//!
//! A daemon of the package, whose folder is below `/var/lib/gantry`, has a file of the site too, below
//! its own: `/etc/gantry` holds what is the same on every host, the daemon's folder what is its own.
//! A daemon's environment may set any key of its file (`GANTRY_SET_NODE_TIMEOUT=10s`, a point written
//! as two underscores), and its command line any key at all (`--set node_timeout=10s`). Both are
//! checked as the file is, and a mistake names what said it.

use std::sync::OnceLock;

use toml::{Table, Value};

use crate::load::{Settings, SettingsError};
use crate::nearest::nearest;

/// How a variable that sets a key begins.
pub const PREFIX: &str = "GANTRY_SET_";
/// Keys that may be set beside the file.
const OVERRIDES_MAX: usize = 256;

/// What the command line of this process has set. Settings that are read again count it again.
static FLAGS: OnceLock<Vec<Override>> = OnceLock::new();

/// Where a value comes from, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The program.
    Default,
    /// The file of the site, in `/etc/gantry`.
    Site,
    /// The settings file in the daemon's folder.
    File,
    /// A variable of the environment.
    Environment,
    /// The command line.
    Flag,
}

impl Layer {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Site => "site",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

/// A value that is set beside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The key, with its tables before points.
    pub key: String,
    /// The value as it was written.
    pub text: String,
    /// Environment or flag.
    pub layer: Layer,
}

impl Override {
    /// Reads `KEY=VALUE` of a command line.
    ///
    /// # Errors
    /// Where it has not that form.
    pub fn flag(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let (key, value) = parts.ok_or_else(|| {
            format!("{text:?} sets nothing; write --set KEY=VALUE, as --set cores=4")
        })?;
        let (key, text) = (key.trim().to_owned(), value.trim().to_owned());
        Ok(Self { key, text, layer: Layer::Flag })
    }

    /// What said it, for people.
    #[must_use]
    pub fn source(&self) -> String {
        match self.layer {
            Layer::Environment => variable(&self.key),
            _ => format!("--set {}", self.key),
        }
    }

    /// As a value of TOML: what reads as one, or a text.
    fn value(&self) -> Value {
        let read = toml::from_str::<Table>(&format!("value = {}", self.text));
        let value = read.ok().and_then(|mut table| table.remove("value"));
        value.unwrap_or_else(|| Value::String(self.text.clone()))
    }

    /// Puts it into a file's table.
    fn put_into(&self, table: &mut Table) -> Result<(), String> {
        let mut place = table;
        let mut parts: Vec<&str> = self.key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let inner = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
            place = inner
                .as_table_mut()
                .ok_or_else(|| format!("{part} of {} is no table", self.key))?;
        }
        place.insert(last.to_owned(), self.value());
        Ok(())
    }
}

/// The variable that sets a key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Keeps what the command line of this process has set, for every time that settings are read.
pub fn keep_flags(flags: Vec<Override>) {
    // The second of two command lines of one process does not exist.
    let _ = FLAGS.set(flags);
}

/// What this process's environment and command line set, in the order in which they count.
///
/// # Errors
/// Where a variable sets a key that there is not.
pub fn overrides<T: Settings>() -> Result<Vec<Override>, SettingsError> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut all = from_environment::<T>(variables)?;
    all.extend(FLAGS.get().into_iter().flatten().cloned());
    if all.len() > OVERRIDES_MAX {
        let reason =
            format!("more than {OVERRIDES_MAX} keys are set beside the file; use the file");
        return Err(SettingsError::Value { path: "the environment".into(), reason });
    }
    Ok(all)
}

/// What variables set.
pub(crate) fn from_environment<T: Settings>(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Vec<Override>, SettingsError> {
    let mut all = Vec::new();
    for (name, text) in variables.filter(|(name, _)| name.starts_with(PREFIX)) {
        let Some(key) = T::KEYS.iter().find(|key| variable(key) == name) else {
            let names: Vec<String> = T::KEYS.iter().map(|key| variable(key)).collect();
            let near = nearest(&name, names.iter().map(String::as_str));
            let hint = near.map_or_else(
                || "gantry config list names all keys".to_owned(),
                |near| format!("did you mean {near}"),
            );
            let reason = format!("sets no key of the {}; {hint}", T::NAME);
            return Err(SettingsError::Value { path: name, reason });
        };
        all.push(Override { key: (*key).to_owned(), text, layer: Layer::Environment });
    }
    all.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(all)
}

/// Puts the file over the site's, and over both what is set beside them. What is wrong with a value is
/// said of what set it; both texts are known to be sound, each by itself.
pub(crate) fn over<T: Settings>(
    site: &str,
    text: &str,
    overrides: &[Override],
) -> Result<T, SettingsError> {
    let mut table: Table = toml::from_str(text).unwrap_or_default();
    let mut settings = None;
    if !site.is_empty() {
        let below: Table = toml::from_str(site).unwrap_or_default();
        table = together(below, table);
        let read = Value::Table(table.clone()).try_into::<T>();
        settings = Some(read.map_err(|error| {
            let reason = crate::load::explain_mistake(error.message(), T::KEYS);
            SettingsError::Value { path: "both settings files together".into(), reason }
        })?);
    }
    for one in overrides {
        let wrong = |reason| SettingsError::Value { path: one.source(), reason };
        one.put_into(&mut table).map_err(wrong)?;
        let read = Value::Table(table.clone()).try_into::<T>();
        settings = Some(
            read.map_err(|error| wrong(crate::load::explain_mistake(error.message(), T::KEYS)))?,
        );
    }
    // Without an override there is nothing to put over the file.
    settings.map_or_else(|| crate::load::parse("", text), Ok)
}

/// One table over another: key by key, where both have a table of that name.
fn together(mut below: Table, above: Table) -> Table {
    for (key, value) in above {
        let value = match (below.remove(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => {
                Value::Table(together(below, above))
            }
            (_, above) => above,
        };
        below.insert(key, value);
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentSettings, SchedulerSettings};

    fn flags(all: &[&str]) -> Vec<Override> {
        all.iter().map(|text| Override::flag(text).unwrap()).collect()
    }

    #[test]
    fn a_flag_counts_before_the_environment_and_that_before_the_file() {
        let file = "node = \"a\"\ncores = 1\n[isolation]\npin = false\n";
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let set = [
            variable("GANTRY_SET_CORES", "2"),
            variable("GANTRY_SET_ISOLATION__PIN", "true"),
            variable("GANTRY_SET_GRACE", "30s"),
            variable("GANTRY_OTHER", "1"),
        ];
        let mut all = from_environment::<AgentSettings>(set.into_iter()).unwrap();
        all.extend(flags(&["cores=3", "labels=[\"nvme\"]"]));
        let settings: AgentSettings = over("", file, &all).unwrap();
        assert_eq!(settings.cores, Some(3));
        assert!(settings.isolation.pin && settings.labels.contains("nvme"));
        assert_eq!(settings.grace, gantry_model::Millis::from_seconds(30));
        let plain: AgentSettings = over("", file, &[]).unwrap();
        assert_eq!(plain.cores, Some(1));
    }

    #[test]
    fn a_daemons_own_file_counts_before_the_sites_key_by_key() {
        let site =
            "cores = 8\nlabels = [\"site=north\"]\n[isolation]\npin = true\numask = \"077\"\n";
        let own = "node = \"a\"\ncores = 4\n[isolation]\npin = false\n";
        let settings: AgentSettings = over(site, own, &[]).unwrap();
        assert_eq!((settings.node.as_str(), settings.cores), ("a", Some(4)));
        assert!(settings.labels.contains("site=north") && !settings.isolation.pin);
        assert_eq!(settings.isolation.umask, "077".parse().unwrap());
        let flagged: AgentSettings = over(site, own, &flags(&["cores=2"])).unwrap();
        assert_eq!(flagged.cores, Some(2));
    }

    #[test]
    fn a_mistake_names_what_said_it() {
        let one = |name: &str| vec![(name.to_owned(), "1".to_owned())].into_iter();
        let unknown = from_environment::<SchedulerSettings>(one("GANTRY_SET_NODE_TIMEOUTS"));
        let sentence = unknown.unwrap_err().to_string();
        assert!(sentence.ends_with("did you mean GANTRY_SET_NODE_TIMEOUT"), "{sentence}");
        for (flag, parts) in [
            ("node_timeout=soon", &["--set node_timeout", "is not a duration"][..]),
            ("lisen=1", &["--set lisen", "did you mean \"listen\""]),
            ("jobs_max.x=1", &["no table"]),
        ] {
            let found = over::<SchedulerSettings>("", "jobs_max = 1", &flags(&[flag]));
            let sentence = found.unwrap_err().to_string();
            for part in parts {
                assert!(sentence.contains(part), "{sentence} lacks {part}");
            }
        }
        for text in ["", "=1", "cores"] {
            assert!(Override::flag(text).is_err(), "{text}");
        }
    }
}
