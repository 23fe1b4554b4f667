//! What happened, in short lines: the last of them stand in the report of a failure, and all of
//! them are hashed, so that two runs of a seed can be compared by one number.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};

use gantry_model::{At, JobId, Millis, TaskId, TryId};

use crate::faults::Fault;

/// Lines that a report shows.
const RECENT_MAX: usize = 40;

/// The name of a server.
pub(crate) fn name(server: usize) -> String {
    format!("node{:02}", server + 1)
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Line {
    Asked { request: u64 },
    Answered { request: u64 },
    Refused { request: u64 },
    Submitted { job: JobId },
    Ended { job: JobId },
    Launched { server: usize, task: TaskId, try_id: TryId },
    ToldToStop { server: usize, try_id: TryId },
    Acknowledged { server: usize, try_id: TryId },
    Began { server: usize, task: TaskId, try_id: TryId },
    Exited { server: usize, try_id: TryId, code: u8 },
    SaidUp { server: usize, holds: usize },
    SaidDown { server: usize },
    SaidGone { server: usize, holds: usize },
    SettingsRead,
    Connected { server: usize, session: u64 },
    Disconnected { server: usize, session: u64 },
    AgentStarted { server: usize, live: usize, ended: usize },
    SchedulerCrashed { lost: usize },
    SchedulerStarted,
    Struck(Fault),
    Over(Fault),
    Calm,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Asked { request } => write!(f, "request {request} is sent"),
            Self::Answered { request } => write!(f, "request {request} is answered"),
            Self::Refused { request } => write!(f, "request {request} is refused"),
            Self::Submitted { job } => write!(f, "{job} is submitted"),
            Self::Ended { job } => write!(f, "{job} has ended"),
            Self::Launched { server, task, try_id } => {
                write!(f, "{task} is ordered to {} as {try_id}", name(server))
            }
            Self::ToldToStop { server, try_id } => {
                write!(f, "{} is told to stop {try_id}", name(server))
            }
            Self::Acknowledged { server, try_id } => {
                write!(f, "the end of {try_id} is acknowledged to {}", name(server))
            }
            Self::Began { server, task, try_id } => {
                write!(f, "{task} begins on {} as {try_id}", name(server))
            }
            Self::Exited { server, try_id, code } => {
                write!(f, "{try_id} exits with {code} on {}", name(server))
            }
            Self::SaidUp { server, holds } => {
                write!(f, "the cluster hears that {} is up with {holds} tries", name(server))
            }
            Self::SaidDown { server } => {
                write!(f, "the cluster hears that {} is down", name(server))
            }
            Self::SaidGone { server, holds } => {
                let name = name(server);
                write!(
                    f,
                    "the cluster hears that the agent of {name} is gone, {holds} tries live on"
                )
            }
            Self::SettingsRead => f.write_str("the settings are read again"),
            Self::Connected { server, session } => {
                write!(f, "{} opens session {session}", name(server))
            }
            Self::Disconnected { server, session } => {
                write!(f, "{} leaves session {session}", name(server))
            }
            Self::AgentStarted { server, live, ended } => {
                write!(f, "the agent of {} starts, {live} live, {ended} ended", name(server))
            }
            Self::SchedulerCrashed { lost } => {
                write!(f, "the scheduler crashes and loses {lost} records that were not synced")
            }
            Self::SchedulerStarted => f.write_str("the scheduler starts"),
            Self::Struck(fault) => write!(f, "fault: {fault}"),
            Self::Over(fault) => write!(f, "over: {fault}"),
            Self::Calm => f.write_str("users and faults stop"),
        }
    }
}

/// FNV-1a over 64 bits: small, and the same on every machine.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// The lines.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    start: At,
    recent: VecDeque<(At, Line)>,
    pub(crate) digest: u64,
    pub(crate) lines: u64,
}

impl Trace {
    pub(crate) fn new(start: At) -> Self {
        Self { start, recent: VecDeque::new(), digest: 0xcbf2_9ce4_8422_2325, lines: 0 }
    }

    pub(crate) fn write(&mut self, at: At, line: Line) {
        let mut hasher = Fnv(self.digest);
        (at, line).hash(&mut hasher);
        self.digest = hasher.finish();
        self.lines += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((at, line));
    }

    /// The last lines for a report.
    pub(crate) fn recent(&self) -> Vec<String> {
        let show = |(at, line): &(At, Line)| format!("{:>12} {line}", self.after(*at).to_string());
        self.recent.iter().map(show).collect()
    }

    /// The time since the start.
    pub(crate) fn after(&self, at: At) -> Millis {
        at.since(self.start)
    }
}
