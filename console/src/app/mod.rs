//! The console as a pure machine: keys, pictures of the cluster and time in; watches, requests and
//! the end out.
//!
//! It knows no terminal, no socket and no clock. Messages come from a live cluster or from a test,
//! and it cannot tell. Rows are chosen by what they are, not by their number, so a list that
//! changes does not move the choice to another job.

pub mod keys;
mod rows;

use gantry_model::{At, JobId, JobRow, Machine};
use gantry_wire::{Scope, Update};

pub use keys::{Action, Context, Key, Keymap};
pub use rows::{job_rows, node_rows};

/// A message stays on the screen for so long.
const MESSAGE_MS: u64 = 5000;
/// Characters of a filter.
const FILTER_MAX: usize = 80;

/// What is on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Nodes, running work, what needs a human.
    Overview,
    /// Nodes.
    Nodes,
    /// Jobs.
    Jobs,
    /// The library and the jobs that work on it.
    Data,
    /// One job.
    Job(JobId),
}

impl View {
    /// What a console has to be sent for it.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::Overview => Scope::Overview,
            Self::Nodes => Scope::Nodes,
            Self::Jobs => Scope::Jobs,
            Self::Data => Scope::Data,
            Self::Job(job) => Scope::Job(job),
        }
    }
}

/// How the cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not yet.
    Connecting,
    /// Pictures come.
    Live,
    /// It is gone, and tried again.
    Reconnecting(String),
}

/// What lies over the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    None,
    /// The keys.
    Help,
    /// A filter is being typed.
    Filter,
    /// A job is to be cancelled, if its number is typed.
    Cancel {
        /// The job.
        job: JobId,
        /// What has been typed.
        typed: String,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Message {
    /// A key.
    Key(Key),
    /// Text was pasted. It never acts.
    Paste(String),
    /// The screen has another size.
    Resize(u16, u16),
    /// A picture of the cluster came.
    Update(Box<Update>),
    /// The connection changed.
    Link(Link),
    /// A request was answered, in a sentence.
    Answer(String),
    /// Time has passed.
    Tick,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Watch this from now on.
    Watch(Scope),
    /// Cancel a job.
    Cancel(JobId),
    /// Put text into the terminal's clipboard.
    Copy(String),
    /// Draw everything again.
    Redraw,
    /// Give the terminal back and stop until the shell continues us.
    Suspend,
    /// End; leave the last frame where that is wanted.
    Quit {
        /// Whether the last frame stays on the terminal.
        keep_frame: bool,
    },
}

/// The console.
#[derive(Clone, Debug)]
pub struct App {
    /// The keys.
    pub keymap: Keymap,
    /// Columns and rows.
    pub size: (u16, u16),
    /// What is on the screen.
    pub view: View,
    /// What lies over it.
    pub overlay: Overlay,
    /// The newest picture, or the one that is frozen.
    pub update: Option<Box<Update>>,
    /// Whether pictures are looked at or kept away.
    pub frozen: bool,
    /// How the cluster is reached.
    pub link: Link,
    /// The time now, by this machine.
    pub at: At,
    /// When the picture came, by this machine.
    pub received: At,
    /// The chosen job.
    pub job: Option<JobId>,
    /// The chosen node.
    pub node: Option<String>,
    /// The words that rows must hold.
    pub filter: String,
    /// Lines that the log is scrolled back; 0 follows it.
    pub log_back: usize,
    /// A sentence for a moment.
    pub message: Option<(At, String)>,
    /// Whether nothing may be changed from here.
    pub read_only: bool,
    before: Option<View>,
    pending: Option<char>,
}

impl Machine for App {
    type Event = Message;
    type Effect = Effect;

    fn apply(&mut self, at: At, event: Message, effects: &mut Vec<Effect>) {
        self.at = at;
        match event {
            Message::Key(key) => self.key(key, effects),
            Message::Paste(text) => self.paste(&text),
            Message::Resize(columns, rows) => self.size = (columns, rows),
            Message::Update(update) => self.take(update),
            Message::Link(link) => self.link = link,
            Message::Answer(sentence) => self.say(sentence),
            Message::Tick => {}
        }
        let over = |(since, _): &(At, String)| at.since(*since).0 > MESSAGE_MS;
        if self.message.as_ref().is_some_and(over) {
            self.message = None;
        }
    }

    fn check(&self) -> Result<(), String> {
        match &self.overlay {
            Overlay::Cancel { .. } if self.read_only => {
                Err("a read-only console asks to cancel".into())
            }
            _ if self.filter.chars().count() > FILTER_MAX => Err("the filter is too long".into()),
            _ => Ok(()),
        }
    }
}

impl App {
    /// A console that has seen nothing yet.
    #[must_use]
    pub fn new(keymap: Keymap, size: (u16, u16)) -> Self {
        Self {
            keymap,
            size,
            view: View::Overview,
            overlay: Overlay::None,
            update: None,
            frozen: false,
            link: Link::Connecting,
            at: At(0),
            received: At(0),
            job: None,
            node: None,
            filter: String::new(),
            log_back: 0,
            message: None,
            read_only: false,
            before: None,
            pending: None,
        }
    }

    /// Where keys are looked for, the nearest first.
    #[must_use]
    pub fn contexts(&self) -> &'static [Context] {
        match self.view {
            View::Overview | View::Jobs | View::Data => {
                &[Context::Jobs, Context::Lists, Context::Everywhere]
            }
            View::Nodes => &[Context::Lists, Context::Everywhere],
            View::Job(_) => &[Context::Log, Context::Lists, Context::Everywhere],
        }
    }

    /// How old the picture is, in milliseconds.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        self.at.since(self.received).0
    }

    /// The jobs that the screen lists.
    #[must_use]
    pub fn jobs(&self) -> Vec<&JobRow> {
        job_rows(self)
    }

    fn say(&mut self, sentence: impl Into<String>) {
        self.message = Some((self.at, sentence.into()));
    }

    fn take(&mut self, update: Box<Update>) {
        if self.frozen {
            return;
        }
        self.received = self.at;
        self.update = Some(update);
        self.keep_choice();
    }

    /// A choice that is gone becomes the first row.
    fn keep_choice(&mut self) {
        let jobs: Vec<JobId> = self.jobs().iter().map(|row| row.job).collect();
        if !matches!(self.view, View::Job(_)) && !self.job.is_some_and(|job| jobs.contains(&job)) {
            self.job = jobs.first().copied();
        }
        let nodes: Vec<String> =
            node_rows(self).iter().map(|node| node.row.facts.name.clone()).collect();
        if !self.node.as_ref().is_some_and(|node| nodes.contains(node)) {
            self.node = nodes.into_iter().next();
        }
    }

    fn paste(&mut self, text: &str) {
        if self.overlay == Overlay::Filter {
            let plain = text.chars().filter(|c| !c.is_control());
            let room = FILTER_MAX - self.filter.chars().count();
            self.filter.extend(plain.take(room));
        } else {
            self.say("pasted text does nothing here");
        }
    }

    fn key(&mut self, key: Key, effects: &mut Vec<Effect>) {
        match &mut self.overlay {
            Overlay::Filter => return self.key_in_filter(key),
            Overlay::Cancel { .. } => return self.key_in_cancel(key, effects),
            Overlay::Help => {
                self.overlay = Overlay::None;
                if key != Key::Ctrl('c') {
                    return;
                }
            }
            Overlay::None => {}
        }
        let pending = self.pending.take();
        let contexts = self.contexts();
        match (pending, key) {
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

    fn key_in_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.overlay = Overlay::None,
            Key::Esc => {
                self.filter.clear();
                self.overlay = Overlay::None;
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
        self.keep_choice();
    }

    fn key_in_cancel(&mut self, key: Key, effects: &mut Vec<Effect>) {
        let Overlay::Cancel { job, typed } = &mut self.overlay else { return };
        match key {
            Key::Char(c) if typed.len() < 24 => typed.push(c),
            Key::Backspace => {
                typed.pop();
            }
            Key::Enter if *typed == job.0.to_string() || *typed == job.to_string() => {
                effects.push(Effect::Cancel(*job));
                self.overlay = Overlay::None;
            }
            Key::Enter => {
                let sentence = format!("type {} to cancel it, or Esc to keep it", job.0);
                self.say(sentence);
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
            Action::Open => {
                if let Some(job) = self.job {
                    self.log_back = 0;
                    self.go(View::Job(job), effects);
                }
            }
            Action::Back | Action::QuitOrBack => self.back(action, effects),
            Action::Act => self.ask_to_cancel(),
            Action::Copy => {
                let id = match self.view {
                    View::Nodes => self.node.clone(),
                    _ => self.job.map(|job| job.to_string()),
                };
                if let Some(id) = id {
                    self.say(format!("copied {id}"));
                    effects.push(Effect::Copy(id));
                }
            }
            Action::Filter => self.overlay = Overlay::Filter,
            Action::Follow => self.log_back = usize::from(self.log_back == 0),
            Action::Freeze => {
                self.frozen = !self.frozen;
                self.say(if self.frozen { "frozen; z goes on" } else { "live" });
            }
            Action::Redraw => effects.push(Effect::Redraw),
            Action::Suspend => effects.push(Effect::Suspend),
            Action::Help => self.overlay = Overlay::Help,
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
        effects.push(Effect::Watch(view.scope()));
        self.keep_choice();
    }

    fn back(&mut self, action: Action, effects: &mut Vec<Effect>) {
        if matches!(self.view, View::Job(_)) {
            let before = self.before.unwrap_or(View::Jobs);
            return self.go(before, effects);
        }
        if action == Action::QuitOrBack {
            effects.push(Effect::Quit { keep_frame: false });
        } else {
            self.filter.clear();
            self.keep_choice();
        }
    }

    fn ask_to_cancel(&mut self) {
        let chosen =
            self.job.and_then(|job| self.jobs().into_iter().find(|row| row.job == job).cloned());
        match chosen {
            _ if self.read_only => self.say("this console is read-only"),
            None => self.say("no job is chosen"),
            Some(row) if row.state.is_ended() => self.say(format!("{} has ended already", row.job)),
            Some(row) => self.overlay = Overlay::Cancel { job: row.job, typed: String::new() },
        }
    }

    /// Moves the choice among the rows, or the log.
    fn choose(&mut self, to: impl Fn(usize, usize) -> usize) {
        let page = usize::from(self.size.1 / 2).max(1);
        match self.view {
            View::Job(_) => {
                // Up is back in time.
                let far = 100_000;
                let at = far - self.log_back.min(far);
                self.log_back = far - to(at, page).min(far);
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
