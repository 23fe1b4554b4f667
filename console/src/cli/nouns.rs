//! `gantry NOUN VERB`: the long forms of the short commands that people type, as one table.
//!
//! A long form becomes the short one before the command line is read, so that each command is there
//! once. Help, manual pages and completions see both, made of the same table ([`command`]).

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};

use super::Cli;

/// Something that commands are about.
struct Noun {
    /// What people call it: one, and several.
    names: &'static [&'static str],
    /// Each verb with the words that it stands for, the short command first.
    verbs: &'static [(&'static str, &'static [&'static str])],
}

const NOUNS: &[Noun] = &[
    Noun {
        names: &["job", "jobs"],
        verbs: &[
            ("list", &["jobs"]),
            ("show", &["job"]),
            ("submit", &["submit"]),
            ("why", &["why"]),
            ("logs", &["logs"]),
            ("cancel", &["cancel"]),
            ("hold", &["hold"]),
            ("release", &["release"]),
            ("requeue", &["requeue"]),
            ("change", &["change"]),
            ("wait", &["wait"]),
            ("history", &["history"]),
            ("report", &["report"]),
        ],
    },
    Noun {
        names: &["node", "nodes"],
        verbs: &[
            ("list", &["nodes"]),
            ("show", &["node"]),
            ("drain", &["drain"]),
            ("resume", &["resume"]),
            ("maintenance", &["maintenance"]),
            ("forget", &["forget"]),
            ("series", &["series"]),
            ("join", &["join"]),
        ],
    },
    Noun { names: &["gpu", "gpus"], verbs: &[("list", &["gpus"])] },
    Noun {
        names: &["event", "events"],
        verbs: &[
            ("list", &["events"]),
            ("follow", &["events", "--follow"]),
            ("export", &["events", "--export"]),
        ],
    },
    Noun {
        names: &["model", "models"],
        verbs: &[
            ("list", &["models"]),
            ("show", &["models"]),
            ("approve", &["models", "--approve"]),
            ("retire", &["models", "--retire"]),
            ("compare", &["models", "--compare"]),
            ("export", &["models"]),
            ("import", &["models", "--import"]),
        ],
    },
    Noun {
        names: &["library"],
        verbs: &[
            ("series", &["data", "series"]),
            ("samples", &["data", "samples"]),
            ("models", &["data", "models"]),
            ("predictions", &["data", "predictions"]),
            ("quarantine", &["data", "quarantine"]),
            ("label", &["label"]),
            ("similar", &["similar"]),
        ],
    },
];

/// Options before a verb that have a value of their own.
const VALUED: [&str; 3] = ["--cluster", "--as", "--library"];

/// The command line of gantry with the verbs of every noun.
#[must_use]
pub fn command() -> clap::Command {
    let short = Cli::command();
    let mut command = short.clone();
    for noun in NOUNS {
        let verbs: Vec<clap::Command> =
            noun.verbs.iter().filter_map(|(verb, words)| long(&short, verb, words)).collect();
        for name in noun.names {
            if short.get_subcommands().all(|one| one.get_name() != *name) {
                continue;
            }
            command = command.mut_subcommand(name, |one| {
                // What has verbs of its own needs one.
                let own = one.has_subcommands();
                let one = one.subcommands(verbs.clone());
                if own {
                    one
                } else {
                    one.args_conflicts_with_subcommands(true).subcommand_negates_reqs(true)
                }
            });
        }
    }
    command
}

/// A short command under the name of a verb, without what the verb says already.
fn long(short: &clap::Command, verb: &'static str, words: &[&str]) -> Option<clap::Command> {
    let (first, rest) = words.split_first()?;
    let found = short.find_subcommand(first)?;
    let mut long = found.clone().name(verb).visible_alias(Resettable::Reset);
    for word in rest {
        let said = found.get_arguments().find(|argument| match word.strip_prefix("--") {
            Some(flag) => argument.get_long() == Some(flag),
            None => argument.is_positional(),
        });
        let Some(said) = said else { continue };
        let about = match said.get_help() {
            Some(help) if !said.is_positional() => help.to_string(),
            _ => format!("List the {word} of a library"),
        };
        let id = said.get_id().clone();
        long = long.about(about).mut_arg(id, |argument| argument.hide(true));
    }
    Some(long)
}

/// Reads a command line, in its long or its short form.
///
/// # Errors
/// Where it is wrong, or asks for help.
pub fn parse(line: impl IntoIterator<Item: Into<OsString>>) -> Result<Cli, clap::Error> {
    let line = line.into_iter().map(Into::into).collect();
    let matches = command().try_get_matches_from(short(line))?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))
}

/// Puts the short form in the place of a long one.
fn short(line: Vec<OsString>) -> Vec<OsString> {
    let text = |at: usize| line.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    // The place of the next word that is no option; none behind `--`, where another program begins.
    let word = |mut at: usize| {
        while text(at).starts_with('-') {
            if text(at) == "--" {
                return line.len();
            }
            at += if VALUED.contains(&text(at)) { 2 } else { 1 };
        }
        at
    };
    let noun_at = word(1);
    let verb_at = word(noun_at + 1);
    let noun = NOUNS.iter().find(|noun| noun.names.contains(&text(noun_at)));
    let verbs = noun.map_or(&[][..], |noun| noun.verbs);
    let Some((_, words)) = verbs.iter().find(|(verb, _)| *verb == text(verb_at)) else {
        return line;
    };
    let mut short = line[..noun_at].to_vec();
    short.push(words[0].into());
    short.extend_from_slice(&line[noun_at + 1..verb_at]);
    // A flag of the table that wants a value would take the question for one.
    if !matches!(text(verb_at + 1), "-h" | "--help") {
        short.extend(words[1..].iter().map(OsString::from));
    }
    short.extend_from_slice(&line[verb_at + 1..]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortened(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let short = short(words);
        let words: Vec<&str> = short.iter().filter_map(|word| word.to_str()).collect();
        words.join(" ")
    }

    #[test]
    fn long_forms_become_short_ones_and_nothing_else_changes() {
        for (long, expected) in [
            ("gantry job cancel j1", "gantry cancel j1"),
            ("gantry jobs cancel j1 j2", "gantry cancel j1 j2"),
            ("gantry --json job show j1", "gantry --json job j1"),
            (
                "gantry --cluster job node drain a --reason x",
                "gantry --cluster job drain a --reason x",
            ),
            ("gantry --cluster=/c nodes show a", "gantry --cluster=/c node a"),
            ("gantry gpu list --state free", "gantry gpus --state free"),
            ("gantry model approve m --by ada", "gantry models --approve m --by ada"),
            ("gantry model export m --to d", "gantry models m --to d"),
            ("gantry model compare a b", "gantry models --compare a b"),
            ("gantry event export night.ndjson", "gantry events --export night.ndjson"),
            ("gantry library --library /l series", "gantry data --library /l series"),
            ("gantry library series --library /l", "gantry data series --library /l"),
            // Not long forms at all.
            ("gantry job j1", "gantry job j1"),
            ("gantry nodes", "gantry nodes"),
            ("gantry library verify", "gantry library verify"),
            ("gantry submit -- job cancel j1", "gantry submit -- job cancel j1"),
            ("gantry job --help", "gantry job --help"),
            ("gantry", "gantry"),
            ("gantry --cluster", "gantry --cluster"),
        ] {
            assert_eq!(shortened(long), expected, "{long}");
        }
    }

    #[test]
    fn each_verb_stands_for_a_command_that_there_is() {
        let mut all = command();
        all.clone().debug_assert();
        all.build();
        for noun in NOUNS {
            for (verb, words) in noun.verbs {
                for name in noun.names {
                    let Some(command) = all.find_subcommand(name) else { continue };
                    // A plural may be an alias of its singular.
                    assert!(command.find_subcommand(verb).is_some(), "{name} {verb}");
                }
                assert!(all.find_subcommand(words[0]).is_some(), "{words:?}");
                let line = ["gantry", noun.names[0], verb, "--help"];
                let error = parse(line).unwrap_err();
                assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line:?}: {error}");
            }
        }
    }

    #[test]
    fn a_mistyped_verb_gets_the_nearest() {
        let error = parse(["gantry", "nodes", "drian", "a"]).unwrap_err();
        assert!(error.to_string().contains("'drain'"), "{error}");
    }
}
