//! `gantry config`: what the settings of the daemons are, and where each comes from.
//!
//! default < site < file < environment < flag, as [`gantry_config::layers`] has them. The environment is
//! that of this command: a daemon under systemd has the one of its unit.

mod import;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use gantry_config::layers::{self, Layer};
use gantry_config::{
    AgentSettings, Explained, SchedulerSettings, Settings, SettingsError, explain, load_file,
    nearest, read_file, read_site, site_of,
};
use serde_json::{Value, json};

use super::client::{DEFAULT_FOLDER, Reach};
use super::completions;
use super::daemons::{AGENT_FOLDER, Flags};
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// `gantry config`.
#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

/// What is wanted of settings.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what a key means, what it is, and which layer says so.
    Explain {
        /// The key, with its table before a point.
        #[arg(add = completions::settings())]
        key: String,
        #[command(flatten)]
        place: Place,
    },
    /// List every key with its value and the layer that says so.
    List(Place),
    /// Read the settings as the daemon would, and say what is wrong.
    Check(Place),
    /// Make settings of what a slurm.conf says of nodes, partitions, accounts and licences.
    Import(import::Import),
}

/// Whose settings.
#[derive(Debug, Args)]
struct Place {
    /// Whose settings; both daemons' where nothing is said.
    #[arg(long, value_enum, value_name = "DAEMON")]
    of: Option<Daemon>,
    /// The daemon's folder, where its settings file is; needs --of.
    #[arg(long, value_name = "DIR", requires = "of")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

/// The daemons that have settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Daemon {
    /// The scheduler.
    Scheduler,
    /// The agent of a node.
    Agent,
}

impl Daemon {
    const ALL: [Self; 2] = [Self::Scheduler, Self::Agent];

    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Scheduler => SchedulerSettings::KEYS,
            Self::Agent => AgentSettings::KEYS,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Scheduler => SchedulerSettings::NAME,
            Self::Agent => AgentSettings::NAME,
        }
    }

    fn explain(self, key: &str, file: &Path) -> Result<Explained, Failure> {
        fn of<T: Settings>(key: &str, file: &Path) -> Result<Explained, SettingsError> {
            let (name, text) = read_file(file)?;
            let site = read_site(file)?;
            let site = site.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
            explain::<T>(key, (&name, &text), site, &layers::overrides::<T>()?)
        }
        match self {
            Self::Scheduler => of::<SchedulerSettings>(key, file),
            Self::Agent => of::<AgentSettings>(key, file),
        }
        .map_err(Failure::usage_of)
    }

    fn check(self, file: &Path) -> Result<(), SettingsError> {
        match self {
            Self::Scheduler => load_file::<SchedulerSettings>(file).map(drop),
            Self::Agent => load_file::<AgentSettings>(file).map(drop),
        }
    }
}

impl Place {
    fn daemons(&self) -> Vec<Daemon> {
        self.of.map_or_else(|| Daemon::ALL.to_vec(), |one| vec![one])
    }

    fn file(&self, daemon: Daemon, cluster: &Reach) -> PathBuf {
        let folder = self.dir.clone().unwrap_or_else(|| match daemon {
            Daemon::Scheduler => cluster.folder.clone().unwrap_or_else(|| DEFAULT_FOLDER.into()),
            Daemon::Agent => AGENT_FOLDER.into(),
        });
        folder.join(format!("{}.toml", daemon.word()))
    }
}

impl Config {
    /// Carries it out.
    ///
    /// # Errors
    /// Where there is no such key, or a file is wrong.
    pub fn run(&self, cluster: &Reach, format: Format) -> Outcome {
        let place = match &self.verb {
            Verb::Import(import) => return import.run(format),
            Verb::Explain { place, .. } | Verb::List(place) | Verb::Check(place) => place,
        };
        layers::keep_flags(place.flags.set.clone());
        match &self.verb {
            Verb::Explain { key, .. } => one(key, place, cluster, format),
            Verb::List(_) => all(place, cluster, format),
            _ => check(place, cluster, format),
        }
    }
}

fn one(key: &str, place: &Place, cluster: &Reach, format: Format) -> Outcome {
    let (daemons, mut found, mut refusal) = (place.daemons(), Vec::new(), None);
    for daemon in &daemons {
        let file = place.file(*daemon, cluster);
        match daemon.explain(key, &file) {
            Ok(explained) => found.push((explained, file)),
            Err(failure) => refusal = refusal.or(Some((*daemon, failure))),
        }
    }
    if let (true, Some((_, mut failure))) = (found.is_empty(), refusal) {
        if daemons.len() > 1 {
            let keys = Daemon::ALL.iter().flat_map(|daemon| daemon.keys().iter().copied());
            let hint = nearest(key, keys).map_or_else(
                || "gantry config list names them all".to_owned(),
                |near| format!("did you mean {near}"),
            );
            failure = Failure::usage(format!("there is no setting {key:?}; {hint}"));
        }
        return Err(failure);
    }
    let values: Vec<Value> = found.iter().map(|(one, file)| value(one, file)).collect();
    let people = || {
        let texts = found.iter().map(|(one, file)| text(one, file)).collect::<Vec<_>>();
        texts.join("\n\n")
    };
    let quiet = || {
        let shown = found.iter().filter_map(|(one, _)| one.value.clone());
        shown.collect::<Vec<_>>().join("\n")
    };
    format.print("setting", &values, people, quiet)?;
    Ok(0)
}

fn value(one: &Explained, file: &Path) -> Value {
    let layer = |(layer, value): &(Layer, Option<String>)| (layer.word().to_owned(), json!(value));
    json!({
        "key": one.key,
        "of": one.of,
        "file": file,
        "value": one.value,
        "from": one.from.word(),
        "layers": one.layers.iter().map(layer).collect::<serde_json::Map<_, _>>(),
        "variable": layers::variable(&one.key),
        "meaning": one.meaning,
        "example": one.example,
    })
}

fn text(one: &Explained, file: &Path) -> String {
    let value = one.value.clone().unwrap_or_else(|| "not set".into());
    let mut lines = vec![format!("{} of the {}: {value}", one.key, one.of), String::new()];
    for (layer, said) in &one.layers {
        let place = match layer {
            Layer::Default => String::new(),
            Layer::Site => {
                site_of(file).map_or_else(String::new, |site| site.display().to_string())
            }
            Layer::File => file.display().to_string(),
            Layer::Environment => layers::variable(&one.key),
            Layer::Flag => format!("--set {}=VALUE", one.key),
        };
        let counts = if one.value.is_some() && *layer == one.from { ">" } else { " " };
        let said = said.as_deref().unwrap_or("-");
        lines.push(format!("{counts} {:<12} {said:<16} {place}", layer.word()));
    }
    lines.push(String::new());
    lines.push(one.meaning.clone());
    if let Some(example) = &one.example {
        lines.push(format!("for example: {} = {example}", one.key));
    }
    let clean = lines.iter().map(|line| output::clean(line).trim_end().to_owned());
    clean.collect::<Vec<_>>().join("\n")
}

fn all(place: &Place, cluster: &Reach, format: Format) -> Outcome {
    let mut found = Vec::new();
    for daemon in place.daemons() {
        let file = place.file(daemon, cluster);
        for key in daemon.keys() {
            found.push((daemon.explain(key, &file)?, file.clone()));
        }
    }
    let values: Vec<Value> = found.iter().map(|(one, file)| value(one, file)).collect();
    let people = || {
        let row = |(one, _): &(Explained, PathBuf)| {
            let value = one.value.clone();
            let from = value.as_ref().map_or("", |_| one.from.word());
            vec![
                one.key.clone(),
                one.of.to_owned(),
                value.unwrap_or_else(|| "-".into()),
                from.to_owned(),
            ]
        };
        output::table(&["KEY", "OF", "VALUE", "FROM"], &found.iter().map(row).collect::<Vec<_>>())
    };
    let keys = || found.iter().map(|(one, _)| one.key.clone()).collect::<Vec<_>>().join("\n");
    format.print("settings", &values, people, keys)?;
    Ok(0)
}

fn check(place: &Place, cluster: &Reach, format: Format) -> Outcome {
    let mut fine = Vec::new();
    for daemon in place.daemons() {
        let file = place.file(daemon, cluster);
        // Where nobody says which daemon, one that has no file here is not meant.
        if place.of.is_none() && !file.exists() {
            continue;
        }
        daemon.check(&file).map_err(Failure::usage_of)?;
        fine.push(file.display().to_string());
    }
    if fine.is_empty() {
        return Err(Failure::usage(
            "there are no settings here; name the daemon's folder, as --of agent --dir DIR",
        ));
    }
    format.print(
        "checked",
        &fine,
        || format!("in order: {}", fine.join(", ")),
        || fine.join("\n"),
    )?;
    Ok(0)
}
