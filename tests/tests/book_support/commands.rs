//! The commands of a document: what stands in its blocks of `sh`, as a shell reads it, and what its prose
//! names.
//!
//! Only as much of a shell as the documents use: double quotes, comments, `;` between commands, `&` behind
//! one, and `export`. A line that is none of gantry's and not of the programs that build it is an error,
//! so that nothing is passed over. What prose names is a command where the program's own parser takes it
//! as it stands; else it is the name of one, whose words and flags there must be.

use anyhow::{Result, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Programs whose lines build gantry or test it, and are not run here.
const BUILDERS: [&str; 2] = ["cargo", "rustup"];

/// A line of a document, or a part of one between semicolons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A command of gantry, as it is written there.
    Command(String),
    /// The name of a command, without all that it needs.
    Name(String),
    /// A variable, and its value, for what follows.
    Export(String, String),
}

/// The words of a line as a shell takes them, where only double quotes are special.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in line.chars().chain([' ']) {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    words
}

/// The commands of a line, without its comment and without what sends one to the background.
fn commands(line: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut end) = (Vec::new(), 0, false, line.len());
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ';' if !quoted => {
                parts.push(&line[start..at]);
                start = at + 1;
            }
            '#' if !quoted && before.is_whitespace() => {
                end = at;
                break;
            }
            _ => {}
        }
        before = c;
    }
    parts.push(&line[start..end]);
    let bare = parts.into_iter().map(|part| part.trim().trim_end_matches('&').trim_end());
    bare.filter(|part| !part.is_empty()).collect()
}

/// What stands between backquotes in prose, where it begins as a command of gantry does.
///
/// # Errors
/// Where there is no such command, or it has no such flag.
fn mentioned(prose: &str) -> Result<Vec<Said>> {
    let mut all = Vec::new();
    for span in prose.split('`').skip(1).step_by(2).filter(|span| span.starts_with("gantry ")) {
        let whole = span.trim_end_matches('…').trim_end();
        let complete = match gantry::cli::nouns::parse(words(whole)) {
            Ok(_) => true,
            Err(error) => match error.kind() {
                ErrorKind::DisplayVersion | ErrorKind::DisplayHelp => true,
                // GANTRY_LIBRARY may say it.
                ErrorKind::MissingRequiredArgument => {
                    error.get(ContextKind::InvalidArg)
                        == Some(&ContextValue::Strings(vec!["--library <DIR>".to_owned()]))
                }
                ErrorKind::InvalidValue
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => false,
                _ => bail!("{span}: {error}"),
            },
        };
        let text = span.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_command = complete && whole == span;
        all.push(if is_command { Said::Command(text) } else { Said::Name(text) });
    }
    Ok(all)
}

/// The commands and variables of a line of a block.
fn typed(line: &str) -> Result<Vec<Said>> {
    let mut all = Vec::new();
    for command in commands(line) {
        let words = words(command);
        let mut names = words.iter().filter(|word| !word.contains('='));
        match names.next().map_or("", String::as_str) {
            "gantry" if words[0] == "gantry" => all.push(Said::Command(command.to_owned())),
            "export" => all.extend(words[1..].iter().filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some(Said::Export(name.to_owned(), value.to_owned()))
            })),
            builder if BUILDERS.contains(&builder) => {}
            other => bail!("no test runs {other:?}: {line}"),
        }
    }
    Ok(all)
}

/// What a document says to type, in its order.
///
/// # Errors
/// Where a line is not understood, or a command is none.
pub(crate) fn said(text: &str) -> Result<Vec<Said>> {
    // Of a block the language, which is empty where none is named.
    let (mut all, mut block, mut prose) = (Vec::new(), None, String::new());
    for line in text.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(kind), None) => {
                block = Some(kind.split_whitespace().next().unwrap_or_default());
                all.extend(mentioned(&std::mem::take(&mut prose))?);
            }
            (None, Some("sh")) => all.extend(typed(line)?),
            (None, Some(_)) => {}
            (None, None) => prose.extend([line, "\n"]),
        }
    }
    all.extend(mentioned(&prose)?);
    Ok(all)
}

#[test]
fn a_block_is_read_as_a_shell_reads_it() {
    let text = "gantry not here\n```sh\nexport A=b C=d   # both\ngantry one \"a; b # c\"; gantry two & # end\n\
                X=1 cargo test\n```\n```toml\nx = 1\n```\n```sh demo\ngantry three#4\n```\n";
    let export = |name: &str, value: &str| Said::Export(name.into(), value.into());
    let command = |text: &str| Said::Command(text.into());
    let expected = vec![
        export("A", "b"),
        export("C", "d"),
        command("gantry one \"a; b # c\""),
        command("gantry two"),
        command("gantry three#4"),
    ];
    assert_eq!(said(text).unwrap(), expected);
    assert_eq!(words("one \"a; b # c\" \"\""), ["one", "a; b # c", ""]);
    for wrong in ["```sh\nganrty queue\n```", "```sh\nsource <(gantry completions bash)\n```"] {
        assert!(said(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn prose_names_commands_and_has_some_whole() {
    let text = "`gantry audit\n  verify` and `gantry why`, `gantry data series`, `gantry queue …` or\n\
                ```toml\n# `gantry no`\n```\nthe `gantry --version`; `gantry-agent`, `gantry`.\n";
    let expected = vec![
        Said::Command("gantry audit verify".into()),
        Said::Name("gantry why".into()),
        Said::Command("gantry data series".into()),
        Said::Name("gantry queue …".into()),
        Said::Command("gantry --version".into()),
    ];
    assert_eq!(said(text).unwrap(), expected);
    for wrong in ["`gantry qeue`", "`gantry why --loudly`", "`gantry scheduler paint`"] {
        assert!(said(wrong).is_err(), "{wrong}");
    }
}
