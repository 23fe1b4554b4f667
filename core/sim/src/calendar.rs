//! What will happen, by true time. Of what happens at the same time the first noted comes first,
//! so that a seed has one course.

use std::collections::BTreeMap;

use gantry_model::{At, TryId};

use crate::faults::Fault;
use crate::network::Direction;

/// Something that will happen.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// Keep-alives and idle timeouts, each second.
    Beat,
    /// The checks that look at everything.
    Look,
    /// The first message of a lane may arrive.
    Deliver { session: u64, direction: Direction },
    /// One side of a session learns that the other has closed it.
    Closed { session: u64, direction: Direction },
    /// An agent calls the scheduler.
    Call { server: usize, life: u32 },
    /// The call was taken.
    Taken { server: usize, life: u32, scheduler_life: u32 },
    /// Word of an agent that is gone reaches the scheduler.
    Farewell { server: usize, session: u64, holds: Vec<TryId> },
    /// The scheduler takes what is waiting.
    Drain { life: u32 },
    /// The scheduler's journal is synced.
    Synced { life: u32 },
    /// A timer of the scheduler.
    SchedulerTimer { life: u32 },
    /// The spool of an agent is synced.
    SpoolSynced { server: usize, life: u32 },
    /// A timer of an agent.
    AgentTimer { server: usize, life: u32 },
    /// An agent is started again.
    AgentStart { server: usize },
    /// A process says that it has started.
    Begun { server: usize, try_id: TryId },
    /// A process ends, if that is still how and when it ends.
    Ends { server: usize, try_id: TryId, number: u64 },
    /// A test of a GPU, or of a node, has ended.
    Tested { server: usize, life: u32, number: u64, gpu: Option<String> },
    /// A user does something.
    UserActs,
    /// A user who got no answer asks again.
    AsksAgain { request: u64 },
    /// A fault strikes.
    Strikes(Fault),
    /// A fault is over.
    Over(Fault),
}

/// The calendar.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calendar {
    entries: BTreeMap<(At, u64), Happening>,
    noted: u64,
}

impl Calendar {
    /// Notes what will happen.
    pub(crate) fn note(&mut self, at: At, happening: Happening) {
        self.noted += 1;
        self.entries.insert((at, self.noted), happening);
    }

    /// Takes the next entry, unless it comes after `end`.
    pub(crate) fn next(&mut self, end: At) -> Option<(At, Happening)> {
        let entry = self.entries.first_entry()?;
        let (at, _) = *entry.key();
        (at <= end).then(|| (at, entry.remove()))
    }
}
