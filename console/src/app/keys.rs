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
    Left,
    Right,
    HalfPageDown,
    HalfPageUp,
    First,
    Last,
    Overview,
    Nodes,
    Gpus,
    Jobs,
    Data,
    Events,
    ViewBefore,
    Open,
    JobsHere,
    Back,
    NextPane,
    Mark,
    MarkAll,
    Act,
    Palette,
    Copy,
    Export,
    SubmitAgain,
    Requeue,
    Why,
    Filter,
    NextMatch,
    MatchBefore,
    Sort,
    Reverse,
    GroupNode,
    GroupJob,
    GroupUser,
    GroupNone,
    Metric,
    SpanLonger,
    SpanShorter,
    Sweep,
    Follow,
    ErrorsOnly,
    Wrap,
    Times,
    Preview,
    Rejects,
    AddData,
    Verify,
    CursorUp,
    CursorDown,
    CursorLeft,
    CursorRight,
    WindowNext,
    WindowBefore,
    LevelUp,
    LevelDown,
    Wider,
    Narrower,
    ZoomIn,
    ZoomOut,
    MaskShown,
    Seed,
    Method,
    ToleranceUp,
    ToleranceDown,
    Undo,
    Paint,
    Erase,
    Brush,
    Accept,
    Reject,
    NextCase,
    Freeze,
    TimeBack,
    TimeOn,
    Live,
    Privacy,
    Mouse,
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
    /// Where the rows are GPUs.
    Gpus,
    /// Where the rows are lines of the event log.
    Events,
    /// Where a log is shown.
    Log,
    /// On the screen of the data.
    Data,
    /// Where an image is shown.
    Image,
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

/// A row as the file has it, with the places of its keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    context: Context,
    keys: Vec<toml::Spanned<String>>,
    action: Action,
    group: String,
    help: String,
    hint: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    key: Vec<Row>,
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
        match Self::parse("keys.toml", gantry_config::KEYS_FILE) {
            Ok(keymap) => keymap,
            Err(sentence) => panic!("the shipped keys: {sentence}"),
        }
    }

    /// Reads the table of a file.
    ///
    /// # Errors
    /// With line and column of a mistake, or of the key that a context has twice.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let table: Table = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().next().unwrap_or_default();
            format!("{file}:{}: {message}", place(text, start))
        })?;
        let mut seen: Vec<(Context, &str)> = Vec::new();
        for row in &table.key {
            for key in &row.keys {
                let (name, start) = (key.get_ref(), key.span().start);
                if named(name).is_none() && name.chars().count() != 2 {
                    let place = place(text, start);
                    return Err(format!(
                        "{file}:{place}: there is no key {name:?}; the head of the shipped file lists them"
                    ));
                }
                let here = (row.context, name.as_str());
                if seen.contains(&here) {
                    let place = place(text, start);
                    return Err(format!(
                        "{file}:{place}: {name:?} is bound twice in {:?}",
                        row.context
                    ));
                }
                seen.push(here);
            }
        }
        let binding = |row: Row| Binding {
            context: row.context,
            keys: row.keys.into_iter().map(toml::Spanned::into_inner).collect(),
            action: row.action,
            group: row.group,
            help: row.help,
            hint: row.hint,
        };
        let keymap = Self { bindings: table.key.into_iter().map(binding).collect() };
        keymap.check_the_way_out().map_err(|sentence| format!("{file}: {sentence}"))?;
        Ok(keymap)
    }

    /// Nobody shall be locked in by a table of his own.
    fn check_the_way_out(&self) -> Result<(), String> {
        for action in [Action::Quit, Action::Help, Action::Back] {
            let everywhere =
                |one: &&Binding| one.context == Context::Everywhere && !one.keys.is_empty();
            if !self.bindings.iter().filter(everywhere).any(|one| one.action == action) {
                return Err(format!("no key does {action:?} everywhere; add one"));
            }
        }
        Ok(())
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
        self.find(contexts, |text| two(text) == Some((first, second)))
    }

    /// What can follow a character that waits for a second one: the second, and its line of the help.
    #[must_use]
    pub fn after(&self, contexts: &[Context], first: char) -> Vec<(char, &str)> {
        let mut found: Vec<(char, &str)> = Vec::new();
        for binding in self.bindings.iter().filter(|one| contexts.contains(&one.context)) {
            for key in &binding.keys {
                if let Some((one, second)) = two(key)
                    && one == first
                    && self.pair(contexts, first, second) == Some(binding.action)
                    && !found.iter().any(|(known, _)| *known == second)
                {
                    found.push((second, &binding.help));
                }
            }
        }
        found
    }

    /// The first key that does something, as screens name it.
    #[must_use]
    pub fn key_of(&self, contexts: &[Context], action: Action) -> Option<&str> {
        let bindings = self.bindings.iter().filter(|one| contexts.contains(&one.context));
        let mut of = bindings.filter(|one| one.action == action);
        of.find_map(|one| one.keys.first()).map(String::as_str)
    }

    /// Whether a character waits for a second one.
    #[must_use]
    pub fn is_prefix(&self, contexts: &[Context], first: char) -> bool {
        self.find(contexts, |text| two(text).is_some_and(|(one, _)| one == first)).is_some()
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

/// The two characters of a pair; "up" is one key.
fn two(text: &str) -> Option<(char, char)> {
    let mut chars = text.chars();
    let pair = (chars.next()?, chars.next()?);
    (chars.next().is_none() && named(text).is_none()).then_some(pair)
}

/// Line and column of a byte of a text, from 1.
pub(crate) fn place(text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{line}:{column}")
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
    fn the_shipped_keys_lead_where_they_say() {
        let keymap = Keymap::shipped();
        let all = [Context::Jobs, Context::Lists, Context::Rows, Context::Everywhere];
        assert_eq!(keymap.action(&all, Key::Char('j')), Some(Action::Down));
        assert_eq!(keymap.action(&all, Key::Ctrl('c')), Some(Action::Quit));
        assert_eq!(keymap.pair(&all, 'g', 'g'), Some(Action::First));
        assert!(keymap.is_prefix(&all, 'g') && !keymap.is_prefix(&all, 'j'));
        assert_eq!(keymap.action(&[Context::Everywhere], Key::Enter), None);
        let gpus = [Context::Gpus, Context::Lists, Context::Rows, Context::Everywhere];
        let after: String = keymap.after(&gpus, 'g').iter().map(|(second, _)| *second).collect();
        assert_eq!(after, "gnju0");
        assert_eq!(keymap.key_of(&all, Action::Palette), Some(":"));
        // The name of a key is no pair of characters.
        assert!(!keymap.is_prefix(&all, 'u') && keymap.pair(&all, 'u', 'p').is_none());
    }

    #[test]
    fn a_mistake_in_the_table_has_its_place() {
        let row = |key: &str| {
            format!(
                "[[key]]\ncontext = \"lists\"\nkeys = [\"{key}\"]\naction = \"down\"\ngroup = \"MOVE\"\nhelp = \"x\"\n"
            )
        };
        for (text, part) in [
            ("[[key]]\ncontext = \"somewhere\"".to_owned(), "k.toml:2:11: unknown variant"),
            (row("escape"), "k.toml:3:9: there is no key \"escape\""),
            (row("j") + &row("j"), "k.toml:9:9: \"j\" is bound twice"),
            (row("j"), "no key does Quit everywhere"),
        ] {
            let error = Keymap::parse("k.toml", &text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
