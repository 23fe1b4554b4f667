//! What a person can do to jobs and nodes: which deeds there are, what each would mean now, what is
//! asked before, and the command that does the same.
//!
//! Nothing here does anything. A [`Plan`] is a deed with its targets; the screen shows what would
//! follow from it, and only the typed word or Enter at that question makes requests of it.

use std::fmt::Write as _;

use gantry_model::{Action, JobChange, JobId, JobRow, JobSpec, Millis, Work};
use gantry_wire::{NodeStatus, Request, Update};

use super::asks::{About, Ask};
pub use super::library_deeds::{ADD, FOR_MODELS, LABEL, LibraryDeed};

/// Targets of one deed: what can be marked on one screen.
pub const TARGETS_MAX: usize = 128;

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// End it for good.
    Cancel,
    /// Keep what waits of it from starting.
    Hold,
    /// Let what is held go on.
    Release,
    /// Stop what runs of it and let it wait again.
    Requeue,
    /// Change a job.
    Change(JobChange),
    /// Submit the same once more.
    Again(Box<JobSpec>),
    /// Give a node no new work.
    Drain {
        /// Why, for everyone who looks.
        reason: String,
    },
    /// Give a node work again.
    Resume,
    /// Forget a node's maintenance windows.
    DropWindows,
    /// Forget a node that is lost.
    Forget,
    /// Something to the library.
    Library(LibraryDeed),
}

/// To what it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Jobs.
    Jobs(Vec<JobId>),
    /// Nodes, by name.
    Nodes(Vec<String>),
    /// What the library has, by id.
    Library(Vec<String>),
}

impl Targets {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Jobs(jobs) => jobs.len(),
            Self::Nodes(names) | Self::Library(names) => names.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their names, as commands take them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Jobs(jobs) => jobs.iter().map(ToString::to_string).collect(),
            Self::Nodes(names) | Self::Library(names) => names.clone(),
        }
    }
}

/// What can be chosen from the menu and the palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its key in the menu.
    pub key: char,
    /// Its word in the palette.
    pub verb: &'static str,
    /// What it does.
    pub words: &'static str,
    /// What has to be typed with it.
    pub value: Option<&'static str>,
}

pub(super) const fn choice(key: char, verb: &'static str, words: &'static str) -> Choice {
    Choice { key, verb, words, value: None }
}

pub(super) const fn with(
    key: char,
    verb: &'static str,
    words: &'static str,
    value: &'static str,
) -> Choice {
    Choice { key, verb, words, value: Some(value) }
}

/// What can be done to jobs.
pub const FOR_JOBS: [Choice; 10] = [
    choice('c', "cancel", "end it for good"),
    choice('h', "hold", "keep what waits of it from starting"),
    choice('r', "release", "let what is held go on"),
    choice('q', "requeue", "stop what runs, and let it wait again"),
    with('p', "priority", "larger goes first", "a whole number, as 50 or -10"),
    with('t', "time", "time limit of what starts from now on", "a time, as 2h"),
    with('e', "estimate", "how long a task will take", "a time, as 40m"),
    with('a', "at-once", "elements that may run at once", "a number from 1 on"),
    with('i', "retries", "how often a failed task starts again", "a number up to 100"),
    choice('n', "again", "submit the same once more"),
];

/// What can be done to nodes.
pub const FOR_NODES: [Choice; 4] = [
    with('d', "drain", "give it no new work; what runs may end", "why, for everyone who looks"),
    choice('u', "resume", "give it work again"),
    choice('f', "forget-windows", "forget its maintenance windows"),
    choice('x', "forget", "take it off the lists, once lost"),
];

/// A deed and its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What.
    pub deed: Deed,
    /// To what.
    pub targets: Targets,
}

/// How a line of a question is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Beside the point.
    Dim,
    /// It matters.
    Loud,
}

/// A line of a question; the higher its rank, the sooner it gives way on a small screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it says.
    pub text: String,
    /// How.
    pub tone: Tone,
    /// When it gives way.
    pub rank: u8,
}

impl Plan {
    /// The plan of a word and what was typed with it; nothing where more has to be known first.
    ///
    /// # Errors
    /// With a sentence where the value makes no sense.
    pub fn of(verb: &str, value: &str, targets: Targets) -> Result<Option<Self>, String> {
        let value = value.trim();
        let number = |what: &str| format!("{value:?} is not {what}");
        let time = || value.parse::<Millis>().map_err(|reject| reject.to_string()).map(Some);
        let none = JobChange::default();
        let deed = match verb {
            "cancel" => Deed::Cancel,
            "hold" => Deed::Hold,
            "release" => Deed::Release,
            "requeue" => Deed::Requeue,
            "priority" => {
                let priority = value.parse().map_err(|_| number("a whole number, as 50 or -10"))?;
                Deed::Change(JobChange { priority: Some(priority), ..none })
            }
            "time" => Deed::Change(JobChange { time_limit: time()?, ..none }),
            "estimate" => Deed::Change(JobChange { estimate: time()?, ..none }),
            "at-once" => match value.parse() {
                Ok(count @ 1..) => Deed::Change(JobChange { at_once_max: Some(count), ..none }),
                _ => return Err(number("a number from 1 on")),
            },
            "retries" => match value.parse() {
                Ok(count @ ..=gantry_model::limits::RETRIES_MAX) => {
                    Deed::Change(JobChange { retries: Some(count), ..none })
                }
                _ => return Err(number("a number up to 100")),
            },
            "drain" if value.is_empty() => return Err("say why, for everyone who looks".into()),
            "drain" => Deed::Drain { reason: value.to_owned() },
            "resume" => Deed::Resume,
            "forget-windows" => Deed::DropWindows,
            "forget" => Deed::Forget,
            _ => match LibraryDeed::of(verb, value)? {
                Some(deed) => Deed::Library(deed),
                None => return Ok(None),
            },
        };
        Ok(Some(Self { deed, targets }))
    }

    /// What it is called, as the head of a question.
    #[must_use]
    pub fn title(&self) -> String {
        let verb = match &self.deed {
            Deed::Cancel => "cancel",
            Deed::Hold => "hold",
            Deed::Release => "release",
            Deed::Requeue => "requeue",
            Deed::Change(_) => "change",
            Deed::Again(_) => "submit again",
            Deed::Drain { .. } => "drain",
            Deed::Resume => "resume",
            Deed::DropWindows => "forget the windows of",
            Deed::Forget => "forget",
            Deed::Library(deed) => deed.verb(),
        };
        let kind = match &self.targets {
            Targets::Jobs(_) => "jobs",
            Targets::Nodes(_) => "nodes",
            Targets::Library(_) => "models",
        };
        match self.targets.names().as_slice() {
            [one] => format!("{verb} {one}"),
            several => format!("{verb} {} {kind}", several.len()),
        }
    }

    /// What is asked of the scheduler, each with the words for its answer.
    #[must_use]
    pub fn asks(&self, key: &str) -> Vec<Ask> {
        let job = |job: JobId| {
            Some(match &self.deed {
                Deed::Cancel => Request::Cancel { job, indices: None },
                Deed::Hold => Request::Act(Action::Hold { job, indices: None }),
                Deed::Release => Request::Act(Action::Release { job, indices: None }),
                Deed::Requeue => Request::Act(Action::Requeue { job, indices: None }),
                Deed::Change(change) => {
                    Request::Act(Action::Change { job, indices: None, change: change.clone() })
                }
                Deed::Again(spec) => Request::Submit { key: key.to_owned(), spec: spec.clone() },
                Deed::Drain { .. }
                | Deed::Resume
                | Deed::DropWindows
                | Deed::Forget
                | Deed::Library(_) => return None,
            })
        };
        let node = |node: String| {
            let action = match &self.deed {
                Deed::Drain { reason } => {
                    Action::Drain { node, reason: reason.clone(), deadline: None }
                }
                Deed::Resume => Action::Resume { node },
                Deed::DropWindows => Action::DropWindows { node },
                Deed::Forget => Action::Forget { node },
                _ => return None,
            };
            Some(Request::Act(action))
        };
        let requests: Vec<Option<Request>> = match &self.targets {
            Targets::Jobs(jobs) => jobs.iter().copied().map(job).collect(),
            Targets::Nodes(nodes) => nodes.iter().cloned().map(node).collect(),
            Targets::Library(_) => Vec::new(),
        };
        let names = self.targets.names();
        let ask = |(name, request): (String, Option<Request>)| {
            let about = About::Deed(format!("{} {name}", self.verb()));
            Some(Ask { about, request: Box::new(request?) })
        };
        names.into_iter().zip(requests).filter_map(ask).collect()
    }

    const fn verb(&self) -> &'static str {
        match &self.deed {
            Deed::Cancel => "cancel",
            Deed::Hold => "hold",
            Deed::Release => "release",
            Deed::Requeue => "requeue",
            Deed::Change(_) => "change",
            Deed::Again(_) => "submit",
            Deed::Drain { .. } => "drain",
            Deed::Resume => "resume",
            Deed::DropWindows => "maintenance",
            Deed::Forget => "forget",
            Deed::Library(deed) => deed.verb(),
        }
    }

    /// The command line that does the same.
    #[must_use]
    pub fn command(&self) -> String {
        let names = self.targets.names().join(" ");
        match &self.deed {
            Deed::Change(change) => {
                let mut line = "gantry change".to_owned();
                let mut flag = |name: &str, value: Option<String>| {
                    if let Some(value) = value {
                        let _ = write!(line, " --{name} {value}");
                    }
                };
                flag("priority", change.priority.map(|value| value.to_string()));
                flag("time", change.time_limit.map(|value| value.to_string()));
                flag("estimate", change.estimate.map(|value| value.to_string()));
                flag("at-once", change.at_once_max.map(|value| value.to_string()));
                flag("retries", change.retries.map(|value| value.to_string()));
                format!("{line} {names}")
            }
            Deed::Again(spec) => submit_line(spec),
            Deed::Drain { reason } => format!("gantry drain {names} --reason {}", quoted(reason)),
            Deed::DropWindows => format!("gantry maintenance {names} --clear"),
            Deed::Library(deed) => deed.command(&self.targets),
            _ => format!("gantry {} {names}", self.verb()),
        }
    }

    /// The word that has to be typed first: for what ends work or takes away much. Enter alone does
    /// what has none.
    #[must_use]
    pub fn word(&self, update: Option<&Update>) -> Option<String> {
        let word = match &self.targets {
            Targets::Jobs(jobs) => match jobs.as_slice() {
                [one] => one.0.to_string(),
                several => several.len().to_string(),
            },
            Targets::Nodes(names) | Targets::Library(names) => names.len().to_string(),
        };
        let wide = match &self.deed {
            Deed::Cancel | Deed::Requeue => true,
            Deed::Drain { .. } => self.targets.len() > 1 || self.share(update) > 250,
            _ => false,
        };
        wide.then_some(word)
    }

    /// What part of the cluster its nodes are, in thousandths: of the GPUs, or of the cores where
    /// there are none.
    pub(super) fn share(&self, update: Option<&Update>) -> u64 {
        let Some(update) = update else { return 1000 };
        let part = |of: fn(&NodeStatus) -> u64| {
            let all: u64 = update.nodes.iter().map(of).sum();
            let some: u64 = node_rows(&self.targets, update).into_iter().map(of).sum();
            (some * 1000).checked_div(all)
        };
        let gpus = |node: &NodeStatus| node.row.facts.gpus.len() as u64;
        part(gpus)
            .filter(|share| *share > 0)
            .or_else(|| part(|node| u64::from(node.row.facts.resources.cores)))
            .unwrap_or(1000)
    }
}

pub(super) fn job_rows<'a>(targets: &Targets, update: Option<&'a Update>) -> Vec<&'a JobRow> {
    let Targets::Jobs(jobs) = targets else { return Vec::new() };
    let rows = update.into_iter().flat_map(|update| &update.jobs);
    rows.filter(|row| jobs.contains(&row.job)).collect()
}

pub(super) fn node_rows<'a>(targets: &Targets, update: &'a Update) -> Vec<&'a NodeStatus> {
    let Targets::Nodes(nodes) = targets else { return Vec::new() };
    update.nodes.iter().filter(|node| nodes.contains(&node.row.facts.name)).collect()
}

/// An argument as a shell takes it.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The command that submits a job like this one, as near as flags say it.
#[must_use]
pub fn submit_line(spec: &JobSpec) -> String {
    let Work::Command { arguments, .. } = &spec.work else {
        let Work::Builtin(operation) = &spec.work else { return String::new() };
        return format!("gantry {} (the settings of the job)", operation.name());
    };
    let mut line = format!("gantry submit --name {}", quoted(&spec.name));
    let asked = &spec.resources;
    let _ = write!(line, " --cores {}", asked.cores);
    if asked.gpus > 0 {
        let _ = write!(line, " --gpus {}", asked.gpus);
    }
    if let Some(array) = &spec.array {
        let _ = write!(line, " --array {array}");
    }
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    format!("{line} -- {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_and_its_value_make_a_plan_and_a_command() {
        let jobs = || Targets::Jobs(vec![JobId(1), JobId(2)]);
        let nodes = || Targets::Nodes(vec!["a".into()]);
        for (verb, value, targets, expected) in [
            ("cancel", "", jobs(), "gantry cancel j1 j2"),
            ("requeue", "", jobs(), "gantry requeue j1 j2"),
            ("priority", "-5", jobs(), "gantry change --priority -5 j1 j2"),
            ("time", "2h", jobs(), "gantry change --time 2h j1 j2"),
            ("retries", "3", jobs(), "gantry change --retries 3 j1 j2"),
            ("drain", "it's hot", nodes(), "gantry drain a --reason 'it'\\''s hot'"),
            ("resume", "", nodes(), "gantry resume a"),
            ("forget-windows", "", nodes(), "gantry maintenance a --clear"),
            ("forget", "", nodes(), "gantry forget a"),
        ] {
            let plan = Plan::of(verb, value, targets).unwrap().unwrap();
            assert_eq!(plan.command(), expected);
            assert_eq!(plan.asks("k").len(), plan.targets.len());
        }
        for (verb, value) in [
            ("priority", "high"),
            ("time", "soon"),
            ("at-once", "0"),
            ("retries", "300"),
            ("drain", " "),
        ] {
            assert!(Plan::of(verb, value, jobs()).is_err(), "{verb} {value}");
        }
        assert_eq!(Plan::of("again", "", jobs()), Ok(None));
    }
}
