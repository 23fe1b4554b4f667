//! What keys do: the table says which action a key is, this carries it out.

use gantry_model::JobId;

use super::{Action, App, Context, Effect, FILTER_MAX, Key, Overlay, View, node_rows};

/// Characters of the word that is typed before something ends.
const WORD_MAX: usize = 24;

impl App {
    pub(super) fn key(&mut self, key: Key, effects: &mut Vec<Effect>) {
        match &mut self.overlay {
            Overlay::Filter => return self.key_in_filter(key),
            Overlay::Cancel { .. } => return self.key_in_cancel(key, effects),
            Overlay::Help(_) => return self.key_in_help(key, effects),
            Overlay::None => {}
        }
        let contexts = self.contexts();
        match (self.pending.take(), key) {
            (Some(first), Key::Char(second)) => {
                if let Some(action) = self.keymap.pair(contexts, first, second) {
                    self.act(action, effects);
                }
            }
            (_, Key::Char(c)) if self.keymap.is_prefix(contexts, c) => self.pending = Some(c),
            _ => {
                if let Some(action) = self.keymap.action(contexts, key) {
                    self.act(action, effects);
                }
            }
        }
    }

    /// The help scrolls with the keys of a list; what closes a view closes it.
    fn key_in_help(&mut self, key: Key, effects: &mut Vec<Effect>) {
        let Overlay::Help(top) = &mut self.overlay else { return };
        match self.keymap.action(&[Context::Rows, Context::Everywhere], key) {
            Some(Action::Down) => *top = top.saturating_add(1).min(self.keymap.help_lines()),
            Some(Action::Up) => *top = top.saturating_sub(1),
            Some(Action::Help | Action::Back | Action::QuitOrBack) => self.overlay = Overlay::None,
            Some(action @ (Action::Quit | Action::Suspend | Action::Redraw)) => {
                self.act(action, effects);
            }
            _ => {}
        }
    }

    fn key_in_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.overlay = Overlay::None,
            Key::Esc | Key::Ctrl('c') => {
                self.filter.clear();
                self.overlay = Overlay::None;
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Ctrl('u') => self.filter.clear(),
            Key::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
        self.keep_choice();
    }

    fn key_in_cancel(&mut self, key: Key, effects: &mut Vec<Effect>) {
        let Overlay::Cancel { jobs, typed } = &mut self.overlay else { return };
        match key {
            Key::Char(c) if typed.chars().count() < WORD_MAX => typed.push(c),
            Key::Backspace => {
                typed.pop();
            }
            Key::Enter if *typed == Self::word_to_cancel(jobs) => {
                effects.extend(jobs.iter().copied().map(Effect::Cancel));
                self.marked.clear();
                self.overlay = Overlay::None;
            }
            Key::Enter => {
                let word = Self::word_to_cancel(jobs);
                typed.clear();
                self.say(format!("type {word} to cancel, or Esc to keep"));
            }
            Key::Esc | Key::Ctrl('c') => {
                self.overlay = Overlay::None;
                self.say("kept");
            }
            _ => {}
        }
    }

    fn act(&mut self, action: Action, effects: &mut Vec<Effect>) {
        match action {
            Action::Down => self.choose(|at, _| at + 1),
            Action::Up => self.choose(|at, _| at.saturating_sub(1)),
            Action::HalfPageDown => self.choose(|at, page| at + page),
            Action::HalfPageUp => self.choose(usize::saturating_sub),
            Action::First => self.choose(|_, _| 0),
            Action::Last => self.choose(|_, _| usize::MAX),
            Action::Overview => self.go(View::Overview, effects),
            Action::Nodes => self.go(View::Nodes, effects),
            Action::Jobs => self.go(View::Jobs, effects),
            Action::Data => self.go(View::Data, effects),
            Action::Open => self.open(effects),
            Action::JobsHere => self.jobs_here(effects),
            Action::Back | Action::QuitOrBack => self.back(action, effects),
            Action::Mark => self.mark(),
            Action::MarkAll => self.mark_all(),
            Action::Act => self.ask_to_cancel(),
            Action::Copy => self.copy(effects),
            Action::Filter => self.overlay = Overlay::Filter,
            Action::Sort => {
                self.sort = self.sort.next();
                self.say(format!("sorted by {}", self.sort.word()));
            }
            Action::Reverse => self.reverse = !self.reverse,
            Action::Follow => {
                self.log_back = usize::from(self.log_back == 0 && self.log_lines() > 0);
            }
            Action::Freeze => {
                self.frozen = !self.frozen;
                self.say(if self.frozen { "frozen; z goes on" } else { "live again" });
            }
            Action::Redraw => effects.push(Effect::Redraw),
            Action::Suspend => effects.push(Effect::Suspend),
            Action::Help => self.overlay = Overlay::Help(0),
            Action::Quit => effects.push(Effect::Quit { keep_frame: false }),
            Action::QuitAndKeep => effects.push(Effect::Quit { keep_frame: true }),
        }
    }

    fn go(&mut self, view: View, effects: &mut Vec<Effect>) {
        if self.view == view {
            return;
        }
        if !matches!(self.view, View::Job(_)) {
            self.before = Some(self.view);
        }
        self.view = view;
        self.frozen = false;
        self.log_back = 0;
        effects.push(Effect::Watch(view.scope()));
        self.keep_choice();
    }

    fn open(&mut self, effects: &mut Vec<Effect>) {
        match self.job {
            Some(job) => self.go(View::Job(job), effects),
            None => self.say("no job is chosen"),
        }
    }

    /// From a node to the jobs on it.
    fn jobs_here(&mut self, effects: &mut Vec<Effect>) {
        let Some(node) = self.node.clone() else { return };
        self.filter = format!("node:{node}").chars().take(FILTER_MAX).collect();
        self.go(View::Jobs, effects);
    }

    fn back(&mut self, action: Action, effects: &mut Vec<Effect>) {
        if matches!(self.view, View::Job(_)) {
            let before = self.before.unwrap_or(View::Jobs);
            self.go(before, effects);
        } else if action == Action::QuitOrBack {
            effects.push(Effect::Quit { keep_frame: false });
        } else if self.marked.is_empty() {
            self.filter.clear();
            self.keep_choice();
        } else {
            self.marked.clear();
        }
    }

    fn mark(&mut self) {
        let Some(job) = self.job else { return };
        let alive = self.jobs().iter().any(|row| row.job == job && !row.state.is_ended());
        if !self.marked.remove(&job) {
            if alive {
                self.marked.insert(job);
            } else {
                self.say(format!("{job} has ended already"));
            }
        }
        self.choose(|at, _| at + 1);
    }

    fn mark_all(&mut self) {
        let alive: Vec<JobId> =
            self.jobs().iter().filter(|row| !row.state.is_ended()).map(|row| row.job).collect();
        if alive.iter().all(|job| self.marked.contains(job)) {
            self.marked.clear();
        } else {
            self.marked.extend(alive);
        }
    }

    fn copy(&mut self, effects: &mut Vec<Effect>) {
        let id = match self.view {
            View::Nodes => self.node.clone(),
            _ => self.job.map(|job| job.to_string()),
        };
        if let Some(id) = id {
            self.say(format!("copied {id}"));
            effects.push(Effect::Copy(id));
        }
    }

    fn ask_to_cancel(&mut self) {
        let jobs = self.to_cancel();
        match (self.read_only, jobs.is_empty(), self.job) {
            (true, ..) => self.say("this console is read-only"),
            (_, false, _) => self.overlay = Overlay::Cancel { jobs, typed: String::new() },
            (_, true, Some(job)) => self.say(format!("{job} has ended already")),
            (_, true, None) => self.say("no job is chosen"),
        }
    }

    /// Moves the choice among the rows, or the log.
    fn choose(&mut self, to: impl Fn(usize, usize) -> usize) {
        let page = usize::from(self.size.1 / 2).max(1);
        match self.view {
            View::Job(_) => {
                // Up is back in time.
                let lines = self.log_lines();
                let at = lines - self.log_back.min(lines);
                self.log_back = lines - to(at, page).min(lines);
            }
            View::Nodes => {
                let names: Vec<String> =
                    node_rows(self).iter().map(|node| node.row.facts.name.clone()).collect();
                let at =
                    names.iter().position(|name| Some(name) == self.node.as_ref()).unwrap_or(0);
                self.node = names.get(to(at, page).min(names.len().saturating_sub(1))).cloned();
            }
            View::Overview | View::Jobs | View::Data => {
                let ids: Vec<JobId> = self.jobs().iter().map(|row| row.job).collect();
                let at = ids.iter().position(|id| Some(*id) == self.job).unwrap_or(0);
                self.job = ids.get(to(at, page).min(ids.len().saturating_sub(1))).copied();
            }
        }
    }
}
