//! An agent that will be gone at a time that is known when it starts: the end of an allocation of Slurm,
//! a virtual machine that is given back.
//!
//! The scheduler hears of it after each welcome and keeps the node free from then on, as for a
//! maintenance: no task is started that would not end before, and what runs still is stopped with its
//! checkpoint and queued again. Once the node holds nothing the agent ends, and in any case after
//! [`WITHIN`].

use std::time::{Duration, Instant};

use gantry_model::Millis;
use gantry_wire::AgentMessage;

/// How long what still runs may take to end.
const WITHIN: Duration = Duration::from_mins(2);

/// When the agent leaves; never by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leave(Option<Instant>);

impl Leave {
    /// So long from now.
    pub(crate) fn after(length: Option<Duration>) -> Self {
        Self(length.and_then(|length| Instant::now().checked_add(length)))
    }

    /// What the scheduler is told.
    pub(crate) fn message(self) -> Option<AgentMessage> {
        let left = self.0?.saturating_duration_since(Instant::now());
        let after = Millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        Some(AgentMessage::Leaves { after })
    }

    /// Whether the agent is to end now; `free` says that it holds no try.
    pub(crate) fn is_now(self, free: bool) -> bool {
        let late = self.0.and_then(|at| Instant::now().checked_duration_since(at));
        late.is_some_and(|late| free || late > WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_once_its_time_has_come_and_nothing_runs() {
        let told = |leave: Leave| match leave.message() {
            Some(AgentMessage::Leaves { after }) => Some(after.0),
            _ => None,
        };
        assert!(told(Leave::default()).is_none() && !Leave::default().is_now(true));
        let later = Leave::after(Some(Duration::from_hours(1)));
        assert!(told(later).is_some_and(|ms| ms > 3_590_000) && !later.is_now(true));
        let now = Leave::after(Some(Duration::ZERO));
        assert!(told(now) == Some(0) && now.is_now(true) && !now.is_now(false));
        let Some(past) = Instant::now().checked_sub(WITHIN + Duration::from_secs(1)) else {
            return;
        };
        assert!(Leave(Some(past)).is_now(false));
    }
}
