//! The keys: a table in a file, from which the help and the hints are made too.
//!
//! A key never has two meanings in one context, and a nearer context decides before a farther one.
//! No key ends or stops work: the one that leads there opens a question.

use serde::Deserialize;

/// A key, as the console knows it, whatever the terminal sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// A character with Ctrl.
    Ctrl(char),
    /// Enter, or Return.
    Enter,
    /// Escape.
    Esc,
    /// Tab.
    Tab,
    /// Backspace.
    Backspace,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "keys.toml says what each does")]
pub enum Action {
    Down,
    Up,
    HalfPageDown,
    HalfPageUp,
    First,
    Last,
    Overview,
    Nodes,
    Jobs,
    Data,
    Open,
    JobsHere,
    Back,
    Mark,
    MarkAll,
    Act,
    Copy,
    Filter,
    Sort,
    Reverse,
    Follow,
    Freeze,
    Redraw,
    Suspend,
    Help,
    QuitOrBack,
    QuitAndKeep,
    Quit,
}

/// Where a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Context {
    /// On every screen.
    Everywhere,
    /// Where there are rows or lines to move among.
    Rows,
    /// Where rows can be chosen.
    Lists,
    /// Where the rows are jobs.
    Jobs,
    /// Where the rows are nodes.
    Nodes,
    /// Where a log is shown.
    Log,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Where it works.
    pub context: Context,
    /// What does it.
    pub keys: Vec<String>,
    /// What it does.
    pub action: Action,
    /// Its part of the help.
    pub group: String,
    /// Its line of the help.
    pub help: String,
    /// Its word in the last line of a screen, if it stands there.
    pub hint: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    key: Vec<Binding>,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keymap {
    bindings: Vec<Binding>,
}

impl Keymap {
    /// The shipped keys.
    ///
    /// # Panics
    /// Never: a test reads the shipped file.
    #[must_use]
    pub fn shipped() -> Self {
        match Self::parse(gantry_config::KEYS_FILE) {
            Ok(keymap) => keymap,
            Err(sentence) => panic!("the shipped keys: {sentence}"),
        }
    }

    /// Reads a table.
    ///
    /// # Errors
    /// With line and column of a mistake, or the key that a context has twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Table = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text[..start].matches('\n').count() + 1;
            let column = text[..start].chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!(
                "keys.toml:{line}:{column}: {}",
                error.message().lines().next().unwrap_or_default()
            )
        })?;
        let mut seen: Vec<(Context, &str)> = Vec::new();
        for binding in &table.key {
            for key in &binding.keys {
                if named(key).is_none() && key.chars().count() > 2 {
                    return Err(format!("keys.toml: there is no key {key:?}"));
                }
                let here = (binding.context, key.as_str());
                if seen.contains(&here) {
                    return Err(format!(
                        "keys.toml: {key:?} is bound twice in {:?}",
                        binding.context
                    ));
                }
                seen.push(here);
            }
        }
        Ok(Self { bindings: table.key })
    }

    /// Every row, in the order of the file.
    #[must_use]
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// The groups of the help, in the order of the file.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for binding in &self.bindings {
            if !groups.contains(&binding.group.as_str()) {
                groups.push(&binding.group);
            }
        }
        groups
    }

    /// Lines of the help in one column: each group has a heading and a blank line.
    #[must_use]
    pub fn help_lines(&self) -> u16 {
        (self.bindings.len() + 2 * self.groups().len()) as u16
    }

    /// What a key does; the nearest context decides.
    #[must_use]
    pub fn action(&self, contexts: &[Context], key: Key) -> Option<Action> {
        self.find(contexts, |text| named(text) == Some(key))
    }

    /// What two characters in a row do.
    #[must_use]
    pub fn pair(&self, contexts: &[Context], first: char, second: char) -> Option<Action> {
        self.find(contexts, |text| text.chars().eq([first, second]))
    }

    /// Whether a character waits for a second one.
    #[must_use]
    pub fn is_prefix(&self, contexts: &[Context], first: char) -> bool {
        let pair = |text: &str| text.chars().count() == 2 && text.starts_with(first);
        self.find(contexts, pair).is_some()
    }

    fn find(&self, contexts: &[Context], fits: impl Fn(&str) -> bool) -> Option<Action> {
        contexts.iter().find_map(|context| {
            let here = self.bindings.iter().filter(|binding| binding.context == *context);
            here.into_iter()
                .find(|binding| binding.keys.iter().any(|key| fits(key)))
                .map(|binding| binding.action)
        })
    }
}

/// The key of a name in the table.
fn named(text: &str) -> Option<Key> {
    Some(match text {
        "enter" => Key::Enter,
        "esc" => Key::Esc,
        "tab" => Key::Tab,
        "space" => Key::Char(' '),
        "up" => Key::Up,
        "down" => Key::Down,
        "left" => Key::Left,
        "right" => Key::Right,
        "pageup" => Key::PageUp,
        "pagedown" => Key::PageDown,
        "home" => Key::Home,
        "end" => Key::End,
        other => {
            let mut chars = other.chars();
            match (chars.next(), chars.next(), chars.next(), chars.next()) {
                (Some(c), None, ..) => Key::Char(c),
                (Some('C'), Some('-'), Some(c), None) => Key::Ctrl(c),
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_keys_are_sound_and_nothing_ends_work_with_one_key() {
        let keymap = Keymap::shipped();
        let all = [Context::Jobs, Context::Lists, Context::Rows, Context::Everywhere];
        assert_eq!(keymap.action(&all, Key::Char('j')), Some(Action::Down));
        assert_eq!(keymap.action(&all, Key::Ctrl('c')), Some(Action::Quit));
        assert_eq!(keymap.pair(&all, 'g', 'g'), Some(Action::First));
        assert!(keymap.is_prefix(&all, 'g') && !keymap.is_prefix(&all, 'j'));
        assert_eq!(keymap.action(&[Context::Everywhere], Key::Enter), None);
        // Only act leads to what ends work, and it opens a question.
        let acts = keymap.bindings().iter().filter(|binding| binding.group == "ACT");
        assert_eq!(
            acts.map(|binding| binding.action).collect::<Vec<_>>(),
            [Action::Mark, Action::MarkAll, Action::Act, Action::Copy]
        );
    }

    #[test]
    fn a_mistake_in_the_table_has_its_place() {
        let row = |key: &str| {
            format!(
                "[[key]]\ncontext = \"lists\"\nkeys = [\"{key}\"]\naction = \"down\"\ngroup = \"MOVE\"\nhelp = \"x\"\n"
            )
        };
        for (text, part) in [
            ("[[key]]\ncontext = \"somewhere\"".to_owned(), "keys.toml:2:11"),
            (row("escape"), "no key \"escape\""),
            (row("j") + &row("j"), "bound twice"),
        ] {
            let error = Keymap::parse(&text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
