//! The book in `docs`: its reference is written from the code, its messages are those of the sources, and
//! its links lead somewhere. Its commands are run by another test, `book`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "book_support/pages.rs"]
mod pages;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use gantry_config::{AgentSettings, SchedulerSettings, Settings, explain, layers};
use gantry_tests::installed;
use pages::{book, pages, root};

/// Holds a page against what the code says, or writes it.
fn golden(name: &str, text: &str) {
    let path = book().join(name);
    if std::env::var_os("GANTRY_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let line = known.lines().zip(text.lines()).position(|(one, other)| one != other);
    assert!(
        known == text,
        "{name} is not what the code says, from line {line:?} on; GANTRY_BLESS=1 writes it anew"
    );
}

const WRITTEN: &str = "Written by gantry itself (`cargo test --test documents`).";

/// The help of a command and of those below it.
fn help(command: &clap::Command, name: &str, text: &mut String) {
    let mut own = command
        .clone()
        .disable_help_subcommand(true)
        .term_width(100)
        .mut_args(|argument| argument.hide_env_values(true));
    let body = own.render_long_help().to_string();
    let body: Vec<&str> = body.lines().map(str::trim_end).collect();
    let _ = write!(text, "\n## {name}\n\n```text\n{}\n```\n", body.join("\n").trim());
}

#[test]
fn the_page_of_commands_is_their_help() {
    let mut all = gantry::cli::nouns::command().term_width(100);
    all.build();
    let short = <gantry::cli::Cli as clap::CommandFactory>::command();
    let mut text = format!(
        "# Commands\n\n{WRITTEN} `gantry NOUN VERB` is the short command under another name.\n"
    );
    for command in all.get_subcommands().filter(|one| !one.is_hide_set()) {
        let name = format!("gantry {}", command.get_name());
        help(command, &name, &mut text);
        // What is a command of its own stands there; these are verbs of nothing else, or of something else
        // that only has the same name, as `gantry library import` is.
        let short = short.find_subcommand(command.get_name());
        let own = |one: &&clap::Command| {
            let name = one.get_name();
            let has_it = short.is_some_and(|short| short.find_subcommand(name).is_some());
            !one.is_hide_set() && name != "help" && (has_it || all.find_subcommand(name).is_none())
        };
        for verb in command.get_subcommands().filter(own) {
            help(verb, &format!("{name} {}", verb.get_name()), &mut text);
        }
    }
    golden("reference/commands.md", &text);
}

fn settings_of<T: Settings>(text: &mut String) {
    let _ = write!(text, "\n## The {}\n\nIn `{}.toml`.\n", T::NAME, T::NAME);
    for key in T::KEYS {
        let found = explain::<T>(key, ("", ""), None, &[]).unwrap();
        let _ = write!(text, "\n### {key}\n\n{}\n\n", found.meaning);
        let value = match (&found.value, &found.example) {
            (Some(value), _) => format!("default: `{value}`"),
            (None, Some(example)) => format!("not set; for example `{key} = {example}`"),
            (None, None) => "not set".to_owned(),
        };
        let _ = write!(text, "- {value}\n- variable: `{}`\n", layers::variable(key));
    }
}

#[test]
fn the_page_of_settings_is_what_the_shipped_files_say() {
    let mut text = format!(
        "# Settings\n\n{WRITTEN} [Settings of a site](../site.md) says where they stand.\n"
    );
    settings_of::<SchedulerSettings>(&mut text);
    settings_of::<AgentSettings>(&mut text);
    golden("reference/settings.md", &text);
}

/// All sources of the product, by name.
fn sources() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    let own = names.lines().filter(|name| !name.starts_with("tests/") && !name.contains("/tests/"));
    own.filter_map(|name| std::fs::read_to_string(root().join(name)).ok()).collect()
}

#[test]
fn every_message_that_is_explained_is_one() {
    let text = std::fs::read_to_string(book().join("troubleshooting.md")).unwrap();
    let messages: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).collect();
    assert!(messages.len() >= 15, "{messages:?}");
    let sources = sources();
    for message in messages {
        // What stands between what differs is found in one source, in this order.
        let found = sources.iter().any(|source| {
            let mut rest = source.as_str();
            message.split('…').map(str::trim).filter(|part| part.len() > 3).all(|part| {
                let at = rest.find(part);
                rest = at.map_or("", |at| &rest[at + part.len()..]);
                at.is_some()
            })
        });
        assert!(found, "no source says {message:?}");
    }
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let pages = pages();
    let names: BTreeSet<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    let links = |text: &str| -> Vec<String> {
        let parts = text.split("](").skip(1);
        parts.filter_map(|part| Some(part.split_once(')')?.0.to_owned())).collect()
    };
    for (name, text) in &pages {
        if name.starts_with("reference/commands") {
            continue;
        }
        let folder = Path::new(name).parent().unwrap();
        for link in links(text).iter().filter(|link| !link.contains("://")) {
            let target = match link.strip_prefix("../") {
                Some(up) => up.to_owned(),
                None => folder.join(link).display().to_string(),
            };
            // A page, or a picture.
            let is_there = names.contains(target.as_str()) || book().join(&target).is_file();
            assert!(is_there, "{name} leads to {link}, which is not there");
        }
        if name == "SUMMARY.md" {
            let listed: BTreeSet<String> = links(text).into_iter().collect();
            let missing: Vec<_> = names
                .iter()
                .filter(|one| **one != name.as_str() && !listed.contains(**one))
                .collect();
            assert!(missing.is_empty(), "the summary lacks {missing:?}");
        }
    }
}

#[test]
fn the_glossary_has_every_word_of_the_architecture() {
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = architecture.split("## Words").nth(1).unwrap().split("\n## ").next().unwrap();
    let glossary = std::fs::read_to_string(book().join("glossary.md")).unwrap().to_lowercase();
    let mut words = section.split("**").skip(1).step_by(2);
    assert!(section.matches("**").count() >= 30);
    let missing: Vec<&str> = words
        .by_ref()
        .filter(|word| !glossary.contains(&format!("**{}**", word.to_lowercase())))
        .collect();
    assert!(missing.is_empty(), "the glossary lacks {missing:?}");
}

#[test]
fn mdbook_makes_a_book_of_it() {
    if !installed("mdbook", "the book") {
        eprintln!("SKIPPED: the book was not built; cargo install mdbook");
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let output = Command::new("mdbook")
        .args(["build", "--dest-dir"])
        .arg(folder.path())
        .arg(root().join("docs"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.path().join("troubleshooting.html").exists());
}
