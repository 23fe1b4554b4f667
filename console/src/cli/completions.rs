//! `gantry completions`: what a shell sources, and what it asks at each TAB.
//!
//! The script of a shell is a few lines that call `gantry` itself, so that what is offered is always
//! what this program takes, and what there is right now: jobs, nodes, series, models. A scheduler
//! that does not answer within a moment offers nothing; a TAB must not hang.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use gantry_config::{AgentSettings, SchedulerSettings, Settings};
use gantry_library::Library;

use super::client::{Client, Reach};
use super::nouns;
use crate::error::{Failure, Outcome};
use crate::output;

/// The variable with which a script says that it asks.
const VARIABLE: &str = "GANTRY_COMPLETE";
/// How long a TAB waits for the scheduler.
const WITHIN: Duration = Duration::from_millis(1500);

/// The shells that have a script.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    /// Put `source <(gantry completions bash)` into ~/.bashrc.
    Bash,
    /// Put `source <(gantry completions zsh)` into ~/.zshrc.
    Zsh,
    /// Put `gantry completions fish | source` into ~/.config/fish/config.fish.
    Fish,
    /// Put `eval (gantry completions elvish | slurp)` into ~/.elvish/rc.elv.
    Elvish,
}

impl Shell {
    const fn word(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Elvish => "elvish",
        }
    }
}

/// `gantry completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// Where standard output fails.
    pub fn run(&self) -> Outcome {
        let shells = Shells::builtins();
        let word = self.shell.word();
        let shell = shells
            .completer(word)
            .ok_or_else(|| Failure::trouble(format!("there is no script for {word}")))?;
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "gantry", "gantry", "gantry", &mut script)?;
        output::raw(&script).map(|()| 0)
    }
}

/// Answers a script that asks, which is known by [`VARIABLE`]; says whether there was one.
pub(super) fn answer() -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let folder = std::env::current_dir().ok();
    let complete = CompleteEnv::with_factory(nouns::command).var(VARIABLE).bin("gantry");
    // A script can do nothing about an error but offer nothing.
    complete.try_complete(std::env::args_os(), folder.as_deref()).unwrap_or(true)
}

/// Jobs, the newest first, each with its name and state.
pub(super) fn jobs() -> ArgValueCompleter {
    offer(|| {
        let ask = |client: Client| client.newest_jobs().ok();
        let rows = ask_soon(ask).unwrap_or_default();
        let row = |row: &gantry_model::JobRow| {
            (row.job.to_string(), format!("{} {}", row.name, row.state.word()))
        };
        rows.iter().map(row).collect()
    })
}

/// Nodes by name.
pub(super) fn nodes() -> ArgValueCompleter {
    offer(|| named(ask_soon(|client| client.node_names().ok()).unwrap_or_default()))
}

/// Series of the library, each with its modality.
pub(super) fn series() -> ArgValueCompleter {
    offer(|| {
        let all = library().and_then(|library| library.series().ok()).unwrap_or_default();
        all.into_iter().map(|record| (record.id.to_string(), record.modality)).collect()
    })
}

/// Samples of the library, each with its label.
pub(super) fn samples() -> ArgValueCompleter {
    offer(|| {
        let all = library().and_then(|library| library.samples().ok()).unwrap_or_default();
        all.into_iter().map(|record| (record.id.to_string(), record.label)).collect()
    })
}

/// Models of the library, each with its name.
pub(super) fn models() -> ArgValueCompleter {
    offer(|| {
        let all = library().and_then(|library| library.models().ok()).unwrap_or_default();
        all.into_iter().map(|record| (record.id.to_string(), record.name)).collect()
    })
}

/// Pipelines that are shipped.
pub(super) fn pipelines() -> ArgValueCompleter {
    offer(|| named(gantry_config::PIPELINES.iter().map(|(name, _)| (*name).to_owned()).collect()))
}

/// Settings of the daemons.
pub(super) fn settings() -> ArgValueCompleter {
    offer(|| {
        let of = |role: &'static str, keys: &[&'static str]| {
            keys.iter().map(|key| ((*key).to_owned(), role.to_owned())).collect::<Vec<_>>()
        };
        [of("scheduler", SchedulerSettings::KEYS), of("agent", AgentSettings::KEYS)].concat()
    })
}

fn named(names: Vec<String>) -> Vec<(String, String)> {
    names.into_iter().map(|name| (name, String::new())).collect()
}

/// A completer that offers those of some words, each with its help, that begin as what is typed.
fn offer(words: fn() -> Vec<(String, String)>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let typed = typed.to_string_lossy();
        let fitting = words().into_iter().filter(|(word, _)| word.starts_with(&*typed));
        let candidate = |(word, help): (String, String)| {
            let help = (!help.is_empty()).then(|| output::clean(&help).into());
            CompletionCandidate::new(output::clean(&word)).help(help)
        };
        fitting.map(candidate).collect()
    })
}

/// Asks the scheduler, if it answers soon.
fn ask_soon<T: Send + 'static>(
    ask: impl FnOnce(Client) -> Option<T> + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let answer = Client::connect(reach()).ok().and_then(ask);
        // Nobody waits any more where it took too long.
        let _ = send.send(answer);
    });
    receive.recv_timeout(WITHIN).ok().flatten()
}

/// The value of an option on the line that is being typed, or of a variable.
fn typed_or(option: &str, variable: &str) -> Option<String> {
    let words: Vec<String> = std::env::args().collect();
    value_of(option, &words).or_else(|| std::env::var(variable).ok())
}

fn value_of(option: &str, words: &[String]) -> Option<String> {
    let whole = format!("{option}=");
    let joined = words.iter().find_map(|word| word.strip_prefix(&whole).map(str::to_owned));
    let apart = || words.iter().skip_while(|word| *word != option).nth(1).cloned();
    joined.or_else(apart)
}

fn reach() -> Reach {
    let reach = Reach {
        folder: typed_or("--cluster", "GANTRY_CLUSTER").map(PathBuf::from),
        user: typed_or("--as", "GANTRY_AS"),
    };
    // Nobody gets an identity by a key that completes.
    let place = reach.place();
    reach.or(place)
}

fn library() -> Option<Library> {
    Library::open(&PathBuf::from(typed_or("--library", "GANTRY_LIBRARY")?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_on_the_line_count_before_the_environment() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, expected) in [
            ("gantry --cluster /a job j", Some("/a")),
            ("gantry --cluster=/b job j", Some("/b")),
            ("gantry job j", None),
            ("gantry job --cluster", None),
        ] {
            assert_eq!(value_of("--cluster", &words(line)).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn only_what_begins_as_typed_is_offered() {
        let found = settings().complete(OsStr::new("watch.c"));
        let values: Vec<_> = found.iter().map(CompletionCandidate::get_value).collect();
        assert_eq!(values, ["watch.clock"]);
    }
}
