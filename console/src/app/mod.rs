//! The console as a pure machine: keys, pictures of the cluster, answers and time in; watches,
//! questions, deeds and the end out.
//!
//! It knows no terminal, no socket and no clock. Messages come from a live cluster, a recording, the
//! simulator or a test, and it cannot tell. Rows are chosen by what they are, not by their number, so
//! a list that changes does not move the choice to another row.

mod act;
pub mod asks;
mod consequences;
pub mod events;
pub mod filter;
mod further;
mod go;
pub mod gpus;
pub mod image;
pub mod keys;
pub mod layout;
pub mod library;
mod library_deeds;
pub mod log;
mod message;
mod older;
pub mod palette;
mod past;
mod privacy;
mod rows;
pub mod shelf;
pub mod steer;
pub mod tasks;
mod typing;

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::{At, JobId, JobRow, JobSpec, Machine, Note, Why};
use gantry_wire::{Metric, Scope, Update};

pub use asks::{About, Again, Ask};
pub use events::Events;
use further::Further;
pub use gpus::{GpuLine, Gpus};
pub use image::Viewer;
pub use keys::{Action, Context, Key, Keymap};
pub use log::Log;
pub use message::{Effect, Message, Mouse};
pub use older::Older;
pub use palette::Palette;
pub use rows::{NodeSort, Sort, gpu_busy, job_rows, log_lines, node_rows, node_word};
pub use shelf::{Shelf, Tab};
pub use steer::{Plan, Targets};
pub use tasks::Tasks;
pub use typing::choices;

/// A message stays on the screen for so long.
const MESSAGE_MS: u64 = 5000;
/// A picture older than this is late: the scheduler sends one every 5 s, changed or not.
const LATE_MS: u64 = 8000;
/// Where the line to the terminal is slow, numbers change so often.
const LEAN_EACH_MS: u64 = 3000;
/// Characters of a filter.
pub const FILTER_MAX: usize = 80;
/// Users whose names are known.
const USERS_MAX: usize = 10_000;
/// Jobs whose curves lie over one another.
pub const LAID_OVER_MAX: usize = 6;

/// What is on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Nodes, who holds them, what needs a human.
    Overview,
    /// Nodes.
    Nodes,
    /// GPUs.
    Gpus,
    /// Jobs.
    Jobs,
    /// The library and the jobs that work on it.
    Data,
    /// The event log.
    Events,
    /// One job.
    Job(JobId),
    /// An image of the library.
    Image,
}

impl View {
    /// What a console has to be sent for it.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Self::Overview => Scope::Overview,
            Self::Nodes => Scope::Nodes,
            Self::Jobs => Scope::Jobs,
            // An image lies over the data, which one comes back to.
            Self::Data | Self::Image => Scope::Data,
            Self::Job(job) => Scope::Job(job),
            Self::Gpus | Self::Events => Scope::Summary,
        }
    }

    /// Its place among those that have a filter of their own.
    const fn tab(self) -> usize {
        match self {
            Self::Overview => 0,
            Self::Nodes => 1,
            Self::Gpus => 2,
            Self::Jobs | Self::Job(_) => 3,
            Self::Data | Self::Image => 4,
            Self::Events => 5,
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
    /// A filter, or what is searched for, is being typed.
    Filter,
    /// What can be done with what is marked.
    Menu {
        /// To what.
        targets: Targets,
        /// Which line is chosen.
        at: usize,
    },
    /// The value of a deed is being typed.
    Value {
        /// The deed's word.
        choice: steer::Choice,
        /// To what.
        targets: Targets,
        /// What has been typed.
        typed: String,
    },
    /// Something is to be done, if it is confirmed.
    Confirm {
        /// What.
        plan: Plan,
        /// What has been typed.
        typed: String,
    },
    /// A command is being typed.
    Palette(Palette),
    /// Why a job waits, from this line on.
    Why {
        /// The job.
        job: JobId,
        /// The first line shown.
        top: u16,
    },
}

/// The console.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches that a person turns one by one")]
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
    /// The node whose details are shown: the chosen one, once nobody has pressed a key for a moment.
    /// A key so costs what it changes in the list, and whoever runs down a list asks for nothing.
    pub looked_at: Option<String>,
    /// The chosen GPU.
    pub gpu: Option<(String, u16)>,
    /// The chosen line of the event log.
    pub event: Option<u64>,
    /// The jobs that are marked.
    pub marked: BTreeSet<JobId>,
    /// The nodes that are marked.
    pub marked_nodes: BTreeSet<String>,
    /// By what jobs are sorted.
    pub sort: Sort,
    /// By what nodes are sorted.
    pub node_sort: NodeSort,
    /// Whether the order is turned round.
    pub reverse: bool,
    /// The first row of the list that is shown.
    pub top: usize,
    /// Columns of a table that are skipped at the left.
    pub sideways: u16,
    /// The output on the screen.
    pub log: Log,
    /// All GPUs.
    pub gpus: Gpus,
    /// The event log.
    pub events: Events,
    /// Why jobs wait, or why that is not known.
    pub why: BTreeMap<JobId, Result<Box<Why>, String>>,
    /// What was submitted.
    pub specs: BTreeMap<JobId, Box<JobSpec>>,
    /// Curves of jobs.
    pub metrics: BTreeMap<JobId, Vec<Metric>>,
    /// Jobs whose curves are drawn over the one on the screen.
    pub laid_over: Vec<JobId>,
    /// The tasks of a job.
    pub tasks: Tasks,
    /// Jobs older than those in the picture.
    pub older: Older,
    /// Nodes behind those in the picture, and how many of them stand in it.
    further: Further,
    further_shown: usize,
    /// What the library holds.
    pub shelf: Shelf,
    /// The image that is open.
    pub viewer: Option<Box<Viewer>>,
    /// The lines of the event log about a node.
    pub node_notes: Option<(String, Vec<Note>)>,
    /// A sentence for a moment.
    pub message: Option<(At, String)>,
    /// A sentence that stays.
    pub banner: Option<String>,
    /// Whether nothing may be changed from here.
    pub read_only: bool,
    /// Whether users and names are hidden.
    pub privacy: bool,
    /// Whether the mouse is listened to.
    pub mouse: bool,
    /// Whether the terminal takes bytes slowly.
    pub lean: bool,
    /// Whether something is to be shown at once, and not with the next second.
    pub urgent: bool,
    /// Lines of the palette that were carried out, the newest last.
    pub history: Vec<String>,
    /// The first character of a pair.
    pub pending: Option<char>,
    filters: [String; 6],
    ranks: Option<(JobId, Vec<GpuLine>)>,
    /// Everyone whose name was seen, so that it can be hidden in sentences.
    users: BTreeSet<String>,
    past: past::Past,
    asked: BTreeMap<About, asks::Asked>,
    before: Vec<View>,
    again: u64,
    /// Images that were opened.
    opening: u64,
}

impl Machine for App {
    type Event = Message;
    type Effect = Effect;

    fn apply(&mut self, at: At, event: Message, effects: &mut Vec<Effect>) {
        self.at = at;
        let pressed = matches!(event, Message::Key(_) | Message::Mouse(..));
        self.urgent |=
            !matches!(event, Message::Update { .. } | Message::Answer { .. } | Message::Tick);
        match event {
            Message::Key(key) => self.key(key, effects),
            Message::Mouse(mouse, x, y) => self.mouse(mouse, x, y, effects),
            Message::Paste(text) => self.paste(&text),
            Message::Resize(columns, rows) => self.size = (columns, rows),
            Message::Update { scope, update } => self.take(scope, update),
            Message::Link(link) => self.linked(link),
            Message::Answer { about, reply } => self.answered(about, *reply, effects),
            Message::Library(told) => self.told(told),
            Message::Said(sentence) => self.say(sentence),
            Message::Banner(sentence) => self.banner = Some(sentence),
            Message::Lean(lean) => {
                self.lean = lean;
                // Strips that scroll change every cell.
                self.gpus.sweep |= lean;
            }
            Message::Gone => effects.push(Effect::Quit { keep_frame: false }),
            Message::Tick => {}
        }
        let over = |(since, _): &(At, String)| at.since(*since).0 > MESSAGE_MS;
        if self.message.as_ref().is_some_and(over) {
            self.message = None;
        }
        if (!pressed || self.looked_at.is_none()) && self.looked_at != self.node {
            self.looked_at.clone_from(&self.node);
            self.urgent = true;
        }
        self.settle();
        self.ask_what_is_due(effects);
        self.ask_the_library(effects);
    }

    fn check(&self) -> Result<(), String> {
        match &self.overlay {
            Overlay::Menu { .. } | Overlay::Value { .. } | Overlay::Confirm { .. }
                if self.read_only =>
            {
                Err("a read-only console asks what to do".into())
            }
            Overlay::Menu { targets, .. } | Overlay::Value { targets, .. }
                if targets.is_empty() =>
            {
                Err("a question about nothing".into())
            }
            Overlay::Confirm { plan, .. } if plan.targets.is_empty() => {
                Err("a question about nothing".into())
            }
            _ if self.filter().chars().count() > FILTER_MAX => Err("the filter is too long".into()),
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
            looked_at: None,
            gpu: None,
            event: None,
            marked: BTreeSet::new(),
            marked_nodes: BTreeSet::new(),
            sort: Sort::Id,
            node_sort: NodeSort::Name,
            reverse: false,
            top: 0,
            sideways: 0,
            log: Log::default(),
            gpus: Gpus::default(),
            events: Events::default(),
            why: BTreeMap::new(),
            specs: BTreeMap::new(),
            metrics: BTreeMap::new(),
            laid_over: Vec::new(),
            tasks: Tasks::default(),
            older: Older::default(),
            further: Further::default(),
            further_shown: 0,
            shelf: Shelf::default(),
            viewer: None,
            node_notes: None,
            message: None,
            banner: None,
            read_only: false,
            privacy: false,
            mouse: false,
            lean: false,
            urgent: false,
            history: Vec::new(),
            pending: None,
            filters: Default::default(),
            ranks: None,
            users: BTreeSet::new(),
            past: past::Past::default(),
            asked: BTreeMap::new(),
            before: Vec::new(),
            again: 0,
            opening: 0,
        }
    }

    /// Where keys are looked for, the nearest first.
    #[must_use]
    pub fn contexts(&self) -> &'static [Context] {
        match self.view {
            View::Jobs => &[Context::Jobs, Context::Lists, Context::Rows, Context::Everywhere],
            View::Data if self.shelf.tab == Tab::Work => {
                &[Context::Data, Context::Jobs, Context::Lists, Context::Rows, Context::Everywhere]
            }
            View::Data => &[Context::Data, Context::Lists, Context::Rows, Context::Everywhere],
            View::Image => &[Context::Image, Context::Everywhere],
            View::Overview | View::Nodes => {
                &[Context::Nodes, Context::Lists, Context::Rows, Context::Everywhere]
            }
            View::Gpus => &[Context::Gpus, Context::Lists, Context::Rows, Context::Everywhere],
            View::Events => &[Context::Events, Context::Lists, Context::Rows, Context::Everywhere],
            View::Job(_) => &[Context::Log, Context::Rows, Context::Everywhere],
        }
    }

    /// The words that rows must hold on this screen.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filters[self.view.tab()]
    }

    /// The scheduler's time now, as far as the picture tells it.
    #[must_use]
    pub fn now(&self) -> At {
        let Some(update) = &self.update else { return At(0) };
        At(update.at.0 + if self.frozen { 0 } else { self.age_ms() })
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

    /// The jobs that the screen lists.
    #[must_use]
    pub fn jobs(&self) -> Vec<&JobRow> {
        job_rows(self)
    }

    /// The GPUs that a job holds, where they are known.
    #[must_use]
    pub fn ranks_of(&self, job: JobId) -> Option<&[GpuLine]> {
        self.ranks.as_ref().filter(|(known, _)| *known == job).map(|(_, gpus)| gpus.as_slice())
    }

    fn say(&mut self, sentence: impl Into<String>) {
        self.urgent = true;
        self.message = Some((self.at, sentence.into()));
    }

    fn linked(&mut self, link: Link) {
        if self.link != link {
            // What was on its way is lost with the connection.
            self.forget_asked(|about| !matches!(about, About::Deed(_)));
        }
        self.link = link;
    }

    /// A picture of what is not on the screen any more is of no use.
    fn take(&mut self, scope: Scope, mut update: Box<Update>) {
        if scope != self.view.scope() {
            return;
        }
        self.past.keep(scope, &update);
        let (jobs, owners) = (update.jobs.iter(), update.owners.iter());
        for user in jobs.map(|row| &row.user).chain(owners.map(|row| &row.user)) {
            if self.users.len() < USERS_MAX && !self.users.contains(user) {
                self.users.insert(user.clone());
            }
        }
        let first = self.pictured != Some(scope);
        let early = self.lean && !first && self.age_ms() < LEAN_EACH_MS;
        if self.frozen || early {
            return;
        }
        self.urgent |= first;
        if let (View::Job(job), Some(output)) = (self.view, &update.output) {
            self.log.take(job, output);
        }
        self.received = self.at;
        self.pictured = Some(scope);
        self.further_shown = 0;
        if scope == Scope::Nodes {
            let pictured = update.nodes.len();
            self.further.add_to(&mut update);
            self.further_shown = update.nodes.len() - pictured;
        }
        self.update = Some(update);
        self.keep_choice();
    }
}
