//! The queue between whoever adds a line to the event log and the thread that sends it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gantry_model::Note;

use super::Target;

/// Lines that wait: half a megabyte. Beyond that the oldest give way.
pub(super) const WAITING_MAX: usize = 1000;

/// A line that waits.
pub(super) struct Waiting {
    pub(super) note: Note,
    /// When it was handed in.
    pub(super) since: Instant,
    /// Lines before it that nobody has been told of.
    pub(super) dropped: u64,
}

/// Where lines are sent now.
pub(super) struct Way {
    pub(super) url: String,
    /// Another one whenever this has changed.
    pub(super) number: u64,
}

#[derive(Default)]
struct State {
    target: Option<Target>,
    lines: VecDeque<(Note, Instant)>,
    /// Lines that were given up, since one was taken.
    untold: u64,
    dropped: u64,
    closed: Closed,
    /// Rises with each change of the target, and with the end.
    number: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Closed {
    #[default]
    Open,
    Closed,
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    pub(super) fn new(target: Option<Target>) -> Self {
        let state = State { target, ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, where there is a target that wants it.
    pub(super) fn offer(&self, note: &Note) {
        let mut state = self.state();
        if state.target.as_ref().is_none_or(|target| note.level < target.least) {
            return;
        }
        if state.lines.len() >= WAITING_MAX {
            state.lines.pop_front();
            state.untold += 1;
            state.dropped += 1;
        }
        state.lines.push_back((note.clone(), Instant::now()));
        drop(state);
        self.changed.notify_one();
    }

    /// Changes the target; without one nothing waits.
    pub(super) fn set(&self, target: Option<Target>) {
        let mut state = self.state();
        if target.is_none() {
            state.lines.clear();
        }
        state.target = target;
        state.number += 1;
        drop(state);
        // Whoever waits for the next try of the old one tries the new one.
        self.changed.notify_one();
    }

    /// Ends the thread that takes lines.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = Closed::Closed;
        state.number += 1;
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for the next line; nothing once the queue is closed.
    pub(super) fn next(&self) -> Option<Waiting> {
        let mut state = self.state();
        loop {
            if state.closed == Closed::Closed {
                return None;
            }
            if let Some((note, since)) = state.lines.pop_front() {
                let dropped = std::mem::take(&mut state.untold);
                return Some(Waiting { note, since, dropped });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A line was given up, and with it the word of those before it.
    pub(super) fn lost(&self, waiting: &Waiting) {
        let mut state = self.state();
        state.untold += waiting.dropped + 1;
        state.dropped += 1;
    }

    /// Where lines are sent now; nowhere once the queue is closed.
    pub(super) fn way(&self) -> Option<Way> {
        let state = self.state();
        let open = state.target.as_ref().filter(|_| state.closed == Closed::Open);
        open.map(|target| Way { url: target.url.clone(), number: state.number })
    }

    /// Sleeps, but not through a change since the way with this number was asked for.
    pub(super) fn sleep(&self, time: Duration, number: u64) {
        let state = self.state();
        let same = |state: &mut State| state.number == number;
        // What is waited for is only time: whether it has passed does not matter to the caller.
        drop(self.changed.wait_timeout_while(state, time, same));
    }

    /// Lines that wait, and lines that were given up.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.lines.len() as u64, state.dropped)
    }
}
