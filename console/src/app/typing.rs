//! What keys do while something lies over the screen: they type, choose, confirm or close.

use super::library::Wish;
use super::steer::{Choice, Deed, FOR_JOBS, FOR_MODELS, FOR_NODES, Plan, Targets};
use super::{Action, App, Context, Effect, FILTER_MAX, Key, Overlay, Palette, palette};

/// Characters of a word or a value that is typed.
const WORD_MAX: usize = 200;

impl App {
    /// Hands a key to what lies over the screen; says whether it took it.
    pub(super) fn key_over(&mut self, key: Key, effects: &mut Vec<Effect>) -> bool {
        match std::mem::replace(&mut self.overlay, Overlay::None) {
            Overlay::None => return false,
            Overlay::Help(top) => self.key_in_help(top, key, effects),
            Overlay::Why { job, top } => {
                if let Some(top) = self.scrolled(top, key, Action::Why, effects) {
                    self.overlay = Overlay::Why { job, top };
                }
            }
            Overlay::Filter => self.key_in_filter(key),
            Overlay::Menu { targets, at } => self.key_in_menu(targets, at, key, effects),
            Overlay::Value { choice, targets, typed } => {
                self.key_in_value(choice, targets, typed, key);
            }
            Overlay::Confirm { plan, typed } => self.key_in_confirm(plan, typed, key, effects),
            Overlay::Palette(palette) => self.key_in_palette(palette, key, effects),
        }
        true
    }

    fn key_in_help(&mut self, top: u16, key: Key, effects: &mut Vec<Effect>) {
        if let Some(top) = self.scrolled(top, key, Action::Help, effects) {
            self.overlay = Overlay::Help(top.min(self.keymap.help_lines()));
        }
    }

    /// What is read scrolls with the keys of a list; what closes a view, or opened this, closes it.
    fn scrolled(
        &mut self,
        top: u16,
        key: Key,
        opened: Action,
        effects: &mut Vec<Effect>,
    ) -> Option<u16> {
        let contexts = [Context::Rows, Context::Jobs, Context::Log, Context::Everywhere];
        let half = self.size.1 / 2;
        match self.keymap.action(&contexts, key) {
            Some(Action::Down) => Some(top.saturating_add(1)),
            Some(Action::Up) => Some(top.saturating_sub(1)),
            Some(Action::HalfPageDown) => Some(top.saturating_add(half)),
            Some(Action::HalfPageUp) => Some(top.saturating_sub(half)),
            Some(Action::First) => Some(0),
            Some(Action::Back | Action::QuitOrBack) => None,
            Some(action) if action == opened => None,
            Some(action @ (Action::Quit | Action::Suspend | Action::Redraw)) => {
                self.act(action, effects);
                Some(top)
            }
            _ => Some(top),
        }
    }

    fn key_in_filter(&mut self, key: Key) {
        self.overlay = Overlay::Filter;
        let mut text =
            if self.searches() { self.log.search.clone() } else { self.filter().to_owned() };
        match key {
            Key::Enter => self.overlay = Overlay::None,
            Key::Esc | Key::Ctrl('c') => {
                text.clear();
                self.overlay = Overlay::None;
            }
            other => edit(&mut text, other, FILTER_MAX),
        }
        let found = key == Key::Enter && !text.is_empty();
        self.set_filter(text);
        if found && self.searches() && !self.log.find(true) {
            self.say("no line above holds it; N looks below");
        }
    }

    fn key_in_menu(&mut self, targets: Targets, at: usize, key: Key, effects: &mut Vec<Effect>) {
        let choices = choices(&targets);
        let by_key = |c: char| choices.iter().position(|choice| choice.key == c);
        let chosen = match key {
            Key::Esc | Key::Ctrl('c') => return self.say("nothing is done"),
            Key::Enter => choices.get(at),
            Key::Down | Key::Char('j') => {
                let at = (at + 1).min(choices.len() - 1);
                self.overlay = Overlay::Menu { targets, at };
                return;
            }
            Key::Up | Key::Char('k') => {
                self.overlay = Overlay::Menu { targets, at: at.saturating_sub(1) };
                return;
            }
            Key::Char(c) if by_key(c).is_some() => by_key(c).and_then(|at| choices.get(at)),
            _ => {
                self.overlay = Overlay::Menu { targets, at };
                return;
            }
        };
        if let Some(choice) = chosen {
            self.chose(*choice, targets, effects);
        }
    }

    /// Something is chosen from the menu: its value is asked for, or whether it is meant.
    fn chose(&mut self, choice: Choice, targets: Targets, effects: &mut Vec<Effect>) {
        if choice.verb == "again" {
            match &targets {
                Targets::Jobs(jobs) if jobs.len() == 1 => self.submit_again(jobs[0], effects),
                _ => self.say("one job at a time is submitted again"),
            }
        } else if choice.value.is_some() {
            self.overlay = Overlay::Value { choice, targets, typed: String::new() };
        } else if let Ok(Some(plan)) = Plan::of(choice.verb, "", targets) {
            self.ask_whether(plan);
        }
    }

    fn key_in_value(&mut self, choice: Choice, targets: Targets, mut typed: String, key: Key) {
        match key {
            Key::Esc | Key::Ctrl('c') => return self.say("nothing is done"),
            Key::Enter if typed.trim().is_empty() => {
                self.say(format!("type {}, or Esc leaves it", choice.value.unwrap_or_default()));
            }
            Key::Enter => match Plan::of(choice.verb, &typed, targets.clone()) {
                Ok(Some(plan)) => return self.ask_whether(plan),
                Ok(None) => return,
                Err(sentence) => self.say(sentence),
            },
            other => edit(&mut typed, other, WORD_MAX),
        }
        self.overlay = Overlay::Value { choice, targets, typed };
    }

    /// Opens the question whether something is meant.
    pub(super) fn ask_whether(&mut self, plan: Plan) {
        if self.read_only {
            self.say("this console is read-only");
        } else if plan.targets.is_empty() {
            self.say("nothing is chosen");
        } else {
            self.overlay = Overlay::Confirm { plan, typed: String::new() };
        }
    }

    fn key_in_confirm(
        &mut self,
        plan: Plan,
        mut typed: String,
        key: Key,
        effects: &mut Vec<Effect>,
    ) {
        let word = plan.word(self.update.as_deref());
        match key {
            Key::Esc | Key::Ctrl('c') => return self.say("nothing is done"),
            Key::Enter if word.as_ref().is_none_or(|word| *word == typed) => {
                self.again += 1;
                let key = format!("console-{}-{}", self.at.0, self.again);
                effects.extend(plan.asks(&key).into_iter().map(Effect::Ask));
                if let Deed::Library(deed) = &plan.deed {
                    let doing = deed.doing(self, &plan.targets).map(Box::new);
                    effects.extend(doing.map(|doing| Effect::Library(Wish::Do(doing))));
                    self.shelf.marked.clear();
                }
                self.marked.clear();
                self.marked_nodes.clear();
                return;
            }
            Key::Enter => {
                typed.clear();
                let word = word.unwrap_or_default();
                self.say(format!("type {word} to do it, or Esc to leave it"));
            }
            Key::Char(_) if word.is_none() => {}
            other => edit(&mut typed, other, WORD_MAX),
        }
        self.overlay = Overlay::Confirm { plan, typed };
    }

    fn key_in_palette(&mut self, mut palette: Palette, key: Key, effects: &mut Vec<Effect>) {
        let entries = self.entries(&palette.typed);
        match key {
            Key::Esc | Key::Ctrl('c') => return,
            Key::Down => palette.at = (palette.at + 1).min(entries.len().saturating_sub(1)),
            Key::Up => palette.at = palette.at.saturating_sub(1),
            Key::Tab => {
                if let Some(entry) = entries.get(palette.at) {
                    let space = if entry.line.ends_with(' ') { "" } else { " " };
                    palette =
                        Palette { typed: format!("{}{space}", entry.line), ..Palette::default() };
                }
            }
            Key::Ctrl('r') => {
                palette.back =
                    if palette.back >= self.history.len() { 1 } else { palette.back + 1 };
                let line = self.history.len().checked_sub(palette.back);
                if let Some(line) = line.and_then(|at| self.history.get(at)) {
                    (palette.typed, palette.at) = (line.clone(), 0);
                }
            }
            Key::Enter => {
                let Some(entry) = entries.into_iter().nth(palette.at) else {
                    self.say("no such command; ? lists the keys, Esc closes");
                    self.overlay = Overlay::Palette(palette);
                    return;
                };
                if entry.does == palette::Does::Type {
                    self.say(entry.means);
                    palette = Palette { typed: entry.line, ..Palette::default() };
                    self.overlay = Overlay::Palette(palette);
                    return;
                }
                self.remember(&entry.line);
                return self.carry_out(entry.does, effects);
            }
            other => {
                edit(&mut palette.typed, other, palette::LINE_MAX);
                palette.at = 0;
            }
        }
        self.overlay = Overlay::Palette(palette);
    }

    /// Pasted text goes where one types, and never acts.
    pub(super) fn paste(&mut self, text: &str) {
        let plain: String = text.chars().filter(|c| !c.is_control()).collect();
        let mut overlay = std::mem::replace(&mut self.overlay, Overlay::None);
        match &mut overlay {
            Overlay::Filter => {
                let searches = self.searches();
                let mut line =
                    if searches { self.log.search.clone() } else { self.filter().to_owned() };
                let room = FILTER_MAX.saturating_sub(line.chars().count());
                line.extend(plain.chars().take(room));
                self.set_filter(line);
            }
            Overlay::Palette(palette) => {
                let room = palette::LINE_MAX.saturating_sub(palette.typed.chars().count());
                palette.typed.extend(plain.chars().take(room));
            }
            Overlay::Value { typed, .. } => {
                let room = WORD_MAX.saturating_sub(typed.chars().count());
                typed.extend(plain.chars().take(room));
            }
            // A word that confirms is typed by a person, or not at all.
            _ => self.say("pasted text does nothing here"),
        }
        self.overlay = overlay;
    }
}

/// What can be done to some targets.
#[must_use]
pub fn choices(targets: &Targets) -> &'static [Choice] {
    match targets {
        Targets::Jobs(_) => &FOR_JOBS,
        Targets::Nodes(_) => &FOR_NODES,
        Targets::Library(_) => &FOR_MODELS,
    }
}

/// What a key does to a line that is typed.
fn edit(text: &mut String, key: Key, max: usize) {
    match key {
        Key::Char(c) if text.chars().count() < max && !c.is_control() => text.push(c),
        Key::Backspace => {
            text.pop();
        }
        Key::Ctrl('u') => text.clear(),
        Key::Ctrl('w') => {
            let kept = text.trim_end().rfind(' ').map_or(0, |at| at + 1);
            text.truncate(kept);
        }
        _ => {}
    }
}
