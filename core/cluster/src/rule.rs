//! The rules by which a node takes a task or does not: one function for deciding and explaining.

use std::fmt;

use gantry_model::{At, JobId, MemoryMib, Millis, NodeState, Resources, Role, Service, Sharing};

use crate::kind::Kind;
use crate::node::Node;
use crate::room::Room;

/// A task that says nothing of its length does not start so close before a maintenance window.
const WINDOW_HORIZON: Millis = Millis::from_seconds(86_400);

/// The first rule that says no. Later ones are closer to a yes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// The job names another node.
    Pinned,
    /// The work wants a node with this role.
    Role(Role),
    /// It has no such label.
    Label(String),
    /// It has too little even when empty.
    Small(Part),
    /// It is not connected.
    State(NodeState),
    /// A person or the cluster keeps work from it.
    Service { word: &'static str, reason: String },
    /// A maintenance window begins too soon, or has begun.
    Window { from: At, begun: Phase },
    /// It has to end tries that were given up.
    Strays(usize),
    /// A task there bears no other beside it, or this one bears none.
    Alone(Who),
    /// Too little is free.
    Short(Part),
    /// What is free is kept for another job.
    Kept(JobId),
}

/// Whether a window has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Ahead,
    Begun,
}

/// Who wants a node alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    There,
    Asking,
}

/// The part of an amount that is short, what was asked and what is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Gpus {
        asked: u32,
        here: u32,
    },
    Cores {
        asked: u32,
        here: u32,
    },
    Memory {
        asked: MemoryMib,
        here: MemoryMib,
    },
    Scratch {
        asked: MemoryMib,
        here: MemoryMib,
    },
    /// Gpus are there, but not of the kind or not with so much of them free.
    Devices {
        asked: u32,
        here: u32,
    },
}

impl Part {
    /// What of an ask is short in a room, if anything is.
    fn short(asked: &Resources, free: &Resources) -> Option<Self> {
        if free.gpus < asked.gpus {
            Some(Self::Gpus { asked: asked.gpus, here: free.gpus })
        } else if free.cores < asked.cores {
            Some(Self::Cores { asked: asked.cores, here: free.cores })
        } else if free.memory < asked.memory {
            Some(Self::Memory { asked: asked.memory, here: free.memory })
        } else if free.scratch < asked.scratch {
            Some(Self::Scratch { asked: asked.scratch, here: free.scratch })
        } else {
            None
        }
    }

    /// A measure that grows with how little is missing; the number after it is what is there.
    pub(crate) const fn here(&self) -> u64 {
        match self {
            Self::Gpus { here, .. } | Self::Cores { here, .. } | Self::Devices { here, .. } => {
                *here as u64
            }
            Self::Memory { here, .. } | Self::Scratch { here, .. } => here.0,
        }
    }
}

impl Node {
    /// The first rule by which this node does not take one task of a kind now, if there is one.
    pub(crate) fn refuses(&self, kind: &Kind, role: Option<Role>, at: At) -> Option<Rule> {
        self.never_takes(kind, role)
            .or_else(|| self.is_closed(kind, at))
            .or_else(|| self.is_short(kind, &self.room))
    }

    /// Whether it could never take a task of a kind, whatever runs on it.
    pub(crate) fn never_takes(&self, kind: &Kind, role: Option<Role>) -> Option<Rule> {
        if kind.node.as_ref().is_some_and(|name| name != self.name()) {
            return Some(Rule::Pinned);
        }
        if let Some(role) = role.filter(|role| !self.facts.roles.contains(role)) {
            return Some(Rule::Role(role));
        }
        if let Some(label) = kind.labels.iter().find(|label| !self.facts.labels.contains(*label)) {
            return Some(Rule::Label(label.clone()));
        }
        match self.is_short(kind, &self.whole) {
            Some(Rule::Short(part)) => Some(Rule::Small(part)),
            other => other,
        }
    }

    /// Whether it takes no new work now, however empty it is.
    pub(crate) fn is_closed(&self, kind: &Kind, at: At) -> Option<Rule> {
        if self.state != NodeState::Up {
            return Some(Rule::State(self.state));
        }
        if let Service::Drain { reason, .. } | Service::Quarantine { reason } = &self.service {
            let word = self.service.word();
            return Some(Rule::Service { word, reason: reason.clone() });
        }
        if let Some(reason) = self.unfit() {
            return Some(Rule::Service { word: "unfit", reason });
        }
        let ends = at.after(kind.duration.unwrap_or(WINDOW_HORIZON));
        if let Some(window) = self.windows.iter().find(|window| window.from < ends) {
            let begun = if window.from <= at { Phase::Begun } else { Phase::Ahead };
            return Some(Rule::Window { from: window.from, begun });
        }
        (!self.strays.is_empty()).then_some(Rule::Strays(self.strays.len()))
    }

    /// What of a room is short for one task of a kind.
    pub(crate) fn is_short(&self, kind: &Kind, room: &Room) -> Option<Rule> {
        if room.exclusive > 0 {
            return Some(Rule::Alone(Who::There));
        }
        if kind.sharing == Sharing::Exclusive && room.leases > 0 {
            return Some(Rule::Alone(Who::Asking));
        }
        let share = matches!(kind.gpu.part, gantry_model::GpuPart::Share(_));
        let gpus = if share { 0 } else { kind.resources.gpus };
        let asked = Resources { gpus, ..kind.resources };
        if let Some(part) = Part::short(&asked, &room.free) {
            return Some(Rule::Short(part));
        }
        if kind.resources.gpus == 0 || room.capacity(&self.facts.gpus, kind) > 0 {
            return None;
        }
        let suit = self.facts.gpus.iter().zip(&room.used_permille);
        let suit = suit.filter(|(gpu, used)| **used == 0 && crate::room::suits(gpu, &kind.gpu));
        let here = suit.count() as u32;
        Some(Rule::Short(Part::Devices { asked: kind.resources.gpus, here }))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("the job names another node"),
            Self::Role(role) => write!(f, "is no {} node", word(*role)),
            Self::Label(label) => write!(f, "has no label {label}"),
            Self::Small(part) => write!(f, "has {part} in all"),
            Self::State(state) => write!(f, "is {}", state.word()),
            Self::Service { word, reason } => write!(f, "{word}: {reason}"),
            Self::Window { begun: Phase::Begun, .. } => f.write_str("is under maintenance"),
            Self::Window { begun: Phase::Ahead, .. } => {
                f.write_str("a maintenance window begins before the task would end")
            }
            Self::Strays(count) => write!(f, "has to end {count} earlier tries first"),
            Self::Alone(Who::There) => f.write_str("is held by a task that has it alone"),
            Self::Alone(Who::Asking) => f.write_str("is not empty, and the job wants it alone"),
            Self::Short(part) => write!(f, "has {part} free"),
            Self::Kept(job) => write!(f, "is kept for {job}"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpus { asked, here } => write!(f, "{here} of {asked} gpus"),
            Self::Cores { asked, here } => write!(f, "{here} of {asked} cores"),
            Self::Memory { asked, here } => write!(f, "{here} of {asked} memory"),
            Self::Scratch { asked, here } => write!(f, "{here} of {asked} scratch"),
            Self::Devices { asked, here } => {
                write!(f, "{here} of {asked} gpus of the kind asked for")
            }
        }
    }
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Cpu => "cpu",
        Role::Gpu => "gpu",
        Role::Ingest => "ingest",
    }
}

/// Why a job finds no place, in a sentence: by the rule that is closest to a yes, and how many of
/// the nodes it holds for.
pub(crate) fn sentence(rules: &[(&str, Rule)]) -> String {
    let Some((name, best)) = rules.iter().max_by_key(|(_, rule)| depth(rule)) else {
        return "no node has joined yet".into();
    };
    let alike =
        |rule: &&(&str, Rule)| std::mem::discriminant(&rule.1) == std::mem::discriminant(best);
    let same: Vec<&(&str, Rule)> = rules.iter().filter(alike).collect();
    let count = same.len();
    let most = |rule: &&&(&str, Rule)| match &rule.1 {
        Rule::Short(part) | Rule::Small(part) => (part.here(), 0),
        _ => (0, 0),
    };
    match (best, same.iter().max_by_key(most)) {
        (Rule::Short(_), Some((_, Rule::Short(part)))) => match part {
            Part::Gpus { asked, here } => {
                format!("needs {asked} gpus on one node; the most free is {here}, of {count} nodes")
            }
            Part::Devices { asked, here } => format!(
                "needs {asked} gpus of the kind it asks for; the most free is {here}, of {count} nodes"
            ),
            Part::Cores { asked, here } => {
                format!("needs {asked} cores; the most free is {here}, of {count} nodes")
            }
            Part::Memory { asked, here } => {
                format!("needs {asked} of memory; the most free is {here}, of {count} nodes")
            }
            Part::Scratch { asked, here } => {
                format!("needs {asked} of scratch; the most free is {here}, of {count} nodes")
            }
        },
        (Rule::Small(_), _) => format!("no one of {count} nodes is large enough"),
        (_, _) if count == 1 => format!("{name} {best}"),
        _ => format!("each of {count} nodes {best}"),
    }
}

/// How close to a yes a rule is.
const fn depth(rule: &Rule) -> u8 {
    match rule {
        Rule::Pinned => 0,
        Rule::Role(_) => 1,
        Rule::Label(_) => 2,
        Rule::Small(_) => 3,
        Rule::State(NodeState::Lost) => 4,
        Rule::State(_) => 5,
        Rule::Service { .. } => 6,
        Rule::Window { .. } => 7,
        Rule::Strays(_) => 8,
        Rule::Alone(_) => 9,
        Rule::Short(_) => 10,
        Rule::Kept(_) => 11,
    }
}
