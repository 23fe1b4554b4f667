//! The console as a pure machine: keys, pictures of the cluster and time in; watches, requests and
//! the end out.
//!
//! It knows no terminal, no socket and no clock. Messages come from a live cluster or from a test,
//! and it cannot tell. Rows are chosen by what they are, not by their number, so a list that
//! changes does not move the choice to another job.

mod act;
pub mod keys;
mod rows;

use std::collections::BTreeSet;

use gantry_model::{At, JobId, JobRow, JobState, Machine};
use gantry_wire::{Scope, Update};

pub use keys::{Action, Context, Key, Keymap};
pub use rows::{Sort, job_rows, log_lines, node_rows};

/// A message stays on the screen for so long.
const MESSAGE_MS: u64 = 5000;
/// A picture older than this is late: the scheduler sends one every 5 s, changed or not.
const LATE_MS: u64 = 8000;
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
    /// The keys, from this line on.
    Help(u16),
    /// A filter is being typed.
    Filter,
    /// Jobs are to be cancelled, if the word is typed.
    Cancel {
        /// The jobs.
        jobs: Vec<JobId>,
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
    Update {
        /// What was watched.
        scope: Scope,
        /// What it looks like.
        update: Box<Update>,
    },
    /// The connection changed.
    Link(Link),
    /// A request was answered, in a sentence.
    Answer(String),
    /// What the one who opened this console is doing, in a sentence that stays.
    Banner(String),
    /// The terminal is gone.
    Gone,
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
    /// What that picture is of; not yet what is on the screen, right after a change of view.
    pub pictured: Option<Scope>,
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
    /// The jobs that are marked.
    pub marked: BTreeSet<JobId>,
    /// The words that rows must hold.
    pub filter: String,
    /// By what jobs are sorted.
    pub sort: Sort,
    /// Whether the order is turned round.
    pub reverse: bool,
    /// Lines that the log is scrolled back; 0 follows it.
    pub log_back: usize,
    /// A sentence for a moment.
    pub message: Option<(At, String)>,
    /// A sentence that stays.
    pub banner: Option<String>,
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
            Message::Update { scope, update } => self.take(scope, update),
            Message::Link(link) => self.link = link,
            Message::Answer(sentence) => self.say(sentence),
            Message::Banner(sentence) => self.banner = Some(sentence),
            Message::Gone => effects.push(Effect::Quit { keep_frame: false }),
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
            Overlay::Cancel { jobs, .. } if jobs.is_empty() => {
                Err("a question whether to cancel nothing".into())
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
            pictured: None,
            frozen: false,
            link: Link::Connecting,
            at: At(0),
            received: At(0),
            job: None,
            node: None,
            marked: BTreeSet::new(),
            filter: String::new(),
            sort: Sort::Id,
            reverse: false,
            log_back: 0,
            message: None,
            banner: None,
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
                &[Context::Jobs, Context::Lists, Context::Rows, Context::Everywhere]
            }
            View::Nodes => &[Context::Nodes, Context::Lists, Context::Rows, Context::Everywhere],
            View::Job(_) => &[Context::Log, Context::Rows, Context::Everywhere],
        }
    }

    /// How old the picture is, in milliseconds.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        self.at.since(self.received).0
    }

    /// Whether what is on the screen is old: no picture came when one should have.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.age_ms() > LATE_MS || matches!(self.link, Link::Reconnecting(_))
    }

    /// The word to type before jobs are cancelled: the number of the one, or how many they are.
    #[must_use]
    pub fn word_to_cancel(jobs: &[JobId]) -> String {
        match jobs {
            [one] => one.0.to_string(),
            several => several.len().to_string(),
        }
    }

    /// What can be cancelled: the marked jobs, or the chosen one, unless it has ended.
    fn to_cancel(&self) -> Vec<JobId> {
        let alive = |row: &&JobRow| {
            !matches!(row.state, JobState::Done | JobState::Fail | JobState::Cancel)
        };
        let asked = |row: &&JobRow| {
            if self.marked.is_empty() || matches!(self.view, View::Job(_)) {
                Some(row.job) == self.job
            } else {
                self.marked.contains(&row.job)
            }
        };
        let update = self.update.as_deref();
        let rows = update.iter().flat_map(|update| &update.jobs);
        rows.filter(asked).filter(alive).map(|row| row.job).collect()
    }

    /// The jobs that the screen lists.
    #[must_use]
    pub fn jobs(&self) -> Vec<&JobRow> {
        job_rows(self)
    }

    fn say(&mut self, sentence: impl Into<String>) {
        self.message = Some((self.at, sentence.into()));
    }

    /// A picture of what is not on the screen any more is of no use.
    fn take(&mut self, scope: Scope, update: Box<Update>) {
        if self.frozen || scope != self.view.scope() {
            return;
        }
        if self.log_back > 0 {
            // What is read stays where it is: as many lines as came are scrolled back too.
            let end = |update: &Update| update.output.as_ref().map_or(0, |output| output.next);
            let before = self.update.as_deref().map_or(0, end);
            let new = end(&update).saturating_sub(before) as usize;
            let bytes = update.output.as_ref().map_or(&[][..], |output| &output.bytes);
            self.log_back += log_lines(&bytes[bytes.len() - new.min(bytes.len())..]).len();
        }
        self.received = self.at;
        self.pictured = Some(scope);
        self.update = Some(update);
        self.log_back = self.log_back.min(self.log_lines());
        self.keep_choice();
    }

    /// Lines of the log that is shown.
    fn log_lines(&self) -> usize {
        let output = self.update.as_ref().and_then(|update| update.output.as_ref());
        output.map_or(0, |output| log_lines(&output.bytes).len())
    }

    /// A choice that is gone becomes the first row.
    fn keep_choice(&mut self) {
        let ended = |row: &&JobRow| row.state.is_ended();
        let update = self.update.as_deref();
        for row in update.iter().flat_map(|update| &update.jobs).filter(ended) {
            self.marked.remove(&row.job);
        }
        // A screen without such rows says nothing of the choice among them.
        if matches!(self.view, View::Overview | View::Jobs | View::Data) {
            let jobs: Vec<JobId> = self.jobs().iter().map(|row| row.job).collect();
            if !self.job.is_some_and(|job| jobs.contains(&job)) {
                self.job = jobs.first().copied();
            }
        }
        if matches!(self.view, View::Overview | View::Nodes) {
            let nodes: Vec<&String> =
                node_rows(self).iter().map(|node| &node.row.facts.name).collect();
            if !self.node.as_ref().is_some_and(|node| nodes.contains(&node)) {
                self.node = nodes.first().copied().cloned();
            }
        }
    }

    fn paste(&mut self, text: &str) {
        if self.overlay == Overlay::Filter {
            let plain = text.chars().filter(|c| !c.is_control());
            let room = FILTER_MAX - self.filter.chars().count();
            self.filter.extend(plain.take(room));
            self.keep_choice();
        } else {
            self.say("pasted text does nothing here");
        }
    }
}
